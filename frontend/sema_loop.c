/* sema_loop.c: the two loops. `for` runs over known integers, and its body is
 * worked out once a turn. `scan` runs over a dim of tensors, and its body
 * becomes the body of one scan node; tensors from outside that it uses become
 * operands of the node. */
#include "sema.h"

#include <string.h>

/* ---- carries ------------------------------------------------------------- */

static bool start_carries(Sema *S, const NamedVec *with, LoopState *loop) {
  bool ok = true;
  for (uint32_t i = 0; i < with->len; i++) {
    Carry c = {.name = with->data[i].name.text,
               .span = with->data[i].name.span,
               .now = fe_item(S, with->data[i].value)};
    ok &= c.now.val.kind != VAL_ERROR;
    vec_push(&S->cx->perm, &loop->carries, c);
  }
  return ok;
}

static void add_carries(Sema *S, LoopState *loop) {
  for (uint32_t i = 0; i < loop->carries.len; i++) {
    Carry *c = &loop->carries.data[i];
    scope_add(S, (Name){c->name, c->span}, c->now.val);
  }
}

/* A carry that no turn changes is a forgotten `next`. */
static bool check_carries(Sema *S, const LoopState *loop) {
  for (uint32_t i = 0; i < loop->carries.len; i++) {
    const Carry *c = &loop->carries.data[i];
    if (c->ever_set) continue;
    fe_error(S, c->span, "'%s' never gets a next value", c->name);
    return false;
  }
  return true;
}

/* One value as itself, several or none as a tuple. */
static Val as_one(Sema *S, const Val *items, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    if (items[i].kind == VAL_ERROR) return val_error;
  return n == 1 ? items[0] : val_tuple(S, items, n);
}

/* ---- for ----------------------------------------------------------------- */

static void run_turn(Sema *S, const Loop *l, LoopState *loop, int64_t i) {
  Scope scope;
  scope_push(S, &scope);
  scope_add(S, l->each.data[0].name, val_int(i));
  add_carries(S, loop);
  fe_body(S, &l->body);
  scope_pop(S);
  for (uint32_t k = 0; k < loop->carries.len; k++) {
    Carry *c = &loop->carries.data[k];
    if (c->is_set) c->now = c->next;
    c->is_set = false;
  }
}

Val fe_for(Sema *S, const Expr *e) {
  const Loop *l = e->loop;
  Frame *f = S->frame;
  LoopState loop = {0}, *outer = f->loop;
  Sym path = f->path, layer = S->b.layer;
  int64_t lo, hi;
  if (!fe_eval_int(S, l->each.data[0].lo, "the start of 'for'", &lo) ||
      !fe_eval_int(S, l->each.data[0].hi, "the end of 'for'", &hi) ||
      !start_carries(S, &l->with, &loop))
    return val_error;
  f->loop = &loop;
  for (int64_t i = lo; i < hi && fe_step(S, e->span); i++) {
    f->path = path_join(S, path, sym_fmt(S->cx, "%lld", (long long)i));
    S->b.layer = f->path;
    run_turn(S, l, &loop, i);
  }
  f->loop = outer;
  f->path = path;
  S->b.layer = layer;
  if (lo < hi && !check_carries(S, &loop)) return val_error;
  Val *finals = NEW_ARRAY(&S->cx->perm, Val, loop.carries.len + 1);
  for (uint32_t i = 0; i < loop.carries.len; i++)
    finals[i] = loop.carries.data[i].now.val;
  return as_one(S, finals, loop.carries.len);
}

/* ---- scan: what it runs over --------------------------------------------- */

/* A scan being built. */
typedef struct Scan {
  const Expr *e;
  Node *node;
  int along;
  int64_t length; /* 0: not known yet */
  Span length_at;
  uint32_t scanned;
  LoopState loop;
  ScanState state;
} Scan;

static bool set_length(Sema *S, Scan *sc, int64_t length, Span at) {
  if (!sc->length) {
    sc->length = length;
    sc->length_at = at;
    return true;
  }
  if (sc->length == length) return true;
  fe_error(S, at, "this scan has %lld turns here, but %lld before",
           (long long)length, (long long)sc->length);
  fe_note(S, sc->length_at, "%lld turns here", (long long)sc->length);
  return false;
}

