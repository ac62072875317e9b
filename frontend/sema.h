/* sema.h: what the sema_*.c files share. Nobody else includes it.
 *
 * The meaning of a model is found by running it: functions are called, loops
 * over consts are run, and every operation on a tensor appends a node to the
 * entry being built. Numbers, strings and functions are known while compiling;
 * only tensors end up in the IR. Sections in the order of the files: value,
 * tensor, type, place, expr, index, builtin, random, call, stmt, loop, slot,
 * minimize, entry, mesh, sema. */
#ifndef MOEC_SEMA_H
#define MOEC_SEMA_H

#include "ast.h"
#include "frontend.h"

enum {
  MAX_CALLS = 64,       /* functions called inside one another */
  MAX_EVAL_DEPTH = 500, /* expressions inside one another, calls included */
  MAX_STEPS = 1000000,  /* expressions evaluated in all */
  MAX_NODES = 500000    /* nodes made in all */
};

typedef struct Sema Sema;
typedef struct Builtin Builtin;

/* ---- values -------------------------------------------------------------- */

typedef enum ValKind {
  VAL_ERROR, /* reported already; whatever uses it keeps quiet */
  VAL_BOOL,
  VAL_INT,
  VAL_FLOAT,
  VAL_STRING,
  VAL_FN,
  VAL_TENSOR,
  VAL_TUPLE, /* several results; none: a call that returns nothing */
  VAL_TYPE,
  VAL_FREEZE /* the optimiser that leaves a parameter as it is */
} ValKind;

typedef struct Local Local;
typedef VEC(Local) LocalVec;

/* What `..` stands for in a function. */
typedef struct Lead {
  bool known;
  int n;
  Dim dims[MAX_RANK];
  Span span; /* the type that said so */
} Lead;

/* A function value: a function of the model, with the arguments of its first
 * list where it has two, or a builtin: a row of the table, an elementwise op, a
 * cast. */
typedef struct Fn {
  const Decl *decl; /* NULL: a builtin */
  bool bound;       /* the first list is given */
  LocalVec locals;  /* its arguments and dims */
  Lead lead;
  const Builtin *builtin;
  bool is_op, is_cast;
  OpKind op;
  Dtype dtype;
} Fn;

typedef struct Val Val;
struct Val {
  ValKind kind;
  bool ragged; /* VAL_INT: the size of a ragged dim */
  union {
    bool b;
    int64_t i;
    double f;
    Sym s;
    const Fn *fn;
    const Type *type;
    Value *tensor;
    struct {
      Val *items;
      uint32_t n;
    } tuple;
  };
};

/* A value and where it was written. */
typedef struct Item {
  Name name; /* of a named argument */
  Val val;
  Span span;
} Item;
typedef VEC(Item) ItemVec;

typedef struct SlotUse SlotUse;

/* A name of a function or block. */
struct Local {
  Sym name;
  Val val;
  Span span;
  SlotUse *slot; /* what `set` changes; NULL for all else */
};

typedef struct Scope {
  struct Scope *up; /* NULL: the function's outermost */
  LocalVec locals;
} Scope;

/* A loop's carries while its body runs. */
typedef struct Carry {
  Sym name;
  Span span;
  Item now, next;
  bool is_set;   /* next, in this turn */
  bool ever_set; /* in any turn */
} Carry;
typedef VEC(Carry) CarryVec;

typedef struct LoopState {
  bool is_scan;
  CarryVec carries;
  bool yielded;
  Span yield_at;
  ItemVec yields;
} LoopState;

/* One call being run. */
typedef struct Frame {
  struct Frame *up;
  const Decl *decl; /* the function or entry; NULL at the top */
  Span call;        /* where it was called */
  Sym path;         /* of parameters made here: "lm/moe/gate" */
  Scope *scope;     /* innermost */
  Lead lead;
  Sym let;         /* the let whose value is being worked out, or NULL */
  LoopState *loop; /* innermost of this frame, or NULL */
  bool returned;
  Val result;
  Span returned_at;
} Frame;

