/* codegen.h: from a planned module to one shared library.
 *
 * Behind loops.h, the language of kernels, sections in the order of the .c
 * files: lower (nodes to kernel loops), contract, rows, scalar, llvm, host,
 * nvptx, lines, again, table, tools, link, texts, report. */
#ifndef MOEC_CODEGEN_H
#define MOEC_CODEGEN_H

#include "../runtime/moert.h"
#include "loops.h"

/* ---- lower.c: a node to a kernel -------------------------------------------
 * Arguments of the record are the node's operands, then its results. NULL after
 * a diagnostic: it is not for this target. */
Kernel *cg_lower(Ctx *cx, const Node *n, const Isa *isa);
/* f32 lanes for rows of `run` elements; `wide`: some are f64, of which a vector
 * has half as many. */
int cg_lanes(const Isa *isa, int64_t run, bool wide);

/* ---- lower*.c among themselves: one fused node at work ---------------------
 *
 * An index of one dim within a vector loop: base + stride * lane, or `vec`, i32
 * lanes, where it is not that regular. Without lanes: stride 0, no vec. */
typedef struct Ix {
  KVal *base;
  int64_t stride;
  KVal *vec;
} Ix;

/* A value pulled at an index, for when it is pulled there again. */
typedef struct LwMemo LwMemo;
struct LwMemo {
  Ix at[MAX_RANK];
  KVal *result;
  LwMemo *next;
};

/* Elements of a value kept in scratch: those under `n_lead` leading indices. It
 * holds while the block that filled it is open. */
typedef struct LwRow LwRow;
struct LwRow {
  Ix lead[MAX_RANK];
  int n_lead;
  KBase base;
  int level;
  uint32_t scope;
  LwRow *next;
};

/* What lowering knows of a value of the body. */
typedef struct LwValue {
  const Value *v;
  int arg; /* argument of the record, -1 when computed */
  int rank;
  int64_t dims[MAX_RANK]; /* as stored; one for all in a flat kernel */
  int lead;               /* leading dims that are the row's indices */
  int cost;               /* scalar ops an element, from arguments */
  int folds;              /* reductions and such on the way from arguments */
  uint64_t loops;         /* the loop nests that read it, one bit each */
  bool read, split;       /* split: its readers' nests differ */
  bool mapped;            /* read at other indices than those of a result */
  bool moved;             /* the same, but for reductions */
  bool summed;            /* reductions of its rows have been asked for */
  bool keep;              /* worth a row in scratch */
  bool column;            /* summed over the rows of a `cols` kernel, */
  KBase partial;          /* in `chunks` parts, in the workspace */
  int64_t chunks;
  LwMemo *memos;
  LwRow *rows;
} LwValue;

typedef struct Lower {
  Ctx *cx;
  Arena *arena;
  KBuild *b;
  const Node *n;
  int lanes; /* of every vector in this kernel */
  int rows;  /* leading dims that the stage's loop runs over */
  bool flat; /* all values have one dim or none */
  bool warps; /* a vector is a warp: no loop should be one's alone */
  bool folds; /* what is pulled now is only added up or compared */
  KVal *part; /* the first of the item's columns, of part_size; NULL: all are */
  int64_t part_size;
  Map values;
} Lower;

/* lower.c */
/* Values of node `n` as arguments or as computed; lanes are those for f32. */
Lower *lw_new(Ctx *cx, KBuild *b, const Node *n, int lanes);
LwValue *lw_value(const Lower *l, const Value *v);
/* What a write goes to: the value, and where index 0 of its inner dims, or of
 * all its dims, is. */
typedef struct LwTarget {
  LwValue *v;
  KBase base;
  bool inner;
} LwTarget;
/* Computes and stores the inner dims of targets, all of one inner shape, under
 * given leading indices. */
void lw_write(Lower *l, const LwTarget *targets, int n, const Ix *lead,
              int n_lead);
/* The row of `v` under `lead`, filled now unless it is there. */
LwRow *lw_keep(Lower *l, LwValue *v, const Ix *lead, int n_lead);
/* An empty row for `v`; the caller fills it in the block of depth `level`. */
LwRow *lw_row_new(Lower *l, LwValue *v, const Ix *lead, int n_lead,
                  int level);

