/* expand.c: transcendental functions, random bits and routing become primitive
 * ops; sums of bf16 become sums of f32.
 *
 * Goal: one definition of every function for interpreter and generated code, so
 * that elementwise results are equal bit for bit wherever they are computed. No
 * library function is called by compiled code.
 *
 * Method: a walk over each region; a node whose row says EXPAND is replaced by
 * what expand_<name> appends for it. Functions of floats are those of
 * ir/math.c; here are random bits and routing. All uses of one `ids` share one
 * `route`, those in a loop's body too.
 *
 * Before:
 *   %y = dispatch %x, %ids {experts=4} : f32[4, r<=16, 8]
 * After:
 *   %o, %slot, %src = route %ids {experts=4} : i32[5], i32[8, 2], i32[16]
 *   %y = rows_gather %x, %src, %o {choices=2} : f32[4, r<=16, 8] */
#include "pass.h"

#include <string.h>

/* ---- functions of floats ------------------------------------------------- */

#define FUNCTION(name)                            \
  Value *expand_##name(Expand *x, Node *n) {      \
    return ir_##name(&x->b, n->ins.data[0]);      \
  }
FUNCTION(exp)
FUNCTION(log)
FUNCTION(log1p)
FUNCTION(tanh)
FUNCTION(erf)
FUNCTION(sigmoid)

#define SAMPLE(name)                                                \
  Value *expand_##name(Expand *x, Node *n) {                        \
    Dtype dtype = n->outs.data[0]->type.dtype;                      \
    return ir_##name(&x->b, n->ins.data[0], dtype);                 \
  }
SAMPLE(normal)
SAMPLE(uniform)

/* ---- random bits --------------------------------------------------------- */

static Value *binary_const(Builder *b, OpKind op, Value *x, uint32_t c) {
  return ir_binary(b, op, x, ir_const_like(b, x, c));
}

static Value *turned(Builder *b, Value *x, uint32_t left) {
  return ir_binary(b, OP_or, binary_const(b, OP_shl, x, left),
                   binary_const(b, OP_shr, x, 32 - left));
}

/* Threefry2x32-13 of Salmon et al. 2011: x under a key. A round is a sum, a
 * rotation and an exclusive or; the key is added again after each four. */
static void threefry(Builder *b, Value *const k[2], Value *x[2]) {
  enum { ROUNDS = 13 };
  static const uint32_t turns[8] = {13, 15, 26, 6, 17, 29, 16, 24};
  Value *last = ir_binary(b, OP_xor, k[0], k[1]);
  Value *key[3] = {k[0], k[1], binary_const(b, OP_xor, last, 0x1bd11bdau)};
  for (int i = 0; i < 2; i++)
    x[i] = ir_binary(b, OP_add, x[i], key[i]);
  for (uint32_t round = 0; round < ROUNDS; round++) {
    x[0] = ir_binary(b, OP_add, x[0], x[1]);
    x[1] = ir_binary(b, OP_xor, turned(b, x[1], turns[round % 8]), x[0]);
    if (round % 4 != 3) continue;
    uint32_t nth = round / 4 + 1;
    x[0] = ir_binary(b, OP_add, x[0], key[nth % 3]);
    Value *other = binary_const(b, OP_add, key[(nth + 1) % 3], nth);
    x[1] = ir_binary(b, OP_add, x[1], other);
  }
}

/* Of the draws of one site in one step only the position differs: all but the
 * last 13 rounds are the same everywhere, and done once. The site is no number
 * but that of an exclusive or: kernels that differ in it can share code. */
Value *expand_threefry(Expand *x, Node *n) {
  Builder *b = &x->b;
  Value *seed = n->ins.data[0], *at[2] = {n->ins.data[1]};
  Value *key[2] = {n->ins.data[2], n->ins.data[3]};
  uint32_t site = (uint32_t)attr_int(n, "site");
  Value *const first[2] = {seed, binary_const(b, OP_xor, seed, site)};
  threefry(b, first, key);
  at[1] = ir_const_like(b, seed, 0);
  threefry(b, key, at);
  return at[0];
}

/* ---- routing ------------------------------------------------------------- */

static Routes new_route(Builder *b, Value *ids, int64_t experts, bool drops) {
  Value *kept = drops ? ir_binary(b, OP_lt, ids,
                                  ir_const_like(b, ids, (double)experts))
                      : NULL;
  return ir_route(b, ids, experts, kept);
}

