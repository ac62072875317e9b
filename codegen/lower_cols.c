/* lower_cols.c: fused nodes of kind `cols`: sums over rows, then the little
 * that is left to do with them.
 *
 * The column reductions of the body (reductions over the `rows` leading dims,
 * all of the same rows, none of which reads another's result) run over rows in
 * a number of chunks that follows from the shapes alone. Each chunk leaves its
 * partial sums in the workspace; the second stage adds them up in order of the
 * chunks and computes the results from them. The number of threads changes
 * nothing.
 *
 * A chunk's sums of a whole row are a table in the workspace that each row is
 * added to. Where a vector is a warp an item is one vector of them instead,
 * which stays in registers. */
#include "codegen.h"

#include <string.h>

enum {
  MAX_CHUNKS = 64,
  CHUNK_OPS = 32768,
  MIN_ROWS = 8,           /* of a chunk that keeps a table of sums */
  PARALLEL_COLUMNS = 4096, /* sums worth adding up in parallel */
  WARPS = 2048,            /* items of stage 1, about, that warps share */
  WARP_CHUNKS = 256
};

static int64_t product(const int64_t *dims, int n) {
  int64_t p = 1;
  for (int i = 0; i < n; i++)
    p *= dims[i];
  return p;
}

static int64_t size_of(const LwValue *v) {
  return product(v->dims, v->rank);
}

/* The reductions' operand, whose leading dims are the rows. */
static const LwValue *summed(const Lower *l, const Node *n) {
  return lw_value(l, n->ins.data[0]);
}

/* Drops its `rows` leading letters. */
static bool sums_rows(const Lower *l, const Node *n) {
  IndexMap m;
  if (op_info[n->op].lower != LOWER_REDUCE || n->op == OP_rows_dot)
    return false;
  map_parse(attr_sym(n, "map"), &m);
  const char *from = m.ins[0] + type_is_ragged(&n->ins.data[0]->type);
  if ((int)strlen(from) < l->rows) return false;
  for (int i = 0; i < l->rows; i++)
    if (strchr(m.out, from[i])) return false;
  return true;
}

static bool same_rows(const LwValue *x, const LwValue *y, int rows) {
  return memcmp(x->dims, y->dims, sizeof(int64_t) * (size_t)rows) == 0;
}

static bool same_table(const LwValue *x, const LwValue *y) {
  return x->rank == y->rank &&
         memcmp(x->dims, y->dims, sizeof(int64_t) * (size_t)x->rank) == 0;
}

static bool reads_any(const Node *n, const Map *of) {
  for (uint32_t i = 0; i < n->ins.len; i++)
    if (map_get(of, n->ins.data[i])) return true;
  return false;
}

/* The sums over rows that need no other such sum. */
static const Node **candidates(const Lower *l, int *out_n) {
  const Region *body = l->n->body;
  const Node **sums = NEW_ARRAY(l->arena, const Node *, body->nodes.len);
  Map after = {0}; /* sums, and what depends on them */
  for (uint32_t i = *out_n = 0; i < body->nodes.len; i++) {
    Node *n = body->nodes.data[i];
    bool late = reads_any(n, &after), sum = sums_rows(l, n);
    if (sum && !late) sums[(*out_n)++] = n;
    for (uint32_t j = 0; (sum || late) && j < n->outs.len; j++)
      map_put(l->arena, &after, n->outs.data[j], n);
  }
  return sums;
}

/* The columns are those that share the rows of the largest: others, small ones
 * beside it, are left to the second stage. */
void lw_mark_columns(Lower *l) {
  int n;
  const Node **sums = candidates(l, &n);
  assert(n && "a `cols` node without a column");
  const LwValue *largest = summed(l, sums[0]);
  for (int i = 1; i < n; i++)
    if (size_of(summed(l, sums[i])) > size_of(largest))
      largest = summed(l, sums[i]);
  for (int i = 0; i < n; i++)
    if (same_rows(largest, summed(l, sums[i]), l->rows))
      lw_value(l, sums[i]->outs.data[0])->column = true;
  lw_flatten(l, largest);
}

/* ---- stage 1 ------------------------------------------------------------- */

typedef struct Cols {
  Lower *l;
  const Node **nodes; /* the column reductions */
  int n;
  int64_t rows, chunks, per_chunk;
} Cols;

static LwValue *column(const Cols *c, int i) {
  return lw_value(c->l, c->nodes[i]->outs.data[0]);
}

