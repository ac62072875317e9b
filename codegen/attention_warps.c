/* attention_warps.c: attention in bf16 where a vector is a warp with tiles.
 *
 * All that attention.c and attention_grad.c have in scratch is fragments here,
 * values in the registers of a warp, and what they do is the same: an item is
 * some 16 queries, of which it goes through the keys by 32, or some 16 keys
 * with the queries that see them. Scores are fragments of 16 by 16; two of them
 * side by side, rounded to pairs, are at once the left operand of the product
 * that follows, so nothing is stored but results:
 *
 *   forward     S = Q K'  P  O = P V         rows are queries
 *   keys        S = K Q'  P  dV = P dO       rows are keys
 *               D = V dO' dS dK = dS Q
 *   queries     S = Q K'  D = dO V'  dS  dQ = dS K
 *
 * Operands are read where they lie: warps of a block are neighbours that go
 * through the same keys, which their caches then have. What registers can hold
 * says how many rows an item has, whether its own rows' fragments are taken
 * once or with every block, and how many columns of results a stage makes; more
 * of dK and dV are further stages, which make the weights again. Exponentials
 * are of scores less the largest, or than their logarithm, so below 88. */
#include "attend.h"

#include <math.h>

enum {
  SIDE = KF_SIDE,
  BLOCK = KF_DEEP,  /* keys or queries at a time */
  PARTS = BLOCK / SIDE,
  WIDEST = 256,     /* head */
  COLUMNS = WIDEST / SIDE,
  DEPTHS = WIDEST / KF_DEEP,
  ROWS = 2,         /* fragments of 16 rows of an item, at most */
  HELD = 14,        /* fragments at once, for rows that are kept */
  AHEAD = 2,        /* of the depth, that are taken at a time where not */
  SUMS = 8,         /* fragments of results that leave room for all else */
  ITEMS = 1 << 11   /* for which more rows are better than more items */
};

/* Some rows of an operand, as many times 16 as the item has, from `row` on. */
typedef struct Rows {
  AttendSide side;
  KVal *row;
  KVal *held[ROWS][DEPTHS]; /* NULL: to be taken where they are used */
} Rows;

typedef struct Warped {
  Attend *a;
  int n;     /* times 16 rows of an item */
  bool full; /* there are no registers for what could be kept or be ahead */
} Warped;

bool at_in_fragments(const Attend *a) {
  return a->isa->has & KN_MMA && a->s.dtype == DT_bf16 &&
         a->s.width <= WIDEST && a->s.v_width <= WIDEST;
}

/* ---- lanes --------------------------------------------------------------- */

/* Lanes, as a number in front of `end`, an index: those behind are the last. */
static KVal *in_front(Warped *w, KVal *lanes, KVal *end) {
  KBuild *b = w->a->b;
  KVal *last = kb_to_i32(b, kb_alu_c(b, A_SUB, end, 1));
  return kb_op2(b, OP_min, lanes, kb_splat(b, last, lanes->lanes));
}

static KVal *is_less(Warped *w, KVal *x, KVal *index) {
  KBuild *b = w->a->b;
  return kb_op2(b, OP_lt, x, kb_splat(b, kb_to_i32(b, index), x->lanes));
}

static KVal *both(Warped *w, KVal *x, KVal *y) {
  return !x ? y : !y ? x : kb_op2(w->a->b, OP_and, x, y);
}

static KVal *splat(Warped *w, double x) {
  return kb_splat(w->a->b, at_f(w->a, x), KF_LANES);
}

/* `seen` is NULL where all is. */
static KVal *where(Warped *w, KVal *seen, KVal *x, double otherwise) {
  return seen ? kb_select(w->a->b, seen, x, splat(w, otherwise)) : x;
}

/* ---- operands ------------------------------------------------------------ */

static int parts(int64_t n, int64_t part) {
  return (int)((n + part - 1) / part);
}

static int64_t time_of(const Warped *w, AttendSide side) {
  bool keys = side == ATTEND_K || side == ATTEND_V;
  return keys ? w->a->s.keys : w->a->s.queries;
}

/* The last of rows from `row` on, of `all`. */
static KVal *last_of(Warped *w, int64_t all, KVal *row) {
  KBuild *b = w->a->b;
  if (all % BLOCK == 0) return kb_index(b, BLOCK - 1);
  return kb_alu_c(b, A_SUB, kb_alu(b, A_SUB, kb_index(b, all), row), 1);
}

