/* pairs.c: products of bf16 with sums in f32, by instructions for pairs.
 *
 * AMX multiplies tiles (16 by 32 times 32 by 16 in one instruction),
 * AVX512-BF16 vectors; both take the depth in pairs. So the left operand,
 * whichever way it lies, is packed into rows of depth,
 *
 *   left[row - m_lo][k - k_lo]
 *
 * and the right one into panels of 32 columns, in rows of pairs,
 *
 *   right[(column - n_lo) / 32][(k - k_lo) / 2][column % 32][k % 2]
 *
 * where the depth is filled up with zeros to steps of 32. A pair is one u32; an
 * operand whose depth runs the wrong way is transposed in registers, 16 by 16
 * of them. A right operand that is stored in f32 is cast as it is packed.
 *
 * Blocks are sized for the caches: of depth 256, what 32 rows and a panel take
 * together is 32 KiB, two thirds of the first; all of a left and a right block,
 * 448 KiB, fit the second. An item packs its own blocks, but for operands of
 * large products without experts: these are packed once where many items read
 * them (m_lo, n_lo and k_lo are 0 then), and a left operand in rows of depth is
 * not packed at all. Where experts have few rows each, items read whole rows of
 * the right operand, or of one that runs along its depth panel by panel: its
 * memory in order (see blocked.c).
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
  ROW_BLOCK = 256, /* of rows that are not ragged */
  COL_BLOCK = 512,
  DENSE_ROWS = 512, /* where that leaves enough items */
  DENSE_COLS = 256,
  ENOUGH = 32,
  DEEP = 128,       /* rows of an expert as depth */
  DEPTH = 256,
  PACKED = 128, /* rows or columns of an item that packs for all */
  LARGE = 256, /* each side of a product that no library does as well */
  TILE = 16,   /* rows, columns, and pairs of depth */
  LINE_BYTES = 64, /* of a cache */
  LINE = LINE_BYTES / 2, /* bf16 elements */
  MAX_ROWS = 12,
  REST_ROWS = 4, /* of the kernel of vectors */
  AHEAD = 16,  /* rows that packing asks for ahead of time */
  WIDE_AHEAD = 4 /* the same of what it casts */
};

/* Where an operand is packed. */
typedef enum PackWhere {
  PACK_IN_ITEM, /* by each item for itself, in scratch */
  PACK_AHEAD,   /* once, in the workspace, by a stage of its own */
  PACK_NOT      /* its rows are read as they lie */
} PackWhere;

/* An operand in order. */
typedef struct Packed {
  PackWhere where;
  KBase base;
  KVal *first, *x, *k; /* an element's index, row or column, and depth */
  int64_t step;        /* elements from row to row, or column to column */
} Packed;

