/* lower_row.c: ops that work on a whole last dim at once, row in, row out.
 *
 * Orders are total: by value, descending, NaN below everything, ties by index.
 * An element is compared as the pair (value, rank): a NaN's value is the lowest
 * and its rank its index plus the length, any other's rank its index. The i-th
 * largest is then the largest of those that come after the one before, so few
 * picks need no marks and no copy of the row; many are a merge sort. */
#include "codegen.h"

enum { MAX_PICKS = 16, SHORT_ROW = 64 };

typedef struct RowOp {
  Lower *l;
  KBuild *b;
  const Node *n;
  const Value *x;  /* operand 0 */
  Ix at[MAX_RANK]; /* leading indices, then the place within the row */
  int lead;
  int64_t size; /* of the operand's row */
} RowOp;

/* Operand `v` at place `i` of the row. */
static KVal *pull_at(RowOp *r, const Value *v, Ix i) {
  r->at[r->lead] = i;
  return lw_pull(r->l, v, r->at);
}

static KVal *i32_const(RowOp *r, int64_t x) {
  return kb_const(r->b, DT_i32, (double)x);
}

/* ---- pairs --------------------------------------------------------------- */

typedef struct Pair {
  KVal *value, *rank;
} Pair;

static Pair pair_of(RowOp *r, KVal *x, KVal *index) {
  if (dtype_info[x->dtype].kind != DK_FLOAT) return (Pair){x, index};
  KVal *is_nan = kb_op2(r->b, OP_ne, x, x);
  KVal *lowest = kb_const(r->b, x->dtype, lw_lowest(x->dtype));
  KVal *last = kb_op2(r->b, OP_add, index, i32_const(r, r->size));
  return (Pair){kb_select(r->b, is_nan, lowest, x),
                kb_select(r->b, is_nan, last, index)};
}

static KVal *index_of(RowOp *r, KVal *rank) {
  KVal *size = i32_const(r, r->size);
  return kb_select(r->b, kb_op2(r->b, OP_lt, rank, size), rank,
                   kb_op2(r->b, OP_sub, rank, size));
}

/* x comes before y. */
static KVal *before(RowOp *r, Pair x, Pair y) {
  KVal *tie = kb_op2(r->b, OP_and, kb_op2(r->b, OP_eq, x.value, y.value),
                     kb_op2(r->b, OP_lt, x.rank, y.rank));
  return kb_op2(r->b, OP_or, kb_op2(r->b, OP_lt, y.value, x.value), tie);
}

/* ---- a few picks --------------------------------------------------------- */

/* The first in order after `prev` among places [lo, hi), lane by lane. */
static Pair best_after(RowOp *r, Pair prev, int64_t lo, int64_t hi, int lanes) {
  KBuild *b = r->b;
  Dtype dtype = r->x->type.dtype;
  Pair none = {kb_splat(b, kb_const(b, dtype, lw_lowest(dtype)), lanes),
               kb_splat(b, i32_const(r, INT32_MAX), lanes)};
  if (lo == hi) return none;
  KVal *loop = kb_for(b, kb_index(b, lo), kb_index(b, hi), lanes);
  Pair best = {kb_acc(b, loop, none.value), kb_acc(b, loop, none.rank)};
  Ix i = lanes > 1 ? lw_ix_lanes(kb_iv(b, loop)) : lw_ix(kb_iv(b, loop));
  Pair x = pair_of(r, pull_at(r, r->x, i), lw_i32(r->l, i));
  KVal *better = kb_op2(b, OP_and, before(r, prev, x), before(r, x, best));
  kb_next(b, best.value, kb_select(b, better, x.value, best.value));
  kb_next(b, best.rank, kb_select(b, better, x.rank, best.rank));
  kb_end(b);
  return (Pair){kb_result(b, best.value), kb_result(b, best.rank)};
}

static Pair fold_best(RowOp *r, Pair p) {
  KBuild *b = r->b;
  KVal *value = kb_fold(b, OP_max, p.value);
  KVal *wins = kb_op2(b, OP_eq, p.value, kb_splat(b, value, p.value->lanes));
  KVal *rank = kb_select(b, wins, p.rank,
                         kb_splat(b, i32_const(r, INT32_MAX), p.value->lanes));
  return (Pair){value, kb_fold(b, OP_min, rank)};
}