/* The fragment of rows from `row` and elements from `lo` on. */
static KVal *take(Warped *w, KfWay way, AttendSide side, KVal *row,
                  int64_t lo) {
  Attend *a = w->a;
  KBuild *b = a->b;
  int64_t most = way == KF_TURNED ? SIDE : KF_DEEP, step = at_step(a, side);
  int64_t run = at_width(a, side) - lo;
  KVal *at = kb_alu_c(b, A_ADD, ct_at(b, at_start(a, side), row, step), lo);
  return kb_take(b, way, kb_arg((int)side, a->s.dtype), at,
                 last_of(w, time_of(w, side), row), run < most ? run : most,
                 step);
}

static KVal *left_of(Warped *w, const Rows *rows, int i, int d) {
  if (rows->held[i][d]) return rows->held[i][d];
  KVal *row = kb_alu_c(w->a->b, A_ADD, rows->row, i * SIDE);
  return take(w, KF_LEFT, rows->side, row, d * KF_DEEP);
}

static Rows rows_of(Warped *w, AttendSide side, KVal *row) {
  Rows rows = {.side = side, .row = row};
  for (int i = 0; !w->full && i < w->n; i++)
    for (int d = 0; d < parts(at_width(w->a, side), KF_DEEP); d++)
      rows.held[i][d] = left_of(w, &rows, i, d);
  return rows;
}

/* Products of these rows with 16 rows of `side`. */
static void multiply(Warped *w, const Rows *rows, AttendSide side, KVal *row,
                     KVal *out[ROWS]) {
  for (int i = 0; i < w->n; i++)
    out[i] = splat(w, 0);
  for (int d = 0; d < parts(at_width(w->a, side), KF_DEEP); d++) {
    if (w->full && d % AHEAD == 0) kb_pause(w->a->b);
    KVal *right = take(w, KF_RIGHT, side, row, d * KF_DEEP);
    for (int i = 0; i < w->n; i++)
      out[i] = kb_mma(w->a->b, out[i], left_of(w, rows, i, d), right);
  }
}

/* Results of an item: columns 16 times `lo` and on of [n * 16] rows. */
typedef struct Results {
  int lo, n;
  KVal *acc[ROWS][COLUMNS], *at[ROWS][COLUMNS];
} Results;

static Results results_of(Warped *w, int lo, int n) {
  Results r = {.lo = lo, .n = n};
  for (int i = 0; i < w->n; i++)
    for (int c = 0; c < n; c++)
      r.at[i][c] = splat(w, 0);
  return r;
}

static void open_results(Warped *w, Results *r, KVal *loop) {
  for (int i = 0; i < w->n; i++)
    for (int c = 0; c < r->n; c++)
      r->at[i][c] = r->acc[i][c] = kb_acc(w->a->b, loop, r->at[i][c]);
}

static void next_results(Warped *w, Results *r) {
  for (int i = 0; i < w->n; i++)
    for (int c = 0; c < r->n; c++)
      kb_next(w->a->b, r->acc[i][c], r->at[i][c]);
}

/* Behind the loop. */
static void close_results(Warped *w, Results *r) {
  for (int i = 0; i < w->n; i++)
    for (int c = 0; c < r->n; c++)
      r->at[i][c] = kb_result(w->a->b, r->acc[i][c]);
}

/* Adds weights, pairs of a block, times as many rows of `side`. */
static void add_rows(Warped *w, Results *r, KVal *const weights[ROWS],
                     AttendSide side, KVal *row) {
  for (int c = 0; c < r->n; c++) {
    if (w->full && c % AHEAD == 0) kb_pause(w->a->b);
    KVal *right = take(w, KF_TURNED, side, row, (r->lo + c) * SIDE);
    for (int i = 0; i < w->n; i++)
      r->at[i][c] = kb_mma(w->a->b, r->at[i][c], weights[i], right);
  }
}

/* Stores them, rows from `row` on, as result number `number` of the node. */
static void put_results(Warped *w, const Results *r, int number,
                        AttendSide side, int64_t width, KVal *row) {
  Attend *a = w->a;
  KBuild *b = a->b;
  int64_t step = at_step(a, side) / at_width(a, side) * width;
  KVal *start = kb_alu_c(b, A_DIV, at_start(a, side), at_width(a, side));
  start = kb_alu_c(b, A_MUL, start, width);
  for (int i = 0; i < w->n; i++) {
    KVal *first = kb_alu_c(b, A_ADD, row, i * SIDE);
    KVal *rows = kb_alu(b, A_SUB, kb_index(b, time_of(w, side)), first);
    if (time_of(w, side) % BLOCK == 0) rows = kb_index(b, SIDE);
    for (int c = 0; c < r->n; c++) {
      int64_t lo = (r->lo + c) * SIDE, run = width - lo;
      KVal *at = kb_alu_c(b, A_ADD, ct_at(b, start, first, step), lo);
      kb_put(b, kb_arg((int)a->n->ins.len + number, a->sum), at, r->at[i][c],
             rows, run < SIDE ? run : SIDE, step);
    }
  }
}