typedef struct Pairs {
  CtItem at; /* the first member */
  KBase base[CT_OUT];
  Packed in[CT_OUT];
  bool narrows; /* there is an instruction from f32 to bf16 */
  KBase sums;   /* f32 */
  KBase tail;   /* bf16 [rows][CT_STEP]: what fills no step of the depth of a
                   left operand that is not packed */
  KVal *depth;  /* of this block, in whole steps */
  KVal *n, *to; /* the panel: its first column, and where its sums are */
  bool few;     /* experts have few rows each */
  bool whole;   /* all blocks of the right operand are whole steps */
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

/* Where in a packed operand depth k of row or column x is. */
static KVal *left_at(Pairs *g, KVal *x, KVal *k) {
  const Packed *p = &g->in[CT_LEFT];
  KVal *row = ct_at(g->at.b, p->first, minus(g->at.b, x, p->x), p->step);
  return plus(g->at.b, row, minus(g->at.b, k, p->k));
}

static KVal *right_at(Pairs *g, KVal *x, KVal *k) {
  const Packed *p = &g->in[CT_RIGHT];
  KVal *panel = ct_at(g->at.b, p->first, minus(g->at.b, x, p->x), p->step);
  return ct_at(g->at.b, panel, minus(g->at.b, k, p->k), CT_STEP);
}

/* ---- packing ------------------------------------------------------------ */

static bool runs_along(const CtLetter *l, int side) {
  return l->size == 1 || l->stride[side] == 1;
}

/* Whether a panel is packed and multiplied, then the next. */
static bool by_panel(const Pairs *g) {
  return g->few && !runs_along(&g->at.p->n, CT_RIGHT);
}

/* Asks for what packing will come to: some rows of depth on, or the columns
 * that follow. What is stored wide is cast out of the second cache, which takes
 * more requests at a time than the first. */
static void fetch_ahead(Pairs *g, bool by_depth, KVal *at) {
  KBuild *b = g->at.b;
  if (g->at.task->rows[CT_RIGHT]) return; /* who knows where that is */
  const CtProduct *p = g->at.p;
  KBase from = g->base[CT_RIGHT];
  if (from.dtype == DT_bf16) {
    if (!by_depth)
      kb_fetch(b, from, kb_alu_c(b, A_ADD, at, AHEAD * p->k.stride[CT_RIGHT]));
    return;
  }
  int64_t line = LINE_BYTES / dtype_info[from.dtype].bytes;
  int64_t ahead = by_depth ? TILE * p->n.stride[CT_RIGHT]
                           : WIDE_AHEAD * p->k.stride[CT_RIGHT];
  for (int64_t i = 0; i < CT_STEP; i += line)
    kb_fetch_far(b, from, kb_alu_c(b, A_ADD, at, ahead + i));
}

/* Where the operand has its depth, or row, `x`; behind the last that there is,
 * where none is read, that one's. */
static KVal *row_of(Pairs *g, int side, bool depth, KVal *x) {
  KBuild *b = g->at.b;
  if (!g->at.task->rows[side] || depth != g->at.p->ragged_k) return x;
  KVal *end = depth ? g->at.k_hi : g->at.m_end;
  x = kb_alu(b, A_MIN, x, kb_alu_c(b, A_SUB, end, 1));
  return ct_row(b, g->at.task, side, x);
}

/* CT_STEP elements of an operand from depth k and row or column x on, along the
 * depth or along the other; zeros from the ends on. What is stored in f32 is
 * cast on the way. */
static KVal *load_row(Pairs *g, int side, bool by_depth, KVal *k, KVal *x) {
  KBuild *b = g->at.b;
  const CtLetter *depth = &g->at.p->k;
  const CtLetter *other = side == CT_LEFT ? &g->at.p->m : &g->at.p->n;
  KVal *end = side == CT_LEFT ? g->at.m_end : g->at.n_end;
  KVal *at = ct_at(b, g->at.offset[side], row_of(g, side, true, k),
                   depth->stride[side]);
  at = ct_at(b, at, row_of(g, side, false, x), other->stride[side]);
  if (side == CT_RIGHT) fetch_ahead(g, by_depth, at);
  KVal *v;
  if (side == CT_RIGHT && g->whole) {
    v = kb_load(b, g->base[side], at, CT_STEP);
  } else {
    KVal *ks = ct_count(b, k, g->at.k_hi, CT_STEP);
    KVal *xs = ct_count(b, x, end, CT_STEP);
    /* All of the one, or none where the other is past its end. */
    KVal *count = kb_alu(b, A_MIN, by_depth ? ks : xs,
                         times(b, by_depth ? xs : ks, CT_STEP));
    v = kb_load_some(b, g->base[side], at, count, CT_STEP);
  }
  if (v->dtype == DT_bf16) return v;
  return g->narrows ? kb_narrow(b, v) : kb_scalar(b, OP_cast, DT_bf16, &v, 1);
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
  kb_store(g->at.b, g->in[CT_LEFT].base, to, load_row(g, CT_LEFT, true, k, x));
}

/* The same, CT_STEP rows at once, where the operand's rows run along m. */
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
      int64_t row = (TILE * half + i) * g->in[CT_LEFT].step;
      kb_store(b, g->in[CT_LEFT].base, kb_alu_c(b, A_ADD, to, row), v[half][i]);
    }
  }
}

