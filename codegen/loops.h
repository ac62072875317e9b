/* loops.h: kernel loops, the small language between tensors and LLVM, and its
 * builder (loops.c, loops_print.c).
 *
 * A kernel is a few stages, each one parallel loop over [0, count) cut into
 * chunks; a stage's body is nested blocks of statements. Values are scalars or
 * vectors of `lanes` equal lanes, typed by a dtype, or indices (64-bit
 * integers). Nothing is implied: vector loops, tails, reductions' order and
 * scratch are all written out, so that every target computes the same bits. */
#ifndef MOEC_LOOPS_H
#define MOEC_LOOPS_H

#include "../ir/ir.h"

typedef struct KVal KVal;
typedef VEC(KVal *) KBlock;

/* In a block stand all but INDEX, CONST, IV, ACC and RESULT: they are known
 * wherever they may be used.
 *
 * Tiles are registers of the stage, by number: 16 rows of 64 bytes, as f32
 * [16][16], or as bf16 [16][32], rows of pairs. They are not values; they hold
 * what was last put into them. CPUs have eight, warps 24.
 *
 * Where a vector is a warp, several of them may share an item: a team. All run
 * through the item's code; what each does of it hangs on its number, K_WARP.
 * Scratch is the team's. What one writes there another reads behind a K_MEET.
 * A panel is a block of rows in scratch, copied there by the whole team
 * while it does other things; only K_TILE_PICK knows how it lies. */
