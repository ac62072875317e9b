/* sema_shape.c: builtins that make data, move it, route it, and draw random
 * bits. */
#include "sema.h"

#include <math.h>
#include <string.h>

/* The one result of a node that may not be there. */
static Val only(const Node *n) {
  return val_tensor(n ? n->outs.data[0] : NULL);
}

/* ---- making data --------------------------------------------------------- */

/* i32 indices along `dim` with the dims of `t`. */
static Val indices(BuiltinCall *c, Type t, int dim) {
  return only(
      fe_node(c->S, c->span, OP_iota, &t, NULL, 0, "dim", (int64_t)dim, NULL));
}

Val builtin_iota(BuiltinCall *c) {
  int dim;
  Value *v = arg_tensor(c, 0);
  if (!v || !arg_dim(c, 1, v->type.rank, &dim)) return val_error;
  return indices(c, type_with_dtype(v->type, DT_i32), dim);
}

/* `t` with one more dim at the end. */
static bool add_last(BuiltinCall *c, Type *t, int64_t size) {
  if (t->rank == MAX_RANK || size < 1 || size > MAX_DIM) {
    fe_error(c->S, c->span, "%s cannot have one more dim of size %lld",
             type_text(c->S->cx, t), (long long)size);
    return false;
  }
  t->dims[t->rank++] = (Dim){.size = size};
  return true;
}

Val builtin_iota_like(BuiltinCall *c) {
  int64_t n;
  Value *v = arg_tensor(c, 0);
  if (!v || !arg_int(c, 1, &n)) return val_error;
  Type t = type_with_dtype(v->type, DT_i32);
  return add_last(c, &t, n) ? indices(c, t, t.rank - 1) : val_error;
}

static Val filled(BuiltinCall *c, Type t, Item value) {
  return val_tensor(fe_const(c->S, value, t));
}

/* 0 or 1 in the dtype's own kind. */
static Item unit(BuiltinCall *c, Dtype d, int value) {
  bool truth = dtype_info[d].kind == DK_BOOL;
  return (Item){.val = truth ? val_bool(value) : val_int(value),
                .span = c->span};
}

static Val filled_like(BuiltinCall *c, int value) {
  Value *v = arg_tensor(c, 0);
  if (!v) return val_error;
  return filled(c, v->type, unit(c, v->type.dtype, value));
}

Val builtin_zeros_like(BuiltinCall *c) {
  return filled_like(c, 0);
}
Val builtin_ones_like(BuiltinCall *c) {
  return filled_like(c, 1);
}

static bool arg_type(BuiltinCall *c, int i, Type *out) {
  Val v = c->args[i].val;
  if (v.kind == VAL_TYPE) {
    *out = *v.type;
    return true;
  }
  fe_error(c->S, c->args[i].span, "%s: a type is needed here, not %s", c->name,
           val_text(c->S, v));
  return false;
}

static Val filled_type(BuiltinCall *c, int value) {
  Type t;
  if (!arg_type(c, 0, &t)) return val_error;
  return filled(c, t, unit(c, t.dtype, value));
}

Val builtin_zeros(BuiltinCall *c) {
  return filled_type(c, 0);
}
Val builtin_ones(BuiltinCall *c) {
  return filled_type(c, 1);
}

Val builtin_full(BuiltinCall *c) {
  Type t;
  if (!arg_type(c, 0, &t)) return val_error;
  if (c->args[1].val.kind != VAL_TENSOR) return filled(c, t, c->args[1]);
  return val_tensor(fe_broadcast(c->S, c->span, c->args[1].val.tensor, &t));
}

/* ---- moving data --------------------------------------------------------- */

Val builtin_expand(BuiltinCall *c) {
  Value *v = arg_tensor(c, 0);
  if (!v) return val_error;
  Type t = v->type;
  return add_last(c, &t, 1) ? val_tensor(fe_reshape(c->S, c->span, v, t))
                            : val_error;
}