/* A scan's body being built: operands taken in from outside. */
typedef struct ScanState {
  struct ScanState *up;
  Region *body;
  Value *index; /* i32[] */
  int64_t length;
  ValueVec outside, inside; /* invariants: operand and body parameter */
} ScanState;

/* ---- an entry being built ------------------------------------------------ */

/* A slot as one entry sees it. */
struct SlotUse {
  Slot *slot;
  Span span, call; /* the declaration, the call that led there */
  Sym layer;       /* of what updates it */
  Value *before;   /* the entry's parameter */
  Value *after;    /* NULL: not changed */
  Span set_at;
};

typedef struct Output {
  Sym name;
  Value *value;
  Span span;
} Output;
typedef VEC(Output) OutputVec;

typedef struct Build {
  Entry *entry;
  const Decl *decl;   /* NULL: init, reset */
  Sym base;           /* the entry's name without the size's suffix */
  bool training;      /* it minimizes */
  bool starting;      /* init and reset: there are no steps yet */
  Value *step, *seed; /* made when first used */
  VEC(SlotUse *) slots;
  OutputVec options; /* used so far: name and parameter */
  OutputVec reports, probes;
  Map draws;         /* path -> how often random_bits was called there + 1 */
  uint32_t groups;   /* recompute blocks so far */
  Span minimized;    /* file 0: not yet */
  uint32_t declared; /* slots there were at that time */
  Value *loss, *grad_norm, *ok;
} Build;

typedef struct Global {
  const Decl *decl;
  Val val; /* of a const */
  enum { GLOBAL_NEW, GLOBAL_BUSY, GLOBAL_DONE } state;
  const char *define; /* from -D; NULL: none */
} Global;
typedef VEC(Global *) GlobalVec;

struct Sema {
  Ctx *cx;
  const FeOptions *o;
  Module *m;
  Map files;   /* real path -> anything, of files loaded */
  Map globals; /* name -> Global */
  GlobalVec all;
  DeclVec axes, entries;
  int64_t *axis_sizes; /* as `axes`; those of more than 1 are the module's */
  Map placed;          /* value whose placement is written -> Span of that */
  Map slots; /* path -> SlotUse, the first */
  Frame *frame, top;
  Scope top_scope;
  ScanState *scan; /* NULL outside of scans */
  Build *build;    /* NULL outside of entries */
  Build *init, *reset;
  Builder b;
  bool in_optimiser; /* states are the optimiser's */
  Value *where; /* bool[] under which `set` takes place; NULL: always */
  uint32_t calls, depth, steps, nodes;
  bool stopped;     /* a limit was passed and reported */
  Map sites;        /* site number -> its key, a Sym */
  Map reported;     /* hash of a span -> anything */
  bool muted;       /* the last error was dropped; so are its notes */
  VEC(Frame) chain; /* of the last error, told after its notes */
};

/* ---- sema_value.c: values, names, diagnostics ---------------------------- */

extern const Val val_error;
Val val_bool(bool b);
Val val_int(int64_t i);
Val val_float(double f);
Val val_string(Sym s);
Val val_type(Sema *S, Type t);
Val val_tensor(Value *v); /* val_error for NULL */
Val val_tuple(Sema *S, const Val *items, uint32_t n);
Val val_fn(Sema *S, Fn fn);
bool val_is_number(Val v);     /* int or float */
double val_number(Val v);      /* of a number */
Sym val_text(Sema *S, Val v);  /* "f32[2, 3]", "the integer 3" */
Sym val_plain(Sema *S, Val v); /* the same, but "3" */

/* Reports once a place; false where it was reported before, and then the notes
 * that follow are dropped too. The calls that led here are added. */