/* ---- weights ------------------------------------------------------------- */

/* Which keys, 16 from `key` on, queries from `query` on see; by row a query, or
 * (turned) a key. Those behind the last key or query see or are not seen. */
static KVal *seen_by(Warped *w, KVal *query, KVal *key, bool turned) {
  Attend *a = w->a;
  KBuild *b = a->b;
  KVal *queries = kb_places(b, turned ? KF_COLUMN : KF_ROW), *seen = NULL;
  KVal *keys = kb_places(b, turned ? KF_ROW : KF_COLUMN);
  KVal *left = kb_alu(b, A_SUB, kb_index(b, a->s.keys), key);
  if (a->s.causal) {
    KVal *most = kb_alu(b, A_SUB, query, key);
    seen = kb_ahead(b, turned ? KF_ROW : KF_COLUMN,
                    kb_alu_c(b, A_ADD, most, a->behind + 1));
  }
  if (!turned && a->s.keys % BLOCK)
    seen = both(w, seen, is_less(w, keys, left));
  if (turned && a->s.queries % BLOCK) {
    KVal *rest = kb_alu(b, A_SUB, kb_index(b, a->s.queries), query);
    seen = both(w, seen, is_less(w, queries, rest));
  }
  if (a->s.mask < 0) return seen;
  KVal *at = kb_alu(b, A_ADD, kb_alu_c(b, A_MUL, a->batch, a->s.keys), key);
  KVal *among = in_front(w, keys, left);
  return both(w, seen, kb_load_from(b, kb_arg(a->s.mask, DT_bool), at, among, 0,
                                    0));
}

static KVal *scaled(Warped *w, KVal *x) {
  return kb_op2(w->a->b, OP_mul, x, splat(w, w->a->s.scale));
}

static KVal *exp_below(Warped *w, KVal *x, KVal *most) {
  return at_apply(w->a, ir_exp_below, kb_op2(w->a->b, OP_sub, x, most));
}

static KVal *part_of(Warped *w, KVal *block, int p) {
  return kb_alu_c(w->a->b, A_ADD, block, p * SIDE);
}

/* ---- forward ------------------------------------------------------------- */

typedef struct Forward {
  Warped w;
  Rows q;
  Results out;
  KVal *top[ROWS], *sum[ROWS]; /* by row */
} Forward;

/* Scores of fragment i of queries, a block of keys, to weights. */
static KVal *weigh(Forward *f, int i, KVal *const s[PARTS],
                   KVal *const seen[PARTS]) {
  Warped *w = &f->w;
  KBuild *b = w->a->b;
  KVal *most = s[0], *p[PARTS];
  for (int c = 1; c < PARTS; c++)
    most = kb_op2(b, OP_max, most, s[c]);
  KVal *top = kb_op2(b, OP_max, f->top[i], kb_row_fold(b, OP_max, most));
  KVal *zero = kb_splat(b, at_f(w->a, 0), KF_ROWS), *by = top;
  if (seen[0]) {
    KVal *none = kb_splat(b, at_f(w->a, -INFINITY), KF_ROWS);
    by = kb_select(b, kb_op2(b, OP_eq, top, none), zero, top);
  }
  KVal *shrink = exp_below(w, f->top[i], by), *sum = NULL;
  by = kb_by_row(b, by);
  for (int c = 0; c < PARTS; c++) {
    p[c] = where(w, seen[c], exp_below(w, s[c], by), 0);
    sum = sum ? kb_op2(b, OP_add, sum, p[c]) : p[c];
  }
  f->top[i] = top;
  f->sum[i] = kb_fma(b, f->sum[i], shrink, kb_row_fold(b, OP_add, sum));
  shrink = kb_by_row(b, shrink);
  for (int c = 0; c < f->out.n; c++)
    f->out.at[i][c] = kb_op2(b, OP_mul, f->out.at[i][c], shrink);
  for (int c = 0; c < PARTS; c++)
    p[c] = kb_pairs(b, p[c]);
  return kb_join(b, p[0], p[1]);
}

