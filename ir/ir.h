/* ir.h: the one IR, from frontend to codegen.
 *
 * An SSA graph of tensor ops with static bounds. A Module holds entries; an
 * entry is a pure function of slots (parameters, optimiser and recurrent
 * state), options, step, seed and inputs; it returns new slot values, reports
 * and probes. Nothing writes in place until the plan pass assigns buffers.
 *
 * Sections, in the order of the .c files: graph, build, lead, product,
 * attention, math, infer, verify, print, read, eval. Letters in comments: T
 * tokens, D model, H hidden, N experts, K choices a token, R rows of a ragged
 * value. */
#ifndef MOEC_IR_H
#define MOEC_IR_H

#include "base.h"

/* ---- the tables as enums ------------------------------------------------ */

typedef enum DtypeKind { DK_BOOL, DK_INT, DK_UINT, DK_FLOAT } DtypeKind;

typedef enum Dtype {
#define DT(name, ...) DT_##name,
#include "../runtime/dtypes.def"
#undef DT
  DTYPE_COUNT
} Dtype;

typedef struct DtypeInfo {
  const char *name;
  uint32_t bytes;
  DtypeKind kind;
  const char *safetensors;
  Dtype sums; /* of products of two such values */
  double tol;
} DtypeInfo;
extern const DtypeInfo dtype_info[DTYPE_COUNT];

typedef enum OpKind {
#define OP(name, ...) OP_##name,
#include "ops.def"
#undef OP
  OP_COUNT
} OpKind;

enum { /* traits */
  TRAIT_EW = 1,
  TRAIT_TYPED = 2,
  TRAIT_MAP = 4,
  TRAIT_REGION = 8,
  TRAIT_HIGH = 16,
  TRAIT_COMMUTE = 32,
  TRAIT_SUMS = 64,
  TRAIT_OFFSETS = 128
};

typedef enum LowerKind {
  LOWER_SCALAR,   /* an instruction or two per element */
  LOWER_ACCESS,   /* an index map into its operands, free inside a fused op */
  LOWER_REDUCE,   /* a reduction loop inside a fused op */
  LOWER_ROW,      /* works on a whole last dim at once inside a fused op */
  LOWER_CONTRACT, /* library call, or generated where ragged */
  LOWER_LAUNCH,   /* its own kernel */
  LOWER_LOOP,     /* loop records around the body's records */
  LOWER_COMM,     /* an exchange between ranks, done by the runtime */
  LOWER_WAIT,     /* the end of one */
  LOWER_EXPAND,   /* replaced by the expand pass */
  LOWER_NONE      /* gone before codegen */
} LowerKind;

/* How an op of a loop's body can compute all iterations at once: what becomes
 * of it when operands get a new dim 0. */
typedef enum BatchKind {
  BATCH_NONE,  /* it cannot */
  BATCH_ALIKE, /* elementwise, or on the last dim: all operands get it */
  BATCH_MAP,   /* one more letter in front, where operands have it */
  BATCH_DIM,   /* attribute `dim` counts from one further left */
  BATCH_TYPE,  /* the result type says it all */
  BATCH_GATHER, /* rows of one table: operand 0 does not get it */
  BATCH_PLACED /* all operands get it, and what the model says of the others
                  holds for the others */
} BatchKind;

/* Operands of rows_send and rows_return; the last two may be absent. */
enum { ROWS_X, ROWS_MINE, ROWS_GOT, ROWS_THEIRS, ROWS_SOME, ROWS_OTHERS };

enum { VARIADIC = -1, MAX_RANK = 8, MAX_ATTRS = 6 };
enum { PANEL = 32 }; /* columns of a panel: what `pack` makes */

/* Bounds that keep every size in 64 bits. */
#define MAX_DIM INT32_MAX                    /* ids are i32 */
#define MAX_ELEMENTS (INT64_C(1) << 40)      /* of one value, as stored */
#define MAX_RANKS (INT64_C(1) << 20)         /* of a mesh */

typedef enum AttrKind {
  ATTR_INT,
  ATTR_FLOAT,
  ATTR_BOOL,
  ATTR_STR,
  ATTR_MAP,
  ATTR_INTS
} AttrKind;

typedef struct AttrSpec {
  Sym name; /* a literal, not interned: compare with strcmp */
  AttrKind kind;
  bool optional;
} AttrSpec;

typedef struct OpInfo {
  const char *name;
  int min_ins, max_ins, outs; /* VARIADIC where unbounded */
  unsigned traits;
  const char *attrs;
  LowerKind lower;
  BatchKind batch;
  const char *doc;
} OpInfo;
extern const OpInfo op_info[OP_COUNT];

