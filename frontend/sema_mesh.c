/* sema_mesh.c: the mesh: axes that the model declares, sizes from the command
 * line. An axis of one device splits nothing: the mesh has the others. */
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