/* In the order in which the operand lies in memory. */
static void pack_left(Pairs *g) {
  KBuild *b = g->at.b;
  bool rows = runs_along(&g->at.p->k, CT_LEFT) &&
              !ct_picks_depth(g->at.task, CT_LEFT);
  KVal *bounds[2][3] = {
      {g->at.m_lo, g->at.m_end, kb_index(b, rows ? 1 : CT_STEP)},
      {kb_index(b, 0), g->depth, kb_index(b, CT_STEP)}};
  KVal *iv[2];
  for (int level = 0; level < 2; level++) {
    int which = rows ? level : 1 - level;
    KVal **e = bounds[which];
    iv[which] = kb_iv(b, kb_for(b, e[0], e[1], e[2]->number));
  }
  KVal *x = iv[0], *k = plus(b, g->at.k_lo, iv[1]), *to = left_at(g, x, k);
  if (rows)
    pack_left_rows(g, x, k, to);
  else
    pack_left_turned(g, x, k, to);
  kb_end(b);
  kb_end(b);
}

/* CT_STEP columns from n on of two rows that run along n, as a row of pairs. */
static void pack_right_rows(Pairs *g, KVal *n, KVal *k, KVal *to) {
  KBuild *b = g->at.b;
  KVal *even = load_row(g, CT_RIGHT, false, k, n);
  KVal *odd = load_row(g, CT_RIGHT, false, kb_alu_c(b, A_ADD, k, 1), n);
  for (int half = 0; half < 2; half++)
    kb_store(b, g->in[CT_RIGHT].base, kb_alu_c(b, A_ADD, to, half * CT_STEP),
             kb_zip(b, even, odd, 1, half));
}

/* The same for CT_STEP of depth, where rows run along it: they are pairs. */
static void pack_right_turned(Pairs *g, KVal *n, KVal *k, KVal *to) {
  KBuild *b = g->at.b;
  for (int half = 0; half < 2; half++) {
    KVal *v[TILE];
    for (int j = 0; j < TILE; j++)
      v[j] = load_row(g, CT_RIGHT, true, k,
                      kb_alu_c(b, A_ADD, n, half * TILE + j));
    ct_transpose(b, v, TILE, 2);
    for (int j = 0; j < TILE; j++)
      kb_store(b, g->in[CT_RIGHT].base,
               kb_alu_c(b, A_ADD, to, 2 * CT_STEP * j + CT_STEP * half), v[j]);
  }
}

/* The panels of columns [lo, hi), in the order in which the operand lies in
 * memory. */
static void pack_right(Pairs *g, KVal *lo, KVal *hi) {
  KBuild *b = g->at.b;
  bool rows = runs_along(&g->at.p->n, CT_RIGHT);
  KVal *bounds[2][3] = {
      {kb_index(b, 0), g->depth, kb_index(b, rows ? 2 : CT_STEP)},
      {lo, hi, kb_index(b, CT_STEP)}};
  KVal *iv[2];
  for (int level = 0; level < 2; level++) {
    int which = rows ? level : 1 - level;
    KVal **e = bounds[which];
    iv[which] = kb_iv(b, kb_for(b, e[0], e[1], e[2]->number));
  }
  KVal *k = plus(b, g->at.k_lo, iv[0]), *n = iv[1];
  KVal *to = right_at(g, n, k);
  if (rows)
    pack_right_rows(g, n, k, to);
  else
    pack_right_turned(g, n, k, to);
  kb_end(b);
  kb_end(b);
}

static void pack(Pairs *g, int side) {
  if (side == CT_LEFT)
    pack_left(g);
  else
    pack_right(g, g->at.n_lo, g->at.n_end);
}

static void set_depth(Pairs *g) {
  KBuild *b = g->at.b;
  KVal *k = kb_alu_c(b, A_ADD, minus(b, g->at.k_hi, g->at.k_lo), CT_STEP - 1);
  g->depth = times(b, kb_alu_c(b, A_DIV, k, CT_STEP), CT_STEP);
}

static int64_t round_up(int64_t x, int64_t step) {
  return (x + step - 1) / step * step;
}

/* All of an operand into the workspace. Rows of the left one are a step longer
 * than their depth: those of one tile then lie in different sets of a cache. */
