/* plan_memory.c: how much of an arena is gradients of parameters when most of
 * it is in use. */
#include "planner.h"

#include <string.h>

/* What `v` was before it was summed over devices, and waited for. */
static const Node *origin(const Value *v) {
  while (v->def && (v->def->op == OP_wait || v->def->op == OP_all_reduce))
    v = v->def->ins.data[v->index];
  return v->def;
}

/* Whether `v` is a gradient of a parameter: as large as a device's part of it,
 * made by autodiff, and in the layer that has it. */
static bool is_gradient(const Module *m, const Value *v) {
  const Node *n = origin(v);
  if (!n || !n->backward || !n->layer) return false;
  size_t len = strlen(n->layer);
  for (uint32_t i = 0; i < m->slots.len; i++) {
    const Slot *s = m->slots.data[i];
    if (s->kind != SLOT_PARAM || strncmp(s->path, n->layer, len) != 0 ||
        s->path[len] != '/' || strchr(s->path + len + 1, '/'))
      continue;
    Type local = placement_local(m, &s->type, &s->placement);
    if (type_same_dims(&local, &v->type)) return true;
  }
  return false;
}

int64_t plan_gradients(Module *m, Entry *e) {
  ConstValueVec alive = memory_peak(m->cx, e);
  int64_t bytes = 0;
  for (uint32_t i = 0; i < alive.len; i++) {
    const Value *v = alive.data[i];
    if (is_gradient(m, v)) bytes += type_bytes(&v->type);
  }
  return bytes;
}