static Pair next_pick(RowOp *r, Pair prev) {
  int lanes = r->l->lanes;
  int64_t main = r->size / lanes * lanes;
  Pair p = best_after(r, prev, main, r->size, 1);
  if (!main) return p;
  Pair v = fold_best(r, best_after(r, prev, 0, main, lanes));
  KVal *first = before(r, v, p);
  return (Pair){kb_select(r->b, first, v.value, p.value),
                kb_select(r->b, first, v.rank, p.rank)};
}

static void store_pick(RowOp *r, KBase *out, KVal *i, KVal *rank) {
  KVal *index = index_of(r, rank);
  KVal *x = pull_at(r, r->x, lw_ix_from(r->l, index));
  kb_store(r->b, out[0], i, x);
  kb_store(r->b, out[1], i, index);
}

static void pick(RowOp *r, int64_t k, KBase *out) {
  KBuild *b = r->b;
  Dtype dtype = r->x->type.dtype;
  KVal *loop = kb_for(b, kb_index(b, 0), kb_index(b, k), 1);
  Pair prev = {kb_acc(b, loop, kb_const(b, dtype, lw_highest(dtype))),
               kb_acc(b, loop, i32_const(r, -1))};
  Pair p = next_pick(r, prev);
  store_pick(r, out, kb_iv(b, loop), p.rank);
  kb_next(b, prev.value, p.value);
  kb_next(b, prev.rank, p.rank);
  kb_end(b);
}

/* ---- merge sort ---------------------------------------------------------- */

typedef struct Run {
  KBase value, rank;
} Run;

static Run run_new(RowOp *r) {
  return (Run){kb_scratch(r->b, r->x->type.dtype, r->size),
               kb_scratch(r->b, DT_i32, r->size)};
}

static Pair run_at(RowOp *r, Run run, KVal *i) {
  KVal *in = kb_alu_c(r->b, A_MIN, i, r->size - 1);
  return (Pair){kb_load(r->b, run.value, in, 1),
                kb_load(r->b, run.rank, in, 1)};
}

/* Merges from[base, base + width) and the run behind it into `to`. */
static void merge(RowOp *r, Run from, Run to, KVal *base, int64_t width) {
  KBuild *b = r->b;
  KVal *mid = kb_alu_c(b, A_MIN, kb_alu_c(b, A_ADD, base, width), r->size);
  KVal *end = kb_alu_c(b, A_MIN, kb_alu_c(b, A_ADD, base, 2 * width), r->size);
  KVal *loop = kb_for(b, base, end, 1);
  KVal *i = kb_acc(b, loop, base), *j = kb_acc(b, loop, mid);
  Pair x = run_at(r, from, i), y = run_at(r, from, j);
  KVal *x_left = kb_alu(b, A_LT, i, mid);
  KVal *y_gone = kb_alu(b, A_LE, end, j);
  KVal *first =
      kb_op2(b, OP_and, x_left, kb_op2(b, OP_or, y_gone, before(r, x, y)));
  kb_store(b, to.value, kb_iv(b, loop), kb_select(b, first, x.value, y.value));
  kb_store(b, to.rank, kb_iv(b, loop), kb_select(b, first, x.rank, y.rank));
  KVal *step = kb_select(b, first, i32_const(r, 1), i32_const(r, 0));
  KVal *moved = kb_from_i32(b, step);
  kb_next(b, i, kb_alu(b, A_ADD, i, moved));
  kb_next(b, j, kb_alu(b, A_SUB, kb_alu_c(b, A_ADD, j, 1), moved));
  kb_end(b);
}

static void merge_sort(RowOp *r, int64_t k, KBase *out) {
  KBuild *b = r->b;
  Run from = run_new(r), to = run_new(r);
  KVal *loop = kb_for(b, kb_index(b, 0), kb_index(b, r->size), 1);
  Ix at = lw_ix(kb_iv(b, loop));
  Pair p = pair_of(r, pull_at(r, r->x, at), lw_i32(r->l, at));
  kb_store(b, from.value, at.base, p.value);
  kb_store(b, from.rank, at.base, p.rank);
  kb_end(b);
  for (int64_t width = 1; width < r->size; width *= 2) {
    loop = kb_for(b, kb_index(b, 0), kb_index(b, r->size), 2 * width);
    merge(r, from, to, kb_iv(b, loop), width);
    kb_end(b);
    Run swapped = from;
    from = to;
    to = swapped;
  }
  loop = kb_for(b, kb_index(b, 0), kb_index(b, k), 1);
  store_pick(r, out, kb_iv(b, loop), run_at(r, from, kb_iv(b, loop)).rank);
  kb_end(b);
}

