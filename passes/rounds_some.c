/* rounds_some.c: which rows go in which round, for rounds.c.
 *
 * Where the experts are, rows stand expert by expert, in each by the rank that
 * they come from: a round takes `bound` of them, counted in that order from
 * `lo` on. How many rows each rank has for each expert is known there, so where
 * each of these runs begins is, too, and is sent back to whoever has the rows.
 * Then both sides find the part of each run that is in a round on their own:
 *
 *   bound 4          expert 0       expert 1
 *   from rank        0  0  1        0  1  1  1
 *   round 0          *  *  *        *
 *   round 1                            *  *  *
 *
 * All these numbers are i32 and a few for each rank and expert. */
#include "pass.h"

static Value *each_is(Builder *b, Value *like, int64_t x) {
  return ir_const_like(b, like, (double)x);
}

/* Within 0 and `most`. */
static Value *clamp(Builder *b, Value *x, int64_t most) {
  x = ir_binary(b, OP_max, x, each_is(b, x, 0));
  return ir_binary(b, OP_min, x, each_is(b, x, most));
}

/* Counted from the round's first row; NULL: the very first one. */
static Value *from_first(Builder *b, Value *x, Value *lo) {
  return lo ? ir_binary(b, OP_sub, x, ir_splat(b, lo, x->type)) : x;
}

/* ---- all rows ------------------------------------------------------------ */

/* Experts after each axis of the group has cut them, in sizes rounded up, and
 * in how many parts before; returns how many axes. */
static int cut_experts(const Module *m, Axes axes, int64_t experts,
                       int64_t each[MAX_AXES + 1],
                       int64_t ranks[MAX_AXES + 1]) {
  int n = axes_count(axes);
  each[0] = experts;
  ranks[0] = 1;
  for (int i = 0; i < n; i++) {
    int64_t parts = m->mesh.data[axes_at(axes, i)].size;
    each[i + 1] = (each[i] + parts - 1) / parts;
    ranks[i + 1] = ranks[i] * parts;
  }
  return n;
}

/* A number for each rank's experts, i32[P * M], as one for each expert: where a
 * rank has fewer there are some too many. */
static Value *by_expert(Builder *b, Value *v, Axes axes, int64_t experts) {
  const Module *m = b->region->entry->module;
  int64_t each[MAX_AXES + 1], ranks[MAX_AXES + 1];
  for (int i = cut_experts(m, axes, experts, each, ranks); i-- > 0;) {
    int64_t padded = ranks[i + 1] / ranks[i] * each[i + 1];
    if (padded == each[i]) continue;
    Type rows = type_of(DT_i32, 2, (int64_t[]){ranks[i], padded});
    Type flat = type_of(DT_i32, 1, (int64_t[]){ranks[i] * each[i]});
    v = ir_slice(b, ir_reshape(b, v, rows), 1, 0, each[i]);
    v = ir_reshape(b, v, flat);
  }
  return v;
}

static Value *sums_before(Builder *b, Value *v) {
  Node *n = ir_node(b, OP_cumsum, NULL, &v, 1, "exclusive", (int64_t)1,
                    "reverse", (int64_t)0, NULL);
  return n->outs.data[0];
}

/* Where the rows of each rank for each expert begin: i32[P, M]. */
static Value *begins(Builder *b, Value *got, Value *theirs) {
  int64_t m = got->type.dims[1].size;
  Value *turned = ir_transpose(b, got, "pm->mp");
  Value *before = ir_transpose(b, sums_before(b, turned), "mp->pm");
  Value *first = ir_slice(b, theirs, 0, 0, m);
  first = ir_broadcast(b, first, "m->pm", got->type);
  return ir_binary(b, OP_add, first, before);
}

RoundRows rounds_rows(Builder *b, const Node *send) {
  Value *mine = send->ins.data[ROWS_MINE], *got = send->ins.data[ROWS_GOT];
  int64_t experts = mine->type.dims[0].size - 1;
  int64_t all = type_elements(&got->type);
  RoundRows r = {.mine = mine, .got = got};
  r.begin = begins(b, got, send->ins.data[ROWS_THEIRS]);
  Value *told = ir_reshape(b, r.begin, type_of(DT_i32, 1, &all));
  Node *back = ir_node(b, OP_all_to_all, NULL, &told, 1, "axes",
                       attr_sym(send, "axes"), "split", (int64_t)0, "concat",
                       (int64_t)0, NULL);
  r.there = by_expert(b, back->outs.data[0], node_axes(send), experts);
  r.first = ir_slice(b, mine, 0, 0, experts);
  r.count = ir_binary(b, OP_sub, ir_slice(b, mine, 0, 1, experts), r.first);
  return r;
}

/* ---- those of one round -------------------------------------------------- */

/* How many of `count` rows that begin at `begin` are in the round. */
static Value *inside(Builder *b, Value *begin, Value *count, Value *lo,
                     int64_t bound) {
  Value *end = ir_binary(b, OP_add, begin, count);
  Value *from = clamp(b, from_first(b, begin, lo), bound);
  return ir_binary(b, OP_sub, clamp(b, from_first(b, end, lo), bound), from);
}

Value *rounds_theirs(Builder *b, Value *theirs, Value *lo, int64_t bound) {
  return clamp(b, from_first(b, theirs, lo), bound);
}

Value *rounds_got(Builder *b, const RoundRows *r, Value *lo, int64_t bound) {
  return inside(b, r->begin, r->got, lo, bound);
}

Value *rounds_some(Builder *b, const RoundRows *r, Value *lo, int64_t bound) {
  Value *first = r->first, *n = inside(b, r->there, r->count, lo, bound);
  if (lo) { /* rows of rounds before are passed over */
    Value *over = ir_unary(b, OP_neg, from_first(b, r->there, lo));
    over = ir_binary(b, OP_max, over, each_is(b, over, 0));
    over = ir_binary(b, OP_min, over, r->count);
    first = ir_binary(b, OP_add, first, over);
  }
  int64_t row[] = {1, first->type.dims[0].size};
  Type t = type_of(DT_i32, 2, row);
  Value *both[] = {ir_reshape(b, first, t), ir_reshape(b, n, t)};
  return ir_concat(b, both, 2, 0);
}

/* ---- how many there are -------------------------------------------------- */

Value *rounds_more(Builder *b, Value *theirs, int64_t bound) {
  const Module *m = b->region->entry->module;
  Sym axes = NULL;
  for (uint32_t i = 0; i < m->mesh.len; i++) {
    Sym name = m->mesh.data[i].name;
    if (m->mesh.data[i].size > 1)
      axes = axes ? sym_fmt(b->cx, "%s,%s", axes, name) : name;
  }
  Value *rows = ir_slice(b, theirs, 0, theirs->type.dims[0].size - 1, 1);
  rows = ir_reshape(b, rows, type_scalar(DT_i32));
  Value *last = ir_binary(b, OP_sub, rows, each_is(b, rows, 1));
  Value *more = ir_binary(b, OP_div, last, each_is(b, last, bound));
  more = ir_binary(b, OP_max, more, each_is(b, more, 0)); /* of no rows */
  return ir_node(b, OP_all_reduce, NULL, &more, 1, "axes", axes, "op", "max",
                 NULL)
      ->outs.data[0];
}
