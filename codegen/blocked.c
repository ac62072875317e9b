/* blocked.c: products as a register-blocked kernel.
 *
 * The kernel is 12 rows by two vectors of sums, over a panel of the right
 * operand that is first packed into scratch, so that it is the same whichever
 * way that operand lies. Depth is cut into blocks; the sums of a panel wait in
 * scratch between them, which changes no bit of them, and for finish.c. */
#include "codegen.h"

enum {
  ROW_BLOCK = 192, /* rows of an item */
  COL_BLOCK = 256, /* columns of an item, at most */
  DEPTH = 256,     /* k of a packed panel */
  REST_ROWS = 4,   /* rows of the kernel for what is left of a block */
  SUM_ROWS = ROW_BLOCK + REST_ROWS
};

/* ---- the register-blocked kernel ---------------------------------------- */

typedef struct Gen {
  CtItem at;        /* the first member */
  Dtype sum;        /* dtype of sums and panels */
  int lanes, width; /* of `sum`; columns of a panel */
  int rows;         /* of the kernel */
  KBase base[CT_OUT], panel;
  KBase sums; /* [panel][row - m_lo][width]; one panel where depth is one */
  KBase left;      /* packed rows [k - k_lo][row - m_lo], where packs_left */
  bool packs_left; /* the left operand's depth is not contiguous */
} Gen;

static KVal *plus(KBuild *b, KVal *x, KVal *y) {
  return kb_alu(b, A_ADD, x, y);
}

static KVal *cast_to(KBuild *b, KVal *v, Dtype dtype) {
  return v->dtype == dtype ? v : kb_scalar(b, OP_cast, dtype, &v, 1);
}

/* Where row `row` of the left operand or of the result starts. */
static KVal *row_at(Gen *g, int side, KVal *row) {
  return ct_at(g->at.b, g->at.offset[side], row, g->at.p->m.stride[side]);
}

/* panel[k - k_lo][0..width) = right[k][n..n + width); columns from `valid` on
 * are zeros. */
static void pack_panel(Gen *g, KVal *n, int64_t valid) {
  KBuild *b = g->at.b;
  int64_t sk = g->at.p->k.stride[CT_RIGHT], sn = g->at.p->n.stride[CT_RIGHT];
  KVal *from = ct_at(b, g->at.offset[CT_RIGHT], n, sn);
  KVal *loop = kb_for(b, g->at.k_lo, g->at.k_hi, 1);
  KVal *k = kb_iv(b, loop);
  KVal *at = ct_at(b, from, k, sk);
  KVal *to = kb_alu_c(b, A_MUL, kb_alu(b, A_SUB, k, g->at.k_lo), g->width);
  for (int64_t i = 0; i < g->width; i += g->lanes) {
    KVal *first = kb_alu_c(b, A_ADD, at, i * sn), *v;
    if (i + g->lanes > valid) {
      for (int64_t j = i; j < i + g->lanes; j++) {
        v = j < valid ? kb_load(b, g->base[CT_RIGHT],
                                kb_alu_c(b, A_ADD, at, j * sn), 1)
                      : kb_const(b, g->at.p->dtype, 0);
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
  KBuild *b = g->at.b;
  bool flat = g->at.p->m.stride[CT_LEFT] == 1;
  KVal *loop = kb_for(b, g->at.k_lo, g->at.k_hi, 1), *k = kb_iv(b, loop);
  KVal *to = kb_alu_c(b, A_MUL, kb_alu(b, A_SUB, k, g->at.k_lo), ROW_BLOCK);
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
  if (!g->at.fresh) return kb_index(b, 0);
  return kb_alu_c(b, A_MUL, kb_alu(b, A_SUB, n, g->at.n_lo), SUM_ROWS);
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

/* `rows` rows from m on, for the panel whose sums are at `sums`. Rows past the
 * item's last are that one again. */
static void micro(Gen *g, KVal *m, int rows, KVal *sums) {
  KBuild *b = g->at.b;
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
      kb_store(b, g->sums, to[i][v], kb_result(b, acc[i][v]));
}

/* All rows of the item for the panel of columns from n on. */
static void panel_rows(Gen *g, KVal *n, int64_t valid) {
  KBuild *b = g->at.b;
  KVal *sums = sums_at(g, n);
  pack_panel(g, n, valid);
  KVal *count = kb_alu(b, A_SUB, g->at.m_end, g->at.m_lo);
  KVal *full = kb_alu_c(b, A_DIV, count, g->rows);
  KVal *rest = ct_at(b, g->at.m_lo, full, g->rows);
  KVal *loop = kb_for(b, g->at.m_lo, rest, g->rows);
  micro(g, kb_iv(b, loop), g->rows, sums);
  kb_end(b);
  loop = kb_for(b, rest, g->at.m_end, REST_ROWS);
  micro(g, kb_iv(b, loop), REST_ROWS, sums);
  kb_end(b);
  ct_finish(&g->at, g->sums, sums, g->width, n, valid);
}

/* The item's columns, panel by panel. */
static void columns(Gen *g) {
  KBuild *b = g->at.b;
  int64_t n = g->at.p->n.size, tail = n % g->width;
  KVal *whole = kb_index(b, n - tail);
  KVal *end = g->at.n_end;
  KVal *loop = kb_for(b, g->at.n_lo, kb_alu(b, A_MIN, end, whole), g->width);
  panel_rows(g, kb_iv(b, loop), g->width);
  kb_end(b);
  if (!tail) return;
  kb_if(b, kb_alu(b, A_LT, whole, end)); /* the last block */
  panel_rows(g, whole, tail);
  kb_end(b);
}

/* One block of depth of an item. */
static void block(CtItem *t) {
  Gen *g = (Gen *)t;
  KBuild *b = t->b;
  g->panel = kb_scratch(b, g->sum, (int64_t)DEPTH * g->width);
  g->sums = kb_scratch(b, g->sum, SUM_ROWS * (t->fresh ? t->cols : g->width));
  g->packs_left = t->p->k.stride[CT_LEFT] != 1 && t->p->k.size > 1;
  if (g->packs_left) {
    g->left = kb_scratch(b, g->sum, (int64_t)DEPTH * ROW_BLOCK);
    pack_left(g);
  }
  columns(g);
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
  g.base[CT_LEFT] = kb_arg(p->arg[CT_LEFT], p->dtype);
  g.base[CT_RIGHT] = kb_arg(p->arg[CT_RIGHT], p->dtype);
  return ct_items(&g.at);
}
