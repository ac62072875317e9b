/* partition_ops.c: what ops become where their tensors are split, for
 * partition.c. There is one rule for each word in the `shard` column of
 * ops.def: what shard_rules.c says of which dims go together, it relies on.
 *
 * Most ops stay: they compute parts from parts. A position along a split dim is
 * that in the part and where the part starts. Ids into a split dim: each rank
 * takes those of its part, and zeros for the others.
 *
 *   before: %i = iota {dim=0} : i32[8 @dev]
 *   after:  %r = rank {axes="dev"} : i32[]
 *           %2 = const {value=2} : i32[]
 *           %s = mul %r, %2 : i32[]
 *           %j = iota {dim=0} : i32[2]
 *           %0 = broadcast %s {map="->a"} : i32[2]
 *           %i = add %j, %0 : i32[2] */
#include "pass.h"

#include <math.h>
#include <string.h>

/* ---- for rules ----------------------------------------------------------- */

static void keep(Partition *p, Node *n) {
  vec_push(&p->cx->perm, p->b.out, n);
}

/* The node with other operands; `n` itself stays out of the program. */
static void keep_with(Partition *p, Node *n, Value *const *ins) {
  for (uint32_t i = 0; i < n->ins.len; i++)
    n->ins.data[i] = ins[i];
  keep(p, n);
}

static const PartValue *in_was(const Partition *p, const Node *n, uint32_t i) {
  return partition_was(p, n->ins.data[i]);
}

static const PartValue *out_was(const Partition *p, const Node *n) {
  return partition_was(p, n->outs.data[0]);
}

static void set_size(Node *n, const char *attr, int64_t size) {
  attr_ref(n, attr)->i = size;
}

/* The result of `n` is `by` from here on. */
static void becomes(Node *n, Value *by) {
  by->name = n->outs.data[0]->name;
  ir_replace(n->outs.data[0], by);
}

/* ---- masks --------------------------------------------------------------- */

bool partition_pads(const Partition *p, const PartValue *v, int d) {
  int64_t size = v->type.dims[d].size;
  return size % axes_parts(p->m, v->place.dims[d]) != 0;
}

/* Where index d of a value of type `t` is one of the tensor's: bool of its
 * shape. */
static Value *counts_along(Partition *p, Type t, Axes axes, int64_t size,
                           int d) {
  Type i32 = type_with_dtype(t, DT_i32);
  PartRange r = partition_range(p, axes, size);
  Value *i = ir_iota(&p->b, i32, d);
  return ir_binary(&p->b, OP_lt, i, ir_splat(&p->b, r.count, i32));
}

Value *partition_mask(Partition *p, Value *v, const PartValue *was,
                      unsigned dims, double fill) {
  Value *there = NULL;
  for (int d = 0; d < was->type.rank; d++) {
    if (!(dims >> d & 1) || !partition_pads(p, was, d)) continue;
    Value *here = counts_along(p, v->type, was->place.dims[d],
                               was->type.dims[d].size, d);
    there = there ? ir_binary(&p->b, OP_and, there, here) : here;
  }
  if (!there) return v;
  return ir_select(&p->b, there, v, ir_const_like(&p->b, v, fill));
}

/* Operand i of `n` as it is now, zero behind the end of all its dims. */
static Value *masked(Partition *p, Node *n, uint32_t i) {
  return partition_mask(p, ir_now(n->ins.data[i]), in_was(p, n, i), ~0u, 0);
}

/* ---- ids into a split dim ------------------------------------------------ */

PartIds partition_ids(Partition *p, Value *ids, Axes axes, int64_t size) {
  Builder *b = &p->b;
  PartRange r = partition_range(p, axes, size);
  Value *zero = ir_const_like(b, ids, 0);
  if (!r.start) return (PartIds){ids, NULL};
  Value *count = r.count ? ir_splat(b, r.count, ids->type)
                         : ir_const_like(b, ids, (double)r.local);
  Value *start = ir_splat(b, r.start, ids->type);
  Value *here = ir_binary(b, OP_sub, ids, start);
  Value *from = ir_binary(b, OP_le, zero, here);
  Value *to = ir_binary(b, OP_lt, here, count);
  Value *ours = ir_binary(b, OP_and, from, to);
  return (PartIds){ir_select(b, ours, here, zero), ours};
}

/* `v`, whose leading dims are those of `ours`, and 0 where that is false. */
static Value *only_ours(Partition *p, Value *ours, Value *v) {
  if (!ours) return v;
  if (ours->type.rank < v->type.rank) {
    IndexMap m = {.n_ins = 1};
    for (int d = 0; d < v->type.rank; d++) {
      m.out[d] = (char)('a' + d);
      if (d < ours->type.rank) m.ins[0][d] = m.out[d];
    }
    ours = ir_broadcast(&p->b, ours, map_text(p->cx, &m),
                        type_with_dtype(v->type, DT_bool));
  }
  return ir_select(&p->b, ours, v, ir_const_like(&p->b, v, 0));
}

/* ---- the rules ----------------------------------------------------------- */

typedef void PartFn(Partition *p, Node *n);

/* Parts from parts; a sum of parts of sums is a part of the sum. */
#define STAYS(word)                                \
  static void part_##word(Partition *p, Node *n) { \
    keep(p, n);                                    \
  }
STAYS(whole)
STAYS(same)
STAYS(linear)
STAYS(last)
STAYS(annotate)
STAYS(attention)
STAYS(reshape)
STAYS(loop)

