/* sema_tensor.c: from operations on values to nodes.
 *
 * The IR wants elementwise operands of one shape, so broadcasting happens here:
 * shapes are aligned at the right, sizes of 1 and missing leading dims repeat.
 * Numbers become constants of the shape and dtype they meet. */
#include "sema.h"

#include <math.h>
#include <string.h>

/* ---- nodes --------------------------------------------------------------- */

/* Whether there is an entry to put a node into; reports once when a model grows
 * without bound. */
static bool may_add(Sema *S, Span s) {
  if (!S->build) {
    fe_error(S, s, "there are no tensors outside of entries");
    return false;
  }
  if (++S->nodes <= MAX_NODES) return !S->stopped;
  if (!S->stopped)
    fe_error(S, s, "the model has more than %d operations", MAX_NODES);
  S->stopped = true;
  return false;
}

bool fe_infer(Sema *S, const Node *n, TypeVec *types) {
  fe_flush(S);
  bool ok = ir_infer_types(S->cx, n, types);
  for (uint32_t i = 0; ok && i < types->len; i++)
    ok = ir_check_type(S->cx, n->span, op_info[n->op].name, &types->data[i]);
  if (!ok) fe_settle(S);
  return ok;
}

Node *fe_node(Sema *S, Span s, OpKind op, const Type *type, Value *const *ins,
              uint32_t n_ins, ...) {
  Node probe = {.op = op, .span = s};
  TypeVec types = {0};
  if (!may_add(S, s)) return NULL;
  for (uint32_t i = 0; i < n_ins; i++) {
    if (!ins[i]) return NULL;
    vec_push(&S->cx->perm, &probe.ins, ins[i]);
  }
  va_list args;
  va_start(args, n_ins);
  ir_set_attrs(S->cx, &probe, args);
  va_end(args);
  if (type) ir_add_result(S->cx, &probe, *type);
  if (!fe_infer(S, &probe, &types)) return NULL;
  S->b.span = s;
  return ir_node_raw(&S->b, op, ins, n_ins, probe.attrs, types.data, types.len);
}

Value *fe_unary_op(Sema *S, Span s, OpKind op, Value *a) {
  Node *n = fe_node(S, s, op, NULL, &a, 1, NULL);
  return n ? n->outs.data[0] : NULL;
}

Value *fe_binary_op(Sema *S, Span s, OpKind op, Value *a, Value *b) {
  Node *n = fe_node(S, s, op, NULL, (Value *[]){a, b}, 2, NULL);
  return n ? n->outs.data[0] : NULL;
}

Value *fe_cast(Sema *S, Span s, Value *v, Dtype dtype) {
  if (!v || v->type.dtype == dtype) return v;
  Type t = type_with_dtype(v->type, dtype);
  Node *n = fe_node(S, s, OP_cast, &t, &v, 1, NULL);
  return n ? n->outs.data[0] : NULL;
}

Value *fe_reduce(Sema *S, Span s, OpKind op, Value *v, unsigned mask) {
  if (!v || !mask) return v;
  IndexMap m = {.n_ins = 1};
  for (int i = 0, kept = 0; i < v->type.rank; i++) {
    m.ins[0][i] = (char)('a' + i);
    if (!(mask >> i & 1)) m.out[kept++] = m.ins[0][i];
  }
  Node *n = fe_node(S, s, op, NULL, &v, 1, "map", map_text(S->cx, &m), NULL);
  return n ? n->outs.data[0] : NULL;
}

Value *fe_transpose(Sema *S, Span s, Value *v, const int *order) {
  if (!v) return NULL;
  IndexMap m = {.n_ins = 1};
  bool same = true;
  for (int i = 0; i < v->type.rank; i++) {
    m.ins[0][i] = (char)('a' + i);
    m.out[i] = (char)('a' + order[i]);
    same &= order[i] == i;
  }
  if (same) return v;
  Node *n = fe_node(S, s, OP_transpose, NULL, &v, 1, "map", map_text(S->cx, &m),
                    NULL);
  return n ? n->outs.data[0] : NULL;
}

