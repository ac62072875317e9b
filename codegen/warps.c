/* warps.c: products where a vector is a warp.
 *
 * An item is a few rows by one or two vectors of columns, summed in registers
 * over all of its depth in one go, for there is no cache of a warp's own to
 * block it for; one that someone else makes has as many such parts as he wants.
 * An element of the left operand is the same for all lanes; the right operand
 * is read where it lies, consecutive lanes at consecutive columns or, of one
 * that runs along its depth, each lane down a row of its own, whose lines then
 * serve the depths that follow. The sums go to scratch, where finish.c takes
 * them from.
 *
 * Products of bf16 that are none for teams (team.c) are summed in tiles, too,
 * where the target has them: an item is two by two, and operands are taken from
 * where they lie, whichever way, but for rows that are gathered. */
#include "codegen.h"

enum {
  ROWS = 8,
  VECTORS = 2,
  PARTS = 4, /* vectors of one lane a thread, done at once */
  ALL = 1 << 30 /* depth of a block */
};

typedef struct Warps {
  CtItem at; /* the first member */
  Dtype sum;
  int lanes, vectors; /* of `sum`; of columns, that are done at once */
  KBase base[CT_OUT];
} Warps;

static KVal *cast_to(KBuild *b, KVal *v, Dtype dtype) {
  return v->dtype == dtype ? v : kb_scalar(b, OP_cast, dtype, &v, 1);
}

/* As the product has it, to be summed. */
static KVal *operand(const Warps *w, KVal *v) {
  KBuild *b = w->at.b;
  return cast_to(b, cast_to(b, v, w->at.p->dtype), w->sum);
}

/* How a vector of the right operand is read. */
typedef struct Column {
  KVal *at;      /* its first lane's, at depth 0 */
  KVal *offsets; /* of all lanes; NULL: they are consecutive */
  KVal *count;   /* lanes that there are */
} Column;

static Column column_at(Warps *w, KVal *n) {
  KBuild *b = w->at.b;
  const CtProduct *p = w->at.p;
  int64_t stride = p->n.stride[CT_RIGHT];
  Column c = {.count = ct_count(b, n, w->at.n_end, w->lanes)};
  bool whole = p->n.size % w->at.cols == 0;
  if (whole) c.count = kb_index(b, w->lanes);
  if (stride == 1) {
    c.at = ct_at(b, w->at.offset[CT_RIGHT], n, stride);
    return c;
  }
  /* Lanes past the end read the last column. */
  KVal *last = kb_alu_c(b, A_SUB, w->at.n_end, 1);
  KVal *first = kb_alu(b, A_MIN, n, last);
  KVal *most = kb_to_i32(b, kb_alu(b, A_SUB, last, first));
  KVal *lanes = kb_lanes(b, kb_const(b, DT_i32, 0), w->lanes);
  if (!whole) lanes = kb_op2(b, OP_min, lanes, most);
  c.at = ct_at(b, w->at.offset[CT_RIGHT], first, stride);
  c.offsets =
      kb_op2(b, OP_mul, lanes, kb_const(b, DT_i32, (double)stride));
  return c;
}

/* Where the operand has its depth k. */
static KVal *depth_of(Warps *w, int side, KVal *k) {
  return w->at.p->ragged_k ? ct_row(w->at.b, w->at.task, side, k) : k;
}

static KVal *load_column(Warps *w, const Column *c, KVal *k) {
  KBuild *b = w->at.b;
  KBase base = w->base[CT_RIGHT];
  KVal *at = ct_at(b, c->at, k, w->at.p->k.stride[CT_RIGHT]);
  KVal *v = c->offsets ? kb_gather(b, base, at, c->offsets)
                       : kb_load_some(b, base, at, c->count, w->lanes);
  return operand(w, v);
}

/* What a sum starts from: what there is of it, where depth comes by blocks. */
static KVal *start_from(Warps *w, const CtSums *s, KVal *at) {
  KBuild *b = w->at.b;
  if (w->at.fresh) return kb_load(b, s->base, at, w->lanes);
  return kb_splat(b, kb_const(b, w->sum, 0), w->lanes);
}

/* Where row i and vector v of a part are, of sums `to` on. */
static KVal *part_at(KBuild *b, const CtSums *s, KVal *to, int i, int v) {
  return kb_alu_c(b, A_ADD, to, i * s->width + v * s->panel);
}

