/* blocked.c: products as a register-blocked kernel.
 *
 * The kernel is 12 rows by two vectors of sums, over panels of the right
 * operand that are first packed into scratch, so that it is the same whichever
 * way that operand lies. Depth is cut into blocks; the sums wait in scratch
 * between them, which changes no bit of them, and for finish.c. */
#include "codegen.h"

enum {
  ROW_BLOCK = 192, /* rows of an item */
  COL_BLOCK = 256, /* columns of an item, at most */
  DEPTH = 256,     /* k of a packed panel */
  REST_ROWS = 4,   /* rows of the kernel for what is left of a block */
  AHEAD = 8, /* rows that packing asks for ahead of time */
  MAX_LANES = 16
};

/* ---- the register-blocked kernel ---------------------------------------- */

typedef struct Gen {
  CtItem at;        /* the first member */
  Dtype sum;        /* dtype of sums and panels */
  int lanes, width; /* of `sum`; columns of a panel */
  int rows;         /* of the kernel */
  KBase base[CT_OUT];
  KBase right; /* packed [panel][k - k_lo][width] */
  KBase sums;  /* [panel][row - m_lo][width] */
  KBase left;      /* packed rows [k - k_lo][row - m_lo], where packs_left */
  bool packs_left; /* the left operand's depth is not contiguous */
} Gen;

static KVal *plus(KBuild *b, KVal *x, KVal *y) {
  return kb_alu(b, A_ADD, x, y);
}

static KVal *cast_to(KBuild *b, KVal *v, Dtype dtype) {
  return v->dtype == dtype ? v : kb_scalar(b, OP_cast, dtype, &v, 1);
}

/* An element of the right operand as the product has it, to be summed. */
static KVal *right_value(const Gen *g, KVal *v) {
  return cast_to(g->at.b, cast_to(g->at.b, v, g->at.p->dtype), g->sum);
}

/* Where row `row` of the left operand or of the result starts. */
static KVal *row_at(Gen *g, int side, KVal *row) {
  return ct_at(g->at.b, g->at.offset[side], row, g->at.p->m.stride[side]);
}

/* Where row k of the panel that column n is in is packed. */
static KVal *packed_at(Gen *g, KVal *n, KVal *k) {
  KBuild *b = g->at.b;
  KVal *panel = kb_alu_c(b, A_MUL, kb_alu(b, A_SUB, n, g->at.n_lo), DEPTH);
  return ct_at(b, panel, kb_alu(b, A_SUB, k, g->at.k_lo), g->width);
}

static KVal *right_at(Gen *g, KVal *n, KVal *k) {
  const CtProduct *p = g->at.p;
  KVal *at = ct_at(g->at.b, g->at.offset[CT_RIGHT], k, p->k.stride[CT_RIGHT]);
  return ct_at(g->at.b, at, n, p->n.stride[CT_RIGHT]);
}

/* Of a right operand that runs along n: a panel's columns of row k. */
static void pack_along(Gen *g, KVal *n, KVal *k) {
  KBuild *b = g->at.b;
  KVal *at = right_at(g, n, k), *to = packed_at(g, n, k);
  kb_fetch(b, g->base[CT_RIGHT], right_at(g, n, kb_alu_c(b, A_ADD, k, AHEAD)));
  for (int v = 0; v < g->width; v += g->lanes) {
    KVal *count = ct_count(b, kb_alu_c(b, A_ADD, n, v), g->at.n_end, g->lanes);
    KVal *x = kb_load_some(b, g->base[CT_RIGHT], kb_alu_c(b, A_ADD, at, v),
                           count, g->lanes);
    kb_store(b, g->right, kb_alu_c(b, A_ADD, to, v), right_value(g, x));
  }
}

/* Of one that runs along its depth: a vector of columns, as many rows. */
static void pack_across(Gen *g, KVal *n, KVal *k) {
  KBuild *b = g->at.b;
  KVal *v[MAX_LANES];
  KVal *depth = ct_count(b, k, g->at.k_hi, g->lanes);
  for (int i = 0; i < g->lanes; i++) {
    KVal *column = kb_alu_c(b, A_ADD, n, i);
    KVal *some = ct_count(b, column, g->at.n_end, 1); /* 1, or 0 past the end */
    kb_fetch(b, g->base[CT_RIGHT],
             right_at(g, kb_alu_c(b, A_ADD, column, g->lanes), k));
    KVal *count = kb_alu(b, A_MUL, depth, some);
    KVal *x = kb_load_some(b, g->base[CT_RIGHT], right_at(g, column, k), count,
                           g->lanes);
    v[i] = right_value(g, x);
  }
  ct_transpose(b, v, g->lanes, 1);
  KVal *first = ct_at(b, g->at.n_lo,
                      kb_alu_c(b, A_DIV, kb_alu(b, A_SUB, n, g->at.n_lo),
                               g->width), g->width);
  KVal *to = plus(b, packed_at(g, first, k), kb_alu(b, A_SUB, n, first));
  for (int i = 0; i < g->lanes; i++)
    kb_store(b, g->right, kb_alu_c(b, A_ADD, to, (int64_t)i * g->width), v[i]);
}

