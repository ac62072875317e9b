/* simplify_move.c: rewrite rules on ops that move or repeat data: transpose,
 * broadcast, reshape, slice, concat, pad. Two in a row become one, what has no
 * effect goes, and a sum of pads that fill one dim becomes a concat. All but
 * the last give the same bits. Rows are cast before they are gathered. */
#include "pass.h"

#include <string.h>

/* `letters` name the dims of the result of move `m`; names those of its
 * operand, all of which the result has. */
static void pull_back(const IndexMap *m, const char *letters, char *out) {
  for (int i = 0; m->ins[0][i]; i++) {
    out[i] = letters[strchr(m->out, m->ins[0][i]) - m->out];
    out[i + 1] = '\0';
  }
}

/* Every element of operand 0 is one constant, and so is the result's. */
static Value *move_const(Rewrite *w) {
  return ir_const_like(w->b, rw_result(w), attr_float(rw_def(w, 0), "value"));
}

/* Zeros in, zeros out. */
static Value *move_zero(Rewrite *w) {
  uint32_t x = w->n->op == OP_scatter_add ? 1 : 0;
  double c;
  if (!rw_is_const(rw_in(w, x), &c) || c != 0) return NULL;
  return ir_const_like(w->b, rw_result(w), 0.0);
}

/* ---- transpose, broadcast ---------------------------------------------- */

static Value *drop_move(Rewrite *w) {
  IndexMap m = map_of(w->n);
  return strcmp(m.ins[0], m.out) == 0 ? rw_in(w, 0) : NULL;
}

/* A move of a transpose or broadcast, as one move. */
static IndexMap through(const Rewrite *w) {
  IndexMap outer = map_of(w->n), inner = map_of(rw_def(w, 0)), m = outer;
  m.ins[0][0] = '\0';
  pull_back(&inner, outer.ins[0], m.ins[0]);
  return m;
}

static Value *transpose_transpose(Rewrite *w) {
  IndexMap m = through(w);
  return ir_transpose(w->b, rw_def(w, 0)->ins.data[0], map_text(w->b->cx, &m));
}

static Value *to_broadcast(Rewrite *w) {
  IndexMap m = through(w);
  return ir_broadcast(w->b, rw_def(w, 0)->ins.data[0], map_text(w->b->cx, &m),
                      rw_result(w)->type);
}

/* A broadcast without new letters. */
static Value *broadcast_same(Rewrite *w) {
  IndexMap m = map_of(w->n);
  if (strlen(m.ins[0]) != strlen(m.out)) return NULL;
  return ir_transpose(w->b, rw_in(w, 0), map_text(w->b->cx, &m));
}

/* ---- reshape ----------------------------------------------------------- */

static Value *reshape_same(Rewrite *w) {
  return type_equal(&rw_in(w, 0)->type, &rw_result(w)->type) ? rw_in(w, 0)
                                                             : NULL;
}

static Value *reshape_reshape(Rewrite *w) {
  return ir_reshape(w->b, rw_def(w, 0)->ins.data[0], rw_result(w)->type);
}

/* Of a scalar, spread: the dims do not matter. */
static Value *reshape_splat(Rewrite *w) {
  Value *x = rw_def(w, 0)->ins.data[0];
  return x->type.rank == 0 ? ir_splat(w->b, x, rw_result(w)->type) : NULL;
}

/* ---- slice, pad, concat ------------------------------------------------ */

static int dim_of(const Node *n) {
  return (int)attr_int(n, "dim");
}
static int64_t size_of(const Value *v, int dim) {
  return v->type.dims[dim].size;
}

static Value *slice_all(Rewrite *w) {
  return type_equal(&rw_in(w, 0)->type, &rw_result(w)->type) ? rw_in(w, 0)
                                                             : NULL;
}

static Value *slice_slice(Rewrite *w) {
  Node *in = rw_def(w, 0);
  int dim = dim_of(w->n);
  if (dim_of(in) != dim) return NULL;
  return ir_slice(w->b, in->ins.data[0], dim,
                  attr_int(in, "start") + attr_int(w->n, "start"),
                  attr_int(w->n, "size"));
}

/* Wholly inside of what was padded, or wholly outside of it. */
static Value *slice_pad(Rewrite *w) {
  Node *in = rw_def(w, 0);
  int dim = dim_of(w->n);
  if (dim_of(in) != dim) return NULL;
  int64_t size = attr_int(w->n, "size"), inner = size_of(in->ins.data[0], dim);
  int64_t start = attr_int(w->n, "start") - attr_int(in, "lo");
  if (start + size <= 0 || start >= inner)
    return ir_const_like(w->b, rw_result(w), 0.0);
  if (start < 0 || start + size > inner) return NULL;
  return ir_slice(w->b, in->ins.data[0], dim, start, size);
}

