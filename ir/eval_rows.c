/* eval_rows.c: the interpreter's ops on rows chosen by ids: gather and take
 * with their duals, and routing before and after `expand`.
 *
 * Routing: T tokens make K choices each. Flat choice j is choice j % K of token
 * j / K. A ragged value holds R = T * K rows of D elements, row `slot[j]` for
 * choice j: grouped by expert, in order of j within a group. */
#include "ir.h"

#include <stdlib.h>
#include <string.h>

static void zero(Tensor *t) {
  memset(t->data, 0, sizeof(double) * (size_t)type_elements(&t->type));
}

static int64_t last_dim(const Tensor *t) {
  return t->type.dims[t->type.rank - 1].size;
}

static void copy_row(double *to, const double *from, int64_t n) {
  memcpy(to, from, sizeof(double) * (size_t)n);
}

static void add_row(double *to, const double *from, int64_t n, double factor) {
  for (int64_t i = 0; i < n; i++)
    to[i] += from[i] * factor;
}

/* ---- rows of tables ------------------------------------------------------ */

void eval_gather(EvalCall *c) {
  const Tensor *table = c->ins[0], *ids = c->ins[1];
  int64_t rows = table->type.dims[0].size;
  int64_t width = type_elements(&table->type) / rows;
  for (int64_t i = 0, n = type_elements(&ids->type); i < n; i++)
    copy_row(c->outs[0]->data + i * width,
             table->data + eval_id(c, ids->data[i], rows) * width, width);
}

void eval_scatter_add(EvalCall *c) {
  const Tensor *ids = c->ins[0], *x = c->ins[1];
  int64_t rows = attr_int(c->n, "rows");
  int64_t width = type_elements(&c->outs[0]->type) / rows;
  zero(c->outs[0]);
  for (int64_t i = 0, n = type_elements(&ids->type); i < n; i++)
    add_row(c->outs[0]->data + eval_id(c, ids->data[i], rows) * width,
            x->data + i * width, width, 1);
}

void eval_take(EvalCall *c) {
  const Tensor *x = c->ins[0], *ids = c->ins[1];
  int64_t size = last_dim(x), k = last_dim(ids);
  for (int64_t i = 0, n = type_elements(&ids->type); i < n; i++)
    c->outs[0]->data[i] =
        x->data[i / k * size + eval_id(c, ids->data[i], size)];
}

void eval_put(EvalCall *c) {
  const Tensor *x = c->ins[0], *ids = c->ins[1];
  int64_t size = attr_int(c->n, "size"), k = last_dim(ids);
  zero(c->outs[0]);
  for (int64_t i = 0, n = type_elements(&ids->type); i < n; i++)
    c->outs[0]->data[i / k * size + eval_id(c, ids->data[i], size)] +=
        x->data[i];
}

/* ---- routing ------------------------------------------------------------- */

/* The row of each flat choice, by a stable counting sort, -1 of one that has
 * none; to be freed. */
static int64_t *slots_of(EvalCall *c, const Tensor *ids, int64_t experts,
                         bool drops) {
  int64_t n = type_elements(&ids->type);
  int64_t *slot = calloc((size_t)n + 1, sizeof *slot);
  int64_t *next = calloc((size_t)experts + 1, sizeof *next);
  if (!slot || !next) internal_error("out of memory");
  uint32_t clamped = c->clamped;
  eval_count_ids(c, ids, experts, drops, next);
  clamped = c->clamped - clamped;
  for (int64_t j = 0; j < n; j++)
    slot[j] = drops && ids->data[j] == (double)experts
                  ? -1
                  : next[eval_id(c, ids->data[j], experts)]++;
  c->clamped -= clamped; /* each id was looked at twice */
  free(next);
  return slot;
}

void eval_route(EvalCall *c) {
  int64_t experts = attr_int(c->n, "experts");
  int64_t n = type_elements(&c->ins[0]->type);
  int64_t *offsets = calloc((size_t)experts + 1, sizeof *offsets);
  if (!offsets) internal_error("out of memory");
  eval_count_ids(c, c->ins[0], experts, false, offsets);
  for (int64_t e = 0; e <= experts; e++)
    c->outs[0]->data[e] = (double)offsets[e];
  free(offsets);
  uint32_t clamped = c->clamped;
  int64_t *slot = slots_of(c, c->ins[0], experts, false);
  c->clamped = clamped;
  for (int64_t j = 0; j < n; j++) {
    c->outs[1]->data[j] = (double)slot[j];
    c->outs[2]->data[slot[j]] = (double)j;
  }
  free(slot);
}

