/* rewrite.c: the driver for local rewrites.
 *
 * A rule row names an op, the ops that make its first operands, and one
 * function that guards and acts. The driver walks a region forward and builds
 * its node list anew: operands are brought up to date, rules are tried until
 * one fires, nodes that the rule made take the same way, and a node that is
 * left is compared with those before it by hash (common subexpressions). Walks
 * repeat until one changes nothing.
 *
 * Nodes of different recompute groups are never merged: a value that is to be
 * computed again must not turn back into the kept one. */
#include "pass.h"

#include <math.h>
#include <string.h>

enum { MAX_ROUNDS = 20 };

/* Nodes with equal hashes. */
typedef struct Twin Twin;
struct Twin {
  Node *n;
  Twin *next;
};

typedef struct Driver {
  Ctx *cx;
  const Rule *const *families;
  const PassOptions *options;
  Map uses;
  bool has_grads, changed;
} Driver;

/* One region on its way to its new node list. */
typedef struct Scope {
  Driver *d;
  Region *region;
  NodeVec out;
  Map twins; /* hash -> Twin */
} Scope;

/* ---- for rules --------------------------------------------------------- */

Value *rw_in(const Rewrite *w, uint32_t i) {
  return w->n->ins.data[i];
}

Node *rw_def(const Rewrite *w, uint32_t i) {
  return rw_in(w, i)->def;
}

Value *rw_result(const Rewrite *w) {
  return w->n->outs.data[0];
}

uint32_t rw_uses(const Rewrite *w, const Value *v) {
  return (uint32_t)(uintptr_t)map_get(w->uses, v);
}

bool rw_is_const(const Value *v, double *out) {
  if (!v->def || v->def->op != OP_const) return false;
  *out = attr_float(v->def, "value");
  return true;
}

bool rw_is_value(const Value *v, double value) {
  double c;
  return rw_is_const(v, &c) && c == value && signbit(c) == signbit(value);
}

/* ---- equal nodes ------------------------------------------------------- */

static uint64_t hash_attr(uint64_t h, const Attr *a) {
  h = hash_bytes(h, &a->i, sizeof a->i);
  h = hash_bytes(h, &a->f, sizeof a->f);
  h = hash_bytes(h, &a->s, sizeof a->s);
  return hash_bytes(h, a->list, a->list_len * sizeof *a->list);
}

static uint64_t hash_type(uint64_t h, const Type *t) {
  h = hash_bytes(h, &t->dtype, sizeof t->dtype);
  for (int i = 0; i < t->rank; i++)
    h = hash_bytes(h, &t->dims[i].size, sizeof t->dims[i].size);
  return h;
}

/* The recompute group that keeps `n` apart from its equals: none for numbers,
 * which are not worth computing again. */
static uint32_t group_of(const Node *n) {
  for (uint32_t i = 0; i < n->outs.len; i++)
    if (n->outs.data[i]->type.rank) return n->remat;
  return 0;
}

static uint64_t hash_node(const Node *n) {
  uint64_t h = hash_bytes(group_of(n), &n->op, sizeof n->op);
  for (uint32_t i = 0; i < n->ins.len; i++)
    h = hash_bytes(h, &n->ins.data[i], sizeof n->ins.data[i]);
  for (int i = 0; i < MAX_ATTRS; i++)
    h = hash_attr(h, &n->attrs[i]);
  for (uint32_t i = 0; i < n->outs.len; i++)
    h = hash_type(h, &n->outs.data[i]->type);
  return h;
}

static bool attr_equal(const Attr *a, const Attr *b) {
  return a->present == b->present && a->i == b->i && a->s == b->s &&
         memcmp(&a->f, &b->f, sizeof a->f) == 0 && a->list_len == b->list_len &&
         (a->list_len == 0 ||
          memcmp(a->list, b->list, a->list_len * sizeof *a->list) == 0);
}

/* Values of two bodies that stand for each other. */
static bool values_match(const Map *twin, const ValueVec *a,
                         const ValueVec *b) {
  if (a->len != b->len) return false;
  for (uint32_t i = 0; i < a->len; i++) {
    Value *x = ir_now(a->data[i]), *mapped = map_get(twin, x);
    if ((mapped ? mapped : x) != ir_now(b->data[i])) return false;
  }
  return true;
}

static bool bodies_equal(Arena *a, const Region *x, const Region *y);

/* Equal but for operands, which the caller compares. */
static bool shapes_equal(Arena *arena, const Node *a, const Node *b) {
  if (a->op != b->op || group_of(a) != group_of(b) ||
      a->outs.len != b->outs.len)
    return false;
  for (int i = 0; i < MAX_ATTRS; i++)
    if (!attr_equal(&a->attrs[i], &b->attrs[i])) return false;
  for (uint32_t i = 0; i < a->outs.len; i++)
    if (!type_equal(&a->outs.data[i]->type, &b->outs.data[i]->type) ||
        !placement_equal(&a->outs.data[i]->placement,
                         &b->outs.data[i]->placement))
      return false;
  return !a->body == !b->body &&
         (!a->body || bodies_equal(arena, a->body, b->body));
}

static void pair_up(Arena *a, Map *twin, const ValueVec *x, const ValueVec *y) {
  for (uint32_t i = 0; i < x->len; i++)
    map_put(a, twin, x->data[i], y->data[i]);
}

/* The same nodes in the same order. Operand lists are equal already, so the
 * parameters have equal types. */
static bool bodies_equal(Arena *a, const Region *x, const Region *y) {
  Map twin = {0};
  if (x->params.len != y->params.len || x->nodes.len != y->nodes.len)
    return false;
  pair_up(a, &twin, &x->params, &y->params);
  for (uint32_t i = 0; i < x->nodes.len; i++) {
    const Node *n = x->nodes.data[i], *m = y->nodes.data[i];
    if (!shapes_equal(a, n, m) || !values_match(&twin, &n->ins, &m->ins))
      return false;
    pair_up(a, &twin, &n->outs, &m->outs);
  }
  return values_match(&twin, &x->results, &y->results);
}

