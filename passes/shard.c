/* shard.c: gives every value a placement on the mesh.
 *
 * Goal: the model says of a few tensors where they live; the rest follows, with
 * little communication, and every decision can be explained.
 *
 * Method: each node has factors (shard_rules.c), sets of dims that are cut
 * together. A factor takes an axis from a neighbour that has it there: from the
 * placement of an operand, or from what a user of a result wants. Levels of
 * ShardLevel come in turn, each until nothing changes, and each with those
 * before it. Axes are only added, and what the model says is fixed, so that it
 * ends. Where two factors of a node could have the same axis by the rules for
 * kept and summed letters, the one that moves fewer bytes gets it; when all is
 * placed, axes move within a node where that saves bytes (shard_cost.c). Then
 * each operand that is not where its node wants it gets a `reshard`.
 *
 * Reference: Xu et al. 2021 (GSPMD), and the order of rules of its compilers.
 *
 *   before: entry @f(%x: f32[8 @dev, 4] = input "x", %w: f32[4, 2] = ...) {
 *             %y = contract %x, %w {map="bd,dn->bn"} : f32[8, 2]
 *             %s = reduce_sum %y {map="bn->n"} : f32[2]
 *             %t = tanh %s : f32[2]
 *   after:    %y = contract %x, %w {map="bd,dn->bn"} : f32[8 @dev, 2]
 *             %s = reduce_sum %y {map="bn->n"} : f32[2; sum @dev]
 *             %0 = reshard %s : f32[2]
 *             %t = tanh %0 : f32[2] */
#include "pass.h"

#include <string.h>

/* ---- placements that follow from the units ------------------------------- */

static Placement place_end(const ShardUnit *u, const ShardEnd *e) {
  Placement p = {.partial = u->partial};
  for (int d = 0; d < e->v->type.rank; d++)
    if (e->factor[d] >= 0) p.dims[d] = u->factors[e->factor[d]].axes;
  return p;
}

Placement shard_wanted(const ShardUnit *u, uint32_t end) {
  return place_end(u, &u->ins.data[end]);
}

Placement shard_made(const ShardUnit *u, uint32_t end) {
  static const PartialKind kinds[] = {[FACTOR_SUM] = PARTIAL_SUM,
                                      [FACTOR_MAX] = PARTIAL_MAX,
                                      [FACTOR_MIN] = PARTIAL_MIN};
  Placement p = place_end(u, &u->outs.data[end]);
  for (int f = 0; f < u->n_factors; f++) {
    if (u->factors[f].kind == FACTOR_KEPT || !u->factors[f].axes) continue;
    p.kind = kinds[u->factors[f].kind];
    for (Axes a = u->factors[f].axes; a; a >>= 4)
      p.partial = axes_add(p.partial, axes_at(a, 0));
  }
  return p;
}

Placement shard_now(const Shard *s, const Value *v) {
  ShardReader by = shard_value(s, v)->by;
  return shard_made(by.unit, by.end);
}

int64_t shard_times(const Region *r) {
  int64_t times = 1;
  for (; r->owner; r = r->owner->region)
    if (r->owner->op == OP_scan) times *= attr_int(r->owner, "length");
  return times;
}

/* ---- what neighbours have ------------------------------------------------ */

/* A neighbour that has an axis where a factor could have it. */
typedef struct Offer {
  int factor, axis;
  ShardLevel level;
  bool backward;
  const Value *from;
  const ShardUnit *unit;
  const ShardWhy *why; /* theirs */
} Offer;

/* The axis that comes next for a factor by a neighbour's list; -1: none. */
static int next_axis(const Shard *s, const ShardUnit *u, const ShardFactor *f,
                     const ShardFactor *theirs) {
  int n = axes_count(f->axes);
  if (!axes_begins(theirs->axes, f->axes) || n >= axes_count(theirs->axes))
    return -1;
  int axis = axes_at(theirs->axes, n);
  for (int i = 0; i < u->n_factors; i++)
    if (axes_has(u->factors[i].axes, axis)) return -1;
  int64_t parts = axes_parts(s->m, f->axes) * s->m->mesh.data[axis].size;
  bool fits = f->size % parts == 0 ||
              (!f->even && f->size == theirs->size);
  return fits ? axis : -1;
}

/* Calls `take` for what a factor of one end offers; true: it took it. */
typedef bool OfferFn(Shard *s, ShardUnit *u, const Offer *offer, void *user);

static bool offer_dim(Shard *s, ShardUnit *u, Offer o, int theirs,
                      OfferFn *take, void *user) {
  if (theirs < 0) return false;
  const ShardFactor *f = &u->factors[o.factor];
  const ShardFactor *t = &o.unit->factors[theirs];
  if (f->closed || (!o.backward && t->kind != FACTOR_KEPT)) return false;
  o.axis = next_axis(s, u, f, t);
  if (o.axis < 0) return false;
  o.why = &t->why[axes_count(f->axes)];
  o.level = o.backward ? f->backward : f->forward;
  return take(s, u, &o, user);
}

