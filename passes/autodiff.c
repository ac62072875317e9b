/* autodiff.c: replaces each `grad` by reverse-mode derivatives, IR to IR.
 *
 * Goal: `%g.. = grad %loss, %p..` becomes nodes that compute d loss / d p.
 * Method: a forward walk finds the values that depend on the p through floats
 * (the active ones); a reverse walk then carries cotangents from the loss
 * back, one rule of vjp.c an op, and sums those that meet at a value in the
 * order they arrive, which is that of the reversed program. A value that
 * nothing flows into has the zero gradient. The new nodes stand where `grad`
 * stood, keep span and layer of the forward node they come from, and are
 * marked `backward`; they use forward values as they are, so whether those are
 * kept or computed again is for `recompute` to say.
 * Reference: Griewank and Walther, Evaluating Derivatives, 2008, chapter 3.
 *
 *   %y = tanh %x : f32[4]
 *   %l = reduce_sum %y {map="a->"} : f32[]
 *   %g = grad %l, %x : f32[4]
 *
 * becomes, for %g, after `simplify`:
 *
 *   %one = const {value=1} : f32[4]
 *   %yy = mul %y, %y : f32[4] backward
 *   %g = sub %one, %yy : f32[4] backward
 *
 * With keep_grads what the entry hands out has the gradients, too: of a %p that
 * is bound to slot "lm/w", `probe "grad/lm/w" = %g`.
 */
#include "pass.h"

#include <string.h>

static bool is_float(const Value *v) {
  return dtype_info[v->type.dtype].kind == DK_FLOAT;
}

/* ---- active values ----------------------------------------------------- */

static bool *wanted_ins(Arena *a, const Node *n, const Map *active) {
  bool *wants = NEW_ARRAY(a, bool, n->ins.len + 1);
  for (uint32_t i = 0; i < n->ins.len; i++)
    wants[i] = is_float(n->ins.data[i]) && map_get(active, n->ins.data[i]);
  return wants;
}

static void mark_scan(Arena *a, Node *n, const bool *wants, Map *active) {
  Map inside = scan_active(a, n, wants);
  for (uint32_t i = 0; i < n->outs.len; i++)
    if (map_get(&inside, n->body->results.data[i]))
      map_put(a, active, n->outs.data[i], n);
}

void autodiff_active(Arena *a, const Region *r, uint32_t n_nodes, Map *active) {
  for (uint32_t i = 0; i < n_nodes; i++) {
    Node *n = r->nodes.data[i];
    if (vjp_rules[n->op] == vjp_zero) continue;
    bool *wants = wanted_ins(a, n, active), any = false;
    for (uint32_t k = 0; k < n->ins.len; k++)
      any |= wants[k];
    if (!any) continue;
    if (n->op == OP_scan) {
      mark_scan(a, n, wants, active);
      continue;
    }
    for (uint32_t k = 0; k < n->outs.len; k++)
      if (is_float(n->outs.data[k])) map_put(a, active, n->outs.data[k], n);
  }
}

/* ---- the reverse walk -------------------------------------------------- */

void autodiff_add(Builder *b, Map *cot, Value *v, Value *d) {
  Value *sum = map_get(cot, v);
  map_put(&b->cx->scratch, cot, v, sum ? ir_binary(b, OP_add, sum, d) : d);
}

/* Cotangents of the results; false when nothing flows into any. */
static bool gather_douts(const Node *n, const Map *active, const Map *cot,
                         Value **douts) {
  bool any = false;
  for (uint32_t i = 0; i < n->outs.len; i++) {
    const Value *out = n->outs.data[i];
    douts[i] = map_get(active, out) ? map_get(cot, out) : NULL;
    any |= douts[i] != NULL;
  }
  return any;
}

static void reverse_node(Builder *b, Node *n, const Map *active, Map *cot) {
  Arena *a = &b->cx->scratch;
  Value **douts = NEW_ARRAY(a, Value *, n->outs.len + 1);
  if (!gather_douts(n, active, cot, douts)) return;
  Vjp v = {.b = b, .n = n, .douts = douts};
  v.wants = wanted_ins(a, n, active);
  v.dins = NEW_ARRAY(a, Value *, n->ins.len + 1);
  b->span = n->span;
  b->loc = n->loc;
  b->layer = n->layer;
  vjp_rules[n->op](&v);
  for (uint32_t i = 0; i < n->ins.len; i++)
    if (v.wants[i] && v.dins[i])
      autodiff_add(b, cot, n->ins.data[i], v.dins[i]);
}

