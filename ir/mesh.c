/* mesh.c: ranks and their groups, and what an exchange moves.
 *
 * A rank is a place in the mesh, row-major: with mesh {data=2, expert=3} rank 4
 * is data 1, expert 1. The group of a rank over a set of axes are the ranks
 * that differ from it in these alone, in the order in which the set names them:
 *
 *   axes "expert": {0, 1, 2} and {3, 4, 5}
 *   axes "data": {0, 3}, {1, 4} and {2, 5} */
#include "ir.h"

#include <string.h>

/* ---- groups -------------------------------------------------------------- */

bool axes_parse(const Module *m, const char *text, Axes *out, Sym *why) {
  *out = 0;
  for (const char *p = text;; p++) {
    size_t len = strcspn(p, ",");
    Sym name = sym_n(m->cx, p, len);
    int axis = mesh_axis(m, name);
    bool twice = axis >= 0 && axes_has(*out, axis);
    if (axis < 0) *why = sym_fmt(m->cx, "the mesh has no axis '%s'", name);
    if (twice) *why = sym_fmt(m->cx, "axis '%s' is named twice", name);
    if (axis < 0 || twice) return false;
    *out = axes_add(*out, axis);
    p += len;
    if (!*p) return true;
  }
}

static const Module *module_of(const Node *n) {
  return n->region->entry->module;
}

Axes node_axes(const Node *n) {
  Axes a;
  Sym why;
  if (!axes_parse(module_of(n), attr_sym(n, "axes"), &a, &why))
    internal_error("%s: %s", op_info[n->op].name, why);
  return a;
}

int64_t node_group(const Node *n) {
  return axes_parts(module_of(n), node_axes(n));
}

/* How far apart in number two ranks are that are neighbours along an axis. */
static int64_t axis_step(const Module *m, int axis) {
  int64_t step = 1;
  for (uint32_t i = (uint32_t)axis + 1; i < m->mesh.len; i++)
    step *= m->mesh.data[i].size;
  return step;
}

static int64_t along(const Module *m, int axis, int64_t rank) {
  return rank / axis_step(m, axis) % m->mesh.data[axis].size;
}

int64_t axes_place(const Module *m, Axes a, int64_t rank) {
  int64_t place = 0;
  for (int i = 0; i < axes_count(a); i++)
    place = place * m->mesh.data[axes_at(a, i)].size +
            along(m, axes_at(a, i), rank);
  return place;
}

int64_t axes_member(const Module *m, Axes a, int64_t rank, int64_t place) {
  for (int i = axes_count(a) - 1; i >= 0; i--) {
    int axis = axes_at(a, i);
    int64_t size = m->mesh.data[axis].size;
    rank += (place % size - along(m, axis, rank)) * axis_step(m, axis);
    place /= size;
  }
  return rank;
}

DimPart axes_part(const Module *m, Axes a, int64_t size, int64_t rank) {
  DimPart p = {0, size, size};
  for (; a; a >>= 4) {
    int64_t parts = m->mesh.data[axes_at(a, 0)].size;
    p.local = (p.local + parts - 1) / parts;
    int64_t before = along(m, axes_at(a, 0), rank) * p.local;
    p.start += before;
    p.count -= before;
    if (p.count < 0) p.count = 0;
    if (p.count > p.local) p.count = p.local;
  }
  return p;
}

/* ---- what is exchanged --------------------------------------------------- */

Pieces pieces_of(const Type *t, int dim, int64_t parts) {
  int first = type_is_ragged(t); /* groups are not stored */
  assert(dim > first || !first);
  Pieces p = {1, t->dims[dim].size / parts};
  for (int i = first; i < dim; i++)
    p.rows *= t->dims[i].size;
  for (int i = dim + 1; i < t->rank; i++)
    p.run *= t->dims[i].size;
  return p;
}

bool combine_find(const char *name, CombineOp *out) {
  static const char *const names[] = {
      [COMBINE_SUM] = "sum", [COMBINE_MAX] = "max", [COMBINE_MIN] = "min"};
  for (CombineOp op = 0; op < COUNT_OF(names); op++)
    if (!strcmp(names[op], name)) {
      *out = op;
      return true;
    }
  return false;
}

bool ir_is_exchange(const Node *n) {
  return op_info[n->op].lower == LOWER_COMM && n->op != OP_rank;
}

Node *ir_waited(const Node *wait) {
  return wait->ins.data[0]->def;
}

Node *ir_wait_of(const Node *exchange) {
  const Region *r = exchange->region;
  for (uint32_t i = 0; i < r->nodes.len; i++)
    if (r->nodes.data[i]->op == OP_wait &&
        ir_waited(r->nodes.data[i]) == exchange)
      return r->nodes.data[i];
  return NULL;
}

/* All pieces of one's own part of n elements, then the sums that others made.
 * Operands of one dtype that follow one another are cut up as one. */
static int64_t all_reduce_bytes(const Node *x, int64_t p, int64_t place) {
  int64_t bytes = 0;
  for (uint32_t i = 0; i < x->ins.len;) {
    Dtype d = x->ins.data[i]->type.dtype;
    int64_t n = 0;
    for (; i < x->ins.len && x->ins.data[i]->type.dtype == d; i++)
      n += type_elements(&x->ins.data[i]->type);
    int64_t own = n * (place + 1) / p - n * place / p;
    bytes += ((p - 1) * own + (n - own)) * dtype_info[d].bytes;
  }
  return bytes;
}

static bool moves(const Attr *to, int64_t place) {
  return to->list[place] != place;
}

int64_t ir_comm_bytes(const Node *n, int64_t place) {
  int64_t p = node_group(n);
  const Type *in = n->ins.len ? &n->ins.data[0]->type : NULL;
  switch ((int)n->op) {
  case OP_all_reduce: return all_reduce_bytes(n, p, place);
  case OP_all_gather: return (p - 1) * type_bytes(in);
  case OP_reduce_scatter:
  case OP_all_to_all: return (p - 1) * (type_bytes(in) / p);
  case OP_permute:
    return moves(attr_ref((Node *)n, "to"), place) ? type_bytes(in) : 0;
  case OP_rows_send:
  case OP_rows_return:
    return p > 1 ? type_bytes(&n->outs.data[0]->type) : 0;
  }
  return 0;
}