/* ---- types -------------------------------------------------------------- */

/* One dim. A ragged dim (only ever dim 1) has `size` as the bound on the rows
 * of all groups together; dim 0 counts the groups. */
typedef struct Dim {
  int64_t size;
  bool ragged;
} Dim;

typedef struct Type {
  Dtype dtype;
  uint8_t rank;
  Dim dims[MAX_RANK];
} Type;
typedef VEC(Type) TypeVec;

/* ---- placements --------------------------------------------------------- */

enum { MAX_AXES = 8 }; /* of a mesh */

/* Axes of the mesh in order, the major one first: 4 bits each from the lowest,
 * the axis' index in the mesh + 1; 0 ends the list. */
typedef uint32_t Axes;

typedef enum PartialKind {
  PARTIAL_SUM,
  PARTIAL_MAX,
  PARTIAL_MIN,
  PARTIAL_COUNT
} PartialKind;

/* Where a value lives: for each dim the axes that split it, and the axes over
 * which each device has a part only, to be summed (or the largest taken) to
 * give the value. Zeroed: all of it on every device. A placement is no part of
 * a type: types are inferred and compared without. */
typedef struct Placement {
  Axes dims[MAX_RANK];
  Axes partial;
  PartialKind kind; /* PARTIAL_SUM where nothing is partial */
  uint8_t closed;   /* bit d: the model says that dim d is not split */
} Placement;

/* ---- graph -------------------------------------------------------------- */

typedef struct Value Value;
typedef struct Node Node;
typedef struct Region Region;
typedef struct Entry Entry;
typedef struct Module Module;

typedef VEC(Value *) ValueVec;
typedef VEC(Node *) NodeVec;

/* Where the plan put a value. SLAB_NONE before plan. */
typedef enum Slab {
  SLAB_NONE,
  SLAB_PARAM, /* parameters, from the module's slots */
  SLAB_OPTIM, /* optimiser state */
  SLAB_STATE, /* recurrent state */
  SLAB_INPUT, /* inputs, options, step, seed of one entry */
  SLAB_REPORT,
  SLAB_ARENA, /* everything that dies within a step */
  SLAB_COUNT
} Slab;

enum { MAX_LOOPS = 4 }; /* scans inside one another */

/* Address: slab + offset + sum of loop index * stride, over the scans around
 * the value from the outermost. Bytes. A value of a scan's body has strides
 * where it is an element of something stacked. Prints after the type, strides
 * without trailing zeros: " in arena[4096]", " in arena[4096, 131072]". */
typedef struct Place {
  Slab slab;
  int64_t offset;
  int64_t stride[MAX_LOOPS];
} Place;

struct Value {
  uint32_t id; /* dense within an entry after ir_number */
  Sym name;    /* without '%'; unique within an entry only when printed */
  Type type;
  Node *def;      /* NULL for a region parameter */
  Region *region; /* the region it is a parameter of, or that holds def */
  uint32_t index; /* which result of def, or which parameter of region */
  Value *fwd;     /* set by ir_replace: read as this one instead */
  Placement placement; /* what the model says; all of it after shard */
  Span said;           /* entry parameters: where the model places them */
  Place place;         /* set by plan */
};

typedef struct Attr {
  int64_t i;     /* int, bool */
  double f;      /* float */
  Sym s;         /* str, map */
  int64_t *list; /* ints, list_len of them */
  uint32_t list_len;
  bool present;
} Attr;

struct Node {
  OpKind op;
  Span span;   /* the source it stands for; a gradient has its forward's */
  Sym loc;     /* "file:line:col" read from text; wins over span */
  Sym layer;   /* path of the DSL call it came from, "" at the top */
  uint32_t remat; /* recompute group, 0 for none; gradients are never in one */
  bool backward;  /* made by autodiff */
  ValueVec ins, outs;
  Attr attrs[MAX_ATTRS]; /* in table order */
  Region *body;          /* REGION ops */
  Region *region;        /* the region that holds it */
};

/* Straight-line code. Order is execution order: definitions before uses. */
struct Region {
  Node *owner; /* NULL for an entry's region */
  Entry *entry;
  ValueVec params;
  NodeVec nodes;
  ValueVec results;
};

/* A slot is named storage that outlives a step. */
typedef enum SlotKind { SLOT_PARAM, SLOT_OPTIM, SLOT_STATE } SlotKind;

typedef struct Slot {
  SlotKind kind;
  Sym path; /* "lm/lstm1/w"; state and optim slots start with the entry */
  Type type;
  Span span;
  Placement placement; /* the same in all entries */
  Place place;         /* set by plan */
} Slot;

