/* attention.c: attention by blocks of queries and keys, forward.
 *
 * An item is a block of queries of one head. It goes through the keys block by
 * block, up to the last one that a query of it sees, and of the scores it has
 * those of one block at a time, in scratch. With `top` the largest score of a
 * query so far and `sum` the sum of its weights exp(score - top),
 *
 *   block by block:  new   = max(top, scores)
 *                    sum   = sum * exp(top - new) + weights
 *                    out   = out * exp(top - new) + weights . values
 *                    top   = new
 *   at the end:      out / sum,  top + log(sum)
 *
 * (Milakov and Gimelshein 2018; Dao et al. 2022.) Scores and weighed values are
 * products of the block's rows by the kernels of pairs.c or blocked.c, which
 * leave their sums in scratch; weights go into the second product in the dtype
 * of the operands. A block of scores [query][key] lies there by panels of
 * columns, a row of a panel is one vector here. Exponentials and logarithms are
 * those of ir/math.c. */
#include "attend.h"

#include <math.h>

enum {
  KEYS = 128,
  TILE_ROWS = 256,
  ROWS = 96,
  FEW_ROWS = 64, /* where that makes too few items */
  ITEMS = 64,
  WARP_ROWS = 8, /* where a vector is a warp, whose scratch is small */
  WARP_KEYS = 64,
};

/* ---- for both directions ------------------------------------------------- */

static int64_t round_up(int64_t x, int64_t step) {
  return (x + step - 1) / step * step;
}

static int64_t at_most(int64_t x, int64_t most) {
  return x < most ? x : most;
}

/* Queries of a block: many, so that keys and values are packed less often. */
static int64_t block_rows(const AttentionShape *s, const Isa *isa) {
  if (isa->least) return WARP_ROWS;
  int64_t rows = isa->has & KN_TILES ? TILE_ROWS : ROWS;
  int64_t heads = s->batch * s->heads;
  if (heads * (round_up(s->queries, rows) / rows) < ITEMS) rows = FEW_ROWS;
  return rows;
}

void at_blocks(Attend *a, int64_t rows, int64_t keys) {
  a->rows = at_most(rows, round_up(a->s.queries, CT_STEP));
  a->keys = at_most(keys, round_up(a->s.keys, CT_STEP));
}

Attend *at_new(Ctx *cx, const Node *n, const Isa *isa) {
  Attend *a = NEW(&cx->scratch, Attend);
  *a = (Attend){.cx = cx, .n = n, .isa = isa, .s = ir_attention(n)};
  a->b = kb_new(cx, op_info[n->op].name, (int)(n->ins.len + n->outs.len),
                (int)n->outs.len);
  a->sum = dtype_info[a->s.dtype].sums;
  at_blocks(a, block_rows(&a->s, isa), isa->least ? WARP_KEYS : KEYS);
  a->behind = a->s.keys - a->s.queries;
  return a;
}

KVal *at_f(Attend *a, double value) {
  return kb_const(a->b, a->sum, value);
}

KVal *at_loop(Attend *a, KVal *lo, KVal *hi, int64_t step) {
  return kb_iv(a->b, kb_for(a->b, lo, hi, step));
}

KVal *at_min(Attend *a, KVal *x, int64_t add, KVal *most) {
  return kb_alu(a->b, A_MIN, kb_alu_c(a->b, A_ADD, x, add), most);
}

static bool of_keys(AttendSide side) {
  return side == ATTEND_K || side == ATTEND_V;
}

int64_t at_width(const Attend *a, AttendSide side) {
  return side == ATTEND_Q || side == ATTEND_K ? a->s.width : a->s.v_width;
}

int64_t at_step(const Attend *a, AttendSide side) {
  return at_width(a, side) * (of_keys(side) ? a->s.kv_heads : a->s.heads);
}

KVal *at_start(Attend *a, AttendSide side) {
  int64_t time = of_keys(side) ? a->s.keys : a->s.queries;
  KVal *head = of_keys(side) ? a->kv_head : a->head;
  KVal *at = kb_alu_c(a->b, A_MUL, a->batch, time * at_step(a, side));
  return ct_at(a->b, at, head, at_width(a, side));
}

KVal *at_number(Attend *a, KVal *i) {
  KVal *row = kb_alu_c(a->b, A_MUL, a->batch, a->s.queries);
  row = kb_alu(a->b, A_ADD, row, i);
  return ct_at(a->b, a->head, row, a->s.heads);
}

