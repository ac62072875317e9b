/* again.c: products that a step computes more than once, and launches that are
 * like one before.
 *
 * Passes may have a product computed again rather than kept (remake.c,
 * recompute.c); the step needs it once all the same. Two products are one where
 * their expressions are the same, ops, attributes and operands, from parameters
 * on and through launches; what a loop makes is the same as itself alone.
 *
 * Launches are alike where one kernel does for both: ops, attributes and types
 * are the same, operands equal where the other's are, and places as aligned.
 * Layers that repeat are lowered once so. Both are told apart by hashes of 64
 * bits. */
#include "codegen.h"

#include <string.h>

static uint64_t hash_of(CgAgain *s, const Value *v);

/* What `v` is outside of launches, and within the one that makes it. */
static const Value *made_of(const Value *v) {
  for (;;) {
    const Node *def = v->def, *owner = v->region->owner;
    if (!def && owner && owner->op == OP_fused)
      v = owner->ins.data[v->index];
    else if (def && def->op == OP_fused)
      v = def->body->results.data[v->index];
    else if (def && def->op == OP_reshape &&
             type_equal(&v->type, &def->ins.data[0]->type))
      v = def->ins.data[0]; /* a copy */
    else
      return v;
  }
}

static uint64_t hash_number(uint64_t h, uint64_t x) {
  return hash_bytes(h, &x, sizeof x);
}

static uint64_t hash_type(uint64_t h, const Type *t) {
  h = hash_number(hash_number(h, t->dtype), t->rank);
  for (int d = 0; d < t->rank; d++)
    h = hash_number(hash_number(h, (uint64_t)t->dims[d].size),
                    t->dims[d].ragged);
  return h;
}

static uint64_t hash_attr(uint64_t h, const Attr *a) {
  h = hash_number(hash_number(h, a->present), (uint64_t)a->i);
  h = hash_bytes(h, &a->f, sizeof a->f);
  if (a->s) h = hash_bytes(h, a->s, strlen(a->s));
  if (a->list_len) h = hash_bytes(h, a->list, a->list_len * sizeof *a->list);
  return h;
}

static uint64_t hash_node(CgAgain *s, const Node *n) {
  const AttrSpec *specs;
  int n_attrs = op_attrs(n->op, &specs);
  uint64_t h = hash_number(0, n->op);
  for (int i = 0; i < n_attrs; i++)
    h = hash_attr(h, &n->attrs[i]);
  for (uint32_t i = 0; i < n->ins.len; i++)
    h = hash_number(h, hash_of(s, n->ins.data[i]));
  return h;
}

static uint64_t hash_of(CgAgain *s, const Value *v) {
  v = made_of(v);
  uintptr_t known = (uintptr_t)map_get(&s->hashes, v);
  if (known) return known;
  bool itself = !v->def || v->def->body;
  uint64_t h = itself ? (uint64_t)(uintptr_t)v : hash_node(s, v->def);
  h = hash_type(hash_number(h, v->index), &v->type) | 1; /* not 0 */
  map_put(s->a, &s->hashes, v, (void *)(uintptr_t)h);
  return h;
}

bool cg_again(CgAgain *s, const Node *n) {
  const void *key = (const void *)(uintptr_t)hash_of(s, n->outs.data[0]);
  bool again = map_get(&s->seen, key);
  map_put(s->a, &s->seen, key, s);
  return again;
}

/* ---- launches ----------------------------------------------------------- */

/* Values by the order in which a launch meets them. */
typedef struct Numbers {
  Arena *a;
  Map of; /* Value -> number + 1 */
  uintptr_t last;
} Numbers;

static uint64_t hash_value(Numbers *s, uint64_t h, const Value *v) {
  uintptr_t number = (uintptr_t)map_get(&s->of, v);
  if (number) return hash_number(h, number);
  map_put(s->a, &s->of, v, (void *)++s->last);
  return hash_type(hash_number(h, s->last), &v->type);
}

static uint64_t hash_values(Numbers *s, uint64_t h, const ValueVec *v) {
  for (uint32_t i = 0; i < v->len; i++)
    h = hash_value(s, h, v->data[i]);
  return hash_number(h, v->len);
}

static uint64_t hash_op(Numbers *s, uint64_t h, const Node *n) {
  const AttrSpec *specs;
  int n_attrs = op_attrs(n->op, &specs);
  h = hash_number(h, n->op);
  for (int i = 0; i < n_attrs; i++)
    h = hash_attr(h, &n->attrs[i]);
  h = hash_values(s, hash_values(s, h, &n->ins), &n->outs);
  if (!n->body) return h;
  h = hash_values(s, h, &n->body->params);
  for (uint32_t i = 0; i < n->body->nodes.len; i++)
    h = hash_op(s, h, n->body->nodes.data[i]);
  return hash_values(s, h, &n->body->results);
}

/* As far as anybody asks: a vector of lanes at the most. */
static uint64_t hash_alignment(uint64_t h, const Place *p) {
  return hash_number(h, (uint64_t)cg_place_alignment(p, 4096));
}

static uint64_t hash_launch(const Node *n) {
  Arena a = {0};
  Numbers s = {.a = &a};
  uint64_t h = hash_op(&s, 0, n);
  for (uint32_t i = 0; i < n->ins.len; i++)
    h = hash_alignment(h, &n->ins.data[i]->place);
  for (uint32_t i = 0; i < n->outs.len; i++) {
    const Place *to = &n->outs.data[i]->place;
    h = hash_alignment(h, to);
    for (uint32_t k = 0; k < n->ins.len; k++) {
      if (cg_same_start(&n->ins.data[k]->place, to))
        h = hash_number(hash_number(h, i), k);
    }
  }
  arena_reset(&a);
  return h;
}

Kernel *cg_lower_once(CgLowered *s, const Node *n) {
  const void *key = (const void *)(uintptr_t)(hash_launch(n) | 1);
  Kernel *k = map_get(&s->of, key);
  if (!k) {
    k = cg_lower(s->cx, n, s->isa);
    if (!k) return NULL;
    map_put(&s->cx->scratch, &s->of, key, k);
  }
  return arena_copy(&s->cx->scratch, k, sizeof *k);
}
