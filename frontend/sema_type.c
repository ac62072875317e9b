/* sema_type.c: types as they are written, f32[.., d].
 *
 * A dim is a size, `..`, or a name. A lower-case name that has no value yet
 * takes the value's size and keeps it for the rest of the function; so does
 * `..`, for any number of dims. All else must agree. */
#include "sema.h"

#include <string.h>

bool fe_dtype(Sema *S, Name name, Dtype *out) {
  if (dtype_find(name.text, out)) return true;
  const char *names[DTYPE_COUNT];
  for (int i = 0; i < DTYPE_COUNT; i++)
    names[i] = dtype_info[i].name;
  const char *near = nearest_word(name.text, names, DTYPE_COUNT);
  if (near)
    fe_error(S, name.span, "unknown type '%s'; did you mean '%s'?", name.text,
             near);
  else
    fe_error(S, name.span, "unknown type '%s'", name.text);
  return false;
}

/* ---- one dim ------------------------------------------------------------- */

static bool is_lower(Sym name) {
  return name[0] >= 'a' && name[0] <= 'z';
}

/* Whether a dim is a name without a value, one that a type may give it. */
static bool is_free(Sema *S, const Expr *size) {
  if (size->kind != EX_NAME || scope_find(S, size->s)) return false;
  Global *g = map_get(&S->globals, size->s);
  return is_lower(size->s) && (!g || g->decl->kind != DECL_CONST);
}

/* The size of a dim that is not free. */
static bool dim_eval(Sema *S, const Expr *size, Dim *out) {
  Item it = fe_item(S, size);
  if (it.val.kind == VAL_ERROR) return false;
  if (it.val.kind != VAL_INT) {
    fe_error(S, size->span, "a dim must be an integer, but this is %s",
             val_text(S, it.val));
    return false;
  }
  if (it.val.i < 1 || it.val.i > MAX_DIM) {
    fe_error(S, size->span, "a dim must be from 1 to %lld, but this is %lld",
             (long long)MAX_DIM, (long long)it.val.i);
    return false;
  }
  *out = (Dim){it.val.i, it.val.ragged};
  return true;
}

/* ---- types whose dims are known ------------------------------------------ */

static bool add_dim(Sema *S, Span s, Type *t, Dim d) {
  if (t->rank == MAX_RANK) {
    fe_error(S, s, "a tensor may have %d dims at most", MAX_RANK);
    return false;
  }
  t->dims[t->rank++] = d;
  return true;
}

/* f32[like x] */
static bool like_eval(Sema *S, const Expr *e, Type *out) {
  Item it = fe_item(S, e);
  Value *v = it.val.kind == VAL_ERROR ? NULL : fe_tensor(S, it);
  if (v) *out = type_with_dtype(v->type, out->dtype);
  return v != NULL;
}

static bool lead_eval(Sema *S, Span s, Type *out) {
  const Lead *lead = &S->frame->lead;
  if (!lead->known) {
    fe_error(S, s, "nothing says which dims '..' stands for here");
    return false;
  }
  for (int i = 0; i < lead->n; i++)
    if (!add_dim(S, s, out, lead->dims[i])) return false;
  return true;
}

static bool dim_append(Sema *S, const DimExpr *d, Type *out) {
  Dim dim;
  if (!d->size) return lead_eval(S, d->span, out);
  if (is_free(S, d->size)) {
    fe_error(S, d->span, "nothing gives the size of '%s'", d->size->s);
    return false;
  }
  return dim_eval(S, d->size, &dim) && add_dim(S, d->span, out, dim);
}

bool type_eval(Sema *S, const TypeExpr *t, Type *out) {
  *out = (Type){0};
  if (!fe_dtype(S, t->dtype, &out->dtype)) return false;
  if (t->like) return like_eval(S, t->like, out);
  for (uint32_t i = 0; i < t->dims.len; i++)
    if (!dim_append(S, &t->dims.data[i], out)) return false;
  fe_flush(S);
  bool ok = ir_check_type(S->cx, t->span, "this type", out);
  if (!ok) fe_settle(S);
  return ok;
}

bool type_from_expr(Sema *S, const Expr *e, Type *out) {
  Dtype dtype;
  bool is_type = e->kind == EX_INDEX && e->index.base->kind == EX_NAME &&
                 dtype_find(e->index.base->s, &dtype);
  if (!is_type) {
    fe_error(S, e->span, "a type is needed here, as in f32[2, 3]");
    return false;
  }
  TypeExpr t = {.dtype = {e->index.base->s, e->index.base->span},
                .span = e->span};
  for (uint32_t i = 0; i < e->index.subs.len; i++) {
    const Sub *sub = &e->index.subs.data[i];
    if (sub->kind == SUB_RANGE) {
      fe_error(S, sub->span, "a dim is a size, not a range");
      return false;
    }
    DimExpr d = {.size = sub->kind == SUB_AT ? sub->lo : NULL,
                 .span = sub->span};
    vec_push(&S->cx->perm, &t.dims, d);
  }
  return type_eval(S, &t, out);
}

/* ---- matching ------------------------------------------------------------ */

/* One value being matched with a type. */
typedef struct Match {
  Sema *S;
  const TypeExpr *type;
  const Item *item;
  const char *what;
  Type got;
} Match;