/* Of any other: element by element. */
static void pack_single(Gen *g, KVal *n, KVal *k) {
  KBuild *b = g->at.b;
  KVal *end = kb_alu_c(b, A_ADD, n, g->width);
  KVal *loop = kb_for(b, n, kb_alu(b, A_MIN, end, g->at.n_end), 1);
  KVal *x = kb_load(b, g->base[CT_RIGHT], right_at(g, kb_iv(b, loop), k), 1);
  KVal *to = plus(b, packed_at(g, n, k), kb_alu(b, A_SUB, kb_iv(b, loop), n));
  kb_store(b, g->right, to, right_value(g, x));
  kb_end(b);
}

/* The item's panels, in the order in which the operand lies in memory. */
static void pack_right(Gen *g) {
  KBuild *b = g->at.b;
  const CtProduct *p = g->at.p;
  bool along = p->n.size == 1 || p->n.stride[CT_RIGHT] == 1;
  bool across = !along && p->k.stride[CT_RIGHT] == 1;
  int64_t columns = across ? g->lanes : g->width;
  KVal *loop, *n, *k;
  if (across) {
    loop = kb_for(b, g->at.n_lo, g->at.n_end, columns);
    n = kb_iv(b, loop);
    loop = kb_for(b, g->at.k_lo, g->at.k_hi, g->lanes);
    k = kb_iv(b, loop);
    pack_across(g, n, k);
  } else {
    loop = kb_for(b, g->at.k_lo, g->at.k_hi, 1);
    k = kb_iv(b, loop);
    loop = kb_for(b, g->at.n_lo, g->at.n_end, columns);
    n = kb_iv(b, loop);
    (along ? pack_along : pack_single)(g, n, k);
  }
  kb_end(b);
  kb_end(b);
}

/* left[k - k_lo][row - m_lo] = left operand, for the item's rows. A kernel that
 * walks down a column of a wide matrix would meet few sets of the cache. */
static void pack_left(Gen *g) {
  KBuild *b = g->at.b;
  bool flat = g->at.p->m.stride[CT_LEFT] == 1;
  KVal *loop = kb_for(b, g->at.k_lo, g->at.k_hi, 1), *k = kb_iv(b, loop);
  KVal *to = kb_alu_c(b, A_MUL, kb_alu(b, A_SUB, k, g->at.k_lo), g->at.rows);
  KVal *count = kb_alu(b, A_SUB, g->at.m_end, g->at.m_lo);
  KVal *whole = kb_alu_c(b, A_DIV, count, g->lanes);
  KVal *ends[3] = {g->at.m_lo, g->at.m_lo, g->at.m_end};
  if (flat) ends[1] = ct_at(b, g->at.m_lo, whole, g->lanes);
  for (int part = flat ? 0 : 1; part < 2; part++) {
    int lanes = part ? 1 : g->lanes;
    KVal *rows = kb_for(b, ends[part], ends[part + 1], lanes);
    KVal *row = kb_iv(b, rows);
    KVal *at = ct_at(b, row_at(g, CT_LEFT, row), k, g->at.p->k.stride[CT_LEFT]);
    KVal *v = cast_to(b, kb_load(b, g->base[CT_LEFT], at, lanes), g->sum);
    kb_store(b, g->left, plus(b, to, kb_alu(b, A_SUB, row, g->at.m_lo)), v);
    kb_end(b);
  }
  kb_end(b);
}

/* Where the item's sums for the panel from n on are. */
static KVal *sums_at(Gen *g, KVal *n) {
  KBuild *b = g->at.b;
  return kb_alu_c(b, A_MUL, kb_alu(b, A_SUB, n, g->at.n_lo),
                  g->at.rows + REST_ROWS);
}

/* What a vector of sums starts from: zeros, or what the depth blocks before
 * have left. */
static KVal *initial_sum(Gen *g, KVal *at) {
  KBuild *b = g->at.b;
  KVal *zero = kb_splat(b, kb_const(b, g->sum, 0), g->lanes);
  if (!g->at.fresh) return zero;
  KVal *left = kb_load(b, g->sums, at, g->lanes);
  return kb_select(b, kb_splat(b, g->at.fresh, g->lanes), zero, left);
}

