/* rows.c: routing rows by number, as kernel loops.
 *
 * Both ops stand on one stable counting sort of row numbers by id. The ids are
 * cut into chunks, fixed when compiling: one stage counts the ids of each
 * chunk, a second, serial over ids and chunks, turns counts into first
 * positions, a third hands the positions out. Positions follow (id, chunk,
 * place in chunk): the order of the rows, whatever thread did what.
 *
 * `scatter_add` then sums, for each row of the table and some columns, the
 * rows that belong there, in order; a row that nothing belongs to is written
 * too. */
#include "codegen.h"

enum {
  CHUNK = 512, /* ids of a chunk, at least */
  MAX_CHUNKS = 64,
  COLUMNS = 128,  /* of one item's sum */
  SUM_VECTORS = 8,
  SUM_ITEMS = 32  /* handed out at a time, few of them with many rows */
};

typedef struct Sort {
  KBuild *b;
  int64_t n, ids; /* rows; ids lie in [0, ids) */
  int64_t chunks, chunk;
  KBase id;      /* i32[n] */
  KBase counts;  /* i32[chunks, ids]: counts, then next positions */
  KBase offsets; /* i32[ids + 1]: first position of each id */
  KBase rank;    /* i32[n]: position of each row, where wanted */
  KBase order;   /* i32[n]: row at each position */
  bool wants_rank;
} Sort;

static KVal *plus(KBuild *b, KVal *x, KVal *y) {
  return kb_alu(b, A_ADD, x, y);
}

/* Opens a loop over [lo, hi); returns its variable. */
static KVal *open_loop(KBuild *b, KVal *lo, KVal *hi, KVal **out_loop) {
  *out_loop = kb_for(b, lo, hi, 1);
  return kb_iv(b, *out_loop);
}

/* Opens a loop over the rows of chunk c. */
static KVal *open_chunk(Sort *s, KVal *c) {
  KVal *lo = kb_alu_c(s->b, A_MUL, c, s->chunk), *loop;
  KVal *hi = kb_alu(s->b, A_MIN, kb_alu_c(s->b, A_ADD, lo, s->chunk),
                    kb_index(s->b, s->n));
  return open_loop(s->b, lo, hi, &loop);
}

/* Where the counter of row i's id is, in chunk c. An id outside of its range
 * counts as the nearest one inside. */
static KVal *counter_of(Sort *s, KVal *c, KVal *i) {
  KBuild *b = s->b;
  KVal *id = kb_from_i32(b, kb_load(b, s->id, i, 1));
  id = kb_alu(b, A_MAX, id, kb_index(b, 0));
  id = kb_alu(b, A_MIN, id, kb_index(b, s->ids - 1));
  return plus(b, kb_alu_c(b, A_MUL, c, s->ids), id);
}

/* Adds one to the counter; returns what it was. */
static KVal *count_up(Sort *s, KVal *at) {
  KVal *was = kb_load(s->b, s->counts, at, 1);
  KVal *now = kb_op2(s->b, OP_add, was, kb_const(s->b, DT_i32, 1));
  kb_store(s->b, s->counts, at, now);
  return was;
}

static void count_stage(Sort *s) {
  KBuild *b = s->b;
  KVal *c = kb_stage(b, s->chunks, 1), *loop;
  KVal *lo = kb_alu_c(b, A_MUL, c, s->ids);
  KVal *e = open_loop(b, lo, kb_alu_c(b, A_ADD, lo, s->ids), &loop);
  kb_store(b, s->counts, e, kb_const(b, DT_i32, 0));
  kb_end(b);
  count_up(s, counter_of(s, c, open_chunk(s, c)));
  kb_end(b);
  kb_end(b);
}

static void position_stage(Sort *s) {
  KBuild *b = s->b;
  kb_stage(b, 1, 1);
  KVal *zero = kb_const(b, DT_i32, 0), *by_id, *by_chunk;
  kb_store(b, s->offsets, kb_index(b, 0), zero);
  KVal *e = open_loop(b, kb_index(b, 0), kb_index(b, s->ids), &by_id);
  KVal *sum = kb_acc(b, by_id, zero);
  KVal *c = open_loop(b, kb_index(b, 0), kb_index(b, s->chunks), &by_chunk);
  KVal *next = kb_acc(b, by_chunk, sum);
  KVal *at = plus(b, kb_alu_c(b, A_MUL, c, s->ids), e);
  KVal *count = kb_load(b, s->counts, at, 1);
  kb_store(b, s->counts, at, next);
  kb_next(b, next, kb_op2(b, OP_add, next, count));
  kb_end(b);
  KVal *end = kb_result(b, next);
  kb_store(b, s->offsets, kb_alu_c(b, A_ADD, e, 1), end);
  kb_next(b, sum, end);
  kb_end(b);
  kb_end(b);
}

static void order_stage(Sort *s) {
  KBuild *b = s->b;
  KVal *c = kb_stage(b, s->chunks, 1);
  KVal *i = open_chunk(s, c);
  KVal *rank = count_up(s, counter_of(s, c, i));
  if (s->wants_rank) kb_store(b, s->rank, i, rank);
  kb_store(b, s->order, kb_from_i32(b, rank), kb_to_i32(b, i));
  kb_end(b);
  kb_end(b);
}

