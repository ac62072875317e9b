/* group.h: products by warpgroups, and what they share with those by teams. */
#ifndef MOEC_GROUP_H
#define MOEC_GROUP_H

#include "codegen.h"

enum { CT_WARPGROUP = 4 }; /* warps */

/* ---- team.c -------------------------------------------------------------- */

/* A block of a result, and how many shares there are along each side: those of
 * warps, or of warpgroups. */
typedef struct CtShape {
  int rows, cols, high, wide;
} CtShape;

/* Cycles of a multiprocessor that does `dots` multiply-adds in one, for a step
 * of the depth of all blocks of this shape. */
int64_t ct_shape_cycles(const CtProduct *p, const Isa *isa, const CtShape *s,
                        int64_t dots);
int64_t ct_team_cycles(const CtProduct *p, const Isa *isa); /* by the best */
/* Whether an operand's rows are one behind the other along the depth. */
bool ct_along_depth(const CtProduct *p, int side);

/* ---- group.c ------------------------------------------------------------- */

/* Whether warpgroups can do it, and do it at least as soon as teams. */
bool ct_in_groups(const CtTask *task, const Isa *isa);
Kernel *ct_groups(Ctx *cx, const CtTask *task, const Isa *isa);

/* ---- llvm_group.c -------------------------------------------------------- */

LlValue ll_group(LlBody *e, const KVal *k); /* K_GROUP_DOT, K_GROUP_WAIT */
void ll_group_fence(LlBody *e); /* what threads wrote to scratch is panels' */

#endif