static void pack_ahead(Pairs *g, int side) {
  KBuild *b = g->at.b;
  bool left = side == CT_LEFT;
  int64_t size = left ? g->at.p->m.size : g->at.p->n.size;
  int64_t depth = g->at.p->k.size, blocks = round_up(depth, DEPTH) / DEPTH;
  KVal *zero = kb_index(b, 0);
  Packed *p = &g->in[side];
  p->step = round_up(depth, CT_STEP) + (left ? CT_STEP : 0);
  p->base = kb_workspace(b, DT_bf16, round_up(size, CT_STEP) * p->step);
  p->first = p->x = p->k = g->at.offset[side] = zero;
  KVal *item = kb_stage(b, round_up(size, PACKED) / PACKED * blocks, 1);
  KVal *lo = times(b, kb_alu_c(b, A_DIV, item, blocks), PACKED);
  KVal *hi = kb_alu_c(b, A_MIN, kb_alu_c(b, A_ADD, lo, PACKED), size);
  *(left ? &g->at.m_lo : &g->at.n_lo) = lo;
  *(left ? &g->at.m_end : &g->at.n_end) = hi;
  g->at.k_lo = times(b, kb_alu_c(b, A_REM, item, blocks), DEPTH);
  g->at.k_hi = kb_alu_c(b, A_ADD, g->at.k_lo, DEPTH);
  g->at.k_hi = kb_alu_c(b, A_MIN, g->at.k_hi, depth);
  set_depth(g);
  pack(g, side);
  kb_end(b);
}

static void pack_in_item(Pairs *g, int side) {
  KBuild *b = g->at.b;
  bool left = side == CT_LEFT, alone = !left && by_panel(g);
  int64_t size = left ? g->at.rows : alone ? CT_STEP : g->at.cols;
  int64_t step = round_up(g->at.depth, CT_STEP);
  g->in[side] = (Packed){.base = kb_scratch(b, DT_bf16, size * step),
                         .first = kb_index(b, 0),
                         .x = left ? g->at.m_lo : g->at.n_lo,
                         .k = g->at.k_lo,
                         .step = step};
  if (!alone) pack(g, side);
}

static bool has_tail(const Pairs *g) {
  return g->in[CT_LEFT].where == PACK_NOT && g->at.p->k.size % CT_STEP;
}

/* Whether this block's depth ends with the tail. */
static void open_tail(Pairs *g) {
  KBuild *b = g->at.b;
  kb_if(b, g->at.last ? g->at.last : kb_const(b, DT_bool, 1));
}

/* The left operand as it lies, but for a tail. */
static void pack_not(Pairs *g) {
  KBuild *b = g->at.b;
  const CtProduct *p = g->at.p;
  g->in[CT_LEFT] = (Packed){.where = PACK_NOT,
                            .base = g->base[CT_LEFT],
                            .first = g->at.offset[CT_LEFT],
                            .x = kb_index(b, 0),
                            .k = kb_index(b, 0),
                            .step = p->m.stride[CT_LEFT]};
  if (!has_tail(g)) return;
  g->tail = kb_scratch(b, DT_bf16, g->at.rows * CT_STEP);
  open_tail(g);
  KVal *k = kb_index(b, p->k.size / CT_STEP * CT_STEP);
  KVal *loop = kb_for(b, g->at.m_lo, g->at.m_end, 1), *m = kb_iv(b, loop);
  kb_store(b, g->tail, times(b, minus(b, m, g->at.m_lo), CT_STEP),
           load_row(g, CT_LEFT, true, k, m));
  kb_end(b);
  kb_end(b);
}

/* Packing pays once for all where more than two items would do it, each for
 * itself; and not at all where tiles can be loaded from whole rows. */
static PackWhere where_to_pack(const CtItem *t, int side, bool tiles) {
  const CtProduct *p = t->p;
  const CtLetter *other = side == CT_LEFT ? &p->n : &p->m;
  int64_t block = side == CT_LEFT ? t->cols : t->rows;
  if (p->groups || p->batch.size > 1 || !tiles) return PACK_IN_ITEM;
  if (side == CT_LEFT && p->k.stride[side] == 1 && p->m.size % TILE == 0)
    return PACK_NOT;
  return other->size > 2 * block ? PACK_AHEAD : PACK_IN_ITEM;
}

/* ---- the kernel of tiles ------------------------------------------------ */