/* All results under given leading indices; in blocks of their own stage. Those
 * with more inner elements are written first: `plan` counts on it. */
void lw_write_results(Lower *l, const Ix *lead, int n_lead);
void lw_emit_map(Lower *l);
/* Sees all values as one long dim where they allow it. */
void lw_flatten(Lower *l, const LwValue *like);
/* Rows of a chunk, from the work in all `count`. */
int64_t lw_grain(const Lower *l, int64_t count);

/* lower_parts.c: columns of an item, where rows of warps had better be cut into
 * parts, and can be; else 0. */
int64_t lw_part(const Lower *l, int rows);

/* lower_cols.c */
void lw_mark_columns(Lower *l);
void lw_emit_cols(Lower *l);
KVal *lw_column(Lower *l, LwValue *v, const Ix *at); /* in stage 2 */

/* lower_index.c */
Ix lw_ix(KVal *base);
Ix lw_ix_c(Lower *l, int64_t number);
Ix lw_ix_lanes(KVal *base); /* consecutive */
bool lw_uniform(const Ix *at, int n);
bool lw_same(const Ix *x, const Ix *y, int n);
int lw_level(const Ix *at, int n); /* outermost depth that knows all */
bool lw_is_once(const KVal *lo, const KVal *hi, int64_t step); /* one turn */
Ix lw_add(Lower *l, Ix x, Ix y);
Ix lw_mul_c(Lower *l, Ix x, int64_t c);
Ix lw_div_c(Lower *l, Ix x, int64_t c);
Ix lw_rem_c(Lower *l, Ix x, int64_t c);
Ix lw_clamp(Lower *l, Ix x, int64_t lo, int64_t hi); /* to [lo, hi] */
bool lw_range(const Lower *l, Ix x, int64_t *lo, int64_t *hi);
Ix lw_linear(Lower *l, const int64_t *dims, int n, const Ix *at);
void lw_split(Lower *l, const int64_t *dims, int n, Ix linear, Ix *at);
KVal *lw_i32(Lower *l, Ix x);         /* as i32, one or lanes */
Ix lw_ix_from(Lower *l, KVal *v);     /* from i32 or u32 */
KVal *lw_load(Lower *l, KBase base, Ix at, int floor);

/* lower_pull.c: a value at an index; one lane when no index varies by lane */
KVal *lw_pull(Lower *l, const Value *v, const Ix *at);
/* The value pulled there before, where that may be used; NULL. */
KVal *lw_known(const Lower *l, const LwValue *v, const Ix *at);
void lw_remember(Lower *l, LwValue *v, const Ix *at, KVal *result);
KVal *lw_compute(Lower *l, const Value *v, const Ix *at);

/* lower_reduce.c, lower_row.c */
KVal *lw_reduce(Lower *l, const Value *v, const Ix *at);
/* Computes a reduction of the row of `v` under `at`, which fills the row. */
void lw_reduce_first(Lower *l, const LwValue *v, const Ix *at);
/* The rows of all results of a top_k, sort, put or cumsum; returns that of
 * result `index`. */
LwRow *lw_row_op(Lower *l, const Node *n, uint32_t index, const Ix *lead);
double lw_lowest(Dtype dtype);
double lw_highest(Dtype dtype);
/* A reduction over `row_dims` leading dims and maybe others, at kept indices
 * `at`, in the open block: the rows [lo, hi) of it, or (in a flat kernel) those
 * elements; and the part of one row. */
KVal *lw_reduce_rows(Lower *l, const Node *n, const Ix *at, int row_dims,
                     KVal *lo, KVal *hi);
KVal *lw_reduce_row(Lower *l, const Node *n, const Ix *at, int row_dims,
                    const Ix *row);

/* ---- what to make -------------------------------------------------------- */

typedef struct StageText {
  const char *name, *text;
} StageText;

/* How loops are done by GPUs: launch by launch, in a graph, or as one kernel
 * each (persist.h). */
typedef enum CgScan { CG_SCAN_AUTO, CG_SCAN_GRAPH, CG_SCAN_PERSISTENT } CgScan;