static void each_keys(Forward *f, KVal *key) {
  Warped *w = &f->w;
  KBuild *b = w->a->b;
  KVal *s[PARTS][ROWS], *weights[ROWS];
  for (int c = 0; c < PARTS; c++)
    multiply(w, &f->q, ATTEND_K, part_of(w, key, c), s[c]);
  for (int i = 0; i < w->n; i++) {
    KVal *own[PARTS], *seen[PARTS];
    KVal *query = kb_alu_c(b, A_ADD, f->q.row, i * SIDE);
    for (int c = 0; c < PARTS; c++) {
      seen[c] = seen_by(w, query, part_of(w, key, c), false);
      own[c] = where(w, seen[c], scaled(w, s[c][i]), -INFINITY);
    }
    weights[i] = weigh(f, i, own, seen);
  }
  add_rows(w, &f->out, weights, ATTEND_V, key);
}

static void all_keys(Forward *f, KVal *end) {
  Warped *w = &f->w;
  KBuild *b = w->a->b;
  KVal *top[ROWS], *sum[ROWS];
  KVal *loop = kb_for(b, kb_index(b, 0), end, BLOCK);
  open_results(w, &f->out, loop);
  for (int i = 0; i < w->n; i++) {
    top[i] = kb_acc(b, loop, kb_splat(b, at_f(w->a, -INFINITY), KF_ROWS));
    sum[i] = kb_acc(b, loop, kb_splat(b, at_f(w->a, 0), KF_ROWS));
    f->top[i] = top[i];
    f->sum[i] = sum[i];
  }
  each_keys(f, kb_iv(b, loop));
  next_results(w, &f->out);
  for (int i = 0; i < w->n; i++) {
    kb_next(b, top[i], f->top[i]);
    kb_next(b, sum[i], f->sum[i]);
  }
  kb_end(b);
  close_results(w, &f->out);
  for (int i = 0; i < w->n; i++) {
    f->top[i] = kb_result(b, top[i]);
    f->sum[i] = kb_result(b, sum[i]);
  }
}

static void put_forward(Forward *f) {
  Warped *w = &f->w;
  Attend *a = w->a;
  KBuild *b = a->b;
  KVal *zero = kb_splat(b, at_f(a, 0), KF_ROWS);
  KVal *one = kb_splat(b, at_f(a, 1), KF_ROWS);
  KVal *lowest = kb_splat(b, at_f(a, -INFINITY), KF_ROWS);
  Results lse = {.n = 1};
  for (int i = 0; i < w->n; i++) {
    KVal *none = kb_op2(b, OP_eq, f->sum[i], zero);
    KVal *by = kb_op2(b, OP_div, one, f->sum[i]);
    by = kb_by_row(b, kb_select(b, none, zero, by));
    for (int c = 0; c < f->out.n; c++)
      f->out.at[i][c] = kb_op2(b, OP_mul, f->out.at[i][c], by);
    KVal *whole =
        kb_op2(b, OP_add, f->top[i], at_apply(a, ir_log, f->sum[i]));
    lse.at[i][0] = kb_by_row(b, kb_select(b, none, lowest, whole));
  }
  put_results(w, &f->out, 0, ATTEND_Q, a->s.v_width, a->q_lo);
  put_results(w, &lse, 1, ATTEND_Q, 1, a->q_lo);
}

/* Rows of an item whose results are so many fragments wide; the stage. */
static KVal *open_queries(Warped *w, int columns) {
  Attend *a = w->a;
  int64_t items = a->s.batch * a->s.heads * parts(a->s.queries, ROWS * SIDE);
  w->n = columns * ROWS <= SUMS && items >= ITEMS ? ROWS : 1;
  a->rows = w->n * SIDE;
  KVal *end = at_query_stage(a);
  return end;
}

/* With results of so many columns, and rows of so many depths of which so many
 * products are made. */
static bool is_full(const Warped *w, int columns, int depths, int products) {
  return w->n * (columns + depths + products * PARTS) > HELD;
}

void at_fragments(Attend *a) {
  Forward f = {.w = {.a = a}};
  int columns = parts(a->s.v_width, SIDE);
  int depths = parts(a->s.width, KF_DEEP);
  KVal *end = open_queries(&f.w, columns);
  f.w.full = is_full(&f.w, columns, depths, 1);
  f.q = rows_of(&f.w, ATTEND_Q, a->q_lo);
  f.out = results_of(&f.w, 0, columns);
  all_keys(&f, end);
  put_forward(&f);
  kb_end(a->b);
}