typedef enum KKind {
  K_INDEX,    /* an index constant: number */
  K_IV,       /* induction variable of loop `loop`; in a stage's body, of the
                 chunk loop when loop is NULL */
  K_ALU,      /* index arithmetic: alu, a[0], a[1]; DIV and REM round to zero */
  K_CONST,    /* a constant of dtype, in all lanes: value */
  K_SCALAR,   /* scalar-body op of ops.def on a[0..], lane by lane */
  K_SPLAT,    /* a[0] in every lane */
  K_LANES,    /* a[0] + 0, 1, 2 ... : i32 lanes from an i32 scalar */
  K_LOAD,     /* base[a[0]], a[0] an index in elements; lanes > 1: consecutive.
                 With a[1] i32 lanes: a gather at a[0] + each. With a[1] an
                 index: of the first a[1] lanes; the others are zeros */
  K_STORE,    /* base[a[0]] = a[1]; lanes > 1: consecutive; with a[2], an
                 index: the first a[2] lanes; value 1: past the caches */
  K_FETCH,    /* has the memory around base[a[0]] brought near for a later load;
                 changes nothing, and may be past the end of what base has;
                 value 1: not into the first cache */
  K_FOR,      /* for (iv = a[0]; iv < a[1]; iv += number) body, with accs */
  K_ACC,      /* the number-th carried value of loop `loop`; starts as a[0] */
  K_RESULT,   /* the number-th carried value after loop `loop` */
  K_IF,       /* if (a[0]) body; stores only, no values come out */
  K_FOLD,     /* horizontal fold of a vector by `op` (add, max, min), pairwise:
                 lane i with lane i + lanes/2, and so on */
  K_ZIP,      /* the lower halves of a[0] and a[1], or (value 1) the upper, in
                 turn a group of `number` lanes */
  K_DOT,      /* f32 a[0] + products of bf16 pairs: u32 lanes a[1], a[2]; in the
                 order and with the rounding of the instruction */
  K_NARROW,   /* 32 lanes of f32 a[0] as bf16, to nearest even; what is too
                 small for a normal number, which products of pairs take for 0,
                 may become 0 */
  K_TAKE,     /* a fragment of bf16 from memory: kb_take; or f32 numbers of a
                 fragment's rows or columns: kb_take_numbers */
  K_MMA,      /* f32 fragment a[0] + product of bf16 fragments a[1] and a[2] */
  K_PLACES,   /* the row or, as `number` says, column of each lane: i32 */
  K_AHEAD,    /* bool: whether each lane's column is less than a[0], an index,
                 ahead of its row; or (`number`) its row of its column */
  K_PAIRS,    /* of f32 fragment a[0] half a left one, KF_LANES / 2 pairs */
  K_JOIN,     /* the left fragment of two such, side by side */
  K_ROW_FOLD, /* rows of f32 fragment a[0] folded by `op`; of KF_ROWS lanes */
  K_BY_ROW,   /* the f32 fragment whose rows are of these numbers */
  K_PAUSE,    /* nothing behind it is loaded in front of it: registers that are
                 needed there are not filled ahead, nor kept by turns */
  K_PUT,      /* rows of f32 fragment a[1] to memory: kb_put */
  K_TILE_ZERO,  /* tile `number` = 0 */
  K_TILE_LOAD,  /* its row i = base[a[0] + i * a[1]], 64 bytes */
  K_TILE_STORE, /* and back */
  K_TILE_TAKE,  /* bf16 tile `number` from a matrix as it lies: its [m][k], or
                   (value 1) its [k / 2][2 m + k % 2], is base[a[0] +
                   min(m, a[1]) * a[3] + k * a[4]], 0 from k = a[2] on; a[3]
                   and a[4]: index constants */
  K_TILE_DOT, /* f32 tile `number` [m][n] += sum over k of bf16 tile a[0] [m][k]
                 times tile a[1] [k / 2][2 n + k % 2]; a: index constants; of
                 dtype f32, [m][k] and [n][k], for two k one after the other;
                 (value 1) or for 16 that were rounded to tf32, any way */
  K_TILE_PICK, /* the same from the panel at base[a[0]] in rows of `lanes`
                   elements, its row a[1] + m at element k, or (value 2, or 3)
                   its row k at element a[1] + m; of f32 from element, or row,
                   a[2] on, an even one; without a[2], 16 k rounded to tf32 */
  K_WARP,  /* number of this warp in its team, an index */
  K_MEET,  /* waits for all warps of the team to come here, and for their
              copies but those of the newest `number` batches; (value 1) for
              K_GROUP_DOT to read them */
  K_PANEL, /* copies `number` rows of `lanes` elements, a[3] apart from
              base[a[0]] on, to the panel at element a[4] of scratch; what is
              not among the first a[1] rows and a[2] elements of each becomes 0;
              a[3]: an index constant; with a[5], row i is as many times a[3]
              from there on as a K_PANEL_ROWS says */
  K_PANEL_ROWS, /* base[a[0] + i] / a[2], where i is less than a[1], else 0, for
              each row i that this thread copies a part of to a panel of
              `number` rows; i32, a lane each; a[2]: an index constant */
  K_BATCH, /* ends a batch of such copies */
  K_GROUP_DOT,  /* begins f32 tiles [64][lanes] of a warpgroup += product over
                   64 of the depth of panels in rows of 64 elements: left ones
                   from element a[0] of scratch, right ones from a[1]. value:
                   whether (1) the left one's, (2) the right one's rows are the
                   depth; these are side by side, 64 columns each */
  K_GROUP_WAIT, /* for all such products but the newest `number`: until then
                   tiles and panels are theirs */
  K_GATES,      /* makes `number` gates from base[0] of scratch on, which open
                   each time that a[0] boxes have come; (value 1) ends them */
  K_BOX,        /* copies a box of the stage's map `number`, at element a[0] of
                   row a[1] of batch a[2], to element a[3] of scratch, as a
                   panel, for gate a[4] of those from base[0] on; what is
                   outside of the tensor becomes 0 */
  K_GATE_WAIT,  /* until gate a[0] has opened again: a[1] is 0 for the first
                   time, 1 for the second, 0 for the third ... */
  K_FROM_I32, /* an index from an i32 or u32 scalar */
  K_TO_I32    /* an i32 from an index */
} KKind;

/* LT, LE and EQ compare two indices and give a bool scalar. */
typedef enum KAlu {
  A_ADD,
  A_SUB,
  A_MUL,
  A_DIV,
  A_REM,
  A_MIN,
  A_MAX,
  A_LT,
  A_LE,
  A_EQ
} KAlu;