KVal *at_query_stage(Attend *a) {
  KBuild *b = a->b;
  int64_t blocks = (a->s.queries + a->rows - 1) / a->rows;
  KVal *item = kb_stage(b, a->s.batch * a->s.heads * blocks, 1);
  kb_uneven(b);
  KVal *head = kb_alu_c(b, A_DIV, item, blocks);
  KVal *block = kb_alu_c(b, A_REM, item, blocks);
  if (a->s.causal) block = kb_alu(b, A_SUB, kb_index(b, blocks - 1), block);
  a->batch = kb_alu_c(b, A_DIV, head, a->s.heads);
  a->head = kb_alu_c(b, A_REM, head, a->s.heads);
  a->kv_head = kb_alu_c(b, A_DIV, a->head, a->s.heads / a->s.kv_heads);
  a->q_lo = kb_alu_c(b, A_MUL, block, a->rows);
  a->q_end = at_min(a, a->q_lo, a->rows, kb_index(b, a->s.queries));
  KVal *end = kb_index(b, a->s.keys);
  if (a->s.causal) end = at_min(a, a->q_end, a->behind, end);
  /* Where nothing is seen, one block makes the zeros. */
  return kb_alu_c(b, A_MAX, end, 1);
}

KVal *at_key_stage(Attend *a, int64_t blocks) {
  KBuild *b = a->b;
  int64_t heads = a->s.kv_heads;
  KVal *item = kb_stage(b, a->s.batch * heads * blocks, 1);
  kb_uneven(b);
  KVal *head = kb_alu_c(b, A_DIV, item, blocks);
  a->batch = kb_alu_c(b, A_DIV, head, heads);
  a->kv_head = kb_alu_c(b, A_REM, head, heads);
  return kb_alu_c(b, A_REM, item, blocks);
}

/* ---- functions ----------------------------------------------------------- */

/* `f` of x, op by op, as `expand` has it. */
KVal *at_apply(Attend *a, Value *(*f)(Builder *b, Value *x), KVal *x) {
  Ctx *cx = a->cx;
  Region *r = ir_region(cx, NULL, NULL);
  Builder b = ir_builder(cx, r);
  Value *in = ir_param(cx, r, NULL, type_scalar(x->dtype));
  Value *out = f(&b, in);
  Map at = {0};
  map_put(&cx->scratch, &at, in, x);
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    Dtype dtype = n->outs.data[0]->type.dtype;
    KVal *ins[3] = {0}, *y;
    for (uint32_t k = 0; k < n->ins.len; k++)
      ins[k] = map_get(&at, n->ins.data[k]);
    if (n->op == OP_const)
      y = kb_const(a->b, dtype, attr_float(n, "value"));
    else
      y = kb_scalar(a->b, n->op, dtype, ins, (int)n->ins.len);
    map_put(&cx->scratch, &at, n->outs.data[0], y);
  }
  return map_get(&at, out);
}

/* ---- products ------------------------------------------------------------ */

CtLetter at_letter(int64_t size, int64_t left, int64_t right) {
  return (CtLetter){.size = size, .stride = {left, right}};
}

static void keep_sums(CtItem *t, const CtSums *sums) {
  *(CtSums *)t->sink = *sums;
}

CtItem *at_product(Attend *a, CtProduct p, int left, const KBase *weights,
                   int right, CtSums *sums) {
  static const CtDone done = {.sums = keep_sums};
  CtTask *task = NEW(&a->cx->scratch, CtTask);
  *task = (CtTask){.n = a->n, .p = p, .held = {weights != NULL}};
  if (weights) task->at[CT_LEFT] = *weights;
  task->p.dtype = a->s.dtype;
  task->p.arg[CT_LEFT] = left;
  task->p.arg[CT_RIGHT] = right;
  CtItem *t = ct_product_item(a->cx, a->b, task, a->isa);
  if (ct_in_pairs(&task->p, a->isa)) ct_pairs_in_place(t);
  t->rows = at_most(p.m.size, a->rows > a->keys ? a->rows : a->keys);
  t->cols = round_up(p.n.size, CT_STEP);
  t->depth = at_most(t->depth, round_up(p.k.size, CT_STEP));
  t->n_lo = kb_index(a->b, 0);
  t->n_end = kb_index(a->b, p.n.size);
  t->done = &done;
  t->sink = sums;
  return t;
}

