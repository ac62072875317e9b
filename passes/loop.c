/* loop.c: a scan taken apart into carries, inputs and outputs, and put
 * together again.
 *
 * A scan's operands, its body's parameters and results, and its own results
 * are parallel lists whose order says what each one is. Passes that add or drop
 * parts of a loop work on the lists of a Loop, where each part stands with its
 * counterparts, and need not care about positions. */
#include "pass.h"

Type loop_element(Type t) {
  assert(t.rank > 0);
  t.rank--;
  for (int i = 0; i < t.rank; i++)
    t.dims[i] = t.dims[i + 1];
  t.dims[t.rank] = (Dim){0};
  return t;
}

Type loop_stacked(Type t, int64_t length) {
  assert(t.rank < MAX_RANK);
  for (int i = t.rank; i > 0; i--)
    t.dims[i] = t.dims[i - 1];
  t.dims[0] = (Dim){.size = length};
  t.rank++;
  return t;
}

/* ---- taking apart ------------------------------------------------------ */

Loop loop_open(Ctx *cx, Node *n) {
  const Region *body = n->body;
  uint32_t carries = (uint32_t)attr_int(n, "carries");
  uint32_t scanned = (uint32_t)attr_int(n, "scanned");
  Loop l = {.n = n,
            .length = attr_int(n, "length"),
            .reverse = attr_bool(n, "reverse"),
            .index = body->params.data[0]};
  bool counted = attr_bool(n, "counted");
  for (uint32_t i = 0; i < n->ins.len; i++) {
    Value *outer = ir_now(n->ins.data[i]), *p = body->params.data[i + 1];
    LoopInput in = {outer, p};
    if (counted && i + 1 == n->ins.len) {
      l.turns = in;
    } else if (i < carries) {
      LoopCarry c = {outer, p, ir_now(body->results.data[i]), n->outs.data[i]};
      vec_push(&cx->perm, &l.carries, c);
    } else if (i < carries + scanned) {
      vec_push(&cx->perm, &l.scanned, in);
    } else {
      vec_push(&cx->perm, &l.invariants, in);
    }
  }
  for (uint32_t i = carries; i < n->outs.len; i++) {
    LoopOutput o = {ir_now(body->results.data[i]), n->outs.data[i]};
    vec_push(&cx->perm, &l.stacked, o);
  }
  return l;
}

Loop loop_new(Ctx *cx, Entry *e, int64_t length, bool reverse) {
  Loop l = {.length = length, .reverse = reverse};
  Region *body = ir_region(cx, e, NULL);
  l.index = ir_param(cx, body, sym(cx, "t"), type_scalar(DT_i32));
  return l;
}

void loop_count(Ctx *cx, Loop *l, Value *turns) {
  l->turns.outer = turns;
  l->turns.param = ir_param(cx, l->index->region, turns->name, turns->type);
}

/* ---- adding parts ------------------------------------------------------ */

static Value *new_param(Ctx *cx, const Loop *l, const Value *like, Type t) {
  return ir_param(cx, l->index->region, like->name, t);
}

/* A result of the scan that its node does not list yet. */
static Value *new_result(Ctx *cx, const Loop *l, const Value *like, Type t) {
  Value *v = NEW(&cx->perm, Value);
  v->type = t;
  v->name = like->name;
  v->def = l->n;
  v->region = l->n ? l->n->region : NULL;
  return v;
}

Value *loop_scanned(Ctx *cx, Loop *l, Value *outer) {
  for (uint32_t i = 0; i < l->scanned.len; i++)
    if (l->scanned.data[i].outer == outer) return l->scanned.data[i].param;
  LoopInput in = {outer, new_param(cx, l, outer, loop_element(outer->type))};
  vec_push(&cx->perm, &l->scanned, in);
  return in.param;
}

Value *loop_invariant(Ctx *cx, Loop *l, Value *outer) {
  for (uint32_t i = 0; i < l->invariants.len; i++)
    if (l->invariants.data[i].outer == outer)
      return l->invariants.data[i].param;
  LoopInput in = {outer, new_param(cx, l, outer, outer->type)};
  vec_push(&cx->perm, &l->invariants, in);
  return in.param;
}

Value *loop_outer(const Loop *l, const Value *param) {
  for (uint32_t i = 0; i < l->invariants.len; i++)
    if (l->invariants.data[i].param == param)
      return l->invariants.data[i].outer;
  return NULL;
}

Value *loop_stack(Ctx *cx, Loop *l, Value *value) {
  for (uint32_t i = 0; i < l->stacked.len; i++)
    if (l->stacked.data[i].value == value) return l->stacked.data[i].out;
  Type t = loop_stacked(value->type, l->length);
  LoopOutput o = {value, new_result(cx, l, value, t)};
  vec_push(&cx->perm, &l->stacked, o);
  return o.out;
}

uint32_t loop_carry(Ctx *cx, Loop *l, Value *init) {
  LoopCarry c = {.init = init,
                 .param = new_param(cx, l, init, init->type),
                 .out = new_result(cx, l, init, init->type)};
  vec_push(&cx->perm, &l->carries, c);
  return l->carries.len - 1;
}

/* ---- putting together -------------------------------------------------- */

static void add_param(Arena *a, Region *body, Value *p) {
  p->index = body->params.len;
  vec_push(a, &body->params, p);
}

static void add_out(Arena *a, Node *n, Value *v) {
  v->def = n;
  v->region = n->region;
  v->index = n->outs.len;
  vec_push(a, &n->outs, v);
}

static void write_back(Arena *a, const Loop *l, Region *body) {
  Node *n = l->n;
  n->ins = n->outs = body->params = body->results = (ValueVec){0};
  add_param(a, body, l->index);
  for (uint32_t i = 0; i < l->carries.len; i++) {
    const LoopCarry *c = &l->carries.data[i];
    vec_push(a, &n->ins, c->init);
    add_param(a, body, c->param);
    vec_push(a, &body->results, c->next);
    add_out(a, n, c->out);
  }
  for (uint32_t i = 0; i < l->scanned.len; i++) {
    vec_push(a, &n->ins, l->scanned.data[i].outer);
    add_param(a, body, l->scanned.data[i].param);
  }
  for (uint32_t i = 0; i < l->invariants.len; i++) {
    vec_push(a, &n->ins, l->invariants.data[i].outer);
    add_param(a, body, l->invariants.data[i].param);
  }
  if (l->turns.outer) {
    vec_push(a, &n->ins, l->turns.outer);
    add_param(a, body, l->turns.param);
  }
  for (uint32_t i = 0; i < l->stacked.len; i++) {
    vec_push(a, &body->results, l->stacked.data[i].value);
    add_out(a, n, l->stacked.data[i].out);
  }
  attr_ref(n, "carries")->i = l->carries.len;
  attr_ref(n, "scanned")->i = l->scanned.len;
}

void loop_close(Builder *b, Loop *l) {
  Region *body = l->index->region;
  if (!l->n) {
    Attr attrs[MAX_ATTRS] = {{.present = true},
                             {.present = true},
                             {.i = l->length, .present = true},
                             {.i = l->reverse, .present = true}};
    attrs[4].i = attrs[4].present = l->turns.outer != NULL;
    l->n = ir_node_raw(b, OP_scan, NULL, 0, attrs, NULL, 0);
    l->n->body = body;
    body->owner = l->n;
  }
  write_back(&b->cx->perm, l, body);
}