/* All that neighbours offer, operands first; ends when something is taken. */
static bool each_offer(Shard *s, ShardUnit *u, OfferFn *take, void *user) {
  for (uint32_t i = 0; i < u->ins.len; i++) {
    const ShardEnd *e = &u->ins.data[i];
    ShardReader by = shard_value(s, e->v)->by;
    const ShardEnd *made = &by.unit->outs.data[by.end];
    for (int d = 0; d < e->v->type.rank; d++) {
      Offer o = {.factor = e->factor[d], .from = e->v, .unit = by.unit};
      if (o.factor >= 0 && by.unit != u &&
          offer_dim(s, u, o, made->factor[d], take, user))
        return true;
    }
  }
  for (uint32_t i = 0; i < u->outs.len; i++) {
    const ShardEnd *e = &u->outs.data[i];
    const ShardValue *v = shard_value(s, e->v);
    for (uint32_t k = 0; k < v->readers.len; k++) {
      ShardReader by = v->readers.data[k];
      const ShardEnd *read = &by.unit->ins.data[by.end];
      for (int d = 0; d < e->v->type.rank; d++) {
        Offer o = {.factor = e->factor[d],
                   .backward = true,
                   .from = e->v,
                   .unit = by.unit};
        if (o.factor >= 0 && by.unit != u &&
            offer_dim(s, u, o, read->factor[d], take, user))
          return true;
      }
    }
  }
  return false;
}

/* ---- what a choice costs ------------------------------------------------- */

/* To the users that have the axis somewhere; of a sum that nobody wants in
 * parts, to everywhere. */
static int64_t result_cost(const Shard *s, const ShardUnit *u, uint32_t i,
                           int axis) {
  const ShardEnd *e = &u->outs.data[i];
  const ShardValue *v = shard_value(s, e->v);
  Placement from = shard_made(u, i), whole = {0};
  int64_t most = 0, times = shard_times(e->v->region);
  bool any = false;
  for (uint32_t k = 0; k < v->readers.len; k++) {
    ShardReader by = v->readers.data[k];
    Placement to = shard_wanted(by.unit, by.end);
    bool known = placement_of_axis(&to, axis) != PLACED_NOWHERE ||
                 (by.unit->slot && by.unit->slot->kind == SLOT_PARAM);
    if (!known) continue;
    Move move = reshard_move(s->m, &e->v->type, &from, &to);
    any = true;
    if (move.bytes > most) most = move.bytes;
  }
  if (!any && axes_has(from.partial, axis))
    most = reshard_move(s->m, &e->v->type, &from, &whole).bytes;
  return most * times;
}

/* Bytes that each device sends around the unit if `factor` has the axis. */
static int64_t cost_of(const Shard *s, ShardUnit *u, int factor, int axis) {
  ShardFactor *f = &u->factors[factor];
  Axes before = f->axes;
  int64_t bytes = 0;
  f->axes = axes_add(f->axes, axis);
  for (uint32_t i = 0; i < u->ins.len; i++)
    bytes += shard_operand_cost(s, u, i);
  for (uint32_t i = 0; i < u->outs.len; i++)
    bytes += result_cost(s, u, i, axis);
  f->axes = before;
  return bytes;
}

/* ---- deciding ------------------------------------------------------------ */

/* Offers for one axis to factors of one unit, the best of each. */
typedef struct Contest {
  int axis;
  Offer offers[MAX_FACTORS];
  bool has[MAX_FACTORS];
} Contest;

static bool enter(Shard *s, ShardUnit *u, const Offer *o, void *user) {
  Contest *c = user;
  (void)s, (void)u;
  if (o->axis != c->axis) return false;
  if (!c->has[o->factor] || o->level < c->offers[o->factor].level)
    c->offers[o->factor] = *o;
  c->has[o->factor] = true;
  return false;
}

/* Rules whose factors contend by cost. */
static bool contends(ShardLevel level) {
  return level == LEVEL_KEPT || level == LEVEL_SUM;
}

static void accept(ShardUnit *u, const Offer *o, ShardWhy why) {
  ShardFactor *f = &u->factors[o->factor];
  why.level = o->level;
  why.backward = o->backward;
  why.from = o->from;
  why.unit = o->unit;
  why.origin = o->why->origin;
  f->why[axes_count(f->axes)] = why;
  f->axes = axes_add(f->axes, o->axis);
}

/* The axis goes to the factor that is offered it by the first rule, or of those
 * that contend to the cheapest. */