static bool range_each(Sema *S, Scan *sc, const Each *each) {
  int64_t lo, hi;
  if (!fe_eval_int(S, each->lo, "the start of a scan", &lo) ||
      !fe_eval_int(S, each->hi, "the end of a scan", &hi))
    return false;
  Span at = span_join(each->lo->span, each->hi->span);
  bool small = lo >= INT32_MIN && lo <= INT32_MAX && hi <= INT32_MAX;
  if (hi > lo && small && hi - lo <= MAX_DIM)
    return set_length(S, sc, hi - lo, at);
  fe_error(S, at, "a scan cannot run from %lld to %lld", (long long)lo,
           (long long)hi);
  return false;
}

/* A tensor with the scanned dim brought to the front. */
static bool tensor_each(Sema *S, Scan *sc, const Each *each) {
  Item it = fe_item(S, each->lo);
  Value *v = it.val.kind == VAL_ERROR ? NULL : fe_tensor(S, it);
  int order[MAX_RANK];
  if (!v) return false;
  if (sc->along >= v->type.rank || type_is_ragged(&v->type)) {
    fe_error(S, it.span, "%s has no dim %d to scan along",
             type_text(S->cx, &v->type), sc->along);
    return false;
  }
  if (!set_length(S, sc, v->type.dims[sc->along].size, it.span)) return false;
  order[0] = sc->along;
  for (int i = 0, to = 1; i < v->type.rank; i++)
    if (i != sc->along) order[to++] = i;
  v = fe_transpose(S, it.span, v, order);
  if (!v) return false;
  vec_push(&S->cx->perm, &sc->node->ins, v);
  sc->scanned++;
  return true;
}

static bool read_header(Sema *S, Scan *sc) {
  const Loop *l = sc->e->loop;
  int64_t along = 0, depth = 1;
  for (ScanState *s = S->scan; s; s = s->up)
    depth++;
  if (depth > MAX_LOOPS) {
    fe_error(S, sc->e->span, "scans are nested more than %d deep", MAX_LOOPS);
    return false;
  }
  if (l->along && !fe_eval_int(S, l->along, "the dim of a scan", &along))
    return false;
  if (along < 0 || along >= MAX_RANK) {
    fe_error(S, l->along->span, "there is no dim %lld", (long long)along);
    return false;
  }
  sc->along = (int)along;
  if (!start_carries(S, &l->with, &sc->loop)) return false;
  for (uint32_t i = 0; i < sc->loop.carries.len; i++) {
    Value *v = fe_tensor(S, sc->loop.carries.data[i].now);
    if (!v) return false;
    vec_push(&S->cx->perm, &sc->node->ins, v);
  }
  for (uint32_t i = 0; i < l->each.len; i++)
    if (!(l->each.data[i].hi ? range_each : tensor_each)(S, sc,
                                                         &l->each.data[i]))
      return false;
  return true;
}

/* ---- scan: its body ------------------------------------------------------ */

/* The turn's number from lo on, as the name of a range. */
static Val range_value(Sema *S, const Each *each, Value *index) {
  int64_t lo;
  if (!fe_eval_int(S, each->lo, "the start of a scan", &lo)) return val_error;
  if (lo == 0) return val_tensor(index);
  Span s = each->name.span;
  Value *start =
      fe_const(S, (Item){.val = val_int(lo), .span = s}, type_scalar(DT_i32));
  return start ? val_tensor(fe_binary_op(S, s, OP_add, index, start))
               : val_error;
}

/* The body's parameters, as names of the innermost scope. */
static void add_params(Sema *S, Scan *sc) {
  const Loop *l = sc->e->loop;
  Region *body = sc->node->body;
  uint32_t at = 0;
  sc->state.index = ir_param(S->cx, body, NULL, type_scalar(DT_i32));
  for (uint32_t i = 0; i < sc->loop.carries.len; i++) {
    Carry *c = &sc->loop.carries.data[i];
    Value *v = ir_param(S->cx, body, c->name, sc->node->ins.data[at++]->type);
    c->now.val = val_tensor(v);
  }
  add_carries(S, &sc->loop);
  for (uint32_t i = 0; i < l->each.len; i++) {
    const Each *each = &l->each.data[i];
    if (each->hi) {
      scope_add(S, each->name, range_value(S, each, sc->state.index));
      continue;
    }
    Type t = sc->node->ins.data[at++]->type;
    memmove(&t.dims[0], &t.dims[1], --t.rank * sizeof(Dim));
    Value *v = ir_param(S->cx, body, each->name.text, t);
    scope_add(S, each->name, val_tensor(v));
  }
}

