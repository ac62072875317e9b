/* vjp.c: for each op, the cotangents of its operands from that of its result.
 *
 * A rule is one function, named by the op's row; rules use the op's result
 * where that is cheaper than its operands (tanh, exp, sqrt), so that less has
 * to be kept. `d` is the cotangent of result 0.
 *
 * Where a function has a corner the rules give the mean of both sides: max and
 * min of equal operands split `d` in halves, |a| has slope 0 at 0, reduce_max
 * and reduce_min share `d` equally among all that tie. softplus, written with
 * max and abs, so has its exact slope 1/2 at 0. top_k and sort pass `d` to the
 * elements that were picked. */
#include "pass.h"

#include <string.h>

#define VJP_RULE(rule) static void vjp_##rule(Vjp *v)

static Value *in(const Vjp *v, int i) {
  return v->n->ins.data[i];
}
static Value *res(const Vjp *v) {
  return v->n->outs.data[0];
}
static Value *dout(const Vjp *v) {
  return v->douts[0];
}

static Value *zero_like(Builder *b, Value *like) {
  return ir_const_like(b, like, 0.0);
}
static Value *add(Builder *b, Value *x, Value *y) {
  return ir_binary(b, OP_add, x, y);
}
static Value *sub(Builder *b, Value *x, Value *y) {
  return ir_binary(b, OP_sub, x, y);
}
static Value *mul(Builder *b, Value *x, Value *y) {
  return ir_binary(b, OP_mul, x, y);
}
static Value *quot(Builder *b, Value *x, Value *y) {
  return ir_binary(b, OP_div, x, y);
}
static Value *neg(Builder *b, Value *x) {
  return ir_unary(b, OP_neg, x);
}
static Value *less(Builder *b, Value *x, Value *y) {
  return ir_binary(b, OP_lt, x, y);
}
static Value *scale(Builder *b, Value *x, double by) {
  return mul(b, x, ir_const_like(b, x, by));
}

/* ---- no derivative ----------------------------------------------------- */

void vjp_zero(Vjp *v) {
  (void)v;
}

void vjp_none(Vjp *v) {
  diag_error(v->b->cx, v->n->span, "%s has no derivative",
             op_info[v->n->op].name);
}

/* ---- scalar bodies ----------------------------------------------------- */

VJP_RULE(add) {
  v->dins[0] = dout(v);
  v->dins[1] = dout(v);
}

/* The model's placement of a value is that of its cotangent. */
VJP_RULE(annotate) {
  v->dins[0] = ir_unary(v->b, OP_annotate, dout(v));
  v->dins[0]->placement = res(v)->placement;
}

VJP_RULE(sub) {
  v->dins[0] = dout(v);
  if (v->wants[1]) v->dins[1] = neg(v->b, dout(v));
}

VJP_RULE(mul) {
  if (v->wants[0]) v->dins[0] = mul(v->b, dout(v), in(v, 1));
  if (v->wants[1]) v->dins[1] = mul(v->b, dout(v), in(v, 0));
}

VJP_RULE(div) {
  Value *da = quot(v->b, dout(v), in(v, 1));
  v->dins[0] = da;
  if (v->wants[1]) v->dins[1] = neg(v->b, mul(v->b, da, res(v)));
}

VJP_RULE(fma) {
  vjp_mul(v);
  v->dins[2] = dout(v);
}

/* `d` to the operand that won, half each where they are equal. */
static void winner(Vjp *v, Value *first_wins) {
  Builder *b = v->b;
  Value *d = dout(v);
  Value *tie = ir_binary(b, OP_eq, in(v, 0), in(v, 1));
  Value *half = scale(b, d, 0.5), *none = zero_like(b, d);
  if (v->wants[0])
    v->dins[0] = ir_select(b, first_wins, d, ir_select(b, tie, half, none));
  if (v->wants[1])
    v->dins[1] = ir_select(b, first_wins, none, ir_select(b, tie, half, d));
}

VJP_RULE(max) {
  winner(v, less(v->b, in(v, 1), in(v, 0)));
}
VJP_RULE(min) {
  winner(v, less(v->b, in(v, 0), in(v, 1)));
}

VJP_RULE(neg) {
  v->dins[0] = neg(v->b, dout(v));
}

VJP_RULE(abs) {
  Builder *b = v->b;
  Value *d = dout(v), *zero = zero_like(b, d);
  Value *below = ir_select(b, less(b, in(v, 0), zero), neg(b, d), zero);
  v->dins[0] = ir_select(b, less(b, zero, in(v, 0)), d, below);
}