/* An option is a scalar set at run time. */
typedef struct Option {
  Sym name;
  double value; /* the default */
  Span span;
} Option;

typedef enum BindKind {
  BIND_SLOT,   /* in, out: name is a slot path */
  BIND_INPUT,  /* in: name is the parameter's name, source says from where */
  BIND_OPTION, /* in: name is an option; f32[] */
  BIND_STEP,   /* in: steps completed before this one, i32[] */
  BIND_SEED,   /* in: u32[] */
  BIND_REPORT, /* out */
  BIND_PROBE   /* out */
} BindKind;

/* What a parameter or a result of an entry is bound to. */
typedef struct Binding {
  BindKind kind;
  Sym name;   /* NULL for step and seed */
  Sym source; /* inputs: "text", "text(shift=1)" ... canonical text */
} Binding;

typedef VEC(Binding) BindingVec;

struct Entry {
  Sym name;
  Module *module;
  Region *region;
  BindingVec ins, outs; /* parallel to region->params, ->results */
  int64_t arena_bytes;  /* set by plan, with scratch; -1 before */
  int64_t input_bytes, report_bytes;
  Span span;
};

typedef struct MeshAxis {
  Sym name;
  int64_t size;
  Span span; /* where the model declares it */
} MeshAxis;

struct Module {
  Ctx *cx;
  VEC(MeshAxis) mesh;
  VEC(Slot *) slots;
  VEC(Option) options;
  VEC(Entry *) entries;
  int64_t slab_bytes[SLAB_COUNT]; /* param, optim, state; set by plan */
};

/* ---- graph.c: types, lookup, surgery ------------------------------------ */

Type type_of(Dtype dtype, int rank, const int64_t *sizes);
/* R rows of `width` grouped by expert: dtype[groups, r<=R, width]. */
Type type_ragged(Dtype dtype, int64_t groups, int64_t rows, int64_t width);
Type type_scalar(Dtype dtype);
Type type_with_dtype(Type t, Dtype dtype); /* same dims */
bool type_equal(const Type *a, const Type *b);
bool type_same_dims(const Type *a, const Type *b);
bool type_is_ragged(const Type *t);
/* Elements stored: a ragged value stores its bound R of rows, group dim not
 * counted. -1 when the product overflows. */
int64_t type_elements(const Type *t);
int64_t type_bytes(const Type *t);
/* The stored shape: dims without the group dim of a ragged value. Returns the
 * stored rank. */
int type_stored_dims(const Type *t, int64_t sizes[MAX_RANK]);
/* "f32[64, 32]", "f32[32, r<=8192, 512]"; in cx->perm. */
Sym type_text(Ctx *cx, const Type *t);

bool op_find(const char *name, OpKind *out);
bool dtype_find(const char *name, Dtype *out);
bool op_is(OpKind op, unsigned trait);
/* Attribute specs of an op, parsed from its row once; returns how many. */
int op_attrs(OpKind op, const AttrSpec **out);

/* Attributes by name; the op's row must have them. */
int64_t attr_int(const Node *n, const char *name);
double attr_float(const Node *n, const char *name);
bool attr_bool(const Node *n, const char *name);
Sym attr_sym(const Node *n, const char *name); /* str, map */
Attr *attr_ref(Node *n, const char *name);

/* A value for what it stands for now, through ir_replace. */
Value *ir_now(Value *v);
/* Every later reading of `old` gives `by`; types must be equal. */
void ir_replace(Value *old, Value *by);
/* Rewires all operands and results through ir_now, and drops nodes whose
 * results nothing needs. Call at the end of a pass that replaced values. */
void ir_sweep(Entry *e);
/* Gives every value of the entry, bodies included, its dense id; returns how
 * many there are. */
uint32_t ir_number(Entry *e);
/* Uses of each value by id, bodies' captures not existing: regions see only
 * their parameters and their own nodes. Array of ir_number() counts. */
uint32_t *ir_use_counts(Entry *e, Arena *a);
/* Turns of a scan that estimates go by: of one that counts them none, as it is
 * there for what seldom is. */
double ir_usual_turns(const Node *scan);
/* Multiply-adds of a contraction: the product of all letters of its map, a
 * ragged pair (group, row) counting its R rows; and of an attention. 0 for any
 * other op. */
int64_t ir_macs(const Node *n);
/* Bytes that one execution of a node moves at least: each operand read once, or
 * only the rows and slices taken of it, and each result written once. */
int64_t ir_bytes(const Node *n);
int64_t ir_bytes_read(const Node *n, uint32_t operand); /* one operand's part */