struct CgLaunch;
typedef struct CodegenOptions {
  const char *cpu;      /* "native", "x86-64-v3", ...: a level of host.c */
  const char *arch;     /* "sm_80", ...: a row of nvptx.c */
  CgScan scan;
  bool tf32;            /* GPUs round operands of f32 products */
  int opt_level;        /* 0 or 2 */
  const char *flags;    /* recorded in the library */
  const char *source_hash;
  /* Told of each launch in turn; NULL: nobody is. */
  void (*launched)(void *user, const struct CgLaunch *l);
  void *user;
} CodegenOptions;

/* A record of kernels, or of a product of the library's. */
typedef struct CgLaunch {
  const Entry *entry;
  const Node *node;
  const char *name;           /* the record's */
  const struct Kernel *kernel; /* NULL: a product; it lives as cx->scratch */
  const char *symbol;         /* of its stages: SYMBOL_0, SYMBOL_1, ... */
  int64_t times;              /* that a step of the entry executes it */
  int64_t flops, bytes;       /* of one execution */
  Dtype dtype;                /* of its products' operands, where it has any */
  const struct PsLoop *loop; /* a loop, of which this is told ahead of what is
                                in it; NULL: none */
  bool persists; /* it is one kernel, and nothing of what is in it is told */
} CgLaunch;

/* A model planned for one device. */
typedef struct CgProgram {
  Module *m;              /* NULL: there is none for it */
  const StageText *texts; /* IR of each stage, embedded */
  int n_texts;
  bool may_lack; /* where it cannot be made the library is without it: a
                    warning */
} CgProgram;
typedef struct CgPrograms {
  CgProgram of[MOERT_DEVICE_COUNT];
} CgPrograms;

/* ---- contract.c, items.c, finish.c, blocked.c, pairs.c, squares.c, nest.c ---
 * Contractions. The product as one library call, when dims collapse to one
 * stride each; false when it needs a generated kernel (ragged, awkward strides,
 * f64) or has a better one. Operand 1 is the left matrix where swapped. */
bool cg_gemm(const Node *n, const Isa *isa, MoertGemm *out,
             bool *out_swapped);
/* A contraction as a kernel, or a fused node of kind `product`. */
Kernel *cg_contract(Ctx *cx, const Node *n, const Isa *isa);

/* A product at work. */
typedef struct CtTask {
  const Node *n;        /* what is launched: the contraction, or a fused node */
  const Node *contract; /* with it in its body */
  CtProduct p;          /* `arg` counts operands of the launch */
  int offsets;          /* where ragged: its operand that says the rows */
  bool held[CT_OUT];    /* operands that are no argument, but here: */
  KBase at[CT_OUT];
  const Node *rows[CT_OUT]; /* gathers its rows from the operand; else NULL */
} CtTask;

/* An operand of the task, of the dtype that it is stored in: the product's, or
 * the one that it is cast from as it is loaded. */
KBase ct_operand(const CtTask *task, int side);

/* Where the operand has row `row` of all experts' rows. */
KVal *ct_row(KBuild *b, const CtTask *task, int side, KVal *row);
/* Whether the depth of an operand is rows that are picked, one by one. */
bool ct_picks_depth(const CtTask *task, int side);
/* The argument that tells of the rows that the task gathers. */
KBase ct_rows_table(const CtTask *task, int side);

/* items.c: a product as blocks of rows, columns and depth. What is below
 * `block` is for it to read; its scratch is of the stage that is open then. */
