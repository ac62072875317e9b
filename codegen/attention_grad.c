/* attention_grad.c: attention by blocks of queries and keys, backward.
 *
 * An item is a run of key blocks of one head of keys. For each block of keys it
 * goes through the queries that see any of it, block by block, of all heads
 * that read these keys, and makes the weights again, P = exp(score - lse):
 *
 *   dP = dO V'    dS = P * (dP - delta) * scale
 *   dV += P' dO   dK += dS' Q   dQ += dS K
 *
 * dV and dK of the block stay in scratch and are written once. dQ is added up
 * in memory, in order of the keys: where there are too few heads to share out,
 * and keys are cut into several runs, each run has a dQ of its own in the
 * workspace, and a second stage adds these in order. So the order of all sums
 * is fixed, whatever thread does what.
 *
 * Where a vector is a warp there are thousands of items, and no room for that
 * many dQ: an item is one block of keys, and a second stage makes the weights
 * once more, by blocks of queries, for dQ alone. */
#include "attend.h"

enum {
  RUNS = 16, /* items, at least, where keys suffice */
  WARP_ROWS = 16, /* queries and keys at a time where an item is a warp's and */
  WARP_KEYS = 32, /* one of keys */
  CHUNK = 1 << 14 /* elements of dQ that are added up at a time */
};

typedef struct Backward {
  Attend *a;
  /* NULL what the open stage does not make: */
  CtItem *scores, *slopes, *values, *keys, *queries;
  CtSums score, slope;    /* S and dP, [query][key] */
  CtSums d_v, d_k, d_q;   /* [key][value], [key][width], [query][width] */
  KBase weights, d_score; /* P and dS, [query][key] */
  KBase to_q;             /* dQ, `runs` of them */
  int64_t runs, blocks;   /* of all keys; blocks of keys of one run */
  KVal *run;
} Backward;

/* ---- one block of queries by one of keys --------------------------------- */

/* P and dS of a row from S and dP. */
static void slope_row(Backward *w, KVal *row) {
  Attend *a = w->a;
  KBuild *b = a->b;
  int lanes = (int)w->score.width;
  KVal *i = kb_alu(b, A_ADD, a->q_lo, row), *number = at_number(a, i);
  KVal *lse = kb_splat(b, kb_load(b, kb_arg(4, a->sum), number, 1), lanes);
  KVal *delta = kb_splat(b, kb_load(b, kb_arg(5, a->sum), number, 1), lanes);
  KVal *scale = kb_splat(b, at_f(a, a->s.scale), lanes);
  KVal *limit = at_limit(a, i);
  KVal *p = at_loop(a, kb_index(b, 0), at_panels(a, &w->score), 1);
  KVal *seen = at_seen(a, limit, kb_alu_c(b, A_MUL, p, lanes), lanes);
  KVal *s = kb_load(b, w->score.base, at_row(a, &w->score, row, p), lanes);
  s = kb_op2(b, OP_sub, kb_op2(b, OP_mul, s, scale), lse);
  s = kb_select(b, seen, at_apply(a, ir_exp, s),
                kb_splat(b, at_f(a, 0), lanes));
  KVal *d = kb_load(b, w->slope.base, at_row(a, &w->slope, row, p), lanes);
  d = kb_op2(b, OP_mul, s, kb_op2(b, OP_sub, d, delta));
  d = kb_op2(b, OP_mul, d, scale);
  d = kb_select(b, seen, d, kb_splat(b, at_f(a, 0), lanes));
  KVal *to = ct_at(b, kb_alu_c(b, A_MUL, row, a->keys), p, lanes);
  if (w->values) kb_store(b, w->weights, to, at_narrow(a, s));
  kb_store(b, w->d_score, to, at_narrow(a, d));
  kb_end(b);
}

/* dV += P' dO or dK += dS' Q, from a block of weights, over the block's
 * queries. */
