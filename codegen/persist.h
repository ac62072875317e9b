/* persist.h: loops as one kernel each, whose blocks stay from the first turn to
 * the last.
 *
 *   for each turn:                      one kernel of so many blocks:
 *     launch product, h times U           U into the blocks' own memory
 *     launch cell                         for each turn:
 *                                           product; all blocks meet
 *                                           cell; all blocks meet
 *
 * A body of that kind has products by what the loop does not change, whose
 * columns are shared out among blocks, and what is computed row by row or
 * element by element. */
#ifndef MOEC_PERSIST_H
#define MOEC_PERSIST_H

#include "codegen.h"

enum {
  PS_WARPS = 8, /* of a block */
  PS_SCRATCH = 64 << 10 /* bytes of a block, at most */
};

/* ---- held.c: a product whose right operand blocks keep ------------------- */

/* How the columns are shared out. */
typedef struct CtHeld {
  bool tiles;   /* of bf16, by instructions for them */
  int64_t cols; /* of a block */
  int64_t blocks;
  Dtype dtype;   /* of what a block keeps */
  int64_t run;   /* its elements from column to column, or depth to depth */
  int64_t elements, bytes; /* of all that it keeps */
} CtHeld;

/* For at most so many blocks; NULL, or why it cannot be. */
const char *ct_held_by(const Node *contract, const Isa *isa, CtHeld *out);
/* Its first stage fetches the right operand, once. */
Kernel *ct_held(Ctx *cx, const Node *contract, const CtHeld *h);

/* ---- persist.c ----------------------------------------------------------- */

/* What the kernel of a loop gets: where a value of the body is for index 0, and
 * bytes from there to where it is for index 1. */
typedef struct PsArg {
  const Value *v;
  int64_t step;
} PsArg;

/* A launch of the body, and the numbers of its arguments among the loop's. */
typedef struct PsPart {
  const Node *n;
  Kernel *k;
  uint32_t *args;
  bool held; /* a product by what blocks keep */
} PsPart;

typedef struct PsLoop {
  const Node *scan;
  VEC(PsArg) args;
  uint32_t n_outs; /* of them, the last ones, are written */
  VEC(PsPart) parts;
  int64_t turns;
  bool reverse;
  WarpGrid grid;
  int64_t held_bytes;
  double graph, persistent; /* seconds of all turns, by the cost model */
  const char *why; /* it cannot be one kernel, or NULL */
} PsLoop;

/* What a loop would be as one kernel; only `why` where it cannot be that. */
void cg_persist(Ctx *cx, const Node *scan, const Isa *isa, const CgGpu *gpu,
                PsLoop *out);
int cg_loops_around(const Node *scan); /* so many */
/* Whether it is to be that, as the options say and the cost model. */
bool cg_persists(const PsLoop *l, CgScan scan);

/* ---- llvm_persist.c ------------------------------------------------------ */

/* The kernel. */
LlValue ll_persist(struct LLVMOpaqueModule *m, const Target *t,
                   const PsLoop *l, const char *name);

/* ---- llvm_warp.c: parts of a kernel -------------------------------------- */

enum { LL_PTX_KERNEL = 71 }; /* LLVM's number of the calling convention */

void ll_warp_threads(LlBody *e, int threads); /* of a block */
/* Registers for tiles, in the entry block. */
void ll_warp_tiles(LlBody *e, Arena *a);
/* The items of a stage, shared out among the grid's warps. */
void ll_warp_items(LlBody *e, const Kernel *k, const KStage *s,
                   const WarpGrid *g);
/* The block's shared memory, as much as it is launched with. */
LlValue ll_shared_memory(LlBody *e, unsigned alignment);

#endif