enum { SUM_TILES = 0, LEFT_TILES = 4, RIGHT_TILES = 6 };

/* Rows of sums that an item has room for. */
static int64_t sum_rows(const Pairs *g) {
  return g->at.rows + REST_ROWS;
}

/* Where the panel's sums of row m are. */
static KVal *sums_at(Pairs *g, KVal *m) {
  KVal *row = minus(g->at.b, m, g->at.m_lo);
  return plus(g->at.b, g->to, times(g->at.b, row, CT_STEP));
}

static int64_t tile_at(int i) {
  return i / 2 * TILE * CT_STEP + i % 2 * TILE;
}

/* Zeros, or what the depth blocks before have left. */
static void start_tiles(Pairs *g, int height, KVal *at) {
  KBuild *b = g->at.b;
  KVal *fresh = g->at.fresh;
  if (fresh) {
    kb_if(b, kb_scalar(b, OP_not, DT_bool, &fresh, 1));
    for (int i = 0; i < 2 * height; i++)
      kb_tile_load(b, SUM_TILES + i, g->sums,
                   kb_alu_c(b, A_ADD, at, tile_at(i)), CT_STEP);
    kb_end(b);
    kb_if(b, fresh);
  }
  for (int i = 0; i < 2 * height; i++)
    kb_tile_zero(b, SUM_TILES + i);
  if (fresh) kb_end(b);
}

/* One step of depth: a panel's tiles at `right`, rows at `left`. */
static void add_tiles(Pairs *g, int height, KBase from, KVal *left,
                      int64_t step, KVal *right) {
  KBuild *b = g->at.b;
  for (int i = 0; i < 2; i++)
    kb_tile_load(b, RIGHT_TILES + i, g->in[CT_RIGHT].base,
                 kb_alu_c(b, A_ADD, right, CT_STEP * i), 2 * CT_STEP);
  for (int i = 0; i < height; i++) {
    kb_tile_load(b, LEFT_TILES + i, from,
                 kb_alu_c(b, A_ADD, left, i * TILE * step), step);
    for (int j = 0; j < 2; j++)
      kb_tile_dot(b, SUM_TILES + 2 * i + j, LEFT_TILES + i, RIGHT_TILES + j);
  }
}

/* `height` tiles of rows from m on, the panel's two of columns, the depth. */
static void sum_tiles(Pairs *g, KVal *m, int height) {
  KBuild *b = g->at.b;
  KVal *to = sums_at(g, m), *depth = g->depth;
  KVal *left = left_at(g, m, g->at.k_lo);
  KVal *right = right_at(g, g->n, g->at.k_lo);
  start_tiles(g, height, to);
  if (has_tail(g)) {
    depth = kb_alu_c(b, A_DIV, minus(b, g->at.k_hi, g->at.k_lo), CT_STEP);
    depth = times(b, depth, CT_STEP);
  }
  KVal *loop = kb_for(b, kb_index(b, 0), depth, CT_STEP), *k = kb_iv(b, loop);
  add_tiles(g, height, g->in[CT_LEFT].base, plus(b, left, k),
            g->in[CT_LEFT].step, ct_at(b, right, k, CT_STEP));
  kb_end(b);
  if (has_tail(g)) {
    open_tail(g);
    KVal *row = times(b, minus(b, m, g->at.m_lo), CT_STEP);
    add_tiles(g, height, g->tail, row, CT_STEP,
              ct_at(b, right, depth, CT_STEP));
    kb_end(b);
  }
  for (int i = 0; i < 2 * height; i++)
    kb_tile_store(b, SUM_TILES + i, g->sums,
                  kb_alu_c(b, A_ADD, to, tile_at(i)), CT_STEP);
}

/* What is next of a panel that comes from far: the same depth of the following
 * one, a part of it with each block of rows. */
static void fetch_next_panel(Pairs *g, KVal *m) {
  KBuild *b = g->at.b;
  if (g->in[CT_RIGHT].where != PACK_AHEAD) return;
  int64_t lines = DEPTH * CT_STEP / LINE / (g->at.rows / CT_STEP);
  KVal *at = right_at(g, kb_alu_c(b, A_ADD, g->n, CT_STEP), g->at.k_lo);
  at = plus(b, at, times(b, minus(b, m, g->at.m_lo), lines * LINE / CT_STEP));
  for (int64_t i = 0; i < lines; i++)
    kb_fetch(b, g->in[CT_RIGHT].base, kb_alu_c(b, A_ADD, at, i * LINE));
}

