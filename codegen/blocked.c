/* blocked.c: products as a register-blocked kernel.
 *
 * The kernel is 12 rows by two vectors of sums, over panels of the right
 * operand that are first packed into scratch, so that it is the same whichever
 * way that operand lies. Depth is cut into blocks; the sums wait in scratch
 * between them, which changes no bit of them, and for finish.c.
 *
 * Where many experts have few rows each, what a product takes is the reading of
 * their weights, once, from memory. An item then is all columns of an expert,
 * up to a page of them, and goes through its weights in the order in which they
 * lie: a block of them is multiplied while the next is asked for line by line,
 * in order too, which is what lets the hardware fetch ahead. A right operand
 * that runs along its columns is not packed but read in place, some 100 KiB at
 * a time; of one that runs along its depth a panel is packed and multiplied,
 * then the next. (Of 256 experts of 32 rows, 512 by 1024: 18 ms in place, 20
 * panel by panel, 25 packed as blocks.)
 *
 * Where such rows are depth, what takes time is the memory of the result, and
 * of what a fused launch reads with it: weights and their moments. Sums are
 * handed on strip by strip, and while those of one are made some of what they
 * will be read with is asked for. (The same experts' gradients with Adam: 45 ms
 * without, 42 with; asking for more at a time, or for what the next strip is
 * read with, gains less.) */
#include "codegen.h"

enum {
  ROW_BLOCK = 192, /* rows of an item */
  COL_BLOCK = 256, /* columns of an item, at most */
  DEPTH = 256,     /* k of a packed panel */
  REST_ROWS = 4,   /* rows of the kernel for what is left of a block */
  AHEAD = 8, /* rows that packing asks for ahead of time */
  MAX_LANES = 16,
  LINE = 64, /* bytes of the caches */
  PLACE_DEPTH = 32, /* k of a block that is read in place, */
  PANEL_DEPTH = 128, /* and of a panel that is packed alone */
  STRIP = 36         /* rows of a strip, where nothing is read with them */
};

/* How the right operand comes to the kernel. */
typedef enum Way {
  WAY_BLOCK, /* packed, all panels of a block of depth */
  WAY_PANEL, /* packed, one panel after the other */
  WAY_PLACE  /* read as it lies */
} Way;

/* ---- the register-blocked kernel ---------------------------------------- */

typedef struct Gen {
  CtItem at;        /* the first member */
  Dtype sum;        /* dtype of sums and panels */
  int lanes, width; /* of `sum`; columns of a panel */
  int rows;         /* of the kernel */
  KBase base[CT_OUT];
  KBase right; /* packed [panel][k - k_lo][width] */
  KBase sums;  /* [panel][row - first_row][width] */
  KVal *first_row;
  int64_t sum_rows; /* there is room for */
  Way way;
  bool asks; /* for what the right operand has next */
  KVal *first; /* the column that `right` starts with */
  KVal *top;   /* WAY_PANEL: the item's k_lo; k_lo is that of a part of it */
  int with;    /* which of those operands this panel asks for */
  KBase left;  /* packed rows [k - k_lo][row - first_left], where packs_left */
  KVal *first_left; /* and their first row */
  bool packs_left;  /* the left operand's depth is not contiguous */
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
  if (side == CT_LEFT && !g->at.p->ragged_k)
    row = ct_row(g->at.b, g->at.task, side, row);
  return ct_at(g->at.b, g->at.offset[side], row, g->at.p->m.stride[side]);
}

/* Where row k of the panel that column n is in is packed. */
static KVal *packed_at(Gen *g, KVal *n, KVal *k) {
  KBuild *b = g->at.b;
  KVal *panel = kb_alu_c(b, A_MUL, kb_alu(b, A_SUB, n, g->first), DEPTH);
  return ct_at(b, panel, kb_alu(b, A_SUB, k, g->at.k_lo), g->width);
}

/* Row k of an operand, where rows are depth. */
static KVal *depth_at(Gen *g, int side, KVal *k) {
  return g->at.p->ragged_k ? ct_row(g->at.b, g->at.task, side, k) : k;
}

static KVal *right_at(Gen *g, KVal *n, KVal *k) {
  const CtProduct *p = g->at.p;
  k = depth_at(g, CT_RIGHT, k);
  KVal *at = ct_at(g->at.b, g->at.offset[CT_RIGHT], k, p->k.stride[CT_RIGHT]);
  return ct_at(g->at.b, at, n, p->n.stride[CT_RIGHT]);
}

