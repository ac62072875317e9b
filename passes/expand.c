/* expand.c: transcendental functions, random bits and routing become primitive
 * ops; sums of bf16 become sums of f32.
 *
 * Goal: one definition of every function for interpreter and generated code, so
 * that elementwise results are equal bit for bit wherever they are computed. No
 * library function is called by compiled code.
 *
 * Method: a walk over each region; a node whose row says EXPAND is replaced by
 * what expand_<name> appends for it. Functions of floats are in expand_math.c;
 * here are random bits and routing. Several uses of one `ids` in a region share
 * one `route`.
 *
 * Before:
 *   %y = dispatch %x, %ids {experts=4} : f32[4, r<=16, 8]
 * After:
 *   %o, %slot, %src = route %ids {experts=4} : i32[5], i32[8, 2], i32[16]
 *   %y = rows_gather %x, %src, %o {choices=2} : f32[4, r<=16, 8] */
#include "pass.h"

/* ---- random bits --------------------------------------------------------- */

static Value *binary_const(Builder *b, OpKind op, Value *x, uint32_t c) {
  return ir_binary(b, op, x, ir_const_like(b, x, c));
}

/* Philox4x32-10 of Salmon et al. 2011: word 0 of the block. About 85 ops: ten
 * rounds of two products in two halves, four exclusive ors and a key. */
Value *expand_philox(Expand *x, Node *n) {
  enum { ROUNDS = 10 };
  Builder *b = &x->b;
  Value *key = n->ins.data[0];
  Value *w[4] = {n->ins.data[1], n->ins.data[2], n->ins.data[3],
                 n->ins.data[4]};
  uint32_t site = (uint32_t)attr_int(n, "site");
  for (uint32_t round = 0; round < ROUNDS; round++) {
    uint32_t k0 = round * 0x9e3779b9u, k1 = site + round * 0xbb67ae85u;
    Value *hi0 = binary_const(b, OP_mulhi, w[0], 0xd2511f53u);
    Value *lo0 = binary_const(b, OP_mul, w[0], 0xd2511f53u);
    Value *hi1 = binary_const(b, OP_mulhi, w[2], 0xcd9e8d57u);
    Value *lo1 = binary_const(b, OP_mul, w[2], 0xcd9e8d57u);
    Value *key0 = round ? binary_const(b, OP_add, key, k0) : key;
    w[0] = ir_binary(b, OP_xor, ir_binary(b, OP_xor, hi1, w[1]), key0);
    w[1] = lo1;
    w[2] = binary_const(b, OP_xor, ir_binary(b, OP_xor, hi0, w[3]), k1);
    w[3] = lo0;
  }
  return w[0];
}

/* ---- routing ------------------------------------------------------------- */

/* The route of `ids` among `experts`, made at its first use in the region. */
static Node *route_of(Expand *x, Value *ids, int64_t experts) {
  for (uint32_t i = 0; i < x->routes.len; i++) {
    Node *r = x->routes.data[i];
    if (r->ins.data[0] == ids && attr_int(r, "experts") == experts) return r;
  }
  Node *r = ir_node(&x->b, OP_route, NULL, &ids, 1, "experts", experts, NULL);
  vec_push(&x->b.cx->perm, &x->routes, r);
  return r;
}

enum { OFFSETS, SLOT, SRC }; /* results of route */

Value *expand_dispatch(Expand *x, Node *n) {
  Value *ids = n->ins.data[1];
  Node *r = route_of(x, ids, attr_int(n, "experts"));
  Value *ins[4] = {n->ins.data[0], r->outs.data[SRC], r->outs.data[OFFSETS],
                   n->ins.len > 2 ? n->ins.data[2] : NULL};
  int64_t choices = ids->type.dims[ids->type.rank - 1].size;
  return ir_node(&x->b, OP_rows_gather, NULL, ins, n->ins.len + 1, "choices",
                 choices, NULL)
      ->outs.data[0];
}

Value *expand_combine(Expand *x, Node *n) {
  Value *y = n->ins.data[0];
  Node *r = route_of(x, n->ins.data[1], y->type.dims[0].size);
  Value *ins[3] = {y, r->outs.data[SLOT],
                   n->ins.len > 2 ? n->ins.data[2] : NULL};
  return ir_node(&x->b, OP_rows_combine, NULL, ins, n->ins.len, NULL)
      ->outs.data[0];
}

Value *expand_row_dot(Expand *x, Node *n) {
  Value *y = n->ins.data[0];
  Node *r = route_of(x, n->ins.data[2], y->type.dims[0].size);
  Value *ins[3] = {y, n->ins.data[1], r->outs.data[SLOT]};
  return ir_node(&x->b, OP_rows_dot, NULL, ins, 3, NULL)->outs.data[0];
}

/* Gradients are in place: nothing is left to stop. */
Value *expand_stop_gradient(Expand *x, Node *n) {
  (void)x;
  return n->ins.data[0];
}

/* ---- sums of narrow floats ------------------------------------------------ */

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

static void expand_region(Ctx *cx, const PassOptions *o, Region *r) {
  Expand x = {0};
  NodeVec nodes = {0};
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    if (n->body) expand_region(cx, o, n->body);
    for (uint32_t k = 0; k < n->ins.len; k++)
      n->ins.data[k] = ir_now(n->ins.data[k]);
    if (!rules[n->op].expand) {
      vec_push(&cx->perm, &nodes, n);
      continue;
    }
    x.b = ir_builder_like(cx, r, &nodes, n);
    Value *old = n->outs.data[0];
    Value *by = rules[n->op].expand(&x, n);
    if (!by->name) by->name = old->name;
    ir_replace(old, by);
    pass_tally(o, rules[n->op].name);
  }
  r->nodes = nodes;
}

bool pass_expand(Module *m, const PassOptions *o) {
  for (uint32_t i = 0; i < m->entries.len; i++) {
    Entry *e = m->entries.data[i];
    widen_region(m->cx, o, e->region);
    expand_region(m->cx, o, e->region);
    ir_sweep(e);
  }
  return true;
}
