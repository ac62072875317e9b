/* panels.c: products whose right operand `pack` has put in order, and packing.
 *
 * Packing pays where an operand is read again and again, as by the product of
 * each turn of a loop. The right operand lies in panels of 32 columns,
 *
 *   right[column / 32][k / group][column % 32][k % group]
 *
 * with a group of one in f32; of two in bf16, the pairs that instructions for
 * bf16 take. The left operand is read where it is, its depth contiguous.
 *
 * An item is a panel and a block of rows, of so many that a team has enough of
 * them, and the same thread gets the same panels each time (runtime/step.c), so
 * that its part of the right operand stays in its cache. With tiles (pairs.c
 * describes them) the kernel is two by two of them; rows that fill no tile are
 * copied to scratch first, and their sums go by way of scratch. With vectors it
 * is 12 rows by two; rows past the last are that one again, computed twice to
 * the same bits. */
#include "codegen.h"

enum {
  TILE = 16,
  STEP = 32, /* depth of a tile */
  DEPTH = 512, /* of tiles summed at once: what is read twice stays near */
  MAX_ROWS = 12,
  REST_ROWS = 4,
  ITEMS = 16 /* at least, where there are rows for it */
};

typedef struct Panels {
  KBuild *b;
  int64_t m, k, cols, group; /* rows, depth, columns */
  int64_t left_row, out_row; /* elements from row to row */
  int64_t rows;              /* of an item */
  int lanes;
  bool tiles, dots;
  KBase left, right, out;
  KBase edge_left, edge_out; /* with tiles: [TILE][k], f32 [TILE][PANEL] */
  KVal *panel; /* where the item's starts */
  KVal *n;     /* its first column */
} Panels;

/* ---- what it is ---------------------------------------------------------- */

static bool has(const CtLetter *l, bool left, bool right, bool out) {
  return l->in[CT_LEFT] == left && l->in[CT_RIGHT] == right &&
         l->in[CT_OUT] == out && l->size > 1;
}

/* The letter of a kind whose stride in a side is so; a size of 1 when there is
 * none. */
static CtLetter pick(const CtLetters *ls, bool left, bool right, bool out,
                     int side, int64_t stride) {
  for (int i = 0; i < ls->n; i++)
    if (has(&ls->l[i], left, right, out) && ls->l[i].stride[side] == stride)
      return ls->l[i];
  return (CtLetter){.size = 1};
}

/* Fills in sizes and strides. False: not such a product. */
static bool find(const CtLetters *ls, Panels *p) {
  CtLetter column = pick(ls, false, true, true, CT_OUT, 1);
  CtLetter panel = pick(ls, false, true, true, CT_OUT, PANEL);
  int64_t group = column.stride[CT_RIGHT];
  CtLetter depth = pick(ls, true, true, false, CT_RIGHT, PANEL * group);
  CtLetter pair = pick(ls, true, true, false, CT_RIGHT, 1);
  CtLetter row = {.size = 1};
  int used = (panel.size > 1) + (pair.size > 1) + 2, all = 0;
  for (int i = 0; i < ls->n; i++) {
    if (has(&ls->l[i], true, false, true)) row = ls->l[i];
    all += ls->l[i].size > 1;
  }
  used += row.size > 1;
  *p = (Panels){.m = row.size,
                .k = depth.size * group,
                .cols = panel.size * PANEL,
                .group = group,
                .left_row = row.stride[CT_LEFT],
                .out_row = row.stride[CT_OUT]};
  /* One panel of single rows is any matrix: that is for others. */
  return !ls->group && used == all && column.size == PANEL &&
         pair.size == group && depth.size > 1 &&
         depth.stride[CT_LEFT] == group && panel.size * group > 1 &&
         (group == 1 || pair.stride[CT_LEFT] == 1) &&
         (panel.size == 1 || panel.stride[CT_RIGHT] == p->k * PANEL);
}

bool ct_is_panels(const CtLetters *ls, Dtype dtype) {
  Panels p;
  return find(ls, &p) && ((dtype == DT_f32 && p.group == 1) ||
                          (dtype == DT_bf16 && p.group == 2));
}

static KVal *plus(KBuild *b, KVal *x, KVal *y) {
  return kb_alu(b, A_ADD, x, y);
}

static KVal *times(KBuild *b, KVal *x, int64_t y) {
  return kb_alu_c(b, A_MUL, x, y);
}

/* ---- the kernel of tiles ------------------------------------------------- */

/* A matrix of tiles: where it starts, from row to row. */
typedef struct Grid {
  KBase base;
  KVal *at;
  int64_t step;
} Grid;

