/* simplify_scan.c: rewrite rules on scans.
 *
 * Carries, inputs and outputs that nothing needs are dropped, a carry being
 * needed only when its final value is read or when it reaches something that
 * is. Constants and broadcasts that are handed in move inside, a carry that
 * never changes becomes an invariant, what is handed in twice is handed in
 * once, and stacked values that were stacked before come from there. A scan of
 * one iteration becomes its body. */
#include "pass.h"

#include <string.h>

typedef struct Shrink {
  Builder *b; /* before the scan */
  Loop l;
  Region *body;
  Builder in;    /* before the body's nodes */
  NodeVec front; /* what it made */
  const Map *uses;
  const PassOptions *options;
  bool changed;
} Shrink;

static Arena *scratch(const Shrink *s) {
  return &s->b->cx->scratch;
}

static void tally(Shrink *s, const char *rule) {
  pass_tally(s->options, rule);
  s->changed = true;
}

/* ---- what is needed ---------------------------------------------------- */

static void mark(const Shrink *s, Map *needed, Value *v) {
  map_put(scratch(s), needed, ir_now(v), v);
}

static void mark_through_body(const Shrink *s, Map *needed) {
  for (uint32_t i = s->body->nodes.len; i-- > 0;) {
    const Node *n = s->body->nodes.data[i];
    bool any = false;
    for (uint32_t k = 0; k < n->outs.len; k++)
      any |= map_get(needed, n->outs.data[k]) != NULL;
    for (uint32_t k = 0; any && k < n->ins.len; k++)
      mark(s, needed, n->ins.data[k]);
  }
}

/* Of a scan that was not there when uses were counted, everything is. */
static bool is_read(const Shrink *s, const Value *out) {
  return map_get(s->uses, out) || !map_get(s->uses, s->l.n);
}

/* Values of the body, parameters included, that something reads in the end. */
static Map find_needed(const Shrink *s) {
  Map needed = {0};
  bool *done = NEW_ARRAY(scratch(s), bool, s->l.carries.len + 1);
  for (uint32_t i = 0; i < s->l.stacked.len; i++)
    if (is_read(s, s->l.stacked.data[i].out))
      mark(s, &needed, s->l.stacked.data[i].value);
  for (bool grew = true; grew;) {
    grew = false;
    mark_through_body(s, &needed);
    for (uint32_t i = 0; i < s->l.carries.len; i++) {
      const LoopCarry *c = &s->l.carries.data[i];
      if (done[i] || !(is_read(s, c->out) || map_get(&needed, c->param)))
        continue;
      mark(s, &needed, c->param);
      mark(s, &needed, c->next);
      done[i] = grew = true;
    }
  }
  return needed;
}

static void drop_unneeded(Shrink *s) {
  Map needed = find_needed(s);
  Loop *l = &s->l;
  uint32_t before =
      l->carries.len + l->scanned.len + l->invariants.len + l->stacked.len;
  uint32_t kept = 0;
  for (uint32_t i = 0; i < l->carries.len; i++)
    if (map_get(&needed, l->carries.data[i].param))
      l->carries.data[kept++] = l->carries.data[i];
  l->carries.len = kept;
  kept = 0;
  for (uint32_t i = 0; i < l->scanned.len; i++)
    if (map_get(&needed, l->scanned.data[i].param))
      l->scanned.data[kept++] = l->scanned.data[i];
  l->scanned.len = kept;
  kept = 0;
  for (uint32_t i = 0; i < l->invariants.len; i++)
    if (map_get(&needed, l->invariants.data[i].param))
      l->invariants.data[kept++] = l->invariants.data[i];
  l->invariants.len = kept;
  kept = 0;
  for (uint32_t i = 0; i < l->stacked.len; i++)
    if (is_read(s, l->stacked.data[i].out))
      l->stacked.data[kept++] = l->stacked.data[i];
  l->stacked.len = kept;
  if (before != l->carries.len + l->scanned.len + l->invariants.len + kept)
    tally(s, "unneeded part of a scan");
}