/* What a route outside of the loop tells, for its body. */
static Routes handed_in(Expand *x, Routes r) {
  Ctx *cx = x->b.cx;
  r.offsets = loop_invariant(cx, &x->loop, r.offsets);
  r.slot = loop_invariant(cx, &x->loop, r.slot);
  r.src = loop_invariant(cx, &x->loop, r.src);
  return r;
}

/* The route of `ids` among `experts`, made at its first use; of what a loop is
 * handed, outside of it: rows that are handed in with it have that one. */
static Routes routed(Expand *x, Value *ids, int64_t experts, bool drops) {
  for (uint32_t i = 0; i < x->routes.len; i++) {
    const ExpandRoute *r = &x->routes.data[i];
    if (r->ids == ids && r->experts == experts && r->drops == drops)
      return r->rows;
  }
  Value *outer = x->loop.n ? loop_outer(&x->loop, ids) : NULL;
  Routes rows = outer
                    ? handed_in(x, routed(x->outer, outer, experts, drops))
                    : new_route(&x->b, ids, experts, drops);
  ExpandRoute r = {ids, experts, drops, rows};
  vec_push(&x->b.cx->perm, &x->routes, r);
  return rows;
}

/* Of a node with rows as operand 0; `y`: those, as it may read them: what is
 * dropped is read as 0. */
static Routes routed_back(Expand *x, Node *n, uint32_t ids, Value **y) {
  bool drops = attr_bool(n, "drops");
  *y = n->ins.data[0];
  Routes r = routed(x, n->ins.data[ids], (*y)->type.dims[0].size, drops);
  if (drops) *y = ir_only_rows(&x->b, *y, r.offsets, 0);
  return r;
}

Value *expand_dispatch(Expand *x, Node *n) {
  Value *ids = n->ins.data[1];
  Routes r = routed(x, ids, attr_int(n, "experts"), attr_bool(n, "drops"));
  Value *ins[4] = {n->ins.data[0], r.src, r.offsets,
                   n->ins.len > 2 ? n->ins.data[2] : NULL};
  int64_t choices = ids->type.dims[ids->type.rank - 1].size;
  return ir_node(&x->b, OP_rows_gather, NULL, ins, n->ins.len + 1, "choices",
                 choices, NULL)
      ->outs.data[0];
}

Value *expand_combine(Expand *x, Node *n) {
  Value *y;
  Routes r = routed_back(x, n, 1, &y);
  Value *ins[3] = {y, r.slot, n->ins.len > 2 ? n->ins.data[2] : NULL};
  return ir_node(&x->b, OP_rows_combine, NULL, ins, n->ins.len, NULL)
      ->outs.data[0];
}

Value *expand_row_dot(Expand *x, Node *n) {
  Value *y;
  Routes r = routed_back(x, n, 2, &y);
  Value *ins[3] = {y, n->ins.data[1], r.slot};
  return ir_node(&x->b, OP_rows_dot, NULL, ins, 3, NULL)->outs.data[0];
}

/* `offsets`, as this region sees them, where a `dispatch` drops some of their
 * rows; else NULL. */
static Value *seen_offsets(Expand *x, Value *offsets) {
  for (uint32_t i = 0; i < x->routes.len; i++)
    if (x->routes.data[i].drops && x->routes.data[i].rows.offsets == offsets)
      return offsets;
  Value *outer = x->outer ? seen_offsets(x->outer, offsets) : NULL;
  return outer ? loop_invariant(x->b.cx, &x->loop, outer) : NULL;
}

/* The offsets of rows of which a `dispatch` drops some; NULL: `v` has all of
 * them, or `partition` has masked it. */
static Value *cut_offsets(Expand *x, Value *v) {
  const Node *owner = type_is_ragged(&v->type) ? ir_ragged_owner(v) : NULL;
  if (!owner || owner->op != OP_rows_gather) return NULL;
  return seen_offsets(x, ir_now(owner->ins.data[2]));
}

/* A sum over all rows is one over those that are somebody's. */
static void mask_dropped(Expand *x, Node *n) {
  if (!op_is(n->op, TRAIT_MAP)) return;
  IndexMap m = map_of(n);
  for (int i = 0; i < m.n_ins; i++) {
    Value *v = n->ins.data[i], *offsets = cut_offsets(x, v);
    if (!offsets || strchr(m.out, m.ins[i][0]) || strchr(m.out, m.ins[i][1]))
      continue;
    n->ins.data[i] =
        ir_only_rows(&x->b, v, offsets, ir_neutral(n->op, v->type.dtype));
  }
}

