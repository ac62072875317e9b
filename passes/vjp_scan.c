/* vjp_scan.c: the derivative of a scan is a scan in the other direction.
 *
 * Its carries are the cotangents of the forward carries and, for each active
 * invariant, a sum that starts at zero and grows as `acc + contribution`
 * (`hoist` looks for that form). It scans over the cotangents of the stacked
 * results and over what its body needs from the forward iteration; it stacks
 * the cotangents of the scanned operands.
 *
 * What the body needs is found by building it first, on the forward body's
 * values, dropping what is dead, and then replacing each forward value that is
 * left. Operands of the scan are at hand: a scanned one is scanned again, an
 * invariant is passed again, the index is the index. What is cheap to compute
 * from those (single instructions, index maps), what depends on no tensor
 * (random masks), ragged values and values of a recompute group are computed
 * again. Only the rest is stashed: stacked by the forward scan as one more
 * result, unless the scan stacks that value already. */
#include "pass.h"

/* The body's parameter for operand i. Parameter 0 is the index. */
static Value *param_of(const Node *n, uint32_t i) {
  return n->body->params.data[i + 1];
}

/* ---- which values matter ----------------------------------------------- */

Map scan_active(Arena *a, const Node *n, const bool *wants) {
  uint32_t carries = (uint32_t)attr_int(n, "carries");
  Map active = {0};
  for (uint32_t i = 0; i < n->ins.len; i++)
    if (wants[i]) map_put(a, &active, param_of(n, i), param_of(n, i));
  for (bool grew = true; grew;) {
    grew = false;
    autodiff_active(a, n->body, n->body->nodes.len, &active);
    for (uint32_t c = 0; c < carries; c++) {
      Value *p = param_of(n, c);
      if (map_get(&active, p)) continue;
      if (!map_get(&active, n->body->results.data[c])) continue;
      map_put(a, &active, p, p);
      grew = true;
    }
  }
  return active;
}

/* Marks in `reached` what a cotangent of the values in it can flow into. */
static void mark_reached(Arena *a, const Region *r, const Map *active,
                         Map *reached) {
  for (uint32_t i = r->nodes.len; i-- > 0;) {
    Node *n = r->nodes.data[i];
    if (vjp_rules[n->op] == vjp_zero) continue;
    bool any = false;
    for (uint32_t k = 0; k < n->outs.len; k++)
      any |= map_get(reached, n->outs.data[k]) != NULL;
    for (uint32_t k = 0; any && k < n->ins.len; k++)
      if (map_get(active, n->ins.data[k]))
        map_put(a, reached, n->ins.data[k], n);
  }
}

/* The carries that a cotangent reaches in some iteration. */
static bool *live_carries(const Vjp *v, const Loop *l, const Map *active) {
  Arena *a = &v->b->cx->scratch;
  bool *live = NEW_ARRAY(a, bool, l->carries.len + 1);
  Map reached = {0};
  for (uint32_t i = 0; i < v->n->outs.len; i++) {
    Value *result = v->n->body->results.data[i];
    if (!v->douts[i] || !map_get(active, result)) continue;
    if (i < l->carries.len) live[i] = true;
    map_put(a, &reached, result, result);
  }
  for (bool grew = true; grew;) {
    grew = false;
    mark_reached(a, v->n->body, active, &reached);
    for (uint32_t c = 0; c < l->carries.len; c++) {
      const LoopCarry *carry = &l->carries.data[c];
      if (live[c] || !map_get(&reached, carry->param)) continue;
      live[c] = grew = true;
      if (map_get(active, carry->next))
        map_put(a, &reached, carry->next, carry->next);
    }
  }
  return live;
}

/* ---- forward values in the backward body ------------------------------- */

typedef struct Back {
  Vjp *v;
  Ctx *cx;
  Loop fwd, back;
  Region *body;            /* of the backward scan */
  Builder in;              /* appends to `nodes` */
  NodeVec nodes, prologue; /* prologue: values computed again */
  Map generated; /* random masks and the like: nothing is read for them */
  Map now;       /* forward value -> what the backward body reads for it */
} Back;

static bool is_carry(const Back *k, const Value *v) {
  return !v->def && v->index >= 1 && v->index <= k->fwd.carries.len;
}

static bool is_stacked(const Back *k, const Value *v) {
  for (uint32_t i = 0; i < k->fwd.stacked.len; i++)
    if (k->fwd.stacked.data[i].value == v) return true;
  return false;
}