/* Of a right operand that runs along n: a panel's columns of row k. */
static void pack_along(Gen *g, KVal *n, KVal *k) {
  KBuild *b = g->at.b;
  KVal *at = right_at(g, n, k), *to = packed_at(g, n, k);
  KVal *later = kb_alu_c(b, A_ADD, k, AHEAD);
  if (g->at.task->rows[CT_RIGHT]) /* there is no row behind the last */
    later = kb_alu(b, A_MIN, later, kb_alu_c(b, A_SUB, g->at.k_hi, 1));
  kb_fetch(b, g->base[CT_RIGHT], right_at(g, n, later));
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
    if (g->way == WAY_BLOCK)
      kb_fetch(b, g->base[CT_RIGHT],
               right_at(g, kb_alu_c(b, A_ADD, column, g->lanes), k));
    KVal *count = kb_alu(b, A_MUL, depth, some);
    KVal *x = kb_load_some(b, g->base[CT_RIGHT], right_at(g, column, k), count,
                           g->lanes);
    v[i] = right_value(g, x);
  }
  ct_transpose(b, v, g->lanes, 1);
  KVal *first = ct_at(b, g->first,
                      kb_alu_c(b, A_DIV, kb_alu(b, A_SUB, n, g->first),
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

static bool runs_along(const CtProduct *p) {
  return p->n.size == 1 || p->n.stride[CT_RIGHT] == 1;
}

/* The panels of columns [lo, hi), in the order in which the operand lies in
 * memory. */
static void pack_right(Gen *g, KVal *lo, KVal *hi) {
  KBuild *b = g->at.b;
  const CtProduct *p = g->at.p;
  bool along = runs_along(p);
  bool across = !along && p->k.stride[CT_RIGHT] == 1;
  int64_t columns = across ? g->lanes : g->width;
  KVal *loop, *n, *k;
  if (across) {
    loop = kb_for(b, lo, hi, columns);
    n = kb_iv(b, loop);
    loop = kb_for(b, g->at.k_lo, g->at.k_hi, g->lanes);
    k = kb_iv(b, loop);
    pack_across(g, n, k);
  } else {
    loop = kb_for(b, g->at.k_lo, g->at.k_hi, 1);
    k = kb_iv(b, loop);
    loop = kb_for(b, lo, hi, columns);
    n = kb_iv(b, loop);
    (along ? pack_along : pack_single)(g, n, k);
  }
  kb_end(b);
  kb_end(b);
}

/* Whether an item packs the left operand: its depth does not lie in a row, or
 * is of rows that are picked. */
static bool packs_left(const CtTask *task) {
  const CtProduct *p = &task->p;
  return (p->k.stride[CT_LEFT] != 1 && p->k.size > 1) ||
         ct_picks_depth(task, CT_LEFT);
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
    KVal *at = ct_at(b, row_at(g, CT_LEFT, row), depth_at(g, CT_LEFT, k),
                     g->at.p->k.stride[CT_LEFT]);
    KVal *v = cast_to(b, kb_load(b, g->base[CT_LEFT], at, lanes), g->sum);
    kb_store(b, g->left, plus(b, to, kb_alu(b, A_SUB, row, g->at.m_lo)), v);
    kb_end(b);
  }
  kb_end(b);
}

/* Where the sums of row m for the panel from n on are. */
static KVal *sums_at(Gen *g, KVal *m, KVal *n) {
  KBuild *b = g->at.b;
  KVal *panel = kb_alu_c(b, A_MUL, kb_alu(b, A_SUB, n, g->at.n_lo),
                         g->sum_rows);
  return ct_at(b, panel, kb_alu(b, A_SUB, m, g->first_row), g->width);
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

/* Elements of a line. */
static int64_t line_of(KBase base) {
  return LINE / (int)dtype_info[base.dtype].bytes;
}

/* Lines of a row of what comes next. */
static int64_t run_of(const Gen *g) {
  int64_t line = line_of(g->base[CT_RIGHT]);
  int64_t run = g->way == WAY_PLACE ? g->at.cols : g->at.depth;
  return (run + line - 1) / line;
}

/* Rows of depth that a kernel goes through, and as many lines that it asks for.
 */
static int64_t part_of(const Gen *g) {
  return g->way == WAY_PLACE ? g->at.depth : PANEL_DEPTH;
}

/* The first line of what comes next that these rows ask for: in place, that is
 * as many rows of k as this block has, a part of them with each panel; else the
 * next panel. The first blocks of rows do it, line by line in the order of the
 * memory: any other order is slower by far. */
static KVal *next_at(Gen *g, KVal *m, KVal *n) {
  KBuild *b = g->at.b;
  const CtProduct *p = g->at.p;
  bool place = g->way == WAY_PLACE;
  int64_t line = line_of(g->base[CT_RIGHT]);
  int64_t lines = (g->width + line - 1) / line;
  int64_t part = part_of(g), run = run_of(g);
  KVal *turn = kb_alu_c(b, A_DIV, kb_alu(b, A_SUB, m, g->at.m_lo), g->rows);
  turn = kb_alu_c(b, A_MIN, turn, lines - 1);
  KVal *at = kb_alu_c(b, A_MUL, turn, part), *k;
  if (place) {
    KVal *panel = kb_alu_c(b, A_DIV, kb_alu(b, A_SUB, n, g->at.n_lo), g->width);
    at = ct_at(b, at, panel, lines * part);
  } else {
    at = ct_at(b, at, kb_alu(b, A_SUB, g->at.k_lo, g->top), lines);
  }
  KVal *row = kb_alu_c(b, A_DIV, at, run);
  at = kb_alu_c(b, A_MUL, kb_alu_c(b, A_REM, at, run), line);
  if (place) {
    k = kb_alu_c(b, A_MIN, plus(b, g->at.k_hi, row), p->k.size - 1);
    n = plus(b, g->at.n_lo, at);
  } else {
    n = plus(b, kb_alu_c(b, A_ADD, n, g->width), row);
    n = kb_alu_c(b, A_MIN, n, p->n.size - 1);
    k = plus(b, g->top, at);
  }
  return right_at(g, n, k);
}

/* Asks for line `nth` from there on. The loop has only to step where these
 * lines are of one row, or rows lie one behind the other. */
static void fetch_next(Gen *g, KVal *next, KVal *nth) {
  KBuild *b = g->at.b;
  const CtProduct *p = g->at.p;
  const CtLetter *down = g->way == WAY_PLACE ? &p->k : &p->n;
  int64_t line = line_of(g->base[CT_RIGHT]), run = run_of(g);
  int64_t jump = down->stride[CT_RIGHT] - run * line;
  KVal *at = ct_at(b, next, nth, line);
  if (part_of(g) > run && jump)
    at = ct_at(b, at, kb_alu_c(b, A_DIV, nth, run), jump);
  kb_fetch_far(b, g->base[CT_RIGHT], at);
}

/* Asks for a line of what the strip's sums will be read with: products take
 * some time in which memory would do nothing. One line a row of depth, of the
 * operands in turn: more at a time would wait for each other. */
static void fetch_with(Gen *g, KVal *n, KVal *k) {
  KBuild *b = g->at.b;
  const CtItem *t = &g->at;
  KBase from = t->with[g->with];
  int64_t line = line_of(from);
  KVal *turn = kb_alu_c(b, A_DIV, kb_alu(b, A_SUB, n, t->n_lo),
                        (int64_t)g->width * t->n_with);
  KVal *depth = kb_alu(b, A_SUB, t->k_hi, t->k_lo);
  KVal *at = plus(b, kb_alu(b, A_MUL, turn, depth),
                  kb_alu(b, A_SUB, k, t->k_lo));
  if (t->last) at = kb_alu(b, A_MUL, at, ct_number(b, t->last));
  at = ct_at(b, row_at(g, CT_OUT, t->m_lo), at, line);
  kb_fetch_far(b, from, at);
}

/* A vector of the panel from n on, at depth k. */
static KVal *load_right(Gen *g, KVal *n, KVal *k, int64_t column) {
  KBuild *b = g->at.b;
  KVal *at = g->way == WAY_PLACE ? right_at(g, n, k) : packed_at(g, n, k);
  at = kb_alu_c(b, A_ADD, at, column);
  if (g->way != WAY_PLACE) return kb_load(b, g->right, at, g->lanes);
  if (g->at.p->n.size % g->width == 0)
    return kb_load(b, g->base[CT_RIGHT], at, g->lanes);
  KVal *some = ct_count(b, kb_alu_c(b, A_ADD, n, column), g->at.n_end,
                        g->lanes);
  return kb_load_some(b, g->base[CT_RIGHT], at, some, g->lanes);
}

enum { MAX_ROWS = 12, VECTORS = 2 };

/* `rows` rows from m on, for the panel from n on. Where not `all` of them are
 * there, those past the item's last are that one again. */
static void micro(Gen *g, KVal *m, int rows, bool all, KVal *n) {
  KBuild *b = g->at.b;
  KVal *sums = sums_at(g, m, n);
  KVal *from[MAX_ROWS], *acc[MAX_ROWS][VECTORS];
  KVal *to[MAX_ROWS][VECTORS], *init[MAX_ROWS][VECTORS];
  KVal *last = kb_alu_c(b, A_SUB, g->at.m_end, 1);
  for (int i = 0; i < rows; i++) {
    KVal *row = kb_alu_c(b, A_ADD, m, i);
    if (!all) row = kb_alu(b, A_MIN, row, last);
    from[i] = g->packs_left ? kb_alu(b, A_SUB, row, g->first_left)
                            : row_at(g, CT_LEFT, row);
    for (int v = 0; v < VECTORS; v++) {
      to[i][v] = kb_alu_c(b, A_ADD, sums, i * g->width + v * g->lanes);
      init[i][v] = initial_sum(g, to[i][v]);
    }
  }
  KVal *next = g->asks ? next_at(g, m, n) : NULL;
  KVal *loop = kb_for(b, g->at.k_lo, g->at.k_hi, 1), *k = kb_iv(b, loop);
  for (int i = 0; i < rows; i++)
    for (int v = 0; v < VECTORS; v++)
      acc[i][v] = kb_acc(b, loop, init[i][v]);
  KVal *depth = kb_alu(b, A_SUB, k, g->at.k_lo);
  KVal *packed = kb_alu_c(b, A_MUL, depth, g->at.rows);
  KVal *right[VECTORS];
  for (int v = 0; v < VECTORS; v++)
    right[v] = load_right(g, n, k, (int64_t)v * g->lanes);
  if (next) fetch_next(g, next, depth);
  if (g->at.strip && g->at.n_with) fetch_with(g, n, k);
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
  KVal *from = g->at.m_lo;
  for (int rows = g->rows; rows > REST_ROWS; rows -= REST_ROWS) {
    KVal *times = kb_alu(b, A_SUB, g->at.m_end, from);
    KVal *end = ct_at(b, from, kb_alu_c(b, A_DIV, times, rows), rows);
    KVal *loop = kb_for(b, from, end, rows);
    micro(g, kb_iv(b, loop), rows, true, n);
    kb_end(b);
    from = end;
  }
  KVal *loop = kb_for(b, from, g->at.m_end, REST_ROWS);
  micro(g, kb_iv(b, loop), REST_ROWS, false, n);
  kb_end(b);
}

/* The panel from n on, its depth in parts: packed and multiplied. */
static void panel_parts(Gen *g, KVal *n) {
  KBuild *b = g->at.b;
  CtItem *t = &g->at, whole = *t;
  KVal *loop = kb_for(b, t->k_lo, t->k_hi, PANEL_DEPTH);
  g->top = t->k_lo;
  g->first = n;
  t->k_lo = kb_iv(b, loop);
  t->k_hi = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, t->k_lo, PANEL_DEPTH), t->k_hi);
  t->fresh = kb_alu(b, A_EQ, t->k_lo, g->top);
  if (whole.fresh) t->fresh = kb_op2(b, OP_and, t->fresh, whole.fresh);
  KVal *end = kb_alu_c(b, A_ADD, n, g->width);
  pack_right(g, n, kb_alu(b, A_MIN, end, t->n_end));
  panel_rows(g, n);
  kb_end(b);
  *t = whole;
}

