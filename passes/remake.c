/* remake.c: gradients that are never stored.
 *
 * A gradient is read twice: for the norm over all gradients, and by the update
 * of its parameter, which waits for that norm, since a step whose norm is not
 * finite must change nothing. In between all gradients are in memory. Where one
 * is a product of little depth, it takes less time to compute it twice than to
 * write and read it: once behind its sum of squares, once behind its update,
 * each of which `fuse` then makes one launch with the product.
 *
 * Method: a contraction is computed again for the elementwise nodes that lead
 * from it to results of the entry alone, if all else that reads it leads to
 * whole sums, some of which those nodes wait for. Time is compared by a table
 * of what a machine does in a second.
 *
 *   %g = contract %x, %d {map="nrd,nrh->ndh"} : f32[256, 512, 1024]
 *   %s = mul %g, %g : f32[256, 512, 1024]
 *   %norm = reduce_sum %s {map="ndh->"} : f32[]
 *   ...
 *   %step = mul %g, %rate : f32[256, 512, 1024]
 *
 * becomes
 *
 *   %g = contract %x, %d {map="nrd,nrh->ndh"} : f32[256, 512, 1024]
 *   %s = mul %g, %g : f32[256, 512, 1024]
 *   %norm = reduce_sum %s {map="ndh->"} : f32[]
 *   ...
 *   %g.1 = contract %x, %d {map="nrd,nrh->ndh"} : f32[256, 512, 1024]
 *   %step = mul %g.1, %rate : f32[256, 512, 1024]
 */
#include "pass.h"

/* ---- what a machine does in a second ------------------------------------- */

/* One with four cores, vectors of 512 bits and tiles, as measured: operations
 * of generated products by dtype of their operands, and bytes moved. Only
 * ratios are of interest. 0: never computed again. */
static const double flop_rate[DTYPE_COUNT] = {
    [DT_f64] = 250e9, [DT_f32] = 500e9, [DT_bf16] = 2000e9};
static const double byte_rate = 80e9;

enum {
  CACHED = 1 << 20, /* bytes: what is smaller may not reach memory at all */
  TRIPS = 3         /* a store reads its line and writes it; the update reads */
};

static bool is_worth_it(const Node *n) {
  double bytes = (double)type_bytes(&n->outs.data[0]->type);
  double rate = flop_rate[n->ins.data[0]->type.dtype];
  return bytes >= CACHED && rate > 0 &&
         2 * (double)ir_macs(n) / rate <= TRIPS * bytes / byte_rate;
}

/* ---- who reads the product ----------------------------------------------- */

typedef struct Remake {
  Ctx *cx;
  Arena *a;
  const PassOptions *options;
  Region *region;
  Map users;    /* Value -> NodeVec */
  Map returned; /* values that the entry returns */
} Remake;

/* Where a value's readers lead. */
enum { TO_SUM = 1, TO_RESULT = 2, ELSEWHERE = 4 };

/* The elementwise nodes that a product leads to, in order. */
typedef struct Cone {
  NodeVec nodes;
  Map leads; /* Value -> where to, as a number */
} Cone;

static void study(Remake *r) {
  for (uint32_t i = 0; i < r->region->nodes.len; i++) {
    Node *n = r->region->nodes.data[i];
    for (uint32_t j = 0; j < n->ins.len; j++) {
      NodeVec *users = map_get(&r->users, n->ins.data[j]);
      if (!users) {
        users = NEW(r->a, NodeVec);
        map_put(r->a, &r->users, n->ins.data[j], users);
      }
      vec_push(r->a, users, n);
    }
  }
  for (uint32_t i = 0; i < r->region->results.len; i++)
    map_put(r->a, &r->returned, r->region->results.data[i], r);
}

static bool is_whole_sum(const Node *n) {
  return n->op == OP_reduce_sum && n->outs.data[0]->type.rank == 0;
}

static bool reads(const Node *n, const Map *values) {
  for (uint32_t i = 0; i < n->ins.len; i++)
    if (map_get(values, n->ins.data[i])) return true;
  return false;
}

static uintptr_t leads(const Cone *c, const Value *v) {
  return (uintptr_t)map_get(&c->leads, v);
}

