/* remake.c: gradients that are never stored.
 *
 * A gradient is read twice: for the norm over all gradients, and by the update
 * of its parameter, which waits for that norm, since a step whose norm is not
 * finite must change nothing. In between all gradients are in memory. Where one
 * is a product of little depth, it takes less time to compute it behind its
 * update alone, where `fuse` makes one launch of both. Its sum of squares is
 * had without it: by pairs of rows where there are few.
 *
 * Method: where a contraction leads to results of the entry by elementwise
 * nodes, and all else that reads it leads to whole sums, some of which those
 * nodes wait for, sums of its squares become `square_sum`. If it leads to other
 * sums as well, it is computed again instead for the nodes that lead to
 * results. Time is compared by a table of what a machine does in a second.
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
 *   %norm = square_sum %x, %d {map="nrd,nrh->ndh"} : f32[]
 *   ...
 *   %step = mul %g, %rate : f32[256, 512, 1024]
 *
 * and with `abs` in place of `mul %g, %g`
 *
 *   %g = contract %x, %d {map="nrd,nrh->ndh"} : f32[256, 512, 1024]
 *   %s = abs %g : f32[256, 512, 1024]
 *   %norm = reduce_sum %s {map="ndh->"} : f32[]
 *   ...
 *   %g.1 = contract %x, %d {map="nrd,nrh->ndh"} : f32[256, 512, 1024]
 *   %step = mul %g.1, %rate : f32[256, 512, 1024]
 *
 * The sum of the squares of any other product becomes a `square_sum` where that
 * takes less time than reading it. A target whose memory is fast enough has
 * neither. */
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
  TRIPS = 2,        /* to memory past the caches, from there to the update */
  BAND = 32         /* rows by which pairs are worked off */
};

static double bytes_of(const Node *n) {
  return (double)type_bytes(&n->outs.data[0]->type);
}

/* Seconds for so many multiply-adds of such a product. */
static double seconds_of(const Node *n, double macs) {
  return 2 * macs / flop_rate[n->ins.data[0]->type.dtype];
}

static double product_seconds(const Node *n) {
  return seconds_of(n, (double)ir_macs(n));
}

/* The same for the sum of its squares; all groups are taken to have as many
 * rows. Each row is packed, and read again, for few multiply-adds. */
static double square_seconds(const Node *n) {
  CtProduct p;
  double all = product_seconds(n);
  if (!ir_product(n, &p)) return all;
  double groups = (double)p.batch.size;
  double rows = p.groups ? (double)p.rows / groups : (double)p.k.size;
  if (rows > (double)ir_product_pairs(&p)) return all;
  double sides = (double)(p.m.size + p.n.size);
  double macs = groups * rows * (rows + BAND) / 2 * sides;
  double bytes = groups * rows * sides * dtype_info[p.dtype].bytes;
  double pairs = seconds_of(n, macs) + 2 * bytes / byte_rate;
  return pairs < all ? pairs : all;
}

/* Whether so many seconds more are less than the product's way, in `trips`, to
 * or from memory. */
static bool is_worth_it(const Node *n, double seconds, int trips) {
  return bytes_of(n) >= CACHED && flop_rate[n->ins.data[0]->type.dtype] > 0 &&
         seconds <= trips * bytes_of(n) / byte_rate;
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

/* ---- sums of squares ----------------------------------------------------- */

static bool is_square(const Node *n, const Value *v) {
  return n->op == OP_mul && n->ins.data[0] == v && n->ins.data[1] == v;
}

/* Whether `n` is the sum of the squares of `v`. */
static bool sums_squares(const Node *n, const Value *v) {
  const Node *square = is_whole_sum(n) ? n->ins.data[0]->def : NULL;
  return square && is_square(square, v);
}

/* Whether all sums that the product leads to are of its squares. */
static bool leads_to_squares(const Cone *c, const Value *v) {
  for (uint32_t i = 0; i < c->nodes.len; i++) {
    const Node *n = c->nodes.data[i];
    if ((leads(c, n->outs.data[0]) & TO_SUM) && !is_square(n, v)) return false;
  }
  return true;
}

/* Makes each sum of the product's squares one without it; true: some were. */
static bool square_sums(Remake *r, Node *product) {
  NodeVec out = {0};
  Value *v = product->outs.data[0];
  bool any = false;
  for (uint32_t i = 0; i < r->region->nodes.len; i++) {
    Node *n = r->region->nodes.data[i];
    if (!sums_squares(n, v)) {
      vec_push(&r->cx->perm, &out, n);
      continue;
    }
    Builder b = ir_builder_like(r->cx, r->region, &out, n);
    Node *sum = ir_node(&b, OP_square_sum, NULL, product->ins.data,
                        product->ins.len, "map", attr_sym(product, "map"),
                        NULL);
    sum->outs.data[0]->name = n->outs.data[0]->name;
    ir_replace(n->outs.data[0], sum->outs.data[0]);
    pass_tally(r->options, "squares summed without their product");
    any = true;
  }
  r->region->nodes = out;
  return any;
}

/* Whether the product is better computed behind its update alone; makes it so.
 */
static bool moved_to_update(Remake *r, Node *n) {
  if (!fuse_is_product(n)) return false;
  Cone c = cone_of(r, n);
  Value *v = n->outs.data[0];
  if (leads(&c, v) != (TO_SUM | TO_RESULT) || !waits_for_sum(r, &c))
    return false;
  bool squares = leads_to_squares(&c, v);
  double seconds = squares ? square_seconds(n) : product_seconds(n);
  if (!is_worth_it(n, seconds, TRIPS)) return false;
  if (squares) return square_sums(r, n);
  remake(r, n, &c);
  return true;
}

/* Products of a library are stored, and read for their squares. */
static bool summed_apart(Remake *r, Node *n) {
  CtProduct p;
  return ir_product(n, &p) && !fuse_is_product(n) &&
         is_worth_it(n, square_seconds(n), 1) && square_sums(r, n);
}

static bool run_once(Remake *r) {
  study(r);
  for (uint32_t i = 0; i < r->region->nodes.len; i++) {
    Node *n = r->region->nodes.data[i];
    if (n->op == OP_contract && (moved_to_update(r, n) || summed_apart(r, n)))
      return true;
  }
  return false;
}

bool pass_remake(Module *m, const PassOptions *o) {
  if (!target_facts[o->target].remakes) return pass_same(o);
  bool any = false;
  for (uint32_t i = 0; o->opt_level && i < m->entries.len; i++) {
    bool again = true;
    while (again) {
      Remake r = {.cx = m->cx,
                  .a = &m->cx->scratch,
                  .options = o,
                  .region = m->entries.data[i]->region};
      again = run_once(&r);
      if (again) ir_sweep(m->entries.data[i]);
      any |= again;
    }
  }
  return any || pass_same(o);
}
