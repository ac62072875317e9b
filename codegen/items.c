/* items.c: a product cut into blocks, and who works them off.
 *
 * An item is a block of rows by a block of columns of the result, for one
 * expert or one number of the batch; its depth is cut into blocks as well, and
 * the sums wait in scratch between them. Rows of a ragged value are m or k.
 * As m, an item is a block of rows of one expert; how many blocks there are is
 * only bounded when compiling, so a first stage lists those that there are. As
 * k, each expert has its own depth, 0 included. Either way, those with much to
 * do come first, and none is left at the end that the others wait for.
 * Every element of the result is summed by one item in one order. */
#include "codegen.h"

enum {
  SHALLOW = 64, /* depth that takes less time than the memory of the result */
  FEW = 64,     /* rows of an expert, in the mean */
  RUN = 2048,   /* columns of an item, at most, whose rows are whole */
  WHOLE = 256,  /* rows of an item that hands them on by strips */
};

KVal *ct_offset(KBuild *b, int arg, KVal *e) {
  return kb_from_i32(b, kb_load(b, kb_arg(arg, DT_i32), e, 1));
}

static KVal *offset(CtItem *t, KVal *e, int64_t plus) {
  return ct_offset(t->b, t->task->offsets, kb_alu_c(t->b, A_ADD, e, plus));
}

KVal *ct_at(KBuild *b, KVal *base, KVal *i, int64_t stride) {
  return kb_alu(b, A_ADD, base, kb_alu_c(b, A_MUL, i, stride));
}

static int64_t blocks(int64_t n, int64_t block) {
  return (n + block - 1) / block;
}

void ct_depths(CtItem *t, KVal *k_lo, KVal *k_hi) {
  KBuild *b = t->b;
  if (k_hi->kind == K_INDEX && k_hi->number <= t->depth) {
    t->k_lo = k_lo;
    t->k_hi = k_hi;
    t->block(t);
    return;
  }
  /* No depth is one block too: it writes the zeros. */
  KVal *least = kb_alu_c(b, A_ADD, k_lo, 1);
  KVal *loop = kb_for(b, k_lo, kb_alu(b, A_MAX, k_hi, least), t->depth);
  t->k_lo = kb_iv(b, loop);
  KVal *next = kb_alu_c(b, A_ADD, t->k_lo, t->depth);
  t->k_hi = kb_alu(b, A_MIN, next, k_hi);
  t->fresh = kb_alu(b, A_EQ, t->k_lo, k_lo);
  t->last = kb_alu(b, A_LE, k_hi, next);
  t->block(t);
  kb_end(b);
}

void ct_batch(CtItem *t, KVal *number) {
  t->number = number;
  for (int s = 0; s < CT_SIDES; s++)
    t->offset[s] = kb_alu_c(t->b, A_MUL, number, t->p->batch.stride[s]);
}

static void columns_from(CtItem *t, KVal *lo) {
  KVal *end = kb_alu_c(t->b, A_ADD, lo, t->cols);
  t->n_lo = lo;
  t->n_end = kb_alu(t->b, A_MIN, end, kb_index(t->b, t->p->n.size));
}

/* ---- who goes first ------------------------------------------------------ */

KVal *ct_rows(CtItem *t, KVal *e) {
  return kb_alu(t->b, A_SUB, offset(t, e, 1), offset(t, e, 0));
}

KVal *ct_number(KBuild *b, KVal *cond) {
  return kb_from_i32(b, kb_scalar(b, OP_cast, DT_i32, &cond, 1));
}

static void put(KBuild *b, KBase list, KVal *at, KVal *number) {
  kb_store(b, list, at, kb_to_i32(b, number));
}

/* Lists the blocks of rows behind `from`, the expert and first row of each:
 * whole ones, or what is left of each expert. Returns where the next goes. */
static KVal *list_blocks(CtItem *t, KBase experts, KBase firsts, KVal *from,
                         bool whole) {
  KBuild *b = t->b;
  KVal *loop = kb_for(b, kb_index(b, 0), kb_index(b, t->p->groups), 1);
  KVal *at = kb_acc(b, loop, from), *e = kb_iv(b, loop);
  KVal *rows = ct_rows(t, e), *full = kb_alu_c(b, A_DIV, rows, t->rows);
  KVal *lo = full, *hi = full;
  if (whole)
    lo = kb_index(b, 0);
  else
    hi = kb_alu(b, A_ADD, full,
                ct_number(b, kb_alu(b, A_LT, kb_alu_c(b, A_MUL, full, t->rows),
                                    rows)));
  KVal *blocks_of = kb_for(b, lo, hi, 1), *nth = kb_iv(b, blocks_of);
  KVal *to = kb_alu(b, A_ADD, at, kb_alu(b, A_SUB, nth, lo));
  put(b, experts, to, e);
  put(b, firsts, to, ct_at(b, offset(t, e, 0), nth, t->rows));
  kb_end(b);
  kb_next(b, at, kb_alu(b, A_ADD, at, kb_alu(b, A_SUB, hi, lo)));
  kb_end(b);
  return kb_result(b, at);
}