/* ---- backward ------------------------------------------------------------ */

typedef struct Backward {
  Warped w;
  Rows own, other;    /* of scores, and of the slopes' products */
  Results d_k, d_v, d_q;
  KVal *lse[ROWS], *delta[ROWS]; /* where rows are queries */
} Backward;

static KVal *weight(Backward *g, KVal *score, KVal *lse, KVal *seen) {
  Warped *w = &g->w;
  return where(w, seen, exp_below(w, scaled(w, score), lse), 0);
}

/* dS, in pairs, of a fragment of weights and of dO V'. */
static KVal *slope(Backward *g, KVal *p, KVal *d, KVal *delta) {
  Warped *w = &g->w;
  KBuild *b = w->a->b;
  d = kb_op2(b, OP_mul, p, kb_op2(b, OP_sub, d, delta));
  return kb_pairs(b, scaled(w, d));
}

/* Numbers [batch, time, heads] of 16 queries from `query` on. */
static KVal *numbers(Warped *w, int arg, KVal *query, KfWay way) {
  Attend *a = w->a;
  KBuild *b = a->b;
  KVal *at = at_number(a, query), *last = last_of(w, a->s.queries, query);
  return kb_take_numbers(b, way, kb_arg(arg, a->sum), at, last, a->s.heads);
}

/* A block of queries, of one head, for the item's keys. */
static void each_queries(Backward *g, KVal *query) {
  Warped *w = &g->w;
  KBuild *b = w->a->b;
  KVal *p[PARTS], *ds[PARTS] = {NULL};
  for (int c = 0; c < PARTS; c++) {
    KVal *first = part_of(w, query, c), *s[ROWS], *d[ROWS];
    multiply(w, &g->own, ATTEND_Q, first, s);
    if (g->d_k.n) multiply(w, &g->other, ATTEND_D, first, d);
    KVal *seen = seen_by(w, first, g->own.row, true);
    p[c] = weight(g, s[0], numbers(w, 4, first, KF_COLUMN), seen);
    if (g->d_k.n)
      ds[c] = slope(g, p[c], d[0], numbers(w, 5, first, KF_COLUMN));
    p[c] = kb_pairs(b, p[c]);
  }
  if (g->d_v.n) {
    KVal *weights[ROWS] = {kb_join(b, p[0], p[1])};
    add_rows(w, &g->d_v, weights, ATTEND_D, query);
  }
  if (g->d_k.n) {
    KVal *slopes[ROWS] = {kb_join(b, ds[0], ds[1])};
    add_rows(w, &g->d_k, slopes, ATTEND_Q, query);
  }
}

/* The queries that see a key of the item, of all heads that read it. */
static void all_queries(Backward *g) {
  Warped *w = &g->w;
  Attend *a = w->a;
  KBuild *b = a->b;
  int64_t heads = a->s.heads / a->s.kv_heads;
  KVal *first = kb_index(b, 0), *end = kb_index(b, a->s.queries);
  if (a->s.causal) {
    first = kb_alu_c(b, A_MAX, kb_alu_c(b, A_SUB, a->k_lo, a->behind), 0);
    first = kb_alu_c(b, A_MUL, kb_alu_c(b, A_DIV, first, BLOCK), BLOCK);
  }
  KVal *outer = kb_for(b, kb_index(b, 0), kb_index(b, heads), 1);
  Results *k = &g->d_k, *v = &g->d_v;
  open_results(w, k, outer);
  open_results(w, v, outer);
  Results k_outer = *k, v_outer = *v;
  a->head = ct_at(b, kb_iv(b, outer), a->kv_head, heads);
  KVal *inner = kb_for(b, first, end, BLOCK);
  open_results(w, k, inner);
  open_results(w, v, inner);
  each_queries(g, kb_iv(b, inner));
  next_results(w, k);
  next_results(w, v);
  kb_end(b);
  close_results(w, k);
  close_results(w, v);
  for (int i = 0; i < w->n; i++) {
    for (int c = 0; c < k->n; c++)
      kb_next(b, k_outer.acc[i][c], k->at[i][c]);
    for (int c = 0; c < v->n; c++)
      kb_next(b, v_outer.acc[i][c], v->at[i][c]);
  }
  kb_end(b);
  close_results(w, &k_outer);
  close_results(w, &v_outer);
  *k = k_outer;
  *v = v_outer;
}

