/* items.c: a product cut into blocks, and who works them off.
 *
 * An item is a block of rows by a block of columns of the result, for one
 * expert or one number of the batch; its depth is cut into blocks as well, and
 * the sums wait in scratch between them. Rows of a ragged value are m or k.
 * As m, an item is a block of rows of one expert; how many blocks there are is
 * only bounded when compiling, so an item finds its expert in the offsets, or
 * finds that there is none. As k, each expert has its own depth, 0 included.
 * Every element of the result is summed by one item in one order. */
#include "codegen.h"

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

/* The item's rows and columns, depth [k_lo, k_hi) block by block. */
static void depths(CtItem *t, KVal *k_lo, KVal *k_hi) {
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

/* Offsets of the sides at an expert or another number of the batch. */
static void batch_offsets(CtItem *t, KVal *number) {
  t->number = number;
  for (int s = 0; s < CT_SIDES; s++)
    t->offset[s] = kb_alu_c(t->b, A_MUL, number, t->p->batch.stride[s]);
}

static void columns_from(CtItem *t, KVal *lo) {
  KVal *end = kb_alu_c(t->b, A_ADD, lo, t->cols);
  t->n_lo = lo;
  t->n_end = kb_alu(t->b, A_MIN, end, kb_index(t->b, t->p->n.size));
}

/* Rows as m: item (block of rows, block of columns). The block's expert and its
 * number within it are found by counting blocks. */
static void ragged_rows(CtItem *t) {
  KBuild *b = t->b;
  const CtProduct *p = t->p;
  int64_t col_blocks = blocks(p->n.size, t->cols);
  int64_t row_blocks = p->groups + p->rows / t->rows; /* at most */
  KVal *item = kb_stage(b, row_blocks * col_blocks, 1);
  kb_uneven(b);
  ct_finish_start(t, item, row_blocks * col_blocks);
  KVal *block = kb_alu_c(b, A_DIV, item, col_blocks);
  columns_from(
      t, kb_alu_c(b, A_MUL, kb_alu_c(b, A_REM, item, col_blocks), t->cols));
  KVal *loop = kb_for(b, kb_index(b, 0), kb_index(b, p->groups), 1);
  KVal *before = kb_acc(b, loop, kb_index(b, 0)); /* blocks of those before */
  KVal *expert = kb_acc(b, loop, kb_index(b, -1));
  KVal *first = kb_acc(b, loop, kb_index(b, 0)); /* number of its first block */
  KVal *e = kb_iv(b, loop);
  KVal *rows = kb_alu(b, A_SUB, offset(t, e, 1), offset(t, e, 0));
  KVal *count =
      kb_alu_c(b, A_DIV, kb_alu_c(b, A_ADD, rows, t->rows - 1), t->rows);
  KVal *after = kb_alu(b, A_ADD, before, count);
  /* 1 for the one expert that has the block, else 0: it picks by product. */
  KVal *is = kb_op2(b, OP_and, kb_alu(b, A_LE, before, block),
                    kb_alu(b, A_LT, block, after));
  KVal *mask = kb_from_i32(b, kb_scalar(b, OP_cast, DT_i32, &is, 1));
  KVal *number = kb_alu(b, A_MUL, mask, kb_alu_c(b, A_ADD, e, 1));
  kb_next(b, before, after);
  kb_next(b, expert, kb_alu(b, A_ADD, expert, number));
  kb_next(b, first, kb_alu(b, A_ADD, first, kb_alu(b, A_MUL, mask, before)));
  kb_end(b);
  KVal *found = kb_result(b, expert);
  kb_if(b, kb_alu(b, A_LE, kb_index(b, 0), found));
  KVal *lo = offset(t, found, 0), *hi = offset(t, found, 1);
  KVal *nth = kb_alu(b, A_SUB, block, kb_result(b, first));
  t->m_lo = ct_at(b, lo, nth, t->rows);
  t->m_end = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, t->m_lo, t->rows), hi);
  batch_offsets(t, found);
  depths(t, kb_index(b, 0), kb_index(b, p->k.size));
  kb_end(b);
  kb_end(b);
}

/* m and n known when compiling: item (group, block of rows, of columns). */
static void plain_rows(CtItem *t) {
  KBuild *b = t->b;
  const CtProduct *p = t->p;
  int64_t col_blocks = blocks(p->n.size, t->cols);
  int64_t per_group = blocks(p->m.size, t->rows) * col_blocks;
  KVal *item = kb_stage(b, p->batch.size * per_group, 1);
  ct_finish_start(t, item, p->batch.size * per_group);
  KVal *group = kb_alu_c(b, A_DIV, item, per_group);
  KVal *rest = kb_alu_c(b, A_REM, item, per_group);
  t->m_lo = kb_alu_c(b, A_MUL, kb_alu_c(b, A_DIV, rest, col_blocks), t->rows);
  columns_from(
      t, kb_alu_c(b, A_MUL, kb_alu_c(b, A_REM, rest, col_blocks), t->cols));
  t->m_end = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, t->m_lo, t->rows),
                    kb_index(b, p->m.size));
  batch_offsets(t, group);
  KVal *lo = kb_index(b, 0), *hi = kb_index(b, p->k.size);
  if (p->groups) {
    kb_uneven(b);
    lo = offset(t, group, 0);
    hi = offset(t, group, 1);
  }
  depths(t, lo, hi);
  kb_end(b);
}

Kernel *ct_items(CtItem *t) {
  if (t->p->groups && !t->p->ragged_k)
    ragged_rows(t);
  else
    plain_rows(t);
  ct_finish_end(t);
  return kb_finish(t->b);
}
