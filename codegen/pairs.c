/* pairs.c: products of bf16 with sums in f32, by instructions for pairs.
 *
 * AMX multiplies tiles (16 by 32 times 32 by 16 in one instruction),
 * AVX512-BF16 vectors; both take the depth in pairs. So an item first packs its
 * block of the left operand, whichever way that lies, into rows of depth,
 *
 *   left[row - m_lo][k - k_lo]
 *
 * and of the right operand into panels of 32 columns, in rows of pairs,
 *
 *   right[(column - n_lo) / 32][(k - k_lo) / 2][column % 32][k % 2]
 *
 * where the depth is filled up with zeros to steps of 32. A pair is one u32; an
 * operand whose depth runs the wrong way is transposed in registers, 16 by 16
 * of them. Blocks are sized for the caches: of depth 256, what 32 rows and a
 * panel take together is 32 KiB, two thirds of the first; all of a left and a
 * right block, 384 KiB, fit the second.
 *
 * With tiles the kernel is two by two of them: four sums, 0 to 3, two tiles of
 * the left operand, 4 and 5, two of the right, 6 and 7. With vectors it is 12
 * rows by two. Sums wait in scratch between depth blocks, and for finish.c,
 *
 *   sums[(column - n_lo) / 32][row - m_lo][column % 32]
 *
 * where what lies past the item's last row or column is nobody's. */
#include "codegen.h"

enum {
  ROW_BLOCK = 256,
  COL_BLOCK = 512,
  DEPTH = 256,
  STEP = 32, /* rows, columns and depth of packing; columns of a panel */
  TILE = 16, /* rows, columns, and pairs of depth */
  MAX_ROWS = 12,
  REST_ROWS = 4, /* of the kernel of vectors */
  SUM_ROWS = ROW_BLOCK + REST_ROWS,
  AHEAD = 16 /* rows that packing asks for ahead of time */
};

typedef struct Pairs {
  CtItem at; /* the first member */
  KBase base[CT_OUT];
  KBase left, right, sums; /* bf16, bf16, f32 */
  KVal *depth;             /* of this block, in whole steps */
  KVal *from, *to;         /* where the panel is, and where its sums are */
} Pairs;

static KVal *plus(KBuild *b, KVal *x, KVal *y) {
  return kb_alu(b, A_ADD, x, y);
}

static KVal *minus(KBuild *b, KVal *x, KVal *y) {
  return kb_alu(b, A_SUB, x, y);
}

static KVal *times(KBuild *b, KVal *x, int64_t y) {
  return kb_alu_c(b, A_MUL, x, y);
}

KVal *ct_count(KBuild *b, KVal *x, KVal *end, int64_t most) {
  KVal *left = kb_alu_c(b, A_MAX, minus(b, end, x), 0);
  return kb_alu_c(b, A_MIN, left, most);
}

/* ---- packing ------------------------------------------------------------ */

static bool runs_along(const CtLetter *l, int side) {
  return l->size == 1 || l->stride[side] == 1;
}

/* STEP elements of an operand from depth k and row or column x on, along the
 * depth or along the other; zeros from the ends on. */
static KVal *load_row(Pairs *g, int side, bool by_depth, KVal *k, KVal *x) {
  KBuild *b = g->at.b;
  const CtLetter *depth = &g->at.p->k;
  const CtLetter *other = side == CT_LEFT ? &g->at.p->m : &g->at.p->n;
  KVal *end = side == CT_LEFT ? g->at.m_end : g->at.n_end;
  KVal *at = ct_at(b, g->at.offset[side], k, depth->stride[side]);
  at = ct_at(b, at, x, other->stride[side]);
  if (side == CT_RIGHT && !by_depth)
    kb_fetch(b, g->base[side],
             kb_alu_c(b, A_ADD, at, AHEAD * depth->stride[side]));
  KVal *ks = ct_count(b, k, g->at.k_hi, STEP);
  KVal *xs = ct_count(b, x, end, STEP);
  /* All of the one, or none where the other is past its end. */
  KVal *count =
      kb_alu(b, A_MIN, by_depth ? ks : xs, times(b, by_depth ? xs : ks, STEP));
  return kb_load_some(b, g->base[side], at, count, STEP);
}

/* Row i of what comes out is column i of groups. Each round takes the groups in
 * turn from the first and the second half of all. */
void ct_transpose(KBuild *b, KVal **v, int n, int group) {
  for (int rounds = 1; rounds < n; rounds *= 2) {
    KVal *next[TILE];
    for (int i = 0; i < n; i++)
      next[i] = kb_zip(b, v[i / 2], v[i / 2 + n / 2], group, i % 2);
    for (int i = 0; i < n; i++)
      v[i] = next[i];
  }
}

