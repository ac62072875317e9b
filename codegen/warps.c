/* warps.c: products where a vector is a warp.
 *
 * An item is a few rows by one or two vectors of columns, summed in registers
 * over all of its depth in one go, for there is no cache of a warp's own to
 * block it for. An element of the left operand is the same for all lanes; the
 * right operand is read where it lies, consecutive lanes at consecutive columns
 * or, of one that runs along its depth, each lane down a row of its own, whose
 * lines then serve the depths that follow. The sums go to scratch, where
 * finish.c takes them from.
 *
 * Products of bf16 are summed in tiles where the target has them: an item is
 * two by two, and operands are taken from where they lie, whichever way. */
#include "codegen.h"

enum {
  ROWS = 8,
  VECTORS = 2,
  ALL = 1 << 30 /* depth of a block */
};

typedef struct Warps {
  CtItem at; /* the first member */
  Dtype sum;
  int lanes, vectors; /* of `sum`; of columns */
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

static KVal *load_column(Warps *w, const Column *c, KVal *k) {
  KBuild *b = w->at.b;
  KBase base = w->base[CT_RIGHT];
  KVal *at = ct_at(b, c->at, k, w->at.p->k.stride[CT_RIGHT]);
  KVal *v = c->offsets ? kb_gather(b, base, at, c->offsets)
                       : kb_load_some(b, base, at, c->count, w->lanes);
  return operand(w, v);
}

/* Rows from m on, columns from n on; rows past the last are that one again. */
static void sum_block(Warps *w, KBase sums, KVal *to, KVal *m, KVal *n) {
  KBuild *b = w->at.b;
  const CtProduct *p = w->at.p;
  KVal *from[ROWS], *acc[ROWS][VECTORS], *right[VECTORS];
  Column columns[VECTORS];
  KVal *last = kb_alu_c(b, A_SUB, w->at.m_end, 1);
  for (int i = 0; i < ROWS; i++) {
    KVal *row = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, m, i), last);
    from[i] = ct_at(b, w->at.offset[CT_LEFT], row, p->m.stride[CT_LEFT]);
  }
  for (int v = 0; v < w->vectors; v++)
    columns[v] = column_at(w, kb_alu_c(b, A_ADD, n, (int64_t)v * w->lanes));
  KVal *loop = kb_for(b, w->at.k_lo, w->at.k_hi, 1), *k = kb_iv(b, loop);
  KVal *zero = kb_splat(b, kb_const(b, w->sum, 0), w->lanes);
  for (int i = 0; i < ROWS; i++)
    for (int v = 0; v < w->vectors; v++)
      acc[i][v] = kb_acc(b, loop, zero);
  for (int v = 0; v < w->vectors; v++)
    right[v] = load_column(w, &columns[v], k);
  for (int i = 0; i < ROWS; i++) {
    KVal *at = ct_at(b, from[i], k, p->k.stride[CT_LEFT]);
    KVal *left = operand(w, kb_load(b, w->base[CT_LEFT], at, 1));
    for (int v = 0; v < w->vectors; v++)
      kb_next(b, acc[i][v], kb_fma(b, left, right[v], acc[i][v]));
  }
  kb_end(b);
  for (int i = 0; i < ROWS; i++)
    for (int v = 0; v < w->vectors; v++)
      kb_store(b, sums,
               kb_alu_c(b, A_ADD, to, (i * w->vectors + v) * w->lanes),
               kb_result(b, acc[i][v]));
}

/* An item is one block, in one go. */
static void block(CtItem *t) {
  Warps *w = (Warps *)t;
  KBase sums = kb_scratch(t->b, w->sum, t->rows * t->cols);
  sum_block(w, sums, kb_index(t->b, 0), t->m_lo, t->n_lo);
  t->done->sums(t, &(CtSums){sums, t->cols, t->rows * t->cols,
                             kb_index(t->b, 0)});
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
  t->done->sums(t, &(CtSums){sums, t->cols, t->rows * t->cols,
                             kb_index(t->b, 0)});
}

static bool in_tiles(const Warps *w, const Isa *isa) {
  return isa->has & KN_MMA && w->at.p->dtype == DT_bf16 &&
         w->base[CT_LEFT].dtype == DT_bf16 &&
         w->base[CT_RIGHT].dtype == DT_bf16;
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
  w->base[CT_LEFT] = ct_operand(task, CT_LEFT);
  w->base[CT_RIGHT] = ct_operand(task, CT_RIGHT);
  if (in_tiles(w, isa)) {
    w->at.rows = w->at.cols = SIDE * TILE;
    w->at.block = block_of_tiles;
    if (lanes > w->at.cols) lanes = (int)w->at.cols;
  }
  ct_finish_of(cx, &w->at, lanes);
  return ct_items(&w->at);
}