/* An integer among the arguments that go on and on. */
static bool rest_int(BuiltinCall *c, uint32_t i, int64_t *out) {
  Val v = c->rest.data[i].val;
  *out = v.i;
  if (v.kind == VAL_INT) return true;
  fe_error(c->S, c->rest.data[i].span, "%s: an integer is needed here, not %s",
           c->name, val_text(c->S, v));
  return false;
}

/* Sizes, one of which may be -1: as many as are left. */
static bool read_sizes(BuiltinCall *c, int64_t total, Type *t) {
  int64_t product = 1;
  int open = -1;
  if (c->rest.len > MAX_RANK) {
    fe_error(c->S, c->span, "a tensor may have %d dims at most", MAX_RANK);
    return false;
  }
  for (uint32_t i = 0; i < c->rest.len; i++) {
    int64_t size;
    if (!rest_int(c, i, &size)) return false;
    bool fits = (size >= 1 && size <= MAX_DIM) || (size == -1 && open < 0);
    if (!fits || (size > 0 && product > total / size)) {
      fe_error(c->S, c->rest.data[i].span,
               "reshape: size %lld does not fit %lld elements", (long long)size,
               (long long)total);
      return false;
    }
    if (size == -1) open = (int)i;
    if (size > 0) product *= size;
    t->dims[t->rank++] = (Dim){.size = size};
  }
  if (open >= 0) t->dims[open].size = total / product;
  return true;
}

Val builtin_reshape(BuiltinCall *c) {
  Value *v = arg_tensor(c, 0);
  if (!v) return val_error;
  Type t = {.dtype = v->type.dtype};
  if (c->rest.len == 1 && c->rest.data[0].val.kind == VAL_TYPE)
    t = *c->rest.data[0].val.type;
  else if (!read_sizes(c, type_elements(&v->type), &t))
    return val_error;
  return val_tensor(fe_reshape(c->S, c->span, v, t));
}

Val builtin_transpose(BuiltinCall *c) {
  Value *v = arg_tensor(c, 0);
  int order[MAX_RANK];
  unsigned seen = 0;
  if (!v) return val_error;
  if (c->rest.len != v->type.rank) {
    fe_error(c->S, c->span, "transpose: %u dims are named for %s", c->rest.len,
             type_text(c->S->cx, &v->type));
    return val_error;
  }
  for (uint32_t i = 0; i < c->rest.len; i++) {
    int64_t d;
    if (!rest_int(c, i, &d)) return val_error;
    if (d < 0) d += v->type.rank;
    if (d < 0 || d >= v->type.rank || (seen >> d & 1)) {
      fe_error(c->S, c->rest.data[i].span,
               "transpose: each dim of %s must be named once",
               type_text(c->S->cx, &v->type));
      return val_error;
    }
    seen |= 1u << d;
    order[i] = (int)d;
  }
  return val_tensor(fe_transpose(c->S, c->span, v, order));
}

Val builtin_concat(BuiltinCall *c) {
  ValueVec parts = {0};
  int dim;
  for (uint32_t i = 0; i < c->rest.len; i++) {
    Value *v = fe_tensor(c->S, c->rest.data[i]);
    if (!v) return val_error;
    vec_push(&c->S->cx->perm, &parts, v);
  }
  if (!parts.len) {
    fe_error(c->S, c->span, "concat: nothing to join");
    return val_error;
  }
  if (!arg_dim(c, 1, parts.data[0]->type.rank, &dim)) return val_error;
  return only(fe_node(c->S, c->span, OP_concat, NULL, parts.data, parts.len,
                      "dim", (int64_t)dim, NULL));
}

Val builtin_pad(BuiltinCall *c) {
  Value *v = arg_tensor(c, 0);
  int64_t lo = 0, hi = 0;
  int dim;
  if (!v || !arg_dim(c, 1, v->type.rank, &dim)) return val_error;
  if (c->given[2] && !arg_int(c, 2, &lo)) return val_error;
  if (c->given[3] && !arg_int(c, 3, &hi)) return val_error;
  return only(fe_node(c->S, c->span, OP_pad, NULL, &v, 1, "dim", (int64_t)dim,
                      "lo", lo, "hi", hi, NULL));
}

/* ---- rows ---------------------------------------------------------------- */