static void sort_rows(Sort *s) {
  int64_t chunks = (s->n + CHUNK - 1) / CHUNK;
  /* Counters are cleared and summed: no more of them than rows. */
  if (chunks > s->n / s->ids) chunks = s->n / s->ids;
  if (chunks > MAX_CHUNKS) chunks = MAX_CHUNKS;
  if (chunks < 1) chunks = 1;
  s->chunk = (s->n + chunks - 1) / chunks;
  s->chunks = chunks;
  s->counts = kb_workspace(s->b, DT_i32, chunks * s->ids);
  count_stage(s);
  position_stage(s);
  order_stage(s);
}

Kernel *cg_route(Ctx *cx, const Node *n, int lanes) {
  (void)lanes;
  Sort s = {.b = kb_new(cx, "route", 4, 3),
            .n = type_elements(&n->ins.data[0]->type),
            .ids = attr_int(n, "experts"),
            .id = kb_arg(0, DT_i32),
            .offsets = kb_arg(1, DT_i32),
            .rank = kb_arg(2, DT_i32),
            .order = kb_arg(3, DT_i32),
            .wants_rank = true};
  sort_rows(&s);
  return kb_finish(s.b);
}

/* ---- scatter_add -------------------------------------------------------- */

/* `vectors` neighbouring sums of `lanes` columns, over the rows at positions
 * [lo, hi), into the table at `to`. */
static void sum_columns(Sort *s, KVal *lo, KVal *hi, KBase x, KBase table,
                        KVal *column, KVal *to, int64_t width, int lanes,
                        int vectors) {
  KBuild *b = s->b;
  KVal *acc[SUM_VECTORS], *loop;
  KVal *i = open_loop(b, lo, hi, &loop);
  for (int v = 0; v < vectors; v++)
    acc[v] = kb_acc(b, loop, kb_splat(b, kb_const(b, x.dtype, 0), lanes));
  KVal *row = kb_from_i32(b, kb_load(b, s->order, i, 1));
  KVal *from = plus(b, kb_alu_c(b, A_MUL, row, width), column);
  for (int v = 0; v < vectors; v++) {
    KVal *at = kb_alu_c(b, A_ADD, from, (int64_t)v * lanes);
    KVal *term = kb_load(b, x, at, lanes);
    kb_next(b, acc[v], kb_op2(b, OP_add, acc[v], term));
  }
  kb_end(b);
  for (int v = 0; v < vectors; v++)
    kb_store(b, table,
             kb_alu_c(b, A_ADD, plus(b, to, column), (int64_t)v * lanes),
             kb_result(b, acc[v]));
}

/* Item: some columns of one row of the table. Rows run fastest, so that all
 * columns of a row with much to sum are not one thread's. */
static void sum_stage(Sort *s, KBase x, KBase table, int64_t width, int lanes) {
  KBuild *b = s->b;
  int64_t blocks = (width + COLUMNS - 1) / COLUMNS;
  KVal *item = kb_stage(b, s->ids * blocks, SUM_ITEMS);
  kb_uneven(b);
  KVal *row = kb_alu_c(b, A_REM, item, s->ids);
  KVal *column = kb_alu_c(b, A_MUL, kb_alu_c(b, A_DIV, item, s->ids), COLUMNS);
  KVal *end =
      kb_alu(b, A_MIN, kb_alu_c(b, A_ADD, column, COLUMNS), kb_index(b, width));
  KVal *to = kb_alu_c(b, A_MUL, row, width);
  KVal *lo = kb_from_i32(b, kb_load(b, s->offsets, row, 1));
  KVal *hi =
      kb_from_i32(b, kb_load(b, s->offsets, kb_alu_c(b, A_ADD, row, 1), 1));
  int steps[3] = {SUM_VECTORS * lanes, lanes, 1};
  for (int part = 0; part < 3; part++) {
    KVal *n = kb_alu(b, A_SUB, end, column);
    KVal *whole =
        kb_alu_c(b, A_MUL, kb_alu_c(b, A_DIV, n, steps[part]), steps[part]);
    KVal *stop = plus(b, column, whole);
    KVal *loop = kb_for(b, column, stop, steps[part]);
    sum_columns(s, lo, hi, x, table, kb_iv(b, loop), to, width,
                part == 2 ? 1 : lanes, part == 0 ? SUM_VECTORS : 1);
    kb_end(b);
    column = stop;
  }
  kb_end(b);
}

Kernel *cg_scatter_add(Ctx *cx, const Node *n, int lanes) {
  const Type *ids = &n->ins.data[0]->type, *x = &n->ins.data[1]->type;
  Sort s = {.b = kb_new(cx, "scatter_add", 3, 1),
            .n = type_elements(ids),
            .ids = attr_int(n, "rows"),
            .id = kb_arg(0, DT_i32)};
  s.offsets = kb_workspace(s.b, DT_i32, s.ids + 1);
  s.order = kb_workspace(s.b, DT_i32, s.n);
  sort_rows(&s);
  sum_stage(&s, kb_arg(1, x->dtype), kb_arg(2, x->dtype),
            type_elements(x) / s.n,
            lanes * 4 / (int)dtype_info[x->dtype].bytes);
  return kb_finish(s.b);
}
