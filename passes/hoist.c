/* hoist.c: moves what does not depend on the carry out of a scan.
 *
 * Goal: a recurrent cell multiplies its inputs by weights in every step; over
 * all steps at once that is one large contraction instead of many small ones,
 * and so is the weights' gradient. Method: three moves, each with `batch` as
 * the workhorse.
 *   Before the loop go ops on invariants alone, and contractions of scanned
 *   operands with invariants together with what feeds them; the loop scans
 *   over their stacked results.
 *   Behind it go sums over all iterations: a carry that only grows by
 *   contractions and sums becomes one contraction, with the time letter added
 *   to its map, of operands that the loop stacks (hoist_sink.c).
 *   Behind it go contractions with invariants that only feed stacked results.
 * Reference: Appleyard et al. 2016, Optimizing Performance of Recurrent Neural
 * Networks on GPUs, section 3, for the two contractions.
 *
 *   %ys = scan %xs, %w {carries=0, scanned=1, ...} (%t, %x, %wi) {
 *     %z = contract %x, %wi {map="bd,dn->bn"} : f32[64, 512]
 *     %y = tanh %z : f32[64, 512]
 *     yield %y
 *   } : f32[32, 64, 512]
 *
 * becomes
 *
 *   %zs = contract %xs, %w {map="abd,dn->abn"} : f32[32, 64, 512]
 *   %ys = scan %zs, %w {carries=0, scanned=1, ...} (%t, %z, %wi) {
 *     %y = tanh %z : f32[64, 512]
 *     yield %y
 *   } : f32[32, 64, 512]
 */
#include "pass.h"

/* ---- classes ----------------------------------------------------------- */

LoopClass hoist_class(const Hoist *h, const Value *v) {
  return (LoopClass)(uintptr_t)map_get(&h->classes, v);
}

static void set_class(Hoist *h, const Value *v, LoopClass class) {
  map_put(&h->cx->scratch, &h->classes, v, (void *)(uintptr_t) class);
}

static LoopClass class_of_node(const Hoist *h, const Node *n) {
  LoopClass class = CLASS_FIXED;
  bool *stacked = NEW_ARRAY(&h->cx->scratch, bool, n->ins.len + 1);
  for (uint32_t i = 0; i < n->ins.len; i++) {
    LoopClass in = hoist_class(h, n->ins.data[i]);
    stacked[i] = in == CLASS_INPUT;
    if (in > class) class = in;
  }
  return class == CLASS_INPUT && !batch_can(n, stacked) ? CLASS_CARRY : class;
}

static void classify(Hoist *h) {
  set_class(h, h->l.index, CLASS_INPUT);
  for (uint32_t i = 0; i < h->l.carries.len; i++)
    set_class(h, h->l.carries.data[i].param, CLASS_CARRY);
  for (uint32_t i = 0; i < h->l.scanned.len; i++)
    set_class(h, h->l.scanned.data[i].param, CLASS_INPUT);
  for (uint32_t i = 0; i < h->l.invariants.len; i++)
    set_class(h, h->l.invariants.data[i].param, CLASS_FIXED);
  for (uint32_t i = 0; i < h->body->nodes.len; i++) {
    const Node *n = h->body->nodes.data[i];
    LoopClass class = class_of_node(h, n);
    for (uint32_t k = 0; k < n->outs.len; k++)
      set_class(h, n->outs.data[k], class);
  }
}

static void count_use(Hoist *h, const Value *v) {
  uintptr_t n = (uintptr_t)map_get(&h->uses, v);
  map_put(&h->cx->scratch, &h->uses, v, (void *)(n + 1));
}

static void count_uses(Hoist *h) {
  for (uint32_t i = 0; i < h->body->nodes.len; i++) {
    const ValueVec *ins = &h->body->nodes.data[i]->ins;
    for (uint32_t k = 0; k < ins->len; k++)
      count_use(h, ins->data[k]);
  }
  for (uint32_t i = 0; i < h->body->results.len; i++)
    count_use(h, h->body->results.data[i]);
}

/* ---- a body's value outside -------------------------------------------- */

static Over remember(Hoist *h, Map *made, Value *v, Over o) {
  Over *kept = arena_copy(&h->cx->scratch, &o, sizeof o);
  map_put(&h->cx->scratch, made, v, kept);
  return o;
}

static Over outside_param(Hoist *h, Builder *b, Value *p) {
  if (p == h->l.index) {
    Type t = loop_stacked(p->type, h->l.length);
    return (Over){ir_iota(b, t, 0), true};
  }
  for (uint32_t i = 0; i < h->l.scanned.len; i++)
    if (h->l.scanned.data[i].param == p)
      return (Over){h->l.scanned.data[i].outer, true};
  for (uint32_t i = 0; i < h->l.invariants.len; i++)
    if (h->l.invariants.data[i].param == p)
      return (Over){h->l.invariants.data[i].outer, false};
  return (Over){loop_stack(h->cx, &h->l, p), true};
}

/* Whether an op only says where its operand's elements go. */
static bool is_access(const Node *n) {
  return op_info[n->op].lower == LOWER_ACCESS;
}