static void find_columns(Cols *c) {
  const Region *body = c->l->n->body;
  c->nodes = NEW_ARRAY(c->l->arena, const Node *, body->nodes.len);
  for (uint32_t i = 0; i < body->nodes.len; i++)
    if (lw_value(c->l, body->nodes.data[i]->outs.data[0])->column)
      c->nodes[c->n++] = body->nodes.data[i];
}

/* As many items as keep all warps busy, each with some rows. */
static void choose_for_warps(Cols *c, int64_t table, int64_t step) {
  int64_t blocks = (table + c->l->lanes - 1) / c->l->lanes;
  int64_t chunks = WARPS / blocks, most = c->rows / (MIN_ROWS * step);
  if (chunks > WARP_CHUNKS) chunks = WARP_CHUNKS;
  if (chunks > most) chunks = most;
  if (chunks < 1) chunks = 1;
  int64_t per = (c->rows + chunks - 1) / chunks;
  c->per_chunk = (per + step - 1) / step * step;
  c->chunks = (c->rows + c->per_chunk - 1) / c->per_chunk;
}

static void choose_chunks(Cols *c) {
  Lower *l = c->l;
  const LwValue *x = summed(l, c->nodes[0]);
  int dims = l->flat ? 1 : l->rows;
  int64_t step = l->flat ? 4 * l->lanes : 1, table = 1;
  for (int i = 0; i < c->n; i++)
    if (size_of(column(c, i)) > table) table = size_of(column(c, i));
  c->rows = product(x->dims, dims);
  if (l->warps) {
    choose_for_warps(c, table, step);
    return;
  }
  int64_t grain = lw_grain(l, c->rows); /* rows of CHUNK_OPS operations */
  if (table > 1 && grain < MIN_ROWS) grain = MIN_ROWS;
  int64_t chunks = (c->rows + grain - 1) / grain;
  if (chunks > MAX_CHUNKS) chunks = MAX_CHUNKS;
  int64_t per = (c->rows + chunks - 1) / chunks;
  c->per_chunk = (per + step - 1) / step * step;
  c->chunks = (c->rows + c->per_chunk - 1) / c->per_chunk;
}

static KVal *start_value(Lower *l, const Node *n, int lanes) {
  Dtype t = n->outs.data[0]->type.dtype;
  double x = n->op == OP_reduce_max   ? lw_lowest(t)
             : n->op == OP_reduce_min ? lw_highest(t)
                                      : 0;
  return kb_splat(l->b, kb_const(l->b, t, x), lanes);
}

static OpKind fold_of(const Node *n) {
  if (n->op == OP_reduce_max) return OP_max;
  return n->op == OP_reduce_min ? OP_min : OP_add;
}

static KVal *joined(Lower *l, const Node *n, KVal *x, KVal *y) {
  return kb_op2(l->b, fold_of(n), x, y);
}

/* Does `visit` for each element of a table, the last dim in vector steps. */
typedef struct Table {
  Cols *c;
  int first; /* the column whose dims these are */
  KVal *chunk;
  const Ix *row; /* NULL: the tables are being cleared */
  Ix at[MAX_RANK];
} Table;

static void visit_table(Table *t) {
  Lower *l = t->c->l;
  const LwValue *like = column(t->c, t->first);
  for (int i = t->first; i < t->c->n; i++) {
    LwValue *v = column(t->c, i);
    const Node *n = t->c->nodes[i];
    if (!same_table(v, like)) continue;
    Ix to = lw_linear(l, v->dims, v->rank, t->at);
    int lanes = to.stride ? l->lanes : 1;
    KVal *start = kb_alu_c(l->b, A_MUL, t->chunk, size_of(v));
    KVal *index = kb_alu(l->b, A_ADD, start, to.base);
    KVal *x = start_value(l, n, lanes);
    if (t->row) {
      KVal *part = lw_reduce_row(l, n, t->at, l->rows, t->row);
      x = joined(l, n, kb_load(l->b, v->partial, index, lanes), part);
    }
    kb_store(l->b, v->partial, index, x);
  }
}

static void table_dim(Table *t, int d) {
  KBuild *b = t->c->l->b;
  const LwValue *v = column(t->c, t->first);
  int lanes = d == v->rank - 1 ? t->c->l->lanes : 1;
  int64_t size = v->dims[d], main = size / lanes * lanes;
  for (int part = 0; part < 2; part++) {
    int64_t lo = part ? main : 0, hi = part ? size : main;
    int step = part ? 1 : lanes;
    if (lo == hi) continue;
    KVal *loop = kb_for(b, kb_index(b, lo), kb_index(b, hi), step);
    KVal *iv = kb_iv(b, loop);
    t->at[d] = step > 1 ? lw_ix_lanes(iv) : lw_ix(iv);
    if (d == v->rank - 1)
      visit_table(t);
    else
      table_dim(t, d + 1);
    kb_end(b);
  }
}