/* Rows of depth from an operand that has them. */
static void pack_left_rows(Pairs *g, KVal *x, KVal *k, KVal *to) {
  kb_store(g->at.b, g->left, to, load_row(g, CT_LEFT, true, k, x));
}

/* The same, STEP rows at once, where the operand's rows run along m. */
static void pack_left_turned(Pairs *g, KVal *x, KVal *k, KVal *to) {
  KBuild *b = g->at.b;
  KVal *v[2][TILE];
  for (int i = 0; i < TILE; i++) {
    KVal *even = kb_alu_c(b, A_ADD, k, 2 * i),
         *odd = kb_alu_c(b, A_ADD, k, 2 * i + 1);
    even = load_row(g, CT_LEFT, false, even, x);
    odd = load_row(g, CT_LEFT, false, odd, x);
    for (int half = 0; half < 2; half++)
      v[half][i] = kb_zip(b, even, odd, 1, half);
  }
  for (int half = 0; half < 2; half++) {
    ct_transpose(b, v[half], TILE, 2);
    for (int i = 0; i < TILE; i++) {
      int64_t row = TILE * half + i;
      kb_store(b, g->left, kb_alu_c(b, A_ADD, to, row * DEPTH), v[half][i]);
    }
  }
}

static void pack_left(Pairs *g) {
  KBuild *b = g->at.b;
  bool rows = runs_along(&g->at.p->k, CT_LEFT);
  KVal *loop = kb_for(b, g->at.m_lo, g->at.m_end, rows ? 1 : STEP);
  KVal *x = kb_iv(b, loop), *row = times(b, minus(b, x, g->at.m_lo), DEPTH);
  KVal *inner = kb_for(b, kb_index(b, 0), g->depth, STEP);
  KVal *k = plus(b, g->at.k_lo, kb_iv(b, inner));
  KVal *to = plus(b, row, kb_iv(b, inner));
  if (rows)
    pack_left_rows(g, x, k, to);
  else
    pack_left_turned(g, x, k, to);
  kb_end(b);
  kb_end(b);
}

/* STEP columns from n on of two rows that run along n, as one row of pairs. */
static void pack_right_rows(Pairs *g, KVal *n, KVal *k, KVal *to) {
  KBuild *b = g->at.b;
  KVal *even = load_row(g, CT_RIGHT, false, k, n);
  KVal *odd = load_row(g, CT_RIGHT, false, kb_alu_c(b, A_ADD, k, 1), n);
  for (int half = 0; half < 2; half++)
    kb_store(b, g->right, kb_alu_c(b, A_ADD, to, half * STEP),
             kb_zip(b, even, odd, 1, half));
}

/* The same for STEP of depth, where rows run along it: they are pairs. */
static void pack_right_turned(Pairs *g, KVal *n, KVal *k, KVal *to) {
  KBuild *b = g->at.b;
  for (int half = 0; half < 2; half++) {
    KVal *v[TILE];
    for (int j = 0; j < TILE; j++)
      v[j] = load_row(g, CT_RIGHT, true, k,
                      kb_alu_c(b, A_ADD, n, half * TILE + j));
    ct_transpose(b, v, TILE, 2);
    for (int j = 0; j < TILE; j++)
      kb_store(b, g->right, kb_alu_c(b, A_ADD, to, 2 * STEP * j + STEP * half),
               v[j]);
  }
}

/* All panels, in the order in which the operand lies in memory. */
static void pack_right(Pairs *g) {
  KBuild *b = g->at.b;
  bool rows = runs_along(&g->at.p->n, CT_RIGHT);
  KVal *bounds[2][3] = {
      {kb_index(b, 0), g->depth, kb_index(b, rows ? 2 : STEP)},
      {g->at.n_lo, g->at.n_end, kb_index(b, STEP)}};
  KVal *iv[2];
  for (int level = 0; level < 2; level++) {
    int which = rows ? level : 1 - level;
    KVal **e = bounds[which];
    iv[which] = kb_iv(b, kb_for(b, e[0], e[1], e[2]->number));
  }
  KVal *k = plus(b, g->at.k_lo, iv[0]), *n = iv[1];
  KVal *to =
      plus(b, times(b, minus(b, n, g->at.n_lo), DEPTH), times(b, iv[0], STEP));
  if (rows)
    pack_right_rows(g, n, k, to);
  else
    pack_right_turned(g, n, k, to);
  kb_end(b);
  kb_end(b);
}

/* ---- the kernel of tiles ------------------------------------------------ */

enum { SUM_TILES = 0, LEFT_TILES = 4, RIGHT_TILES = 6 };

/* Where the panel's sums of row m are. */
static KVal *sums_at(Pairs *g, KVal *m) {
  KVal *row = minus(g->at.b, m, g->at.m_lo);
  return plus(g->at.b, g->to, times(g->at.b, row, STEP));
}

