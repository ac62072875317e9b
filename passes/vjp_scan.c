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

typedef struct ScanShape {
  uint32_t carries, scanned, invariants, stacked;
  int64_t length;
  bool reverse;
} ScanShape;

static ScanShape shape_of(const Node *n) {
  ScanShape s = {.carries = (uint32_t)attr_int(n, "carries"),
                 .scanned = (uint32_t)attr_int(n, "scanned"),
                 .length = attr_int(n, "length"),
                 .reverse = attr_bool(n, "reverse")};
  s.invariants = n->ins.len - s.carries - s.scanned;
  s.stacked = n->outs.len - s.carries;
  return s;
}

/* The body's parameter for operand i. Parameter 0 is the index. */
static Value *param_of(const Node *n, uint32_t i) {
  return n->body->params.data[i + 1];
}

/* ---- which values matter --------------------------------------------------------- */

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
static bool *live_carries(const Vjp *v, const ScanShape *s,
                          const Map *active) {
  Arena *a = &v->b->cx->scratch;
  const Region *body = v->n->body;
  bool *live = NEW_ARRAY(a, bool, s->carries + 1);
  Map reached = {0};
  for (uint32_t i = 0; i < v->n->outs.len; i++) {
    Value *result = body->results.data[i];
    if (!v->douts[i]) continue;
    if (i < s->carries) live[i] = map_get(active, param_of(v->n, i)) != NULL;
    if (map_get(active, result)) map_put(a, &reached, result, result);
  }
  for (bool grew = true; grew;) {
    grew = false;
    mark_reached(a, body, active, &reached);
    for (uint32_t c = 0; c < s->carries; c++) {
      if (live[c] || !map_get(&reached, param_of(v->n, c))) continue;
      Value *result = body->results.data[c];
      live[c] = grew = true;
      if (map_get(active, result)) map_put(a, &reached, result, result);
    }
  }
  return live;
}

/* ---- building the backward body ----------------------------------------------------- */

/* One operand of the backward scan with the body's parameter for it. */
typedef struct Operand {
  Value *outer, *param;
} Operand;
typedef VEC(Operand) OperandVec;

typedef struct Back {
  Vjp *v;
  ScanShape s;
  Region *body;                         /* of the backward scan */
  Builder in;                           /* appends to `nodes` */
  NodeVec nodes, prologue;              /* prologue: recomputed values */
  OperandVec carried, scanned, invariants;
  Value *index;
  Map now; /* forward value -> its stand-in in the backward body */
} Back;

static Arena *scratch(const Back *k) { return &k->v->b->cx->scratch; }

static Value *add_operand(Back *k, OperandVec *to, Value *outer, Type type,
                          Sym name) {
  for (uint32_t i = 0; to != &k->carried && i < to->len; i++)
    if (to->data[i].outer == outer) return to->data[i].param;
  Operand o = {outer, ir_param(k->v->b->cx, k->body, name, type)};
  vec_push(scratch(k), to, o);
  return o.param;
}

/* The type of one iteration's part of a stacked value, and back. */
static Type element_type(Type t) {
  t.rank--;
  for (int i = 0; i < t.rank; i++)
    t.dims[i] = t.dims[i + 1];
  t.dims[t.rank] = (Dim){0};
  return t;
}

static Type stacked_type(Type t, int64_t length) {
  assert(t.rank < MAX_RANK);
  for (int i = t.rank; i > 0; i--)
    t.dims[i] = t.dims[i - 1];
  t.dims[0] = (Dim){.size = length};
  t.rank++;
  return t;
}

static Value *add_scanned(Back *k, Value *outer, Sym name) {
  return add_operand(k, &k->scanned, outer, element_type(outer->type), name);
}

/* ---- forward values in the backward body ---------------------------------------------- */

/* Position of `v` among the scan's stacked results, -1 when it is in none. */
static int stacked_position(const Back *k, const Value *v) {
  const ValueVec *results = &k->v->n->body->results;
  for (uint32_t i = k->s.carries; i < results->len; i++)
    if (results->data[i] == v) return (int)i;
  return -1;
}

/* Adds `v` to what the forward scan stacks. */
static int stash(Back *k, Value *v) {
  Arena *perm = &k->v->b->cx->perm;
  Node *n = k->v->n;
  Value *out = NEW(perm, Value);
  out->name = v->name;
  out->type = stacked_type(v->type, k->s.length);
  out->def = n;
  out->region = n->region;
  out->index = n->outs.len;
  vec_push(perm, &n->outs, out);
  vec_push(perm, &n->body->results, v);
  return (int)out->index;
}

static bool is_carry(const Back *k, const Value *v) {
  return !v->def && v->index >= 1 && v->index <= k->s.carries;
}

/* One instruction an element, or an index map. */
static bool is_cheap(OpKind op) {
  return (op_is(op, TRAIT_EW) && !op_is(op, TRAIT_HIGH)) ||
         op == OP_const || op == OP_iota || op == OP_broadcast ||
         op == OP_transpose || op == OP_reshape || op == OP_slice ||
         op == OP_pad || op == OP_concat;
}