/* Whether column i is the first of its shape, and no scalar. */
static bool is_first(const Cols *c, int i) {
  for (int j = 0; j < i; j++)
    if (same_table(column(c, j), column(c, i))) return false;
  return column(c, i)->rank > 0;
}

/* Once for each shape among the columns. */
static void visit_tables(Cols *c, KVal *chunk, const Ix *row) {
  for (int i = 0; i < c->n; i++) {
    Table t = {.c = c, .first = i, .chunk = chunk, .row = row};
    if (is_first(c, i)) table_dim(&t, 0);
  }
}

static bool has_tables(const Cols *c) {
  for (int i = 0; i < c->n; i++)
    if (column(c, i)->rank) return true;
  return false;
}

static void chunk_bounds(Cols *c, KVal *chunk, KVal **lo, KVal **hi) {
  KBuild *b = c->l->b;
  *lo = kb_alu_c(b, A_MUL, chunk, c->per_chunk);
  *hi = kb_alu_c(b, A_ADD, *lo, c->per_chunk);
  if (c->chunks * c->per_chunk > c->rows)
    *hi = kb_alu_c(b, A_MIN, *hi, c->rows);
}

/* ---- stage 1, by vectors of sums ----------------------------------------- */

/* An item of the tables that have the shape of column `first`. */
typedef struct Block {
  Cols *c;
  int first;
  KVal *chunk, *lo, *hi;
  Ix at[MAX_RANK];
} Block;

/* The columns [lo, hi) of the last dim, in steps of `lanes`. */
static void sum_columns(Block *t, KVal *lo, KVal *hi, int lanes) {
  Lower *l = t->c->l;
  KBuild *b = l->b;
  int d = column(t->c, t->first)->rank - 1;
  KVal *loop = kb_for(b, lo, hi, lanes), *iv = kb_iv(b, loop);
  t->at[d] = lanes > 1 ? lw_ix_lanes(iv) : lw_ix(iv);
  for (int i = t->first; i < t->c->n; i++) {
    LwValue *v = column(t->c, i);
    if (!same_table(v, column(t->c, t->first))) continue;
    KVal *sum =
        lw_reduce_rows(l, t->c->nodes[i], t->at, l->rows, t->lo, t->hi);
    Ix to = lw_linear(l, v->dims, v->rank, t->at);
    KVal *start = kb_alu_c(b, A_MUL, t->chunk, size_of(v));
    kb_store(b, v->partial, kb_alu(b, A_ADD, start, to.base),
             kb_splat(b, sum, lanes));
  }
  kb_end(b);
}

/* Item: chunk of rows, place in the leading dims, vector of the last dim. */
static void sum_blocks(Cols *c, int first) {
  Lower *l = c->l;
  KBuild *b = l->b;
  const LwValue *like = column(c, first);
  int d = like->rank - 1, lanes = l->lanes;
  int64_t size = like->dims[d], main = size / lanes * lanes;
  int64_t blocks = (size + lanes - 1) / lanes, outer = product(like->dims, d);
  Block t = {.c = c, .first = first};
  KVal *item = kb_stage(b, c->chunks * outer * blocks, 1);
  KVal *block = kb_alu_c(b, A_REM, item, blocks);
  item = kb_alu_c(b, A_DIV, item, blocks);
  t.chunk = kb_alu_c(b, A_DIV, item, outer);
  lw_split(l, like->dims, d, lw_ix(kb_alu_c(b, A_REM, item, outer)), t.at);
  chunk_bounds(c, t.chunk, &t.lo, &t.hi);
  KVal *lo = kb_alu_c(b, A_MUL, block, lanes);
  KVal *hi = kb_alu_c(b, A_ADD, lo, lanes);
  if (main) sum_columns(&t, lo, kb_alu_c(b, A_MIN, hi, main), lanes);
  if (main < size) {
    KVal *from = kb_alu_c(b, A_MAX, lo, main);
    sum_columns(&t, from, kb_alu_c(b, A_MIN, hi, size), 1);
  }
  kb_end(b);
}

static bool has_scalars(const Cols *c) {
  for (int i = 0; i < c->n; i++)
    if (!column(c, i)->rank) return true;
  return false;
}