/* A node over the tensors of arguments [0, n). */
static Val over(BuiltinCall *c, OpKind op, int n) {
  Value *ins[3] = {0};
  for (int i = 0; i < n; i++)
    if (!(ins[i] = arg_tensor(c, i))) return val_error;
  return only(fe_node(c->S, c->span, op, NULL, ins, (uint32_t)n, NULL));
}

Val builtin_gather(BuiltinCall *c) {
  return over(c, OP_gather, 2);
}
Val builtin_take(BuiltinCall *c) {
  return over(c, OP_take, 2);
}

/* Rows go back by the ids that they came by. */
static bool check_ids(BuiltinCall *c, Value *rows, int at) {
  Value *ids = arg_tensor(c, at), *source = ir_ragged_source(rows);
  if (!ids || !source || ir_outermost(source) == ir_outermost(ids)) return ids;
  fe_error(c->S, c->args[at].span, "%s: the rows came by other ids than these",
           c->name);
  fe_note(c->S, ir_ragged_owner(rows)->span, "they came from here");
  return false;
}

/* The same of rows, operand 0, by the ids of argument `at`: what their
 * `dispatch` drops has none. */
static Val over_rows(BuiltinCall *c, OpKind op, int at, int n) {
  Value *rows = arg_tensor(c, 0);
  if (!rows || !check_ids(c, rows, at)) return val_error;
  Val v = over(c, op, n);
  if (v.kind != VAL_TENSOR) return v;
  const Node *owner = ir_ragged_owner(rows);
  if (owner && owner->op == OP_dispatch)
    ir_drops(v.tensor->def, attr_bool(owner, "drops"));
  return v;
}

Val builtin_row_dot(BuiltinCall *c) {
  return over_rows(c, OP_row_dot, 2, 3);
}
Val builtin_stop_gradient(BuiltinCall *c) {
  return over(c, OP_stop_gradient, 1);
}

Val builtin_combine(BuiltinCall *c) {
  return over_rows(c, OP_combine, 1, c->given[2] ? 3 : 2);
}

Val builtin_scatter_add(BuiltinCall *c) {
  int64_t rows;
  Value *ins[2] = {arg_tensor(c, 1), arg_tensor(c, 0)}; /* ids first */
  if (!arg_int(c, 2, &rows)) return val_error;
  return only(
      fe_node(c->S, c->span, OP_scatter_add, NULL, ins, 2, "rows", rows, NULL));
}

Val builtin_put(BuiltinCall *c) {
  int64_t size;
  Value *ins[2] = {arg_tensor(c, 0), arg_tensor(c, 1)};
  if (!arg_int(c, 2, &size)) return val_error;
  return only(fe_node(c->S, c->span, OP_put, NULL, ins, 2, "size", size, NULL));
}

/* A number that is known when compiling and at least `least`; `out` stays where
 * none is given. */
static bool arg_number(BuiltinCall *c, int i, double least, const char *what,
                       double *out) {
  Val v = c->args[i].val;
  if (!c->given[i]) return true;
  if (val_is_number(v) && val_number(v) >= least) {
    *out = val_number(v);
    return true;
  }
  fe_error(c->S, c->args[i].span, "%s: %s is needed here, not %s", c->name,
           what, val_text(c->S, v));
  return false;
}

/* How many of `all` rows an expert has at most, rounded down; 0: perhaps
 * all. */
static bool arg_most(BuiltinCall *c, int i, int64_t all, int64_t *out) {
  double most = (double)all;
  if (!arg_number(c, i, 1,
                  "a number of rows, at least 1 and known when compiling,",
                  &most))
    return false;
  *out = most < (double)all ? (int64_t)most : 0;
  return true;
}

Val builtin_dispatch(BuiltinCall *c) {
  int64_t experts, most;
  bool drops;
  Value *ins[3] = {arg_tensor(c, 0), arg_tensor(c, 1),
                   c->given[3] ? arg_tensor(c, 3) : NULL};
  int64_t all = ins[1] ? type_elements(&ins[1]->type) : 0;
  if (!arg_int(c, 2, &experts) || !arg_bool(c, 4, &drops) ||
      !arg_most(c, 5, all, &most))
    return val_error;
  Node *n = fe_node(c->S, c->span, OP_dispatch, NULL, ins, c->given[3] ? 3 : 2,
                    "experts", experts, NULL);
  if (n && most) *attr_ref(n, "most") = (Attr){.i = most, .present = true};
  return only(n ? ir_drops(n, drops) : NULL);
}

