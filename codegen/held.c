/* held.c: products in a loop whose right operand stays on the chip.
 *
 * Each block has some columns of the result and keeps those of the right
 * operand in its shared memory: a first stage brings them there, once, and
 * every turn only reads the left operand. The warps of a block share the depth,
 * for there is little else to share where rows are few, and a turn is over as
 * soon as the longest chain of instructions is. Their sums meet in scratch:
 *
 *   stage %block in 96 team 8 once:  held[column][k] = right[k][column]
 *   stage %block in 96 team 8:
 *     for 16 rows: each warp, its part of the depth: tiles of left x held
 *                  meet; each warp, 2 of the rows: sum of 8, to the result
 *
 * In bf16 a column's depth lies side by side, as tiles of operands want it, 16
 * bytes more than it takes, so that eight of them are in different banks. In
 * other dtypes a lane has a column, and these lie side by side. */
#include "persist.h"

enum {
  TILE = 16,
  DEEP = 32,
  PAD = 8,       /* elements behind a column */
  MOST_SUMS = 8, /* tiles or, of each row, vectors */
  TILES = 24,
  AHEAD = 4,     /* depths whose left operand is asked for at once */
  ROWS = PS_WARPS,
  LANES = 32
};

typedef struct Held {
  KBuild *b;
  const CtHeld *how;
  CtProduct p;
  Dtype sum;
  KBase from[CT_SIDES]; /* operands, and the result */
  KBase kept;
  int64_t rows; /* that are summed at once */
  KVal *n_lo, *n_end;
  KBase sums; /* by warp, by row */
} Held;

static int64_t up(int64_t x, int64_t step) {
  return (x + step - 1) / step * step;
}

/* ---- what fits ----------------------------------------------------------- */

const char *ct_held_by(const Node *n, const Isa *isa, CtHeld *out) {
  CtProduct p;
  if (!ir_product(n, &p) || p.groups || p.batch.size != 1)
    return "a product is not one of two matrices";
  if (p.n.size > 1 && p.n.stride[CT_OUT] != 1)
    return "a product's columns do not lie side by side";
  if (n->outs.data[0]->type.dtype != dtype_info[p.dtype].sums)
    return "a product's sums are rounded";
  out->tiles = p.dtype == DT_bf16 && isa->has & KN_MMA;
  int64_t step = out->tiles ? TILE : LANES;
  int64_t most = MOST_SUMS * step / (out->tiles ? 1 : 2);
  out->cols = up((p.n.size + isa->cores - 1) / isa->cores, step);
  out->blocks = (p.n.size + out->cols - 1) / out->cols;
  out->dtype = out->tiles ? p.dtype : dtype_info[p.dtype].sums;
  out->run = out->tiles ? up(p.k.size, DEEP) + PAD : out->cols;
  out->elements = out->run * (out->tiles ? out->cols : p.k.size);
  out->bytes = out->elements * dtype_info[out->dtype].bytes;
  return out->cols > most ? "a product has too many columns" : NULL;
}

/* ---- keeping ------------------------------------------------------------- */

/* Lanes of the right operand from element `at` on, `step` elements apart: the
 * first `count` of them, one at least where they are apart. */
static KVal *fetch(Held *h, KVal *at, int64_t step, KVal *count) {
  KBuild *b = h->b;
  if (step == 1)
    return kb_load_some(b, h->from[CT_RIGHT], at, count, LANES);
  KVal *last = kb_to_i32(b, kb_alu_c(b, A_SUB, count, 1));
  KVal *lanes = kb_lanes(b, kb_const(b, DT_i32, 0), LANES);
  lanes = kb_op2(b, OP_min, lanes, kb_splat(b, last, LANES));
  lanes = kb_op2(b, OP_mul, lanes, kb_const(b, DT_i32, (double)step));
  return kb_gather(b, h->from[CT_RIGHT], at, lanes);
}

/* A column a warp, and zeros to the end of its last tile. */
static void keep_columns(Held *h) {
  KBuild *b = h->b;
  const CtProduct *p = &h->p;
  KVal *first = kb_alu(b, A_ADD, h->n_lo, kb_warp(b));
  KVal *n = kb_iv(b, kb_for(b, first, h->n_end, PS_WARPS));
  KVal *end = kb_index(b, p->k.size);
  KVal *k = kb_iv(b, kb_for(b, kb_index(b, 0), end, DEEP));
  KVal *to = ct_at(b, k, kb_alu(b, A_SUB, n, h->n_lo), h->how->run);
  KVal *at = ct_at(b, kb_index(b, 0), n, p->n.stride[CT_RIGHT]);
  at = ct_at(b, at, k, p->k.stride[CT_RIGHT]);
  KVal *count = kb_index(b, DEEP);
  if (p->k.size % DEEP) {
    count = ct_count(b, k, end, DEEP);
    kb_store(b, h->kept, to, kb_splat(b, kb_const(b, p->dtype, 0), LANES));
  }
  KVal *v = fetch(h, at, p->k.stride[CT_RIGHT], count);
  kb_store_some(b, h->kept, to, count, v);
  kb_end(b);
  kb_end(b);
}