enum { CT_MOST_WITH = 4 };
typedef struct CtItem CtItem;
struct CtItem {
  KBuild *b;
  const CtTask *task;
  const CtProduct *p; /* of the task */
  int64_t rows, cols, depth; /* of a block, at most */
  int warps; /* lanes, where a vector is a warp: a block is what `block` can do
                at once, and no stage is one warp's alone; else 0 */
  int team;  /* warps that share an item; 0: none do */
  void (*block)(CtItem *t);  /* makes the code for one */
  KVal *number;              /* the expert, or other number of the batch */
  KVal *offset[CT_SIDES];    /* elements in front of row 0, k 0, column 0 */
  KVal *m_lo, *m_end, *n_lo, *n_end, *k_lo, *k_hi;
  KVal *fresh; /* bool: the first depth block; NULL: there is one only */
  KVal *last;  /* the same for the last */
  int64_t least; /* groups of fewer rows are left out; rows are k then */
  int64_t strip; /* rows that it can hand on together, where memory takes most
                    of the time; 0: all of an item */
  /* What is read with the sums, at the place of the result, and comes from
   * memory. */
  KBase with[CT_MOST_WITH];
  int n_with;
  const struct CtDone *done;
  void *sink; /* of those */
};
Kernel *ct_items(CtItem *t);
/* Opens and closes the blocks of depth [k_lo, k_hi) of the item's rows and
 * columns, with the code of t->block in each. */
void ct_depths(CtItem *t, KVal *k_lo, KVal *k_hi);
/* The item is of this expert, or other number of the batch. */
void ct_batch(CtItem *t, KVal *number);
KVal *ct_rows(CtItem *t, KVal *e); /* that expert e has */
/* Offset number `e` of ragged rows, from operand `arg` of the launch. */
KVal *ct_offset(KBuild *b, int arg, KVal *e);
KVal *ct_at(KBuild *b, KVal *base, KVal *i, int64_t stride);
KVal *ct_number(KBuild *b, KVal *cond); /* 1 where it holds, else 0 */

/* Sums of an item in scratch, from `at` on: [panel][row - m_lo][width], `panel`
 * elements from one panel of `width` columns to the next, `step` from row to
 * row. */
typedef struct CtSums {
  KBase base;
  int64_t width, step, panel;
  KVal *at;
} CtSums;

/* What becomes of the sums. */
typedef struct CtDone {
  /* In the open stage, at the start of each of its items; where teams share
   * them, each warp's share is one. */
  void (*start)(CtItem *t, KVal *item, int64_t items);
  /* Behind a depth block: all of an item, complete where it is the last; or
   * some rows and columns of it, for a kernel that does so. */
  void (*sums)(CtItem *t, const CtSums *sums);
  void (*end)(CtItem *t); /* behind the stage */
  bool soon; /* `sums` is best called for each few of them */
} CtDone;

/* finish.c: into the results of the task's node. */
void ct_finish_of(Ctx *cx, CtItem *t, int lanes);

/* Whether rows are m and experts have few, in the mean: then reading their
 * weights is what takes time, and blocked.c tells how that is done. */
bool ct_few_rows(const CtProduct *p);
/* The same of rows that are depth: then it is the result's memory. */
bool ct_shallow(const CtProduct *p);
enum {
  CT_FEW_BLOCK = 96, /* rows of an item then, */
  CT_STEP = 32,      /* rows, columns and depth that kernels do at once */
  CT_RUN = 1024      /* elements that it reads in one go, at most */
};

/* warps.c: a product where a vector is a warp. */
Kernel *ct_warps(Ctx *cx, const CtTask *task, const Isa *isa);
CtItem *ct_warps_item(Ctx *cx, KBuild *b, const CtTask *task, const Isa *isa);
/* team.c: the same in bf16, by teams of warps with instructions for tiles. */
bool ct_in_teams(const CtTask *task, const Isa *isa); /* can do it */
Kernel *ct_teams(Ctx *cx, const CtTask *task, const Isa *isa);
/* blocked.c: a product by vectors of sums, where each is one thread's. */
Kernel *ct_blocked(Ctx *cx, const CtTask *task, int lanes);
/* An item of such a kernel, for whoever makes one; sets `done` himself. */
CtItem *ct_blocked_item(Ctx *cx, KBuild *b, const CtTask *task, int lanes);
/* pairs.c: a product of bf16 in pairs, by instructions for them. */
bool ct_in_pairs(const CtProduct *p, const Isa *isa); /* can do it */
bool ct_beats_library(const CtProduct *p, const Isa *isa);
Kernel *ct_pairs(Ctx *cx, const CtTask *task, const Isa *isa);
CtItem *ct_pairs_item(Ctx *cx, KBuild *b, const CtTask *task, const Isa *isa);
/* Its left operand is read as it lies where tiles can do that. */
void ct_pairs_in_place(CtItem *t);
/* An item by whichever of these can do it. */
CtItem *ct_product_item(Ctx *cx, KBuild *b, const CtTask *task, const Isa *isa);
/* n vectors, at most 16, of n groups of `group` lanes: rows become columns. */
void ct_transpose(KBuild *b, KVal **v, int n, int group);
/* How many of `most` from `x` on are in front of `end`. */
KVal *ct_count(KBuild *b, KVal *x, KVal *end, int64_t most);
/* panels.c: a product whose right operand `pack` has put in order, and that
 * packing. */