CtItem *at_scores(Attend *a, AttendSide left, AttendSide right, CtSums *sums) {
  CtProduct p = {.m = at_letter(a->s.queries, at_step(a, left), 0),
                 .n = at_letter(a->s.keys, 0, at_step(a, right)),
                 .k = at_letter(at_width(a, left), 1, 1)};
  CtItem *t = at_product(a, p, left, NULL, right, sums);
  t->rows = a->rows;
  t->cols = a->keys;
  return t;
}

void at_score(Attend *a, CtItem *t, AttendSide left, AttendSide right) {
  t->m_lo = a->q_lo;
  t->m_end = a->q_end;
  t->n_lo = a->k_lo;
  t->n_end = a->k_end;
  t->offset[CT_LEFT] = at_start(a, left);
  t->offset[CT_RIGHT] = at_start(a, right);
  ct_depths(t, kb_index(a->b, 0), kb_index(a->b, at_width(a, left)));
}

/* ---- what a query sees --------------------------------------------------- */

KVal *at_limit(Attend *a, KVal *i) {
  KVal *end = a->k_end;
  if (a->s.causal) end = at_min(a, i, a->behind + 1, end);
  return kb_alu(a->b, A_SUB, end, a->k_lo);
}

KVal *at_seen(Attend *a, KVal *limit, KVal *key, int lanes) {
  KBuild *b = a->b;
  KVal *lane = kb_lanes(b, kb_to_i32(b, key), lanes);
  KVal *seen = kb_op2(b, OP_lt, lane, kb_splat(b, kb_to_i32(b, limit), lanes));
  if (a->s.mask < 0) return seen;
  KVal *at = kb_alu_c(b, A_MUL, a->batch, a->s.keys);
  KVal *first = kb_alu(b, A_ADD, a->k_lo, key);
  KVal *mask = kb_load_some(b, kb_arg(a->s.mask, DT_bool),
                            kb_alu(b, A_ADD, at, first),
                            ct_count(b, first, a->k_end, lanes), lanes);
  return kb_op2(b, OP_and, seen, mask);
}

KVal *at_narrow(Attend *a, KVal *x) {
  if (a->s.dtype == a->sum) return x;
  if (x->lanes == CT_STEP && a->isa->has & KN_NARROW) return kb_narrow(a->b, x);
  return kb_scalar(a->b, OP_cast, a->s.dtype, &x, 1);
}

KVal *at_panels(Attend *a, const CtSums *sums) {
  KBuild *b = a->b;
  KVal *keys = kb_alu(b, A_SUB, a->k_end, a->k_lo);
  keys = kb_alu_c(b, A_DIV, kb_alu_c(b, A_ADD, keys, CT_STEP - 1), CT_STEP);
  return kb_alu_c(b, A_MUL, keys, CT_STEP / sums->width);
}

KVal *at_row(Attend *a, const CtSums *sums, KVal *row, KVal *panel) {
  KVal *at = ct_at(a->b, sums->at, row, sums->step);
  return ct_at(a->b, at, panel, sums->panel);
}

/* ---- forward ------------------------------------------------------------- */

typedef struct Forward {
  Attend *a;
  CtItem *scores, *weigh;
  CtSums score, term; /* [query][key]; of this block's keys, [query][value] */
  KBase weights;      /* [query][key] */
  KBase out;          /* [query][value], rows of whole steps */
  KBase top, sum;     /* by query of the block */
  KBase shrink;       /* by query: by what all before the block shrinks */
  int64_t width;      /* of a row of `out` */
} Forward;

static KVal *no_score(Forward *f) {
  return at_f(f->a, -INFINITY);
}

static KVal *spread(Forward *f, KVal *x) {
  return kb_splat(f->a->b, x, (int)f->score.width);
}

static KVal *queries(Forward *f) {
  return kb_alu(f->a->b, A_SUB, f->a->q_end, f->a->q_lo);
}

