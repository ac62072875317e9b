/* placement.c: who has what of a tensor.
 *
 * A placement says for each dim which axes of the mesh split it, and over which
 * axes each device has a part only. An axis does one thing in a tensor: of
 * mesh {data=2, expert=4} a dim "64 @data @expert" is cut in 8, the four of one
 * `data` side by side. What no axis does is alike on all devices along it. */
#include "ir.h"

#include <string.h>

const char *const partial_names[PARTIAL_COUNT] = {
    [PARTIAL_SUM] = "sum", [PARTIAL_MAX] = "max", [PARTIAL_MIN] = "min"};

/* ---- lists of axes ------------------------------------------------------ */

int axes_count(Axes a) {
  int n = 0;
  for (; a; a >>= 4)
    n++;
  return n;
}

int axes_at(Axes a, int i) {
  return (int)(a >> (4 * i) & 15) - 1;
}

bool axes_has(Axes a, int axis) {
  for (; a; a >>= 4)
    if (axes_at(a, 0) == axis) return true;
  return false;
}

Axes axes_add(Axes a, int axis) {
  assert(axis >= 0 && axis < MAX_AXES && !axes_has(a, axis));
  return a | (Axes)(axis + 1) << (4 * axes_count(a));
}

Axes axes_without(Axes a, int axis) {
  Axes left = 0;
  for (; a; a >>= 4)
    if (axes_at(a, 0) != axis) left = axes_add(left, axes_at(a, 0));
  return left;
}

bool axes_begins(Axes a, Axes head) {
  for (; head; head >>= 4, a >>= 4)
    if ((a & 15) != (head & 15)) return false;
  return true;
}

int64_t axes_parts(const Module *m, Axes a) {
  int64_t parts = 1;
  for (; a; a >>= 4) {
    parts *= m->mesh.data[axes_at(a, 0)].size;
    if (parts > MAX_DIM) return MAX_DIM;
  }
  return parts;
}

void axes_text(const Module *m, Axes a, Buf *out) {
  for (; a; a >>= 4)
    buf_fmt(out, " @%s", m->mesh.data[axes_at(a, 0)].name);
}

/* ---- placements --------------------------------------------------------- */

bool placement_equal(const Placement *a, const Placement *b) {
  return memcmp(a->dims, b->dims, sizeof a->dims) == 0 &&
         a->partial == b->partial && a->kind == b->kind &&
         a->closed == b->closed;
}

bool placement_is_whole(const Placement *p) {
  Axes any = p->partial;
  for (int d = 0; d < MAX_RANK; d++)
    any |= p->dims[d];
  return !any;
}

int placement_of_axis(const Placement *p, int axis) {
  for (int d = 0; d < MAX_RANK; d++)
    if (axes_has(p->dims[d], axis)) return d;
  return axes_has(p->partial, axis) ? PLACED_PARTIAL : PLACED_NOWHERE;
}

Type placement_local(const Module *m, const Type *t, const Placement *p) {
  Type local = *t;
  for (int d = 0; d < t->rank; d++) {
    int64_t parts = axes_parts(m, p->dims[d]);
    local.dims[d].size = (t->dims[d].size + parts - 1) / parts;
    if (d == 0 && type_is_ragged(t)) /* fewer groups have fewer rows */
      local.dims[1].size = (local.dims[1].size + parts - 1) / parts;
    if (d == 1 && type_is_ragged(t)) {
      int64_t all = axes_parts(m, p->dims[0]) * parts;
      local.dims[1].size = (t->dims[1].size + all - 1) / all;
    }
  }
  return local;
}

void placement_text(const Module *m, const Type *t, const Placement *p,
                    Buf *out) {
  buf_add(out, dtype_info[t->dtype].name);
  buf_add(out, "[");
  for (int d = 0; d < t->rank; d++) {
    if (d) buf_add(out, ", ");
    if (t->dims[d].ragged) buf_add(out, "r<=");
    buf_int(out, t->dims[d].size);
    axes_text(m, p->dims[d], out);
    if (p->closed >> d & 1) buf_add(out, " @_");
  }
  if (p->partial) {
    buf_fmt(out, "; %s", partial_names[p->kind]);
    axes_text(m, p->partial, out);
  }
  buf_add(out, "]");
}

/* Marks the axes of one list as used; false: one of them is wrong. */
static bool claim(const Module *m, Axes a, unsigned *used, Sym *why) {
  for (; a; a >>= 4) {
    int axis = axes_at(a, 0);
    if (axis >= (int)m->mesh.len) {
      *why = sym_fmt(m->cx, "there is no mesh axis %d", axis);
      return false;
    }
    if (*used >> axis & 1) {
      *why = sym_fmt(m->cx, "mesh axis '%s' is used twice in one tensor",
                     m->mesh.data[axis].name);
      return false;
    }
    *used |= 1u << axis;
  }
  return true;
}

bool placement_check(const Module *m, const Type *t, const Placement *p,
                     Sym *why) {
  unsigned used = 0;
  for (int d = 0; d < MAX_RANK; d++) {
    if (!claim(m, p->dims[d], &used, why)) return false;
    if (d >= t->rank && (p->dims[d] || p->closed >> d & 1)) {
      *why = sym_fmt(m->cx, "dim %d of %d is placed", d, t->rank);
      return false;
    }
    if (p->dims[d] && p->closed >> d & 1) {
      *why = sym_fmt(m->cx, "dim %d is split and is not", d);
      return false;
    }
  }
  return claim(m, p->partial, &used, why);
}

/* ---- the mesh ----------------------------------------------------------- */

int mesh_axis(const Module *m, const char *name) {
  for (uint32_t i = 0; i < m->mesh.len; i++)
    if (strcmp(m->mesh.data[i].name, name) == 0) return (int)i;
  return -1;
}

int64_t mesh_devices(const Module *m) {
  int64_t n = 1;
  for (uint32_t i = 0; i < m->mesh.len; i++) {
    n *= m->mesh.data[i].size;
    if (n > MAX_DIM) return MAX_DIM;
  }
  return n;
}