#define ROWS(word)                                 \
  static void part_##word(Partition *p, Node *n) { \
    partition_rows(p, n);                          \
  }
ROWS(dispatch)
ROWS(combine)
ROWS(row_dot)

/* An iota counts from where the part starts, in integers: a sum of rounded
 * numbers is not always the rounded sum. */
static void part_new(Partition *p, Node *n) {
  const PartValue *was = out_was(p, n);
  int d = n->op == OP_iota ? (int)attr_int(n, "dim") : 0;
  Axes axes = n->op == OP_iota ? was->place.dims[d] : 0;
  bool rows = type_is_ragged(&was->type) && d < 2;
  if (n->op == OP_iota && rows && (axes || was->place.dims[0])) {
    partition_rows(p, n);
    return;
  }
  if (axes_parts(p->m, axes) == 1) {
    keep(p, n);
    return;
  }
  Builder *b = &p->b;
  Type t = n->outs.data[0]->type, i32 = type_with_dtype(t, DT_i32);
  Value *start = partition_range(p, axes, was->type.dims[d].size).start;
  Value *before = ir_splat(b, start, i32), *i = ir_iota(b, i32, d);
  becomes(n, ir_cast_to(b, ir_binary(b, OP_add, i, before), t.dtype));
}

/* A dim that is split has all its indices before and after. */
static void part_along(Partition *p, Node *n) {
  int d = (int)attr_int(n, "dim");
  if (n->op == OP_slice && in_was(p, n, 0)->place.dims[d])
    set_size(n, "size", n->outs.data[0]->type.dims[d].size);
  keep(p, n);
}

/* Letters that go are summed over what is in the tensor. Both operands of a
 * product are masked: 0 times anything may be a NaN. */
static void part_map(Partition *p, Node *n) {
  IndexMap m = map_of(n);
  Value *ins[3] = {0};
  for (uint32_t i = 0; i < n->ins.len; i++) {
    unsigned dims = 0;
    Value *v = ins[i] = ir_now(n->ins.data[i]);
    if (i >= (uint32_t)m.n_ins) continue;
    for (int d = 0; m.ins[i][d]; d++)
      if (!strchr(m.out, m.ins[i][d])) dims |= 1u << d;
    double fill = ir_neutral(n->op, v->type.dtype);
    if (type_is_ragged(&v->type)) {
      if ((dims & 3u) == 3u)
        v = partition_rows_mask(p, v, in_was(p, n, i), n->span, fill);
      dims &= ~3u; /* where there are no experts, there are no rows */
    }
    ins[i] = partition_mask(p, v, in_was(p, n, i), dims, fill);
  }
  keep_with(p, n, ins);
}

/* table[V, D..], ids[S..] -> [S.., D..] */
static void part_gather(Partition *p, Node *n) {
  const PartValue *x = in_was(p, n, 0);
  Value *ids = masked(p, n, 1);
  PartIds l = partition_ids(p, ids, x->place.dims[0], x->type.dims[0].size);
  Value *ins[] = {ir_now(n->ins.data[0]), l.ids};
  Value *rows = ir_node(&p->b, n->op, NULL, ins, 2, NULL)->outs.data[0];
  becomes(n, only_ours(p, l.ours, rows));
}

/* x[S.., N], ids[S.., K] -> [S.., K] */
static void part_take(Partition *p, Node *n) {
  const PartValue *x = in_was(p, n, 0);
  int d = x->type.rank - 1;
  Value *ids = masked(p, n, 1);
  PartIds l = partition_ids(p, ids, x->place.dims[d], x->type.dims[d].size);
  Value *ins[] = {ir_now(n->ins.data[0]), l.ids};
  Value *v = ir_node(&p->b, n->op, NULL, ins, 2, NULL)->outs.data[0];
  becomes(n, only_ours(p, l.ours, v));
}

/* ids[S..], x[S.., D..] -> [rows, D..]; what is of another rank adds 0. */
static void part_scatter(Partition *p, Node *n) {
  const PartValue *y = out_was(p, n), *x = in_was(p, n, 1);
  unsigned tokens = (1u << in_was(p, n, 0)->type.rank) - 1;
  Value *v = partition_mask(p, ir_now(n->ins.data[1]), x, tokens, 0);
  PartIds l = partition_ids(p, masked(p, n, 0), y->place.dims[0],
                         y->type.dims[0].size);
  set_size(n, "rows", n->outs.data[0]->type.dims[0].size);
  keep_with(p, n, (Value *[]){l.ids, only_ours(p, l.ours, v)});
}

/* x[S.., K], ids[S.., K] -> [S.., N] */
static void part_put(Partition *p, Node *n) {
  const PartValue *y = out_was(p, n);
  int d = y->type.rank - 1;
  PartIds l = partition_ids(p, masked(p, n, 1), y->place.dims[d],
                         y->type.dims[d].size);
  Value *v = only_ours(p, l.ours, ir_now(n->ins.data[0]));
  set_size(n, "size", n->outs.data[0]->type.dims[d].size);
  keep_with(p, n, (Value *[]){v, l.ids});
}

/* ---- the table ----------------------------------------------------------- */

static PartFn *const rules[OP_COUNT] = {
#define OP(name, min, max, outs, traits, attrs, infer, vjp, eval, lower,      \
           batch, shard, doc)                                                 \
  [OP_##name] = part_##shard,
#include "../ir/ops.def"
#undef OP
};

void partition_op(Partition *p, Node *n) {
  rules[n->op](p, n);
}