/* The value that says which rows of a ragged value belong to whom: `ids`
 * before expand, `offsets` after. It is an operand of a dispatch or rows_gather
 * in v's own region, or of one outside when `v` comes from a parameter of a
 * fused or scan body. NULL where nothing says so: a splat constant. */
Value *ir_ragged_source(Value *v);
/* The operand by which op's ragged result knows whose its rows are: ids of a
 * dispatch, offsets of all others. -1: the op is not one that rows start at. */
int ir_rows_operand(OpKind op);
/* The node that the rows of `v` start at; its operand of that number is the
 * source. NULL where there is none. */
Node *ir_ragged_owner(Value *v);
/* How many rows come of those that `v` has room for, if every rank's experts
 * get as many: 1 where no other ranks send any, and for plain values. */
double ir_rows_share(Value *v);
/* Multiply-adds of a node and of what a fused one has inside, and the bytes
 * that it moves at least, for so many rows: what estimates go by. */
double ir_usual_macs(const Node *n);
double ir_usual_bytes(const Node *n);
/* What `v` is outside of all fused and scan bodies that merely hand it in as a
 * parameter (of a scan: an invariant). Two ragged values have the same rows
 * when ir_outermost gives one value for both of their sources. */
Value *ir_outermost(Value *v);

/* Clones the node, body included, with operands mapped by `map` (value ->
 * value; absent ones stay) and appends it to b->out. Adds its results to `map`.
 * Span, loc, layer, remat, backward and places are the original's. */
typedef struct Builder Builder;
Node *ir_clone(Builder *b, const Node *n, Map *map);

Entry *ir_entry(Module *m, const char *name); /* NULL when absent */
/* The entry that reports tell of: the one that trains, else the first of the
 * model's own; NULL when there is none. */
Entry *ir_main_entry(const Module *m);
Slot *ir_slot(Module *m, const char *path);   /* NULL when absent */
Module *ir_module_new(Ctx *cx);
/* Adds an entry with an empty region; parameters and results get their bindings
 * from ir_bind_in and ir_bind_out. */
Entry *ir_entry_new(Module *m, Sym name, Span span);
Value *ir_bind_in(Entry *e, Binding b, Sym name, Type type); /* a parameter */
void ir_bind_out(Entry *e, Binding b, Value *v);             /* a result */
Module *ir_module_clone(const Module *m); /* deep copy in the same context */
/* The source place of a node: its loc, or its span's text, or "". */
Sym node_loc(Ctx *cx, const Node *n);

/* ---- placement.c: who has what of a tensor ------------------------------ */

int axes_count(Axes a);
int axes_at(Axes a, int i); /* index in the mesh of the i-th; i < count */
bool axes_has(Axes a, int axis);
Axes axes_add(Axes a, int axis);    /* as the minor one; must not be there */
Axes axes_without(Axes a, int axis);
/* Whether `a` begins with all of `head`. */
bool axes_begins(Axes a, Axes head);
/* How many parts the axes make. */
int64_t axes_parts(const Module *m, Axes a);
/* " @data @expert"; nothing for no axes. */
void axes_text(const Module *m, Axes a, Buf *out);

bool placement_equal(const Placement *a, const Placement *b);
bool placement_is_whole(const Placement *p); /* all of it on every device */
/* Where `axis` is used: a dim, PLACED_PARTIAL, PLACED_NOWHERE. */
enum { PLACED_NOWHERE = -1, PLACED_PARTIAL = MAX_RANK };
int placement_of_axis(const Placement *p, int axis);
/* One device's part of a value: sizes rounded up where they do not divide, rows
 * of a ragged value as if all groups had equally many. */
Type placement_local(const Module *m, const Type *t, const Placement *p);
/* "f32[64 @dev, 32, 512]", "f32[512; sum @dev]". */
void placement_text(const Module *m, const Type *t, const Placement *p,
                    Buf *out);
/* Every axis is one of the mesh and used once. False: *why says what is wrong,
 * in cx->perm. */
bool placement_check(const Module *m, const Type *t, const Placement *p,
                     Sym *why);
int mesh_axis(const Module *m, const char *name); /* -1: there is none */
int64_t mesh_devices(const Module *m);            /* MAX_DIM at most */
extern const char *const partial_names[PARTIAL_COUNT];

/* ---- build.c: making nodes ---------------------------------------------- */

/* Where new nodes go and what they inherit. */
struct Builder {
  Ctx *cx;
  Region *region;
  NodeVec *out;  /* nodes are appended here; usually &region->nodes. A pass that
                    rebuilds a region collects into a fresh vector */
  Span span;
  Sym loc, layer;
  uint32_t remat;
  bool backward;
};