/* All panels of the item's rows, and what becomes of them; their sums are from
 * `at` on. */
static void all_panels(Gen *g, KVal *at) {
  KBuild *b = g->at.b;
  int turns = g->at.strip && g->at.n_with ? g->at.n_with : 1;
  KVal *loop = kb_for(b, g->at.n_lo, g->at.n_end, turns * g->width);
  KVal *lo = kb_iv(b, loop);
  for (g->with = 0; g->with < turns; g->with++) {
    KVal *hi = kb_alu_c(b, A_ADD, lo, g->width);
    loop = kb_for(b, lo, kb_alu(b, A_MIN, hi, g->at.n_end), g->width);
    (g->way == WAY_PANEL ? panel_parts : panel_rows)(g, kb_iv(b, loop));
    kb_end(b);
    lo = hi;
  }
  kb_end(b);
  g->at.done->sums(&g->at, &(CtSums){g->sums, g->width, g->width,
                                     g->sum_rows * g->width, at});
}

/* The same strip by strip of rows, whose sums are few and stay near. Where
 * there is one block of depth, all strips use the same room. */
static void strips(Gen *g) {
  KBuild *b = g->at.b;
  CtItem *t = &g->at, whole = *t;
  KVal *loop = kb_for(b, t->m_lo, t->m_end, t->strip);
  KVal *lo = kb_iv(b, loop), *once = kb_index(b, 1);
  if (t->fresh) once = ct_number(b, kb_op2(b, OP_and, t->fresh, t->last));
  KVal *skip = kb_alu(b, A_MUL, kb_alu(b, A_SUB, lo, whole.m_lo), once);
  g->first_row = plus(b, whole.m_lo, skip);
  t->m_lo = lo;
  t->m_end = kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, lo, t->strip), whole.m_end);
  all_panels(g, sums_at(g, lo, t->n_lo));
  kb_end(b);
  *t = whole;
}

