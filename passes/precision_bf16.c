/* precision_bf16.c: products of matrices in bf16, everything else in f32.
 *
 * Goal: what units for bf16 and half the memory traffic give, without slots,
 * optimisers, losses and sums becoming less exact. Method: the operands of a
 * product of matrices are cast to bf16, its result stays f32 (see `contract`);
 * those of an attention too, whose weights are bf16 then where they meet the
 * values.
 *
 * A value is cast once, where it is made, so that everything between there and
 * its last product can hold the narrow copy alone. A loop takes part in that:
 * what it is handed is cast outside of it, what it stacks is stacked cast, and
 * a carry that goes into products is carried a second time in bf16.
 *
 * Where that copy is all that is left but for sums in the backward pass, as
 * those of a bias, the sums are of the copy too, in f32: the exact values need
 * not be stored.
 *
 * Not cast are products with a vector, and the layers that say so: an entry's
 * layers that have a product from which a top_k or sort chooses, as a gate's,
 * also by what goes into a loop, since there a small error picks another
 * expert; the user's word counts more.
 *
 *   %y = contract %x, %w {map="bd,dn->bn"} : f32[64, 8]
 *
 * becomes
 *
 *   %0 = cast %x : bf16[64, 512]
 *   %1 = cast %w : bf16[512, 8]
 *   %y = contract %0, %1 {map="bd,dn->bn"} : f32[64, 8]
 */
#include "pass.h"

#include <string.h>

typedef struct Narrow {
  Ctx *cx;
  const PassOptions *options;
  Map casts;  /* value -> its bf16 value */
  Map behind; /* node, or region for its start -> NodeVec to put there */
  Map exact;  /* layer -> itself: products stay f32 */
} Narrow;

static Value *narrow(Narrow *w, Value *v);

/* ---- which products ------------------------------------------------------ */

/* Rows, columns and depth, each more than one. */
static bool is_matrix_product(const Node *n) {
  IndexMap m;
  int64_t rows = 1, columns = 1, depth = 1;
  map_parse(attr_sym(n, "map"), &m);
  for (int side = 0; side < 2; side++)
    for (const char *c = m.ins[side]; *c; c++) {
      int64_t size = n->ins.data[side]->type.dims[c - m.ins[side]].size;
      bool both = strchr(m.ins[1 - side], *c), kept = strchr(m.out, *c);
      if (both && !kept) depth *= side ? 1 : size;
      if (!both) *(side ? &columns : &rows) *= size;
    }
  return rows > 1 && columns > 1 && depth > 1;
}

/* How many operands of a node are those of products; 0: it has none. */
static uint32_t product_operands(const Node *n) {
  switch ((int)n->op) {
  case OP_contract: return is_matrix_product(n) ? 2 : 0;
  case OP_attention: return 3;
  case OP_attention_grad: return 4;
  }
  return 0;
}

/* Whether `layer` is `outer` or within it. */
static bool is_within(const char *layer, const char *outer) {
  size_t n = strlen(outer);
  return layer && strncmp(layer, outer, n) == 0 &&
         (layer[n] == '\0' || layer[n] == '/');
}

/* The innermost of the user's layers that the node is in. */
static LayerDtype *users_word(const Narrow *w, const Node *n) {
  LayerDtype *best = NULL;
  for (uint32_t i = 0; i < w->options->n_layers; i++) {
    LayerDtype *l = &w->options->layers[i];
    if (is_within(n->layer, l->layer) &&
        (!best || strlen(l->layer) >= strlen(best->layer)))
      best = l;
  }
  return best;
}

static const void *layer_key(const Node *n) {
  return n->layer ? n->layer : "";
}

static bool is_narrowed(const Narrow *w, const Node *n) {
  if (!product_operands(n) || n->ins.data[0]->type.dtype != DT_f32)
    return false;
  LayerDtype *user = users_word(w, n);
  if (user) user->found = true;
  return user ? user->dtype == DT_bf16 : !map_get(&w->exact, layer_key(n));
}