/* A block of depth. */
typedef struct Depth {
  KVal *lo, *hi;
  bool first; /* sums start here */
} Depth;

enum { SUM_TILES = 0, LEFT_TILES = 4, RIGHT_TILES = 6 };

static KVal *tile_at(Panels *p, const Grid *g, int row, int64_t column) {
  return kb_alu_c(p->b, A_ADD, g->at, row * TILE * g->step + column);
}

/* Sums over a block of depth for `height` tiles of rows and the panel. */
static void sum_tiles(Panels *p, const Grid *left, const Grid *out, int height,
                      const Depth *d) {
  KBuild *b = p->b;
  for (int i = 0; i < 2 * height; i++)
    if (d->first)
      kb_tile_zero(b, SUM_TILES + i);
    else
      kb_tile_load(b, SUM_TILES + i, out->base,
                   tile_at(p, out, i / 2, i % 2 * TILE), out->step);
  KVal *loop = kb_for(b, d->lo, d->hi, STEP), *k = kb_iv(b, loop);
  KVal *from = plus(b, p->panel, times(b, k, PANEL));
  for (int j = 0; j < 2; j++)
    kb_tile_load(b, RIGHT_TILES + j, p->right, kb_alu_c(b, A_ADD, from, j * 32),
                 2 * PANEL);
  for (int i = 0; i < height; i++) {
    kb_tile_load(b, LEFT_TILES + i, left->base,
                 plus(b, tile_at(p, left, i, 0), k), left->step);
    for (int j = 0; j < 2; j++)
      kb_tile_dot(b, SUM_TILES + 2 * i + j, LEFT_TILES + i, RIGHT_TILES + j);
  }
  kb_end(b);
  for (int i = 0; i < 2 * height; i++)
    kb_tile_store(b, SUM_TILES + i, out->base,
                  tile_at(p, out, i / 2, i % 2 * TILE), out->step);
}

static Grid left_at(Panels *p, KVal *m) {
  return (Grid){p->left, times(p->b, m, p->left_row), p->left_row};
}

static Grid out_at(Panels *p, KVal *m) {
  return (Grid){p->out, plus(p->b, times(p->b, m, p->out_row), p->n),
                p->out_row};
}

/* Copies rows from m on to scratch; the last one again fills the tile up. */
static void rows_to_edge(Panels *p, KVal *m) {
  KBuild *b = p->b;
  KBase left = p->left, edge = p->edge_left; /* by pairs: LLVM rounds bf16 */
  left.dtype = edge.dtype = DT_u32;
  KVal *rows = kb_for(b, kb_index(b, 0), kb_index(b, TILE), 1);
  KVal *i = kb_iv(b, rows), *last = kb_index(b, p->m - 1);
  KVal *from = times(b, kb_alu(b, A_MIN, plus(b, m, i), last), p->left_row / 2);
  KVal *loop = kb_for(b, kb_index(b, 0), kb_index(b, p->k / 2), TILE);
  KVal *k = kb_iv(b, loop);
  kb_store(b, edge, plus(b, times(b, i, p->k / 2), k),
           kb_load(b, left, plus(b, from, k), TILE));
  kb_end(b);
  kb_end(b);
}

static void edge_to_rows(Panels *p, KVal *m, KVal *end) {
  KBuild *b = p->b;
  KVal *loop = kb_for(b, m, end, 1), *row = kb_iv(b, loop);
  Grid to = out_at(p, row);
  KVal *from = times(b, kb_alu(b, A_SUB, row, m), PANEL);
  for (int v = 0; v < PANEL; v += TILE)
    kb_store(b, p->out, kb_alu_c(b, A_ADD, to.at, v),
             kb_load(b, p->edge_out, kb_alu_c(b, A_ADD, from, v), TILE));
  kb_end(b);
}

/* The rows of an item: pairs of tiles; in the last item of a panel maybe a
 * tile, and what fills none. */
typedef struct Rows {
  KVal *lo, *whole, *edge, *end;
} Rows;

static void tiles_of(Panels *p, const Rows *r, const Depth *d) {
  KBuild *b = p->b;
  KVal *loop = kb_for(b, r->lo, r->whole, STEP);
  Grid left = left_at(p, kb_iv(b, loop)), out = out_at(p, kb_iv(b, loop));
  sum_tiles(p, &left, &out, 2, d);
  kb_end(b);
  if (p->m % STEP == 0) return;
  kb_if(b, kb_alu(b, A_LT, r->whole, r->end));
  if (p->m % STEP >= TILE) {
    left = left_at(p, r->whole);
    out = out_at(p, r->whole);
    sum_tiles(p, &left, &out, 1, d);
  }
  if (p->m % TILE) {
    left = (Grid){p->edge_left, kb_index(b, 0), p->k};
    out = (Grid){p->edge_out, kb_index(b, 0), PANEL};
    sum_tiles(p, &left, &out, 1, d);
  }
  kb_end(b);
}