void autodiff_reverse(Builder *b, const Region *r, uint32_t n_nodes,
                      const Map *active, Map *cot) {
  for (uint32_t i = n_nodes; i-- > 0;) {
    Node *n = r->nodes.data[i];
    if (vjp_rules[n->op] != vjp_zero) reverse_node(b, n, active, cot);
  }
}

/* ---- one grad op ------------------------------------------------------- */

/* Appends to `b` the nodes that `g`, at position `at`, stands for. */
static void replace_grad(Builder *b, Region *r, uint32_t at) {
  Arena *a = &b->cx->scratch;
  Node *g = r->nodes.data[at];
  Map active = {0}, cot = {0};
  for (uint32_t i = 1; i < g->ins.len; i++)
    map_put(a, &active, g->ins.data[i], g);
  autodiff_active(a, r, at, &active);
  Value *loss = g->ins.data[0];
  autodiff_add(b, &cot, loss, ir_const_like(b, loss, 1.0));
  autodiff_reverse(b, r, at, &active, &cot);
  for (uint32_t i = 1; i < g->ins.len; i++) {
    Value *d = map_get(&cot, g->ins.data[i]);
    if (!d) d = ir_const_like(b, g->ins.data[i], 0.0);
    ir_replace(g->outs.data[i - 1], d);
  }
}

/* ---- gradients as results ---------------------------------------------- */

static bool has_probe(const Entry *e, Sym name) {
  for (uint32_t i = 0; i < e->outs.len; i++)
    if (e->outs.data[i].kind == BIND_PROBE &&
        strcmp(e->outs.data[i].name, name) == 0)
      return true;
  return false;
}

/* The slot that a value holds, NULL: it is no parameter, or of an input. */
static Sym slot_path(const Entry *e, const Value *v) {
  for (uint32_t i = 0; i < e->ins.len; i++)
    if (e->region->params.data[i] == v && e->ins.data[i].kind == BIND_SLOT)
      return e->ins.data[i].name;
  return NULL;
}

/* Makes results of what a grad op gives for slots. */
static void keep_grads(Ctx *cx, Entry *e, const Node *g) {
  for (uint32_t i = 1; i < g->ins.len; i++) {
    Sym path = slot_path(e, g->ins.data[i]);
    if (!path) continue;
    Sym name = sym_fmt(cx, "grad/%s", path);
    if (has_probe(e, name)) {
      diag_error(cx, g->span, "@%s has a probe \"%s\" already", e->name, name);
      continue;
    }
    Binding to = {.kind = BIND_PROBE, .name = name};
    vec_push(&cx->perm, &e->outs, to);
    vec_push(&cx->perm, &e->region->results, g->outs.data[i - 1]);
  }
}

/* ---- the pass ---------------------------------------------------------- */

/* Replaces the first grad op of the entry; false when there is none. */
static bool expand_first(Ctx *cx, Entry *e, bool keep) {
  Region *r = e->region;
  uint32_t at = 0;
  while (at < r->nodes.len && r->nodes.data[at]->op != OP_grad)
    at++;
  if (at == r->nodes.len) return false;
  if (keep) keep_grads(cx, e, r->nodes.data[at]);
  NodeVec nodes = {0};
  for (uint32_t i = 0; i < at; i++)
    vec_push(&cx->perm, &nodes, r->nodes.data[i]);
  Builder b = ir_builder_like(cx, r, &nodes, r->nodes.data[at]);
  b.backward = true;
  replace_grad(&b, r, at);
  for (uint32_t i = at + 1; i < r->nodes.len; i++)
    vec_push(&cx->perm, &nodes, r->nodes.data[i]);
  r->nodes = nodes;
  ir_sweep(e);
  return true;
}

/* A grad inside of a loop would be a derivative per iteration. */
static void reject_inner(Ctx *cx, const Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    if (n->op == OP_grad && r->owner)
      diag_error(cx, n->span, "grad inside of a %s",
                 op_info[r->owner->op].name);
    if (n->body) reject_inner(cx, n->body);
  }
}

bool pass_autodiff(Module *m, const PassOptions *o) {
  uint32_t errors = m->cx->errors, found = 0;
  for (uint32_t i = 0; i < m->entries.len; i++) {
    Entry *e = m->entries.data[i];
    reject_inner(m->cx, e->region);
    while (m->cx->errors == errors && expand_first(m->cx, e, o->keep_grads))
      found++;
  }
  if (o->keep_grads && !found && m->cx->errors == errors)
    diag_error(m->cx, (Span){0}, "there are no gradients to keep: no entry "
               "has a minimize");
  return m->cx->errors == errors;
}
