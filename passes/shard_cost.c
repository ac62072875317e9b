/* shard_cost.c: what a placement moves, and where moving an axis to another
 * factor of the same unit moves less.
 *
 * The cost of a unit is what its operands and results add to the bytes that the
 * whole program sends: a value that several readers want at one place goes
 * there once. So a change that makes a unit cheaper makes the program cheaper,
 * and `shard_repair`, which makes such changes until there is none, ends. */
#include "pass.h"

#include <string.h>

/* Bytes of taking `v` where reader `by` wants it. */
static int64_t move_cost(const Shard *s, const Value *v, const Placement *from,
                         ShardReader by) {
  Placement to = shard_wanted(by.unit, by.end);
  int64_t bytes = reshard_move(s->m, &v->type, from, &to).bytes;
  return bytes * shard_times(by.unit->ins.data[by.end].region);
}

/* Whether one of the readers before the k-th, or with `others` one of another
 * unit, wants the value where the k-th does. */
static bool is_shared(const ShardValue *v, uint32_t k, bool others) {
  ShardReader by = v->readers.data[k];
  Placement to = shard_wanted(by.unit, by.end);
  for (uint32_t i = 0; i < v->readers.len; i++) {
    ShardReader r = v->readers.data[i];
    if (i >= k && !(others && r.unit != by.unit)) continue;
    Placement p = shard_wanted(r.unit, r.end);
    if (placement_equal(&p, &to)) return true;
  }
  return false;
}

int64_t shard_operand_cost(const Shard *s, const ShardUnit *u, uint32_t i) {
  const Value *v = u->ins.data[i].v;
  const ShardValue *x = shard_value(s, v);
  uint32_t k = 0;
  while (x->readers.data[k].unit != u || x->readers.data[k].end != i)
    k++;
  if (is_shared(x, k, true)) return 0;
  Placement from = shard_now(s, v);
  return move_cost(s, v, &from, x->readers.data[k]);
}

static int64_t result_cost(const Shard *s, const ShardUnit *u, uint32_t i) {
  const Value *v = u->outs.data[i].v;
  const ShardValue *x = shard_value(s, v);
  Placement from = shard_made(u, i);
  int64_t bytes = 0;
  for (uint32_t k = 0; k < x->readers.len; k++)
    if (!is_shared(x, k, false))
      bytes += move_cost(s, v, &from, x->readers.data[k]);
  return bytes;
}

static int64_t unit_cost(const Shard *s, const ShardUnit *u) {
  int64_t bytes = 0;
  for (uint32_t i = 0; i < u->ins.len; i++)
    bytes += shard_operand_cost(s, u, i);
  for (uint32_t i = 0; i < u->outs.len; i++)
    bytes += result_cost(s, u, i);
  return bytes;
}

/* ---- moving axes within a unit ------------------------------------------- */

/* Whether an operand is made, or a result wanted, with the axis on a dim of the
 * factor: a unit does not invent a split that nobody else has. */
static bool neighbour_has(const Shard *s, const ShardUnit *u, int f, int axis) {
  for (uint32_t i = 0; i < u->ins.len; i++) {
    const ShardEnd *e = &u->ins.data[i];
    Placement p = shard_now(s, e->v);
    for (int d = 0; d < e->v->type.rank; d++)
      if (e->factor[d] == f && axes_has(p.dims[d], axis)) return true;
  }
  for (uint32_t i = 0; i < u->outs.len; i++) {
    const ShardEnd *e = &u->outs.data[i];
    const ShardValue *x = shard_value(s, e->v);
    for (uint32_t k = 0; k < x->readers.len; k++) {
      ShardReader by = x->readers.data[k];
      Placement p = shard_wanted(by.unit, by.end);
      for (int d = 0; d < e->v->type.rank; d++)
        if (e->factor[d] == f && axes_has(p.dims[d], axis)) return true;
    }
  }
  return false;
}

static bool may_take(const Shard *s, const ShardFactor *f, int axis) {
  int64_t parts = axes_parts(s->m, f->axes) * s->m->mesh.data[axis].size;
  return !f->closed && f->forward != LEVEL_BATCH && f->forward != LEVEL_LAST &&
         f->size % parts == 0;
}

/* Moves the last axis of factor `from` to where it is cheapest. */
static bool repair_factor(Shard *s, ShardUnit *u, int from) {
  ShardFactor *f = &u->factors[from];
  int n = axes_count(f->axes) - 1, best = -1;
  if (n < 0 || f->why[n].level == LEVEL_SAID ||
      f->why[n].level == LEVEL_BATCH)
    return false;
  int axis = axes_at(f->axes, n);
  int64_t now = unit_cost(s, u), least = now;
  Axes before = f->axes;
  f->axes = axes_without(f->axes, axis);
  for (int g = 0; g < u->n_factors && now; g++) {
    ShardFactor *to = &u->factors[g];
    if (g == from || !may_take(s, to, axis) || !neighbour_has(s, u, g, axis))
      continue;
    to->axes = axes_add(to->axes, axis);
    int64_t cost = unit_cost(s, u);
    to->axes = axes_without(to->axes, axis);
    if (cost < least) best = g, least = cost;
  }
  if (best < 0) {
    f->axes = before;
    return false;
  }
  ShardFactor *to = &u->factors[best];
  to->why[axes_count(to->axes)] = (ShardWhy){.level = LEVEL_COST,
                                             .origin = f->why[n].origin,
                                             .bytes = least,
                                             .beaten = {{from, now}},
                                             .n_beaten = 1};
  to->axes = axes_add(to->axes, axis);
  pass_tally(s->o, "moved for less");
  return true;
}

void shard_repair(Shard *s) {
  for (bool changed = true; changed;) {
    changed = false;
    for (uint32_t i = 0; i < s->units.len; i++)
      for (int f = 0; f < s->units.data[i]->n_factors; f++)
        changed |= repair_factor(s, s->units.data[i], f);
  }
}
