/* lower_reduce.c: reductions as loops with accumulators.
 *
 * Where the last reduced dim is the operand's last one and no index varies by
 * lane, it is summed in vector steps with a scalar tail, into two accumulators
 * that are joined at the very end; long cheap ones keep several vectors going.
 * Otherwise the accumulator has the lanes of the indices. The order is fixed by
 * the shapes alone.
 *
 * Reductions of one row that need none of each other's results share a loop,
 * and what they read that is kept in scratch goes there on the way. */
#include "codegen.h"

#include <string.h>

enum { CHAINS = 4, CHEAP_COST = 12, MAX_PARTS = 8 };

/* One of the reductions that are computed together. */
typedef struct Part {
  const Node *n;
  OpKind fold;
  KVal *vector, *scalar; /* accumulated so far; vector NULL unless by_lane */
} Part;

/* A value that is kept as it is read. */
typedef struct Fill {
  LwValue *v;
  LwRow *row;
} Fill;

typedef struct Reduction {
  Lower *l;
  const Node *n;     /* the first part's */
  Part parts[MAX_PARTS];
  int n_parts;
  Fill fills[MAX_PARTS];
  int n_fills;
  Ix at[MAX_RANK]; /* of the operand, or of what is multiplied */
  int64_t dims[MAX_RANK];
  int reduced[MAX_RANK], n_reduced;
  bool by_lane; /* the last reduced dim in vector steps */
  bool chains;
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

static KVal *neutral(const Reduction *r, const Part *p, int lanes) {
  Dtype dtype = p->n->outs.data[0]->type.dtype;
  double x = p->fold == OP_max   ? lw_lowest(dtype)
             : p->fold == OP_min ? lw_highest(dtype)
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

/* Stores what is kept; whoever pulls it here gets it from the register. */
static void fill_rows(Reduction *r) {
  Lower *l = r->l;
  for (int i = 0; i < r->n_fills; i++) {
    const Fill *f = &r->fills[i];
    int from = f->row->n_lead, inner = f->v->rank - from;
    Ix to = lw_linear(l, f->v->dims + from, inner, r->at + from);
    KVal *x = lw_compute(l, f->v->v, r->at);
    kb_store(l->b, f->row->base, to.base,
             kb_splat(l->b, x, to.stride ? l->lanes : 1));
    lw_remember(l, f->v, r->at, x);
  }
}

static KVal *element(Reduction *r, const Part *p) {
  if (p->n->op == OP_rows_dot) return rows_dot_element(r);
  return lw_pull(r->l, p->n->ins.data[0], r->at);
}

static KVal *join(const Reduction *r, const Part *p, KVal *acc, KVal *x) {
  return kb_op2(r->l->b, p->fold, acc, x);
}

/* All parts go on by one element. */
static void accumulate(Reduction *r, KVal **accs) {
  bool before = r->l->folds;
  r->l->folds = !r->n_fills;
  fill_rows(r);
  for (int i = 0; i < r->n_parts; i++)
    accs[i] = join(r, &r->parts[i], accs[i], element(r, &r->parts[i]));
  r->l->folds = before;
}

/* ---- loops --------------------------------------------------------------- */

static void set_at(Reduction *r, int d, KVal *at, int lanes) {
  r->at[d] = lanes > 1 ? lw_ix_lanes(at) : lw_ix(at);
}

static KVal **accumulator(Part *p, int lanes) {
  return lanes > 1 ? &p->vector : &p->scalar;
}

/* Index `d` over [lo, hi) in steps of `lanes` times `chains`. */
static void span(Reduction *r, int d, KVal *lo, KVal *hi, int lanes,
                 int chains) {
  KBuild *b = r->l->b;
  KVal *accs[CHAINS][MAX_PARTS], *now[MAX_PARTS];
  if (lo == hi) return;
  bool once = lw_is_once(lo, hi, (int64_t)lanes * chains);
  KVal *loop = once ? NULL : kb_for(b, lo, hi, (int64_t)lanes * chains);
  for (int c = 0; c < chains; c++)
    for (int i = 0; i < r->n_parts; i++) {
      Part *p = &r->parts[i];
      KVal *from = *accumulator(p, lanes);
      if (c) from = neutral(r, p, from->lanes);
      accs[c][i] = once ? from : kb_acc(b, loop, from);
    }
  for (int c = 0; c < chains; c++) {
    KVal *at = once ? lo : kb_iv(b, loop);
    set_at(r, d, kb_alu_c(b, A_ADD, at, (int64_t)c * lanes), lanes);
    if (!once || !c) memcpy(now, accs[c], sizeof now);
    accumulate(r, now);
    for (int i = 0; i < r->n_parts && !once; i++)
      kb_next(b, accs[c][i], now[i]);
  }
  if (!once) kb_end(b);
  for (int i = 0; i < r->n_parts; i++) {
    Part *p = &r->parts[i];
    KVal *sum = once ? now[i] : kb_result(b, accs[0][i]);
    for (int c = 1; c < chains && !once; c++)
      sum = join(r, p, sum, kb_result(b, accs[c][i]));
    *accumulator(p, lanes) = sum;
  }
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
    span(r, d, lo, hi, 1, 1);
    return;
  }
  KVal *from = lo;
  if (r->chains) {
    KVal *to = whole_steps(r, from, hi, (int64_t)lanes * CHAINS);
    span(r, d, from, to, lanes, CHAINS);
    from = to;
  }
  KVal *to = whole_steps(r, from, hi, lanes);
  span(r, d, from, to, lanes, 1);
  span(r, d, to, hi, 1, 1);
}

static void nest(Reduction *r, int depth);

/* A loop around the deeper ones, the accumulators of the only part going
 * through it. */
static KVal *open_outer(Reduction *r, KVal *lo, KVal *hi, KVal *outer[2]) {
  KBuild *b = r->l->b;
  Part *p = &r->parts[0];
  assert(r->n_parts == 1);
  KVal *loop = kb_for(b, lo, hi, 1);
  outer[0] = p->scalar = kb_acc(b, loop, p->scalar);
  outer[1] = NULL;
  if (p->vector) outer[1] = p->vector = kb_acc(b, loop, p->vector);
  return kb_iv(b, loop);
}

static void close_outer(Reduction *r, KVal *outer[2]) {
  KBuild *b = r->l->b;
  Part *p = &r->parts[0];
  kb_next(b, outer[0], p->scalar);
  if (outer[1]) kb_next(b, outer[1], p->vector);
  kb_end(b);
  p->scalar = kb_result(b, outer[0]);
  if (outer[1]) p->vector = kb_result(b, outer[1]);
}

static void nest(Reduction *r, int depth) {
  KBuild *b = r->l->b;
  if (depth == r->n_reduced) {
    Part *p = &r->parts[0];
    p->scalar = join(r, p, p->scalar, element(r, p));
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

static KVal *total(Reduction *r, const Part *p) {
  if (!p->vector) return p->scalar;
  if (p->scalar->kind == K_CONST) /* there was no tail */
    return kb_fold(r->l->b, p->fold, p->vector);
  return join(r, p, kb_fold(r->l->b, p->fold, p->vector), p->scalar);
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

static void add_part(Reduction *r, const Node *n, int lanes) {
  Part *p = &r->parts[r->n_parts++];
  *p = (Part){.n = n, .fold = fold_of(n)};
  if (r->by_lane) p->vector = neutral(r, p, r->l->lanes);
  p->scalar = neutral(r, p, lanes);
}

static Reduction begin(Lower *l, const Node *n, const Ix *at, int row_dims) {
  Reduction r = {.l = l, .n = n};
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
  add_part(&r, n, uniform ? 1 : l->lanes);
  return r;
}

/* ---- sharing a loop ------------------------------------------------------ */

/* Sums up a row: the last dim of its operand, whose others are the node's. */
static bool is_of_row(const Lower *l, const Node *n) {
  if (l->n->op != OP_fused || strcmp(attr_sym(l->n, "kind"), "row"))
    return false;
  if (op_info[n->op].lower != LOWER_REDUCE || n->op == OP_rows_dot ||
      lw_value(l, n->outs.data[0])->rank != l->rows ||
      lw_value(l, n->ins.data[0])->rank != l->rows + 1)
    return false;
  IndexMap m = map_of(n);
  return strncmp(m.ins[0], m.out, strlen(m.out)) == 0;
}

static bool same_dims(const LwValue *x, const LwValue *y) {
  return x->rank == y->rank &&
         memcmp(x->dims, y->dims, sizeof *x->dims * (size_t)x->rank) == 0;
}

/* Whether the reduction may be computed along with that of `r`. */
static bool may_join(const Reduction *r, const Node *n, const Ix *at) {
  Lower *l = r->l;
  const LwValue *y = lw_value(l, n->outs.data[0]);
  if (n == r->n || r->n_parts == MAX_PARTS || !is_of_row(l, n)) return false;
  const LwValue *x = lw_value(l, n->ins.data[0]);
  const LwValue *first = lw_value(l, r->n->ins.data[0]);
  return same_dims(x, first) && x->folds == first->folds && !y->mapped &&
         !y->keep && !lw_known(l, y, at);
}

/* Adds what is kept of the operands that `v` is computed from, and itself. */
static void add_fills(Reduction *r, Map *seen, const Value *v, const Ix *at) {
  Lower *l = r->l;
  LwValue *lv = lw_value(l, v), *like = lw_value(l, r->n->ins.data[0]);
  if (lv->arg >= 0 || !op_is(v->def->op, TRAIT_EW) || map_get(seen, v)) return;
  map_put(l->arena, seen, v, lv);
  if (lv->rows) return; /* full */
  for (uint32_t i = 0; i < v->def->ins.len; i++)
    add_fills(r, seen, v->def->ins.data[i], at);
  if (!lv->keep || lv->moved || lv->lead != l->rows || !same_dims(lv, like) ||
      r->n_fills == MAX_PARTS)
    return;
  LwRow *row = lw_row_new(l, lv, at, l->rows, kb_depth(l->b));
  r->fills[r->n_fills++] = (Fill){lv, row};
}

/* Reductions of the same rows that depend on as many others one after another:
 * none of them on each other. */
static void share_loop(Reduction *r, const Ix *at) {
  Lower *l = r->l;
  const Region *body = l->n->body;
  Map seen = {0};
  if (!is_of_row(l, r->n) || !lw_uniform(at, l->rows)) return;
  for (uint32_t i = 0; i < body->nodes.len; i++) {
    const Node *n = body->nodes.data[i];
    if (!may_join(r, n, at)) continue;
    if (lw_value(l, n->ins.data[0])->cost > CHEAP_COST) r->chains = false;
    add_part(r, n, 1);
  }
  for (int i = 0; i < r->n_parts; i++)
    add_fills(r, &seen, r->parts[i].n->ins.data[0], at);
}

KVal *lw_reduce(Lower *l, const Value *v, const Ix *at) {
  KDetour *d = kb_detour(l->b, lw_level(at, lw_value(l, v)->rank));
  Reduction r = begin(l, v->def, at, 0);
  share_loop(&r, at);
  nest(&r, 0);
  KVal *result = total(&r, &r.parts[0]);
  for (int i = 1; i < r.n_parts; i++)
    lw_remember(l, lw_value(l, r.parts[i].n->outs.data[0]), at,
                total(&r, &r.parts[i]));
  kb_return(l->b, d);
  return result;
}

void lw_reduce_first(Lower *l, const LwValue *v, const Ix *at) {
  const Region *body = l->n->body;
  for (uint32_t i = 0; i < body->nodes.len; i++) {
    const Node *n = body->nodes.data[i];
    if (!n->ins.len || n->ins.data[0] != v->v || !is_of_row(l, n)) continue;
    if (v->lead == l->rows && lw_uniform(at, l->rows))
      lw_pull(l, n->outs.data[0], at);
    return;
  }
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
  return total(&r, &r.parts[0]);
}

KVal *lw_reduce_row(Lower *l, const Node *n, const Ix *at, int row_dims,
                    const Ix *row) {
  Reduction r = begin(l, n, at, row_dims);
  memcpy(r.at, row, sizeof(Ix) * (size_t)row_dims);
  if (r.n_reduced == row_dims) return element(&r, &r.parts[0]);
  nest(&r, row_dims);
  return total(&r, &r.parts[0]);
}
