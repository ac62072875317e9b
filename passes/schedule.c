/* schedule.c: orders the nodes of each region for a small peak of the arena,
 * and puts work behind exchanges between ranks.
 *
 * Values are pure, so any order with definitions before uses is right. Three
 * orders are tried beside the one that is there, and the smallest predicted
 * peak wins, the text's own order on a tie:
 *   late   nodes that only add to what is alive (constants, recomputed values)
 *          wait until something needs them
 *   eager  in text order, but a node that frees more than it takes goes first
 *   both   eager on top of late
 * Where there are exchanges, the order so found is changed by overlap.c, which
 * begins them early and waits for them late; it looks as far ahead as makes the
 * peak grow by no more than a small part.
 *
 * The prediction counts bytes alive after each node, as plan will place them:
 * slots, inputs and what is written straight into slots and reports are not in
 * the arena, a reshape takes nothing, what an exchange reads is kept until the
 * wait for it, and a sum over ranks may take the place of its operand.
 *
 *   %a = const ...                        %x = fused %p
 *   %x = fused %p            becomes      %a = const ...
 *   %y = fused %x, %a                     %y = fused %x, %a */
#include "pass.h"

#include <string.h>

/* A region's nodes and values as dense numbers. */
typedef struct Sched {
  Arena *a;
  Region *r;
  Map node_of;     /* Node -> number + 1 */
  int64_t *inside; /* by node: peak within a scan's body */
  int64_t *bytes;  /* by value id: bytes in the arena, 0 for none */
  uint32_t *root;  /* by value id: whose bytes it shares */
  uint32_t *uses;  /* by root: readers, region results as one more */
  uint32_t n_values;
} Sched;

static int64_t peak_of_region(Arena *a, Region *r, uint32_t n_values);

static uint32_t number_of(const Sched *s, const Node *n) {
  return (uint32_t)(uintptr_t)map_get(&s->node_of, n) - 1;
}

static bool is_slot_result(const Region *r, const Value *v) {
  if (r->owner) return false; /* of a scan: it has a buffer outside */
  for (uint32_t i = 0; i < r->results.len; i++)
    if (r->results.data[i] == v) return v->def && v->def->op != OP_scan;
  return false;
}

/* The distinct roots that a node reads; returns how many. */
static uint32_t add_roots(const Sched *s, const Node *n, uint32_t *out,
                          uint32_t len) {
  for (uint32_t i = 0; i < n->ins.len; i++) {
    uint32_t root = s->root[n->ins.data[i]->id], k = 0;
    while (k < len && out[k] != root)
      k++;
    if (k == len) out[len++] = root;
  }
  return len;
}

static uint32_t roots_read(const Sched *s, const Node *n, uint32_t *out) {
  uint32_t len = add_roots(s, n, out, 0);
  return n->op == OP_wait ? add_roots(s, ir_waited(n), out, len) : len;
}

enum { MAX_OPERANDS = 4096 };

static void count_uses(Sched *s) {
  uint32_t roots[MAX_OPERANDS];
  for (uint32_t i = 0; i < s->r->nodes.len; i++) {
    const Node *n = s->r->nodes.data[i];
    assert(n->ins.len <= MAX_OPERANDS / 2);
    uint32_t len = roots_read(s, n, roots);
    for (uint32_t k = 0; k < len; k++)
      s->uses[roots[k]]++;
  }
  for (uint32_t i = 0; i < s->r->results.len; i++)
    s->uses[s->root[s->r->results.data[i]->id]]++;
}

/* The value that result j of `n` shares its bytes with: itself for none. Of a
 * sum over ranks its operand, which nothing else reads. */
static const Value *shares(const Node *n, uint32_t j, const uint32_t *readers) {
  const Value *v = n->outs.data[j];
  if (n->op == OP_wait) return n->ins.data[j];
  if (n->op == OP_reshape) return n->ins.data[0];
  if (n->op != OP_all_reduce) return v;
  const Value *in = n->ins.data[j];
  bool own = in->def && in->def->op != OP_reshape && in->def->op != OP_wait;
  return own && readers[in->id] == 1 ? in : v;
}

static uint32_t *count_readers(Arena *a, const Region *r, uint32_t n_values) {
  uint32_t *readers = NEW_ARRAY(a, uint32_t, n_values);
  for (uint32_t i = 0; i < r->nodes.len; i++)
    for (uint32_t k = 0; k < r->nodes.data[i]->ins.len; k++)
      readers[r->nodes.data[i]->ins.data[k]->id]++;
  for (uint32_t i = 0; i < r->results.len; i++)
    readers[r->results.data[i]->id]++;
  return readers;
}