/* One instruction an element, or an index map. */
static bool is_cheap(OpKind op) {
  return (op_is(op, TRAIT_EW) && !op_is(op, TRAIT_HIGH)) || op == OP_const ||
         op == OP_iota || op == OP_broadcast || op == OP_transpose ||
         op == OP_reshape || op == OP_slice || op == OP_pad || op == OP_concat;
}

/* Made of the operands at hand by cheap ops alone, `depth` of them at most. */
static bool is_at_hand(const Back *k, const Value *v, int depth) {
  if (!v->def) return !is_carry(k, v);
  if (is_stacked(k, v)) return true;
  if (depth == 0 || !is_cheap(v->def->op)) return false;
  for (uint32_t i = 0; i < v->def->ins.len; i++)
    if (!is_at_hand(k, v->def->ins.data[i], depth - 1)) return false;
  return true;
}

enum { CHEAP_DEPTH = 4 };

static bool is_recomputed(const Back *k, const Value *v) {
  const Node *n = v->def;
  if (!n || is_stacked(k, v)) return false;
  return n->remat || type_is_ragged(&v->type) || n->op == OP_broadcast ||
         is_at_hand(k, v, CHEAP_DEPTH) || map_get(&k->generated, v);
}

static Value *stand_in(Back *k, Value *v);

static void recompute(Back *k, Node *n) {
  for (uint32_t i = 0; i < n->ins.len; i++)
    stand_in(k, n->ins.data[i]);
  Builder b = ir_builder_like(k->cx, k->body, &k->prologue, n);
  Node *copy = ir_clone(&b, n, &k->now);
  copy->backward = true;
  copy->remat = 0;
}

/* A parameter of the forward body that holds outside of it as well. */
static Value *stand_in_param(Back *k, Value *p) {
  if (p->index == 0) return k->back.index;
  Value *outer = k->v->n->ins.data[p->index - 1];
  if (p->index <= k->fwd.carries.len + k->fwd.scanned.len)
    return loop_scanned(k->cx, &k->back, outer);
  return loop_invariant(k->cx, &k->back, outer);
}

/* `v` of each iteration, kept by the forward scan. */
static Value *stashed(Back *k, Value *v) {
  if (v->type.rank < MAX_RANK && !type_is_ragged(&v->type))
    return loop_scanned(k->cx, &k->back, loop_stack(k->cx, &k->fwd, v));
  const Node *at = v->def ? v->def : k->v->n;
  diag_error(k->cx, at->span,
             "the gradient of this scan needs %s of each iteration, which "
             "cannot be stacked",
             type_text(k->cx, &v->type));
  Builder b = ir_builder_like(k->cx, k->body, &k->prologue, at);
  return ir_const_like(&b, v, 0.0);
}

/* What the backward body reads for the forward body's value `v`. */
static Value *stand_in(Back *k, Value *v) {
  Value *found = map_get(&k->now, v);
  if (found) return found;
  if (is_recomputed(k, v)) {
    recompute(k, v->def);
    return map_get(&k->now, v);
  }
  if (v->def || is_carry(k, v))
    found = stashed(k, v);
  else
    found = stand_in_param(k, v);
  map_put(&k->cx->scratch, &k->now, v, found);
  return found;
}

/* Replaces forward values in `values` of the backward body. */
static void resolve(Back *k, ValueVec *values) {
  for (uint32_t i = 0; i < values->len; i++)
    if (values->data[i]->region == k->v->n->body)
      values->data[i] = stand_in(k, values->data[i]);
}

static bool is_used(const Node *n, const Map *used) {
  for (uint32_t i = 0; i < n->outs.len; i++)
    if (map_get(used, n->outs.data[i])) return true;
  return false;
}

/* Keeps of k->nodes what the yielded values need, and resolves forward values
 * in those alone, so that nothing is stashed in vain. */
static void finish_body(Back *k, ValueVec *yields) {
  Arena *a = &k->cx->scratch;
  Map used = {0};
  NodeVec *nodes = &k->body->nodes;
  for (uint32_t i = 0; i < yields->len; i++)
    map_put(a, &used, yields->data[i], k);
  for (uint32_t i = k->nodes.len; i-- > 0;) {
    Node *n = k->nodes.data[i];
    for (uint32_t j = 0; is_used(n, &used) && j < n->ins.len; j++)
      map_put(a, &used, n->ins.data[j], k);
  }
  uint32_t kept = 0;
  for (uint32_t i = 0; i < k->nodes.len; i++)
    if (is_used(k->nodes.data[i], &used))
      k->nodes.data[kept++] = k->nodes.data[i];
  k->nodes.len = kept;
  for (uint32_t i = 0; i < kept; i++)
    resolve(k, &k->nodes.data[i]->ins);
  resolve(k, yields);
  for (uint32_t i = 0; i < k->prologue.len; i++)
    vec_push(&k->cx->perm, nodes, k->prologue.data[i]);
  for (uint32_t i = 0; i < kept; i++)
    vec_push(&k->cx->perm, nodes, k->nodes.data[i]);
}