/* Marks the layers of the products that `v` is made of, by anything else. */
static void keep_exact(Narrow *w, Map *seen, const Value *v) {
  Arena *a = &w->cx->scratch;
  const Node *n = v->def;
  if (!n || map_get(seen, n)) return;
  map_put(a, seen, n, (void *)n);
  if (n->op == OP_contract || product_operands(n)) {
    map_put(a, &w->exact, layer_key(n), (void *)layer_key(n));
    return;
  }
  for (uint32_t i = 0; i < n->ins.len; i++)
    keep_exact(w, seen, n->ins.data[i]);
}

static void find_choices(Narrow *w, Map *seen, const Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    if (n->body) find_choices(w, seen, n->body);
    if (n->op == OP_top_k || n->op == OP_sort)
      keep_exact(w, seen, n->ins.data[0]);
  }
}

/* ---- where casts go ------------------------------------------------------ */

static NodeVec *list_at(Narrow *w, const void *place) {
  NodeVec *list = map_get(&w->behind, place);
  if (!list) {
    list = NEW(&w->cx->scratch, NodeVec);
    map_put(&w->cx->scratch, &w->behind, place, list);
  }
  return list;
}

/* Where a parameter of an entry comes from: a weight from its slot's line. */
static Span source_of(const Value *param) {
  Entry *e = param->region->entry;
  if (param->region->owner) return (Span){0};
  const Binding *b = &e->ins.data[param->index];
  return b->kind == BIND_SLOT ? ir_slot(e->module, b->name)->span : (Span){0};
}

/* Behind what makes the value; of a parameter at the region's start. */
static Value *cast_there(Narrow *w, Value *v) {
  Node *n = v->def;
  Builder b = ir_builder(w->cx, v->region);
  if (n) b = ir_builder_like(w->cx, n->region, NULL, n);
  else b.span = source_of(v);
  b.out = list_at(w, n ? (const void *)n : v->region);
  return ir_cast(&b, v, DT_bf16);
}

static void insert_casts(Narrow *w, Region *r) {
  NodeVec out = {0};
  NodeVec *front = list_at(w, r);
  for (uint32_t i = 0; i < front->len; i++)
    vec_push(&w->cx->perm, &out, front->data[i]);
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    const NodeVec *behind = map_get(&w->behind, n);
    if (n->body) insert_casts(w, n->body);
    vec_push(&w->cx->perm, &out, n);
    for (uint32_t k = 0; behind && k < behind->len; k++)
      vec_push(&w->cx->perm, &out, behind->data[k]);
  }
  r->nodes = out;
}

/* ---- loops --------------------------------------------------------------- */

static Value *remember(Narrow *w, Value *v, Value *cast) {
  map_put(&w->cx->scratch, &w->casts, v, cast);
  return cast;
}

/* Opens the loop again: casting may have changed it. */
static void set_next(Narrow *w, Builder *b, Node *scan, const Value *param,
                     Value *next) {
  Loop l = loop_open(w->cx, scan);
  for (uint32_t i = 0; i < l.carries.len; i++)
    if (l.carries.data[i].param == param) l.carries.data[i].next = next;
  loop_close(b, &l);
}

/* A second carry, whose value is always the cast of this one's. */
static Value *narrow_carry(Narrow *w, Builder *b, Node *scan, LoopCarry c) {
  Value *init = narrow(w, c.init);
  Loop l = loop_open(w->cx, scan);
  uint32_t at = loop_carry(w->cx, &l, init);
  Value *param = l.carries.data[at].param;
  l.carries.data[at].next = param;
  loop_close(b, &l);
  remember(w, c.param, param);
  set_next(w, b, scan, param, narrow(w, c.next));
  return param;
}

static Value *narrow_input(Narrow *w, Builder *b, Node *scan, LoopInput in,
                           bool scanned) {
  Value *outer = narrow(w, in.outer);
  Loop l = loop_open(w->cx, scan);
  Value *param = scanned ? loop_scanned(w->cx, &l, outer)
                         : loop_invariant(w->cx, &l, outer);
  loop_close(b, &l);
  return remember(w, in.param, param);
}

static Value *narrow_param(Narrow *w, Node *scan, const Value *v) {
  Builder b = ir_builder(w->cx, scan->region);
  Loop l = loop_open(w->cx, scan);
  for (uint32_t i = 0; i < l.carries.len; i++)
    if (l.carries.data[i].param == v)
      return narrow_carry(w, &b, scan, l.carries.data[i]);
  for (uint32_t i = 0; i < l.scanned.len; i++)
    if (l.scanned.data[i].param == v)
      return narrow_input(w, &b, scan, l.scanned.data[i], true);
  for (uint32_t i = 0; i < l.invariants.len; i++)
    if (l.invariants.data[i].param == v)
      return narrow_input(w, &b, scan, l.invariants.data[i], false);
  internal_error("a parameter of a loop is none of its parts");
}