static Sched sched_new(Arena *a, Region *r, uint32_t n_values) {
  Sched s = {.a = a, .r = r, .n_values = n_values};
  s.inside = NEW_ARRAY(a, int64_t, r->nodes.len + 1);
  s.bytes = NEW_ARRAY(a, int64_t, n_values);
  s.root = NEW_ARRAY(a, uint32_t, n_values);
  s.uses = NEW_ARRAY(a, uint32_t, n_values);
  uint32_t *readers = count_readers(a, r, n_values);
  for (uint32_t i = 0; i < n_values; i++)
    s.root[i] = i;
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    map_put(a, &s.node_of, n, (void *)(uintptr_t)(i + 1));
    if (n->op == OP_scan) s.inside[i] = peak_of_region(a, n->body, n_values);
    for (uint32_t j = 0; j < n->outs.len; j++) {
      const Value *v = n->outs.data[j], *from = shares(n, j, readers);
      if (from != v)
        s.root[v->id] = s.root[from->id];
      else if (!is_slot_result(r, v))
        s.bytes[v->id] = type_bytes(&v->type);
    }
  }
  count_uses(&s);
  return s;
}

/* ---- predicting --------------------------------------------------------- */

/* Bytes that come to life with a node, and that die after it. */
static int64_t bytes_made(const Sched *s, const Node *n) {
  int64_t sum = 0;
  for (uint32_t j = 0; j < n->outs.len; j++)
    sum += s->bytes[n->outs.data[j]->id];
  return sum;
}

static int64_t bytes_freed(const Sched *s, const Node *n,
                           const uint32_t *left) {
  uint32_t roots[MAX_OPERANDS];
  uint32_t len = roots_read(s, n, roots);
  int64_t sum = 0;
  for (uint32_t k = 0; k < len; k++)
    if (left[roots[k]] == 1) sum += s->bytes[roots[k]];
  for (uint32_t j = 0; j < n->outs.len; j++)
    if (!s->uses[n->outs.data[j]->id]) sum += s->bytes[n->outs.data[j]->id];
  return sum;
}

static void run_node(const Sched *s, const Node *n, uint32_t *left) {
  uint32_t roots[MAX_OPERANDS];
  uint32_t len = roots_read(s, n, roots);
  for (uint32_t k = 0; k < len; k++)
    left[roots[k]]--;
}

static uint32_t *all_uses(const Sched *s) {
  return arena_copy(s->a, s->uses, s->n_values * sizeof *s->uses);
}

static int64_t peak_of(const Sched *s, const NodeVec *order) {
  uint32_t *left = all_uses(s);
  int64_t alive = 0, peak = 0;
  for (uint32_t i = 0; i < order->len; i++) {
    const Node *n = order->data[i];
    alive += bytes_made(s, n);
    int64_t now = alive + s->inside[number_of(s, n)];
    if (now > peak) peak = now;
    alive -= bytes_freed(s, n, left);
    run_node(s, n, left);
  }
  return peak;
}

static int64_t peak_of_region(Arena *a, Region *r, uint32_t n_values) {
  Sched s = sched_new(a, r, n_values);
  return peak_of(&s, &r->nodes);
}

/* ---- orders ------------------------------------------------------------- */

static void emit_late(Sched *s, Node *n, bool *done, NodeVec *out) {
  if (done[number_of(s, n)]) return;
  done[number_of(s, n)] = true;
  for (uint32_t i = 0; i < n->ins.len; i++)
    if (n->ins.data[i]->def) emit_late(s, n->ins.data[i]->def, done, out);
  vec_push(s->a, out, n);
}

/* Whether a node reads nothing that lives in the arena, or was cloned to be
 * computed late. */
static bool can_wait(const Sched *s, const Node *n) {
  if (n->remat && n->backward) return true;
  for (uint32_t i = 0; i < n->ins.len; i++)
    if (s->bytes[s->root[n->ins.data[i]->id]]) return false;
  return bytes_made(s, n) > 0;
}

