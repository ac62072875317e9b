/* lower_reduce.c: reductions as loops with accumulators.
 *
 * Where the last reduced dim is the operand's last one and no index varies by
 * lane, it is summed in vector steps with a scalar tail, into two accumulators
 * that are joined at the very end; long cheap ones keep several vectors going.
 * Otherwise the accumulator has the lanes of the indices. The order is fixed by
 * the shapes alone. */
#include "codegen.h"

#include <string.h>

enum { CHAINS = 4, CHEAP_COST = 12 };

typedef struct Reduction {
  Lower *l;
  const Node *n;
  OpKind fold;
  Ix at[MAX_RANK]; /* of the operand, or of what is multiplied */
  int64_t dims[MAX_RANK];
  int reduced[MAX_RANK], n_reduced;
  bool by_lane; /* the last reduced dim in vector steps */
  bool chains;
  KVal *vector, *scalar; /* accumulated so far; vector NULL unless by_lane */
} Reduction;

double lw_lowest(Dtype dtype) {
  switch (dtype_info[dtype].kind) {
  case DK_BOOL:
  case DK_UINT: return 0;
  case DK_INT: return INT32_MIN;
  case DK_FLOAT: return -1.0 / 0.0;
  }
  internal_error("dtype %d", (int)dtype);
}

double lw_highest(Dtype dtype) {
  switch (dtype_info[dtype].kind) {
  case DK_BOOL: return 1;
  case DK_UINT: return UINT32_MAX;
  case DK_INT: return INT32_MAX;
  case DK_FLOAT: return 1.0 / 0.0;
  }
  internal_error("dtype %d", (int)dtype);
}

static OpKind fold_of(const Node *n) {
  if (n->op == OP_reduce_max) return OP_max;
  return n->op == OP_reduce_min ? OP_min : OP_add;
}

static KVal *neutral(Reduction *r, int lanes) {
  Dtype dtype = r->n->outs.data[0]->type.dtype;
  double x = r->fold == OP_max   ? lw_lowest(dtype)
             : r->fold == OP_min ? lw_highest(dtype)
                                 : 0;
  return kb_splat(r->l->b, kb_const(r->l->b, dtype, x), lanes);
}

/* ---- one element --------------------------------------------------------- */

/* y[slot[s.., k], j] * d[s.., j]; at: s.., k, j. */
static KVal *rows_dot_element(Reduction *r) {
  Lower *l = r->l;
  Value *const *ins = r->n->ins.data;
  int k = lw_value(l, ins[2])->rank - 1;
  Ix row[2] = {lw_ix_from(l, lw_pull(l, ins[2], r->at)), r->at[k + 1]};
  Ix token[MAX_RANK];
  memcpy(token, r->at, sizeof token);
  token[k] = r->at[k + 1];
  return kb_op2(l->b, OP_mul, lw_pull(l, ins[0], row),
                lw_pull(l, ins[1], token));
}

static KVal *element(Reduction *r) {
  if (r->n->op == OP_rows_dot) return rows_dot_element(r);
  return lw_pull(r->l, r->n->ins.data[0], r->at);
}

static KVal *join(Reduction *r, KVal *acc, KVal *x) {
  return kb_op2(r->l->b, r->fold, acc, x);
}

/* ---- loops --------------------------------------------------------------- */

/* Index `d` over [lo, hi) in steps of `lanes` times `chains`, accumulating onto
 * *acc. */
static void span(Reduction *r, int d, KVal *lo, KVal *hi, int lanes, int chains,
                 KVal **acc) {
  KBuild *b = r->l->b;
  if (lo == hi) return;
  if (lw_is_once(lo, hi, (int64_t)lanes * chains)) {
    for (int i = 0; i < chains; i++) {
      KVal *at = kb_alu_c(b, A_ADD, lo, (int64_t)i * lanes);
      r->at[d] = lanes > 1 ? lw_ix_lanes(at) : lw_ix(at);
      *acc = join(r, *acc, element(r));
    }
    return;
  }
  KVal *loop = kb_for(b, lo, hi, (int64_t)lanes * chains);
  KVal *accs[CHAINS];
  for (int i = 0; i < chains; i++)
    accs[i] = kb_acc(b, loop, i ? neutral(r, (*acc)->lanes) : *acc);
  for (int i = 0; i < chains; i++) {
    KVal *at = kb_alu_c(b, A_ADD, kb_iv(b, loop), (int64_t)i * lanes);
    r->at[d] = lanes > 1 ? lw_ix_lanes(at) : lw_ix(at);
    kb_next(b, accs[i], join(r, accs[i], element(r)));
  }
  kb_end(b);
  *acc = kb_result(b, accs[0]);
  for (int i = 1; i < chains; i++)
    *acc = join(r, *acc, kb_result(b, accs[i]));
}

/* lo + the largest multiple of `step` up to hi - lo. */
static KVal *whole_steps(Reduction *r, KVal *lo, KVal *hi, int64_t step) {
  KBuild *b = r->l->b;
  KVal *steps = kb_alu_c(b, A_DIV, kb_alu(b, A_SUB, hi, lo), step);
  return kb_alu(b, A_ADD, lo, kb_alu_c(b, A_MUL, steps, step));
}

static void last_dim(Reduction *r, int d, KVal *lo, KVal *hi) {
  int lanes = r->l->lanes;
  if (!r->by_lane) {
    span(r, d, lo, hi, 1, 1, &r->scalar);
    return;
  }
  KVal *from = lo;
  if (r->chains) {
    KVal *to = whole_steps(r, from, hi, (int64_t)lanes * CHAINS);
    span(r, d, from, to, lanes, CHAINS, &r->vector);
    from = to;
  }
  KVal *to = whole_steps(r, from, hi, lanes);
  span(r, d, from, to, lanes, 1, &r->vector);
  span(r, d, to, hi, 1, 1, &r->scalar);
}