/* What a loop stacks is cast in the loop. */
static Value *narrow_stack(Narrow *w, Value *v) {
  Node *scan = v->def;
  Builder b = ir_builder(w->cx, scan->region);
  Value *inside = narrow(w, scan->body->results.data[v->index]);
  Loop l = loop_open(w->cx, scan);
  Value *out = loop_stack(w->cx, &l, inside);
  loop_close(&b, &l);
  return remember(w, v, out);
}

/* ---- sums ---------------------------------------------------------------- */

static bool is_gradient_sum(const Node *n) {
  return n->op == OP_reduce_sum && n->backward;
}

/* Marks what anything but a product or such a sum reads. */
static void find_exact_uses(Narrow *w, Map *used, const Region *r) {
  Arena *a = &w->cx->scratch;
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    if (n->body) find_exact_uses(w, used, n->body);
    for (uint32_t k = 0; k < n->ins.len && !is_gradient_sum(n); k++)
      map_put(a, used, n->ins.data[k], n->ins.data[k]);
  }
  for (uint32_t i = 0; i < r->results.len; i++)
    map_put(a, used, r->results.data[i], r->results.data[i]);
}

/* The copy in bf16 as f32, made where `v` is. */
static Value *widened(Narrow *w, Map *wide, Value *v) {
  Value *known = map_get(wide, v), *copy = map_get(&w->casts, v);
  if (known) return known;
  Node *n = v->def;
  Builder b = ir_builder(w->cx, v->region);
  if (n) b = ir_builder_like(w->cx, n->region, NULL, n);
  b.out = list_at(w, n ? (const void *)n : v->region);
  known = ir_cast(&b, copy, v->type.dtype);
  map_put(&w->cx->scratch, wide, v, known);
  return known;
}

static void narrow_sums(Narrow *w, const Map *used, Map *wide,
                        const Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    if (n->body) narrow_sums(w, used, wide, n->body);
    if (!is_gradient_sum(n)) continue;
    Value *v = n->ins.data[0];
    if (map_get(used, v) || !map_get(&w->casts, v)) continue;
    n->ins.data[0] = widened(w, wide, v);
    pass_tally(w->options, "sum of bf16");
  }
}

/* ---- the pass ------------------------------------------------------------ */

/* The value in bf16. */
static Value *narrow(Narrow *w, Value *v) {
  Value *known = map_get(&w->casts, v);
  if (known) return known;
  Node *n = v->def, *owner = v->region->owner;
  if (!n && owner) return narrow_param(w, owner, v);
  if (n && n->op == OP_scan && v->index >= attr_int(n, "carries"))
    return narrow_stack(w, v);
  pass_tally(w->options, "cast to bf16");
  return remember(w, v, cast_there(w, v));
}

static void narrow_products(Narrow *w, Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    if (n->body) narrow_products(w, n->body);
    if (!is_narrowed(w, n)) continue;
    for (uint32_t k = 0; k < product_operands(n); k++)
      n->ins.data[k] = narrow(w, n->ins.data[k]);
    pass_tally(w->options, "product in bf16");
  }
}

bool precision_bf16(Module *m, const PassOptions *o) {
  for (uint32_t i = 0; i < m->entries.len; i++) {
    Narrow w = {.cx = m->cx, .options = o};
    Region *r = m->entries.data[i]->region;
    Map seen = {0};
    find_choices(&w, &seen, r);
    narrow_products(&w, r);
    Map used = {0}, wide = {0};
    find_exact_uses(&w, &used, r);
    narrow_sums(&w, &used, &wide, r);
    insert_casts(&w, r);
    ir_sweep(m->entries.data[i]);
  }
  for (uint32_t i = 0; i < o->n_layers; i++)
    if (!o->layers[i].found)
      diag_error(m->cx, (Span){0}, "no product of matrices is in layer '%s'",
                 o->layers[i].layer);
  return !m->cx->errors;
}