/* The node before that computes the same, else NULL and `n` is remembered. */
static Node *find_twin(Scope *s, Node *n) {
  Arena *a = &s->d->cx->scratch;
  const void *key = (const void *)(uintptr_t)(hash_node(n) | 1);
  Twin *first = map_get(&s->twins, key);
  const Map none = {0};
  for (Twin *t = first; t; t = t->next)
    if (values_match(&none, &t->n->ins, &n->ins) && shapes_equal(a, t->n, n))
      return t->n;
  Twin *t = NEW(a, Twin);
  *t = (Twin){n, first};
  map_put(a, &s->twins, key, t);
  return NULL;
}

/* ---- one node ---------------------------------------------------------- */

static void visit(Scope *s, Node *n);
static void rewrite_region(Driver *d, Region *r);

static bool fits(const Rule *rule, const Node *n) {
  if (rule->op != ANY_OP && rule->op != n->op) return false;
  for (uint32_t i = 0; i < 2; i++) {
    if (rule->ins[i] == ANY_OP) continue;
    if (i >= n->ins.len || !n->ins.data[i]->def ||
        n->ins.data[i]->def->op != rule->ins[i])
      return false;
  }
  return true;
}

/* Brings nodes that a rule made into the region. */
static void visit_all(Scope *s, const NodeVec *nodes) {
  for (uint32_t i = 0; i < nodes->len; i++)
    visit(s, nodes->data[i]);
}

static bool try_rule(Scope *s, const Rule *rule, Node *n) {
  NodeVec fresh = {0};
  Builder b = ir_builder_like(s->d->cx, s->region, &fresh, n);
  Rewrite w = {.b = &b,
               .options = s->d->options,
               .n = n,
               .uses = &s->d->uses,
               .has_grads = s->d->has_grads};
  Value *v = rule->apply(&w);
  if (!v) return false;
  visit_all(s, &fresh);
  ir_replace(n->outs.data[0], v);
  pass_tally(s->d->options, rule->name);
  return s->d->changed = true;
}

static bool try_rules(Scope *s, Node *n) {
  if (n->outs.len != 1) return false;
  for (const Rule *const *family = s->d->families; *family; family++)
    for (const Rule *rule = *family; rule->name; rule++)
      if (fits(rule, n) && try_rule(s, rule, n)) return true;
  return false;
}

static bool is_const_value(const Value *v) {
  return v->def && v->def->op == OP_const;
}

/* Constants stand second, so that rules need one form only. */
static void order_operands(Node *n) {
  if (!op_is(n->op, TRAIT_COMMUTE)) return;
  Value *a = n->ins.data[0], *b = n->ins.data[1];
  if (!is_const_value(a) || is_const_value(b)) return;
  n->ins.data[0] = b;
  n->ins.data[1] = a;
}

static void visit_body(Scope *s, Node *n) {
  rewrite_region(s->d, n->body);
  if (n->op != OP_scan) return;
  NodeVec fresh = {0};
  Builder b = ir_builder_like(s->d->cx, s->region, &fresh, n);
  if (!simplify_scan(&b, n, &s->d->uses, s->d->options)) return;
  s->d->changed = true;
  visit_all(s, &fresh);
}

static void visit(Scope *s, Node *n) {
  for (uint32_t i = 0; i < n->ins.len; i++)
    n->ins.data[i] = ir_now(n->ins.data[i]);
  order_operands(n);
  if (n->body) visit_body(s, n);
  if (n->outs.len && n->outs.data[0]->fwd) return; /* a scan that dissolved */
  if (try_rules(s, n)) return;
  Node *twin = find_twin(s, n);
  if (!twin) {
    vec_push(&s->d->cx->perm, &s->out, n);
    return;
  }
  for (uint32_t i = 0; i < n->outs.len; i++)
    ir_replace(n->outs.data[i], twin->outs.data[i]);
  pass_tally(s->d->options, "equal nodes");
  s->d->changed = true;
}

static void rewrite_region(Driver *d, Region *r) {
  Scope s = {.d = d, .region = r};
  visit_all(&s, &r->nodes);
  r->nodes = s.out;
  for (uint32_t i = 0; i < r->results.len; i++)
    r->results.data[i] = ir_now(r->results.data[i]);
}

/* ---- one entry --------------------------------------------------------- */

/* Reads of each value; nodes are in the map too, as known. */
static void count_use(Arena *a, Map *uses, const void *v) {
  uintptr_t n = (uintptr_t)map_get(uses, v);
  map_put(a, uses, v, (void *)(n + 1));
}

static void count_uses(Arena *a, Map *uses, const Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    count_use(a, uses, n);
    for (uint32_t j = 0; j < n->ins.len; j++)
      count_use(a, uses, n->ins.data[j]);
    if (n->body) count_uses(a, uses, n->body);
  }
  for (uint32_t i = 0; i < r->results.len; i++)
    count_use(a, uses, r->results.data[i]);
}

void rewrite_entry(Entry *e, const Rule *const *families,
                   const PassOptions *o) {
  Driver d = {.cx = e->module->cx, .families = families, .options = o};
  d.has_grads = !pass_facts(e->module, FACT_GRADS);
  d.changed = true;
  ir_sweep(e);
  for (int round = 0; d.changed && round < MAX_ROUNDS; round++) {
    d.changed = false;
    d.uses = (Map){0};
    count_uses(&d.cx->scratch, &d.uses, e->region);
    rewrite_region(&d, e->region);
    ir_sweep(e);
  }
}
