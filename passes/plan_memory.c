/* plan_memory.c: how much of an arena is gradients of parameters when most of
 * it is in use. */
#include "planner.h"

#include <string.h>

typedef struct Alive {
  Module *m;
  Life life;
  int64_t *all, *gradients; /* by position */
} Alive;

/* Whether `v` is a gradient of a parameter: as large as a device's part of it,
 * made by autodiff, and in the layer that has it. */
static bool is_gradient(const Module *m, const Value *v) {
  if (!v->def->backward || !v->def->layer) return false;
  size_t n = strlen(v->def->layer);
  for (uint32_t i = 0; i < m->slots.len; i++) {
    const Slot *s = m->slots.data[i];
    if (s->kind != SLOT_PARAM || strncmp(s->path, v->def->layer, n) != 0 ||
        s->path[n] != '/' || strchr(s->path + n + 1, '/'))
      continue;
    Type local = placement_local(m, &s->type, &s->placement);
    if (type_same_dims(&local, &v->type)) return true;
  }
  return false;
}

static void add_value(Alive *a, const Value *v, int start) {
  if (v->place.slab != SLAB_ARENA) return;
  for (int i = 0; i < MAX_LOOPS; i++)
    if (v->place.stride[i]) return; /* a row of something that is counted */
  int64_t bytes = type_bytes(&v->type);
  bool gradient = is_gradient(a->m, v);
  for (int t = start; t <= life_last(&a->life, v); t++) {
    a->all[t] += bytes;
    a->gradients[t] += gradient ? bytes : 0;
  }
}

/* A wait has the bytes of its exchange, which lives up to there. */
static void add_region(Alive *a, const Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    int start = life_start(&a->life, n) + (n->op == OP_wait);
    for (uint32_t k = 0; k < n->outs.len; k++)
      add_value(a, n->outs.data[k], start);
    if (n->op == OP_scan) add_region(a, n->body);
  }
}

int64_t plan_gradients(Module *m, Entry *e) {
  Arena *scratch = &m->cx->scratch;
  Alive a = {.m = m};
  ir_number(e);
  life_of(e, scratch, &a.life);
  a.all = NEW_ARRAY(scratch, int64_t, (size_t)a.life.end + 2);
  a.gradients = NEW_ARRAY(scratch, int64_t, (size_t)a.life.end + 2);
  add_region(&a, e->region);
  int peak = 0;
  for (int t = 1; t <= a.life.end; t++)
    if (a.all[t] > a.all[peak]) peak = t;
  int64_t bytes = a.gradients[peak];
  return bytes < e->arena_bytes ? bytes : e->arena_bytes;
}