static void start_rows(Forward *f) {
  KBuild *b = f->a->b;
  KVal *row = at_loop(f->a, kb_index(b, 0), queries(f), 1);
  kb_store(b, f->top, row, no_score(f));
  kb_store(b, f->sum, row, at_f(f->a, 0));
  kb_end(b);
  row = at_loop(f->a, kb_index(b, 0), queries(f), 1);
  KVal *at = kb_alu_c(b, A_MUL, row, f->width);
  KVal *column = at_loop(f->a, kb_index(b, 0), kb_index(b, f->width), CT_STEP);
  kb_store(b, f->out, kb_alu(b, A_ADD, at, column),
           kb_splat(b, at_f(f->a, 0), CT_STEP));
  kb_end(b);
  kb_end(b);
}

/* Scales the row's scores, -inf where nothing is seen; returns the largest. */
static KVal *scale_row(Forward *f, KVal *row) {
  Attend *a = f->a;
  KBuild *b = a->b;
  int lanes = (int)f->score.width;
  KVal *limit = at_limit(a, kb_alu(b, A_ADD, a->q_lo, row));
  KVal *loop = kb_for(b, kb_index(b, 0), at_panels(a, &f->score), 1);
  KVal *most = kb_acc(b, loop, spread(f, no_score(f))), *p = kb_iv(b, loop);
  KVal *at = at_row(a, &f->score, row, p);
  KVal *s = kb_load(b, f->score.base, at, lanes);
  KVal *seen = at_seen(a, limit, kb_alu_c(b, A_MUL, p, lanes), lanes);
  s = kb_op2(b, OP_mul, s, spread(f, at_f(a, a->s.scale)));
  s = kb_select(b, seen, s, spread(f, no_score(f)));
  kb_store(b, f->score.base, at, s);
  kb_next(b, most, kb_op2(b, OP_max, most, s));
  kb_end(b);
  return kb_fold(b, OP_max, kb_result(b, most));
}

/* Makes the row's scores weights; returns their sum. */
static KVal *weigh_row(Forward *f, KVal *row, KVal *top) {
  Attend *a = f->a;
  KBuild *b = a->b;
  int lanes = (int)f->score.width;
  KVal *loop = kb_for(b, kb_index(b, 0), at_panels(a, &f->score), 1);
  KVal *sum = kb_acc(b, loop, spread(f, at_f(a, 0))), *p = kb_iv(b, loop);
  KVal *s = kb_load(b, f->score.base, at_row(a, &f->score, row, p), lanes);
  s = at_apply(a, ir_exp, kb_op2(b, OP_sub, s, spread(f, top)));
  KVal *to = ct_at(b, kb_alu_c(b, A_MUL, row, a->keys), p, lanes);
  kb_store(b, f->weights, to, at_narrow(a, s));
  kb_next(b, sum, kb_op2(b, OP_add, sum, s));
  kb_end(b);
  return kb_fold(b, OP_add, kb_result(b, sum));
}

/* Scores become weights. Of a row that has seen nothing yet all are 0. */
static void weigh(Forward *f) {
  Attend *a = f->a;
  KBuild *b = a->b;
  KVal *row = at_loop(a, kb_index(b, 0), queries(f), 1);
  KVal *was = kb_load(b, f->top, row, 1);
  KVal *top = kb_op2(b, OP_max, was, scale_row(f, row));
  kb_store(b, f->top, row, top);
  KVal *none = kb_op2(b, OP_eq, top, no_score(f));
  top = kb_select(b, none, at_f(a, 0), top);
  KVal *shrink = at_apply(a, ir_exp, kb_op2(b, OP_sub, was, top));
  kb_store(b, f->shrink, row, shrink);
  KVal *more = weigh_row(f, row, top);
  KVal *sum = kb_load(b, f->sum, row, 1);
  kb_store(b, f->sum, row, kb_fma(b, sum, shrink, more));
  kb_end(b);
}

static KVal *out_at(Forward *f, KVal *row, KVal *panel) {
  KVal *at = kb_alu_c(f->a->b, A_MUL, row, f->width);
  return ct_at(f->a->b, at, panel, f->term.width);
}

static KVal *out_panels(Forward *f) {
  int64_t width = f->term.width;
  return kb_index(f->a->b, (f->a->s.v_width + width - 1) / width);
}