/* Item (batch, head of keys, 16 keys): columns of dK, and of dV. */
static void keys_stage(Attend *a, int lo, int n_k, int n_v) {
  KBuild *b = a->b;
  Backward g = {.w = {.a = a, .n = 1}};
  Warped *w = &g.w;
  KVal *nth = at_key_stage(a, parts(a->s.keys, SIDE));
  a->k_lo = kb_alu_c(b, A_MUL, nth, SIDE);
  g.d_k = results_of(w, lo, n_k);
  g.d_v = results_of(w, lo, n_v);
  int depths = parts(a->s.width, KF_DEEP);
  if (n_k) depths += parts(a->s.v_width, KF_DEEP);
  w->full = is_full(w, n_k + n_v, depths, n_k ? 2 : 1);
  g.own = rows_of(w, ATTEND_K, a->k_lo);
  if (n_k) g.other = rows_of(w, ATTEND_V, a->k_lo);
  all_queries(&g);
  put_results(w, &g.d_k, 1, ATTEND_K, a->s.width, a->k_lo);
  put_results(w, &g.d_v, 2, ATTEND_V, a->s.v_width, a->k_lo);
  kb_end(b);
}

static int at_most(int x, int most) {
  return x < most ? x : most;
}

/* Both at once where that leaves registers, else some columns of one. */
static void keys_stages(Attend *a) {
  int n_k = parts(a->s.width, SIDE), n_v = parts(a->s.v_width, SIDE);
  if (n_k + n_v <= SUMS) {
    keys_stage(a, 0, n_k, n_v);
    return;
  }
  for (int lo = 0; lo < n_v; lo += SUMS)
    keys_stage(a, lo, 0, at_most(n_v - lo, SUMS));
  for (int lo = 0; lo < n_k; lo += SUMS)
    keys_stage(a, lo, at_most(n_k - lo, SUMS), 0);
}

/* A block of keys, for the item's queries. */
static void slopes_of(Backward *g, KVal *key) {
  Warped *w = &g->w;
  KBuild *b = w->a->b;
  KVal *s[ROWS], *d[ROWS], *ds[ROWS][PARTS], *slopes[ROWS];
  for (int c = 0; c < PARTS; c++) {
    KVal *first = part_of(w, key, c);
    multiply(w, &g->own, ATTEND_K, first, s);
    multiply(w, &g->other, ATTEND_V, first, d);
    for (int i = 0; i < w->n; i++) {
      KVal *query = kb_alu_c(b, A_ADD, g->own.row, i * SIDE);
      KVal *seen = seen_by(w, query, first, false);
      KVal *p = weight(g, s[i], kb_by_row(b, g->lse[i]), seen);
      ds[i][c] = slope(g, p, d[i], kb_by_row(b, g->delta[i]));
    }
  }
  for (int i = 0; i < w->n; i++)
    slopes[i] = kb_join(b, ds[i][0], ds[i][1]);
  add_rows(w, &g->d_q, slopes, ATTEND_K, key);
}

static void queries_stage(Attend *a) {
  KBuild *b = a->b;
  Backward g = {.w = {.a = a}};
  Warped *w = &g.w;
  int columns = parts(a->s.width, SIDE);
  int depths = parts(a->s.width, KF_DEEP) + parts(a->s.v_width, KF_DEEP);
  KVal *end = open_queries(w, columns);
  w->full = is_full(w, columns, depths, 2);
  g.own = rows_of(w, ATTEND_Q, a->q_lo);
  g.other = rows_of(w, ATTEND_D, a->q_lo);
  g.d_q = results_of(w, 0, columns);
  for (int i = 0; i < w->n; i++) {
    KVal *query = kb_alu_c(b, A_ADD, a->q_lo, i * SIDE);
    g.lse[i] = numbers(w, 4, query, KF_ROW);
    g.delta[i] = numbers(w, 5, query, KF_ROW);
  }
  KVal *loop = kb_for(b, kb_index(b, 0), end, BLOCK);
  open_results(w, &g.d_q, loop);
  slopes_of(&g, kb_iv(b, loop));
  next_results(w, &g.d_q);
  kb_end(b);
  close_results(w, &g.d_q);
  put_results(w, &g.d_q, 0, ATTEND_Q, a->s.width, a->q_lo);
  kb_end(b);
}

void at_fragments_grad(Attend *a) {
  keys_stages(a);
  queries_stage(a);
}