void eval_dispatch(EvalCall *c) {
  const Tensor *x = c->ins[0], *ids = c->ins[1];
  const Tensor *gates = c->n->ins.len > 2 ? c->ins[2] : NULL;
  int64_t width = last_dim(x), k = last_dim(ids);
  int64_t *slot = slots_of(c, ids, attr_int(c->n, "experts"),
                           attr_bool(c->n, "drops"));
  zero(c->outs[0]);
  for (int64_t j = 0, n = type_elements(&ids->type); j < n; j++)
    if (slot[j] >= 0)
      add_row(c->outs[0]->data + slot[j] * width, x->data + j / k * width,
              width, gates ? gates->data[j] : 1);
  free(slot);
}

void eval_combine(EvalCall *c) {
  const Tensor *y = c->ins[0], *ids = c->ins[1];
  const Tensor *gates = c->n->ins.len > 2 ? c->ins[2] : NULL;
  int64_t width = last_dim(y), k = last_dim(ids);
  int64_t *slot =
      slots_of(c, ids, y->type.dims[0].size, attr_bool(c->n, "drops"));
  zero(c->outs[0]);
  for (int64_t j = 0, n = type_elements(&ids->type); j < n; j++)
    if (slot[j] >= 0)
      add_row(c->outs[0]->data + j / k * width, y->data + slot[j] * width,
              width, gates ? gates->data[j] : 1);
  free(slot);
}

static double dot(const double *a, const double *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++)
    sum += a[i] * b[i];
  return sum;
}

void eval_row_dot(EvalCall *c) {
  const Tensor *y = c->ins[0], *d = c->ins[1], *ids = c->ins[2];
  int64_t width = last_dim(y), k = last_dim(ids);
  int64_t *slot =
      slots_of(c, ids, y->type.dims[0].size, attr_bool(c->n, "drops"));
  for (int64_t j = 0, n = type_elements(&ids->type); j < n; j++)
    c->outs[0]->data[j] =
        slot[j] < 0
            ? 0
            : dot(y->data + slot[j] * width, d->data + j / k * width, width);
  free(slot);
}

/* ---- routing after `expand` ---------------------------------------------- */

void eval_rows_gather(EvalCall *c) {
  const Tensor *x = c->ins[0], *src = c->ins[1];
  const Tensor *gates = c->n->ins.len > 3 ? c->ins[3] : NULL;
  int64_t width = last_dim(x), k = attr_int(c->n, "choices");
  int64_t rows = type_elements(&src->type);
  for (int64_t i = 0; i < rows; i++) {
    int64_t j = eval_id(c, src->data[i], rows);
    const double *from = x->data + j / k * width;
    for (int64_t d = 0; d < width; d++)
      c->outs[0]->data[i * width + d] = gates ? from[d] * gates->data[j]
                                              : from[d];
  }
}

void eval_rows_combine(EvalCall *c) {
  const Tensor *y = c->ins[0], *slot = c->ins[1];
  const Tensor *gates = c->n->ins.len > 2 ? c->ins[2] : NULL;
  int64_t width = last_dim(y), k = last_dim(slot);
  int64_t rows = type_elements(&slot->type);
  zero(c->outs[0]);
  for (int64_t j = 0; j < rows; j++)
    add_row(c->outs[0]->data + j / k * width,
            y->data + eval_id(c, slot->data[j], rows) * width, width,
            gates ? gates->data[j] : 1);
}

void eval_rows_dot(EvalCall *c) {
  const Tensor *y = c->ins[0], *d = c->ins[1], *slot = c->ins[2];
  int64_t width = last_dim(y), k = last_dim(slot);
  int64_t rows = type_elements(&slot->type);
  for (int64_t j = 0; j < rows; j++)
    c->outs[0]->data[j] = dot(y->data + eval_id(c, slot->data[j], rows) * width,
                              d->data + j / k * width, width);
}