/* The next value of a carry; what it carries keeps its type. */
static Value *next_value(Sema *S, const Carry *c) {
  const Type *t = &c->now.val.tensor->type;
  if (!c->is_set) return c->now.val.tensor;
  Value *v = c->next.val.kind == VAL_TENSOR ? c->next.val.tensor
                                            : fe_const(S, c->next, *t);
  if (!v || type_equal(&v->type, t)) return v;
  fe_error(S, c->next.span, "'%s' is carried as %s, but gets %s", c->name,
           type_text(S->cx, t), type_text(S->cx, &v->type));
  fe_note(S, c->now.span, "it starts as %s here", type_text(S->cx, t));
  return NULL;
}

static bool end_body(Sema *S, Scan *sc) {
  ValueVec *results = &sc->node->body->results;
  bool ok = check_carries(S, &sc->loop);
  for (uint32_t i = 0; i < sc->loop.carries.len; i++) {
    Value *v = next_value(S, &sc->loop.carries.data[i]);
    ok &= v != NULL;
    vec_push(&S->cx->perm, results, v);
  }
  for (uint32_t i = 0; i < sc->loop.yields.len; i++) {
    Item it = sc->loop.yields.data[i];
    Value *v = it.val.kind == VAL_ERROR ? NULL : fe_tensor(S, it);
    ok &= v != NULL;
    vec_push(&S->cx->perm, results, v);
  }
  return ok;
}

static bool build_body(Sema *S, Scan *sc) {
  Builder outer = S->b;
  LoopState *outer_loop = S->frame->loop;
  Region *body = ir_region(S->cx, S->build->entry, sc->node);
  Scope scope;
  sc->state.up = S->scan;
  sc->state.body = body;
  sc->state.length = sc->length;
  S->scan = &sc->state;
  S->b.region = body;
  S->b.out = &body->nodes;
  S->frame->loop = &sc->loop;
  scope_push(S, &scope);
  add_params(S, sc);
  fe_body(S, &sc->e->loop->body);
  bool ok = end_body(S, sc);
  scope_pop(S);
  S->frame->loop = outer_loop;
  S->scan = sc->state.up;
  S->b = outer;
  return ok;
}

/* ---- scan: the node ------------------------------------------------------ */

static void set_int(Node *n, const char *name, int64_t value) {
  Attr *a = attr_ref(n, name);
  a->present = true;
  a->i = value;
}

static bool finish_node(Sema *S, Scan *sc) {
  Node *n = sc->node;
  TypeVec types = {0};
  for (uint32_t i = 0; i < sc->state.outside.len; i++)
    vec_push(&S->cx->perm, &n->ins, sc->state.outside.data[i]);
  set_int(n, "carries", sc->loop.carries.len);
  set_int(n, "scanned", sc->scanned);
  set_int(n, "length", sc->length);
  set_int(n, "reverse", sc->e->loop->reverse);
  if (!fe_infer(S, n, &types)) return false;
  for (uint32_t i = 0; i < types.len; i++)
    ir_add_result(S->cx, n, types.data[i]);
  vec_push(&S->cx->perm, S->b.out, n);
  return true;
}

/* What was stacked, with the scanned dim back in its place. */
static Val stacked(Sema *S, Scan *sc, Value *v) {
  int order[MAX_RANK];
  if (sc->along >= v->type.rank) {
    fe_error(S, sc->loop.yield_at,
             "what is yielded has too few dims to be "
             "stacked along dim %d",
             sc->along);
    return val_error;
  }
  for (int i = 0, from = 1; i < v->type.rank; i++)
    order[i] = i == sc->along ? 0 : from++;
  return val_tensor(fe_transpose(S, sc->e->span, v, order));
}

Val fe_scan(Sema *S, const Expr *e) {
  Scan sc = {.e = e, .loop = {.is_scan = true}};
  if (!S->build) {
    fe_error(S, e->span, "there are no scans outside of entries");
    return val_error;
  }
  sc.node = NEW(&S->cx->perm, Node);
  *sc.node = (Node){.op = OP_scan,
                    .span = e->span,
                    .layer = S->b.layer,
                    .remat = S->b.remat,
                    .region = S->b.region};
  if (!read_header(S, &sc) || !build_body(S, &sc) || !finish_node(S, &sc))
    return val_error;
  uint32_t carries = sc.loop.carries.len, yields = sc.loop.yields.len;
  Val *items = NEW_ARRAY(&S->cx->perm, Val, carries + yields + 1);
  for (uint32_t i = 0; i < yields; i++)
    items[i] = stacked(S, &sc, sc.node->outs.data[carries + i]);
  for (uint32_t i = 0; i < carries; i++)
    items[yields + i] = val_tensor(sc.node->outs.data[i]);
  return as_one(S, items, yields + carries);
}
