/* blocked.c: products as a register-blocked kernel.
 *
 * The kernel is 12 rows by two vectors of sums, over a panel of the right
 * operand that is first packed into scratch, so that it is the same whichever
 * way that operand lies. Depth is cut into blocks; the sums wait in the result
 * between them, which changes no bit of them.
 *
 * Rows of a ragged value are m or k. As m, an item is a block of rows of one
 * expert; how many blocks there are is only bounded when compiling, so an item
 * finds its expert in the offsets, or finds that there is none. As k, each
 * expert has its own depth, 0 included. Every element of the result is summed
 * by one item in one order. */
#include "codegen.h"

enum {
  ROW_BLOCK = 192, /* rows of an item */
  COL_BLOCK = 256, /* columns of an item, at most */
  DEPTH = 256,     /* k of a packed panel */
  REST_ROWS = 4    /* rows of the kernel for what is left of a block */
};

/* ---- the register-blocked kernel ---------------------------------------- */

typedef struct Gen {
  KBuild *b;
  const CtProduct *p;
  Dtype sum;        /* dtype of sums and panels */
  int lanes, width; /* of `sum`; columns of a panel */
  int rows;         /* of the kernel */
  KBase base[CT_SIDES], panel, tile;
  KBase left;      /* packed rows [k - k_lo][row - m_lo], where packs_left */
  bool packs_left; /* the left operand's depth is not contiguous */
  KVal *offset[CT_SIDES]; /* elements in front of row 0, k 0, column 0 */
  KVal *m_lo, *m_end;     /* this item's rows */
  KVal *k_lo, *k_hi;      /* of the depth block */
  KVal *fresh; /* bool: the first depth block; NULL: there is one only */
} Gen;

static KVal *plus(KBuild *b, KVal *x, KVal *y) {
  return kb_alu(b, A_ADD, x, y);
}

static KVal *scaled(KBuild *b, KVal *base, KVal *i, int64_t stride) {
  return plus(b, base, kb_alu_c(b, A_MUL, i, stride));
}

static KVal *cast_to(KBuild *b, KVal *v, Dtype dtype) {
  return v->dtype == dtype ? v : kb_scalar(b, OP_cast, dtype, &v, 1);
}

/* Where row `row` of the left operand or of the result starts. */
static KVal *row_at(Gen *g, int side, KVal *row) {
  return scaled(g->b, g->offset[side], row, g->p->m.stride[side]);
}

/* panel[k - k_lo][0..width) = right[k][n..n + width); columns from `valid` on
 * are zeros. */
static void pack_panel(Gen *g, KVal *n, int64_t valid) {
  KBuild *b = g->b;
  int64_t sk = g->p->k.stride[CT_RIGHT], sn = g->p->n.stride[CT_RIGHT];
  KVal *from = scaled(b, g->offset[CT_RIGHT], n, sn);
  KVal *loop = kb_for(b, g->k_lo, g->k_hi, 1);
  KVal *k = kb_iv(b, loop);
  KVal *at = scaled(b, from, k, sk);
  KVal *to = kb_alu_c(b, A_MUL, kb_alu(b, A_SUB, k, g->k_lo), g->width);
  for (int64_t i = 0; i < g->width; i += g->lanes) {
    KVal *first = kb_alu_c(b, A_ADD, at, i * sn), *v;
    if (i + g->lanes > valid) {
      for (int64_t j = i; j < i + g->lanes; j++) {
        v = j < valid ? kb_load(b, g->base[CT_RIGHT],
                                kb_alu_c(b, A_ADD, at, j * sn), 1)
                      : kb_const(b, g->p->dtype, 0);
        kb_store(b, g->panel, kb_alu_c(b, A_ADD, to, j), cast_to(b, v, g->sum));
      }
      continue;
    }
    if (sn == 1) {
      v = kb_load(b, g->base[CT_RIGHT], first, g->lanes);
    } else {
      KVal *lanes = kb_lanes(b, kb_const(b, DT_i32, 0), g->lanes);
      KVal *step = kb_splat(b, kb_const(b, DT_i32, (double)sn), g->lanes);
      v = kb_gather(b, g->base[CT_RIGHT], first,
                    kb_op2(b, OP_mul, lanes, step));
    }
    kb_store(b, g->panel, kb_alu_c(b, A_ADD, to, i), cast_to(b, v, g->sum));
  }
  kb_end(b);
}