/* ---- inputs ------------------------------------------------------------ */

/* A constant or broadcast handed in as it is: what to read instead, inside. */
static Value *inside_invariant(Shrink *s, const LoopInput *in) {
  const Node *d = in->outer->def;
  if (!d || type_is_ragged(&in->outer->type)) return NULL;
  if (d->op == OP_const)
    return ir_const_like(&s->in, in->param, attr_float(d, "value"));
  if (d->op != OP_broadcast) return NULL;
  Value *x = loop_invariant(s->b->cx, &s->l, ir_now(d->ins.data[0]));
  return ir_broadcast(&s->in, x, attr_sym(d, "map"), in->param->type);
}

/* The same for one that is scanned: equal parts. */
static Value *inside_scanned(Shrink *s, const LoopInput *in) {
  const Node *d = in->outer->def;
  if (!d) return NULL;
  if (d->op == OP_const)
    return ir_const_like(&s->in, in->param, attr_float(d, "value"));
  if (d->op != OP_broadcast) return NULL;
  IndexMap m = map_of(d);
  if (strchr(m.ins[0], m.out[0])) return NULL;
  memmove(m.out, m.out + 1, strlen(m.out));
  Value *x = loop_invariant(s->b->cx, &s->l, ir_now(d->ins.data[0]));
  return ir_broadcast(&s->in, x, map_text(s->b->cx, &m), in->param->type);
}

/* The list may grow while it is walked: loop_invariant. */
static void move_inside(Shrink *s) {
  Loop *l = &s->l;
  for (uint32_t i = 0; i < l->scanned.len; i++) {
    LoopInput in = l->scanned.data[i];
    Value *v = inside_scanned(s, &in);
    if (!v) continue;
    ir_replace(in.param, v);
    l->scanned.data[i--] = l->scanned.data[--l->scanned.len];
    tally(s, "constant input of a scan");
  }
  for (uint32_t i = 0; i < l->invariants.len; i++) {
    LoopInput in = l->invariants.data[i];
    Value *v = inside_invariant(s, &in);
    if (!v) continue;
    ir_replace(in.param, v);
    l->invariants.data[i--] = l->invariants.data[--l->invariants.len];
    tally(s, "constant input of a scan");
  }
}

static uint32_t merge_equal(Shrink *s, LoopInput *list, uint32_t len) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < len; i++) {
    uint32_t k = 0;
    while (k < kept && list[k].outer != list[i].outer)
      k++;
    if (k == kept) {
      list[kept++] = list[i];
      continue;
    }
    ir_replace(list[i].param, list[k].param);
    tally(s, "equal inputs of a scan");
  }
  return kept;
}

/* ---- carries ----------------------------------------------------------- */

static bool same_const(const Value *a, const Value *b) {
  double c;
  return rw_is_const(a, &c) && rw_is_value(b, c);
}

static void drop_constant_carries(Shrink *s) {
  Loop *l = &s->l;
  uint32_t kept = 0;
  for (uint32_t i = 0; i < l->carries.len; i++) {
    LoopCarry c = l->carries.data[i];
    c.next = ir_now(c.next);
    if (c.next != c.param && !same_const(c.init, c.next)) {
      l->carries.data[kept++] = c;
      continue;
    }
    Value *p = loop_invariant(s->b->cx, l, c.init);
    ir_replace(c.param, p);
    ir_replace(c.out, c.init);
    tally(s, "carry that never changes");
  }
  l->carries.len = kept;
}

/* ---- outputs ----------------------------------------------------------- */

/* `x` for each of `length` iterations. */
static Value *repeat(Shrink *s, Value *x) {
  IndexMap m = {.n_ins = 1};
  for (int i = 0; i < x->type.rank; i++)
    m.ins[0][i] = (char)('a' + i);
  m.out[0] = map_free_letter(&m);
  strcpy(m.out + 1, m.ins[0]);
  return ir_broadcast(s->b, x, map_text(s->b->cx, &m),
                      loop_stacked(x->type, s->l.length));
}