Builder ir_builder(Ctx *cx, Region *r); /* appends to r->nodes */
/* A builder that appends to `out` and inherits span, loc, layer from `n`. */
Builder ir_builder_like(Ctx *cx, Region *r, NodeVec *out, const Node *n);

/* Makes a node: ops with the TYPED trait take `type`, others infer. Attributes
 * come as alternating name and value, ended by NULL: int and bool as int64_t,
 * float as double, str and map as const char *, ints as a length (int64_t) and
 * a const int64_t *; names must be in the op's row. Types are asserted to be
 * right: callers check user input beforehand with ir_infer on a node of their
 * own. Returns the node; its results are n->outs.
 *
 * A REGION op comes back with no results yet and with an empty body whose
 * parameters stand ready: a scan's are its index, carries, slices of the
 * scanned operands, invariants; a fused op's are the operands. Fill the body
 * through ir_builder(cx, n->body), push its results to n->body->results, then
 * call ir_finish. */
Node *ir_node(Builder *b, OpKind op, const Type *type, Value *const *ins,
              uint32_t n_ins, ... /* name, value, ..., NULL */);
/* Fills a node's attributes from such a list. */
void ir_set_attrs(Ctx *cx, Node *n, va_list args);
/* The same from a filled attribute array, with no check and no inference
 * beyond what result types are given for. */
Node *ir_node_raw(Builder *b, OpKind op, Value *const *ins, uint32_t n_ins,
                  const Attr *attrs, const Type *outs, uint32_t n_outs);

/* One result, no attributes: any EW op but cast, bitcast and threefry. */
Value *ir_unary(Builder *b, OpKind op, Value *a);
Value *ir_binary(Builder *b, OpKind op, Value *a, Value *c);
Value *ir_fma(Builder *b, Value *x, Value *y, Value *z);
Value *ir_select(Builder *b, Value *cond, Value *yes, Value *no);
Value *ir_cast(Builder *b, Value *a, Dtype dtype);
/* The value itself where it has the dtype already. */
Value *ir_cast_to(Builder *b, Value *a, Dtype dtype);
Value *ir_bitcast(Builder *b, Value *a, Dtype dtype);
Value *ir_const(Builder *b, Type type, double value);
Value *ir_const_like(Builder *b, const Value *like, double value);
Value *ir_iota(Builder *b, Type type, int dim);
Value *ir_broadcast(Builder *b, Value *a, const char *map, Type type);
/* A scalar value spread over the dims of `type`. */
Value *ir_splat(Builder *b, Value *scalar, Type type);
Value *ir_transpose(Builder *b, Value *a, const char *map);
Value *ir_reshape(Builder *b, Value *a, Type type);
Value *ir_slice(Builder *b, Value *a, int dim, int64_t start, int64_t size);
Value *ir_concat(Builder *b, Value *const *parts, uint32_t n, int dim);
Value *ir_pad(Builder *b, Value *a, int dim, int64_t lo, int64_t hi);
Value *ir_reduce(Builder *b, OpKind op, Value *a, const char *map);
/* What an operand of such an op may have more of, and the result is the same:
 * the lowest number for reduce_max, the highest for reduce_min, else 0. */
double ir_neutral(OpKind op, Dtype dtype);
Value *ir_contract(Builder *b, Value *x, Value *y, const char *map);
/* Sets `drops` of a node that routes rows; it stays away where it is false. */
Node *ir_drops(Node *n, bool drops);
/* Which rows the choices ids[S.., K] make among so many experts: the results of
 * `route`. Where `ours` is given, choices of which it is false have id
 * `experts` and no row: they stand for the last one, which is nobody's then. */
typedef struct Routes {
  Value *offsets, *slot, *src;
} Routes;
Routes ir_route(Builder *b, Value *ids, int64_t experts, Value *ours);
/* Ragged `v` with `fill` behind the last row that offsets[N + 1] tell of. */
Value *ir_only_rows(Builder *b, Value *v, Value *offsets, double fill);

/* Appends a result to a node. */
Value *ir_add_result(Ctx *cx, Node *n, Type type);
/* Gives a REGION node its results, from its finished body. */
void ir_finish(Builder *b, Node *n);
/* An empty region; sets owner->body when there is an owner. */
Region *ir_region(Ctx *cx, Entry *e, Node *owner);
Value *ir_param(Ctx *cx, Region *r, Sym name, Type type);

/* Map strings: up to two operands and a result. Letters are single characters
 * a-z, A-Z. */