/* ---- attention ----------------------------------------------------------- */

/* By default the dot products have the variance of their factors. */
static bool arg_scale(BuiltinCall *c, int i, const Value *q, double *out) {
  int64_t width = q->type.rank ? q->type.dims[q->type.rank - 1].size : 1;
  *out = 1 / sqrt((double)width);
  return arg_number(c, i, -INFINITY, "a number known when compiling", out);
}

static bool is_all_true(const Value *v) {
  return v->def && v->def->op == OP_const && attr_float(v->def, "value") != 0;
}

Val builtin_attention(BuiltinCall *c) {
  Value *ins[4] = {arg_tensor(c, 0), arg_tensor(c, 1), arg_tensor(c, 2),
                   c->given[5] ? arg_tensor(c, 5) : NULL};
  bool causal, masked = c->given[5];
  double scale;
  if (!ins[0] || !ins[1] || !ins[2] || (masked && !ins[3]) ||
      !arg_bool(c, 3, &causal) || !arg_scale(c, 4, ins[0], &scale))
    return val_error;
  Node *n = fe_node(c->S, c->span, OP_attention, NULL, ins, masked ? 4 : 3,
                    "causal", (int64_t)causal, "scale", scale, NULL);
  if (n && masked && is_all_true(ins[3]))
    n->ins.len = 3; /* as layers have it by default */
  return n ? val_tensor(n->outs.data[0]) : val_error;
}

/* ---- shapes as numbers --------------------------------------------------- */

Val builtin_size(BuiltinCall *c) {
  int dim;
  Value *v = arg_tensor(c, 0);
  if (!v || !arg_dim(c, 1, v->type.rank, &dim)) return val_error;
  Val size = val_int(v->type.dims[dim].size);
  size.ragged = v->type.dims[dim].ragged;
  return size;
}

Val builtin_rank(BuiltinCall *c) {
  Value *v = arg_tensor(c, 0);
  return v ? val_int(v->type.rank) : val_error;
}

/* ---- random bits --------------------------------------------------------- */

/* A number for this call, the same wherever the same path draws for the same
 * time: a hash of both, moved on where another has taken it. */
static uint32_t site_of(Sema *S) {
  Sym path = S->frame->path;
  uintptr_t drawn = (uintptr_t)map_get(&S->build->draws, path);
  map_put(&S->cx->perm, &S->build->draws, path, (void *)(drawn + 1));
  Sym key = sym_fmt(S->cx, "%s#%zu", path, (size_t)drawn);
  uint32_t site = (uint32_t)hash_bytes(0, key, strlen(key)) & INT32_MAX;
  for (;; site = (site + 1) & INT32_MAX) {
    const void *slot = (const void *)(uintptr_t)site;
    Sym owner = map_get(&S->sites, slot);
    if (!owner) map_put(&S->cx->perm, &S->sites, slot, (void *)(uintptr_t)key);
    if (!owner || owner == key) return site;
  }
}

static Value *constant(Sema *S, Span s, Type t, int64_t value) {
  return fe_const(S, (Item){.val = val_int(value), .span = s}, t);
}

/* `sum` times the size of dim `d`, and the index along it. NULL: none yet. */
static Value *next_index(Sema *S, Span s, Type t, int d, Value *sum) {
  int64_t size = t.dims[d].size;
  if (sum) sum = fe_binary_op(S, s, OP_mul, sum, constant(S, s, t, size));
  Node *n = fe_node(S, s, OP_iota, &t, NULL, 0, "dim", (int64_t)d, NULL);
  Value *at = n ? n->outs.data[0] : NULL;
  return sum && at ? fe_binary_op(S, s, OP_add, sum, at) : at;
}