/* left[k - k_lo][row - m_lo] = left operand, for the item's rows. A kernel that
 * walks down a column of a wide matrix would meet few sets of the cache. */
static void pack_left(Gen *g) {
  KBuild *b = g->b;
  bool flat = g->p->m.stride[CT_LEFT] == 1;
  KVal *loop = kb_for(b, g->k_lo, g->k_hi, 1), *k = kb_iv(b, loop);
  KVal *to = kb_alu_c(b, A_MUL, kb_alu(b, A_SUB, k, g->k_lo), ROW_BLOCK);
  KVal *count = kb_alu(b, A_SUB, g->m_end, g->m_lo);
  KVal *whole = kb_alu_c(b, A_DIV, count, g->lanes);
  KVal *ends[3] = {g->m_lo, g->m_lo, g->m_end};
  if (flat) ends[1] = scaled(b, g->m_lo, whole, g->lanes);
  for (int part = flat ? 0 : 1; part < 2; part++) {
    int lanes = part ? 1 : g->lanes;
    KVal *rows = kb_for(b, ends[part], ends[part + 1], lanes);
    KVal *row = kb_iv(b, rows);
    KVal *at = scaled(b, row_at(g, CT_LEFT, row), k, g->p->k.stride[CT_LEFT]);
    KVal *v = cast_to(b, kb_load(b, g->base[CT_LEFT], at, lanes), g->sum);
    kb_store(b, g->left, plus(b, to, kb_alu(b, A_SUB, row, g->m_lo)), v);
    kb_end(b);
  }
  kb_end(b);
}

/* Where column vector v of row i of the kernel is in the result. */
static KVal *out_at(Gen *g, KVal *row, KVal *n, int v) {
  KVal *at = plus(g->b, row_at(g, CT_OUT, row), n);
  return kb_alu_c(g->b, A_ADD, at, (int64_t)v * g->lanes);
}

/* What sums start from: zeros, or what the depth blocks before have left. */
static KVal *initial_sum(Gen *g, KVal *row, KVal *n, int v, int64_t valid,
                         int i) {
  KBuild *b = g->b;
  KVal *zero = kb_splat(b, kb_const(b, g->sum, 0), g->lanes), *left;
  if (!g->fresh) return zero;
  if (valid == g->width) {
    left = kb_load(b, g->base[CT_OUT], out_at(g, row, n, v), g->lanes);
  } else {
    /* Past the last column there is nothing of ours: by way of the tile. */
    int64_t at = (int64_t)i * g->width + (int64_t)v * g->lanes;
    for (int64_t j = (int64_t)v * g->lanes;
         j < (int64_t)(v + 1) * g->lanes && j < valid; j++) {
      KVal *x = kb_load(b, g->base[CT_OUT],
                        kb_alu_c(b, A_ADD, out_at(g, row, n, 0), j), 1);
      kb_store(b, g->tile, kb_index(b, (int64_t)i * g->width + j), x);
    }
    left = kb_load(b, g->tile, kb_index(b, at), g->lanes);
  }
  KVal *fresh = kb_splat(b, g->fresh, g->lanes);
  return kb_select(b, fresh, zero, left);
}