typedef struct IndexMap {
  char ins[2][MAX_RANK + 1];
  int n_ins;
  char out[MAX_RANK + 1];
} IndexMap;
bool map_parse(const char *text, IndexMap *out); /* false: malformed */
IndexMap map_of(const Node *n); /* the map of a sound node */
Sym map_text(Ctx *cx, const IndexMap *m);
/* "abcd->abd": from `rank` letters to those without dim `dim`. */
Sym map_dropping(Ctx *cx, int rank, int dim);
char map_free_letter(const IndexMap *m); /* one that the map does not use */

/* ---- mesh.c: ranks ------------------------------------------------------ */

/* A rank is a place in the mesh, row-major. Reads "data,expert". False, with
 * what is wrong in `why`: no such axis, one named twice, none at all. */
bool axes_parse(const Module *m, const char *text, Axes *out, Sym *why);
/* The axes of a COMM node that is sound, and how many ranks its group has. */
Axes node_axes(const Node *n);
int64_t node_group(const Node *n);
/* The place of `rank` in its group, and the rank at a place of that group. */
int64_t axes_place(const Module *m, Axes a, int64_t rank);
int64_t axes_member(const Module *m, Axes a, int64_t rank, int64_t place);

/* What a rank has of a dim of `size` that the axes split: indices from `start`,
 * `count` of them, which may be 0; behind them padding up to `local`. Each axis
 * cuts the parts that the one before made. */
typedef struct DimPart {
  int64_t start, count, local;
} DimPart;
DimPart axes_part(const Module *m, Axes a, int64_t size, int64_t rank);

/* A tensor cut into `parts` along `dim`, which is not one of rows: piece i is
 * `rows` runs of `run` elements, the first at i * run, each parts * run after
 * the other. */
typedef struct Pieces {
  int64_t rows, run;
} Pieces;
Pieces pieces_of(const Type *t, int dim, int64_t parts);

typedef enum CombineOp { COMBINE_SUM, COMBINE_MAX, COMBINE_MIN } CombineOp;
bool combine_find(const char *name, CombineOp *out);

/* Whether a node is an exchange between ranks: COMM, but no mere number. */
bool ir_is_exchange(const Node *n);
/* What a `wait` waits for; of an exchange its `wait`, NULL where there is
 * none. */
Node *ir_waited(const Node *wait);
Node *ir_wait_of(const Node *exchange);

/* Bytes that the rank at `place` of its group receives from others in a COMM
 * node; of rows, whose number is not known here, the most that can come. */
int64_t ir_comm_bytes(const Node *n, int64_t place);

/* ---- lead.c: rows ------------------------------------------------------- */

/* Of the `lead` leading stored dims of an op's result, how many also lead in
 * operand `operand`, index for index: element (i.., j..) of the result reads
 * (i.., *) of it only. */
int ir_lead(const Node *n, uint32_t operand, int lead);

/* ---- product.c: contractions as products of matrices -------------------- */

enum { CT_MAX_LETTERS = 2 * MAX_RANK };
enum { CT_LEFT, CT_RIGHT, CT_OUT, CT_SIDES };

typedef enum CtRole {
  CT_ROLE_BATCH,
  CT_ROLE_M,
  CT_ROLE_N,
  CT_ROLE_K
} CtRole;

/* A letter of the map: in which sides it is, and its stride there. */
typedef struct CtLetter {
  char c;
  int64_t size;
  int64_t stride[CT_SIDES];
  bool in[CT_SIDES];
} CtLetter;

typedef struct CtLetters {
  CtLetter l[CT_MAX_LETTERS];
  int n;
  char group, row; /* of the ragged sides; 0 where they make no difference */
} CtLetters;

/* A product as sizes and strides, one letter a role; `batch` is the experts
 * where rows are ragged. A missing letter has size 1. */
typedef struct CtProduct {
  CtLetter m, n, k, batch;
  int arg[CT_SIDES];    /* operand numbers */
  int64_t groups, rows; /* ragged: experts, and all their rows; else groups 0 */
  bool ragged_k;        /* rows are k, else m */
  Dtype dtype;          /* of the operands; of the result it is its `sums` */
  int rank;             /* stored dims of the result, and the role of each: */
  CtRole roles[MAX_RANK]; /* those of one role, in order, are its index */
} CtProduct;

CtLetters ir_letters(const Node *n);
CtLetter *ir_letter(CtLetters *ls, char c); /* NULL when absent */
/* The product that contraction `n` is; false where it is none. */
bool ir_product(const Node *n, CtProduct *out);
/* Rows of a group up to which the squares of the product's elements are summed
 * by pairs of rows, see codegen/squares.c, in less time than the product takes:
 * then two Gram matrices of a row's two sides are smaller. 0: never. */