Value *fe_reshape(Sema *S, Span s, Value *v, Type type) {
  if (!v || type_equal(&v->type, &type)) return v;
  Node *n = fe_node(S, s, OP_reshape, &type, &v, 1, NULL);
  return n ? n->outs.data[0] : NULL;
}

/* ---- constants ----------------------------------------------------------- */

/* Whether a number can be an element of the dtype. */
static bool fits(Val v, Dtype d) {
  switch (dtype_info[d].kind) {
  case DK_FLOAT: return v.kind != VAL_BOOL;
  case DK_INT: return v.kind == VAL_INT && v.i >= INT32_MIN && v.i <= INT32_MAX;
  case DK_UINT: return v.kind == VAL_INT && v.i >= 0 && v.i <= UINT32_MAX;
  case DK_BOOL: return v.kind == VAL_BOOL;
  }
  return false;
}

Value *fe_const(Sema *S, Item it, Type type) {
  if (it.val.kind == VAL_ERROR) return NULL;
  if (!fits(it.val, type.dtype)) {
    fe_error(S, it.span, "%s is no element of %s", val_text(S, it.val),
             type_text(S->cx, &type));
    return NULL;
  }
  double x = it.val.kind == VAL_BOOL ? it.val.b : val_number(it.val);
  Node *n = fe_node(S, it.span, OP_const, &type, NULL, 0, "value", x, NULL);
  return n ? n->outs.data[0] : NULL;
}

/* The dtype that a known value has when nothing else says. */
static Dtype own_dtype(Val v) {
  return v.kind == VAL_BOOL ? DT_bool : v.kind == VAL_INT ? DT_i32 : DT_f32;
}

static bool is_known(Val v) {
  return v.kind == VAL_BOOL || val_is_number(v);
}

Value *fe_tensor(Sema *S, Item it) {
  if (it.val.kind == VAL_TENSOR) return it.val.tensor;
  if (is_known(it.val)) return fe_const(S, it, type_scalar(own_dtype(it.val)));
  if (it.val.kind != VAL_ERROR)
    fe_error(S, it.span, "a tensor is needed here, not %s",
             val_text(S, it.val));
  return NULL;
}

/* ---- broadcasting -------------------------------------------------------- */

/* `v` without its dims of size 1 that `to` repeats; *map gets the letters that
 * are left, in terms of the letters a, b, c... of `to`. */
static Value *squeezed(Sema *S, Span s, Value *v, const Type *to,
                       char *letters) {
  Type kept = {.dtype = v->type.dtype};
  int shift = to->rank - v->type.rank, n = 0;
  for (int i = 0; i < v->type.rank; i++) {
    if (v->type.dims[i].size == 1 && to->dims[i + shift].size != 1) continue;
    letters[n++] = (char)('a' + i + shift);
    kept.dims[kept.rank++] = v->type.dims[i];
  }
  return kept.rank == v->type.rank ? v : fe_reshape(S, s, v, kept);
}

Value *fe_broadcast(Sema *S, Span s, Value *v, const Type *to) {
  if (!v || type_same_dims(&v->type, to)) return v;
  IndexMap m = {.n_ins = 1};
  v = squeezed(S, s, v, to, m.ins[0]);
  if (!v || type_same_dims(&v->type, to)) return v;
  for (int i = 0; i < to->rank; i++)
    m.out[i] = (char)('a' + i);
  Type t = type_with_dtype(*to, v->type.dtype);
  Node *n =
      fe_node(S, s, OP_broadcast, &t, &v, 1, "map", map_text(S->cx, &m), NULL);
  return n ? n->outs.data[0] : NULL;
}

/* Widens `t` to hold `more`, both aligned at the right. */
static bool widen(Type *t, const Type *more) {
  Type out = t->rank >= more->rank ? *t : *more;
  int low = t->rank < more->rank ? t->rank : more->rank;
  for (int i = 1; i <= low; i++) {
    Dim a = t->dims[t->rank - i], b = more->dims[more->rank - i];
    bool same = a.size == b.size && a.ragged == b.ragged;
    if (!same && a.size != 1 && b.size != 1) return false;
    out.dims[out.rank - i] = a.size == 1 ? b : a;
  }
  out.dtype = t->dtype;
  *t = out;
  return true;
}

