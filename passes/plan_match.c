/* plan_match.c: which part of a value of the planned program a device has.
 *
 * A plan is made of the program for one device, since what follows `shard` on
 * many may differ with their number. Its values are found again in the sharded
 * module, where each has a placement: slots and inputs by name; what is only
 * handed on, another order of one operand, as that operand; all others by their
 * dims and where they come from. The best twin is one with the same dims in any
 * order, then one whose dims are the same merged, then one with as many
 * elements; of those one from the same source line, then from the same layer.
 * The largest part counts where twins are equally good.
 *
 *   %a = fused %e : f32[64, 32, 512]        of lm/lstm1, in the plan
 *   %h = tanh %z  : f32[64 @dev, 32, 512]   of lm/lstm1: dev splits %a, too */
#include "planner.h"

#include <stdlib.h>
#include <string.h>

/* A value, or a contraction, of the sharded module. */
typedef struct Twin {
  Sym path; /* of its source */
  uint32_t at;
  Sym layer;
  int rank; /* without dims of 1 */
  int64_t dims[MAX_RANK], sorted[MAX_RANK], elements;
  double share;
} Twin;
typedef VEC(Twin) TwinVec;

struct PlanMatch {
  Arena *a;
  const Module *whole;
  Module *parts;
  const Entry *entry, *twin_entry;
  TwinVec values, products;
  Map shares; /* Value -> double */
};

/* ---- twins --------------------------------------------------------------- */

static int by_size(const void *x, const void *y) {
  int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;
  return (a > b) - (a < b);
}

static Twin twin_of(const Module *m, const Type *t, const Node *def) {
  Twin w = {.elements = 1};
  int64_t stored[MAX_RANK];
  int n = type_stored_dims(t, stored);
  for (int i = 0; i < n; i++)
    if (stored[i] != 1) {
      w.dims[w.rank++] = stored[i];
      w.elements *= stored[i];
    }
  memcpy(w.sorted, w.dims, sizeof w.dims);
  qsort(w.sorted, (size_t)w.rank, sizeof *w.sorted, by_size);
  if (!def) return w;
  if (def->span.file) w.path = m->cx->sources.data[def->span.file - 1].path;
  w.at = def->span.lo;
  w.layer = def->layer;
  return w;
}

static double local_share(const Module *m, const Type *t, const Placement *p) {
  Type local = placement_local(m, t, p);
  return (double)type_elements(&local) / (double)type_elements(t);
}

/* What the placements of a contraction leave of its multiply-adds. */
static double product_share(const Module *m, const Node *n) {
  Node copy = *n;
  Value *ins[2], operands[2], result = *n->outs.data[0], *outs[1] = {&result};
  for (int i = 0; i < 2; i++) {
    operands[i] = *n->ins.data[i];
    operands[i].type = placement_local(m, &operands[i].type,
                                       &operands[i].placement);
    ins[i] = &operands[i];
  }
  result.type = placement_local(m, &result.type, &result.placement);
  copy.ins = (ValueVec){ins, 2, 2};
  copy.outs = (ValueVec){outs, 1, 1};
  return (double)ir_macs(&copy) / (double)ir_macs(n);
}

static void add_twins(PlanMatch *m, const Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    if (n->body) add_twins(m, n->body);
    for (uint32_t k = 0; k < n->outs.len; k++) {
      const Value *v = n->outs.data[k];
      Twin w = twin_of(m->parts, &v->type, n);
      w.share = local_share(m->parts, &v->type, &v->placement);
      vec_push(m->a, &m->values, w);
    }
    if (n->op != OP_contract) continue;
    Twin w = twin_of(m->parts, &n->outs.data[0]->type, n);
    w.elements = ir_macs(n);
    w.share = product_share(m->parts, n);
    vec_push(m->a, &m->products, w);
  }
}

PlanMatch *plan_match_new(Arena *a, const Module *whole, const Entry *e,
                          Module *parts) {
  PlanMatch *m = NEW(a, PlanMatch);
  *m = (PlanMatch){.a = a, .whole = whole, .parts = parts, .entry = e};
  m->twin_entry = ir_entry(parts, e->name);
  if (m->twin_entry) add_twins(m, m->twin_entry->region);
  return m;
}

/* ---- how alike ----------------------------------------------------------- */

/* Whether merging neighbours among the dims of `fine` gives those of `x`. */
static bool merges(const Twin *fine, const Twin *x) {
  int at = 0;
  for (int i = 0; i < x->rank; i++) {
    int64_t size = 1;
    while (at < fine->rank && size < x->dims[i])
      size *= fine->dims[at++];
    if (size != x->dims[i]) return false;
  }
  return at == fine->rank;
}

