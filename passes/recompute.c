/* recompute.c: backward uses of marked regions compute their values again.
 *
 * Goal: a value that the backward part reads need not be kept from the forward
 * part on. Method: for each recompute group, and for values that are made of
 * nothing but scalars (random masks: cheaper drawn again than kept), the nodes
 * that backward nodes need, and what those need within the group, are cloned
 * right before the first backward use; backward nodes then read the clones.
 * Clones of one group get one fresh group number, so that `simplify` does not
 * merge them with their originals. Values from outside of the group are kept.
 * Loop bodies need nothing here: the derivative of a scan stashes no value of a
 * group and no mask to begin with.
 * Reference: Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost.
 *
 *   %a = tanh %x : f32[4] remat(1)
 *   ...
 *   %g = mul %d, %a : f32[4] backward
 *
 * becomes
 *
 *   %a = tanh %x : f32[4] remat(1)
 *   ...
 *   %b = tanh %x : f32[4] remat(2)
 *   %g = mul %d, %b : f32[4] backward
 */
#include "pass.h"

typedef struct Recompute {
  Ctx *cx;
  const PassOptions *options;
  NodeVec out;
  Map generated;       /* see recompute_generated */
  Map clones;          /* value -> its clone */
  Map groups;          /* original group + 1 -> fresh group */
  uint32_t last_group; /* highest in use */
} Recompute;

/* ---- masks -------------------------------------------------------------- */

/* A scalar that a loop does not change. */
static bool is_fixed_scalar(const Value *p) {
  const Node *owner = p->region->owner;
  bool is_carry = owner && owner->op == OP_scan && p->index >= 1 &&
                  p->index <= attr_int(owner, "carries");
  return p->type.rank == 0 && !is_carry;
}

/* One integer for many elements, such as the number of a row: it is kept, and
 * what is made of it need not be. */
static bool is_spread(const Node *n) {
  if (n->op != OP_broadcast) return false;
  switch (dtype_info[n->outs.data[0]->type.dtype].kind) {
  case DK_BOOL:
  case DK_INT:
  case DK_UINT: return true;
  case DK_FLOAT: break;
  }
  return false;
}

/* Rows are told apart by the value of their ids: there is to be one of it, also
 * where positions alone say who goes where. */
static Map ids_of_rows(Arena *a, const Region *r) {
  Map ids = {0};
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    int at = ir_rows_operand(n->op);
    if (at >= 0) map_put(a, &ids, n->ins.data[at], n);
  }
  return ids;
}

Map recompute_generated(Arena *a, const Region *r) {
  Map found = {0}, ids = ids_of_rows(a, r);
  for (uint32_t i = 0; i < r->params.len; i++)
    if (is_fixed_scalar(r->params.data[i]))
      map_put(a, &found, r->params.data[i], r->params.data[i]);
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    bool ok = op_is(n->op, TRAIT_EW) || n->op == OP_const || n->op == OP_iota ||
              n->op == OP_broadcast || n->op == OP_reshape;
    for (uint32_t k = 0; ok && k < n->ins.len; k++)
      ok = map_get(&found, n->ins.data[k]) != NULL;
    ok = ok || is_spread(n);
    if (ok && !map_get(&ids, n->outs.data[0]))
      map_put(a, &found, n->outs.data[0], n);
  }
  return found;
}

/* Constants and the like take no memory and stay shared. */
static bool is_mask(const Recompute *r, const Value *v) {
  return v->type.rank > 0 && op_is(v->def->op, TRAIT_EW) &&
         map_get(&r->generated, v);
}

/* ---- clones ------------------------------------------------------------- */

static bool is_recomputed(const Recompute *r, const Value *v) {
  return v->def && !v->def->backward && (v->def->remat || is_mask(r, v));
}

static uint32_t fresh_group(Recompute *r, uint32_t group) {
  const void *key = (const void *)(uintptr_t)(group + 1);
  uintptr_t fresh = (uintptr_t)map_get(&r->groups, key);
  if (!fresh) {
    fresh = ++r->last_group;
    map_put(&r->cx->scratch, &r->groups, key, (void *)fresh);
  }
  return (uint32_t)fresh;
}

/* The clone of `v`, made at the end of r->out when there is none yet. */
static Value *recomputed(Recompute *r, Value *v) {
  Value *clone = map_get(&r->clones, v);
  if (clone) return clone;
  Node *n = v->def;
  for (uint32_t i = 0; i < n->ins.len; i++) {
    Value *in = n->ins.data[i];
    bool same = in->def && in->def->remat == n->remat && is_recomputed(r, in);
    if (same) recomputed(r, in);
  }
  Builder b = ir_builder_like(r->cx, n->region, &r->out, n);
  Node *copy = ir_clone(&b, n, &r->clones);
  copy->remat = fresh_group(r, n->remat);
  pass_tally(r->options, "computed again");
  return map_get(&r->clones, v);
}

static uint32_t last_group(const Region *region) {
  uint32_t last = 0;
  for (uint32_t i = 0; i < region->nodes.len; i++) {
    const Node *n = region->nodes.data[i];
    uint32_t inside = n->body ? last_group(n->body) : 0;
    if (n->remat > last) last = n->remat;
    if (inside > last) last = inside;
  }
  return last;
}

static void run(Recompute *r, Entry *e) {
  const NodeVec *nodes = &e->region->nodes;
  for (uint32_t i = 0; i < nodes->len; i++) {
    Node *n = nodes->data[i];
    for (uint32_t k = 0; n->backward && k < n->ins.len; k++)
      if (is_recomputed(r, n->ins.data[k]))
        n->ins.data[k] = recomputed(r, n->ins.data[k]);
    vec_push(&r->cx->perm, &r->out, n);
  }
  e->region->nodes = r->out;
  ir_sweep(e);
}

static bool forget(Region *region) {
  bool any = false;
  for (uint32_t i = 0; i < region->nodes.len; i++) {
    Node *n = region->nodes.data[i];
    if (n->body && forget(n->body)) any = true;
    if (n->remat) any = true;
    n->remat = 0;
  }
  return any;
}

bool recompute_forget(Module *m) {
  bool any = false;
  for (uint32_t i = 0; i < m->entries.len; i++)
    if (forget(m->entries.data[i]->region)) any = true;
  return any;
}

bool pass_recompute(Module *m, const PassOptions *o) {
  for (uint32_t i = 0; i < m->entries.len; i++) {
    Entry *e = m->entries.data[i];
    Recompute r = {.cx = m->cx, .options = o};
    r.last_group = last_group(e->region);
    r.generated = recompute_generated(&m->cx->scratch, e->region);
    run(&r, e);
  }
  return true;
}