bool ct_is_panels(const CtLetters *ls, Dtype dtype);
Kernel *ct_panels(Ctx *cx, const Node *n, const CtLetters *ls, const Isa *isa);
Kernel *cg_pack(Ctx *cx, const Node *n, const Isa *isa);
/* squares.c: the sum of the squares of a product. */
Kernel *cg_squares(Ctx *cx, const Node *n, const Isa *isa);
/* nest.c: any contraction, as one loop a letter. */
Kernel *ct_nest(Ctx *cx, const Node *n, CtLetters ls, const Isa *isa);

/* attention.c, attention_grad.c; attend.h is their own. */
Kernel *cg_attention(Ctx *cx, const Node *n, const Isa *isa);
Kernel *cg_attention_grad(Ctx *cx, const Node *n, const Isa *isa);

/* ---- rows.c: `route` and `scatter_add` ---------------------------------- */

Kernel *cg_route(Ctx *cx, const Node *n, const Isa *isa);
Kernel *cg_scatter_add(Ctx *cx, const Node *n, const Isa *isa);

/* ---- scalar.c: scalar bodies as LLVM instructions ------------------------ */

struct LLVMOpaqueContext;
struct LLVMOpaqueModule;
struct LLVMOpaqueBuilder;
struct LLVMOpaqueType;
struct LLVMOpaqueValue;
struct LLVMOpaqueTargetMachine;
struct LLVMOpaqueMemoryBuffer;

/* A dtype in a register: a scalar for one lane, else a vector. */
struct LLVMOpaqueType *cg_llvm_type(struct LLVMOpaqueContext *c, Dtype dtype,
                                    int lanes);
struct LLVMOpaqueValue *cg_llvm_const(struct LLVMOpaqueContext *c, Dtype dtype,
                                      int lanes, double x);
/* A SCALAR op of ops.def on operands of equal lanes; `in` is the dtype of the
 * first, `out` that of the result. */
struct LLVMOpaqueValue *cg_llvm_scalar(struct LLVMOpaqueBuilder *b, OpKind op,
                                       Dtype in, Dtype out,
                                       struct LLVMOpaqueValue *const *a);

/* ---- llvm.c: kernel loops to LLVM ---------------------------------------- */

/* What code is made for. */
typedef struct Target {
  MoertDevice device;
  const char *cpu;             /* an LLVM CPU name */
  const char *const *features; /* what the code needs of a machine */
  int n_features;
  Isa isa;
  const char *triple;
  const struct LlWays *ways;
  struct LLVMOpaqueTargetMachine *machine;
} Target;

/* Adds each stage of a kernel to the module as a function, its name that of
 * `ll_stage_name`; out_bodies has one place a stage. Where the target shares
 * the code of kernels that differ in keys alone, that of a kernel with keys
 * takes one argument more, their address. */
void cg_llvm_kernel(struct LLVMOpaqueModule *m, const Target *t,
                    const Kernel *k, const char *name,
                    struct LLVMOpaqueValue **out_bodies);
/* NAME_i */
void ll_stage_name(const char *kernel, uint32_t i, char *out, size_t cap);

/* ---- llvm*.c among themselves: the code of one stage --------------------- */

typedef struct LLVMOpaqueBasicBlock *LlBlock;
typedef struct LLVMOpaqueType *LlType;
typedef struct LLVMOpaqueValue *LlValue;