static Value *slice_concat(Rewrite *w) {
  Node *in = rw_def(w, 0);
  int dim = dim_of(w->n);
  if (dim_of(in) != dim) return NULL;
  int64_t start = attr_int(w->n, "start"), size = attr_int(w->n, "size");
  for (uint32_t i = 0; i < in->ins.len && start >= 0; i++) {
    Value *part = in->ins.data[i];
    if (start + size <= size_of(part, dim))
      return ir_slice(w->b, part, dim, start, size);
    start -= size_of(part, dim);
  }
  return NULL;
}

static Value *slice_broadcast(Rewrite *w) {
  Node *in = rw_def(w, 0);
  IndexMap m = map_of(in);
  Value *x = in->ins.data[0];
  const char *at = strchr(m.ins[0], m.out[dim_of(w->n)]);
  if (at)
    x = ir_slice(w->b, x, (int)(at - m.ins[0]), attr_int(w->n, "start"),
                 attr_int(w->n, "size"));
  return ir_broadcast(w->b, x, attr_sym(in, "map"), rw_result(w)->type);
}

static Value *pad_none(Rewrite *w) {
  bool none = attr_int(w->n, "lo") == 0 && attr_int(w->n, "hi") == 0;
  return none ? rw_in(w, 0) : NULL;
}

static Value *pad_pad(Rewrite *w) {
  Node *in = rw_def(w, 0);
  int dim = dim_of(w->n);
  if (dim_of(in) != dim) return NULL;
  return ir_pad(w->b, in->ins.data[0], dim,
                attr_int(w->n, "lo") + attr_int(in, "lo"),
                attr_int(w->n, "hi") + attr_int(in, "hi"));
}

static Value *concat_one(Rewrite *w) {
  return w->n->ins.len == 1 ? rw_in(w, 0) : NULL;
}

/* Parts that are concats along the same dim give theirs. */
static Value *concat_concat(Rewrite *w) {
  ValueVec parts = {0};
  bool nested = false;
  for (uint32_t i = 0; i < w->n->ins.len; i++) {
    Node *d = rw_def(w, i);
    bool open = d && d->op == OP_concat && dim_of(d) == dim_of(w->n);
    nested |= open;
    for (uint32_t k = 0; k < (open ? d->ins.len : 1); k++)
      vec_push(&w->b->cx->scratch, &parts, open ? d->ins.data[k] : rw_in(w, i));
  }
  if (!nested) return NULL;
  return ir_concat(w->b, parts.data, parts.len, dim_of(w->n));
}

/* Neighbouring slices of one value, in order, are one slice. */
static Value *concat_slices(Rewrite *w) {
  int dim = dim_of(w->n);
  Node *first = rw_def(w, 0);
  if (dim_of(first) != dim) return NULL;
  int64_t end = attr_int(first, "start");
  for (uint32_t i = 0; i < w->n->ins.len; i++) {
    Node *d = rw_def(w, i);
    if (!d || d->op != OP_slice || dim_of(d) != dim ||
        d->ins.data[0] != first->ins.data[0] || attr_int(d, "start") != end)
      return NULL;
    end += attr_int(d, "size");
  }
  int64_t start = attr_int(first, "start");
  return ir_slice(w->b, first->ins.data[0], dim, start, end - start);
}

/* pad(a) + pad(b) where one begins after the other ends. */
static Value *add_pads(Rewrite *w) {
  Node *lower = rw_def(w, 0), *upper = rw_def(w, 1);
  int dim = dim_of(lower);
  if (dim_of(upper) != dim) return NULL;
  if (attr_int(lower, "lo") > attr_int(upper, "lo")) {
    lower = rw_def(w, 1);
    upper = rw_def(w, 0);
  }
  int64_t start = attr_int(lower, "lo"), hi = attr_int(upper, "hi");
  int64_t gap =
      attr_int(upper, "lo") - start - size_of(lower->ins.data[0], dim);
  if (gap < 0) return NULL;
  Value *parts[3] = {lower->ins.data[0]};
  uint32_t n = 1;
  if (gap > 0) {
    Type t = parts[0]->type;
    t.dims[dim].size = gap;
    parts[n++] = ir_const(w->b, t, 0.0);
  }
  parts[n++] = upper->ins.data[0];
  Value *all = ir_concat(w->b, parts, n, dim);
  return start || hi ? ir_pad(w->b, all, dim, start, hi) : all;
}

/* ---- rows of experts ----------------------------------------------------- */

/* Rows that are gathered for a narrower copy alone: a token is cast once, not
 * once for each expert it goes to, unless there are more tokens than rows. */