/* ---- the pieces of the backward scan ----------------------------------- */

/* Carries and scanned operands for the cotangents that come in; what they are
 * in the body flows into `cot`. */
static void seed(Back *k, const bool *live, const Map *active, Map *cot) {
  for (uint32_t i = 0; i < k->fwd.carries.len; i++) {
    const LoopCarry *c = &k->fwd.carries.data[i];
    Value *d = k->v->douts[i];
    if (!live[i]) continue;
    if (!d) d = ir_const_like(k->v->b, c->out, 0.0);
    uint32_t at = loop_carry(k->cx, &k->back, d);
    if (map_get(active, c->next))
      autodiff_add(&k->in, cot, c->next, k->back.carries.data[at].param);
  }
  for (uint32_t i = 0; i < k->fwd.stacked.len; i++) {
    Value *d = k->v->douts[k->fwd.carries.len + i];
    if (d)
      autodiff_add(&k->in, cot, k->fwd.stacked.data[i].value,
                   loop_scanned(k->cx, &k->back, d));
  }
}

/* One value that the body yields, and the forward operand whose cotangent the
 * scan's result for it is. */
typedef struct Yield {
  uint32_t operand;
  bool stacked;
} Yield;

typedef struct Yields {
  Yield *list; /* parallel to `values`: carries first, as in k->back */
  ValueVec values;
} Yields;

static void yield(Back *k, Yields *y, uint32_t operand, bool is_stack,
                  Value *v) {
  y->list[y->values.len] = (Yield){operand, is_stack};
  vec_push(&k->cx->perm, &y->values, v);
}

static void yield_all(Back *k, const bool *live, const Map *cot, Yields *y) {
  const Node *n = k->v->n;
  uint32_t carries = k->fwd.carries.len, scanned = k->fwd.scanned.len;
  y->list = NEW_ARRAY(&k->cx->scratch, Yield, n->ins.len + 1);
  for (uint32_t i = 0; i < carries; i++) {
    Value *d = map_get(cot, param_of(n, i));
    if (!live[i]) continue;
    if (!d) d = ir_const_like(&k->in, param_of(n, i), 0.0);
    yield(k, y, i, false, d);
  }
  for (uint32_t i = carries + scanned; i < n->ins.len; i++) {
    Value *d = map_get(cot, param_of(n, i));
    if (!d || !k->v->wants[i]) continue;
    uint32_t at = loop_carry(k->cx, &k->back, ir_const_like(k->v->b, d, 0.0));
    Value *acc = k->back.carries.data[at].param;
    yield(k, y, i, false, ir_binary(&k->in, OP_add, acc, d));
  }
  for (uint32_t i = carries; i < carries + scanned; i++) {
    Value *d = map_get(cot, param_of(n, i));
    if (d && k->v->wants[i]) yield(k, y, i, true, d);
  }
}

static void set_results(Back *k, const Yields *y) {
  for (uint32_t i = 0; i < y->values.len; i++) {
    Value *v = y->values.data[i], *out;
    if (y->list[i].stacked) {
      out = loop_stack(k->cx, &k->back, v);
    } else {
      k->back.carries.data[i].next = v;
      out = k->back.carries.data[i].out;
    }
    k->v->dins[y->list[i].operand] = out;
  }
}

void vjp_scan(Vjp *v) {
  Ctx *cx = v->b->cx;
  Node *n = v->n;
  Back k = {.v = v, .cx = cx, .fwd = loop_open(cx, n), .in = *v->b};
  k.back = loop_new(cx, n->region->entry, k.fwd.length, !k.fwd.reverse);
  k.body = k.in.region = k.back.index->region;
  k.in.out = &k.nodes;
  k.generated = recompute_generated(&cx->scratch, n->body);
  Map active = scan_active(&cx->scratch, n, v->wants), cot = {0};
  bool *live = live_carries(v, &k.fwd, &active);
  Yields y = {0};
  seed(&k, live, &active, &cot);
  autodiff_reverse(&k.in, n->body, n->body->nodes.len, &active, &cot);
  k.in.span = n->span;
  k.in.loc = n->loc;
  k.in.layer = n->layer;
  yield_all(&k, live, &cot, &y);
  finish_body(&k, &y.values);
  set_results(&k, &y);
  loop_close(v->b, &k.fwd);
  loop_close(v->b, &k.back);
}
