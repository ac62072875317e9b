/* gather.c: rows that products of teams and warpgroups gather.
 *
 * Such products copy both operands to shared memory step by step. The rows of
 * one that the launch gathers lie anywhere: a table tells where. Each thread
 * looks up those that it copies a part of: where rows are those of the result,
 * once for an item; where they are the depth, for each step, and a step before
 * its copies, so that none waits for the table. */
#include "group.h"

static bool by_depth(const CtGather *g, int side) {
  return ct_gathers_depth(g->at->task, side);
}

bool ct_gathers_depth(const CtTask *task, int side) {
  return task->rows[side] && task->p.ragged_k;
}

/* Those of the rows from `lo` on. */
static KVal *look_up(CtGather *g, int side, KVal *lo, KVal *end) {
  KBuild *b = g->at->b;
  const CtTask *task = g->at->task;
  return kb_panel_rows(b, &g->panel[side], ct_rows_table(task, side), lo,
                       kb_alu(b, A_SUB, end, lo),
                       attr_int(task->rows[side], "choices"));
}

static KVal *find(CtGather *g, int side, KVal *k, int nth) {
  KVal *lo = kb_alu_c(g->at->b, A_ADD, k, (int64_t)nth * g->deep);
  return look_up(g, side, lo, g->at->k_hi);
}

void ct_gather_item(CtGather *g, const CtItem *t, const KPanel *panels,
                    int deep) {
  *g = (CtGather){.at = t, .panel = panels, .deep = deep};
  if (t->task->rows[CT_LEFT] && !t->p->ragged_k)
    g->rows[CT_LEFT] = look_up(g, CT_LEFT, t->m_lo, t->m_end);
}

void ct_gather_step(CtGather *g, int nth) {
  for (int side = CT_LEFT; side <= CT_RIGHT; side++)
    if (by_depth(g, side)) g->rows[side] = find(g, side, g->at->k_lo, nth);
}

void ct_gather_loop(CtGather *g, KVal *loop) {
  for (int side = CT_LEFT; side <= CT_RIGHT; side++)
    if (by_depth(g, side))
      g->rows[side] = kb_acc(g->at->b, loop, g->rows[side]);
}

void ct_gather_next(CtGather *g, KVal *k, int nth) {
  for (int side = CT_LEFT; side <= CT_RIGHT; side++)
    if (by_depth(g, side))
      kb_next(g->at->b, g->rows[side], find(g, side, k, nth));
}

KVal *ct_gather_from(const CtGather *g, int side, KVal *k) {
  KBuild *b = g->at->b;
  const CtProduct *p = g->at->p;
  const CtLetter *other = side == CT_LEFT ? &p->m : &p->n;
  KVal *lo = side == CT_LEFT ? g->at->m_lo : g->at->n_lo;
  KVal *from = g->at->offset[side];
  bool gathers = g->rows[side];
  if (!gathers || p->ragged_k) from = ct_at(b, from, lo, other->stride[side]);
  if (!gathers || !p->ragged_k) from = ct_at(b, from, k, p->k.stride[side]);
  return from;
}