/* A stage that lists all blocks of rows, the largest first; -1 stands for the
 * expert of blocks that there might have been. */
static void blocks_stage(CtItem *t, KBase experts, KBase firsts, int64_t most) {
  KBuild *b = t->b;
  kb_stage(b, 1, 1);
  KVal *at = list_blocks(t, experts, firsts, kb_index(b, 0), true);
  at = list_blocks(t, experts, firsts, at, false);
  KVal *loop = kb_for(b, at, kb_index(b, most), 1);
  put(b, experts, kb_iv(b, loop), kb_index(b, -1));
  kb_end(b);
  kb_end(b);
}

/* ---- the same by many warps ---------------------------------------------- */

/* Blocks of `rows` rows, by lane. */
static KVal *blocks_of_rows(CtItem *t, KVal *rows) {
  KBuild *b = t->b;
  KVal *most = kb_const(b, DT_i32, (double)(t->rows - 1));
  rows = kb_op2(b, OP_add, rows, kb_splat(b, most, rows->lanes));
  KVal *each = kb_const(b, DT_i32, (double)t->rows);
  return kb_op2(b, OP_div, rows, kb_splat(b, each, rows->lanes));
}

/* All blocks of the experts in front of e. */
static KVal *blocks_before(CtItem *t, KVal *e) {
  KBuild *b = t->b;
  int lanes = t->warps;
  KBase offsets = kb_arg(t->task->offsets, DT_i32);
  KVal *zero = kb_splat(b, kb_const(b, DT_i32, 0), lanes);
  KVal *loop = kb_for(b, kb_index(b, 0), e, lanes), *from = kb_iv(b, loop);
  KVal *sum = kb_acc(b, loop, zero), *some = ct_count(b, from, e, lanes);
  KVal *next = kb_alu_c(b, A_ADD, from, 1);
  KVal *ends = kb_load_some(b, offsets, next, some, lanes);
  KVal *starts = kb_load_some(b, offsets, from, some, lanes);
  KVal *own = blocks_of_rows(t, kb_op2(b, OP_sub, ends, starts));
  kb_next(b, sum, kb_op2(b, OP_add, sum, own));
  kb_end(b);
  return kb_from_i32(b, kb_fold(b, OP_add, kb_result(b, sum)));
}

/* The expert and first row of blocks [at, end): those of `e` from `row` on. */
static void list_vectors(CtItem *t, KBase experts, KBase firsts, KVal *at,
                         KVal *end, KVal *e, KVal *row) {
  KBuild *b = t->b;
  int lanes = t->warps;
  KVal *loop = kb_for(b, at, end, lanes), *to = kb_iv(b, loop);
  KVal *some = ct_count(b, to, end, lanes);
  KVal *nth = kb_lanes(b, kb_to_i32(b, kb_alu(b, A_SUB, to, at)), lanes);
  KVal *each = kb_splat(b, kb_const(b, DT_i32, (double)t->rows), lanes);
  KVal *rows = kb_op2(b, OP_mul, nth, each);
  rows = kb_op2(b, OP_add, rows, kb_splat(b, kb_to_i32(b, row), lanes));
  kb_store_some(b, firsts, to, some, rows);
  kb_store_some(b, experts, to, some, kb_splat(b, kb_to_i32(b, e), lanes));
  kb_end(b);
}

/* Each expert's blocks one behind the other, so that those who work on one at
 * the same time read the same weights. */
static void share_blocks(CtItem *t, KBase experts, KBase firsts, int64_t most) {
  KBuild *b = t->b;
  KVal *e = kb_stage(b, t->p->groups, 1);
  KVal *at = blocks_before(t, e);
  KVal *own = kb_from_i32(b, blocks_of_rows(t, kb_to_i32(b, ct_rows(t, e))));
  KVal *end = kb_alu(b, A_ADD, at, own);
  list_vectors(t, experts, firsts, at, end, e, offset(t, e, 0));
  kb_if(b, kb_alu(b, A_EQ, e, kb_index(b, t->p->groups - 1)));
  list_vectors(t, experts, firsts, end, kb_index(b, most), kb_index(b, -1),
               kb_index(b, 0));
  kb_end(b);
  kb_end(b);
}

/* A stage that lists the experts, those with the most rows first, if only by
 * powers of four. */
static void experts_stage(CtItem *t, KBase experts) {
  KBuild *b = t->b;
  KVal *at = kb_index(b, 0);
  kb_stage(b, 1, 1);
  for (int64_t hi = t->p->rows + 1, lo; hi > 0; hi = lo) {
    lo = hi / 4;
    KVal *loop = kb_for(b, kb_index(b, 0), kb_index(b, t->p->groups), 1);
    KVal *e = kb_iv(b, loop);
    at = kb_acc(b, loop, at);
    KVal *rows = ct_rows(t, e);
    KVal *is = kb_op2(b, OP_and, kb_alu(b, A_LE, kb_index(b, lo), rows),
                      kb_alu(b, A_LT, rows, kb_index(b, hi)));
    kb_if(b, is);
    put(b, experts, at, e);
    kb_end(b);
    kb_next(b, at, kb_alu(b, A_ADD, at, ct_number(b, is)));
    kb_end(b);
    at = kb_result(b, at);
  }
  kb_end(b);
}