/* What a load or store addresses. */
typedef enum KBaseKind {
  KB_ARG,      /* argument `number` of the record */
  KB_SCRATCH,  /* `number` bytes into the call's private scratch */
  KB_WORKSPACE, /* `number` bytes into the kernel's workspace */
  KB_HELD      /* `number` bytes into what a block keeps from the first stage
                  to the last: persist.h */
} KBaseKind;
typedef struct KBase {
  KBaseKind kind;
  int64_t number;
  Dtype dtype; /* element */
} KBase;

struct KVal {
  KKind kind;
  uint32_t id; /* dense in the kernel, for side tables */
  OpKind op;
  KAlu alu;
  Dtype dtype;  /* of values that are not indices */
  bool index;   /* an index value */
  uint16_t lanes;
  uint16_t level; /* depth of the block it is known in; 0 is the stage's */
  uint32_t scope; /* that block's number; 0: known everywhere */
  KVal *a[6];
  int64_t number; /* K_INDEX, K_ACC, K_RESULT; K_FOR: step; the chunk
                     variable: its stage's count */
  double value;
  KBase base;
  KVal *loop;
  KBlock body;
  VEC(KVal *) accs, updates; /* K_FOR: carried values and their next ones */
};

/* Instructions beyond those of all targets, one bit each. */
enum {
  KN_DOT = 1,
  KN_TILES = 2,
  KN_NARROW = 4,
  KN_MMA = 8,
  KN_GROUPS = 16, /* products by warpgroups */
  KN_TF32 = 32    /* products of f32 rounded to tf32: only where asked for */
};

/* An argument as boxes are copied of it: bf16 [batch][row][element]. */
typedef struct KMap {
  int arg;
  int64_t size[3]; /* elements, rows, batch */
  int64_t step[2]; /* elements from row to row, of the batch */
  int32_t box[2];  /* elements, rows */
} KMap;

typedef struct KStage {
  KVal *iv;    /* the chunk variable */
  KBlock body; /* runs for iv in [lo, hi) of one chunk */
  int64_t count, grain;
  int64_t scratch_bytes;
  int team;       /* warps that share an item and its scratch; 0: each warp has
                     its own */
  unsigned needs; /* KN_... */
  bool uneven; /* chunks differ much in work: handed out one at a time */
  bool streams; /* has stores past the caches */
  VEC(KMap) maps;
  bool once; /* in front of the first turn of a loop, and not again */
} KStage;

typedef struct Kernel {
  const char *name;
  VEC(KStage) stages;
  int64_t workspace_bytes, held_bytes;
  int32_t n_args, n_outs;
  uint32_t n_vals; /* ids are below this */
  uint64_t hash;   /* over its printed text, name left out */
  uint64_t code;   /* the same without the values of its keys */
  KBlock keys;     /* K_CONSTs, in the order of the text */
  const uint8_t *aligned; /* bytes that each argument's address is a multiple
                             of; NULL: of its element */
  bool in_place; /* a result is where an operand is; unless `aligned` is NULL */
  const char *where; /* what it is for: "file:line:col", "" or NULL */
} Kernel;

/* Building. Statements go into the innermost open block, except that values
 * which need nothing of it go to the outermost block that knows their operands,
 * and equal ones are made once: code that does not vary in a loop is outside
 * of it without further ado. Loads and stores stay where they are made, but for
 * kb_load_from. Scalars beside vectors are splat. Memory: cx->scratch. */
typedef struct KBuild KBuild;

KBuild *kb_new(Ctx *cx, const char *name, int n_args, int n_outs);
/* Sets the hash. The kernel lives as long as cx->scratch. */
Kernel *kb_finish(KBuild *b);
/* Opens a parallel loop over [0, count); its body ends at kb_end. Returns the
 * induction variable. */
