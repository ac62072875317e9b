/* overlap.c: work behind exchanges, for schedule.c.
 *
 * First every exchange gets a wait, which its readers read. Then an order is
 * made from one that is there, on two clocks, one of computing and one of the
 * exchanges, which go one after the other: an exchange begins as soon as its
 * operands are there, and what only exchanges need is computed first, the
 * nearest to one before others; a node that reads what is still on its way is
 * passed over for later ones until it has come; a wait stands right before the
 * first node that needs it. How many nodes further on in the old order one may
 * look is `reach`: what is begun early and what is computed meanwhile takes
 * memory, so schedule.c tries less where the peak grows. Costs are guesses, in
 * microseconds; only how much stands between the two depends on them.
 *
 *   %g = all_reduce %d               %g = all_reduce %d
 *   %u = fused %p, %g      becomes   %e = contract %x, %h
 *   %e = contract %x, %h             %g.1 = wait %g
 *                                    %u = fused %p, %g.1 */
#include "pass.h"

#include <string.h>

static const struct {
  double macs, bytes;       /* a microsecond of computing */
  double sent_bytes, begun; /* a microsecond of sending; microseconds each */
} guess = {5e4, 1e4, 2e3, 20};

/* ---- exchanges and their waits ------------------------------------------- */

static void replace_all(ValueVec *in, const Map *by) {
  for (uint32_t i = 0; i < in->len; i++) {
    Value *v = map_get(by, in->data[i]);
    if (v) in->data[i] = v;
  }
}

static void rename_all(Region *r, const Map *by) {
  for (uint32_t i = 0; i < r->nodes.len; i++)
    if (r->nodes.data[i]->op != OP_wait)
      replace_all(&r->nodes.data[i]->ins, by);
  replace_all(&r->results, by);
}

/* Takes out the waits for which `drop` holds, or all where it is NULL. */
static void drop_waits(Arena *a, Region *r,
                       bool (*drop)(const Region *r, uint32_t i)) {
  Map by = {0};
  NodeVec kept = {0};
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    if (n->op != OP_wait || (drop && !drop(r, i))) {
      vec_push(a, &kept, n);
      continue;
    }
    for (uint32_t k = 0; k < n->outs.len; k++)
      map_put(a, &by, n->outs.data[k], n->ins.data[k]);
  }
  if (kept.len == r->nodes.len) return;
  memcpy(r->nodes.data, kept.data, kept.len * sizeof *kept.data);
  r->nodes.len = kept.len;
  rename_all(r, &by);
}

static Node *new_wait(Ctx *cx, Region *r, Node *x) {
  NodeVec made = {0};
  TypeVec types = {0};
  Builder b = ir_builder_like(cx, r, &made, x);
  for (uint32_t i = 0; i < x->outs.len; i++)
    vec_push(&cx->scratch, &types, x->outs.data[i]->type);
  Node *wait = ir_node_raw(&b, OP_wait, x->outs.data, x->outs.len, NULL,
                           types.data, types.len);
  for (uint32_t i = 0; i < x->outs.len; i++)
    wait->outs.data[i]->name = x->outs.data[i]->name;
  return wait;
}

void overlap_begin(Ctx *cx, Region *r) {
  Map by = {0};
  NodeVec all = {0};
  drop_waits(&cx->scratch, r, NULL);
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    vec_push(&cx->perm, &all, n);
    if (!ir_is_exchange(n)) continue;
    Node *wait = new_wait(cx, r, n);
    vec_push(&cx->perm, &all, wait);
    for (uint32_t k = 0; k < n->outs.len; k++)
      map_put(&cx->scratch, &by, n->outs.data[k], wait->outs.data[k]);
  }
  if (all.len == r->nodes.len) return;
  rename_all(r, &by);
  r->nodes = all;
}

static bool is_at_once(const Region *r, uint32_t i) {
  return r->nodes.data[i - 1] == ir_waited(r->nodes.data[i]);
}

void overlap_end(Arena *a, Region *r) {
  drop_waits(a, r, is_at_once);
}

/* ---- what takes how long ------------------------------------------------- */

static double cost_of(const Node *n);

static double cost_of_body(const Region *r) {
  double sum = 0;
  for (uint32_t i = 0; i < r->nodes.len; i++)
    sum += cost_of(r->nodes.data[i]);
  return sum;
}

/* Microseconds of computing. */
static double cost_of(const Node *n) {
  if (n->op == OP_scan)
    return ir_usual_turns(n) * cost_of_body(n->body);
  if (n->op == OP_reshape || n->op == OP_wait) return 0;
  double products = ir_usual_macs(n) / guess.macs;
  double memory = ir_usual_bytes(n) / guess.bytes;
  return products > memory ? products : memory;
}

static double exchange_cost(const Node *n) {
  return guess.begun + (double)ir_comm_bytes(n, 0) / guess.sent_bytes;
}

/* ---- the order ----------------------------------------------------------- */

