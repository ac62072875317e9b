/* sema_place.c: where tensors live: the axes that a written type names.
 *
 * `f32[64 @dev, 32, 512]` splits the first dim over the mesh axis dev; others
 * are open, so that the compiler may split them over other axes. `@_` says
 * that a dim is not to be split. Axes of one device split nothing and are left
 * out, so that a program for one device is the same with and without them. */
#include "sema.h"

#include <string.h>

/* ---- one dim ------------------------------------------------------------- */

/* Index among the declared axes; -1: reported. */
static int find_axis(Sema *S, Name axis) {
  const char **names = NEW_ARRAY(&S->cx->perm, const char *, S->axes.len + 1);
  for (uint32_t i = 0; i < S->axes.len; i++) {
    names[i] = S->axes.data[i]->name.text;
    if (names[i] == axis.text) return (int)i;
  }
  const char *near = nearest_word(axis.text, names, S->axes.len);
  if (near)
    fe_error(S, axis.span, "unknown mesh axis '%s'; did you mean '%s'?",
             axis.text, near);
  else
    fe_error(S, axis.span, "unknown mesh axis '%s'; declare it: mesh %s",
             axis.text, axis.text);
  return -1;
}

/* Axes of one type, by where they are written. */
typedef struct Used {
  Span at[MAX_AXES];
  bool is[MAX_AXES];
} Used;

/* Adds one axis to the list of a dim. */
static bool add_axis(Sema *S, Name name, Used *used, Axes *out) {
  int i = find_axis(S, name);
  if (i < 0) return false;
  if (used->is[i]) {
    fe_error(S, name.span, "mesh axis '%s' is used twice in one tensor",
             name.text);
    fe_note(S, used->at[i], "it is used here");
    return false;
  }
  used->is[i] = true;
  used->at[i] = name.span;
  if (S->axis_sizes[i] > 1)
    *out = axes_add(*out, mesh_axis(S->m, name.text));
  return true;
}

static bool dim_axes(Sema *S, const DimExpr *d, int at, Used *used,
                     Placement *out) {
  bool none = false;
  for (uint32_t i = 0; i < d->axes.len; i++) {
    Name name = d->axes.data[i];
    none |= strcmp(name.text, "_") == 0;
    if (none && d->axes.len > 1) {
      fe_error(S, d->span, "'@_' says that a dim is not split, and another "
                           "axis splits it");
      return false;
    }
    if (!none && !add_axis(S, name, used, &out->dims[at])) return false;
  }
  if (none && S->m->mesh.len) out->closed |= (uint8_t)(1u << at);
  return true;
}

/* ---- a type -------------------------------------------------------------- */

bool place_eval(Sema *S, const TypeExpr *t, const Type *type, Placement *out) {
  Used used = {0};
  int at = 0, named = 0;
  *out = (Placement){0};
  for (uint32_t i = 0; i < t->dims.len; i++)
    named += t->dims.data[i].size != NULL;
  for (uint32_t i = 0; i < t->dims.len; i++) {
    const DimExpr *d = &t->dims.data[i];
    if (d->size && !dim_axes(S, d, at, &used, out)) return false;
    at += d->size ? 1 : type->rank - named;
  }
  return true;
}

/* The dim of the written type that became dim `at`; NULL: one of `..`. */
static const DimExpr *dim_of(const TypeExpr *t, const Type *type, int at) {
  int named = 0, d = 0;
  for (uint32_t i = 0; i < t->dims.len; i++)
    named += t->dims.data[i].size != NULL;
  for (uint32_t i = 0; i < t->dims.len; i++) {
    const DimExpr *e = &t->dims.data[i];
    if (e->size && d == at) return e;
    d += e->size ? 1 : type->rank - named;
  }
  return NULL;
}

/* Dims over which data comes must divide. */
static bool check_even(Sema *S, const TypeExpr *t, const Type *type, Sym what,
                       const Placement *p) {
  for (int d = 0; d < type->rank; d++) {
    int64_t parts = axes_parts(S->m, p->dims[d]), size = type->dims[d].size;
    if (size % parts == 0) continue;
    Buf axes = {0};
    axes_text(S->m, p->dims[d], &axes);
    int64_t above = (size / parts + 1) * parts;
    Sym below = size < parts ? "" : sym_fmt(S->cx, "%lld and ",
                                            (long long)(above - parts));
    fe_error(S, dim_of(t, type, d)->span,
             "%s: a dim of %lld does not divide by the %lld devices of%s; next "
             "to it %s%lld would", what, (long long)size, (long long)parts,
             axes.data, below, (long long)above);
    buf_free(&axes);
    return false;
  }
  return true;
}

bool place_even(Sema *S, const TypeExpr *t, const Type *type, Sym what,
                Placement *out) {
  return place_eval(S, t, type, out) && check_even(S, t, type, what, out);
}

/* ---- two placements of one tensor ---------------------------------------- */

static Sym placed_text(Sema *S, const Type *type, const Placement *p) {
  Buf b = {0};
  placement_text(S->m, type, p, &b);
  Sym s = sym(S->cx, b.data);
  buf_free(&b);
  return s;
}

/* Whether `b` says of dim `d` another thing than `a`; open dims say nothing. */
static bool differs(const Placement *a, const Placement *b, int d) {
  bool a_says = a->dims[d] || a->closed >> d & 1;
  bool b_says = b->dims[d] || b->closed >> d & 1;
  if (a_says && b_says) return a->dims[d] != b->dims[d];
  for (Axes x = b->dims[d]; x; x >>= 4)
    if (placement_of_axis(a, axes_at(x, 0)) != PLACED_NOWHERE) return true;
  return false;
}

bool place_agree(Sema *S, const TypeExpr *t, const Type *type,
                 const Placement *a, const Placement *b, Span other) {
  for (int d = 0; d < type->rank; d++) {
    if (!differs(a, b, d)) continue;
    fe_error(S, t->span, "one tensor is placed in two ways: %s",
             placed_text(S, type, a));
    fe_note(S, other, "it is %s here", placed_text(S, type, b));
    return false;
  }
  return true;
}

const Span *place_written(const Sema *S, Value *v) {
  return map_get(&S->placed, ir_outermost(v));
}

void place_set(Sema *S, Value *v, const Placement *p, Span at) {
  v->placement = *p;
  v->said = at;
  if (!placement_is_whole(p) || p->closed)
    map_put(&S->cx->perm, &S->placed, v,
            arena_copy(&S->cx->perm, &at, sizeof at));
}

Val fe_placed(Sema *S, const TypeExpr *t, Value *v) {
  Placement p;
  if (!place_eval(S, t, &v->type, &p)) return val_error;
  if (placement_is_whole(&p) && !p.closed) return val_tensor(v);
  const Span *other = place_written(S, v);
  const Placement *before = &ir_outermost(v)->placement;
  if (other && !place_agree(S, t, &v->type, &p, before, *other))
    return val_error;
  if (other && placement_equal(&p, before)) return val_tensor(v);
  Node *n = fe_node(S, t->span, OP_annotate, NULL, &v, 1, NULL);
  if (n) place_set(S, n->outs.data[0], &p, t->span);
  return val_tensor(n ? n->outs.data[0] : NULL);
}