enum { MAX_ROWS = 12, VECTORS = 2 };

/* `rows` rows from m on, for the panel from n on. Rows past the item's last are
 * that one again. */
static void micro(Gen *g, KVal *m, int rows, KVal *n) {
  KBuild *b = g->at.b;
  KVal *sums = sums_at(g, n), *panel = packed_at(g, n, g->at.k_lo);
  KVal *from[MAX_ROWS], *acc[MAX_ROWS][VECTORS];
  KVal *to[MAX_ROWS][VECTORS], *init[MAX_ROWS][VECTORS];
  KVal *last = kb_alu_c(b, A_SUB, g->at.m_end, 1);
  sums = ct_at(b, sums, kb_alu(b, A_SUB, m, g->at.m_lo), g->width);
  for (int i = 0; i < rows; i++) {
    KVal *row = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, m, i), last);
    from[i] = g->packs_left ? kb_alu(b, A_SUB, row, g->at.m_lo)
                            : row_at(g, CT_LEFT, row);
    for (int v = 0; v < VECTORS; v++) {
      to[i][v] = kb_alu_c(b, A_ADD, sums, i * g->width + v * g->lanes);
      init[i][v] = initial_sum(g, to[i][v]);
    }
  }
  KVal *loop = kb_for(b, g->at.k_lo, g->at.k_hi, 1), *k = kb_iv(b, loop);
  for (int i = 0; i < rows; i++)
    for (int v = 0; v < VECTORS; v++)
      acc[i][v] = kb_acc(b, loop, init[i][v]);
  KVal *depth = kb_alu(b, A_SUB, k, g->at.k_lo);
  KVal *at = ct_at(b, panel, depth, g->width);
  KVal *packed = kb_alu_c(b, A_MUL, depth, g->at.rows);
  KVal *right[VECTORS];
  for (int v = 0; v < VECTORS; v++)
    right[v] = kb_load(b, g->right,
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
      kb_store(b, g->sums, to[i][v], kb_result(b, acc[i][v]));
}

/* All rows of the item for the panel of columns from n on. */
static void panel_rows(Gen *g, KVal *n) {
  KBuild *b = g->at.b;
  KVal *count = kb_alu(b, A_SUB, g->at.m_end, g->at.m_lo);
  KVal *full = kb_alu_c(b, A_DIV, count, g->rows);
  KVal *rest = ct_at(b, g->at.m_lo, full, g->rows);
  KVal *loop = kb_for(b, g->at.m_lo, rest, g->rows);
  micro(g, kb_iv(b, loop), g->rows, n);
  kb_end(b);
  loop = kb_for(b, rest, g->at.m_end, REST_ROWS);
  micro(g, kb_iv(b, loop), REST_ROWS, n);
  kb_end(b);
}

/* One block of depth of an item. */
static void block(CtItem *t) {
  Gen *g = (Gen *)t;
  KBuild *b = t->b;
  g->right = kb_scratch(b, g->sum, DEPTH * t->cols);
  int64_t sum_rows = t->rows + REST_ROWS;
  g->sums = kb_scratch(b, g->sum, sum_rows * t->cols);
  g->packs_left = t->p->k.stride[CT_LEFT] != 1 && t->p->k.size > 1;
  if (g->packs_left) {
    g->left = kb_scratch(b, g->sum, DEPTH * t->rows);
    pack_left(g);
  }
  pack_right(g);
  KVal *loop = kb_for(b, t->n_lo, t->n_end, g->width);
  panel_rows(g, kb_iv(b, loop));
  kb_end(b);
  ct_finish(t, &(CtSums){g->sums, g->width, sum_rows * g->width});
}

Kernel *ct_blocked(Ctx *cx, const CtTask *task, int lanes) {
  const Node *n = task->n;
  const CtProduct *p = &task->p;
  KBuild *b = kb_new(cx, "contract", (int)(n->ins.len + n->outs.len),
                     (int)n->outs.len);
  Gen g = {.at = {.b = b,
                  .task = task,
                  .p = p,
                  .finish = ct_finish_new(cx, b, task, lanes),
                  .rows = ROW_BLOCK,
                  .cols = COL_BLOCK,
                  .depth = DEPTH,
                  .block = block}};
  g.sum = dtype_info[p->dtype].sums;
  g.lanes = lanes * 4 / (int)dtype_info[g.sum].bytes;
  g.width = VECTORS * g.lanes;
  g.rows = lanes >= 16 ? MAX_ROWS : MAX_ROWS / 2;
  g.base[CT_LEFT] = ct_operand(task, CT_LEFT);
  g.base[CT_RIGHT] = ct_operand(task, CT_RIGHT);
  return ct_items(&g.at);
}