static void settle(Shard *s, ShardUnit *u, const Offer *first) {
  Contest c = {.axis = first->axis};
  each_offer(s, u, enter, &c);
  int best = first->factor, others = 0;
  int64_t least = -1, costs[MAX_FACTORS];
  for (int f = 0; f < u->n_factors; f++)
    others += c.has[f] && f != first->factor;
  for (int f = 0; f < u->n_factors && others; f++) {
    costs[f] = -1;
    if (!c.has[f]) continue;
    costs[f] = cost_of(s, u, f, c.axis);
    if (!contends(first->level) || !contends(c.offers[f].level)) continue;
    if (least < 0 || costs[f] < least) best = f, least = costs[f];
  }
  ShardWhy why = {.bytes = others ? costs[best] : 0};
  for (int f = 0; f < u->n_factors && others; f++)
    if (c.has[f] && f != best && why.n_beaten < (int)COUNT_OF(why.beaten))
      why.beaten[why.n_beaten++] = (ShardBeaten){f, costs[f]};
  accept(u, &c.offers[best], why);
}

typedef struct Turn {
  ShardLevel level;
  Offer first; /* the offer by the first rule, of these the first */
  bool found;
} Turn;

static bool consider(Shard *s, ShardUnit *u, const Offer *o, void *user) {
  Turn *t = user;
  (void)s, (void)u;
  if (o->level > t->level) return false;
  if (!t->found || o->level < t->first.level) t->first = *o;
  t->found = true;
  return false;
}

static bool improve(Shard *s, ShardUnit *u, ShardLevel level) {
  bool changed = false;
  for (;; changed = true) {
    Turn t = {.level = level};
    each_offer(s, u, consider, &t);
    if (!t.found) return changed;
    settle(s, u, &t.first);
    pass_tally(s->o, "placed");
  }
}

static void propagate(Shard *s) {
  for (ShardLevel level = LEVEL_SAME; level < LEVEL_COUNT; level++)
    for (bool changed = true; changed;) {
      changed = false;
      for (uint32_t i = 0; i < s->units.len; i++)
        changed |= improve(s, s->units.data[i], level);
      for (uint32_t i = s->units.len; i-- > 0;)
        changed |= improve(s, s->units.data[i], level);
    }
}

/* ---- sums that wait ------------------------------------------------------ */

/* The parts of a sum go through a linear op where all operands are parts alike
 * and nothing else reads them: then there is one sum to finish, not several. */
static bool passes_parts(const Shard *s, const ShardUnit *u) {
  Axes partial = 0;
  for (uint32_t i = 0; i < u->ins.len; i++) {
    const Value *v = u->ins.data[i].v;
    Placement from = shard_now(s, v), to = shard_wanted(u, i);
    if (i == 0) partial = from.partial;
    if (!from.partial || from.partial != partial ||
        from.kind != PARTIAL_SUM || shard_value(s, v)->readers.len != 1 ||
        memcmp(from.dims, to.dims, sizeof to.dims) != 0)
      return false;
  }
  return partial != 0;
}

static void delay_sums(Shard *s) {
  for (uint32_t i = 0; i < s->units.len; i++) {
    ShardUnit *u = s->units.data[i];
    if (!u->linear || !passes_parts(s, u)) continue;
    u->partial = shard_now(s, u->ins.data[0].v).partial;
    pass_tally(s->o, "sum delayed");
  }
}

/* ---- the pass ------------------------------------------------------------ */

/* True: there were some. */
static bool drop_annotations(Region *r) {
  bool any = false;
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    if (n->op == OP_annotate) {
      ir_replace(n->outs.data[0], n->ins.data[0]);
      any = true;
    }
    if (n->body) any |= drop_annotations(n->body);
  }
  return any;
}

/* On one device all is where it is. */
static bool leave_whole(Module *m, const PassOptions *o) {
  bool any = false;
  for (uint32_t i = 0; i < m->entries.len; i++) {
    if (!drop_annotations(m->entries.data[i]->region)) continue;
    ir_sweep(m->entries.data[i]);
    any = true;
  }
  return any || pass_same(o);
}

bool pass_shard(Module *m, const PassOptions *o) {
  uint32_t errors = m->cx->errors;
  if (mesh_devices(m) == 1) return leave_whole(m, o);
  if (partition_is_done(m)) return false;
  PassOptions options = *o;
  if (!options.reshard_limit) options.reshard_limit = RESHARD_LIMIT;
  o = &options;
  Shard s = {.cx = m->cx, .m = m, .o = o, .a = &m->cx->scratch};
  shard_units(&s);
  propagate(&s);
  shard_repair(&s);
  delay_sums(&s);
  shard_write(&s);
  shard_warn(&s);
  if (o->explain) shard_explain(&s, o->explain);
  return m->cx->errors == errors;
}
