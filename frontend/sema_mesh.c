/* sema_mesh.c: the mesh: axes that the model declares, sizes from the command
 * line. An axis of one device splits nothing: the mesh has the others. And
 * consts that are made to divide by it, for plans of meshes of any size. */
#include "sema.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Index among the declared axes; -1: reported. */
static int find_axis(Sema *S, const char *text, Sym name) {
  const char **names = NEW_ARRAY(&S->cx->perm, const char *, S->axes.len + 1);
  for (uint32_t i = 0; i < S->axes.len; i++) {
    names[i] = S->axes.data[i]->name.text;
    if (names[i] == name) return (int)i;
  }
  const char *near = nearest_word(name, names, S->axes.len);
  if (near)
    fe_error(S, (Span){0},
             "--mesh %s: the model has no axis '%s'; did you mean '%s'?", text,
             name, near);
  else
    fe_error(S, (Span){0}, "--mesh %s: the model has no axis '%s'", text, name);
  return -1;
}

static bool read_size(Sema *S, const char *text, const char *value,
                      int64_t *out) {
  char *end;
  errno = 0;
  *out = strtoll(value, &end, 10);
  if (end == value || *end) {
    fe_error(S, (Span){0}, "--mesh %s: must be AXIS=SIZE", text);
    return false;
  }
  if (errno == 0 && *out >= 1 && *out <= MAX_DIM) return true;
  fe_error(S, (Span){0}, "--mesh %s: an axis has 1 to %lld devices", text,
           (long long)MAX_DIM);
  return false;
}

/* One AXIS=SIZE. given: by axis, what said so before. */
static void read_axis(Sema *S, const char *text, const char **given) {
  const char *value;
  int64_t size;
  Sym name = fe_split(S, text, &value);
  if (!name) {
    fe_error(S, (Span){0}, "--mesh %s: must be AXIS=SIZE", text);
    return;
  }
  int axis = find_axis(S, text, name);
  if (axis < 0 || !read_size(S, text, value, &size)) return;
  if (given[axis]) {
    fe_error(S, (Span){0}, "--mesh %s: there is --mesh %s already", text,
             given[axis]);
    return;
  }
  given[axis] = text;
  S->axis_sizes[axis] = size;
}

/* "data=2,expert=4" is two. */
static void read_sizes(Sema *S) {
  const char **given = NEW_ARRAY(&S->cx->perm, const char *, S->axes.len + 1);
  for (uint32_t i = 0; i < S->o->n_mesh; i++)
    for (const char *p = S->o->mesh[i]; *p;) {
      size_t n = strcspn(p, ",");
      read_axis(S, sym_n(S->cx, p, n), given);
      p += n + (p[n] != '\0');
    }
}

void fe_mesh(Sema *S) {
  S->axis_sizes = NEW_ARRAY(&S->cx->perm, int64_t, S->axes.len + 1);
  for (uint32_t i = 0; i < S->axes.len; i++)
    S->axis_sizes[i] = 1;
  if (S->axes.len > MAX_AXES)
    fe_error(S, S->axes.data[MAX_AXES]->span,
             "a mesh may have %d axes at most", MAX_AXES);
  else
    read_sizes(S);
  for (uint32_t i = 0; i < S->axes.len && i < MAX_AXES; i++) {
    const Decl *d = S->axes.data[i];
    MeshAxis axis = {d->name.text, S->axis_sizes[i], d->span};
    if (axis.size > 1) vec_push(&S->cx->perm, &S->m->mesh, axis);
  }
  if (mesh_devices(S->m) == MAX_DIM)
    fe_error(S, (Span){0}, "--mesh: a mesh has less than %lld devices",
             (long long)MAX_DIM);
}

/* ---- consts that divide -------------------------------------------------- */

static int64_t common_multiple(int64_t a, int64_t b) {
  int64_t x = a, y = b;
  while (y) {
    int64_t rest = x % y;
    x = y;
    y = rest;
  }
  return a / x * b;
}

/* Devices that split the dim; names that are no axes are reported elsewhere. */
static int64_t devices_of(const Sema *S, const DimExpr *d) {
  int64_t parts = 1;
  for (uint32_t i = 0; i < d->axes.len; i++)
    for (uint32_t k = 0; k < S->axes.len && k < MAX_AXES; k++)
      if (S->axes.data[k]->name.text == d->axes.data[i].text)
        parts *= S->axis_sizes[k];
  return parts;
}

/* What const `g` has to divide by, as inputs use it; 1: they do not. */
static int64_t divisor_of(const Sema *S, const Global *g) {
  int64_t by = 1;
  for (uint32_t i = 0; i < S->entries.len; i++) {
    const ParamVec *params = &S->entries.data[i]->params;
    for (uint32_t k = 0; k < params->len; k++) {
      const TypeExpr *t = params->data[k].type;
      for (uint32_t d = 0; t && d < t->dims.len; d++) {
        const DimExpr *dim = &t->dims.data[d];
        if (!dim->size || dim->size->kind != EX_NAME ||
            dim->size->s != g->decl->name.text)
          continue;
        by = common_multiple(by, devices_of(S, dim));
        if (by > MAX_DIM) return 1; /* nothing fits */
      }
    }
  }
  return by;
}

static bool fit(Sema *S, Global *g) {
  const Decl *d = g->decl;
  if (d->kind != DECL_CONST || g->define) return false;
  int64_t by = divisor_of(S, g);
  if (by == 1) return false;
  Val v = global_const(S, g, d->span);
  if (v.kind != VAL_INT || v.i < 1 || v.i % by == 0) return false;
  int64_t size = (v.i + by - 1) / by * by;
  if (size > MAX_DIM) return false;
  fe_warning(S, d->name.span,
             "planned with %s=%lld: %lld does not divide by %lld devices",
             d->name.text, (long long)size, (long long)v.i, (long long)by);
  g->define = sym_fmt(S->cx, "%lld", (long long)size);
  vec_push(&S->cx->perm, S->o->fitted,
           sym_fmt(S->cx, "%s=%s", d->name.text, g->define));
  return true;
}

/* Other consts may follow from those: all are found again. */
void fe_fit(Sema *S) {
  bool any = false;
  for (uint32_t i = 0; i < S->all.len; i++)
    any |= fit(S, S->all.data[i]);
  for (uint32_t i = 0; any && i < S->all.len; i++)
    S->all.data[i]->state = GLOBAL_NEW;
}
