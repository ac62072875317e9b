/* rows.c: routing rows by number, as kernel loops.
 *
 * Both ops stand on one stable counting sort of row numbers by id. The ids are
 * cut into chunks, fixed when compiling: one stage counts the ids of each
 * chunk, a second, serial over ids and chunks, turns counts into first
 * positions, a third hands the positions out. Positions follow (id, chunk,
 * place in chunk): the order of the rows, whatever thread did what.
 *
 * Where a vector is a warp nothing counts one by one: that would be one access
 * to memory after another. A warp counts one id of one chunk by comparing many
 * rows at once; one id's first positions are had by counting the rows of lower
 * ids; and a row finds its own by counting those of its id in front of it, in
 * its chunk. That compares each row with many, but all at the same time.
 *
 * `scatter_add` then sums, for each row of the table and some columns, the
 * rows that belong there, in order; a row that nothing belongs to is written
 * too. */
#include "codegen.h"

enum {
  CHUNK = 512, /* ids of a chunk, at least */
  MAX_CHUNKS = 64,
  COMPARED = 1024, /* ids of a chunk, where they are compared */
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
  int lanes; /* that compare; 0: ids are counted one by one */
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

/* Row i is at position `rank`. */
static void put_row(Sort *s, KVal *i, KVal *rank) {
  KBuild *b = s->b;
  if (s->wants_rank) kb_store(b, s->rank, i, rank);
  KVal *at = kb_from_i32(b, rank);
  kb_store(b, s->order, at, kb_to_i32(b, i));
}

static void order_stage(Sort *s) {
  KBuild *b = s->b;
  KVal *c = kb_stage(b, s->chunks, 1);
  KVal *i = open_chunk(s, c);
  KVal *rank = count_up(s, counter_of(s, c, i));
  put_row(s, i, rank);
  kb_end(b);
  kb_end(b);
}

/* ---- by comparing -------------------------------------------------------- */

static KVal *clamped(Sort *s, KVal *id) {
  KBuild *b = s->b;
  KVal *last = kb_const(b, DT_i32, (double)(s->ids - 1));
  id = kb_op2(b, OP_max, id, kb_splat(b, kb_const(b, DT_i32, 0), id->lanes));
  return kb_op2(b, OP_min, id, kb_splat(b, last, id->lanes));
}

/* Lanes of rows from i on for whose id `op` holds, added to `sum`. */
static KVal *add_matches(Sort *s, KVal *sum, KVal *i, KVal *count, OpKind op,
                         KVal *id) {
  KBuild *b = s->b;
  KVal *ids = clamped(s, kb_load_some(b, s->id, i, count, s->lanes));
  KVal *is = kb_op2(b, op, ids, kb_splat(b, id, s->lanes));
  if (count->kind != K_INDEX || count->number < s->lanes) {
    KVal *lanes = kb_lanes(b, kb_const(b, DT_i32, 0), s->lanes);
    KVal *end = kb_splat(b, kb_to_i32(b, count), s->lanes);
    is = kb_op2(b, OP_and, is, kb_op2(b, OP_lt, lanes, end));
  }
  return kb_op2(b, OP_add, sum, kb_scalar(b, OP_cast, DT_i32, &is, 1));
}

/* How many of the rows [lo, hi) have an id for which `op` holds. */
static KVal *matches(Sort *s, KVal *lo, KVal *hi, OpKind op, KVal *id) {
  KBuild *b = s->b;
  KVal *zero = kb_splat(b, kb_const(b, DT_i32, 0), s->lanes);
  KVal *rows = kb_alu(b, A_SUB, hi, lo);
  KVal *whole = kb_alu_c(
      b, A_MUL, kb_alu_c(b, A_DIV, rows, s->lanes), s->lanes);
  KVal *mid = plus(b, lo, whole);
  KVal *loop = kb_for(b, lo, mid, s->lanes), *sum = kb_acc(b, loop, zero);
  kb_next(b, sum, add_matches(s, sum, kb_iv(b, loop), kb_index(b, s->lanes), op,
                              id));
  kb_end(b);
  KVal *rest = kb_alu(b, A_SUB, hi, mid);
  sum = kb_result(b, sum);
  if (rest->kind != K_INDEX || rest->number)
    sum = add_matches(s, sum, mid, rest, op, id);
  return kb_fold(b, OP_add, sum);
}

static KVal *end_of_chunk(Sort *s, KVal *lo) {
  KVal *hi = kb_alu_c(s->b, A_ADD, lo, s->chunk);
  return kb_alu(s->b, A_MIN, hi, kb_index(s->b, s->n));
}

/* counts[chunk, id]: how many. */
static void compare_counts(Sort *s) {
  KBuild *b = s->b;
  KVal *item = kb_stage(b, s->chunks * s->ids, 1);
  KVal *lo = kb_alu_c(b, A_MUL, kb_alu_c(b, A_DIV, item, s->ids), s->chunk);
  KVal *id = kb_to_i32(b, kb_alu_c(b, A_REM, item, s->ids));
  kb_store(b, s->counts, item,
           matches(s, lo, end_of_chunk(s, lo), OP_eq, id));
  kb_end(b);
}

/* offsets, and counts[chunk, id]: the first position. */
static void compare_positions(Sort *s) {
  KBuild *b = s->b;
  KVal *id = kb_stage(b, s->ids, 1), *loop;
  KVal *first = matches(s, kb_index(b, 0), kb_index(b, s->n), OP_lt,
                        kb_to_i32(b, id));
  kb_store(b, s->offsets, id, first);
  KVal *c = open_loop(b, kb_index(b, 0), kb_index(b, s->chunks), &loop);
  KVal *next = kb_acc(b, loop, first);
  KVal *at = plus(b, kb_alu_c(b, A_MUL, c, s->ids), id);
  KVal *count = kb_load(b, s->counts, at, 1);
  kb_store(b, s->counts, at, next);
  kb_next(b, next, kb_op2(b, OP_add, next, count));
  kb_end(b);
  kb_if(b, kb_alu(b, A_EQ, id, kb_index(b, s->ids - 1)));
  kb_store(b, s->offsets, kb_index(b, s->ids),
           kb_const(b, DT_i32, (double)s->n));
  kb_end(b);
  kb_end(b);
}

static void compare_order(Sort *s) {
  KBuild *b = s->b;
  KVal *i = kb_stage(b, s->n, 1);
  KVal *c = kb_alu_c(b, A_DIV, i, s->chunk);
  KVal *id = clamped(s, kb_load(b, s->id, i, 1));
  KVal *at = kb_alu_c(b, A_MUL, c, s->ids);
  at = plus(b, at, kb_from_i32(b, id));
  KVal *first = kb_load(b, s->counts, at, 1);
  KVal *lo = kb_alu_c(b, A_MUL, c, s->chunk);
  KVal *rank = kb_op2(b, OP_add, first, matches(s, lo, i, OP_eq, id));
  put_row(s, i, rank);
  kb_end(b);
}

static void sort_by_comparing(Sort *s) {
  s->chunk = s->n < COMPARED ? s->n : COMPARED;
  s->chunks = (s->n + s->chunk - 1) / s->chunk;
  s->counts = kb_workspace(s->b, DT_i32, s->chunks * s->ids);
  compare_counts(s);
  compare_positions(s);
  compare_order(s);
}

static void sort_rows(Sort *s) {
  if (s->lanes) {
    sort_by_comparing(s);
    return;
  }
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

static int comparing_lanes(const Isa *isa, int64_t n) {
  return isa->least ? cg_lanes(isa, n, false) : 0;
}

Kernel *cg_route(Ctx *cx, const Node *n, const Isa *isa) {
  Sort s = {.b = kb_new(cx, "route", 4, 3),
            .n = type_elements(&n->ins.data[0]->type),
            .ids = attr_int(n, "experts"),
            .id = kb_arg(0, DT_i32),
            .offsets = kb_arg(1, DT_i32),
            .rank = kb_arg(2, DT_i32),
            .order = kb_arg(3, DT_i32),
            .wants_rank = true};
  s.lanes = comparing_lanes(isa, s.n);
  sort_rows(&s);
  return kb_finish(s.b);
}

/* ---- scatter_add --------------------------------------------------------- */

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
  int vectors = COLUMNS / lanes < SUM_VECTORS ? COLUMNS / lanes : SUM_VECTORS;
  int steps[3] = {vectors * lanes, lanes, 1};
  for (int part = vectors > 1 ? 0 : 1; part < 3; part++) {
    KVal *n = kb_alu(b, A_SUB, end, column);
    KVal *whole =
        kb_alu_c(b, A_MUL, kb_alu_c(b, A_DIV, n, steps[part]), steps[part]);
    KVal *stop = plus(b, column, whole);
    KVal *loop = kb_for(b, column, stop, steps[part]);
    sum_columns(s, lo, hi, x, table, kb_iv(b, loop), to, width,
                part == 2 ? 1 : lanes, part == 0 ? vectors : 1);
    kb_end(b);
    column = stop;
  }
  kb_end(b);
}

Kernel *cg_scatter_add(Ctx *cx, const Node *n, const Isa *isa) {
  const Type *ids = &n->ins.data[0]->type, *x = &n->ins.data[1]->type;
  Sort s = {.b = kb_new(cx, "scatter_add", 3, 1),
            .n = type_elements(ids),
            .ids = attr_int(n, "rows"),
            .id = kb_arg(0, DT_i32)};
  s.lanes = comparing_lanes(isa, s.n);
  s.offsets = kb_workspace(s.b, DT_i32, s.ids + 1);
  s.order = kb_workspace(s.b, DT_i32, s.n);
  sort_rows(&s);
  int64_t width = type_elements(x) / s.n;
  int lanes = cg_lanes(isa, width, x->dtype == DT_f64) * 4 /
              (int)dtype_info[x->dtype].bytes;
  sum_stage(&s, kb_arg(1, x->dtype), kb_arg(2, x->dtype), width, lanes);
  return kb_finish(s.b);
}