/* Gradients are in place: nothing is left to stop. */
Value *expand_stop_gradient(Expand *x, Node *n) {
  (void)x;
  return n->ins.data[0];
}

/* ---- sums of narrow floats ----------------------------------------------- */

/* Whether operand i is of floats that are added up in another dtype. */
static bool is_narrow(const Node *n, uint32_t i) {
  Dtype t = n->ins.data[i]->type.dtype;
  return dtype_info[t].sums != t;
}

static bool sums_narrow(const Node *n) {
  bool narrow = false;
  for (uint32_t i = 0; i < n->ins.len; i++)
    narrow = narrow || is_narrow(n, i);
  return narrow && op_is(n->op, TRAIT_SUMS);
}

/* The same sum of the operands cast to what they are added up in, cast back:
 * it is rounded once. */
static void sum_wide(Ctx *cx, Region *r, NodeVec *nodes, Node *n) {
  Builder b = ir_builder_like(cx, r, nodes, n);
  Map map = {0};
  for (uint32_t i = 0; i < n->ins.len; i++) {
    Value *v = n->ins.data[i];
    if (is_narrow(n, i))
      map_put(&cx->perm, &map, v,
              ir_cast(&b, v, dtype_info[v->type.dtype].sums));
  }
  Value *old = n->outs.data[0];
  Dtype dtype = old->type.dtype;
  Node *wide = ir_clone(&b, n, &map);
  wide->outs.data[0]->type.dtype = dtype_info[dtype].sums;
  Value *by = ir_cast(&b, wide->outs.data[0], dtype);
  by->name = old->name;
  ir_replace(old, by);
}

static void widen_region(Ctx *cx, const PassOptions *o, Region *r) {
  NodeVec nodes = {0};
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    if (n->body) widen_region(cx, o, n->body);
    for (uint32_t k = 0; k < n->ins.len; k++)
      n->ins.data[k] = ir_now(n->ins.data[k]);
    if (!sums_narrow(n)) {
      vec_push(&cx->perm, &nodes, n);
      continue;
    }
    sum_wide(cx, r, &nodes, n);
    pass_tally(o, "sums");
  }
  r->nodes = nodes;
}

/* ---- the pass ------------------------------------------------------------ */

#define RULE_SCALAR(name)
#define RULE_ACCESS(name)
#define RULE_REDUCE(name)
#define RULE_ROW(name)
#define RULE_CONTRACT(name)
#define RULE_LAUNCH(name)
#define RULE_LOOP(name)
#define RULE_COMM(name)
#define RULE_WAIT(name)
#define RULE_NONE(name)
#define RULE_EXPAND(name) [OP_##name] = {#name, expand_##name},
static const struct {
  const char *name;
  ExpandFn *expand;
} rules[OP_COUNT] = {
#define OP(name, min, max, outs, traits, attrs, infer, vjp, eval, lower,      \
           batch, shard, doc)                                                 \
  RULE_##lower(name)
#include "../ir/ops.def"
#undef OP
};

static void expand_region(Ctx *cx, const PassOptions *o, Region *r,
                          Expand *outer) {
  Expand x = {.b = ir_builder(cx, r), .outer = outer};
  bool loop = r->owner && r->owner->op == OP_scan;
  if (loop) x.loop = loop_open(cx, r->owner);
  NodeVec nodes = {0};
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    x.b = ir_builder_like(cx, r, &nodes, n);
    if (n->body) expand_region(cx, o, n->body, &x);
    for (uint32_t k = 0; k < n->ins.len; k++)
      n->ins.data[k] = ir_now(n->ins.data[k]);
    if (!rules[n->op].expand) {
      mask_dropped(&x, n);
      vec_push(&cx->perm, &nodes, n);
      continue;
    }
    Value *old = n->outs.data[0];
    Value *by = rules[n->op].expand(&x, n);
    if (!by->name) by->name = old->name;
    ir_replace(old, by);
    pass_tally(o, rules[n->op].name);
  }
  r->nodes = nodes;
  if (loop) loop_close(&x.b, &x.loop);
}

bool pass_expand(Module *m, const PassOptions *o) {
  for (uint32_t i = 0; i < m->entries.len; i++) {
    Entry *e = m->entries.data[i];
    widen_region(m->cx, o, e->region);
    expand_region(m->cx, o, e->region, NULL);
    ir_sweep(e);
  }
  return true;
}