static bool hands_on(const Pairs *g) {
  return g->at.done->soon;
}

/* Hands on the panel's sums of rows from m on, while they are near. */
static void hand_on(Pairs *g, KVal *m) {
  KBuild *b = g->at.b;
  CtItem part = g->at;
  KVal *end = kb_alu_c(b, A_ADD, g->n, CT_STEP);
  part.m_lo = m;
  part.m_end = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, m, CT_STEP), g->at.m_end);
  part.n_lo = g->n;
  part.n_end = g->whole ? end : kb_alu(b, A_MIN, end, g->at.n_end);
  part.done->sums(&part, &(CtSums){g->sums, CT_STEP, CT_STEP, 0,
                                   sums_at(g, m)});
}

/* All rows of the item for the panel. */
static void panel_of_tiles(Pairs *g) {
  KBuild *b = g->at.b;
  KVal *loop = kb_for(b, g->at.m_lo, g->at.m_end, CT_STEP), *m = kb_iv(b, loop);
  KVal *tall = kb_alu(b, A_LT, kb_alu_c(b, A_ADD, m, TILE), g->at.m_end);
  fetch_next_panel(g, m);
  kb_if(b, tall);
  sum_tiles(g, m, 2);
  kb_end(b);
  kb_if(b, kb_scalar(b, OP_not, DT_bool, &tall, 1));
  sum_tiles(g, m, 1);
  kb_end(b);
  if (hands_on(g)) hand_on(g, m);
  kb_end(b);
}

/* ---- the kernel of vectors ---------------------------------------------- */

/* `rows` rows from m on. Those past the item's last are that one again. */
static void sum_vectors(Pairs *g, KVal *m, int rows) {
  KBuild *b = g->at.b;
  KBase left = g->in[CT_LEFT].base, right = g->in[CT_RIGHT].base;
  KVal *to[MAX_ROWS], *from[MAX_ROWS], *acc[MAX_ROWS][2], *init[MAX_ROWS][2];
  KVal *last = kb_alu_c(b, A_SUB, g->at.m_end, 1), *sums = sums_at(g, m);
  KVal *zero = kb_splat(b, kb_const(b, DT_f32, 0), TILE);
  left.dtype = right.dtype = DT_u32;
  for (int i = 0; i < rows; i++) {
    KVal *row = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, m, i), last);
    to[i] = kb_alu_c(b, A_ADD, sums, i * CT_STEP);
    from[i] = kb_alu_c(b, A_DIV, left_at(g, row, g->at.k_lo), 2);
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
  KVal *first = kb_alu_c(b, A_DIV, right_at(g, g->n, g->at.k_lo), 2);
  for (int i = 0; i < rows; i++)
    for (int v = 0; v < 2; v++)
      acc[i][v] = kb_acc(b, loop, init[i][v]);
  for (int v = 0; v < 2; v++)
    y[v] = kb_load(
        b, right,
        kb_alu_c(b, A_ADD, plus(b, first, times(b, pair, CT_STEP)), v * TILE),
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
  g->n = n;
  g->to = times(b, column, sum_rows(g));
  if (by_panel(g)) {
    g->in[CT_RIGHT].x = n;
    KVal *end = kb_alu_c(b, A_ADD, n, CT_STEP);
    pack_right(g, n, kb_alu(b, A_MIN, end, g->at.n_end));
  }
  if (tiles)
    panel_of_tiles(g);
  else
    panel_of_vectors(g);
}