static void add_keys(Backward *w, CtItem *t, AttendSide side, KVal *fresh) {
  Attend *a = w->a;
  KBuild *b = a->b;
  KVal *before = kb_alu_c(b, A_MUL, a->q_lo, a->keys);
  t->m_lo = kb_index(b, 0);
  t->m_end = kb_alu(b, A_SUB, a->k_end, a->k_lo);
  t->k_lo = a->q_lo;
  t->k_hi = a->q_end;
  t->fresh = fresh;
  t->offset[CT_LEFT] = kb_alu(b, A_SUB, kb_index(b, 0), before);
  t->offset[CT_RIGHT] = at_start(a, side);
  t->block(t);
}

/* Rows of a result in memory: `add`, or store where that is NULL. */
static void put_rows(Attend *a, const CtSums *sums, KVal *rows, KBase to,
                     KVal *first, int64_t step, int64_t width, bool adds) {
  KBuild *b = a->b;
  int lanes = (int)sums->width;
  KVal *row = at_loop(a, kb_index(b, 0), rows, 1);
  KVal *at = ct_at(b, first, row, step);
  KVal *column = at_loop(a, kb_index(b, 0), kb_index(b, width), lanes);
  KVal *count = ct_count(b, column, kb_index(b, width), lanes);
  KVal *from = at_row(a, sums, row, kb_alu_c(b, A_DIV, column, lanes));
  KVal *x = kb_load(b, sums->base, from, lanes);
  at = kb_alu(b, A_ADD, at, column);
  if (adds)
    x = kb_op2(b, OP_add, kb_load_some(b, to, at, count, lanes), x);
  kb_store_some(b, to, at, count, x);
  kb_end(b);
  kb_end(b);
}

/* Where the head's dQ of this run starts. */
static KVal *start_q(Backward *w) {
  const AttentionShape *s = &w->a->s;
  int64_t all = s->batch * s->queries * s->heads * s->width;
  return ct_at(w->a->b, at_start(w->a, ATTEND_Q), w->run, all);
}

/* dS K, of one block of keys or `fresh` the sum of those so far. */
static void by_queries(Backward *w, KVal *fresh) {
  Attend *a = w->a;
  KBuild *b = a->b;
  CtItem *t = w->queries;
  t->m_lo = kb_index(b, 0);
  t->m_end = kb_alu(b, A_SUB, a->q_end, a->q_lo);
  t->k_lo = a->k_lo;
  t->k_hi = a->k_end;
  t->fresh = fresh;
  t->offset[CT_LEFT] = kb_alu(b, A_SUB, kb_index(b, 0), a->k_lo);
  t->offset[CT_RIGHT] = at_start(a, ATTEND_K);
  t->block(t);
}

static void put_queries(Backward *w, KVal *start, KBase to, bool adds) {
  Attend *a = w->a;
  int64_t step = at_step(a, ATTEND_Q);
  put_rows(a, &w->d_q, w->queries->m_end, to, ct_at(a->b, start, a->q_lo, step),
           step, a->s.width, adds);
}

/* P and dS of the block. */
static void slopes(Backward *w) {
  Attend *a = w->a;
  KBuild *b = a->b;
  at_score(a, w->scores, ATTEND_Q, ATTEND_K);
  at_score(a, w->slopes, ATTEND_D, ATTEND_V);
  KVal *rows = kb_alu(b, A_SUB, a->q_end, a->q_lo);
  slope_row(w, at_loop(a, kb_index(b, 0), rows, 1));
  kb_end(b);
}

static void each_queries(Backward *w, KVal *fresh) {
  slopes(w);
  add_keys(w, w->values, ATTEND_D, fresh);
  add_keys(w, w->keys, ATTEND_Q, fresh);
  if (!w->queries) return;
  by_queries(w, NULL);
  put_queries(w, start_q(w), w->to_q, true);
}

/* ---- items --------------------------------------------------------------- */