KVal *kb_stage(KBuild *b, int64_t count, int64_t grain);
void kb_uneven(KBuild *b); /* says so of the open stage */
void kb_team(KBuild *b, int warps); /* the same */
void kb_once(KBuild *b);
/* Room for `elements` in this stage's scratch, in the kernel's workspace. */
KBase kb_scratch(KBuild *b, Dtype dtype, int64_t elements);
KBase kb_workspace(KBuild *b, Dtype dtype, int64_t elements);
KBase kb_held(KBuild *b, Dtype dtype, int64_t elements);
KBase kb_arg(int number, Dtype dtype);

KVal *kb_index(KBuild *b, int64_t number);
KVal *kb_alu(KBuild *b, KAlu alu, KVal *x, KVal *y); /* folds constants */
KVal *kb_alu_c(KBuild *b, KAlu alu, KVal *x, int64_t y);
KVal *kb_from_i32(KBuild *b, KVal *v);
KVal *kb_to_i32(KBuild *b, KVal *v);

KVal *kb_const(KBuild *b, Dtype dtype, double value);
/* Any EW op; `dtype` is the result's. */
KVal *kb_scalar(KBuild *b, OpKind op, Dtype dtype, KVal *const *a, int n);
KVal *kb_op2(KBuild *b, OpKind op, KVal *x, KVal *y); /* as x, or bool */
KVal *kb_fma(KBuild *b, KVal *x, KVal *y, KVal *z);
KVal *kb_select(KBuild *b, KVal *cond, KVal *yes, KVal *no);
KVal *kb_splat(KBuild *b, KVal *v, int lanes); /* v itself where it fits */
KVal *kb_lanes(KBuild *b, KVal *v, int lanes);
KVal *kb_fold(KBuild *b, OpKind op, KVal *v); /* v itself when scalar */

KVal *kb_load(KBuild *b, KBase base, KVal *index, int lanes);
/* `offsets`: i32 lanes added to `index`. */
KVal *kb_gather(KBuild *b, KBase base, KVal *index, KVal *offsets);
/* A load of what nothing writes any more once the block of depth `floor` is
 * where it is now: goes outwards to there as far as its index allows, but not
 * out of an open kb_if. `offsets` may be NULL; else `lanes` does not matter. */
KVal *kb_load_from(KBuild *b, KBase base, KVal *index, KVal *offsets, int lanes,
                   int floor);
void kb_store(KBuild *b, KBase base, KVal *index, KVal *v);
/* Of lanes whose address is a multiple of their bytes, to memory that is larger
 * than the caches: they do not go there. */
void kb_stream(KBuild *b, KBase base, KVal *index, KVal *v);
void kb_fetch(KBuild *b, KBase base, KVal *index);
void kb_fetch_far(KBuild *b, KBase base, KVal *index); /* no first cache */
/* Of the first `count` lanes, an index, at most all: those of a load beyond are
 * zeros, and memory is not touched there. */
KVal *kb_load_some(KBuild *b, KBase base, KVal *index, KVal *count, int lanes);
void kb_store_some(KBuild *b, KBase base, KVal *index, KVal *count, KVal *v);

KVal *kb_zip(KBuild *b, KVal *x, KVal *y, int group, bool upper);
KVal *kb_dot(KBuild *b, KVal *sum, KVal *x, KVal *y);
KVal *kb_narrow(KBuild *b, KVal *x);
void kb_tile_zero(KBuild *b, int tile);
/* `step`: elements from row to row. */
void kb_tile_load(KBuild *b, int tile, KBase base, KVal *index, int64_t step);
void kb_tile_store(KBuild *b, int tile, KBase base, KVal *index, int64_t step);
void kb_tile_dot(KBuild *b, int sum, int left, int right);
/* The same of tiles that were picked from panels of this dtype; `tf32`: of f32,
 * and picked at no depth. */
void kb_tile_dot_of(KBuild *b, Dtype dtype, bool tf32, int sum, int left,
                    int right);
/* An operand of that as it lies, for targets with KN_MMA: rows (of the left
 * one; columns of the right) `step` elements apart, their depth `along`; there
 * are rows up to `last`, which may be negative, and `depth` of the depth. */