/* One block of depth of an item. */
static void block(CtItem *t) {
  Gen *g = (Gen *)t;
  KBuild *b = t->b;
  int64_t columns[] = {[WAY_BLOCK] = t->cols, [WAY_PANEL] = g->width,
                       [WAY_PLACE] = 0};
  if (columns[g->way])
    g->right = kb_scratch(b, g->sum, DEPTH * columns[g->way]);
  g->sum_rows = t->rows + REST_ROWS;
  g->sums = kb_scratch(b, g->sum, g->sum_rows * t->cols);
  g->packs_left = packs_left(t->task);
  g->first_row = g->first_left = t->m_lo;
  if (g->packs_left) {
    g->left = kb_scratch(b, g->sum, DEPTH * t->rows);
    pack_left(g);
  }
  g->first = t->n_lo;
  if (g->way == WAY_BLOCK) pack_right(g, t->n_lo, t->n_end);
  if (t->strip)
    strips(g);
  else
    all_panels(g, kb_index(b, 0));
}

CtItem *ct_blocked_item(Ctx *cx, KBuild *b, const CtTask *task, int lanes) {
  const CtProduct *p = &task->p;
  Gen *g = NEW(&cx->scratch, Gen);
  *g = (Gen){.at = {.b = b,
                    .task = task,
                    .p = p,
                    .rows = ROW_BLOCK,
                    .cols = COL_BLOCK,
                    .depth = DEPTH,
                    .block = block}};
  g->sum = dtype_info[p->dtype].sums;
  g->lanes = lanes * 4 / (int)dtype_info[g->sum].bytes;
  g->width = VECTORS * g->lanes;
  g->rows = lanes >= 16 ? MAX_ROWS : MAX_ROWS / 2;
  g->base[CT_LEFT] = ct_operand(task, CT_LEFT);
  g->base[CT_RIGHT] = ct_operand(task, CT_RIGHT);
  return &g->at;
}