static NodeVec late_order(Sched *s, const NodeVec *from) {
  NodeVec out = {0};
  bool *done = NEW_ARRAY(s->a, bool, from->len + 1);
  for (uint32_t i = 0; i < from->len; i++)
    if (!can_wait(s, from->data[i])) emit_late(s, from->data[i], done, &out);
  for (uint32_t i = 0; i < from->len; i++)
    emit_late(s, from->data[i], done, &out);
  return out;
}

static bool is_ready(const Sched *s, const Node *n, const bool *done) {
  for (uint32_t i = 0; i < n->ins.len; i++) {
    const Node *def = n->ins.data[i]->def;
    if (def && !done[number_of(s, def)]) return false;
  }
  return true;
}

/* The node to go next: the one that frees most on balance, if any does, else
 * the first in order. All of a region's nodes within `reach` are looked at. */
static uint32_t choose(const Sched *s, const NodeVec *from, const bool *done,
                       const uint32_t *left, uint32_t first) {
  enum { REACH = 256 };
  uint32_t best = first, seen = 0;
  int64_t best_gain = 0;
  for (uint32_t i = first; i < from->len && seen < REACH; i++) {
    const Node *n = from->data[i];
    if (done[number_of(s, n)]) continue;
    seen++;
    if (!is_ready(s, n, done)) continue;
    int64_t gain = bytes_freed(s, n, left) - bytes_made(s, n);
    if (gain > best_gain) {
      best = i;
      best_gain = gain;
    }
  }
  return best;
}

static NodeVec eager_order(Sched *s, const NodeVec *from) {
  NodeVec out = {0};
  bool *done = NEW_ARRAY(s->a, bool, from->len + 1);
  uint32_t *left = all_uses(s);
  uint32_t first = 0;
  while (out.len < from->len) {
    while (done[number_of(s, from->data[first])])
      first++;
    Node *n = from->data[choose(s, from, done, left, first)];
    done[number_of(s, n)] = true;
    run_node(s, n, left);
    vec_push(s->a, &out, n);
  }
  return out;
}

/* ---- exchanges ----------------------------------------------------------- */

/* How many nodes overlap.c may look ahead: the first that keeps the peak below
 * what it is without, and this part of it. */
static const uint32_t reaches[] = {1024, 256, 64, 16, 4, 0};
static const double more_peak = 0.05;

static void put_behind_exchanges(Sched *s, int64_t peak) {
  double most = (double)peak * (1 + more_peak);
  for (size_t i = 0; i < COUNT_OF(reaches); i++) {
    NodeVec order = overlap_order(s->a, s->r, reaches[i]);
    if ((double)peak_of(s, &order) > most) continue;
    memcpy(s->r->nodes.data, order.data, order.len * sizeof *order.data);
    return;
  }
}

/* ---- the pass ----------------------------------------------------------- */

static void begin_waits(Ctx *cx, Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++)
    if (r->nodes.data[i]->op == OP_scan)
      begin_waits(cx, r->nodes.data[i]->body);
  overlap_begin(cx, r);
}

static bool has_wait(const Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++)
    if (r->nodes.data[i]->op == OP_wait) return true;
  return false;
}

static void schedule_region(Arena *a, Region *r, uint32_t n_values) {
  for (uint32_t i = 0; i < r->nodes.len; i++)
    if (r->nodes.data[i]->op == OP_scan)
      schedule_region(a, r->nodes.data[i]->body, n_values);
  Sched s = sched_new(a, r, n_values);
  NodeVec orders[3];
  orders[0] = late_order(&s, &r->nodes);
  orders[1] = eager_order(&s, &r->nodes);
  orders[2] = eager_order(&s, &orders[0]);
  int64_t best = peak_of(&s, &r->nodes);
  NodeVec *choice = NULL;
  for (size_t i = 0; i < COUNT_OF(orders); i++) {
    int64_t peak = peak_of(&s, &orders[i]);
    if (peak < best) {
      best = peak;
      choice = &orders[i];
    }
  }
  if (choice)
    memcpy(r->nodes.data, choice->data, choice->len * sizeof *choice->data);
  if (!has_wait(r)) return;
  put_behind_exchanges(&s, best);
  overlap_end(a, r);
}

bool pass_schedule(Module *m, const PassOptions *o) {
  (void)o;
  for (uint32_t i = 0; i < m->entries.len; i++) {
    Entry *e = m->entries.data[i];
    begin_waits(m->cx, e->region);
    schedule_region(&m->cx->scratch, e->region, ir_number(e));
  }
  return true;
}