bool fe_common_dims(Sema *S, Span s, const Item *items, uint32_t n, Type *out) {
  const Item *first = NULL;
  *out = (Type){0};
  for (uint32_t i = 0; i < n; i++) {
    if (items[i].val.kind != VAL_TENSOR) continue;
    const Type *t = &items[i].val.tensor->type;
    if (!widen(out, t)) {
      assert(first);
      fe_error(S, s, "shapes do not fit together: %s and %s",
               type_text(S->cx, &first->val.tensor->type), type_text(S->cx, t));
      fe_note(S, first->span, "%s here",
              type_text(S->cx, &first->val.tensor->type));
      fe_note(S, items[i].span, "%s here", type_text(S->cx, t));
      return false;
    }
    if (!first || t->rank >= first->val.tensor->type.rank) first = &items[i];
  }
  return true;
}

/* The dtype of items [from, n): the tensors', which must agree, else the
 * numbers' own. */
static bool common_dtype(Sema *S, Span s, const char *what, const Item *items,
                         uint32_t from, uint32_t n, Dtype *out) {
  const Item *first = NULL;
  bool any_float = false;
  for (uint32_t i = from; i < n; i++) {
    any_float |= items[i].val.kind == VAL_FLOAT;
    if (items[i].val.kind != VAL_TENSOR) continue;
    Dtype d = items[i].val.tensor->type.dtype;
    if (first && d != first->val.tensor->type.dtype) {
      fe_error(S, s, "%s: operands are %s and %s; cast one, as in %s(...)",
               what, val_text(S, first->val), val_text(S, items[i].val),
               dtype_info[first->val.tensor->type.dtype].name);
      return false;
    }
    if (!first) first = &items[i];
  }
  *out = first       ? first->val.tensor->type.dtype
         : any_float ? DT_f32
                     : own_dtype(items[from].val);
  return true;
}

/* One operand with the dims of `to`; a number becomes a `dtype`. */
static Value *operand(Sema *S, Span s, Item it, Type to, Dtype dtype) {
  if (it.val.kind == VAL_TENSOR) return fe_broadcast(S, s, it.val.tensor, &to);
  if (is_known(it.val)) return fe_const(S, it, type_with_dtype(to, dtype));
  return fe_tensor(S, it); /* says what is wrong */
}

/* Ragged operands must hold the rows of one routing. */
static bool same_rows(Sema *S, Span s, Value *const *ins, uint32_t n) {
  Value *first = NULL;
  for (uint32_t i = 0; i < n; i++) {
    if (!type_is_ragged(&ins[i]->type)) continue;
    Value *source = ir_ragged_source(ins[i]);
    if (!source) continue;
    source = ir_outermost(source);
    if (first && source != first) {
      fe_error(S, s, "the operands' rows come from different routings");
      return false;
    }
    first = source;
  }
  return true;
}

Val fe_elementwise(Sema *S, Span s, OpKind op, const Item *items, uint32_t n) {
  Type to;
  Dtype dtype;
  Value *ins[3] = {0};
  uint32_t from = op == OP_select; /* its condition is bool for itself */
  assert(n <= COUNT_OF(ins));
  for (uint32_t i = 0; i < n; i++)
    if (items[i].val.kind == VAL_ERROR) return val_error;
  if (!fe_common_dims(S, s, items, n, &to) ||
      !common_dtype(S, s, op_info[op].name, items, from, n, &dtype))
    return val_error;
  for (uint32_t i = 0; i < n; i++) {
    ins[i] = operand(S, s, items[i], to, i < from ? DT_bool : dtype);
    if (!ins[i]) return val_error;
  }
  if (!same_rows(S, s, ins, n)) return val_error;
  Type given = type_with_dtype(to, DT_f32);
  Node *node =
      fe_node(S, s, op, op_is(op, TRAIT_TYPED) ? &given : NULL, ins, n, NULL);
  return val_tensor(node ? node->outs.data[0] : NULL);
}