static void store_sum(Gen *g, KVal *row, KVal *n, int v, int64_t valid, int i,
                      KVal *sum) {
  KBuild *b = g->b;
  if (valid == g->width) {
    kb_store(b, g->base[CT_OUT], out_at(g, row, n, v), sum);
    return;
  }
  int64_t first = (int64_t)v * g->lanes;
  KVal *at = kb_index(b, (int64_t)i * g->width + first);
  kb_store(b, g->tile, at, sum);
  for (int64_t j = first; j < first + g->lanes && j < valid; j++) {
    KVal *x = kb_load(b, g->tile, kb_index(b, (int64_t)i * g->width + j), 1);
    kb_store(b, g->base[CT_OUT], kb_alu_c(b, A_ADD, out_at(g, row, n, 0), j),
             x);
  }
}

enum { MAX_ROWS = 12, VECTORS = 2 };

/* `rows` rows from m on, one panel of columns from n on. Rows past the item's
 * last are that one again: computed twice, to the same bits. */
static void micro(Gen *g, KVal *m, int rows, KVal *n, int64_t valid) {
  KBuild *b = g->b;
  KVal *row[MAX_ROWS], *from[MAX_ROWS], *acc[MAX_ROWS][VECTORS];
  KVal *init[MAX_ROWS][VECTORS];
  KVal *last = kb_alu_c(b, A_SUB, g->m_end, 1);
  for (int i = 0; i < rows; i++) {
    row[i] = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, m, i), last);
    from[i] = g->packs_left ? kb_alu(b, A_SUB, row[i], g->m_lo)
                            : row_at(g, CT_LEFT, row[i]);
    for (int v = 0; v < VECTORS; v++)
      init[i][v] = initial_sum(g, row[i], n, v, valid, i);
  }
  KVal *loop = kb_for(b, g->k_lo, g->k_hi, 1), *k = kb_iv(b, loop);
  for (int i = 0; i < rows; i++)
    for (int v = 0; v < VECTORS; v++)
      acc[i][v] = kb_acc(b, loop, init[i][v]);
  KVal *depth = kb_alu(b, A_SUB, k, g->k_lo);
  KVal *at = kb_alu_c(b, A_MUL, depth, g->width);
  KVal *packed = kb_alu_c(b, A_MUL, depth, ROW_BLOCK);
  KVal *right[VECTORS];
  for (int v = 0; v < VECTORS; v++)
    right[v] = kb_load(b, g->panel,
                       kb_alu_c(b, A_ADD, at, (int64_t)v * g->lanes), g->lanes);
  for (int i = 0; i < rows; i++) {
    KVal *a = g->packs_left
                  ? kb_load(b, g->left, plus(b, packed, from[i]), 1)
                  : kb_load(b, g->base[CT_LEFT], plus(b, from[i], k), 1);
    a = cast_to(b, a, g->sum);
    for (int v = 0; v < VECTORS; v++)
      kb_next(b, acc[i][v], kb_fma(b, a, right[v], acc[i][v]));
  }
  kb_end(b);
  for (int i = 0; i < rows; i++)
    for (int v = 0; v < VECTORS; v++)
      store_sum(g, row[i], n, v, valid, i, kb_result(b, acc[i][v]));
}

/* All rows of the item for the panel of columns from n on. */
static void panel_rows(Gen *g, KVal *n, int64_t valid) {
  KBuild *b = g->b;
  pack_panel(g, n, valid);
  KVal *count = kb_alu(b, A_SUB, g->m_end, g->m_lo);
  KVal *full = kb_alu_c(b, A_DIV, count, g->rows);
  KVal *rest = scaled(b, g->m_lo, full, g->rows);
  KVal *loop = kb_for(b, g->m_lo, rest, g->rows);
  micro(g, kb_iv(b, loop), g->rows, n, valid);
  kb_end(b);
  loop = kb_for(b, rest, g->m_end, REST_ROWS);
  micro(g, kb_iv(b, loop), REST_ROWS, n, valid);
  kb_end(b);
}