/* Rows from m on, columns from n on; rows past the last are that one again. */
static void sum_part(Warps *w, const CtSums *s, KVal *m, KVal *n) {
  KBuild *b = w->at.b;
  const CtProduct *p = w->at.p;
  KVal *from[ROWS], *start[ROWS][PARTS], *acc[ROWS][PARTS], *right[PARTS];
  Column columns[PARTS];
  KVal *last = kb_alu_c(b, A_SUB, w->at.m_end, 1);
  KVal *to = ct_at(b, s->at, kb_alu(b, A_SUB, m, w->at.m_lo), s->width);
  to = ct_at(b, to, kb_alu(b, A_SUB, n, w->at.n_lo), s->panel / s->width);
  for (int i = 0; i < ROWS; i++) {
    KVal *row = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, m, i), last);
    if (!p->ragged_k) row = ct_row(b, w->at.task, CT_LEFT, row);
    from[i] = ct_at(b, w->at.offset[CT_LEFT], row, p->m.stride[CT_LEFT]);
    for (int v = 0; v < w->vectors; v++)
      start[i][v] = start_from(w, s, part_at(b, s, to, i, v));
  }
  for (int v = 0; v < w->vectors; v++)
    columns[v] = column_at(w, kb_alu_c(b, A_ADD, n, (int64_t)v * w->lanes));
  KVal *loop = kb_for(b, w->at.k_lo, w->at.k_hi, 1), *k = kb_iv(b, loop);
  for (int i = 0; i < ROWS; i++)
    for (int v = 0; v < w->vectors; v++)
      acc[i][v] = kb_acc(b, loop, start[i][v]);
  KVal *depth = depth_of(w, CT_RIGHT, k);
  for (int v = 0; v < w->vectors; v++)
    right[v] = load_column(w, &columns[v], depth);
  depth = depth_of(w, CT_LEFT, k);
  for (int i = 0; i < ROWS; i++) {
    KVal *at = ct_at(b, from[i], depth, p->k.stride[CT_LEFT]);
    KVal *left = operand(w, kb_load(b, w->base[CT_LEFT], at, 1));
    for (int v = 0; v < w->vectors; v++)
      kb_next(b, acc[i][v], kb_fma(b, left, right[v], acc[i][v]));
  }
  kb_end(b);
  for (int i = 0; i < ROWS; i++)
    for (int v = 0; v < w->vectors; v++)
      kb_store(b, s->base, part_at(b, s, to, i, v), kb_result(b, acc[i][v]));
}

/* Sums that more is added to in every block of depth start at 0. */
static void clear(Warps *w, const CtSums *s, int64_t elements) {
  KBuild *b = w->at.b;
  kb_if(b, w->at.fresh);
  KVal *loop =
      kb_for(b, kb_index(b, 0), kb_index(b, elements), w->lanes);
  kb_store(b, s->base, kb_iv(b, loop),
           kb_splat(b, kb_const(b, w->sum, 0), w->lanes));
  kb_end(b);
  kb_end(b);
}

/* All parts of an item, which for a product of its own is one. */
static void block(CtItem *t) {
  Warps *w = (Warps *)t;
  KBuild *b = t->b;
  int64_t step = (int64_t)w->vectors * w->lanes, rows = t->rows;
  rows = (rows + ROWS - 1) / ROWS * ROWS;
  CtSums s = {kb_scratch(b, w->sum, rows * t->cols), w->lanes, w->lanes,
              rows * w->lanes, kb_index(b, 0)};
  bool down = rows > ROWS, along = t->cols > step;
  KVal *m = t->m_lo, *n = t->n_lo;
  if (t->fresh) clear(w, &s, rows * t->cols);
  if (down) m = kb_iv(b, kb_for(b, t->m_lo, t->m_end, ROWS));
  if (along) n = kb_iv(b, kb_for(b, t->n_lo, t->n_end, step));
  sum_part(w, &s, m, n);
  for (int open = along + down; open; open--)
    kb_end(b);
  t->done->sums(t, &s);
}

/* The same with columns by whole `least` lanes, however many he sets. */
static void block_of_parts(CtItem *t) {
  Warps *w = (Warps *)t;
  int64_t all = t->cols / w->lanes;
  w->vectors = PARTS;
  while (all % w->vectors)
    w->vectors--;
  block(t);
}

/* ---- tiles --------------------------------------------------------------- */

enum { TILE = 16, DEEP = 32, SIDE = 2, LEFT_TILES = 4, RIGHT_TILES = 6 };

/* The operands' tiles at depth k, of which there is `depth`, and their products
 * added. */