Over hoist_outside(Hoist *h, Builder *b, Map *made, Value *v) {
  Over *found = map_get(made, v);
  if (found) return *found;
  Node *n = v->def;
  if (!n) return remember(h, made, v, outside_param(h, b, v));
  LoopClass class = hoist_class(h, v);
  bool stays = b == &h->after && class == CLASS_INPUT && !is_access(n);
  if (class == CLASS_CARRY || stays) {
    Over o = {loop_stack(h->cx, &h->l, v), true};
    return remember(h, made, v, o);
  }
  Over *ins = NEW_ARRAY(&h->cx->scratch, Over, n->ins.len + 1);
  Over *outs = NEW_ARRAY(&h->cx->scratch, Over, n->outs.len);
  for (uint32_t i = 0; i < n->ins.len; i++)
    ins[i] = hoist_outside(h, b, made, n->ins.data[i]);
  batch_node(b, n, ins, h->l.length, outs);
  for (uint32_t i = 0; i < n->outs.len; i++)
    remember(h, made, n->outs.data[i], outs[i]);
  return outs[v->index];
}

/* ---- before the loop --------------------------------------------------- */

/* Work that need not be done in every iteration. */
static bool pays_fixed(const Node *n) {
  return op_info[n->op].lower != LOWER_ACCESS && n->ins.len > 0;
}

/* A contraction by weights. One of two scanned operands would do the same work
 * outside, and might have a large result. */
static bool pays_input(const Hoist *h, const Node *n) {
  return n->op == OP_contract &&
         (hoist_class(h, n->ins.data[0]) == CLASS_FIXED ||
          hoist_class(h, n->ins.data[1]) == CLASS_FIXED);
}

static bool moves(const Hoist *h, const Node *n) {
  if (!n->outs.len) return false;
  switch (hoist_class(h, n->outs.data[0])) {
  case CLASS_FIXED: return pays_fixed(n);
  case CLASS_INPUT: return pays_input(h, n);
  case CLASS_NONE:
  case CLASS_CARRY: return false;
  }
  return false;
}

/* Replaces a body's value by what is handed in. */
static void hand_in(Hoist *h, Value *v, Over o) {
  ir_replace(v, o.stacked ? loop_scanned(h->cx, &h->l, o.v)
                          : loop_invariant(h->cx, &h->l, o.v));
}

static void hoist_before(Hoist *h) {
  Map made = {0};
  uint32_t kept = 0;
  NodeVec *nodes = &h->body->nodes;
  for (uint32_t i = 0; i < nodes->len; i++) {
    Node *n = nodes->data[i];
    if (!moves(h, n)) {
      nodes->data[kept++] = n;
      continue;
    }
    for (uint32_t k = 0; k < n->outs.len; k++)
      hand_in(h, n->outs.data[k],
              hoist_outside(h, &h->before, &made, n->outs.data[k]));
    pass_tally(h->options, "before the loop");
    h->changed = true;
  }
  nodes->len = kept;
}

/* ---- the pass ---------------------------------------------------------- */

static void rewire(ValueVec *values) {
  for (uint32_t i = 0; i < values->len; i++)
    values->data[i] = ir_now(values->data[i]);
}

static void rewire_loop(Hoist *h) {
  for (uint32_t i = 0; i < h->body->nodes.len; i++)
    rewire(&h->body->nodes.data[i]->ins);
  for (uint32_t i = 0; i < h->l.carries.len; i++)
    h->l.carries.data[i].next = ir_now(h->l.carries.data[i].next);
  for (uint32_t i = 0; i < h->l.stacked.len; i++)
    h->l.stacked.data[i].value = ir_now(h->l.stacked.data[i].value);
}

/* Appends the scan to `out`, with what leaves it around it. */
static void hoist_scan(Ctx *cx, const PassOptions *o, Node *n, NodeVec *out) {
  NodeVec after = {0};
  rewire(&n->ins);
  Hoist h = {.cx = cx,
             .options = o,
             .l = loop_open(cx, n),
             .body = n->body,
             .before = ir_builder_like(cx, n->region, out, n),
             .after = ir_builder_like(cx, n->region, &after, n)};
  classify(&h);
  count_uses(&h);
  hoist_sink(&h);
  hoist_before(&h);
  if (h.changed) {
    rewire_loop(&h);
    loop_close(&h.before, &h.l);
  }
  vec_push(&cx->perm, out, n);
  for (uint32_t i = 0; i < after.len; i++)
    vec_push(&cx->perm, out, after.data[i]);
}

/* Loops inside of a loop first: what leaves them is part of its body. */
static void hoist_region(Ctx *cx, const PassOptions *o, Region *r) {
  NodeVec out = {0};
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    if (n->body) hoist_region(cx, o, n->body);
    if (n->op == OP_scan)
      hoist_scan(cx, o, n, &out);
    else
      vec_push(&cx->perm, &out, n);
    rewire(&n->ins);
  }
  r->nodes = out;
  rewire(&r->results);
}

bool pass_hoist(Module *m, const PassOptions *o) {
  for (uint32_t i = 0; i < m->entries.len; i++) {
    hoist_region(m->cx, o, m->entries.data[i]->region);
    ir_sweep(m->entries.data[i]);
  }
  return true;
}