Value *fe_choose(Sema *S, Span s, Value *condition, Value *yes, Value *no) {
  Type t = type_with_dtype(yes->type, DT_bool);
  Value *each = fe_broadcast(S, s, condition, &t);
  Node *n = each ? fe_node(S, s, OP_select, NULL, (Value *[]){each, yes, no},
                           3, NULL)
                 : NULL;
  return n ? n->outs.data[0] : NULL;
}

/* ---- slices -------------------------------------------------------------- */

/* What one subscript keeps of a dim. */
typedef struct Cut {
  int64_t start, size;
  bool drop; /* a single index: the dim goes */
} Cut;

/* A position in a dim, counted from its end when negative. */
static bool position(Sema *S, const Expr *e, int64_t size, int64_t most,
                     int64_t *out) {
  if (!fe_eval_int(S, e, "a subscript", out)) return false;
  int64_t at = *out < 0 ? *out + size : *out;
  if (at < 0 || at > most) {
    fe_error(S, e->span, "%lld is outside of a dim of size %lld",
             (long long)*out, (long long)size);
    return false;
  }
  *out = at;
  return true;
}

static bool cut_of(Sema *S, const Sub *sub, int64_t size, Cut *out) {
  int64_t lo = 0, hi = size;
  if (sub->kind == SUB_AT) {
    if (!position(S, sub->lo, size, size - 1, &lo)) return false;
    *out = (Cut){lo, 1, true};
    return true;
  }
  if (sub->lo && !position(S, sub->lo, size, size, &lo)) return false;
  if (sub->hi && !position(S, sub->hi, size, size, &hi)) return false;
  if (hi <= lo) {
    fe_error(S, sub->span, "the range %lld:%lld is empty", (long long)lo,
             (long long)hi);
    return false;
  }
  *out = (Cut){lo, hi - lo, false};
  return true;
}

/* Subscripts by dim; `..` stands for the dims that the others leave. */
static bool cuts_of(Sema *S, const Expr *e, const Type *t, Cut *cuts) {
  const SubVec *subs = &e->index.subs;
  uint32_t leads = 0;
  for (uint32_t i = 0; i < subs->len; i++)
    leads += subs->data[i].kind == SUB_LEAD;
  bool fits_rank = leads ? subs->len - 1 <= t->rank : subs->len == t->rank;
  if (leads > 1 || !fits_rank) {
    fe_error(S, e->span,
             leads > 1 ? "'..' may stand here only once: %u "
                         "subscripts for %s"
                       : "%u subscripts for %s",
             subs->len, type_text(S->cx, t));
    return false;
  }
  int d = 0;
  for (uint32_t i = 0; i < subs->len; i++) {
    const Sub *sub = &subs->data[i];
    int skip = sub->kind == SUB_LEAD ? t->rank - (int)subs->len + 1 : 0;
    for (; skip > 0; skip--, d++)
      cuts[d] = (Cut){0, t->dims[d].size, false};
    if (sub->kind == SUB_LEAD) continue;
    if (!cut_of(S, sub, t->dims[d].size, &cuts[d])) return false;
    d++;
  }
  return true;
}

Val fe_slice(Sema *S, const Expr *e, Val base) {
  Cut cuts[MAX_RANK];
  Value *v = base.tensor;
  Type t = v->type, kept = {.dtype = t.dtype};
  if (!cuts_of(S, e, &t, cuts)) return val_error;
  for (int d = 0; v && d < t.rank; d++) {
    if (!cuts[d].drop)
      kept.dims[kept.rank++] = (Dim){cuts[d].size, t.dims[d].ragged};
    if (cuts[d].size == t.dims[d].size) continue;
    Node *n = fe_node(S, e->span, OP_slice, NULL, &v, 1, "dim", (int64_t)d,
                      "start", cuts[d].start, "size", cuts[d].size, NULL);
    v = n ? n->outs.data[0] : NULL;
  }
  return val_tensor(fe_reshape(S, e->span, v, kept));
}