static int dims_alike(const Twin *x, const Twin *y) {
  if (x->elements != y->elements) return 0;
  if (x->rank == y->rank && memcmp(x->sorted, y->sorted, sizeof x->sorted) == 0)
    return 3;
  return merges(x, y) || merges(y, x) ? 2 : 1;
}

static int place_alike(const Twin *x, const Twin *y) {
  bool same_span = x->path && x->path == y->path && x->at == y->at;
  return same_span ? 2 : x->layer && x->layer == y->layer ? 1 : 0;
}

/* By dims (0 to 3), place (0 to 2): the same layer says more than merged dims
 * from elsewhere. */
static const int ranks[4][3] = {
    {0, 0, 0}, {1, 3, 4}, {2, 6, 7}, {5, 8, 9}};

/* The share of the best twin; -1: there is none. */
static double best_share(const TwinVec *all, const Twin *x, bool products) {
  double share = -1;
  int best = 0;
  for (uint32_t i = 0; i < all->len; i++) {
    const Twin *w = &all->data[i];
    int dims = products ? w->elements == x->elements : dims_alike(w, x);
    int rank = ranks[dims][place_alike(w, x)];
    if (!dims || rank < best) continue;
    if (rank > best || w->share > share) share = w->share;
    best = rank;
  }
  return share;
}

/* ---- values of the plan -------------------------------------------------- */

static double slot_share(const PlanMatch *m, Sym path) {
  const Slot *s = ir_slot(m->parts, path);
  return s ? local_share(m->parts, &s->type, &s->placement) : 1;
}

static double input_share(const PlanMatch *m, Sym name) {
  const Entry *e = m->twin_entry;
  for (uint32_t i = 0; e && i < e->ins.len; i++) {
    const Value *v = e->region->params.data[i];
    if (e->ins.data[i].kind == BIND_INPUT && e->ins.data[i].name == name)
      return local_share(m->parts, &v->type, &v->placement);
  }
  return 1;
}

/* A parameter of the entry, or of a scan's or launch's body. */
static double param_share(PlanMatch *m, const Value *v) {
  const Node *owner = v->region->owner;
  if (owner) {
    uint32_t first = owner->op == OP_scan; /* its index */
    return v->index < first ? 1
                            : plan_share(m, owner->ins.data[v->index - first]);
  }
  const Binding *b = &m->entry->ins.data[v->index];
  return b->kind == BIND_SLOT    ? slot_share(m, b->name)
         : b->kind == BIND_INPUT ? input_share(m, b->name)
                                 : 1;
}

/* The one operand that the node gives on in another order; NULL: none. */
static Value *handed_on(const Node *n) {
  Value *only = NULL;
  if (n->op != OP_fused && n->op != OP_reshape && n->op != OP_pack &&
      n->op != OP_transpose)
    return NULL;
  for (uint32_t i = 0; i < n->ins.len; i++) {
    if (type_elements(&n->ins.data[i]->type) == 1) continue;
    if (only) return NULL;
    only = n->ins.data[i];
  }
  return only;
}

static Value *largest_operand(const Node *n) {
  Value *best = NULL;
  for (uint32_t i = 0; i < n->ins.len; i++) {
    Value *v = n->ins.data[i];
    if (!best || type_elements(&v->type) > type_elements(&best->type)) best = v;
  }
  return best;
}

static double find_share(PlanMatch *m, const Value *v) {
  int64_t elements = type_elements(&v->type);
  if (elements <= 1) return 1;
  if (!v->def) return param_share(m, v);
  Value *whole = handed_on(v->def);
  if (whole && type_elements(&whole->type) == elements)
    return plan_share(m, whole);
  Twin x = twin_of(m->whole, &v->type, v->def);
  double share = best_share(&m->values, &x, false);
  Value *like = share < 0 ? largest_operand(v->def) : NULL;
  return share >= 0 ? share : like ? plan_share(m, like) : 1;
}

double plan_share(PlanMatch *m, const Value *v) {
  double *known = map_get(&m->shares, v);
  if (known) return *known;
  double share = find_share(m, v);
  map_put(m->a, &m->shares, v, arena_copy(m->a, &share, sizeof share));
  return share;
}

double plan_macs_share(PlanMatch *m, const Node *n) {
  Twin x = twin_of(m->whole, &n->outs.data[0]->type, n);
  x.elements = ir_macs(n);
  double share = best_share(&m->products, &x, true);
  return share >= 0 ? share : plan_share(m, n->outs.data[0]);
}