static void sum_chunk(Cols *c) {
  Lower *l = c->l;
  KBuild *b = l->b;
  for (int i = 0; l->warps && i < c->n; i++)
    if (is_first(c, i)) sum_blocks(c, i);
  if (l->warps && !has_scalars(c)) return;
  KVal *lo, *hi, *chunk = kb_stage(b, c->chunks, 1);
  chunk_bounds(c, chunk, &lo, &hi);
  for (int i = 0; i < c->n; i++) {
    LwValue *v = column(c, i);
    if (v->rank) continue;
    KVal *sum = lw_reduce_rows(l, c->nodes[i], NULL, l->rows, lo, hi);
    kb_store(b, v->partial, chunk, sum);
  }
  if (has_tables(c) && !l->warps) {
    visit_tables(c, chunk, NULL);
    KVal *loop = kb_for(b, lo, hi, 1);
    Ix row[MAX_RANK];
    lw_split(l, summed(l, c->nodes[0])->dims, l->rows, lw_ix(kb_iv(b, loop)),
             row);
    visit_tables(c, chunk, row);
    kb_end(b);
  }
  kb_end(b);
}

/* ---- stage 2 ------------------------------------------------------------- */

/* The parts of a sum, which lie side by side, by vectors. */
static KVal *add_parts(Lower *l, const LwValue *v) {
  KBuild *b = l->b;
  const Node *n = v->v->def;
  KVal *lo = kb_index(b, 0), *hi = kb_index(b, v->chunks / l->lanes * l->lanes);
  KVal *loop = kb_for(b, lo, hi, l->lanes);
  KVal *vector = kb_acc(b, loop, start_value(l, n, l->lanes));
  KVal *x = kb_load(b, v->partial, kb_iv(b, loop), l->lanes);
  kb_next(b, vector, joined(l, n, vector, x));
  kb_end(b);
  KVal *sum = kb_fold(b, fold_of(n), kb_result(b, vector));
  loop = kb_for(b, hi, kb_index(b, v->chunks), 1);
  KVal *rest = kb_acc(b, loop, sum);
  x = kb_load(b, v->partial, kb_iv(b, loop), 1);
  kb_next(b, rest, joined(l, n, rest, x));
  kb_end(b);
  return kb_result(b, rest);
}

KVal *lw_column(Lower *l, LwValue *v, const Ix *at) {
  KBuild *b = l->b;
  KDetour *d = kb_detour(b, lw_level(at, v->rank));
  if (l->warps && size_of(v) == 1 && v->chunks >= l->lanes) {
    KVal *sum = add_parts(l, v);
    kb_return(b, d);
    return sum;
  }
  const Node *n = v->v->def;
  Ix to = lw_linear(l, v->dims, v->rank, at);
  int lanes = to.stride || to.vec ? l->lanes : 1;
  KVal *loop = kb_for(b, kb_index(b, 0), kb_index(b, v->chunks), 1);
  KVal *acc = kb_acc(b, loop, start_value(l, n, lanes));
  Ix from = lw_ix(kb_alu_c(b, A_MUL, kb_iv(b, loop), size_of(v)));
  KVal *x = lw_load(l, v->partial, lw_add(l, from, to), 0);
  kb_next(b, acc, joined(l, n, acc, x));
  kb_end(b);
  KVal *result = kb_result(b, acc);
  kb_return(b, d);
  return result;
}

/* Every result is an elementwise function of columns of its own shape. */
static bool is_spread(const Cols *c) {
  Lower *l = c->l;
  const Region *body = l->n->body;
  const LwValue *like = column(c, 0);
  for (uint32_t i = 0; i < body->results.len; i++) {
    const LwValue *v = lw_value(l, body->results.data[i]);
    if (!v->column || !same_table(v, like)) return false;
  }
  return size_of(like) >= (l->warps ? l->lanes : PARALLEL_COLUMNS);
}

void lw_emit_cols(Lower *l) {
  Cols c = {.l = l};
  find_columns(&c);
  choose_chunks(&c);
  for (int i = 0; i < c.n; i++) {
    LwValue *v = column(&c, i);
    v->chunks = c.chunks;
    v->partial = kb_workspace(l->b, v->v->type.dtype, c.chunks * size_of(v));
  }
  sum_chunk(&c);
  if (is_spread(&c)) {
    lw_emit_map(l);
    return;
  }
  for (int i = 0; i < c.n; i++)
    column(&c, i)->keep = column(&c, i)->rank > 0;
  kb_stage(l->b, 1, 1);
  lw_write_results(l, NULL, 0);
  kb_end(l->b);
}
