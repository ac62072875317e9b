/* ragged_rest.h: what stands behind the last row of a ragged value is anything,
 * and is not compared. */
#ifndef MOEC_RAGGED_REST_H
#define MOEC_RAGGED_REST_H

#include "../../ir/ir.h"

#include <string.h>

/* What the interpreter has put into values i32[..], some of them offsets. */
typedef struct RaggedRest {
  Arena *a;
  Map offsets; /* Value -> Tensor, the last one */
} RaggedRest;

/* To be called behind each node. */
static inline void rest_note(RaggedRest *r, const Node *n,
                             Tensor *const *outs) {
  for (uint32_t i = 0; i < n->outs.len; i++) {
    const Type *t = &outs[i]->type;
    if (t->dtype != DT_i32 || t->rank != 1) continue;
    Tensor *copy = tensor_new(r->a, *t);
    memcpy(copy->data, outs[i]->data,
           sizeof(double) * (size_t)type_elements(t));
    map_put(r->a, &r->offsets, n->outs.data[i], copy);
  }
}

static inline void rest_forget(const RaggedRest *r, Value *v, Tensor *got,
                               const Tensor *want) {
  if (!type_is_ragged(&v->type)) return;
  Value *source = ir_ragged_source(v);
  const Tensor *offsets =
      source ? map_get(&r->offsets, ir_outermost(source)) : NULL;
  if (!offsets) return;
  int64_t all = type_elements(&v->type), width = all / v->type.dims[1].size;
  int64_t rows = (int64_t)offsets->data[v->type.dims[0].size];
  for (int64_t i = rows * width; i < all; i++)
    got->data[i] = want->data[i];
}

#endif