typedef struct LlBody {
  struct LLVMOpaqueContext *c;
  struct LLVMOpaqueModule *m;
  struct LLVMOpaqueBuilder *b;
  LlValue fn;
  LlType i64, ptr;
  const struct LlWays *ways;
  const Kernel *kernel;
  const KStage *stage;
  LlValue item;  /* induction variable of the stage's loop */
  LlValue *args; /* addresses of the record's arguments */
  LlValue *of;   /* by KVal id */
  LlValue *keys; /* by KVal id; NULL where keys are constants like others */
  /* Where threads share a vector, else NULL: */
  LlValue lane;  /* this thread's number among them, i32 */
  LlValue first; /* bool: it is number 0 */
  LlValue scratch, workspace;
  LlValue held; /* a block's own memory, where it keeps some from stage to */
  int64_t held_bytes; /* stage; scratch is behind that */
  LlValue warp;   /* this warp's number in its block, i64 */
  int team;       /* warps of a block that share items */
  LlValue *tiles; /* registers of them, those of one side by side */
  unsigned dirty; /* what was read or written since they last waited */
  unsigned exchanged; /* what they hand each other in this stage */
} LlBody;

/* What differs by target. Vectors are shared by `threads` threads, which run
 * the same way through a stage; each has the same number of neighbouring lanes.
 * Functions get the address of the thread's own lanes. */
typedef struct LlWays {
  int threads;
  bool shares_code; /* of kernels that differ in keys alone */
  LlValue (*stage)(LlBody *e, const Target *t, const Kernel *k,
                   const KStage *s, const char *name);
  LlValue (*start_of)(LlBody *e, const KBase *base); /* less base->number */
  unsigned (*alignment)(const LlBody *e, const KVal *access); /* bytes */
  LlValue (*load_some)(LlBody *e, const KVal *k, LlValue at);
  void (*store_some)(LlBody *e, const KVal *k, LlValue v, LlValue at);
  LlValue (*gather)(LlBody *e, const KVal *k);
  LlValue (*fold)(LlBody *e, const KVal *k);
  LlValue (*special)(LlBody *e, const KVal *k); /* pairs and tiles */
  /* These may be NULL: */
  void (*mark_store)(LlBody *e, const KVal *k, LlValue store);
  void (*fetch)(LlBody *e, const KVal *k);
  void (*before)(LlBody *e, const KVal *access);
  void (*enter)(LlBody *e, const KBlock *b); /* may run before what is next */
} LlWays;
extern const LlWays ll_x86, ll_warp;

LlBody ll_body(struct LLVMOpaqueModule *m, const LlWays *ways);
void ll_block(LlBody *e, const KBlock *k);
LlBlock ll_new_block(LlBody *e, const char *name);
/* Opens a block that runs if `cond`; returns what to end it with. */
LlBlock ll_if(LlBody *e, LlValue cond);
void ll_end_if(LlBody *e, LlBlock after);
/* for (iv = lo; iv < hi; iv += step): open, test behind the phis, close. */
typedef struct LlLoop {
  LlBlock header, exit;
  LlValue iv;
} LlLoop;
LlLoop ll_loop_open(LlBody *e, LlValue lo);
void ll_loop_test(LlBody *e, LlLoop *l, LlValue hi);
void ll_loop_close(LlBody *e, LlLoop *l, int64_t step);

/* Lanes that one thread has of so many. */
int ll_width(const LlBody *e, int lanes);
/* The LLVM value of one that was emitted, or of a constant. */
LlValue ll_value(LlBody *e, const KVal *k);
LlValue ll_index_const(LlBody *e, int64_t x);
/* Of an index. */
LlValue ll_add_c(LlBody *e, LlValue x, int64_t c);
LlValue ll_times_c(LlBody *e, LlValue x, int64_t c);
LlType ll_i32(LlBody *e);
LlValue ll_word(LlBody *e, int64_t x); /* an i32 */
/* lane / 4, or lane % 4, as an index: which row, or pair, of a fragment. */
LlValue ll_lane_part(LlBody *e, bool upper);
LlValue ll_splat(LlBody *e, LlValue x, int n); /* n of them; x for one */
LlValue ll_ramp(LlType integer, int n); /* 0, 1, 2 ... */
LlValue ll_call(LlBody *e, const char *intrinsic, LlType *types, size_t n_types,
                LlValue *a, unsigned n);