static Value *cast_rows(Rewrite *w) {
  Node *in = rw_def(w, 0);
  Dtype to = rw_result(w)->type.dtype;
  int64_t from = dtype_info[rw_in(w, 0)->type.dtype].bytes;
  if (in->ins.len > 3 || rw_uses(w, rw_in(w, 0)) != 1 ||
      dtype_info[to].bytes >= from ||
      type_elements(&in->ins.data[0]->type) > type_elements(&rw_in(w, 0)->type))
    return NULL;
  Value *ins[] = {ir_cast_to(w->b, in->ins.data[0], to), in->ins.data[1],
                  in->ins.data[2]};
  return ir_node(w->b, OP_rows_gather, NULL, ins, 3, "choices",
                 attr_int(in, "choices"), NULL)
      ->outs.data[0];
}

/* ---- maps around sums -------------------------------------------------- */

/* A transpose of a sum that nothing else reads: the sum can come out in that
 * order. */
static Value *transpose_sum(Rewrite *w) {
  Node *in = rw_def(w, 0);
  if (rw_uses(w, rw_in(w, 0)) != 1) return NULL;
  IndexMap outer = map_of(w->n), m = map_of(in);
  char order[MAX_RANK + 1] = "";
  for (int i = 0; outer.out[i]; i++) {
    order[i] = m.out[strchr(outer.ins[0], outer.out[i]) - outer.ins[0]];
    order[i + 1] = '\0';
  }
  strcpy(m.out, order);
  Node *sum = ir_node(w->b, in->op, NULL, in->ins.data, in->ins.len, "map",
                      map_text(w->b->cx, &m), NULL);
  return sum->outs.data[0];
}

#define ANY ANY_OP
const Rule move_rules[] = {
    {"transpose of const", OP_transpose, {OP_const, ANY}, move_const},
    {"broadcast of const", OP_broadcast, {OP_const, ANY}, move_const},
    {"reshape of const", OP_reshape, {OP_const, ANY}, move_const},
    {"slice of const", OP_slice, {OP_const, ANY}, move_const},
    {"gather of const", OP_gather, {OP_const, ANY}, move_const},
    {"take of const", OP_take, {OP_const, ANY}, move_const},
    {"max of const", OP_reduce_max, {OP_const, ANY}, move_const},
    {"min of const", OP_reduce_min, {OP_const, ANY}, move_const},
    {"pad of zeros", OP_pad, {OP_const, ANY}, move_zero},
    {"put of zeros", OP_put, {OP_const, ANY}, move_zero},
    {"cumsum of zeros", OP_cumsum, {OP_const, ANY}, move_zero},
    {"scatter of zeros", OP_scatter_add, {ANY, OP_const}, move_zero},
    {"transpose in place", OP_transpose, {ANY, ANY}, drop_move},
    {"transpose twice", OP_transpose, {OP_transpose, ANY}, transpose_transpose},
    {"transpose of broadcast", OP_transpose, {OP_broadcast, ANY}, to_broadcast},
    {"transpose of sum", OP_transpose, {OP_reduce_sum, ANY}, transpose_sum},
    {"transpose of contract", OP_transpose, {OP_contract, ANY}, transpose_sum},
    {"broadcast in place", OP_broadcast, {ANY, ANY}, broadcast_same},
    {"broadcast twice", OP_broadcast, {OP_broadcast, ANY}, to_broadcast},
    {"broadcast of transpose", OP_broadcast, {OP_transpose, ANY}, to_broadcast},
    {"reshape in place", OP_reshape, {ANY, ANY}, reshape_same},
    {"reshape twice", OP_reshape, {OP_reshape, ANY}, reshape_reshape},
    {"reshape of splat", OP_reshape, {OP_broadcast, ANY}, reshape_splat},
    {"slice of all", OP_slice, {ANY, ANY}, slice_all},
    {"slice twice", OP_slice, {OP_slice, ANY}, slice_slice},
    {"slice of pad", OP_slice, {OP_pad, ANY}, slice_pad},
    {"slice of concat", OP_slice, {OP_concat, ANY}, slice_concat},
    {"slice of broadcast", OP_slice, {OP_broadcast, ANY}, slice_broadcast},
    {"pad by none", OP_pad, {ANY, ANY}, pad_none},
    {"pad twice", OP_pad, {OP_pad, ANY}, pad_pad},
    {"concat of one", OP_concat, {ANY, ANY}, concat_one},
    {"concat twice", OP_concat, {ANY, ANY}, concat_concat},
    {"concat of slices", OP_concat, {OP_slice, ANY}, concat_slices},
    {"cast of rows", OP_cast, {OP_rows_gather, ANY}, cast_rows},
    {"sum of pads", OP_add, {OP_pad, OP_pad}, add_pads},
    {.name = NULL},
};
#undef ANY
