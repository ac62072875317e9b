/* eval_data.c: the interpreter's ops that make, move and order elements without
 * a map: const, iota, reshape, slice, concat, pad, cumsum, top_k, sort. */
#include "ir.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A tensor seen along one dim: [outer, size, inner], as stored. */
typedef struct Along {
  int64_t outer, size, inner;
} Along;

static Along along(const Type *t, int64_t dim) {
  assert(!type_is_ragged(t) || dim > 0);
  Along x = {1, t->dims[dim].size, 1};
  for (int64_t i = type_is_ragged(t) ? 1 : 0; i < dim; i++)
    x.outer *= t->dims[i].size;
  for (int64_t i = dim + 1; i < t->rank; i++)
    x.inner *= t->dims[i].size;
  return x;
}

/* Copies `size` indices along a dim, from `from_at` on, to `to_at` on. */
static void copy_along(const Tensor *from, int64_t from_at, Tensor *to,
                       int64_t to_at, int64_t size, int64_t dim) {
  Along f = along(&from->type, dim), t = along(&to->type, dim);
  for (int64_t i = 0; i < f.outer; i++)
    memcpy(to->data + (i * t.size + to_at) * t.inner,
           from->data + (i * f.size + from_at) * f.inner,
           sizeof(double) * (size_t)(size * f.inner));
}

static void zero(Tensor *t) {
  memset(t->data, 0, sizeof(double) * (size_t)type_elements(&t->type));
}

void eval_const(EvalCall *c) {
  double value = attr_float(c->n, "value");
  for (int64_t i = 0, n = type_elements(&c->outs[0]->type); i < n; i++)
    c->outs[0]->data[i] = value;
}

void eval_iota(EvalCall *c) {
  Along a = along(&c->outs[0]->type, attr_int(c->n, "dim"));
  double *to = c->outs[0]->data;
  for (int64_t o = 0; o < a.outer; o++)
    for (int64_t i = 0; i < a.size; i++)
      for (int64_t k = 0; k < a.inner; k++)
        *to++ = (double)i;
}

void eval_identity(EvalCall *c) {
  memcpy(c->outs[0]->data, c->ins[0]->data,
         sizeof(double) * (size_t)type_elements(&c->outs[0]->type));
}

void eval_reshape(EvalCall *c) {
  eval_identity(c);
}

void eval_slice(EvalCall *c) {
  copy_along(c->ins[0], attr_int(c->n, "start"), c->outs[0], 0,
             attr_int(c->n, "size"), attr_int(c->n, "dim"));
}

void eval_concat(EvalCall *c) {
  int64_t dim = attr_int(c->n, "dim"), at = 0;
  for (uint32_t i = 0; i < c->n->ins.len; i++) {
    int64_t size = c->ins[i]->type.dims[dim].size;
    copy_along(c->ins[i], 0, c->outs[0], at, size, dim);
    at += size;
  }
}

void eval_pad(EvalCall *c) {
  int64_t dim = attr_int(c->n, "dim");
  zero(c->outs[0]);
  copy_along(c->ins[0], 0, c->outs[0], attr_int(c->n, "lo"),
             c->ins[0]->type.dims[dim].size, dim);
}

void eval_pack(EvalCall *c) {
  int64_t group = attr_int(c->n, "group");
  bool turned = attr_bool(c->n, "turned");
  const Type *x = &c->ins[0]->type;
  int64_t n = x->dims[!turned].size, k = x->dims[turned].size;
  for (int64_t i = 0; i < k; i++)
    for (int64_t j = 0; j < n; j++) {
      int64_t row = j / PANEL * (k / group) + i / group;
      c->outs[0]->data[(row * PANEL + j % PANEL) * group + i % group] =
          c->ins[0]->data[turned ? j * k + i : i * n + j];
    }
}

/* ---- along the last dim -------------------------------------------------- */

void eval_cumsum(EvalCall *c) {
  bool exclusive = attr_bool(c->n, "exclusive");
  bool reverse = attr_bool(c->n, "reverse");
  const Type *t = &c->ins[0]->type;
  Along a = along(t, t->rank - 1);
  for (int64_t o = 0; o < a.outer; o++) {
    double sum = 0;
    for (int64_t i = 0; i < a.size; i++) {
      int64_t at = o * a.size + (reverse ? a.size - 1 - i : i);
      double before = sum;
      sum += c->ins[0]->data[at];
      c->outs[0]->data[at] = exclusive ? before : sum;
    }
  }
}

typedef struct Ranked {
  double value;
  int64_t index;
} Ranked;

/* The order of top_k and sort: descending, NaN last, ties by index. */
static int by_rank(const void *pa, const void *pb) {
  const Ranked *a = pa, *b = pb;
  if (a->value > b->value) return -1;
  if (a->value < b->value) return 1;
  if (isnan(a->value) != isnan(b->value)) return isnan(a->value) ? 1 : -1;
  return a->index < b->index ? -1 : a->index > b->index;
}

/* Moves the first `k` in rank of row[0..n) to its front, in order. */
static void rank_front(Ranked *row, int64_t n, int64_t k) {
  for (int64_t i = 0; i < k; i++) {
    int64_t best = i;
    for (int64_t j = i + 1; j < n; j++)
      if (by_rank(&row[j], &row[best]) < 0) best = j;
    Ranked first = row[best];
    row[best] = row[i];
    row[i] = first;
  }
}

static void rank_rows(EvalCall *c, int64_t k) {
  const Type *t = &c->ins[0]->type;
  Along a = along(t, t->rank - 1);
  Ranked *row = calloc((size_t)a.size + 1, sizeof *row);
  if (!row) internal_error("out of memory");
  for (int64_t o = 0; o < a.outer; o++) {
    for (int64_t i = 0; i < a.size; i++)
      row[i] = (Ranked){c->ins[0]->data[o * a.size + i], i};
    if (k < a.size)
      rank_front(row, a.size, k);
    else
      qsort(row, (size_t)a.size, sizeof *row, by_rank);
    for (int64_t i = 0; i < k; i++) {
      c->outs[0]->data[o * k + i] = row[i].value;
      c->outs[1]->data[o * k + i] = (double)row[i].index;
    }
  }
  free(row);
}

void eval_top_k(EvalCall *c) {
  rank_rows(c, attr_int(c->n, "k"));
}

void eval_sort(EvalCall *c) {
  const Type *t = &c->ins[0]->type;
  rank_rows(c, t->dims[t->rank - 1].size);
}