/* A depth a warp, lanes side by side; those past the last column have
 * something. */
static void keep_depths(Held *h) {
  KBuild *b = h->b;
  const CtProduct *p = &h->p;
  KVal *last = kb_index(b, p->n.size - 1);
  KVal *depth = kb_for(b, kb_warp(b), kb_index(b, p->k.size), PS_WARPS);
  KVal *k = kb_iv(b, depth);
  for (int64_t v = 0; v < h->how->cols; v += LANES) {
    KVal *n = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, h->n_lo, v), last);
    KVal *at = ct_at(b, kb_index(b, 0), k, p->k.stride[CT_RIGHT]);
    at = ct_at(b, at, n, p->n.stride[CT_RIGHT]);
    KVal *count = ct_count(b, n, kb_index(b, p->n.size), LANES);
    KVal *x = fetch(h, at, p->n.stride[CT_RIGHT], count);
    if (x->dtype != h->sum) x = kb_scalar(b, OP_cast, h->sum, &x, 1);
    kb_store(b, h->kept, ct_at(b, kb_index(b, v), k, h->how->run), x);
  }
  kb_end(b);
}

/* ---- sums ---------------------------------------------------------------- */

/* The warp's part of the depth, by whole steps. */
static void own_depth(Held *h, int64_t step, KVal **lo, KVal **hi) {
  KBuild *b = h->b;
  KVal *end = kb_index(b, h->p.k.size);
  int64_t part = up((h->p.k.size + PS_WARPS - 1) / PS_WARPS, step);
  KVal *from = kb_alu_c(b, A_MUL, kb_warp(b), part);
  *lo = kb_alu(b, A_MIN, from, end);
  *hi = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, from, part), end);
}

/* lo and as many whole steps as there are in front of hi. */
static KVal *whole_steps(KBuild *b, KVal *lo, KVal *hi, int64_t step) {
  KVal *n = kb_alu_c(b, A_DIV, kb_alu(b, A_SUB, hi, lo), step);
  return kb_alu(b, A_ADD, lo, kb_alu_c(b, A_MUL, n, step));
}

/* Elements of the sums in front of this warp's. */
static KVal *own_sums(Held *h) {
  return kb_alu_c(h->b, A_MUL, kb_warp(h->b), h->rows * h->how->cols);
}

/* Tiles of the left operand at `n` depths from k on, asked for one behind the
 * other, times those that are kept; of the last one there is `depth`. */
static void add_tiles(Held *h, KVal *m, KVal *k, int n, KVal *depth) {
  KBuild *b = h->b;
  const CtProduct *p = &h->p;
  int high = (int)(h->rows / TILE), wide = (int)(h->how->cols / TILE);
  int left = high * wide, right = left + n * high;
  KVal *at = ct_at(b, kb_index(b, 0), m, p->m.stride[CT_LEFT]);
  at = ct_at(b, at, k, p->k.stride[CT_LEFT]);
  KVal *last = kb_alu(b, A_SUB, kb_index(b, p->m.size - 1), m);
  for (int d = 0; d < n; d++)
    for (int i = 0; i < high; i++)
      kb_tile_take(b, left + d * high + i, false, h->from[CT_LEFT],
                   kb_alu_c(b, A_ADD, at,
                            d * DEEP * p->k.stride[CT_LEFT] +
                                i * TILE * p->m.stride[CT_LEFT]),
                   kb_alu_c(b, A_SUB, last, (int64_t)i * TILE), depth,
                   p->m.stride[CT_LEFT], p->k.stride[CT_LEFT]);
  bool whole = p->n.size % h->how->cols == 0;
  KVal *columns = kb_alu_c(b, A_SUB, kb_alu(b, A_SUB, h->n_end, h->n_lo), 1);
  int64_t run = h->how->run;
  for (int d = 0; d < n; d++)
    for (int j = 0; j < wide; j++) {
      KVal *most = whole ? kb_index(b, TILE - 1)
                         : kb_alu_c(b, A_SUB, columns, (int64_t)j * TILE);
      kb_tile_take(b, right, true, h->kept,
                   kb_alu_c(b, A_ADD, k, j * TILE * run + d * DEEP), most,
                   kb_index(b, DEEP), run, 1);
      for (int i = 0; i < high; i++)
        kb_tile_dot(b, i * wide + j, left + d * high + i, right);
    }
}