static int64_t tile_at(int i) {
  return i / 2 * TILE * STEP + i % 2 * TILE;
}

/* Zeros, or what the depth blocks before have left. */
static void start_tiles(Pairs *g, int height, KVal *at) {
  KBuild *b = g->at.b;
  KVal *fresh = g->at.fresh;
  if (fresh) {
    kb_if(b, kb_scalar(b, OP_not, DT_bool, &fresh, 1));
    for (int i = 0; i < 2 * height; i++)
      kb_tile_load(b, SUM_TILES + i, g->sums,
                   kb_alu_c(b, A_ADD, at, tile_at(i)), STEP);
    kb_end(b);
    kb_if(b, fresh);
  }
  for (int i = 0; i < 2 * height; i++)
    kb_tile_zero(b, SUM_TILES + i);
  if (fresh) kb_end(b);
}

/* `height` tiles of rows from m on, the panel's two of columns, the depth. */
static void sum_tiles(Pairs *g, KVal *m, int height) {
  KBuild *b = g->at.b;
  KVal *to = sums_at(g, m);
  start_tiles(g, height, to);
  KVal *row = times(b, minus(b, m, g->at.m_lo), DEPTH);
  KVal *loop = kb_for(b, kb_index(b, 0), g->depth, STEP), *k = kb_iv(b, loop);
  for (int i = 0; i < 2; i++)
    kb_tile_load(
        b, RIGHT_TILES + i, g->right,
        kb_alu_c(b, A_ADD, plus(b, g->from, times(b, k, STEP)), STEP * i),
        2 * STEP);
  for (int i = 0; i < height; i++) {
    KVal *at = kb_alu_c(b, A_ADD, plus(b, row, k), i * TILE * DEPTH);
    kb_tile_load(b, LEFT_TILES + i, g->left, at, DEPTH);
    for (int j = 0; j < 2; j++)
      kb_tile_dot(b, SUM_TILES + 2 * i + j, LEFT_TILES + i, RIGHT_TILES + j);
  }
  kb_end(b);
  for (int i = 0; i < 2 * height; i++)
    kb_tile_store(b, SUM_TILES + i, g->sums,
                  kb_alu_c(b, A_ADD, to, tile_at(i)), STEP);
}

/* All rows of the item for the panel. */
static void panel_of_tiles(Pairs *g) {
  KBuild *b = g->at.b;
  KVal *count = minus(b, g->at.m_end, g->at.m_lo);
  KVal *full = kb_alu_c(b, A_DIV, count, STEP);
  KVal *rest = ct_at(b, g->at.m_lo, full, STEP);
  KVal *loop = kb_for(b, g->at.m_lo, rest, STEP);
  sum_tiles(g, kb_iv(b, loop), 2);
  kb_end(b);
  KVal *rows = minus(b, g->at.m_end, rest);
  kb_if(b, kb_alu(b, A_LT, kb_index(b, TILE), rows));
  sum_tiles(g, rest, 2);
  kb_end(b);
  KVal *some = kb_alu(b, A_LT, kb_index(b, 0), rows);
  kb_if(b, kb_op2(b, OP_and, some, kb_alu_c(b, A_LE, rows, TILE)));
  sum_tiles(g, rest, 1);
  kb_end(b);
}

/* ---- the kernel of vectors ---------------------------------------------- */

/* `rows` rows from m on. Those past the item's last are that one again. */
static void sum_vectors(Pairs *g, KVal *m, int rows) {
  KBuild *b = g->at.b;
  KBase left = g->left, right = g->right;
  KVal *to[MAX_ROWS], *from[MAX_ROWS], *acc[MAX_ROWS][2], *init[MAX_ROWS][2];
  KVal *last = kb_alu_c(b, A_SUB, g->at.m_end, 1), *sums = sums_at(g, m);
  KVal *zero = kb_splat(b, kb_const(b, DT_f32, 0), TILE);
  left.dtype = right.dtype = DT_u32;
  for (int i = 0; i < rows; i++) {
    KVal *row = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, m, i), last);
    to[i] = kb_alu_c(b, A_ADD, sums, i * STEP);
    from[i] = times(b, minus(b, row, g->at.m_lo), DEPTH / 2);
    for (int v = 0; v < 2; v++) {
      init[i][v] = zero;
      if (!g->at.fresh) continue;
      KVal *sum =
          kb_load(b, g->sums, kb_alu_c(b, A_ADD, to[i], v * TILE), TILE);
      init[i][v] = kb_select(b, kb_splat(b, g->at.fresh, TILE), zero, sum);
    }
  }
  KVal *loop = kb_for(b, kb_index(b, 0), kb_alu_c(b, A_DIV, g->depth, 2), 1);
  KVal *pair = kb_iv(b, loop), *y[2];
  KVal *first = kb_alu_c(b, A_DIV, g->from, 2);
  for (int i = 0; i < rows; i++)
    for (int v = 0; v < 2; v++)
      acc[i][v] = kb_acc(b, loop, init[i][v]);
  for (int v = 0; v < 2; v++)
    y[v] = kb_load(
        b, right,
        kb_alu_c(b, A_ADD, plus(b, first, times(b, pair, STEP)), v * TILE),
        TILE);
  for (int i = 0; i < rows; i++) {
    KVal *x = kb_load(b, left, plus(b, from[i], pair), 1);
    for (int v = 0; v < 2; v++)
      kb_next(b, acc[i][v], kb_dot(b, acc[i][v], x, y[v]));
  }
  kb_end(b);
  for (int i = 0; i < rows; i++)
    for (int v = 0; v < 2; v++)
      kb_store(b, g->sums, kb_alu_c(b, A_ADD, to[i], v * TILE),
               kb_result(b, acc[i][v]));
}