VJP_RULE(sqrt) {
  v->dins[0] = quot(v->b, scale(v->b, dout(v), 0.5), res(v));
}

VJP_RULE(exp) {
  v->dins[0] = mul(v->b, dout(v), res(v));
}

VJP_RULE(log) {
  v->dins[0] = quot(v->b, dout(v), in(v, 0));
}

VJP_RULE(log1p) {
  Value *one = ir_const_like(v->b, in(v, 0), 1.0);
  v->dins[0] = quot(v->b, dout(v), add(v->b, in(v, 0), one));
}

VJP_RULE(tanh) {
  Builder *b = v->b;
  Value *one = ir_const_like(b, res(v), 1.0);
  v->dins[0] = mul(b, dout(v), sub(b, one, mul(b, res(v), res(v))));
}

VJP_RULE(sigmoid) {
  Builder *b = v->b;
  Value *one = ir_const_like(b, res(v), 1.0);
  v->dins[0] = mul(b, dout(v), mul(b, res(v), sub(b, one, res(v))));
}

VJP_RULE(erf) { /* 2 / sqrt(pi) * exp(-a^2) */
  Builder *b = v->b;
  Value *bell = ir_unary(b, OP_exp, neg(b, mul(b, in(v, 0), in(v, 0))));
  v->dins[0] = mul(b, dout(v), scale(b, bell, 1.1283791670955126));
}

VJP_RULE(select) {
  Value *zero = zero_like(v->b, dout(v));
  if (v->wants[1]) v->dins[1] = ir_select(v->b, in(v, 0), dout(v), zero);
  if (v->wants[2]) v->dins[2] = ir_select(v->b, in(v, 0), zero, dout(v));
}

VJP_RULE(cast) {
  v->dins[0] = ir_cast(v->b, dout(v), in(v, 0)->type.dtype);
}

/* ---- moving data ------------------------------------------------------- */

/* Sums `d`, of letters `have`, to the letters `want`, in that order. */
static Value *sum_to(Builder *b, Value *d, const char *have, const char *want) {
  IndexMap m = {.n_ins = 1};
  size_t kept = 0;
  for (const char *p = have; *p; p++)
    if (strchr(want, *p)) m.out[kept++] = *p;
  strcpy(m.ins[0], have);
  if (kept < strlen(have))
    d = ir_reduce(b, OP_reduce_sum, d, map_text(b->cx, &m));
  if (strcmp(m.out, want) == 0) return d;
  strcpy(m.ins[0], m.out);
  strcpy(m.out, want);
  return ir_transpose(b, d, map_text(b->cx, &m));
}

static IndexMap node_map(const Node *n) {
  IndexMap m;
  bool ok = map_parse(attr_sym(n, "map"), &m);
  assert(ok);
  (void)ok;
  return m;
}

VJP_RULE(broadcast) {
  IndexMap m = node_map(v->n);
  v->dins[0] = sum_to(v->b, dout(v), m.out, m.ins[0]);
}

VJP_RULE(transpose) {
  IndexMap m = node_map(v->n), back = {.n_ins = 1};
  strcpy(back.ins[0], m.out);
  strcpy(back.out, m.ins[0]);
  v->dins[0] = ir_transpose(v->b, dout(v), map_text(v->b->cx, &back));
}

VJP_RULE(reshape) {
  v->dins[0] = ir_reshape(v->b, dout(v), in(v, 0)->type);
}

VJP_RULE(slice) {
  int dim = (int)attr_int(v->n, "dim");
  int64_t lo = attr_int(v->n, "start");
  int64_t hi = in(v, 0)->type.dims[dim].size - lo - attr_int(v->n, "size");
  v->dins[0] = ir_pad(v->b, dout(v), dim, lo, hi);
}

VJP_RULE(concat) {
  int dim = (int)attr_int(v->n, "dim");
  int64_t start = 0;
  for (uint32_t i = 0; i < v->n->ins.len; i++) {
    int64_t size = in(v, (int)i)->type.dims[dim].size;
    if (v->wants[i]) v->dins[i] = ir_slice(v->b, dout(v), dim, start, size);
    start += size;
  }
}

VJP_RULE(pad) {
  int dim = (int)attr_int(v->n, "dim");
  int64_t size = in(v, 0)->type.dims[dim].size;
  v->dins[0] = ir_slice(v->b, dout(v), dim, attr_int(v->n, "lo"), size);
}