static void sum_tiles(Held *h, KVal *m) {
  KBuild *b = h->b;
  int high = (int)(h->rows / TILE), wide = (int)(h->how->cols / TILE);
  int ahead = (TILES - high * wide - 1) / high;
  KVal *lo, *hi;
  if (ahead > AHEAD) ahead = AHEAD;
  own_depth(h, DEEP, &lo, &hi);
  for (int i = 0; i < high * wide; i++)
    kb_tile_zero(b, i);
  KVal *many = whole_steps(b, lo, hi, (int64_t)ahead * DEEP);
  KVal *mid = whole_steps(b, many, hi, DEEP), *deep = kb_index(b, DEEP);
  add_tiles(h, m, kb_iv(b, kb_for(b, lo, many, (int64_t)ahead * DEEP)), ahead,
            deep);
  kb_end(b);
  add_tiles(h, m, kb_iv(b, kb_for(b, many, mid, DEEP)), 1, deep);
  kb_end(b);
  if (h->p.k.size % DEEP) {
    KVal *rest = kb_alu(b, A_SUB, hi, mid);
    kb_if(b, kb_alu(b, A_LT, kb_index(b, 0), rest));
    add_tiles(h, m, mid, 1, rest);
    kb_end(b);
  }
  for (int i = 0; i < high * wide; i++)
    kb_tile_store(b, i, h->sums,
                  kb_alu_c(b, A_ADD, own_sums(h),
                           (i / wide * h->how->cols + i % wide) * TILE),
                  h->how->cols);
}

/* acc[row][vector] with `n` depths from k on. */
static void add_lanes(Held *h, KVal *const *rows, KVal *k, int n, KVal **acc) {
  KBuild *b = h->b;
  int wide = (int)(h->how->cols / LANES);
  KVal *left[AHEAD][ROWS];
  for (int d = 0; d < n; d++)
    for (int i = 0; i < ROWS; i++) {
      KVal *at = kb_alu_c(b, A_ADD, k, d);
      at = ct_at(b, rows[i], at, h->p.k.stride[CT_LEFT]);
      KVal *x = kb_load(b, h->from[CT_LEFT], at, 1);
      if (x->dtype != h->sum) x = kb_scalar(b, OP_cast, h->sum, &x, 1);
      left[d][i] = x;
    }
  int64_t run = h->how->run;
  for (int d = 0; d < n; d++)
    for (int v = 0; v < wide; v++) {
      KVal *at = ct_at(b, kb_index(b, d * run + v * LANES), k, run);
      KVal *right = kb_load(b, h->kept, at, LANES);
      for (int i = 0; i < ROWS; i++)
        acc[i * wide + v] = kb_fma(b, left[d][i], right, acc[i * wide + v]);
    }
}

/* The same in a loop over [lo, hi). */
static void loop_lanes(Held *h, KVal *const *rows, KVal *lo, KVal *hi, int n,
                       KVal **acc) {
  enum { MOST = ROWS * MOST_SUMS };
  KBuild *b = h->b;
  int all = ROWS * (int)(h->how->cols / LANES);
  KVal *loop = kb_for(b, lo, hi, n), *in[MOST], *next[MOST];
  for (int i = 0; i < all; i++)
    next[i] = in[i] = kb_acc(b, loop, acc[i]);
  add_lanes(h, rows, kb_iv(b, loop), n, next);
  for (int i = 0; i < all; i++)
    kb_next(b, in[i], next[i]);
  kb_end(b);
  for (int i = 0; i < all; i++)
    acc[i] = kb_result(b, in[i]);
}

