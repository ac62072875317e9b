/* squares.c: the sum of the squares of a product's elements, which are not
 * kept.
 *
 * Of a product of little depth, X'Y with r rows of d and of h elements, it is
 * also the sum over pairs of rows i, j of
 *
 *   (X X')[i, j] (Y Y')[i, j]
 *
 * which takes r r (d + h) multiply-adds in place of r d h, and half of that as
 * both factors are symmetric. So each group (an expert, a number of the batch)
 * that has few rows is worked off by pairs: an item is a band of 32 rows and
 * all rows from there on, for which both factors are computed by the blocks of
 * blocked.c or pairs.c into scratch and multiplied there; rows behind the band
 * count twice. What is left of a group's sum by rounding, where its terms
 * cancel, may lie below 0: it counts as 0 then. Groups of more rows are worked
 * off as products whose sums are squared in scratch. How many rows each has is
 * known when it runs: a stage does those of few, one the others, and a last one
 * adds all items in order. */
#include "codegen.h"

enum { BAND = 32 };

typedef struct Squares {
  Ctx *cx;
  KBuild *b;
  CtTask task;
  CtTask grams[CT_OUT]; /* X X' and Y Y' as products */
  CtItem *items[CT_OUT];
  CtSums sums[CT_OUT];
  Dtype dtype; /* of sums */
  int lanes;
  int64_t groups;
  int64_t most;   /* rows of a group that is worked off by pairs; 0: none */
  int64_t bands;  /* of such a group */
  KBase paired;   /* its sums, [groups][bands] */
  KBase whole;    /* sums of the product's items */
  int64_t n_whole;
  KVal *item;
} Squares;

static KVal *plus(KBuild *b, KVal *x, KVal *y) {
  return kb_op2(b, OP_add, x, y);
}

static KVal *zeros(const Squares *s, int lanes) {
  return kb_splat(s->b, kb_const(s->b, s->dtype, 0), lanes);
}

/* Where the sums of an item's row and column are, counted from its first. */
static KVal *sums_at(KBuild *b, const CtSums *sums, KVal *row, KVal *column) {
  KVal *at = ct_at(b, sums->at, row, sums->step);
  at = ct_at(b, at, kb_alu_c(b, A_DIV, column, sums->width), sums->panel);
  return kb_alu(b, A_ADD, at, kb_alu_c(b, A_REM, column, sums->width));
}

/* Adds the products of `x` and `y`, sums of the item's rows [lo, hi), all of
 * its columns. */
static KVal *multiply(Squares *s, const CtItem *t, const CtSums *x,
                      const CtSums *y, KVal *lo, KVal *hi) {
  KBuild *b = s->b;
  KVal *rows = kb_for(b, lo, hi, 1);
  KVal *by_row = kb_acc(b, rows, zeros(s, s->lanes));
  KVal *cols = kb_for(b, t->n_lo, t->n_end, s->lanes);
  KVal *sum = kb_acc(b, cols, by_row), *column = kb_iv(b, cols);
  KVal *row = kb_alu(b, A_SUB, kb_iv(b, rows), t->m_lo);
  KVal *count = ct_count(b, column, t->n_end, s->lanes);
  KVal *at = sums_at(b, x, row, kb_alu(b, A_SUB, column, t->n_lo));
  KVal *left = kb_load_some(b, x->base, at, count, s->lanes);
  KVal *right = kb_load_some(b, y->base, at, count, s->lanes);
  kb_next(b, sum, kb_fma(b, left, right, sum));
  kb_end(b);
  kb_next(b, by_row, kb_result(b, sum));
  kb_end(b);
  return kb_result(b, by_row);
}

/* ---- by pairs of rows ---------------------------------------------------- */

static void keep_sums(CtItem *t, const CtSums *sums) {
  *(CtSums *)t->sink = *sums;
}

/* The rows of operand `side` by themselves, each as long as the other side of
 * the product needs. */
static CtProduct gram_of(const CtProduct *p, int side) {
  const CtLetter *along = side == CT_LEFT ? &p->m : &p->n;
  CtProduct g = {.m = {.size = p->k.size},
                 .n = {.size = p->k.size},
                 .k = {.size = along->size},
                 .batch = {.size = p->batch.size},
                 .groups = p->groups,
                 .rows = p->rows,
                 .dtype = p->dtype};
  g.m.stride[CT_LEFT] = g.n.stride[CT_RIGHT] = p->k.stride[side];
  for (int i = 0; i < CT_OUT; i++) {
    g.k.stride[i] = 1;
    g.batch.stride[i] = p->batch.stride[side];
    g.arg[i] = p->arg[side];
  }
  return g;
}