int64_t ir_product_pairs(const CtProduct *p);
/* The contraction whose squares a `square_sum` adds up, in no region. NULL: a
 * diagnostic says what is wrong with it. */
Node *ir_squared(Ctx *cx, const Node *n);
/* Whether it is one of plain matrices: what a library is called for. */
bool ir_product_is_plain(const CtProduct *p);
/* Rows of one group that a kernel of products takes with one reading of the
 * right operand. */
enum { CT_ROW_BLOCK = 384 };
/* The contraction of a launch of kind `product`; NULL where there is none. */
Node *ir_product_node(const Node *launch);
/* The launch's own value that operand i of its contraction is, or is cast or
 * gathered from. */
Value *ir_product_operand(const Node *contract, int i);
/* The `rows_gather` of the launch that makes operand i; NULL: none does. */
Node *ir_product_rows(const Node *contract, int i);
/* Whether rows that `n` gathers may be gathered as `contract` loads them. */
bool ir_product_takes_rows(const Node *contract, const Node *n);
/* What is wrong with a launch that says it is of that kind; NULL: nothing. */
const char *ir_product_fault(const Node *launch);

/* ---- attention.c: scaled dot-product attention --------------------------- */

/* Of an attention or attention_grad: queries [batch.., queries, heads, width],
 * keys [batch.., keys, kv_heads, width], values the same, v_width wide; head h
 * of the queries reads that of number h / (heads / kv_heads). */
typedef struct AttentionShape {
  int64_t batch, queries, keys, heads, kv_heads, width, v_width;
  bool causal;
  int mask; /* its operand, -1: there is none */
  double scale;
  Dtype dtype; /* of operands */
} AttentionShape;
AttentionShape ir_attention(const Node *n);
int64_t ir_attention_macs(const Node *n); /* of the pairs that are seen */

/* ---- math.c: functions of floats as primitive ops ------------------------ */

/* The one definition of each, for whoever computes them. */
Value *ir_exp(Builder *b, Value *x);
/* exp of f32 x up to 88; what is below -87 is taken for that. 13 ops. */
Value *ir_exp_below(Builder *b, Value *x);
Value *ir_log(Builder *b, Value *x);
Value *ir_log1p(Builder *b, Value *x);
Value *ir_tanh(Builder *b, Value *x);
Value *ir_erf(Builder *b, Value *x);
Value *ir_sigmoid(Builder *b, Value *x);
/* Samples from random bits, u32. */
Value *ir_normal(Builder *b, Value *bits, Dtype dtype);
Value *ir_uniform(Builder *b, Value *bits, Dtype dtype);

/* ---- infer.c: result types ---------------------------------------------- */

/* Gives n its results' types (for TYPED ops: checks the one there) from
 * operands, attributes and body, making the results that do not exist yet. On a
 * mistake reports a diagnostic at `n->span` and returns false. */
bool ir_infer(Ctx *cx, Node *n);
/* The same without touching n: result types are appended to `out`. TYPED ops
 * take theirs from n->outs. */
bool ir_infer_types(Ctx *cx, const Node *n, TypeVec *out);

/* Shared by all files with such rules: the node that a rule looks at. */
typedef struct Infer {
  Ctx *cx;
  const Node *n;
  TypeVec *out;
} Infer;
/* Reports what is wrong behind the op's name; false. */
bool infer_fail(Infer *I, const char *fmt, ...) PRINTF_LIKE(2, 3);
bool infer_result(Infer *I, Type t);
bool infer_rank(Infer *I);
bool infer_local_slice(Infer *I);
bool infer_all_reduce(Infer *I);
bool infer_all_gather(Infer *I);
bool infer_reduce_scatter(Infer *I);
bool infer_all_to_all(Infer *I);
bool infer_permute(Infer *I);
bool infer_rows_send(Infer *I);
bool infer_rows_return(Infer *I);
bool infer_wait(Infer *I);
bool infer_square_sum(Infer *I); /* product.c */
bool infer_attention(Infer *I);  /* attention.c */
bool infer_attention_grad(Infer *I);

/* ---- verify.c: every invariant, one place ------------------------------- */

/* Sizes in range, ragged dims where they may be. `what` starts the message. */
bool ir_check_type(Ctx *cx, Span span, const char *what, const Type *t);

/* False: diagnostics were reported. `expanded`: no HIGH op may be left. */
bool ir_verify(Module *m, bool expanded);

/* ---- print.c, read.c: canonical text and its inverse -------------------- */