static void sum_lanes(Held *h, KVal *m) {
  KBuild *b = h->b;
  int wide = (int)(h->how->cols / LANES);
  KVal *rows[ROWS], *acc[ROWS * MOST_SUMS], *lo, *hi;
  KVal *last = kb_index(b, h->p.m.size - 1);
  own_depth(h, 1, &lo, &hi);
  for (int i = 0; i < ROWS; i++) {
    KVal *row = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, m, i), last);
    rows[i] = ct_at(b, kb_index(b, 0), row, h->p.m.stride[CT_LEFT]);
    for (int v = 0; v < wide; v++)
      acc[i * wide + v] = kb_splat(b, kb_const(b, h->sum, 0), LANES);
  }
  KVal *mid = whole_steps(b, lo, hi, AHEAD);
  loop_lanes(h, rows, lo, mid, AHEAD, acc);
  loop_lanes(h, rows, mid, hi, 1, acc);
  for (int i = 0; i < ROWS * wide; i++)
    kb_store(b, h->sums,
             kb_alu_c(b, A_ADD, own_sums(h),
                      i / wide * h->how->cols + i % wide * LANES),
             acc[i]);
}

/* All warps' sums of this warp's rows, in their order, to the result. */
static void add_up(Held *h, KVal *m) {
  KBuild *b = h->b;
  const CtProduct *p = &h->p;
  int64_t own = h->rows / PS_WARPS, part = h->rows * h->how->cols;
  KVal *first = kb_alu_c(b, A_MUL, kb_warp(b), own);
  KVal *end = kb_alu(b, A_SUB, kb_index(b, p->m.size), m);
  end = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, first, own), end);
  KVal *row = kb_iv(b, kb_for(b, first, end, 1));
  for (int64_t v = 0; v < h->how->cols; v += LANES) {
    KVal *n = kb_alu_c(b, A_ADD, h->n_lo, v);
    KVal *count = ct_count(b, n, h->n_end, LANES), *sum = NULL;
    KVal *at = kb_alu_c(b, A_MUL, row, h->how->cols);
    for (int w = 0; w < PS_WARPS; w++) {
      KVal *from = kb_alu_c(b, A_ADD, at, w * part + v);
      KVal *x = kb_load_some(b, h->sums, from, count, LANES);
      sum = sum ? kb_op2(b, OP_add, sum, x) : x;
    }
    KVal *to = ct_at(b, n, kb_alu(b, A_ADD, m, row), p->m.stride[CT_OUT]);
    kb_store_some(b, h->from[CT_OUT], to, count, sum);
  }
  kb_end(b);
}

/* ---- the kernel ---------------------------------------------------------- */

static void open_block(Held *h) {
  KBuild *b = h->b;
  KVal *block = kb_stage(b, h->how->blocks, 1);
  kb_team(b, PS_WARPS);
  h->n_lo = kb_alu_c(b, A_MUL, block, h->how->cols);
  h->n_end = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, h->n_lo, h->how->cols),
                    kb_index(b, h->p.n.size));
}

static void multiply(Held *h) {
  KBuild *b = h->b;
  bool loops = h->p.m.size > h->rows;
  KVal *m = kb_index(b, 0);
  h->sums = kb_scratch(b, h->sum, PS_WARPS * h->rows * h->how->cols);
  if (loops) m = kb_iv(b, kb_for(b, m, kb_index(b, h->p.m.size), h->rows));
  if (loops) kb_meet(b, 0); /* the sums before are done with */
  (h->how->tiles ? sum_tiles : sum_lanes)(h, m);
  kb_meet(b, 0);
  add_up(h, m);
  if (loops) kb_end(b);
}

/* Rows of tiles that are summed at once: as registers allow and there are. */
static int64_t rows_of(const CtProduct *p, const CtHeld *how) {
  if (!how->tiles) return ROWS;
  int64_t high = MOST_SUMS * TILE / how->cols, all = up(p->m.size, TILE);
  return high * TILE < all ? high * TILE : all;
}

Kernel *ct_held(Ctx *cx, const Node *n, const CtHeld *how) {
  Held h = {.b = kb_new(cx, "held", (int)(n->ins.len + n->outs.len),
                        (int)n->outs.len),
            .how = how};
  if (!ir_product(n, &h.p)) internal_error("no product to hold");
  h.sum = dtype_info[h.p.dtype].sums;
  for (int side = CT_LEFT; side <= CT_RIGHT; side++)
    h.from[side] = kb_arg(h.p.arg[side], h.p.dtype);
  h.from[CT_OUT] = kb_arg((int)n->ins.len, h.sum);
  h.rows = rows_of(&h.p, how);
  h.kept = kb_held(h.b, how->dtype, how->elements);
  open_block(&h);
  kb_once(h.b);
  (how->tiles ? keep_columns : keep_depths)(&h);
  kb_end(h.b);
  open_block(&h);
  multiply(&h);
  kb_end(h.b);
  return kb_finish(h.b);
}