LlType ll_memory_type(LlBody *e, Dtype dtype, int n);
LlValue ll_start_of(LlBody *e, const KBase *base);
/* Address of element `at` of a base. */
LlValue ll_address(LlBody *e, const KBase *base, LlValue at);
LlValue ll_from_memory(LlBody *e, Dtype dtype, LlValue v);
LlValue ll_to_memory(LlBody *e, Dtype dtype, int n, LlValue v);
/* A gather of the thread's lanes, one by one. */
LlValue ll_gather_each(LlBody *e, const KVal *k, LlValue base, LlValue offsets);

/* ---- llvm_x86.c ---------------------------------------------------------- */

/* A function of type MoertBody that calls `code` with the keys of `k`. */
struct LLVMOpaqueValue *cg_llvm_keyed(struct LLVMOpaqueModule *m,
                                      const Kernel *k, const char *name,
                                      struct LLVMOpaqueValue *code);

/* ---- llvm_warp.c --------------------------------------------------------- */

/* How a stage is launched. Each warp has scratch of its own, in shared memory
 * or, where that has no room, in the workspace behind the kernel's. */
typedef struct WarpGrid {
  int64_t blocks;
  int threads; /* of a block */
  int64_t shared_bytes;
  bool shares; /* scratch is in shared memory */
} WarpGrid;
WarpGrid cg_warp_grid(const KStage *s);
/* Where word 0 of a tile is; the others and other tiles' follow. */
LlValue *ll_tile_words(LlBody *e, int64_t tile);
/* What a kernel needs of workspace, scratch included. */
int64_t cg_warp_workspace(const Kernel *k);

/* ---- llvm_team.c: what warps of a block do together ---------------------- */

LlValue ll_team(LlBody *e, const KVal *k);
/* Instructions as text, which do not move, nor does memory that they might
 * reach. */
enum { LL_MOST_OPERANDS = 136 };
LlValue ll_assembly(LlBody *e, LlType result, const char *text,
                    const char *constraints, LlValue *a, unsigned n);
/* Address in shared memory, 32 bits, of element `at` of a base in scratch. */
LlValue ll_shared_at(LlBody *e, const KBase *base, LlValue at);
/* An operand's tile from a panel into eight registers of each thread. */
void ll_tile_pick(LlBody *e, const KVal *k, LlValue *words);
/* ---- llvm_fragment.c ----------------------------------------------------- */

LlValue ll_fragment(LlBody *e, const KVal *k); /* K_TAKE to K_PUT */

/* ---- host.c: the machine that code is made for --------------------------- */

/* False: a diagnostic that names the CPUs there are. */
bool cg_target(Ctx *cx, const CodegenOptions *o, Target *out);
void cg_target_free(Target *t);
/* nvptx.c: the same for a GPU; the diagnostic names the architectures. */
bool cg_cuda_target(Ctx *cx, const CodegenOptions *o, Target *out);
/* What a GPU of an architecture does at most, by its maker's data sheet. */
typedef struct CgGpu {
  const char *arch, *ptx; /* the version of PTX to make, for LLVM */
  const char *name;
  double flops[MOERT_DTYPE_COUNT]; /* a second, of products; 0: none */
  double tf32;                     /* the same of f32 as tf32 */
  double bytes;                    /* a second, of memory */
  int cores;                       /* multiprocessors */
  int64_t shared;                  /* bytes that a block may share, at most */
  unsigned has;                    /* KN_... */
} CgGpu;
const CgGpu *cg_gpu(const char *arch); /* NULL: there is no such row */
/* An empty module for the target. The caller frees it and its context. */
struct LLVMOpaqueModule *cg_module(const Target *t);
void cg_optimise(const Target *t, struct LLVMOpaqueModule *m);
/* Object code or assembly text; the caller frees it. */
struct LLVMOpaqueMemoryBuffer *cg_machine_code(const Target *t,
                                               struct LLVMOpaqueModule *m,
                                               bool text);

/* ---- lines.c ------------------------------------------------------------- */

/* A function, and the place in the model that it is for: "file:line:col". */
typedef struct CgLine {
  struct LLVMOpaqueValue *function;
  Sym where;
} CgLine;
typedef VEC(CgLine) CgLineVec;
/* Writes these into a module that is optimised. */
void cg_lines(struct LLVMOpaqueModule *m, const CgLineVec *all);

