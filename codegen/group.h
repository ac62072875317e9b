/* group.h: products by warpgroups, and what they share with those by teams. */
#ifndef MOEC_GROUP_H
#define MOEC_GROUP_H

#include "codegen.h"

enum {
  CT_WARPGROUP = 4,           /* warps */
  CT_GROUP_BYTES = 227 << 10, /* of shared memory, that a block may have */
  CT_GROUP_DEEP = 64,         /* of a step, and elements of a line */
  CT_GATE = 4                 /* elements that a gate has the size of */
};

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
/* An item that is a block of this shape, its shares those of warps. */
CtItem ct_shape_item(KBuild *b, const CtTask *task, const Isa *isa,
                     const CtShape *s);
int64_t ct_team_cycles(const CtProduct *p, const Isa *isa); /* by the best */
/* Whether an operand's rows are one behind the other along the depth. */
bool ct_along_depth(const CtProduct *p, int side);

/* ---- gather.c ------------------------------------------------------------ */

/* Rows of an item's operands, as panels are filled with a step of `deep` of the
 * depth at a time. */
typedef struct CtGather {
  const CtItem *at;
  const KPanel *panel; /* by side */
  int deep;
  KVal *rows[CT_OUT]; /* those that are copied next; NULL: they follow each
                         other */
} CtGather;
bool ct_gathers_depth(const CtTask *task, int side);
void ct_gather_item(CtGather *g, const CtItem *t, const KPanel *panels,
                    int deep);
void ct_gather_step(CtGather *g, int nth); /* rows are those of this step */
/* From `loop` on rows are carried, at its start those of the last such step. */
void ct_gather_loop(CtGather *g, KVal *loop);
/* In it, where the step from k on is worked off: looks up those of the nth from
 * there for the loop's next turn. */
void ct_gather_next(CtGather *g, KVal *k, int nth);
/* Where a panel of the step from k on starts in the operand, its row aside
 * where rows are gathered. */
KVal *ct_gather_from(const CtGather *g, int side, KVal *k);

/* ---- group.c ------------------------------------------------------------- */

/* Whether warpgroups can do it, and do it at least as soon as teams. */
bool ct_in_groups(const CtTask *task, const Isa *isa);
Kernel *ct_groups(Ctx *cx, const CtTask *task, const Isa *isa);

/* ---- llvm_team.c, llvm_real.c -------------------------------------------- */

/* Bytes from a panel's start, in rows of `run` bytes, to group `group` of 16
 * bytes of row `row`. */
LlValue ll_group_at(LlBody *e, int run, LlValue row, LlValue group);
void ll_real_pick(LlBody *e, const KVal *k); /* of f32: K_TILE_PICK, */
void ll_real_dot(LlBody *e, const KVal *k);  /* K_TILE_DOT */
void ll_tf32_pick(LlBody *e, const KVal *k); /* and as tf32 */

/* ---- llvm_group.c -------------------------------------------------------- */

LlValue ll_group(LlBody *e, const KVal *k); /* K_GROUP_DOT, K_GROUP_WAIT */
void ll_group_fence(LlBody *e); /* what threads wrote to scratch is panels' */

#endif