static void order(RowOp *r, int64_t k, KBase *out) {
  LwValue *x = lw_value(r->l, r->x);
  bool stored = x->arg >= 0 || op_info[x->v->def->op].lower == LOWER_ROW;
  if (!stored) lw_keep(r->l, x, r->at, r->lead); /* it is read often */
  if (k <= MAX_PICKS || r->size <= SHORT_ROW)
    pick(r, k, out);
  else
    merge_sort(r, k, out);
}

/* ---- put and cumsum ------------------------------------------------------ */

static void clear(RowOp *r, KBase base, int64_t size) {
  KBuild *b = r->b;
  KVal *zero = kb_const(b, base.dtype, 0);
  int lanes = r->l->lanes;
  int64_t main = size / lanes * lanes;
  for (int part = 0; part < 2; part++) {
    int64_t lo = part ? main : 0, hi = part ? size : main;
    if (lo == hi) continue;
    int step = part ? 1 : lanes;
    KVal *loop = kb_for(b, kb_index(b, lo), kb_index(b, hi), step);
    kb_store(b, base, kb_iv(b, loop), kb_splat(b, zero, step));
    kb_end(b);
  }
}

static void put(RowOp *r, KBase out) {
  KBuild *b = r->b;
  int64_t size = attr_int(r->n, "size");
  clear(r, out, size);
  KVal *loop = kb_for(b, kb_index(b, 0), kb_index(b, r->size), 1);
  Ix i = lw_ix(kb_iv(b, loop));
  KVal *id = pull_at(r, r->n->ins.data[1], i);
  KVal *place = lw_clamp(r->l, lw_ix_from(r->l, id), 0, size - 1).base;
  KVal *x = pull_at(r, r->x, i);
  kb_store(b, out, place, kb_op2(b, OP_add, kb_load(b, out, place, 1), x));
  kb_end(b);
}

static void cumsum(RowOp *r, KBase out) {
  KBuild *b = r->b;
  KVal *loop = kb_for(b, kb_index(b, 0), kb_index(b, r->size), 1);
  KVal *sum = kb_acc(b, loop, kb_const(b, out.dtype, 0));
  KVal *i = kb_iv(b, loop);
  if (attr_bool(r->n, "reverse"))
    i = kb_alu(b, A_SUB, kb_index(b, r->size - 1), i);
  KVal *next = kb_op2(b, OP_add, sum, pull_at(r, r->x, lw_ix(i)));
  kb_store(b, out, i, attr_bool(r->n, "exclusive") ? sum : next);
  kb_next(b, sum, next);
  kb_end(b);
}

static void run_op(RowOp *r, KBase *out) {
  switch ((int)r->n->op) {
  case OP_top_k: order(r, attr_int(r->n, "k"), out); return;
  case OP_sort: order(r, r->size, out); return;
  case OP_put: put(r, out[0]); return;
  case OP_cumsum: cumsum(r, out[0]); return;
  }
  internal_error("%s does not work on rows", op_info[r->n->op].name);
}

LwRow *lw_row_op(Lower *l, const Node *n, uint32_t index, const Ix *lead) {
  const LwValue *x = lw_value(l, n->ins.data[0]);
  RowOp r = {.l = l,
             .b = l->b,
             .n = n,
             .x = x->v,
             .lead = x->rank - 1,
             .size = x->dims[x->rank - 1]};
  for (int i = 0; i < r.lead; i++)
    r.at[i] = lead[i];
  int level = lw_level(lead, r.lead);
  KDetour *d = kb_detour(l->b, level);
  KBase out[2];
  LwRow *rows[2];
  for (uint32_t i = 0; i < n->outs.len; i++) {
    LwValue *lv = lw_value(l, n->outs.data[i]);
    rows[i] = lw_row_new(l, lv, lead, r.lead, level);
    out[i] = rows[i]->base;
  }
  run_op(&r, out);
  kb_return(l->b, d);
  return rows[index];
}