/* All queries that see a key of the block. */
static void each_keys(Backward *w) {
  Attend *a = w->a;
  KBuild *b = a->b;
  int64_t heads = a->s.heads / a->s.kv_heads;
  KVal *zero = kb_index(b, 0), *first = zero;
  if (a->s.causal) {
    first = kb_alu_c(b, A_SUB, a->k_lo, a->behind);
    first = kb_alu_c(b, A_DIV, kb_alu_c(b, A_MAX, first, 0), CT_STEP);
    first = kb_alu_c(b, A_MUL, first, CT_STEP); /* tiles are in bounds then */
  }
  KVal *head = at_loop(a, zero, kb_index(b, heads), 1);
  a->head = ct_at(b, head, a->kv_head, heads);
  a->q_lo = at_loop(a, first, kb_index(b, a->s.queries), a->rows);
  a->q_end = at_min(a, a->q_lo, a->rows, kb_index(b, a->s.queries));
  KVal *fresh = kb_alu(b, A_EQ, a->q_lo, first);
  each_queries(w, kb_op2(b, OP_and, fresh, kb_alu_c(b, A_EQ, head, 0)));
  kb_end(b);
  kb_end(b);
  KVal *rows = kb_alu(b, A_SUB, a->k_end, a->k_lo);
  int ins = (int)a->n->ins.len;
  AttendSide sides[2] = {ATTEND_K, ATTEND_V};
  for (int i = 0; i < 2; i++) {
    int64_t step = at_step(a, sides[i]);
    put_rows(a, i ? &w->d_v : &w->d_k, rows, kb_arg(ins + 1 + i, a->sum),
             ct_at(b, at_start(a, sides[i]), a->k_lo, step), step,
             at_width(a, sides[i]), false);
  }
}

/* This run's dQ starts at 0. */
static void clear_queries(Backward *w) {
  Attend *a = w->a;
  KBuild *b = a->b;
  int lanes = a->isa->lanes * 4 / (int)dtype_info[a->sum].bytes;
  int64_t heads = a->s.heads / a->s.kv_heads;
  KVal *zero = kb_index(b, 0), *width = kb_index(b, a->s.width);
  KVal *head = at_loop(a, zero, kb_index(b, heads), 1);
  a->head = ct_at(b, head, a->kv_head, heads);
  KVal *i = at_loop(a, zero, kb_index(b, a->s.queries), 1);
  KVal *at = ct_at(b, start_q(w), i, at_step(a, ATTEND_Q));
  KVal *column = at_loop(a, zero, width, lanes);
  kb_store_some(b, w->to_q, kb_alu(b, A_ADD, at, column),
                ct_count(b, column, width, lanes),
                kb_splat(b, at_f(a, 0), lanes));
  kb_end(b);
  kb_end(b);
  kb_end(b);
}

/* Of a block of weights turned, with a row of `side` for each query. */
static CtItem *by_keys(Backward *w, const KBase *weights, AttendSide side,
                       CtSums *sums) {
  Attend *a = w->a;
  CtProduct p = {.m = at_letter(a->keys, 1, 0),
                 .n = at_letter(at_width(a, side), 0, 1),
                 .k = at_letter(a->rows, a->keys, at_step(a, side))};
  return at_product(a, p, 0, weights, side, sums);
}

static void make_slopes(Backward *w) {
  Attend *a = w->a;
  w->d_score = kb_scratch(a->b, a->s.dtype, a->rows * a->keys);
  w->scores = at_scores(a, ATTEND_Q, ATTEND_K, &w->score);
  w->slopes = at_scores(a, ATTEND_D, ATTEND_V, &w->slope);
}

static void make_keys(Backward *w) {
  Attend *a = w->a;
  w->weights = kb_scratch(a->b, a->s.dtype, a->rows * a->keys);
  w->values = by_keys(w, &w->weights, ATTEND_D, &w->d_v);
  w->keys = by_keys(w, &w->d_score, ATTEND_Q, &w->d_k);
}

static void make_queries(Backward *w) {
  Attend *a = w->a;
  CtProduct p = {.m = at_letter(a->rows, a->keys, 0),
                 .n = at_letter(a->s.width, 0, 1),
                 .k = at_letter(a->keys, 1, at_step(a, ATTEND_K))};
  w->queries = at_product(a, p, 0, &w->d_score, ATTEND_K, &w->d_q);
}