static void add_tiles(Warps *w, KVal *k, KVal *depth) {
  KBuild *b = w->at.b;
  const CtProduct *p = w->at.p;
  for (int side = CT_LEFT; side <= CT_RIGHT; side++) {
    const CtLetter *row = side == CT_LEFT ? &p->m : &p->n;
    KVal *lo = side == CT_LEFT ? w->at.m_lo : w->at.n_lo;
    KVal *end = side == CT_LEFT ? w->at.m_end : w->at.n_end;
    KVal *at = ct_at(b, w->at.offset[side], lo, row->stride[side]);
    at = ct_at(b, at, k, p->k.stride[side]);
    KVal *last = kb_alu_c(b, A_SUB, kb_alu(b, A_SUB, end, lo), 1);
    for (int i = 0; i < SIDE; i++)
      kb_tile_take(b, (side == CT_LEFT ? LEFT_TILES : RIGHT_TILES) + i,
                   side == CT_RIGHT, w->base[side],
                   kb_alu_c(b, A_ADD, at, i * TILE * row->stride[side]),
                   kb_alu_c(b, A_SUB, last, i * TILE), depth,
                   row->stride[side], p->k.stride[side]);
  }
  for (int i = 0; i < SIDE * SIDE; i++)
    kb_tile_dot(b, i, LEFT_TILES + i / SIDE, RIGHT_TILES + i % SIDE);
}

static void block_of_tiles(CtItem *t) {
  Warps *w = (Warps *)t;
  KBuild *b = t->b;
  KBase sums = kb_scratch(b, DT_f32, t->rows * t->cols);
  for (int i = 0; i < SIDE * SIDE; i++)
    kb_tile_zero(b, i);
  KVal *depth = kb_alu(b, A_SUB, t->k_hi, t->k_lo);
  KVal *whole = kb_alu_c(b, A_MUL, kb_alu_c(b, A_DIV, depth, DEEP), DEEP);
  KVal *mid = kb_alu(b, A_ADD, t->k_lo, whole);
  KVal *loop = kb_for(b, t->k_lo, mid, DEEP);
  add_tiles(w, kb_iv(b, loop), kb_index(b, DEEP));
  kb_end(b);
  KVal *rest = kb_alu(b, A_SUB, t->k_hi, mid);
  if (rest->kind != K_INDEX || rest->number) {
    kb_if(b, kb_alu(b, A_LT, kb_index(b, 0), rest));
    add_tiles(w, mid, rest);
    kb_end(b);
  }
  for (int i = 0; i < SIDE * SIDE; i++)
    kb_tile_store(b, i, sums,
                  kb_index(b, (i / SIDE * t->cols + i % SIDE) * TILE), t->cols);
  t->done->sums(t, &(CtSums){sums, t->cols, t->cols, t->rows * t->cols,
                             kb_index(t->b, 0)});
}

static bool in_tiles(const Warps *w, const Isa *isa) {
  const Node *const *rows = w->at.task->rows;
  return isa->has & KN_MMA && w->at.p->dtype == DT_bf16 && !rows[CT_LEFT] &&
         !rows[CT_RIGHT] &&
         w->base[CT_LEFT].dtype == DT_bf16 &&
         w->base[CT_RIGHT].dtype == DT_bf16;
}

static void set_operands(Warps *w, const CtTask *task) {
  w->base[CT_LEFT] = ct_operand(task, CT_LEFT);
  w->base[CT_RIGHT] = ct_operand(task, CT_RIGHT);
}

CtItem *ct_warps_item(Ctx *cx, KBuild *b, const CtTask *task, const Isa *isa) {
  Warps *w = NEW(&cx->scratch, Warps);
  w->sum = dtype_info[task->p.dtype].sums;
  w->lanes = isa->least;
  w->at = (CtItem){.b = b,
                   .task = task,
                   .p = &task->p,
                   .rows = ROWS,
                   .cols = (int64_t)PARTS * w->lanes,
                   .depth = ALL,
                   .warps = w->lanes,
                   .block = block_of_parts};
  set_operands(w, task);
  return &w->at;
}

Kernel *ct_warps(Ctx *cx, const CtTask *task, const Isa *isa) {
  const Node *n = task->n;
  const CtProduct *p = &task->p;
  KBuild *b = kb_new(cx, "contract", (int)(n->ins.len + n->outs.len),
                     (int)n->outs.len);
  Warps *w = NEW(&cx->scratch, Warps);
  w->sum = dtype_info[p->dtype].sums;
  int lanes = cg_lanes(isa, p->n.size, w->sum == DT_f64);
  w->lanes = lanes * 4 / (int)dtype_info[w->sum].bytes;
  w->vectors = p->n.size > w->lanes ? VECTORS : 1;
  w->at = (CtItem){.b = b,
                   .task = task,
                   .p = p,
                   .rows = ROWS,
                   .cols = (int64_t)w->vectors * w->lanes,
                   .depth = ALL,
                   .warps = lanes,
                   .block = block};
  set_operands(w, task);
  if (in_tiles(w, isa)) {
    w->at.rows = w->at.cols = SIDE * TILE;
    w->at.block = block_of_tiles;
    if (lanes > w->at.cols) lanes = (int)w->at.cols;
  }
  ct_finish_of(cx, &w->at, lanes);
  return ct_items(&w->at);
}