/* Operands by what the op calls them; one integer attribute, its name NULL
 * where there is none. */
static Value *make(Builder *b, OpKind op, Value *const *ins, uint32_t n_ins,
                   const char *attr, int64_t value) {
  Node *n = attr ? ir_node(b, op, NULL, ins, n_ins, attr, value, NULL)
                 : ir_node(b, op, NULL, ins, n_ins, NULL);
  return n->outs.data[0];
}

VJP_RULE(gather) {
  Value *ins[] = {in(v, 1), dout(v)};
  v->dins[0] =
      make(v->b, OP_scatter_add, ins, 2, "rows", in(v, 0)->type.dims[0].size);
}

VJP_RULE(scatter_add) {
  Value *ins[] = {dout(v), in(v, 0)};
  v->dins[1] = make(v->b, OP_gather, ins, 2, NULL, 0);
}

static int64_t last_dim(const Value *x) {
  return x->type.dims[x->type.rank - 1].size;
}

VJP_RULE(take) {
  Value *ins[] = {dout(v), in(v, 1)};
  v->dins[0] = make(v->b, OP_put, ins, 2, "size", last_dim(in(v, 0)));
}

VJP_RULE(put) {
  Value *ins[] = {dout(v), in(v, 1)};
  v->dins[0] = make(v->b, OP_take, ins, 2, NULL, 0);
}

/* ---- sums and orders --------------------------------------------------- */

/* Spreads `x`, shaped like the reduction's result, over its operand. */
static Value *spread(const Vjp *v, Value *x) {
  IndexMap m = node_map(v->n), back = {.n_ins = 1};
  strcpy(back.ins[0], m.out);
  strcpy(back.out, m.ins[0]);
  return ir_broadcast(v->b, x, map_text(v->b->cx, &back), in(v, 0)->type);
}

/* A sum over the rows of each group would have to hand each group's cotangent
 * to its own rows, and no op says that. */
static bool sums_groups(Vjp *v) {
  IndexMap m = node_map(v->n);
  if (!type_is_ragged(&in(v, 0)->type) || !strchr(m.out, m.ins[0][0]) ||
      strchr(m.out, m.ins[0][1]))
    return false;
  diag_error(v->b->cx, v->n->span,
             "%s over the rows of each group has no derivative; contract with "
             "a value that has the rows",
             op_info[v->n->op].name);
  return true;
}

VJP_RULE(reduce_sum) {
  if (!sums_groups(v)) v->dins[0] = spread(v, dout(v));
}

static void reduce_extreme(Vjp *v) {
  if (sums_groups(v)) return;
  Builder *b = v->b;
  Value *hit = ir_binary(b, OP_eq, in(v, 0), spread(v, res(v)));
  Value *ones = ir_cast(b, hit, res(v)->type.dtype);
  Value *hits = ir_reduce(b, OP_reduce_sum, ones, attr_sym(v->n, "map"));
  Value *share = spread(v, quot(b, dout(v), hits));
  v->dins[0] = ir_select(b, hit, share, zero_like(b, in(v, 0)));
}

VJP_RULE(reduce_max) {
  reduce_extreme(v);
}
VJP_RULE(reduce_min) {
  reduce_extreme(v);
}

VJP_RULE(cumsum) {
  Value *d = dout(v);
  Node *n = ir_node(v->b, OP_cumsum, NULL, &d, 1, "exclusive",
                    (int64_t)attr_bool(v->n, "exclusive"), "reverse",
                    (int64_t)!attr_bool(v->n, "reverse"), NULL);
  v->dins[0] = n->outs.data[0];
}

/* Result 1 says where each value came from. Nothing flows into it. */
VJP_RULE(top_k) {
  Value *ins[] = {dout(v), v->n->outs.data[1]};
  v->dins[0] = make(v->b, OP_put, ins, 2, "size", last_dim(in(v, 0)));
}

VJP_RULE(sort) {
  vjp_top_k(v);
}

/* Each letter of an operand is in the other operand or in the result, so both
 * cotangents are contractions again, a summed ragged letter included. */
