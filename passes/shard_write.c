/* shard_write.c: writes what shard.c found into the module: a placement on each
 * value and slot, a `reshard` before what wants an operand elsewhere. Readers
 * that want a value at the same place share one; a constant is made again. */
#include "pass.h"

#include <string.h>

/* Nodes to be put before one node, or at the end of a region. */
typedef struct Inserted {
  NodeVec nodes;
} Inserted;

typedef struct Writer {
  Shard *s;
  Map before; /* node or region -> Inserted */
} Writer;

/* ---- reshards ------------------------------------------------------------ */

static ShardMove *find_move(Shard *s, const Value *v, const Placement *to) {
  for (uint32_t i = s->moves.len; i-- > 0;) {
    ShardMove *m = &s->moves.data[i];
    if (m->from == v && placement_equal(&m->to->placement, to)) return m;
  }
  return NULL;
}

static Inserted *place_before(Writer *w, const void *key) {
  Inserted *at = map_get(&w->before, key);
  if (at) return at;
  at = NEW(w->s->a, Inserted);
  map_put(w->s->a, &w->before, key, at);
  return at;
}

/* Of numbers: rows that are all the same still have their ids, and ids that are
 * all the same say whose they are. */
static bool is_const(const Value *v) {
  return v->def && v->def->op == OP_const && !type_is_ragged(&v->type) &&
         dtype_info[v->type.dtype].kind == DK_FLOAT;
}

/* The value at another place. A constant is made there, which takes nothing.
 * The span and layer are those of what makes the value, so that a report says
 * of which tensor it is; of a parameter those of its reader. */
static Value *make_there(Writer *w, const ShardEnd *e, const ShardUnit *u,
                         const Placement *to) {
  const void *key = e->before ? (const void *)e->before : e->region;
  Inserted *at = place_before(w, key);
  const Node *like = e->v->def ? e->v->def : u->n;
  Builder b = ir_builder(w->s->cx, e->region);
  if (like) b = ir_builder_like(w->s->cx, e->region, NULL, like);
  b.out = &at->nodes;
  b.remat = 0;
  if (e->before) b.backward = e->before->backward;
  Value *v = is_const(e->v)
                 ? ir_const_like(&b, e->v, attr_float(e->v->def, "value"))
                 : ir_unary(&b, OP_reshard, e->v);
  v->placement = *to;
  v->name = e->v->name;
  return v;
}

static void move_operand(Writer *w, const ShardUnit *u, uint32_t i) {
  const ShardEnd *e = &u->ins.data[i];
  Placement from = shard_now(w->s, e->v), to = shard_wanted(u, i);
  if (!to.partial) to.kind = PARTIAL_SUM;
  if (placement_equal(&from, &to)) return;
  if (is_const(e->v)) {
    *e->use = make_there(w, e, u, &to);
    return;
  }
  ShardMove *old = find_move(w->s, e->v, &to);
  if (!old) {
    ShardMove new = {.from = e->v,
                     .to = make_there(w, e, u, &to),
                     .move = reshard_move(w->s->m, &e->v->type, &from, &to),
                     .times = shard_times(e->region),
                     .reader = u};
    vec_push(w->s->a, &w->s->moves, new);
    old = &w->s->moves.data[w->s->moves.len - 1];
    pass_tally(w->s->o, "reshard");
  }
  old->n_readers++;
  *e->use = old->to;
}

/* ---- regions ------------------------------------------------------------- */

static void add_all(Ctx *cx, NodeVec *to, const NodeVec *from) {
  for (uint32_t i = 0; i < from->len; i++)
    vec_push(&cx->perm, to, from->data[i]);
}

static void insert(Writer *w, Region *r) {
  Ctx *cx = w->s->cx;
  NodeVec nodes = {0};
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    if (n->body) insert(w, n->body);
    Inserted *before = map_get(&w->before, n);
    if (before) add_all(cx, &nodes, &before->nodes);
    vec_push(&cx->perm, &nodes, n);
    if (n->op == OP_annotate) ir_replace(n->outs.data[0], n->ins.data[0]);
  }
  Inserted *last = map_get(&w->before, r);
  if (last) add_all(cx, &nodes, &last->nodes);
  r->nodes = nodes;
}

/* ---- all of it ----------------------------------------------------------- */

static void place_values(Shard *s) {
  for (uint32_t i = 0; i < s->units.len; i++) {
    ShardUnit *u = s->units.data[i];
    for (uint32_t k = 0; k < u->outs.len; k++)
      u->outs.data[k].v->placement = shard_made(u, k);
    if (!u->slot) continue;
    u->slot->placement = (Placement){0};
    for (int d = 0; d < u->slot->type.rank; d++)
      u->slot->placement.dims[d] = u->factors[d].axes;
  }
}

/* What nodes read, in program order, or what regions yield. */
static void move_operands(Writer *w, bool yields) {
  for (uint32_t i = 0; i < w->s->units.len; i++) {
    const ShardUnit *u = w->s->units.data[i];
    for (uint32_t k = 0; k < u->ins.len; k++)
      if (yields == !u->ins.data[k].before) move_operand(w, u, k);
  }
}

/* The first reader makes a reshard that later ones share: a region's end, which
 * a slot's unit may know before its nodes' units are there, comes last. */
void shard_write(Shard *s) {
  Writer w = {.s = s};
  move_operands(&w, false);
  move_operands(&w, true);
  place_values(s);
  for (uint32_t i = 0; i < s->m->entries.len; i++) {
    insert(&w, s->m->entries.data[i]->region);
    ir_sweep(s->m->entries.data[i]);
  }
}