static void panel_of_vectors(Pairs *g) {
  KBuild *b = g->at.b;
  KVal *count = minus(b, g->at.m_end, g->at.m_lo);
  KVal *full = kb_alu_c(b, A_DIV, count, MAX_ROWS);
  KVal *rest = ct_at(b, g->at.m_lo, full, MAX_ROWS);
  KVal *loop = kb_for(b, g->at.m_lo, rest, MAX_ROWS);
  sum_vectors(g, kb_iv(b, loop), MAX_ROWS);
  kb_end(b);
  loop = kb_for(b, rest, g->at.m_end, REST_ROWS);
  sum_vectors(g, kb_iv(b, loop), REST_ROWS);
  kb_end(b);
}

/* ---- a block ------------------------------------------------------------ */

static void panel(Pairs *g, KVal *n, bool tiles) {
  KBuild *b = g->at.b;
  KVal *column = minus(b, n, g->at.n_lo);
  g->from = times(b, column, DEPTH);
  g->to = times(b, column, SUM_ROWS);
  if (tiles)
    panel_of_tiles(g);
  else
    panel_of_vectors(g);
}

static void block_of(CtItem *t, bool tiles) {
  Pairs *g = (Pairs *)t;
  KBuild *b = t->b;
  g->left = kb_scratch(b, DT_bf16, ROW_BLOCK * DEPTH);
  g->right = kb_scratch(b, DT_bf16, DEPTH * COL_BLOCK);
  g->sums = kb_scratch(b, DT_f32, SUM_ROWS * COL_BLOCK);
  KVal *depth = kb_alu_c(b, A_ADD, minus(b, t->k_hi, t->k_lo), STEP - 1);
  g->depth = times(b, kb_alu_c(b, A_DIV, depth, STEP), STEP);
  pack_left(g);
  pack_right(g);
  KVal *loop = kb_for(b, t->n_lo, t->n_end, STEP);
  panel(g, kb_iv(b, loop), tiles);
  kb_end(b);
  ct_finish(t, &(CtSums){g->sums, STEP, SUM_ROWS * STEP});
}

static void block_of_tiles(CtItem *t) {
  block_of(t, true);
}

static void block_of_vectors(CtItem *t) {
  block_of(t, false);
}

bool ct_in_pairs(const CtProduct *p, const Isa *isa) {
  if (p->dtype != DT_bf16 || !(isa->has & (KN_TILES | KN_DOT))) return false;
  return (runs_along(&p->m, CT_LEFT) || runs_along(&p->k, CT_LEFT)) &&
         (runs_along(&p->n, CT_RIGHT) || runs_along(&p->k, CT_RIGHT));
}

Kernel *ct_pairs(Ctx *cx, const CtTask *task, const Isa *isa) {
  bool tiles = isa->has & KN_TILES;
  const Node *n = task->n;
  const CtProduct *p = &task->p;
  KBuild *b = kb_new(cx, tiles ? "contract.tiles" : "contract.pairs",
                     (int)(n->ins.len + n->outs.len), (int)n->outs.len);
  Pairs g = {.at = {.b = b,
                    .task = task,
                    .p = p,
                    .finish = ct_finish_new(cx, b, task, isa->lanes),
                    .rows = ROW_BLOCK,
                    .cols = COL_BLOCK,
                    .depth = DEPTH,
                    .block = tiles ? block_of_tiles : block_of_vectors}};
  g.base[CT_LEFT] = kb_arg(p->arg[CT_LEFT], DT_bf16);
  g.base[CT_RIGHT] = kb_arg(p->arg[CT_RIGHT], DT_bf16);
  return ct_items(&g.at);
}