static void item_of_tiles(Panels *p, KVal *lo, KVal *end) {
  KBuild *b = p->b;
  Rows r = {.lo = lo, .end = end};
  KVal *count = kb_alu_c(b, A_DIV, kb_alu(b, A_SUB, end, lo), STEP);
  r.whole = plus(b, lo, times(b, count, STEP));
  r.edge = kb_alu_c(b, A_ADD, r.whole, p->m % STEP / TILE * TILE);
  if (p->m % TILE) {
    p->edge_left = kb_scratch(b, DT_bf16, TILE * p->k);
    p->edge_out = kb_scratch(b, DT_f32, TILE * PANEL);
    kb_if(b, kb_alu(b, A_LT, r.whole, end));
    rows_to_edge(p, r.edge);
    kb_end(b);
  }
  KVal *k = kb_index(b, p->k), *depth = kb_index(b, DEPTH);
  Depth d = {kb_index(b, 0), kb_alu(b, A_MIN, depth, k), true};
  tiles_of(p, &r, &d);
  if (p->k > DEPTH) {
    KVal *loop = kb_for(b, depth, k, DEPTH);
    d.lo = kb_iv(b, loop);
    d.hi = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, d.lo, DEPTH), k);
    d.first = false;
    tiles_of(p, &r, &d);
    kb_end(b);
  }
  if (p->m % TILE == 0) return;
  kb_if(b, kb_alu(b, A_LT, r.whole, end));
  edge_to_rows(p, r.edge, end);
  kb_end(b);
}

/* ---- the kernel of vectors ----------------------------------------------- */

enum { VECTORS = 2 };

/* Vector v of the panel's row at `at`, number `half` of its group, as f32. A
 * bf16 is the upper half of an f32. */
static KVal *right_part(Panels *p, KVal *at, int v, int half) {
  KBuild *b = p->b;
  KBase right = p->right;
  if (p->group == 2) right.dtype = DT_u32;
  KVal *x = kb_load(b, right, kb_alu_c(b, A_ADD, at, (int64_t)v * p->lanes),
                    p->lanes);
  if (p->group == 1 || p->dots) return x;
  KVal *by = kb_splat(b, kb_const(b, DT_u32, half ? 4294901760.0 : 16),
                      p->lanes);
  x = kb_op2(b, half ? OP_and : OP_shl, x, by);
  return kb_scalar(b, OP_bitcast, DT_f32, &x, 1);
}

/* One or, of pairs, two products for each sum; `at`: of the panel's row. */
static void products(Panels *p, KVal *const *from, int rows, KVal *k, KVal *at,
                     KVal *(*acc)[VECTORS]) {
  KBuild *b = p->b;
  KBase left = p->left;
  if (p->dots) left.dtype = DT_u32;
  int halves = p->dots ? 1 : (int)p->group;
  KVal *next[MAX_ROWS][VECTORS];
  for (int half = 0; half < halves; half++) {
    KVal *y[VECTORS];
    for (int v = 0; v < VECTORS; v++)
      y[v] = right_part(p, at, v, half);
    for (int i = 0; i < rows; i++) {
      KVal *in = plus(b, from[i], times(b, k, halves));
      KVal *x = kb_load(b, left, kb_alu_c(b, A_ADD, in, half), 1);
      if (halves == 2) x = kb_scalar(b, OP_cast, DT_f32, &x, 1);
      for (int v = 0; v < VECTORS; v++) {
        KVal *sum = half ? next[i][v] : acc[i][v];
        next[i][v] =
            p->dots ? kb_dot(b, sum, x, y[v]) : kb_fma(b, x, y[v], sum);
      }
    }
  }
  for (int i = 0; i < rows; i++)
    for (int v = 0; v < VECTORS; v++)
      kb_next(b, acc[i][v], next[i][v]);
}