/* Columns [n_lo, n_lo + COL_BLOCK) of the item, panel by panel. */
static void columns(Gen *g, KVal *n_lo) {
  KBuild *b = g->b;
  if (g->packs_left) pack_left(g);
  int64_t n = g->p->n.size, tail = n % g->width;
  KVal *whole = kb_index(b, n - tail);
  KVal *end = kb_alu_c(b, A_ADD, n_lo, COL_BLOCK);
  KVal *loop = kb_for(b, n_lo, kb_alu(b, A_MIN, end, whole), g->width);
  panel_rows(g, kb_iv(b, loop), g->width);
  kb_end(b);
  if (!tail) return;
  kb_if(b, kb_alu(b, A_LT, whole, end)); /* the last block */
  panel_rows(g, whole, tail);
  kb_end(b);
}

/* The item's rows, columns from n_lo, depth [k_lo, k_hi) block by block. */
static void depths(Gen *g, KVal *n_lo, KVal *k_lo, KVal *k_hi) {
  KBuild *b = g->b;
  if (k_hi->kind == K_INDEX && k_hi->number <= DEPTH) {
    g->k_lo = k_lo;
    g->k_hi = k_hi;
    columns(g, n_lo);
    return;
  }
  /* No depth is one block too: it writes the zeros. */
  KVal *least = kb_alu_c(b, A_ADD, k_lo, 1);
  KVal *loop = kb_for(b, k_lo, kb_alu(b, A_MAX, k_hi, least), DEPTH);
  g->k_lo = kb_iv(b, loop);
  g->k_hi = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, g->k_lo, DEPTH), k_hi);
  g->fresh = kb_alu(b, A_EQ, g->k_lo, k_lo);
  columns(g, n_lo);
  kb_end(b);
}

static int64_t blocks(int64_t n, int64_t block) {
  return (n + block - 1) / block;
}

/* ---- items -------------------------------------------------------------- */

enum { OFFSETS_ARG = 2 };

static KVal *open_items(Gen *g, int64_t count) {
  KVal *item = kb_stage(g->b, count, 1);
  g->panel = kb_scratch(g->b, g->sum, (int64_t)DEPTH * g->width);
  g->tile = kb_scratch(g->b, g->sum, (int64_t)g->rows * g->width);
  g->packs_left = g->p->k.stride[CT_LEFT] != 1 && g->p->k.size > 1;
  if (g->packs_left)
    g->left = kb_scratch(g->b, g->sum, (int64_t)DEPTH * ROW_BLOCK);
  return item;
}

KVal *ct_offset(KBuild *b, KVal *e) {
  return kb_from_i32(b, kb_load(b, kb_arg(OFFSETS_ARG, DT_i32), e, 1));
}

/* Offsets of the sides at an expert or another number of the batch. */
static void batch_offsets(Gen *g, KVal *number) {
  for (int s = 0; s < CT_SIDES; s++)
    g->offset[s] = kb_alu_c(g->b, A_MUL, number, g->p->batch.stride[s]);
}

/* Rows as m: item (block of rows, block of columns). The block's expert and its
 * number within it are found by counting blocks. */