bool fe_error(Sema *S, Span s, const char *fmt, ...) PRINTF_LIKE(3, 4);
void fe_note(Sema *S, Span s, const char *fmt, ...) PRINTF_LIKE(3, 4);
void fe_warning(Sema *S, Span s, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Ends the last error's notes: call before anyone else reports. */
void fe_flush(Sema *S);
/* Treats what was recorded last as if fe_error had: dropped where its place
 * had an error already, else with the calls that led here. */
void fe_settle(Sema *S);

void scope_push(Sema *S, Scope *scope);
void scope_pop(Sema *S);
/* Adds a name to the innermost scope; its being there already is an error. The
 * pointer is good until the next name. */
Local *scope_add(Sema *S, Name name, Val val);
Local *scope_find(Sema *S, Sym name); /* in this frame; NULL when absent */
/* What a name means: local, global, builtin. */
Val name_value(Sema *S, Name name);
/* Tells of an unknown name and the nearest known one. */
void name_unknown(Sema *S, Name name, const char *what);
/* The same tensors as seen from the region being built: values of enclosing
 * regions become operands of the scans between. */
Val val_here(Sema *S, Val v, Span at);
Value *value_here(Sema *S, Value *v, Span at); /* NULL: reported */

/* ---- sema_tensor.c: making nodes ----------------------------------------- */

/* Everywhere here: a NULL operand gives NULL, and NULL is reported. */

/* Result types of a node that is not in the graph yet. */
bool fe_infer(Sema *S, const Node *n, TypeVec *types);
/* Makes a node after checking it; attributes as for ir_node. */
Node *fe_node(Sema *S, Span s, OpKind op, const Type *type, Value *const *ins,
              uint32_t n_ins, ...);
Value *fe_unary_op(Sema *S, Span s, OpKind op, Value *a);
Value *fe_binary_op(Sema *S, Span s, OpKind op, Value *a, Value *b);
Value *fe_cast(Sema *S, Span s, Value *v, Dtype dtype);
/* Reduces the dims of `mask`. */
Value *fe_reduce(Sema *S, Span s, OpKind op, Value *v, unsigned mask);
/* Dim i of the result is dim order[i] of `v`. */
Value *fe_transpose(Sema *S, Span s, Value *v, const int *order);
Value *fe_reshape(Sema *S, Span s, Value *v, Type type);
/* A constant with the value of a number or bool. */
Value *fe_const(Sema *S, Item it, Type type);
/* A tensor as it is; a number as a scalar of its own dtype. */
Value *fe_tensor(Sema *S, Item it);
/* Repeats `v` over the dims of `to`, sizes of 1 included. */
Value *fe_broadcast(Sema *S, Span s, Value *v, const Type *to);
/* One of two values of a type, by a bool[]. */
Value *fe_choose(Sema *S, Span s, Value *condition, Value *yes, Value *no);
/* The dims of all tensors among the items broadcast together. */
bool fe_common_dims(Sema *S, Span s, const Item *items, uint32_t n, Type *out);
/* Applies an elementwise op; operands are broadcast, numbers take the dtype of
 * the tensors. */
Val fe_elementwise(Sema *S, Span s, OpKind op, const Item *items, uint32_t n);
Val fe_slice(Sema *S, const Expr *e, Val base); /* x[...] */

/* ---- sema_type.c: written types ------------------------------------------ */

/* The type that is written, all of whose dims must be known. */
bool type_eval(Sema *S, const TypeExpr *t, Type *out);
/* Checks a value against a type and binds the type's free dims in the innermost
 * scope; numbers become constants. `what` names the value in messages. */
bool type_match(Sema *S, const TypeExpr *t, Item *it, const char *what);
/* A type in an expression: f32[a, b] as an argument. */
bool type_from_expr(Sema *S, const Expr *e, Type *out);
bool fe_dtype(Sema *S, Name name, Dtype *out);

/* ---- sema_place.c: where tensors live ------------------------------------ */

/* What the axes in a written type mean for a tensor of type `type`; axes of one
 * device mean nothing. False: reported. */
bool place_eval(Sema *S, const TypeExpr *t, const Type *type, Placement *out);
/* The same for data that comes in batches: its dims must divide. `what` is its
 * name in messages. */
bool place_even(Sema *S, const TypeExpr *t, const Type *type, Sym what,
                Placement *out);
/* Tells of two placements of one tensor, `a` written in `t` and `b` at `other`;
 * true: they go together. */
bool place_agree(Sema *S, const TypeExpr *t, const Type *type,
                 const Placement *a, const Placement *b, Span other);
/* Places `v` as it is written at `at`. */
void place_set(Sema *S, Value *v, const Placement *p, Span at);
/* Where the placement of `v` is written; NULL: nowhere. */
const Span *place_written(const Sema *S, Value *v);
/* `v` with the placement that the type asks for; an error: reported. */
Val fe_placed(Sema *S, const TypeExpr *t, Value *v);

/* ---- sema_expr.c: expressions -------------------------------------------- */

Val fe_eval(Sema *S, const Expr *e);  /* any value */
Item fe_item(Sema *S, const Expr *e); /* one value: not several, not none */
bool fe_eval_int(Sema *S, const Expr *e, const char *what, int64_t *out);
bool fe_eval_bool(Sema *S, const Expr *e, const char *what, bool *out);
/* An operator on two values, known ones folded. */
Val fe_binary(Sema *S, Span s, BinaryOp op, Item a, Item b);
Val fe_unary(Sema *S, Span s, UnaryOp op, Item a);
/* Counts one evaluation; false where the limits are passed. */
bool fe_step(Sema *S, Span s);

/* ---- sema_letters.c, sema_index.c: index form ---------------------------- */

enum { MAX_LETTERS = 52 };

typedef struct Letter {
  Sym name; /* NULL: a dim of `..` */
  char in_map;
  Dim dim;   /* size 0: not known yet */
  Span span; /* the tensor that gave it its size */
} Letter;

/* A tensor whose dims are letters, or a number. */
typedef struct Term {
  Val val; /* VAL_TENSOR with `n` letters, or a number */
  int n;
  uint8_t letters[MAX_RANK];
  Span span;
} Term;

/* One index form being worked out. Sets of letters are bit masks. */
typedef struct Form {
  Sema *S;
  Letter letters[MAX_LETTERS];
  int n_letters;
  bool lead_known;
  int lead_n;
  uint8_t lead[MAX_RANK];
  Span lead_span;
  const SubVec *left;
  int leads;             /* whether `..` stands on the left */
  uint8_t out[MAX_RANK]; /* the left side's letters, see form_left */
  int n_out;
} Form;

uint64_t term_mask(const Term *t);
/* A letter by name, a new one if need be; -1: too many, reported. */
int form_letter(Form *f, Sym name, Span s);
/* Gives a letter its size, or compares; false: reported. */
bool form_bind(Form *f, int letter, Dim d, Span s);
/* The letters of subscripts of a tensor of `rank` dims; false: reported. */
bool form_read(Form *f, const SubVec *subs, int rank, Span s, Term *out);
Sym form_map(Form *f, const Term *a, const Term *b, const uint8_t *out,
             int n_out);
Type form_type(Form *f, Dtype dtype, const uint8_t *letters, int n);
/* `t` with exactly these letters in this order, repeated where it lacks one. */
Value *form_arrange(Form *f, Term t, const uint8_t *letters, int n);
/* Letters of `mask` in the order of the left side, then the others; how many,
 * or -1 for more than a tensor may have. */
int form_order(Form *f, uint64_t mask, uint8_t *out);
/* Reads the letters of the left side, before all else. */
bool form_read_left(Form *f, Span s);
/* The letters of the left side as far as they are known by now. */
uint64_t form_left(Form *f);
/* Whether each of them got a size on the right; reports. */
bool form_left_known(Form *f, Span s);

Val fe_index_form(Sema *S, const Target *target, const Expr *e);

/* ---- sema_builtin.c, sema_shape.c: functions of the language ------------- */

/* One call of a builtin; its arguments by parameter. */
typedef struct BuiltinCall {
  Sema *S;
  Span span;
  const char *name;
  Item *args;
  bool *given;
  ItemVec rest; /* of the parameter that takes all that is left */
} BuiltinCall;

typedef Val BuiltinFn(BuiltinCall *c);

struct Builtin {
  const char *name, *params;
  BuiltinFn *run;
};

BuiltinFn builtin_sum, builtin_mean, builtin_max, builtin_min, builtin_cumsum,
    builtin_top_k, builtin_sort, builtin_iota, builtin_iota_like,
    builtin_zeros_like, builtin_ones_like, builtin_zeros, builtin_ones,
    builtin_full, builtin_expand, builtin_reshape, builtin_transpose,
    builtin_concat, builtin_pad, builtin_gather, builtin_scatter_add,
    builtin_take, builtin_put, builtin_dispatch, builtin_combine,
    builtin_row_dot, builtin_attention, builtin_stop_gradient,
    builtin_random_bits, builtin_require, builtin_size, builtin_rank;

bool builtin_find(Sym name, Fn *out);
const char *builtin_name(const Fn *fn);
const char *const *builtin_names(Sema *S, uint32_t *out_n);
Val builtin_call(Sema *S, const Fn *fn, Span s, const ItemVec *args);
/* Arguments by kind; false or NULL: reported. A bool that is missing is false;
 * a dim counts from the end when negative. */
Value *arg_tensor(BuiltinCall *c, int i);
bool arg_int(BuiltinCall *c, int i, int64_t *out);
bool arg_bool(BuiltinCall *c, int i, bool *out);
bool arg_dim(BuiltinCall *c, int i, int rank, int *out);

/* ---- sema_call.c: calling ------------------------------------------------ */

Sym path_join(Sema *S, Sym path, Sym more);
/* A call as written; `as` is NULL or the name after it. */
Val fe_call(Sema *S, const Expr *e, const Name *as);
/* The same with callee and arguments worked out. */
Val fe_apply(Sema *S, const Expr *e, Item callee, const ItemVec *args,
             const Name *as);
/* Calls a function value; `component` is what the call adds to the path. */
Val fe_invoke(Sema *S, const Fn *fn, const ItemVec *args, Span s,
              Sym component);

/* ---- sema_stmt.c, sema_loop.c: statements -------------------------------- */

void fe_body(Sema *S, const StmtVec *body);
Val fe_for(Sema *S, const Expr *e);
Val fe_scan(Sema *S, const Expr *e);

/* ---- sema_slot.c, sema_minimize.c ---------------------------------------- */

void fe_param(Sema *S, const Stmt *s);
void fe_state(Sema *S, const Stmt *s);
void fe_set(Sema *S, const Stmt *s);
void fe_minimize(Sema *S, const Stmt *s);

/* ---- sema_entry.c: entries ----------------------------------------------- */

Build *build_new(Sema *S, Sym name, Span span, const Decl *decl);
/* Parameters of the entry being built, made when first used; NULL: reported. */
Value *build_option(Sema *S, Sym name, Span at);
Value *build_step(Sema *S, Span at);
Value *build_seed(Sema *S, Span at);
/* A report or a probe. */
void build_output(Sema *S, bool probe, Name name, Item it);
void fe_entry(Sema *S, const Decl *d); /* one entry a size */
/* Sorts slots, and all entries' parameters and results. */
void fe_put_in_order(Sema *S);

/* ---- sema_mesh.c: the mesh ----------------------------------------------- */

/* Sizes of the axes from the command line; the module's mesh. */
void fe_mesh(Sema *S);
/* Makes consts divide, as FeOptions.fitted says. */
void fe_fit(Sema *S);
/* Splits "NAME=VALUE"; NULL: there is no '='. */
Sym fe_split(Sema *S, const char *text, const char **value);

/* ---- sema.c: the whole --------------------------------------------------- */

Val global_const(Sema *S, Global *g, Span at);

#endif