static Way way_of(const Gen *g) {
  const CtProduct *p = g->at.p;
  bool as_is = runs_along(p) && g->base[CT_RIGHT].dtype == g->sum &&
               p->dtype == g->sum;
  if (ct_shallow(p)) return as_is ? WAY_PLACE : WAY_BLOCK;
  if (!ct_few_rows(p) || packs_left(g->at.task)) return WAY_BLOCK;
  if (as_is) return WAY_PLACE;
  bool panels = !runs_along(p) && p->k.stride[CT_RIGHT] == 1;
  return panels ? WAY_PANEL : WAY_BLOCK;
}

static int64_t at_most(int64_t x, int64_t most) {
  return x < most ? x : most;
}

/* The item where experts have few rows. */
static void set_few(Gen *g) {
  const CtProduct *p = g->at.p;
  int64_t panels = (p->n.size + g->width - 1) / g->width;
  g->at.rows = CT_FEW_BLOCK;
  g->at.cols = at_most(panels * g->width, CT_RUN);
  g->at.depth = g->way == WAY_PLACE ? PLACE_DEPTH : at_most(p->k.size, CT_RUN);
}

Kernel *ct_blocked(Ctx *cx, const CtTask *task, int lanes) {
  const Node *n = task->n;
  KBuild *b = kb_new(cx, "contract", (int)(n->ins.len + n->outs.len),
                     (int)n->outs.len);
  CtItem *t = ct_blocked_item(cx, b, task, lanes);
  Gen *g = (Gen *)t;
  ct_finish_of(cx, t, lanes);
  g->way = way_of(g);
  g->asks = g->way != WAY_BLOCK && !ct_shallow(t->p);
  if (g->asks) set_few(g);
  t->strip = t->n_with ? g->rows : STRIP;
  return ct_items(t);
}
