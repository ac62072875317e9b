/* plan_rows.c: rows of experts, as many for each.
 *
 * In a planned program a ragged type has a bound, what a device must be ready
 * for: all rows of all tokens of its group, where rows go between devices. What
 * it has when all experts have as many follows from the placements that `shard`
 * made: so the two are noted for each ragged value there, and found again by
 * the groups and the bound of the planned type. Where experts do not divide,
 * the device that has most of them counts.
 *
 *   f32[32 @dev, r<=8192, 512]         4 devices: 8 groups, 2048 rows
 *   f32[8, r<=8192, 512] in the plan   a share of 1/4 */
#include "planner.h"

typedef struct Rows {
  int64_t groups, bound, mean;
} Rows;

struct PlanRows {
  VEC(Rows) all;
};

static const Rows *find(const PlanRows *r, int64_t groups, int64_t bound) {
  const Rows *best = NULL;
  for (uint32_t i = 0; i < r->all.len; i++) {
    const Rows *x = &r->all.data[i];
    if (x->groups != groups || (best && best->bound == bound)) continue;
    if (!best || x->bound == bound) best = x;
  }
  return best;
}

static void note(PlanRows *r, const Module *m, const Value *v) {
  if (!type_is_ragged(&v->type)) return;
  Type local = placement_local(m, &v->type, &v->placement);
  int64_t parts = axes_parts(m, v->placement.dims[1]);
  int64_t bound = (v->type.dims[1].size + parts - 1) / parts;
  int64_t groups = v->type.dims[0].size, here = local.dims[0].size;
  Rows x = {here, bound, (bound * here + groups - 1) / groups};
  const Rows *old = find(r, x.groups, x.bound);
  if (!old || old->bound != x.bound) vec_push(&m->cx->perm, &r->all, x);
}

static void note_region(PlanRows *r, const Module *m, const Region *region) {
  for (uint32_t i = 0; i < region->nodes.len; i++) {
    const Node *n = region->nodes.data[i];
    if (n->body) note_region(r, m, n->body);
    for (uint32_t k = 0; k < n->outs.len; k++)
      note(r, m, n->outs.data[k]);
  }
}

PlanRows *plan_rows_new(const Module *m) {
  PlanRows *r = NEW(&m->cx->perm, PlanRows);
  for (uint32_t i = 0; i < m->entries.len; i++)
    note_region(r, m, m->entries.data[i]->region);
  return r;
}

/* Another bound than the placements give, by an option, leaves the mean. */
double plan_rows_share(const PlanRows *r, const Type *t) {
  if (!type_is_ragged(t)) return 1;
  int64_t bound = t->dims[1].size;
  const Rows *x = find(r, t->dims[0].size, bound);
  return x && x->mean < bound ? (double)x->mean / (double)bound : 1;
}