/* Item (batch, head of keys, run of blocks of keys). */
static void items_stage(Backward *w) {
  Attend *a = w->a;
  KBuild *b = a->b;
  w->run = at_key_stage(a, w->runs);
  make_slopes(w);
  make_keys(w);
  if (!a->isa->least) {
    make_queries(w);
    clear_queries(w);
  }
  KVal *all = kb_index(b, a->s.keys);
  KVal *lo = kb_alu_c(b, A_MUL, w->run, w->blocks * a->keys);
  a->k_lo = at_loop(a, lo, at_min(a, lo, w->blocks * a->keys, all), a->keys);
  a->k_end = at_min(a, a->k_lo, a->keys, all);
  each_keys(w);
  kb_end(b);
  kb_end(b);
}

/* dQ is the sum of those of all runs, in order. */
static void sum_stage(Backward *w, KBase to, int64_t all) {
  Attend *a = w->a;
  KBuild *b = a->b;
  int lanes = a->isa->lanes * 4 / (int)dtype_info[a->sum].bytes;
  KVal *lo = kb_stage(b, (all + CHUNK - 1) / CHUNK, 1);
  lo = kb_alu_c(b, A_MUL, lo, CHUNK);
  KVal *hi = at_min(a, lo, CHUNK, kb_index(b, all));
  KVal *at = at_loop(a, lo, hi, lanes), *count = ct_count(b, at, hi, lanes);
  KVal *sum = kb_load_some(b, w->to_q, at, count, lanes);
  for (int64_t run = 1; run < w->runs; run++)
    sum = kb_op2(b, OP_add, sum,
                 kb_load_some(b, w->to_q, kb_alu_c(b, A_ADD, at, run * all),
                              count, lanes));
  kb_store_some(b, to, at, count, sum);
  kb_end(b);
  kb_end(b);
}

/* dQ by blocks of queries. */
static void queries_stage(Backward *w) {
  Attend *a = w->a;
  KBuild *b = a->b;
  KVal *end = at_query_stage(a);
  w->values = w->keys = NULL;
  make_slopes(w);
  make_queries(w);
  a->k_lo = at_loop(a, kb_index(b, 0), end, a->keys);
  a->k_end = at_min(a, a->k_lo, a->keys, end);
  slopes(w);
  by_queries(w, kb_alu_c(b, A_EQ, a->k_lo, 0));
  kb_end(b);
  put_queries(w, at_start(a, ATTEND_Q), w->to_q, false);
  kb_end(b);
}

static void choose_runs(Backward *w) {
  const AttentionShape *s = &w->a->s;
  int64_t blocks = (s->keys + w->a->keys - 1) / w->a->keys;
  int64_t heads = s->batch * s->kv_heads;
  int64_t runs = (RUNS + heads - 1) / heads;
  if (runs > blocks) runs = blocks;
  w->blocks = (blocks + runs - 1) / runs;
  w->runs = (blocks + w->blocks - 1) / w->blocks;
}

/* Keys first: theirs are the longer items. */
static void by_warps(Backward *w) {
  Attend *a = w->a;
  int64_t rows = a->rows, keys = a->keys;
  at_blocks(a, WARP_ROWS, WARP_KEYS);
  w->runs = (a->s.keys + a->keys - 1) / a->keys;
  w->blocks = 1;
  items_stage(w);
  at_blocks(a, rows, keys);
  queries_stage(w);
}

Kernel *cg_attention_grad(Ctx *cx, const Node *n, const Isa *isa) {
  Attend *a = at_new(cx, n, isa);
  Backward w = {.a = a};
  int64_t all = type_elements(&n->ins.data[0]->type);
  KBase d_q = kb_arg((int)n->ins.len, a->sum);
  w.to_q = d_q;
  if (at_in_fragments(a)) {
    at_fragments_grad(a);
    return kb_finish(a->b);
  }
  if (isa->least) {
    by_warps(&w);
    return kb_finish(a->b);
  }
  choose_runs(&w);
  if (w.runs > 1) w.to_q = kb_workspace(a->b, a->sum, w.runs * all);
  items_stage(&w);
  if (w.runs > 1) sum_stage(&w, d_q, all);
  return kb_finish(a->b);
}