static void new_gram(Squares *s, int side, const Isa *isa) {
  static const CtDone done = {.sums = keep_sums};
  s->grams[side] = s->task;
  s->grams[side].p = gram_of(&s->task.p, side);
  s->items[side] = ct_product_item(s->cx, s->b, &s->grams[side], isa);
  s->items[side]->cols = BAND;
  s->items[side]->done = &done;
  s->items[side]->sink = &s->sums[side];
}

/* The sum over the rows from m on, a block of them, and the band's. */
static KVal *block_of_rows(Squares *s, KVal *m, KVal *hi, KVal *sum) {
  KBuild *b = s->b;
  for (int side = CT_LEFT; side < CT_OUT; side++) {
    CtItem *t = s->items[side];
    t->m_lo = m;
    t->m_end = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, m, t->rows), hi);
    ct_depths(t, kb_index(b, 0), kb_index(b, t->p->k.size));
  }
  const CtItem *t = s->items[CT_LEFT];
  KVal *behind = kb_alu(b, A_MAX, t->m_lo, t->n_end);
  behind = kb_alu(b, A_MIN, behind, t->m_end);
  const CtSums *x = &s->sums[CT_LEFT], *y = &s->sums[CT_RIGHT];
  KVal *once = multiply(s, t, x, y, t->m_lo, behind);
  KVal *twice = multiply(s, t, x, y, behind, t->m_end);
  KVal *two = kb_splat(b, kb_const(b, s->dtype, 2), s->lanes);
  return kb_fma(b, two, twice, plus(b, sum, once));
}

/* Rows [lo, hi) of the group, those from `first` on with a band of them. */
static KVal *band_of_rows(Squares *s, KVal *group, KVal *first, KVal *hi) {
  KBuild *b = s->b;
  for (int side = CT_LEFT; side < CT_OUT; side++) {
    CtItem *t = s->items[side];
    ct_batch(t, group);
    t->n_lo = first;
    t->n_end = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, first, BAND), hi);
  }
  assert(s->items[CT_LEFT]->rows == s->items[CT_RIGHT]->rows);
  KVal *loop = kb_for(b, first, hi, s->items[CT_LEFT]->rows);
  KVal *sum = kb_acc(b, loop, zeros(s, s->lanes));
  kb_next(b, sum, block_of_rows(s, kb_iv(b, loop), hi, sum));
  kb_end(b);
  return kb_result(b, sum);
}

static void paired_stage(Squares *s) {
  KBuild *b = s->b;
  const CtProduct *p = &s->task.p;
  s->paired = kb_workspace(b, s->dtype, s->groups * s->bands);
  KVal *item = kb_stage(b, s->groups * s->bands, 1);
  kb_uneven(b);
  KVal *group = kb_alu_c(b, A_DIV, item, s->bands);
  KVal *lo = kb_index(b, 0), *hi = kb_index(b, p->k.size);
  if (p->groups) {
    lo = ct_offset(b, s->task.offsets, group);
    hi = ct_offset(b, s->task.offsets, kb_alu_c(b, A_ADD, group, 1));
  }
  KVal *first = ct_at(b, lo, kb_alu_c(b, A_REM, item, s->bands), BAND);
  kb_store(b, s->paired, item, zeros(s, 1));
  KVal *few = kb_alu_c(b, A_LE, kb_alu(b, A_SUB, hi, lo), s->most);
  kb_if(b, kb_op2(b, OP_and, few, kb_alu(b, A_LT, first, hi)));
  KVal *sum = band_of_rows(s, group, first, hi);
  kb_store(b, s->paired, item, kb_fold(b, OP_add, sum));
  kb_end(b);
  kb_end(b);
}

/* ---- as a product -------------------------------------------------------- */

static void start_item(CtItem *t, KVal *item, int64_t items) {
  Squares *s = t->sink;
  s->item = item;
  s->n_whole = items;
  s->whole = kb_workspace(s->b, s->dtype, items);
  kb_store(s->b, s->whole, item, zeros(s, 1));
}