/* Made of the operands at hand by cheap ops alone, `depth` of them at most. */
static bool is_at_hand(const Back *k, const Value *v, int depth) {
  if (!v->def) return !is_carry(k, v);
  if (stacked_position(k, v) >= 0) return true;
  if (depth == 0 || !is_cheap(v->def->op)) return false;
  for (uint32_t i = 0; i < v->def->ins.len; i++)
    if (!is_at_hand(k, v->def->ins.data[i], depth - 1)) return false;
  return true;
}

/* Made of scalars at hand alone, such as a random mask: nothing is read. */
static bool is_generated(const Back *k, const Value *v, int depth) {
  if (!v->def) return v->type.rank == 0 && !is_carry(k, v);
  if (depth == 0) return false;
  if (!is_cheap(v->def->op) && !op_is(v->def->op, TRAIT_EW)) return false;
  for (uint32_t i = 0; i < v->def->ins.len; i++)
    if (!is_generated(k, v->def->ins.data[i], depth - 1)) return false;
  return true;
}

enum { CHEAP_DEPTH = 4, GENERATED_DEPTH = 16 };

static bool is_recomputed(const Back *k, const Value *v) {
  const Node *n = v->def;
  if (!n || stacked_position(k, v) >= 0) return false;
  return n->remat || type_is_ragged(&v->type) || n->op == OP_broadcast ||
         is_at_hand(k, v, CHEAP_DEPTH) || is_generated(k, v, GENERATED_DEPTH);
}

static Value *stand_in(Back *k, Value *v);

static void recompute(Back *k, Node *n) {
  for (uint32_t i = 0; i < n->ins.len; i++)
    stand_in(k, n->ins.data[i]);
  Builder b = ir_builder_like(k->v->b->cx, k->body, &k->prologue, n);
  b.backward = true;
  b.remat = 0;
  ir_clone(&b, n, &k->now);
}

/* A parameter of the forward body; a carry only exists while it runs. */
static Value *stand_in_param(Back *k, Value *p) {
  if (p->index == 0) return k->index;
  Value *outer = k->v->n->ins.data[p->index - 1];
  if (p->index <= k->s.carries + k->s.scanned)
    return add_scanned(k, outer, p->name);
  return add_operand(k, &k->invariants, outer, p->type, p->name);
}

/* What the backward body reads for the forward body's value `v`. */
static Value *stand_in(Back *k, Value *v) {
  Value *found = map_get(&k->now, v);
  if (found) return found;
  if (is_recomputed(k, v)) {
    recompute(k, v->def);
    return map_get(&k->now, v);
  }
  if (v->def || is_carry(k, v)) {
    int at = stacked_position(k, v);
    if (at < 0) at = stash(k, v);
    found = add_scanned(k, k->v->n->outs.data[at], v->name);
  } else {
    found = stand_in_param(k, v);
  }
  map_put(scratch(k), &k->now, v, found);
  return found;
}

/* Replaces forward values in the nodes and results of the backward body. */
static void resolve(Back *k) {
  const Region *forward = k->v->n->body;
  for (uint32_t i = 0; i < k->nodes.len; i++) {
    Node *n = k->nodes.data[i];
    for (uint32_t j = 0; j < n->ins.len; j++)
      if (n->ins.data[j]->region == forward)
        n->ins.data[j] = stand_in(k, n->ins.data[j]);
  }
  ValueVec *results = &k->body->results;
  for (uint32_t i = 0; i < results->len; i++)
    if (results->data[i]->region == forward)
      results->data[i] = stand_in(k, results->data[i]);
}

/* Drops nodes that no result needs, so that nothing is stashed for them. */
static void drop_dead(Back *k) {
  Arena *a = scratch(k);
  Map used = {0};
  NodeVec kept = {0};
  for (uint32_t i = 0; i < k->body->results.len; i++)
    map_put(a, &used, k->body->results.data[i], k);
  for (uint32_t i = k->nodes.len; i-- > 0;) {
    Node *n = k->nodes.data[i];
    bool live = false;
    for (uint32_t j = 0; j < n->outs.len; j++)
      live |= map_get(&used, n->outs.data[j]) != NULL;
    if (!live) continue;
    for (uint32_t j = 0; j < n->ins.len; j++)
      map_put(a, &used, n->ins.data[j], k);
    vec_push(a, &kept, n);
  }
  k->nodes.len = 0;
  for (uint32_t i = kept.len; i-- > 0;)
    vec_push(&k->v->b->cx->perm, &k->nodes, kept.data[i]);
}

/* ---- the pieces of the backward scan ----------------------------------------------------- */

static Value *zeros(Builder *b, Type t) { return ir_const(b, t, 0.0); }

