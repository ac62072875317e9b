/* life.c: positions of nodes in time, and how long values are needed.
 *
 * Time runs through an entry and its scan bodies in text order; a scan spans
 * the positions of its body. What an operand of a scan holds is needed until
 * the scan's end, since every turn reads it again, unless it is a carry's
 * initial value, which is read once, at its start. What an exchange reads is
 * needed until the wait for it. */
#include "pass.h"

typedef struct NodeTime {
  int start, end;
} NodeTime;

static NodeTime *time_of(const Life *l, const Node *n) {
  return map_get(&l->times, n);
}

int life_start(const Life *l, const Node *n) {
  return time_of(l, n)->start;
}
int life_end(const Life *l, const Node *n) {
  return time_of(l, n)->end;
}

static void used_until(Life *l, const Value *v, int position) {
  intptr_t last = (intptr_t)map_get(&l->last, v);
  if (position + 1 > last)
    map_put(l->arena, &l->last, v, (void *)(intptr_t)(position + 1));
}

int life_last(const Life *l, const Value *v) {
  return (int)(intptr_t)map_get(&l->last, v) - 1;
}

static void walk(Life *l, const Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    NodeTime *t = NEW(l->arena, NodeTime);
    map_put(l->arena, &l->times, n, t);
    t->start = l->end++;
    if (n->op == OP_wait) {
      const Node *x = ir_waited(n);
      for (uint32_t a = 0; a < x->ins.len; a++)
        used_until(l, x->ins.data[a], t->start);
    }
    if (n->op == OP_scan) {
      for (uint32_t p = 0; p < n->body->params.len; p++)
        used_until(l, n->body->params.data[p], t->start);
      walk(l, n->body);
      t->end = l->end++;
      for (uint32_t y = 0; y < n->body->results.len; y++)
        used_until(l, n->body->results.data[y], t->end);
    } else {
      t->end = t->start;
    }
    int64_t carries = n->op == OP_scan ? attr_int(n, "carries") : 0;
    for (uint32_t a = 0; a < n->ins.len; a++)
      used_until(l, n->ins.data[a], a < carries ? t->start : t->end);
    for (uint32_t o = 0; o < n->outs.len; o++)
      used_until(l, n->outs.data[o], t->end);
  }
}

void life_of(const Entry *e, Arena *a, Life *out) {
  *out = (Life){.arena = a, .end = 1};
  walk(out, e->region);
  for (uint32_t i = 0; i < e->region->results.len; i++)
    used_until(out, e->region->results.data[i], out->end);
}