/* `rows` rows from m on, columns of the panel from `column` on. */
static void sum_vectors(Panels *p, KVal *m, KVal *last, int rows, int column) {
  KBuild *b = p->b;
  KVal *row[MAX_ROWS], *from[MAX_ROWS], *acc[MAX_ROWS][VECTORS];
  int64_t unit = p->dots ? 2 : 1; /* elements of the left operand in a load */
  for (int i = 0; i < rows; i++) {
    row[i] = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, m, i), last);
    from[i] = times(b, row[i], p->left_row / unit);
  }
  KVal *zero = kb_splat(b, kb_const(b, DT_f32, 0), p->lanes);
  KVal *loop = kb_for(b, kb_index(b, 0), kb_index(b, p->k / p->group), 1);
  KVal *k = kb_iv(b, loop);
  for (int i = 0; i < rows; i++)
    for (int v = 0; v < VECTORS; v++)
      acc[i][v] = kb_acc(b, loop, zero);
  KVal *at = plus(b, kb_alu_c(b, A_DIV, p->panel, p->group),
                  kb_alu_c(b, A_ADD, times(b, k, PANEL), column));
  products(p, from, rows, k, at, acc);
  kb_end(b);
  for (int i = 0; i < rows; i++) {
    Grid to = out_at(p, row[i]);
    for (int v = 0; v < VECTORS; v++)
      kb_store(b, p->out,
               kb_alu_c(b, A_ADD, to.at, column + (int64_t)v * p->lanes),
               kb_result(b, acc[i][v]));
  }
}

static void item_of_vectors(Panels *p, KVal *lo, KVal *end) {
  KBuild *b = p->b;
  int most = p->lanes >= TILE ? MAX_ROWS : MAX_ROWS / 2;
  KVal *last = kb_alu_c(b, A_SUB, end, 1);
  KVal *full = kb_alu_c(b, A_DIV, kb_alu(b, A_SUB, end, lo), most);
  KVal *rest = plus(b, lo, times(b, full, most));
  for (int column = 0; column < PANEL; column += VECTORS * p->lanes) {
    KVal *loop = kb_for(b, lo, rest, most);
    sum_vectors(p, kb_iv(b, loop), last, most, column);
    kb_end(b);
    loop = kb_for(b, rest, end, REST_ROWS);
    sum_vectors(p, kb_iv(b, loop), last, REST_ROWS, column);
    kb_end(b);
  }
}

/* ---- items --------------------------------------------------------------- */

static int64_t blocks(int64_t n, int64_t block) {
  return (n + block - 1) / block;
}

Kernel *ct_panels(Ctx *cx, const Node *n, const CtLetters *ls, const Isa *isa) {
  Panels p;
  bool found = find(ls, &p);
  assert(found);
  (void)found;
  Dtype dtype = n->ins.data[0]->type.dtype;
  p.tiles = isa->has & KN_TILES && p.group == 2 && p.k % STEP == 0;
  p.dots = isa->has & KN_DOT && p.group == 2 && p.left_row % 2 == 0;
  p.lanes = isa->lanes;
  p.b = kb_new(cx, p.tiles ? "contract.panels.tiles" : "contract.panels",
               (int)n->ins.len + 1, 1);
  p.left = kb_arg(0, dtype);
  p.right = kb_arg(1, dtype);
  p.out = kb_arg((int)n->ins.len, DT_f32);
  int64_t panels = p.cols / PANEL, row_blocks = blocks(ITEMS, panels);
  if (row_blocks > blocks(p.m, STEP)) row_blocks = blocks(p.m, STEP);
  p.rows = blocks(blocks(p.m, row_blocks), STEP) * STEP;
  row_blocks = blocks(p.m, p.rows);
  KVal *item = kb_stage(p.b, panels * row_blocks, 1);
  KVal *number = kb_alu_c(p.b, A_DIV, item, row_blocks);
  p.panel = times(p.b, number, p.k * PANEL);
  p.n = times(p.b, number, PANEL);
  KVal *lo = times(p.b, kb_alu_c(p.b, A_REM, item, row_blocks), p.rows);
  KVal *end = kb_alu(p.b, A_MIN, kb_alu_c(p.b, A_ADD, lo, p.rows),
                     kb_index(p.b, p.m));
  (p.tiles ? item_of_tiles : item_of_vectors)(&p, lo, end);
  kb_end(p.b);
  return kb_finish(p.b);
}

/* ---- packing ------------------------------------------------------------- */

enum { BLOCK = 256 }; /* depth of an item */

typedef struct Pack {
  KBuild *b;
  KBase from, to;
  int64_t n, k, group;
  bool turned;
  KVal *panel, *column; /* where it starts, its first column */
} Pack;

static KVal *from_at(Pack *p, KVal *k, int64_t column) {
  KVal *n = kb_alu_c(p->b, A_ADD, p->column, column);
  return p->turned ? plus(p->b, times(p->b, n, p->k), k)
                   : plus(p->b, times(p->b, k, p->n), n);
}