/* Parameters for the cotangents that come in, and their flow into `cot`. */
static void seed(Back *k, const bool *live, const Map *active, Map *cot) {
  const Node *n = k->v->n;
  Ctx *cx = k->v->b->cx;
  for (uint32_t i = 0; i < k->s.carries; i++) {
    Value *d = k->v->douts[i], *p;
    if (!live[i]) continue;
    if (!d) d = zeros(k->v->b, n->outs.data[i]->type);
    p = add_operand(k, &k->carried, d, d->type, sym(cx, "d"));
    if (map_get(active, n->body->results.data[i]))
      autodiff_add(&k->in, cot, n->body->results.data[i], p);
  }
  for (uint32_t i = k->s.carries; i < n->outs.len; i++) {
    Value *d = k->v->douts[i];
    if (d)
      autodiff_add(&k->in, cot, n->body->results.data[i],
                   add_scanned(k, d, sym(cx, "d")));
  }
}

/* What the body yields, and which operand of the forward scan each result of
 * the backward one is for: carries, then invariants, then scanned operands. */
static void collect(Back *k, const bool *live, const Map *cot,
                    uint32_t *target) {
  const Node *n = k->v->n;
  Ctx *cx = k->v->b->cx;
  ValueVec *results = &k->body->results;
  for (uint32_t i = 0; i < k->s.carries; i++) {
    if (!live[i]) continue;
    Value *d = map_get(cot, param_of(n, i));
    if (!d) d = zeros(&k->in, param_of(n, i)->type);
    target[results->len] = i;
    vec_push(&cx->perm, results, d);
  }
  for (uint32_t i = k->s.carries + k->s.scanned; i < n->ins.len; i++) {
    Value *d = map_get(cot, param_of(n, i));
    if (!d || !k->v->wants[i]) continue;
    Value *zero = zeros(k->v->b, d->type);
    Value *acc =
        add_operand(k, &k->carried, zero, d->type, sym(cx, "acc"));
    target[results->len] = i;
    vec_push(&cx->perm, results, ir_binary(&k->in, OP_add, acc, d));
  }
  for (uint32_t i = k->s.carries; i < k->s.carries + k->s.scanned; i++) {
    Value *d = map_get(cot, param_of(n, i));
    if (!d || !k->v->wants[i]) continue;
    target[results->len] = i;
    vec_push(&cx->perm, results, d);
  }
}

/* Parameters were made as they were needed; here they get their order. */
static void order_operands(Back *k, ValueVec *ins) {
  Arena *perm = &k->v->b->cx->perm;
  const OperandVec *groups[] = {&k->carried, &k->scanned, &k->invariants};
  ValueVec params = {0};
  vec_push(perm, &params, k->index);
  for (size_t g = 0; g < COUNT_OF(groups); g++)
    for (uint32_t i = 0; i < groups[g]->len; i++) {
      Operand o = groups[g]->data[i];
      o.param->index = params.len;
      vec_push(perm, &params, o.param);
      vec_push(perm, ins, o.outer);
    }
  k->body->params = params;
}

static Node *make_scan(Back *k) {
  Builder *b = k->v->b;
  ValueVec ins = {0};
  order_operands(k, &ins);
  for (uint32_t i = 0; i < k->prologue.len; i++)
    vec_push(&b->cx->perm, &k->body->nodes, k->prologue.data[i]);
  for (uint32_t i = 0; i < k->nodes.len; i++)
    vec_push(&b->cx->perm, &k->body->nodes, k->nodes.data[i]);
  uint32_t n_outs = k->body->results.len;
  Type *types = NEW_ARRAY(scratch(k), Type, n_outs + 1);
  for (uint32_t i = 0; i < n_outs; i++) {
    Type t = k->body->results.data[i]->type;
    types[i] = i < k->carried.len ? t : stacked_type(t, k->s.length);
  }
  Attr attrs[MAX_ATTRS] = {{.i = k->carried.len, .present = true},
                           {.i = k->scanned.len, .present = true},
                           {.i = k->s.length, .present = true},
                           {.i = !k->s.reverse, .present = true}};
  Node *n = ir_node_raw(b, OP_scan, ins.data, ins.len, attrs, types, n_outs);
  n->body = k->body;
  k->body->owner = n;
  return n;
}

void vjp_scan(Vjp *v) {
  Ctx *cx = v->b->cx;
  Back k = {.v = v, .s = shape_of(v->n)};
  k.body = ir_region(cx, v->n->region->entry, NULL);
  k.index = ir_param(cx, k.body, v->n->body->params.data[0]->name,
                     type_scalar(DT_i32));
  k.in = *v->b;
  k.in.region = k.body;
  k.in.out = &k.nodes;
  Map active = scan_active(&cx->scratch, v->n, v->wants), cot = {0};
  bool *live = live_carries(v, &k.s, &active);
  seed(&k, live, &active, &cot);
  autodiff_reverse(&k.in, v->n->body, v->n->body->nodes.len, &active, &cot);
  uint32_t *target = NEW_ARRAY(&cx->scratch, uint32_t, v->n->ins.len + 1);
  k.in.span = v->n->span;
  k.in.loc = v->n->loc;
  k.in.layer = v->n->layer;
  collect(&k, live, &cot, target);
  drop_dead(&k);
  resolve(&k);
  Node *back = make_scan(&k);
  for (uint32_t i = 0; i < back->outs.len; i++)
    v->dins[target[i]] = back->outs.data[i];
}