static void square_item(CtItem *t, const CtSums *sums) {
  Squares *s = t->sink;
  if (t->last) kb_if(s->b, t->last);
  KVal *sum = multiply(s, t, sums, sums, t->m_lo, t->m_end);
  kb_store(s->b, s->whole, s->item, kb_fold(s->b, OP_add, sum));
  if (t->last) kb_end(s->b);
}

/* ---- all of them --------------------------------------------------------- */

/* Adds elements [lo, hi) of a workspace to `sum`. */
static KVal *add_up(Squares *s, KBase from, KVal *lo, KVal *hi, KVal *sum) {
  KBuild *b = s->b;
  KVal *loop = kb_for(b, lo, hi, 1);
  KVal *acc = kb_acc(b, loop, sum);
  kb_next(b, acc, plus(b, acc, kb_load(b, from, kb_iv(b, loop), 1)));
  kb_end(b);
  return kb_result(b, acc);
}

/* The groups that were worked off by pairs; a NaN stays one. */
static KVal *add_paired(Squares *s, KVal *sum) {
  KBuild *b = s->b;
  KVal *loop = kb_for(b, kb_index(b, 0), kb_index(b, s->groups), 1);
  KVal *all = kb_acc(b, loop, sum);
  KVal *lo = kb_alu_c(b, A_MUL, kb_iv(b, loop), s->bands);
  KVal *of_group = add_up(s, s->paired, lo, kb_alu_c(b, A_ADD, lo, s->bands),
                          zeros(s, 1));
  of_group = kb_op2(b, OP_max, zeros(s, 1), of_group);
  kb_next(b, all, plus(b, all, of_group));
  kb_end(b);
  return kb_result(b, all);
}

static void last_stage(Squares *s) {
  KBuild *b = s->b;
  int out = (int)s->task.n->ins.len;
  kb_stage(b, 1, 1);
  KVal *sum = zeros(s, 1);
  if (s->most) sum = add_paired(s, sum);
  if (s->n_whole)
    sum = add_up(s, s->whole, kb_index(b, 0), kb_index(b, s->n_whole), sum);
  kb_store(b, kb_arg(out, s->dtype), kb_index(b, 0), sum);
  kb_end(b);
}

static void end_items(CtItem *t) {
  last_stage(t->sink);
}

static Kernel *whole_stages(Squares *s, const Isa *isa) {
  static const CtDone done = {.start = start_item,
                              .sums = square_item,
                              .end = end_items};
  CtProduct *p = &s->task.p; /* whose result lies nowhere */
  p->batch.stride[CT_OUT] = p->m.stride[CT_OUT] = p->n.stride[CT_OUT] = 0;
  CtItem *t = ct_product_item(s->cx, s->b, &s->task, isa);
  t->done = &done;
  t->sink = s;
  t->least = p->groups && s->most ? s->most + 1 : 0;
  return ct_items(t);
}

/* Rows of a group that is worked off by pairs, at most; 0 where no group is:
 * all have the same number of rows, and that is more. */
static int64_t most_rows(const CtProduct *p) {
  int64_t most = ir_product_pairs(p);
  return p->groups || p->k.size <= most ? most : 0;
}

Kernel *cg_squares(Ctx *cx, const Node *n, const Isa *isa) {
  Squares *s = NEW(&cx->scratch, Squares);
  *s = (Squares){.cx = cx, .task = {.n = n, .offsets = 2}};
  CtProduct *p = &s->task.p;
  bool is_product = ir_product(ir_squared(cx, n), p);
  assert(is_product && "inference lets nothing else through");
  (void)is_product;
  s->b = kb_new(cx, "square_sum", (int)n->ins.len + 1, 1);
  s->dtype = dtype_info[p->dtype].sums;
  s->lanes = isa->lanes * 4 / (int)dtype_info[s->dtype].bytes;
  s->groups = p->batch.size;
  s->most = most_rows(p);
  s->bands = (s->most + BAND - 1) / BAND;
  if (s->most) {
    for (int side = CT_LEFT; side < CT_OUT; side++)
      new_gram(s, side, isa);
    paired_stage(s);
  }
  if (s->most < (p->groups ? p->rows : p->k.size)) return whole_stages(s, isa);
  last_stage(s);
  return kb_finish(s->b);
}