static KVal *to_at(Pack *p, KVal *k, int64_t column) {
  return kb_alu_c(p->b, A_ADD, plus(p->b, p->panel, times(p->b, k, PANEL)),
                  column * p->group);
}

/* 16 groups of depth from k on: rows of the operand run along it. */
static void pack_turned(Pack *p, KVal *k) {
  int lanes = TILE * (int)p->group;
  for (int half = 0; half < PANEL; half += TILE) {
    KVal *v[TILE];
    for (int i = 0; i < TILE; i++)
      v[i] = kb_load(p->b, p->from, from_at(p, k, half + i), lanes);
    ct_transpose(p->b, v, TILE, (int)p->group);
    for (int i = 0; i < TILE; i++) {
      KVal *row = kb_alu_c(p->b, A_ADD, k, i * p->group);
      kb_store(p->b, p->to, to_at(p, row, half), v[i]);
    }
  }
}

/* One group of depth: rows of the operand run along the columns. */
static void pack_rows(Pack *p, KVal *k) {
  int lanes = PANEL / 2 * (int)p->group;
  KVal *x[2], *at[2] = {from_at(p, k, 0), from_at(p, k, TILE)};
  if (p->group == 2) at[1] = from_at(p, kb_alu_c(p->b, A_ADD, k, 1), 0);
  for (int half = 0; half < 2; half++)
    x[half] = kb_load(p->b, p->from, at[half], lanes);
  for (int half = 0; half < 2; half++) {
    KVal *v = p->group == 2 ? kb_zip(p->b, x[0], x[1], 1, half) : x[half];
    kb_store(p->b, p->to,
             kb_alu_c(p->b, A_ADD, to_at(p, k, 0), (int64_t)half * lanes), v);
  }
}

/* One group, element by element: what no vectors are for. */
static void pack_single(Pack *p, KVal *k) {
  KVal *columns = kb_for(p->b, kb_index(p->b, 0), kb_index(p->b, PANEL), 1);
  KVal *column = kb_iv(p->b, columns);
  for (int64_t i = 0; i < p->group; i++) {
    KVal *at = kb_alu_c(p->b, A_ADD, k, i), *from = from_at(p, at, 0);
    from = plus(p->b, from, times(p->b, column, p->turned ? p->k : 1));
    KVal *to = plus(p->b, to_at(p, k, 0), times(p->b, column, p->group));
    kb_store(p->b, p->to, kb_alu_c(p->b, A_ADD, to, i),
             kb_load(p->b, p->from, from, 1));
  }
  kb_end(p->b);
}

Kernel *cg_pack(Ctx *cx, const Node *n, const Isa *isa) {
  const Type *x = &n->ins.data[0]->type;
  bool turned = attr_bool(n, "turned");
  Pack p = {.b = kb_new(cx, "pack", 2, 1),
            .from = kb_arg(0, x->dtype),
            .to = kb_arg(1, x->dtype),
            .n = x->dims[!turned].size,
            .k = x->dims[turned].size,
            .group = attr_int(n, "group"),
            .turned = turned};
  bool vectors = isa->lanes >= TILE &&
                 p.group * dtype_info[x->dtype].bytes == 4 && p.group <= 2;
  int64_t step = vectors && turned ? TILE * p.group : p.group;
  int64_t depths = blocks(p.k, BLOCK * p.group);
  KVal *item = kb_stage(p.b, p.n / PANEL * depths, 1);
  KVal *number = kb_alu_c(p.b, A_DIV, item, depths);
  p.panel = times(p.b, number, p.k * PANEL);
  p.column = times(p.b, number, PANEL);
  KVal *lo = times(p.b, kb_alu_c(p.b, A_REM, item, depths), BLOCK * p.group);
  KVal *end = kb_alu(p.b, A_MIN, kb_alu_c(p.b, A_ADD, lo, BLOCK * p.group),
                     kb_index(p.b, p.k));
  KVal *count = kb_alu_c(p.b, A_DIV, kb_alu(p.b, A_SUB, end, lo), step);
  KVal *whole = plus(p.b, lo, times(p.b, count, step));
  KVal *loop = kb_for(p.b, lo, whole, step);
  if (!vectors)
    pack_single(&p, kb_iv(p.b, loop));
  else if (turned)
    pack_turned(&p, kb_iv(p.b, loop));
  else
    pack_rows(&p, kb_iv(p.b, loop));
  kb_end(p.b);
  if (step > p.group) {
    loop = kb_for(p.b, whole, end, p.group);
    pack_single(&p, kb_iv(p.b, loop));
    kb_end(p.b);
  }
  kb_end(p.b);
  return kb_finish(p.b);
}