/* ---- again.c: what a step computes more than once ------------------------ */

typedef struct CgAgain {
  Arena *a;
  Map hashes; /* Value -> of its expression */
  Map seen;   /* those of products */
} CgAgain;
/* Whether an equal product has been asked for before; zeroed but for `a`, and
 * for one entry. */
bool cg_again(CgAgain *s, const Node *contract);
typedef struct CgLowered {
  Ctx *cx;
  const Isa *isa;
  Map of; /* hash of a launch -> its kernel */
} CgLowered;
/* cg_lower, or a copy of what it has made of a launch before that is alike. */
Kernel *cg_lower_once(CgLowered *s, const Node *n);

/* ---- table.c: the module as constant data, and its kernels --------------- */

/* Adds all kernels to the LLVM module `code`, and to `data`, which may be the
 * same, the descriptor of the program, which it returns; `next`: that of the
 * program for another device, or NULL. NULL: diagnostics, of what the target
 * cannot do. The code of another device is optimised by then, and is part of
 * the descriptor. */
struct LLVMOpaqueValue *cg_table(const CgProgram *p, const Target *t,
                                 const CodegenOptions *o,
                                 struct LLVMOpaqueModule *data,
                                 struct LLVMOpaqueModule *code,
                                 struct LLVMOpaqueValue *next);

/* The largest power of two, up to `most`, that a place is a multiple of in
 * every turn. */
int64_t cg_place_alignment(const Place *p, int64_t most);
bool cg_same_place(const Place *a, const Place *b);
bool cg_same_start(const Place *a, const Place *b);
/* Whether result i of a launch takes the place of one of its operands. */
bool cg_is_in_place(const Node *n, uint32_t i);
/* The dtype of the operands of a launch's largest product; bool: none. */
Dtype cg_product_dtype(const Node *n);

/* ---- tools.c: programs of others ----------------------------------------- */

/* False: a diagnostic. */
bool cg_ld(Ctx *cx, const char *object, const char *library);
/* What ptxas says of a kernel. */
typedef struct CgPtxas {
  Sym symbol;
  int registers;        /* of a thread */
  int64_t shared_bytes; /* of a block, on top of what it is launched with */
  int64_t spill_bytes;  /* stores and loads of one thread */
} CgPtxas;
typedef VEC(CgPtxas) CgPtxasVec;
/* All kernels of a text; NULL, or why that is not known. */
Sym cg_ptxas(Ctx *cx, const char *ptx, const char *arch, CgPtxasVec *out);

/* ---- link.c: object code to a library ------------------------------------ */

/* The target of a program. False: diagnostics. */
bool cg_target_of(Ctx *cx, const CodegenOptions *o, int device, Target *out);
void cg_free_module(struct LLVMOpaqueModule *m); /* and its context */
/* Gives a library's first descriptor its name: what it leads to is kept. */
void cg_export(struct LLVMOpaqueValue *descriptor);
/* Warns that there is no program for another device than the CPU, and why. */
void cg_warn_of_lack(Ctx *cx, const Diag *why);
/* Writes the library to `path`, aside and renamed. False: diagnostics. */
bool cg_library(const CgPrograms *p, const CodegenOptions *o,
                const char *path);

/* ---- texts.c ------------------------------------------------------------- */

/* Calls `each` for every kernel of the module that differs from the others. */
void cg_kernels(Module *m, const Isa *isa,
                void (*each)(void *user, const Kernel *k), void *user);
/* Appends text of all kernels: kind "loops", "llvm" or "asm" of the first
 * program that there is, "ptx" of that for CUDA. */
bool cg_emit_text(const CgPrograms *p, const CodegenOptions *o,
                  const char *kind, Buf *out);

/* ---- report.c ------------------------------------------------------------ */

/* Appends a line a kernel of the program for CUDA: what it is, what it takes of
 * a GPU, and how long it does at least. False: diagnostics. */
bool cg_kernel_report(const CgPrograms *p, const CodegenOptions *o, Buf *out);

#endif