/* The row-major index of each element, u32. */
static Value *linear_index(Sema *S, Span s, Type t) {
  Value *sum = NULL;
  for (int d = 0; d < t.rank; d++) {
    if (t.dims[d].size == 1) continue;
    sum = next_index(S, s, t, d, sum);
    if (!sum) return NULL;
  }
  return sum ? sum : constant(S, s, t, 0);
}

/* "ab->abcd", of 2 and 4 dims. */
static Sym map_of_leading(Sema *S, int from, int to) {
  const char *letters = "abcdefgh";
  return sym_fmt(S->cx, "%.*s->%.*s", from, letters, to, letters);
}

/* For rows: of each element the choice that its row stands for, counted over
 * all tokens, as where a row stands depends on all others. u32, of type `t`. */
static Value *choice_index(Sema *S, Span s, Value *like, Type t) {
  const Node *owner = ir_ragged_owner(like);
  if (!owner) {
    fe_error(S, s, "random_bits: nothing says whose rows these are");
    return NULL;
  }
  Value *ids = value_here(S, ir_now(owner->ins.data[1]), s);
  if (!ids) return NULL;
  Type all = type_with_dtype(ids->type, DT_u32), one = all;
  one.dims[one.rank - 1].size = 1;
  Value *ins[3] = {constant(S, s, one, 1), ids, linear_index(S, s, all)};
  Node *n = fe_node(S, s, OP_dispatch, NULL, ins, 3, "experts",
                    attr_int(owner, "experts"), NULL);
  if (!n) return NULL;
  Value *rows = ir_drops(n, attr_bool(owner, "drops"))->outs.data[0];
  Type flat = rows->type;
  flat.rank = 2;
  n = fe_node(S, s, OP_reshape, &flat, &rows, 1, NULL);
  if (n && t.rank > 2)
    n = fe_node(S, s, OP_broadcast, &t, n->outs.data, 1, "map",
                map_of_leading(S, 2, t.rank), NULL);
  return n ? n->outs.data[0] : NULL;
}

/* Where each element is, wherever its rows stand. */
static Value *position(Sema *S, Span s, Value *like) {
  Type t = type_with_dtype(like->type, DT_u32);
  if (!type_is_ragged(&t)) return linear_index(S, s, t);
  Value *sum = choice_index(S, s, like, t);
  for (int d = 2; sum && d < t.rank; d++)
    if (t.dims[d].size > 1) sum = next_index(S, s, t, d, sum);
  return sum;
}

/* Which turn of the scans around this is, all counted together: u32[]. */
static Value *turn(Sema *S, Span s, ScanState *scan) {
  if (!scan) return constant(S, s, type_scalar(DT_u32), 0);
  Value *index = value_here(S, scan->index, s);
  Value *inner = fe_cast(S, s, index, DT_u32);
  if (!scan->up || !inner) return inner;
  Value *outer = turn(S, s, scan->up);
  Value *length = constant(S, s, type_scalar(DT_u32), scan->length);
  Value *before = fe_binary_op(S, s, OP_mul, outer, length);
  return before ? fe_binary_op(S, s, OP_add, before, inner) : NULL;
}

/* threefry(seed, position, turn, step): the same bits wherever and whenever
 * they are drawn again. */
Val builtin_random_bits(BuiltinCall *c) {
  Sema *S = c->S;
  Value *like = arg_tensor(c, 0);
  if (!like) return val_error;
  Type t = type_with_dtype(like->type, DT_u32);
  Value *seed = value_here(S, build_seed(S, c->span), c->span);
  Value *step =
      S->build && S->build->starting
          ? constant(S, c->span, type_scalar(DT_u32), 0)
          : fe_cast(S, c->span, value_here(S, build_step(S, c->span), c->span),
                    DT_u32);
  Value *ins[4] = {fe_broadcast(S, c->span, seed, &t),
                   position(S, c->span, like),
                   fe_broadcast(S, c->span, turn(S, c->span, S->scan), &t),
                   fe_broadcast(S, c->span, step, &t)};
  int64_t site = site_of(S);
  return only(
      fe_node(S, c->span, OP_threefry, NULL, ins, 4, "site", site, NULL));
}