/* Adds the block's weighed values to what there is. */
static void add_block(Forward *f) {
  Attend *a = f->a;
  KBuild *b = a->b;
  int lanes = (int)f->term.width;
  KVal *row = at_loop(a, kb_index(b, 0), queries(f), 1);
  KVal *shrink = spread(f, kb_load(b, f->shrink, row, 1));
  KVal *p = at_loop(a, kb_index(b, 0), out_panels(f), 1);
  KVal *more = kb_load(b, f->term.base, at_row(a, &f->term, row, p), lanes);
  KVal *out = kb_load(b, f->out, out_at(f, row, p), lanes);
  kb_store(b, f->out, out_at(f, row, p), kb_fma(b, out, shrink, more));
  kb_end(b);
  kb_end(b);
}

/* The scores are products of all of the width, the values of all their own. */
static void each_keys(Forward *f) {
  Attend *a = f->a;
  KBuild *b = a->b;
  at_score(a, f->scores, ATTEND_Q, ATTEND_K);
  weigh(f);
  CtItem *t = f->weigh;
  t->m_lo = kb_index(b, 0);
  t->m_end = queries(f);
  t->k_lo = a->k_lo;
  t->k_hi = a->k_end;
  t->offset[CT_LEFT] = kb_alu(b, A_SUB, kb_index(b, 0), a->k_lo);
  t->offset[CT_RIGHT] = at_start(a, ATTEND_V);
  t->block(t);
  add_block(f);
}

static void store_row(Forward *f, KVal *row) {
  Attend *a = f->a;
  KBuild *b = a->b;
  int ins = (int)a->n->ins.len, lanes = (int)f->term.width;
  KVal *i = kb_alu(b, A_ADD, a->q_lo, row), *zero = at_f(a, 0);
  KVal *sum = kb_load(b, f->sum, row, 1), *top = kb_load(b, f->top, row, 1);
  KVal *none = kb_op2(b, OP_eq, sum, zero);
  KVal *by = kb_select(b, none, zero, kb_op2(b, OP_div, at_f(a, 1), sum));
  KVal *whole = kb_op2(b, OP_add, top, at_apply(a, ir_log, sum));
  kb_store(b, kb_arg(ins + 1, a->sum), at_number(a, i),
           kb_select(b, none, no_score(f), whole));
  KVal *to = kb_alu_c(b, A_MUL, at_number(a, i), a->s.v_width);
  KVal *p = at_loop(a, kb_index(b, 0), out_panels(f), 1);
  KVal *column = kb_alu_c(b, A_MUL, p, lanes);
  KVal *out = kb_load(b, f->out, out_at(f, row, p), lanes);
  out = kb_op2(b, OP_mul, out, spread(f, by));
  kb_store_some(b, kb_arg(ins, a->sum), kb_alu(b, A_ADD, to, column),
                ct_count(b, column, kb_index(b, a->s.v_width), lanes), out);
  kb_end(b);
}

static void make_items(Forward *f) {
  Attend *a = f->a;
  const AttentionShape *s = &a->s;
  CtProduct p = {.m = at_letter(a->rows, a->keys, 0),
                 .n = at_letter(s->v_width, 0, 1),
                 .k = at_letter(a->keys, 1, at_step(a, ATTEND_V))};
  f->width = round_up(s->v_width, CT_STEP);
  f->weights = kb_scratch(a->b, s->dtype, a->rows * a->keys);
  f->out = kb_scratch(a->b, a->sum, a->rows * f->width);
  f->top = kb_scratch(a->b, a->sum, a->rows);
  f->sum = kb_scratch(a->b, a->sum, a->rows);
  f->shrink = kb_scratch(a->b, a->sum, a->rows);
  f->scores = at_scores(a, ATTEND_Q, ATTEND_K, &f->score);
  f->weigh = at_product(a, p, 0, &f->weights, ATTEND_V, &f->term);
}

Kernel *cg_attention(Ctx *cx, const Node *n, const Isa *isa) {
  Attend *a = at_new(cx, n, isa);
  KBuild *b = a->b;
  Forward f = {.a = a};
  if (at_in_fragments(a)) {
    at_fragments(a);
    return kb_finish(b);
  }
  KVal *end = at_query_stage(a), *zero = kb_index(b, 0);
  make_items(&f);
  start_rows(&f);
  a->k_lo = at_loop(a, zero, end, a->keys);
  a->k_end = at_min(a, a->k_lo, a->keys, end);
  each_keys(&f);
  kb_end(b);
  KVal *row = at_loop(a, zero, queries(&f), 1);
  store_row(&f, row);
  kb_end(b);
  kb_end(b);
  return kb_finish(b);
}