/* ---- items --------------------------------------------------------------- */

/* The stage of the items. A team's warps have a share each of what is done with
 * the sums. */
static KVal *open_items(CtItem *t, int64_t items) {
  KBuild *b = t->b;
  KVal *item = kb_stage(b, items, 1), *share = item;
  int64_t shares = items;
  kb_uneven(b);
  if (t->team) {
    kb_team(b, t->team);
    share = kb_alu_c(b, A_MUL, item, t->team);
    share = kb_alu(b, A_ADD, share, kb_warp(b));
    shares *= t->team;
  }
  t->done->start(t, share, shares);
  return item;
}

static KVal *listed(KBuild *b, KBase list, KVal *at) {
  return kb_from_i32(b, kb_load(b, list, at, 1));
}

/* Rows as m: item (block of rows, block of columns). */
static void ragged_rows(CtItem *t) {
  KBuild *b = t->b;
  const CtProduct *p = t->p;
  int64_t col_blocks = blocks(p->n.size, t->cols);
  int64_t row_blocks = p->groups + p->rows / t->rows; /* at most */
  KBase experts = kb_workspace(b, DT_i32, row_blocks);
  KBase firsts = kb_workspace(b, DT_i32, row_blocks);
  (t->warps ? share_blocks : blocks_stage)(t, experts, firsts, row_blocks);
  KVal *item = open_items(t, row_blocks * col_blocks);
  KVal *block = kb_alu_c(b, A_DIV, item, col_blocks);
  columns_from(
      t, kb_alu_c(b, A_MUL, kb_alu_c(b, A_REM, item, col_blocks), t->cols));
  KVal *found = listed(b, experts, block);
  kb_if(b, kb_alu(b, A_LE, kb_index(b, 0), found));
  t->m_lo = listed(b, firsts, block);
  t->m_end = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, t->m_lo, t->rows),
                    offset(t, found, 1));
  ct_batch(t, found);
  ct_depths(t, kb_index(b, 0), kb_index(b, p->k.size));
  kb_end(b);
  kb_end(b);
}

/* m and n known when compiling: item (group, block of rows, of columns). All
 * threads go through the same rows, which stay near, and along the columns. */
static void plain_rows(CtItem *t) {
  KBuild *b = t->b;
  const CtProduct *p = t->p;
  int64_t rows = blocks(p->m.size, t->rows), cols = blocks(p->n.size, t->cols);
  int64_t per_group = rows * cols;
  bool sorts = p->groups > 1 && !t->warps;
  KBase experts = {0};
  if (sorts) {
    experts = kb_workspace(b, DT_i32, p->groups);
    experts_stage(t, experts);
  }
  KVal *item = open_items(t, p->batch.size * per_group);
  KVal *group = kb_alu_c(b, A_DIV, item, per_group);
  if (sorts) group = listed(b, experts, group);
  if (t->least) kb_if(b, kb_alu(b, A_LE, kb_index(b, t->least),
                                ct_rows(t, group)));
  KVal *rest = kb_alu_c(b, A_REM, item, per_group);
  t->m_lo = kb_alu_c(b, A_MUL, kb_alu_c(b, A_DIV, rest, cols), t->rows);
  columns_from(t, kb_alu_c(b, A_MUL, kb_alu_c(b, A_REM, rest, cols), t->cols));
  t->m_end = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, t->m_lo, t->rows),
                    kb_index(b, p->m.size));
  ct_batch(t, group);
  KVal *lo = kb_index(b, 0), *hi = kb_index(b, p->k.size);
  if (p->groups) {
    lo = offset(t, group, 0);
    hi = offset(t, group, 1);
  }
  ct_depths(t, lo, hi);
  if (t->least) kb_end(b);
  kb_end(b);
}

bool ct_shallow(const CtProduct *p) {
  return p->ragged_k && p->rows <= SHALLOW * p->groups;
}

/* Where an expert's few rows make much result, time goes into the memory of
 * that: an item then is whole rows of it, one behind the other. */
static void choose_shape(CtItem *t) {
  const CtProduct *p = t->p;
  if (t->warps || !ct_shallow(p) || p->n.size > RUN ||
      p->m.stride[CT_OUT] != p->n.size) {
    t->strip = 0;
    return;
  }
  int64_t area = t->rows * t->cols / 2, most = t->rows;
  t->cols = blocks(p->n.size, CT_STEP) * CT_STEP;
  t->rows = t->strip ? WHOLE : blocks(area / t->cols, CT_STEP) * CT_STEP;
  if (!t->strip && t->rows > most) t->rows = most;
}

bool ct_few_rows(const CtProduct *p) {
  return p->groups && !p->ragged_k && p->rows <= FEW * p->groups;
}

Kernel *ct_items(CtItem *t) {
  choose_shape(t);
  if (t->p->groups && !t->p->ragged_k)
    ragged_rows(t);
  else
    plain_rows(t);
  t->done->end(t);
  return kb_finish(t->b);
}