VJP_RULE(contract) {
  Ctx *cx = v->b->cx;
  Dtype dtype = in(v, 0)->type.dtype;
  Value *d = ir_cast_to(v->b, dout(v), dtype); /* its own is that of sums */
  IndexMap m = node_map(v->n), da = {.n_ins = 2}, db = {.n_ins = 2};
  strcpy(da.ins[0], m.out);
  strcpy(da.ins[1], m.ins[1]);
  strcpy(da.out, m.ins[0]);
  if (v->wants[0])
    v->dins[0] = ir_cast_to(
        v->b, ir_contract(v->b, d, in(v, 1), map_text(cx, &da)), dtype);
  strcpy(db.ins[0], m.ins[0]);
  strcpy(db.ins[1], m.out);
  strcpy(db.out, m.ins[1]);
  if (v->wants[1])
    v->dins[1] = ir_cast_to(
        v->b, ir_contract(v->b, in(v, 0), d, map_text(cx, &db)), dtype);
}

/* What the weights' gradient needs of a row of the result, see
 * ir/attention.c. */
static Value *row_dots(const Vjp *v, Value *d) {
  IndexMap m = {.n_ins = 1};
  for (int i = 0; i < d->type.rank; i++)
    m.ins[0][i] = (char)('a' + i);
  memcpy(m.out, m.ins[0], (size_t)d->type.rank - 1);
  Value *dots = ir_reduce(v->b, OP_reduce_sum, mul(v->b, res(v), d),
                          map_text(v->b->cx, &m));
  return v->douts[1] ? sub(v->b, dots, v->douts[1]) : dots;
}

/* The weights are computed again, from the rows' logarithms. */
VJP_RULE(attention) {
  Value *d = dout(v) ? dout(v) : zero_like(v->b, res(v));
  Dtype dtype = in(v, 0)->type.dtype;
  bool masked = v->n->ins.len > 3;
  Value *ins[7] = {in(v, 0), in(v, 1), in(v, 2), ir_cast_to(v->b, d, dtype),
                   v->n->outs.data[1], row_dots(v, d), NULL};
  if (masked) ins[6] = in(v, 3);
  Node *n = ir_node(v->b, OP_attention_grad, NULL, ins, masked ? 7 : 6,
                    "causal", (int64_t)attr_bool(v->n, "causal"), "scale",
                    attr_float(v->n, "scale"), NULL);
  for (int i = 0; i < 3; i++)
    v->dins[i] = ir_cast_to(v->b, n->outs.data[i], dtype);
}

/* ---- routing ---------------------------------------------------------------
 * dispatch, combine and row_dot are closed under differentiation. */

/* What the node drops, its gradient does. */
static Value *with_gates(const Vjp *v, OpKind op, Value *x, Value *ids,
                         Value *gates, int64_t experts) {
  Value *ins[] = {x, ids, gates};
  Value *y = make(v->b, op, ins, gates ? 3 : 2,
                  op == OP_dispatch ? "experts" : NULL, experts);
  ir_drops(y->def, attr_bool(v->n, "drops"));
  return y;
}

static Value *row_dot(const Vjp *v, Value *y, Value *d, Value *ids) {
  Value *ins[] = {y, d, ids};
  Value *dot = make(v->b, OP_row_dot, ins, 3, NULL, 0);
  ir_drops(dot->def, attr_bool(v->n, "drops"));
  return dot;
}

static Value *gates_of(const Vjp *v) {
  return v->n->ins.len > 2 ? in(v, 2) : NULL;
}

VJP_RULE(dispatch) {
  Value *ids = in(v, 1), *gates = gates_of(v);
  if (v->wants[0])
    v->dins[0] = with_gates(v, OP_combine, dout(v), ids, gates, 0);
  if (gates && v->wants[2]) v->dins[2] = row_dot(v, dout(v), in(v, 0), ids);
}

VJP_RULE(combine) {
  Value *y = in(v, 0), *ids = in(v, 1), *gates = gates_of(v);
  if (v->wants[0])
    v->dins[0] = with_gates(v, OP_dispatch, dout(v), ids, gates,
                            y->type.dims[0].size);
  if (gates && v->wants[2]) v->dins[2] = row_dot(v, y, dout(v), ids);
}

VJP_RULE(row_dot) {
  Value *y = in(v, 0), *d = in(v, 1), *ids = in(v, 2);
  if (v->wants[0])
    v->dins[0] =
        with_gates(v, OP_dispatch, d, ids, dout(v), y->type.dims[0].size);
  if (v->wants[1])
    v->dins[1] = with_gates(v, OP_combine, y, ids, dout(v), 0);
}

/* ---- the table --------------------------------------------------------- */

VjpFn *const vjp_rules[OP_COUNT] = {
#define OP(name, min, max, outs, traits, attrs, infer, vjp, eval, lower,      \
           batch, shard, doc)                                                 \
  [OP_##name] = vjp_##vjp,
#include "../ir/ops.def"
#undef OP
};