static void note_leads(Remake *r, Cone *c, const Value *v, const Map *inside) {
  uintptr_t to = map_get(&r->returned, v) ? TO_RESULT : 0;
  const NodeVec *users = map_get(&r->users, v);
  for (uint32_t i = 0; users && i < users->len; i++) {
    const Node *n = users->data[i];
    if (map_get(inside, n->outs.data[0]))
      to |= leads(c, n->outs.data[0]);
    else
      to |= is_whole_sum(n) ? TO_SUM : ELSEWHERE;
  }
  map_put(r->a, &c->leads, v, (void *)to);
}

static Cone cone_of(Remake *r, const Node *product) {
  Cone c = {0};
  Map inside = {0};
  Value *g = product->outs.data[0];
  map_put(r->a, &inside, g, g);
  for (uint32_t i = 0; i < r->region->nodes.len; i++) {
    Node *n = r->region->nodes.data[i];
    if (!op_is(n->op, TRAIT_EW) || !reads(n, &inside)) continue;
    map_put(r->a, &inside, n->outs.data[0], n);
    vec_push(r->a, &c.nodes, n);
  }
  for (uint32_t i = c.nodes.len; i-- > 0;)
    note_leads(r, &c, c.nodes.data[i]->outs.data[0], &inside);
  note_leads(r, &c, g, &inside);
  return c;
}

/* Whether what leads to results waits for a sum of the product itself. */
static bool waits_for_sum(Remake *r, const Cone *c) {
  Map after = {0}; /* values that depend on such a sum */
  for (uint32_t i = 0; i < r->region->nodes.len; i++) {
    const Node *n = r->region->nodes.data[i];
    bool sum = is_whole_sum(n) && leads(c, n->ins.data[0]);
    if (!sum && !reads(n, &after)) continue;
    if (leads(c, n->outs.data[0]) & TO_RESULT) return true;
    for (uint32_t j = 0; j < n->outs.len; j++)
      map_put(r->a, &after, n->outs.data[j], (void *)n);
  }
  return false;
}

/* ---- computing it again -------------------------------------------------- */

static void read_instead(Node *n, const Map *clones) {
  for (uint32_t i = 0; i < n->ins.len; i++) {
    Value *clone = map_get(clones, n->ins.data[i]);
    if (clone) n->ins.data[i] = clone;
  }
}

/* In front of the first node that leads to a result; what leads to sums as well
 * is cloned with the product. */
static void remake(Remake *r, Node *product, const Cone *c) {
  NodeVec out = {0};
  Map clones = {0}, update = {0};
  for (uint32_t i = 0; i < c->nodes.len; i++) {
    Node *n = c->nodes.data[i];
    if (leads(c, n->outs.data[0]) & TO_RESULT) map_put(r->a, &update, n, n);
  }
  bool made = false;
  for (uint32_t i = 0; i < r->region->nodes.len; i++) {
    Node *n = r->region->nodes.data[i];
    Builder b = ir_builder_like(r->cx, r->region, &out, n);
    if (!map_get(&update, n)) {
      vec_push(&r->cx->perm, &out, n);
      continue;
    }
    if (!made) ir_clone(&b, product, &clones);
    made = true;
    bool shared = leads(c, n->outs.data[0]) & TO_SUM;
    if (shared) {
      vec_push(&r->cx->perm, &out, n);
      ir_clone(&b, n, &clones);
    } else {
      read_instead(n, &clones);
      vec_push(&r->cx->perm, &out, n);
    }
  }
  r->region->nodes = out;
  pass_tally(r->options, "product computed again");
}

static bool run_once(Remake *r) {
  study(r);
  for (uint32_t i = 0; i < r->region->nodes.len; i++) {
    Node *n = r->region->nodes.data[i];
    if (!fuse_is_product(n) || !is_worth_it(n))
      continue;
    Cone c = cone_of(r, n);
    if (leads(&c, n->outs.data[0]) != (TO_SUM | TO_RESULT) ||
        !waits_for_sum(r, &c))
      continue;
    remake(r, n, &c);
    return true;
  }
  return false;
}

bool pass_remake(Module *m, const PassOptions *o) {
  for (uint32_t i = 0; o->opt_level && i < m->entries.len; i++) {
    bool again = true;
    while (again) {
      Remake r = {.cx = m->cx,
                  .a = &m->cx->scratch,
                  .options = o,
                  .region = m->entries.data[i]->region};
      again = run_once(&r);
    }
  }
  return true;
}