typedef struct PrintOptions {
  bool loc; /* append loc("file:line:col") to each node */
} PrintOptions;
void ir_print(Module *m, PrintOptions o, Buf *out);
void ir_print_entry(Entry *e, PrintOptions o, Buf *out);
void ir_print_node(Node *n, Buf *out); /* one node, for messages */
void ir_print_ops(Buf *out);           /* the list of ops in IR.md */

/* NULL: diagnostics were reported. The result has passed ir_verify. */
Module *ir_read(Ctx *cx, uint32_t file);

/* ---- eval.c: the reference interpreter ---------------------------------- */

/* A tensor of the interpreter: every element as a double, which holds each
 * bool, i32, u32, f32 exactly. Stored shape as type_stored_dims. */
typedef struct Tensor {
  Type type;
  double *data; /* type_elements(&type) of them */
} Tensor;

typedef enum EvalMode {
  EVAL_TYPED, /* round every float result to its dtype */
  EVAL_F64    /* keep every float in double: for central differences */
} EvalMode;

/* Called after each node, those in bodies included (in a scan's once an
 * iteration). The tensors are valid during the call only. */
typedef void EvalHook(void *user, const Node *n, const Tensor *const *ins,
                      Tensor *const *outs);

typedef struct Eval {
  Ctx *cx;
  EvalMode mode;
  EvalHook *hook; /* may be NULL */
  void *user;
  /* ir_eval_node only, where an operand is ragged: the tensor of a value that
   * stands outside of the node, see ir_ragged_source. May be NULL otherwise. */
  const Tensor *(*outside)(void *user, const Value *v);
  int rank;                /* the one that runs, set by ir_eval_ranks */
  struct EvalRanks *ranks; /* NULL outside of ir_eval_ranks */
} Eval;

#define EVAL_FAILED UINT32_MAX

Tensor *tensor_new(Arena *a, Type t); /* zeroed */
Tensor *tensor_copy(Arena *a, const Tensor *t);
/* Runs an entry: `ins` as entry->ins, `outs` (as entry->outs) get tensors in
 * arena `a`. Ids outside their table are clamped, and counted in the return
 * value: 0 means all were right. EVAL_FAILED: there is something that can't be
 * evaluated (`grad`), a diagnostic says so, `outs` are NULL. Renumbers the
 * entry's values. */
uint32_t ir_eval(Eval *ev, Entry *e, Tensor *const *ins, Tensor **outs,
                 Arena *a);
/* The same by all ranks of the module's mesh: ins[r] and outs[r] are those of
 * rank r. They run one at a time, in order, from one exchange to the next, so
 * nothing depends on time. */
uint32_t ir_eval_ranks(Eval *ev, Entry *e, Tensor *const *const *ins,
                       Tensor **const *outs, Arena *a);
/* One node on given operands; `outs` likewise. For launch-by-launch checks and
 * for folding constants. Renumbers the entry only where the node has a body. */
uint32_t ir_eval_node(Eval *ev, Node *n, Tensor *const *ins, Tensor **outs,
                      Arena *a);
/* Stored bytes of a type to a tensor and back, dtypes.def's layout. */
void tensor_from_bytes(Tensor *t, const void *bytes);
void tensor_to_bytes(const Tensor *t, void *bytes);

/* Shared by eval.c, eval_scalar.c, eval_map.c, eval_data.c, eval_rows.c,
 * eval_comm.c. */

/* A node at work: what the eval functions of ops.def see. */
typedef struct EvalCall {
  Eval *ev;
  Node *n;
  const Tensor *const *ins;
  Tensor *const *outs;  /* to fill, not zeroed; rounded afterwards */
  uint32_t clamped;     /* ids outside of their table so far */
  bool failed;          /* a diagnostic was reported */
  struct EvalRun *run;  /* what stands around the node; eval.c */
} EvalCall;

typedef void EvalFn(EvalCall *c);
#define OP(name, min, max, outs, traits, attrs, infer, vjp, eval, ...)        \
  EvalFn eval_##eval;
#include "ops.def"
#undef OP

/* `id` as an index below `size`, clamped and counted where it is not one. */
int64_t eval_id(EvalCall *c, double id, int64_t size);
/* The first row of each group of ragged value `v`, and the end of the last:
 * groups + 1 numbers, to be freed. NULL: failed. */
int64_t *eval_groups(EvalCall *c, Value *v);
/* How many ids of each group: fills offsets[groups + 1]. With `drops` the id
 * `groups` is of none. */
void eval_count_ids(EvalCall *c, const Tensor *ids, int64_t groups, bool drops,
                    int64_t *offsets);
/* One element from bits of one dtype to the value of another. */
double dtype_bitcast(double x, Dtype from, Dtype to);

#endif