static void nest(Reduction *r, int depth);

/* A loop around the deeper ones, the accumulators going through it. */
static KVal *open_outer(Reduction *r, KVal *lo, KVal *hi, KVal *outer[2]) {
  KBuild *b = r->l->b;
  KVal *loop = kb_for(b, lo, hi, 1);
  outer[0] = r->scalar = kb_acc(b, loop, r->scalar);
  outer[1] = NULL;
  if (r->vector) outer[1] = r->vector = kb_acc(b, loop, r->vector);
  return kb_iv(b, loop);
}

static void close_outer(Reduction *r, KVal *outer[2]) {
  KBuild *b = r->l->b;
  kb_next(b, outer[0], r->scalar);
  if (outer[1]) kb_next(b, outer[1], r->vector);
  kb_end(b);
  r->scalar = kb_result(b, outer[0]);
  if (outer[1]) r->vector = kb_result(b, outer[1]);
}

static void nest(Reduction *r, int depth) {
  KBuild *b = r->l->b;
  if (depth == r->n_reduced) {
    r->scalar = join(r, r->scalar, element(r));
    return;
  }
  int d = r->reduced[depth];
  KVal *lo = kb_index(b, 0), *hi = kb_index(b, r->dims[d]);
  if (depth == r->n_reduced - 1) {
    last_dim(r, d, lo, hi);
  } else if (r->dims[d] == 1) {
    r->at[d] = lw_ix(lo);
    nest(r, depth + 1);
  } else {
    KVal *outer[2];
    r->at[d] = lw_ix(open_outer(r, lo, hi, outer));
    nest(r, depth + 1);
    close_outer(r, outer);
  }
}

static KVal *total(Reduction *r) {
  if (!r->vector) return r->scalar;
  if (r->scalar->kind == K_CONST) /* there was no tail */
    return kb_fold(r->l->b, r->fold, r->vector);
  return join(r, kb_fold(r->l->b, r->fold, r->vector), r->scalar);
}

/* ---- set-up -------------------------------------------------------------- */

static void bind_rows_dot(Reduction *r, const Ix *at) {
  const LwValue *slot = lw_value(r->l, r->n->ins.data[2]);
  const LwValue *y = lw_value(r->l, r->n->ins.data[0]);
  memcpy(r->at, at, sizeof(Ix) * (size_t)slot->rank);
  r->dims[slot->rank] = y->dims[1];
  r->reduced[r->n_reduced++] = slot->rank;
}

static void bind_map(Reduction *r, const Ix *at) {
  const Value *x = r->n->ins.data[0], *y = r->n->outs.data[0];
  IndexMap m;
  map_parse(attr_sym(r->n, "map"), &m);
  const char *from = m.ins[0] + type_is_ragged(&x->type);
  const char *to = m.out + type_is_ragged(&y->type);
  memcpy(r->dims, lw_value(r->l, x)->dims, sizeof r->dims);
  for (int i = 0; from[i]; i++) {
    const char *kept = strchr(to, from[i]);
    if (kept)
      r->at[i] = at[kept - to];
    else
      r->reduced[r->n_reduced++] = i;
  }
}

static Reduction begin(Lower *l, const Node *n, const Ix *at, int row_dims) {
  Reduction r = {.l = l, .n = n, .fold = fold_of(n)};
  const LwValue *x = lw_value(l, n->ins.data[0]);
  const LwValue *y = lw_value(l, n->outs.data[0]);
  if (l->flat) {
    r.dims[0] = x->dims[0];
    r.n_reduced = 1;
  } else if (n->op == OP_rows_dot) {
    bind_rows_dot(&r, at);
  } else {
    bind_map(&r, at);
  }
  bool uniform = lw_uniform(at, y->rank);
  bool inner = l->flat || r.n_reduced > row_dims;
  int last = inner && r.n_reduced ? r.reduced[r.n_reduced - 1] : -1;
  bool contiguous = n->op == OP_rows_dot || last == x->rank - 1;
  r.by_lane = uniform && last >= 0 && contiguous && r.dims[last] >= l->lanes;
  r.chains = r.by_lane && x->cost <= CHEAP_COST &&
             r.dims[last] >= 2 * CHAINS * l->lanes;
  if (r.by_lane) r.vector = neutral(&r, l->lanes);
  r.scalar = neutral(&r, uniform ? 1 : l->lanes);
  return r;
}

KVal *lw_reduce(Lower *l, const Value *v, const Ix *at) {
  KDetour *d = kb_detour(l->b, lw_level(at, lw_value(l, v)->rank));
  Reduction r = begin(l, v->def, at, 0);
  nest(&r, 0);
  KVal *result = total(&r);
  kb_return(l->b, d);
  return result;
}

KVal *lw_reduce_rows(Lower *l, const Node *n, const Ix *at, int row_dims,
                     KVal *lo, KVal *hi) {
  Reduction r = begin(l, n, at, row_dims);
  if (l->flat) {
    last_dim(&r, 0, lo, hi);
  } else {
    KVal *outer[2];
    KVal *row = open_outer(&r, lo, hi, outer);
    lw_split(l, r.dims, row_dims, lw_ix(row), r.at);
    nest(&r, row_dims);
    close_outer(&r, outer);
  }
  return total(&r);
}

KVal *lw_reduce_row(Lower *l, const Node *n, const Ix *at, int row_dims,
                    const Ix *row) {
  Reduction r = begin(l, n, at, row_dims);
  memcpy(r.at, row, sizeof(Ix) * (size_t)row_dims);
  if (r.n_reduced == row_dims) return element(&r);
  nest(&r, row_dims);
  return total(&r);
}