/* The stack of a body value that is known outside, else NULL. */
static Value *known_stack(Shrink *s, const LoopOutput *o, uint32_t at) {
  double c;
  Value *v = ir_now(o->value);
  if (rw_is_const(v, &c)) return ir_const_like(s->b, o->out, c);
  for (uint32_t i = 0; i < at; i++)
    if (ir_now(s->l.stacked.data[i].value) == v)
      return s->l.stacked.data[i].out;
  for (uint32_t i = 0; i < s->l.scanned.len; i++)
    if (s->l.scanned.data[i].param == v) return s->l.scanned.data[i].outer;
  for (uint32_t i = 0; i < s->l.invariants.len; i++)
    if (s->l.invariants.data[i].param == v)
      return repeat(s, s->l.invariants.data[i].outer);
  return NULL;
}

static void drop_known_stacks(Shrink *s) {
  Loop *l = &s->l;
  uint32_t kept = 0;
  for (uint32_t i = 0; i < l->stacked.len; i++) {
    LoopOutput o = l->stacked.data[i];
    Value *v = known_stack(s, &o, kept);
    if (v) {
      ir_replace(o.out, v);
      tally(s, "stack that is known");
    } else {
      l->stacked.data[kept++] = o;
    }
  }
  l->stacked.len = kept;
}

/* ---- one iteration ----------------------------------------------------- */

static Value *mapped(const Map *map, Value *v) {
  Value *to = map_get(map, ir_now(v));
  assert(to);
  return to;
}

/* Replaces the results of the scan by nodes of its own region. */
static void unroll_once(Shrink *s) {
  Arena *a = scratch(s);
  Loop *l = &s->l;
  Map map = {0};
  map_put(a, &map, l->index, ir_const_like(s->b, l->index, 0.0));
  for (uint32_t i = 0; i < l->carries.len; i++)
    map_put(a, &map, l->carries.data[i].param, l->carries.data[i].init);
  for (uint32_t i = 0; i < l->scanned.len; i++) {
    LoopInput in = l->scanned.data[i];
    map_put(a, &map, in.param, ir_reshape(s->b, in.outer, in.param->type));
  }
  for (uint32_t i = 0; i < l->invariants.len; i++)
    map_put(a, &map, l->invariants.data[i].param, l->invariants.data[i].outer);
  for (uint32_t i = 0; i < s->body->nodes.len; i++)
    ir_clone(s->b, s->body->nodes.data[i], &map);
  for (uint32_t i = 0; i < l->carries.len; i++)
    ir_replace(l->carries.data[i].out, mapped(&map, l->carries.data[i].next));
  for (uint32_t i = 0; i < l->stacked.len; i++) {
    LoopOutput o = l->stacked.data[i];
    ir_replace(o.out, ir_reshape(s->b, mapped(&map, o.value), o.out->type));
  }
  tally(s, "scan of one iteration");
}

/* ---- entry ------------------------------------------------------------- */

bool simplify_scan(Builder *b, Node *n, const Map *uses, const PassOptions *o) {
  Shrink s = {.b = b,
              .l = loop_open(b->cx, n),
              .body = n->body,
              .uses = uses,
              .options = o};
  if (s.l.length == 1 && !s.l.turns.outer) {
    unroll_once(&s);
    return true;
  }
  s.in = ir_builder_like(b->cx, s.body, &s.front, n);
  drop_unneeded(&s);
  drop_constant_carries(&s);
  move_inside(&s);
  s.l.scanned.len = merge_equal(&s, s.l.scanned.data, s.l.scanned.len);
  s.l.invariants.len = merge_equal(&s, s.l.invariants.data, s.l.invariants.len);
  drop_known_stacks(&s);
  if (!s.changed) return false;
  for (uint32_t i = 0; i < s.body->nodes.len; i++)
    vec_push(&b->cx->perm, &s.front, s.body->nodes.data[i]);
  s.body->nodes = s.front;
  loop_close(b, &s.l);
  return true;
}