/* Whether others than exchanges need what a node makes, or what is made of it;
 * and how much is still to be computed before the first exchange can begin. */
typedef struct Feed {
  bool kept;
  double near;
} Feed;

typedef struct Walk {
  Arena *a;
  const NodeVec *from;
  Map done;         /* nodes */
  Map feeds;        /* Node -> Feed */
  Map arrival;      /* exchanges begun -> double, when they will be there */
  uint32_t first;   /* all before it are done */
  double now, sent; /* the two clocks */
  NodeVec out;
} Walk;

static bool is_done(const Walk *w, const Node *n) {
  return map_get(&w->done, n) != NULL;
}

static void emit(Walk *w, Node *n) {
  for (uint32_t i = 0; i < n->ins.len; i++) {
    Node *def = n->ins.data[i]->def;
    if (def && def->op == OP_wait && !is_done(w, def)) emit(w, def);
  }
  map_put(w->a, &w->done, n, n);
  vec_push(w->a, &w->out, n);
  if (!ir_is_exchange(n)) {
    w->now += cost_of(n);
    return;
  }
  double *there = NEW(w->a, double);
  if (w->sent < w->now) w->sent = w->now;
  w->sent += exchange_cost(n);
  *there = w->sent;
  map_put(w->a, &w->arrival, n, there);
}

/* When all operands of `n` will be there, now or later; below 0 where some are
 * not under way. */
static double time_of(const Walk *w, const Node *n) {
  double latest = 0;
  for (uint32_t i = 0; i < n->ins.len; i++) {
    const Node *def = n->ins.data[i]->def;
    if (!def || is_done(w, def)) continue;
    const double *there =
        def->op == OP_wait ? map_get(&w->arrival, ir_waited(def)) : NULL;
    if (!there) return -1;
    if (*there > latest) latest = *there;
  }
  return latest;
}

/* The note on a node that has readers or is a result. */
static Feed *feed_of(Walk *w, const Node *n) {
  Feed *f = map_get(&w->feeds, n);
  if (f) return f;
  f = NEW(w->a, Feed);
  *f = (Feed){.near = 1e300};
  map_put(w->a, &w->feeds, n, f);
  return f;
}

static void find_feeders(Walk *w, const Region *r) {
  for (uint32_t i = 0; i < r->results.len; i++) {
    const Node *def = r->results.data[i]->def;
    if (def) feed_of(w, def)->kept = true;
  }
  for (uint32_t i = w->from->len; i-- > 0;) {
    const Node *n = w->from->data[i];
    const Feed *own = map_get(&w->feeds, n);
    bool sends = ir_is_exchange(n), feeds = sends || (own && !own->kept);
    double near = sends ? 0 : feeds ? own->near + cost_of(n) : 1e300;
    for (uint32_t k = 0; k < n->ins.len; k++) {
      if (!n->ins.data[k]->def) continue;
      Feed *f = feed_of(w, n->ins.data[k]->def);
      f->kept = f->kept || !feeds;
      if (near < f->near) f->near = near;
    }
  }
}

/* A choice between nodes: the smallest first, of equal ones the first. */
typedef struct Best {
  Node *n;
  double x;
} Best;

static void offer(Best *b, Node *n, double x) {
  if (!b->n || x < b->x) *b = (Best){n, x};
}

/* The next node: an exchange that can begin; or of what only exchanges need
 * the node nearest to one; or the first that need not wait; or the one that
 * need not wait long. Waits come with their readers. */
static Node *choose(Walk *w, uint32_t reach) {
  Best feeder = {0}, other = {0};
  uint32_t seen = 0;
  for (uint32_t i = w->first; i < w->from->len && seen <= reach; i++) {
    Node *n = w->from->data[i];
    if (n->op == OP_wait || is_done(w, n)) continue;
    seen++;
    double time = time_of(w, n);
    const Feed *f = map_get(&w->feeds, n);
    if (time < 0) continue;
    if (time <= w->now && ir_is_exchange(n)) return n;
    if (time <= w->now && f && !f->kept) offer(&feeder, n, f->near);
    offer(&other, n, time > w->now ? time : w->now);
  }
  if (feeder.n) return feeder.n;
  if (other.n && other.x > w->now) w->now = other.x;
  return other.n;
}

/* What nobody reads is waited for at the end. */
NodeVec overlap_order(Arena *a, const Region *r, uint32_t reach) {
  const NodeVec *from = &r->nodes;
  Walk w = {.a = a, .from = from};
  find_feeders(&w, r);
  for (;;) {
    while (w.first < from->len && (from->data[w.first]->op == OP_wait ||
                                   is_done(&w, from->data[w.first])))
      w.first++;
    Node *n = choose(&w, reach);
    if (!n) break;
    emit(&w, n);
  }
  for (uint32_t i = 0; i < from->len; i++)
    if (!is_done(&w, from->data[i])) emit(&w, from->data[i]);
  assert(w.out.len == from->len);
  return w.out;
}