static void ragged_rows(Gen *g) {
  KBuild *b = g->b;
  const CtProduct *p = g->p;
  int64_t col_blocks = blocks(p->n.size, COL_BLOCK);
  int64_t tiles = p->groups + p->rows / ROW_BLOCK;
  KVal *item = open_items(g, tiles * col_blocks);
  kb_uneven(b);
  KVal *tile = kb_alu_c(b, A_DIV, item, col_blocks);
  KVal *n_lo =
      kb_alu_c(b, A_MUL, kb_alu_c(b, A_REM, item, col_blocks), COL_BLOCK);
  KVal *loop = kb_for(b, kb_index(b, 0), kb_index(b, p->groups), 1);
  KVal *before = kb_acc(b, loop, kb_index(b, 0)); /* blocks of those before */
  KVal *expert = kb_acc(b, loop, kb_index(b, -1));
  KVal *first = kb_acc(b, loop, kb_index(b, 0)); /* number of its first block */
  KVal *e = kb_iv(b, loop);
  KVal *rows =
      kb_alu(b, A_SUB, ct_offset(b, kb_alu_c(b, A_ADD, e, 1)), ct_offset(b, e));
  KVal *count =
      kb_alu_c(b, A_DIV, kb_alu_c(b, A_ADD, rows, ROW_BLOCK - 1), ROW_BLOCK);
  KVal *after = plus(b, before, count);
  /* 1 for the one expert that has the block, else 0: it picks by product. */
  KVal *is = kb_op2(b, OP_and, kb_alu(b, A_LE, before, tile),
                    kb_alu(b, A_LT, tile, after));
  KVal *mask = kb_from_i32(b, cast_to(b, is, DT_i32));
  KVal *number = kb_alu(b, A_MUL, mask, kb_alu_c(b, A_ADD, e, 1));
  kb_next(b, before, after);
  kb_next(b, expert, plus(b, expert, number));
  kb_next(b, first, plus(b, first, kb_alu(b, A_MUL, mask, before)));
  kb_end(b);
  KVal *found = kb_result(b, expert);
  kb_if(b, kb_alu(b, A_LE, kb_index(b, 0), found));
  KVal *lo = ct_offset(b, found);
  KVal *hi = ct_offset(b, kb_alu_c(b, A_ADD, found, 1));
  KVal *nth = kb_alu(b, A_SUB, tile, kb_result(b, first));
  g->m_lo = scaled(b, lo, nth, ROW_BLOCK);
  g->m_end = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, g->m_lo, ROW_BLOCK), hi);
  batch_offsets(g, found);
  depths(g, n_lo, kb_index(b, 0), kb_index(b, p->k.size));
  kb_end(b);
  kb_end(b);
}

/* m and n known when compiling: item (group, block of rows, of columns). */
static void plain_rows(Gen *g) {
  KBuild *b = g->b;
  const CtProduct *p = g->p;
  int64_t m = p->m.size;
  int64_t col_blocks = blocks(p->n.size, COL_BLOCK);
  int64_t row_blocks = blocks(m, ROW_BLOCK);
  int64_t per_group = row_blocks * col_blocks;
  KVal *item = open_items(g, p->batch.size * per_group);
  KVal *group = kb_alu_c(b, A_DIV, item, per_group);
  KVal *rest = kb_alu_c(b, A_REM, item, per_group);
  g->m_lo = kb_alu_c(b, A_MUL, kb_alu_c(b, A_DIV, rest, col_blocks), ROW_BLOCK);
  KVal *n_lo =
      kb_alu_c(b, A_MUL, kb_alu_c(b, A_REM, rest, col_blocks), COL_BLOCK);
  g->m_end =
      kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, g->m_lo, ROW_BLOCK), kb_index(b, m));
  batch_offsets(g, group);
  KVal *lo = kb_index(b, 0), *hi = kb_index(b, p->k.size);
  if (p->groups) {
    kb_uneven(b);
    lo = ct_offset(b, group);
    hi = ct_offset(b, kb_alu_c(b, A_ADD, group, 1));
  }
  depths(g, n_lo, lo, hi);
  kb_end(b);
}

Kernel *ct_blocked(Ctx *cx, const Node *n, const CtProduct *p, int lanes) {
  Gen g = {.b = kb_new(cx, "contract", (int)n->ins.len + 1, 1), .p = p};
  g.sum = dtype_info[p->dtype].sums;
  g.lanes = lanes * 4 / (int)dtype_info[g.sum].bytes;
  g.width = VECTORS * g.lanes;
  g.rows = lanes >= 16 ? MAX_ROWS : MAX_ROWS / 2;
  g.base[CT_LEFT] = kb_arg(p->arg[CT_LEFT], p->dtype);
  g.base[CT_RIGHT] = kb_arg(p->arg[CT_RIGHT], p->dtype);
  g.base[CT_OUT] = kb_arg((int)n->ins.len, g.sum);
  if (p->groups && !p->ragged_k)
    ragged_rows(&g);
  else
    plain_rows(&g);
  return kb_finish(g.b);
}