static Sym wanted_text(Match *m) {
  Buf b = {0};
  ast_print_type(m->type, &b);
  Sym s = sym(m->S->cx, b.data);
  buf_free(&b);
  return s;
}

static bool mismatch(Match *m, Sym why) {
  Sema *S = m->S;
  fe_error(S, m->item->span, "%s must be %s, but is %s%s%s", m->what,
           wanted_text(m), val_text(S, m->item->val), why ? ": " : "",
           why ? why : "");
  fe_note(S, m->type->span, "the type is written here");
  return false;
}

static Sym dim_text(Sema *S, Dim d) {
  return sym_fmt(S->cx, "%s%lld", d.ragged ? "r<=" : "", (long long)d.size);
}

/* Dim `i` of the value against a written one. */
static bool match_dim(Match *m, const DimExpr *d, int i) {
  Sema *S = m->S;
  Dim got = m->got.dims[i], want;
  if (is_free(S, d->size)) {
    Val size = val_int(got.size);
    size.ragged = got.ragged;
    scope_add(S, (Name){d->size->s, d->size->span}, size);
    return true;
  }
  if (!dim_eval(S, d->size, &want)) return false;
  if (want.size == got.size && want.ragged == got.ragged) return true;
  mismatch(m, sym_fmt(S->cx, "dim %d is %s, not %s", i, dim_text(S, got),
                      dim_text(S, want)));
  Local *l = d->size->kind == EX_NAME ? scope_find(S, d->size->s) : NULL;
  if (l)
    fe_note(S, l->span, "'%s' is %s from here on", l->name, dim_text(S, want));
  return false;
}

/* The dims [at, at + n) are what `..` stands for. */
static bool match_lead(Match *m, const DimExpr *d, int at, int n) {
  Sema *S = m->S;
  Lead *lead = &S->frame->lead;
  if (!lead->known) {
    *lead = (Lead){.known = true, .n = n, .span = d->span};
    memcpy(lead->dims, &m->got.dims[at], (size_t)n * sizeof(Dim));
    return true;
  }
  bool same = lead->n == n;
  for (int i = 0; same && i < n; i++)
    same = lead->dims[i].size == m->got.dims[at + i].size &&
           lead->dims[i].ragged == m->got.dims[at + i].ragged;
  if (same) return true;
  Type t = {.dtype = m->got.dtype, .rank = (uint8_t)lead->n};
  memcpy(t.dims, lead->dims, sizeof t.dims);
  Sym text = type_text(S->cx, &t);
  mismatch(m, sym_fmt(S->cx, "'..' stands for %s", strchr(text, '[')));
  fe_note(S, lead->span, "'..' got its dims here");
  return false;
}

static bool match_dims(Match *m) {
  const DimExprVec *dims = &m->type->dims;
  int leads = 0, named = 0, at = 0;
  for (uint32_t i = 0; i < dims->len; i++)
    dims->data[i].size ? named++ : leads++;
  if (leads > 1) {
    fe_error(m->S, m->type->span, "'..' may stand in a type only once");
    return false;
  }
  if (leads ? m->got.rank < named : m->got.rank != named)
    return mismatch(m, sym_fmt(m->S->cx, "it has %d dim%s", m->got.rank,
                               m->got.rank == 1 ? "" : "s"));
  for (uint32_t i = 0; i < dims->len; i++) {
    const DimExpr *d = &dims->data[i];
    if (d->size && !match_dim(m, d, at++)) return false;
    if (d->size) continue;
    if (!match_lead(m, d, at, m->got.rank - named)) return false;
    at += m->got.rank - named;
  }
  return true;
}

/* A number given where a tensor is wanted. */
static bool match_number(Match *m, Item *it) {
  Sema *S = m->S;
  Type t;
  Lead *lead = &S->frame->lead;
  for (uint32_t i = 0; i < m->type->dims.len; i++) {
    const DimExpr *d = &m->type->dims.data[i];
    if (!d->size && !lead->known)
      *lead = (Lead){.known = true, .span = d->span};
    if (d->size && is_free(S, d->size)) return mismatch(m, NULL);
  }
  if (!type_eval(S, m->type, &t)) return false;
  it->val = val_tensor(fe_const(S, *it, t));
  return it->val.kind == VAL_TENSOR;
}

bool type_match(Sema *S, const TypeExpr *t, Item *it, const char *what) {
  Match m = {.S = S, .type = t, .item = it, .what = what};
  Dtype dtype;
  Type like;
  if (it->val.kind == VAL_ERROR || !fe_dtype(S, t->dtype, &dtype)) return false;
  if (val_is_number(it->val) || it->val.kind == VAL_BOOL)
    return match_number(&m, it);
  if (it->val.kind != VAL_TENSOR) return mismatch(&m, NULL);
  m.got = it->val.tensor->type;
  if (m.got.dtype != dtype) return mismatch(&m, NULL);
  if (!t->like)
    return match_dims(&m) && (it->val = fe_placed(S, t, it->val.tensor)).kind !=
                                 VAL_ERROR;
  return type_eval(S, t, &like) && (type_same_dims(&like, &m.got) ||
                                    mismatch(&m, type_text(S->cx, &like)));
}