static void block_of(CtItem *t, bool tiles) {
  Pairs *g = (Pairs *)t;
  KBuild *b = t->b;
  g->sums = kb_scratch(b, DT_f32, sum_rows(g) * t->cols);
  set_depth(g);
  for (int side = CT_LEFT; side <= CT_RIGHT; side++)
    if (g->in[side].where == PACK_IN_ITEM) pack_in_item(g, side);
  if (g->in[CT_LEFT].where == PACK_NOT) pack_not(g);
  KVal *loop = kb_for(b, t->n_lo, t->n_end, CT_STEP);
  panel(g, kb_iv(b, loop), tiles);
  kb_end(b);
  if (!tiles || !hands_on(g))
    t->done->sums(t, &(CtSums){g->sums, CT_STEP, CT_STEP,
                               sum_rows(g) * CT_STEP, kb_index(b, 0)});
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

bool ct_beats_library(const CtProduct *p, const Isa *isa) {
  return (isa->has & KN_TILES) && ct_in_pairs(p, isa) && !p->groups &&
         p->batch.size == 1 && p->m.size >= LARGE && p->n.size >= LARGE &&
         p->k.size >= LARGE;
}

/* Items of more rows pack the right operand less often: where there are enough
 * of them, and of experts if each makes many, of sums that are worth the room;
 * and of ragged rows, so that few of a group are left over for one more. */
static int64_t rows_of_item(const CtProduct *p, bool tiles) {
  int64_t rows = round_up(p->m.size, DENSE_ROWS) / DENSE_ROWS;
  int64_t cols = round_up(p->n.size, DENSE_COLS) / DENSE_COLS;
  if (p->groups && !p->ragged_k) return CT_ROW_BLOCK;
  if (p->ragged_k && tiles && p->rows >= p->groups * DEEP &&
      p->groups * rows * p->n.size >= ENOUGH * COL_BLOCK)
    return DENSE_ROWS;
  return p->groups || rows * cols < ENOUGH ? ROW_BLOCK : DENSE_ROWS;
}

CtItem *ct_pairs_item(Ctx *cx, KBuild *b, const CtTask *task, const Isa *isa) {
  bool tiles = isa->has & KN_TILES;
  const CtProduct *p = &task->p;
  Pairs *g = NEW(&cx->scratch, Pairs);
  *g = (Pairs){.at = {.b = b,
                      .task = task,
                      .p = p,
                      .rows = rows_of_item(p, tiles),
                      .cols = p->groups ? COL_BLOCK : DENSE_COLS,
                      .depth = DEPTH,
                      .block = tiles ? block_of_tiles : block_of_vectors},
               .narrows = isa->has & KN_NARROW};
  g->base[CT_LEFT] = ct_operand(task, CT_LEFT);
  g->base[CT_RIGHT] = ct_operand(task, CT_RIGHT);
  return &g->at;
}

void ct_pairs_in_place(CtItem *t) {
  if (t->block == block_of_tiles && t->p->k.stride[CT_LEFT] == 1 &&
      t->p->m.size % TILE == 0)
    ((Pairs *)t)->in[CT_LEFT].where = PACK_NOT;
}

/* The item where experts have few rows. */
static void set_few(Pairs *g) {
  const CtProduct *p = g->at.p;
  g->at.rows = CT_FEW_BLOCK;
  g->at.cols = round_up(p->n.size, CT_STEP);
  if (g->at.cols > CT_RUN) g->at.cols = CT_RUN;
  if (by_panel(g)) g->at.depth = p->k.size < CT_RUN ? p->k.size : CT_RUN;
}

Kernel *ct_pairs(Ctx *cx, const CtTask *task, const Isa *isa) {
  bool tiles = isa->has & KN_TILES;
  const Node *n = task->n;
  KBuild *b = kb_new(cx, tiles ? "contract.tiles" : "contract.pairs",
                     (int)(n->ins.len + n->outs.len), (int)n->outs.len);
  Pairs *g = (Pairs *)ct_pairs_item(cx, b, task, isa);
  ct_finish_of(cx, &g->at, isa->lanes);
  const CtProduct *p = &task->p;
  g->few = ct_few_rows(p);
  g->whole = !p->ragged_k && p->k.size % CT_STEP == 0 &&
             p->n.size % CT_STEP == 0;
  if (g->few) set_few(g);
  for (int side = CT_LEFT; side <= CT_RIGHT; side++) {
    g->in[side].where = where_to_pack(&g->at, side, tiles);
    if (g->in[side].where == PACK_AHEAD) pack_ahead(g, side);
  }
  return ct_items(&g->at);
}