void kb_tile_take(KBuild *b, int tile, bool right, KBase base, KVal *index,
                  KVal *last, KVal *depth, int64_t step, int64_t along);
/* In stages of a team. Panels are in scratch; `row`: see K_TILE_PICK. */
KVal *kb_warp(KBuild *b);
void kb_meet(KBuild *b, int batches);
enum { KB_COPY_BYTES = 16 }; /* of a panel, that a thread copies at once */
typedef struct KPanel {
  int rows, run; /* elements of a row, 64 to 512 bytes; in all, 2 KiB or more */
  KBase base;    /* of what they become: bf16 or f32 */
} KPanel;
/* Which rows a panel is to have, the numbers in a table from `index` on by
 * `choices`: as early as may be. */
KVal *kb_panel_rows(KBuild *b, const KPanel *to, KBase table, KVal *index,
                    KVal *rows, int64_t choices);
/* A panel from rows `step` elements apart, of which there are `rows`; those
 * that follow each other from `index` on, or, unless NULL, `which`. */
void kb_panel(KBuild *b, const KPanel *to, KVal *at, KBase from, KVal *index,
              KVal *rows, KVal *run, int64_t step, KVal *which);
void kb_batch(KBuild *b);
void kb_needs(KBuild *b, unsigned bits); /* KN_..., of the open stage */
int kb_map(KBuild *b, KMap map);         /* its number */
void kb_tile_pick(KBuild *b, int tile, bool right, bool across,
                  const KPanel *from, KVal *at, KVal *row, KVal *depth);

/* What fragments.c is made of: a pure value, like all above, and a statement
 * that stays where it is made. */
KVal *kb_value(KBuild *b, KVal proto);
KVal *kb_statement(KBuild *b, KVal proto);

/* Opens a loop; ends at kb_end. Carried values are declared at its start
 * (kb_acc), given their next value within (kb_next), read after (kb_result). */
KVal *kb_for(KBuild *b, KVal *lo, KVal *hi, int64_t step);
KVal *kb_iv(KBuild *b, KVal *loop);
KVal *kb_acc(KBuild *b, KVal *loop, KVal *init);
void kb_next(KBuild *b, KVal *acc, KVal *next);
KVal *kb_result(KBuild *b, KVal *acc);
void kb_if(KBuild *b, KVal *cond);
void kb_end(KBuild *b);

/* Leaves the inner blocks for a while: what follows goes into the block of
 * depth `level`, in front of the open inner ones, until kb_return. */
int kb_depth(const KBuild *b); /* of the innermost open block */
uint32_t kb_scope(const KBuild *b, int level); /* its number, 0 when not open */
typedef struct KDetour KDetour;
KDetour *kb_detour(KBuild *b, int level);
void kb_return(KBuild *b, KDetour *d);
bool kb_known(const KBuild *b, const KVal *v); /* may be used here */

/* A number that divides an index wherever it is used; 0 for index 0. */
int64_t kb_divisor(const KVal *v);

/* Canonical text of a kernel: for --emit=loops, tests, finding equal ones. */
void cg_print_kernel(const Kernel *k, Buf *out);
/* Finds the keys of a kernel and its hashes. Keys are the constants that u32
 * are xor-ed with: those of random draws. Kernels that differ in keys alone
 * share their code, and are given their own. */
void cg_hash_kernel(Arena *a, Kernel *k);
bool cg_is_key(const KVal *user, int operand);

/* A CPU feature, by LLVM's name, that instructions of `bits` need. */
typedef struct CgNeed {
  unsigned bits;
  const char *feature;
} CgNeed;
enum { CG_NEEDS = 3 };
extern const CgNeed cg_needs[CG_NEEDS]; /* host.c */

/* What a target's instructions can do for kernels. */
typedef struct Isa {
  int lanes;    /* f32 lanes of a vector */
  unsigned has; /* KN_... */
  int least;    /* lanes where rows are short; 0: `lanes` always */
  int cores;    /* multiprocessors, whose warps can be teams; 0: they cannot */
} Isa;

#endif
