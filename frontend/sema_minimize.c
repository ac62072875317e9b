/* sema_minimize.c: minimize loss with { "pattern": optimiser }.
 *
 * The loss becomes a `grad` node over the parameters that it depends on; each
 * one's optimiser, the first whose pattern matches, is then called with the
 * parameter and its gradient, and its result is the parameter's next value. */
#include "sema.h"

#include <math.h>
#include <string.h>

/* One rule while its parameters are looked for. */
typedef struct Choice {
  Item optimiser;
  uint32_t matched;
} Choice;

/* One parameter with its optimiser. */
typedef struct Trained {
  SlotUse *use;
  const Rule *rule;
  Item optimiser;
  Value *gradient;
} Trained;
typedef VEC(Trained) TrainedVec;

/* ---- who depends on what ------------------------------------------------- */

/* Marks in `seen` what the value is computed from, as far as gradients go. */
static void reach(Sema *S, Value *v, Map *seen) {
  VEC(Value *) work = {0};
  Arena *a = &S->cx->perm;
  vec_push(a, &work, v);
  while (work.len) {
    Value *w = work.data[--work.len];
    bool is_float = dtype_info[w->type.dtype].kind == DK_FLOAT;
    if (!is_float || map_get(seen, w)) continue;
    map_put(a, seen, w, w);
    if (!w->def || w->def->op == OP_stop_gradient) continue;
    for (uint32_t i = 0; i < w->def->ins.len; i++)
      vec_push(a, &work, w->def->ins.data[i]);
  }
}

/* ---- rules --------------------------------------------------------------- */

static bool check_optimiser(Sema *S, const Item *it) {
  if (it->val.kind == VAL_FREEZE || it->val.kind == VAL_ERROR)
    return it->val.kind == VAL_FREEZE;
  if (it->val.kind == VAL_FN) return true;
  fe_error(S, it->span, "an optimiser is a function or freeze, but this is %s",
           val_text(S, it->val));
  return false;
}

/* The first rule whose pattern matches; -1: none. */
static int rule_for(const RuleVec *rules, Sym path) {
  for (uint32_t i = 0; i < rules->len; i++)
    if (path_match(rules->data[i].pattern.text, path)) return (int)i;
  return -1;
}

/* What a pattern may match, as a note; with many, the first of them. */
static void list_params(Sema *S) {
  enum { LISTED = 6 };
  Buf text = {0};
  uint32_t n = 0;
  for (uint32_t k = 0; k < S->build->slots.len; k++) {
    const Slot *slot = S->build->slots.data[k]->slot;
    if (slot->kind != SLOT_PARAM) continue;
    if (n++ < LISTED) buf_fmt(&text, "%s%s", n > 1 ? ", " : "", slot->path);
  }
  if (n > LISTED) buf_fmt(&text, " and %u more", n - LISTED);
  if (n) fe_note(S, (Span){0}, "the parameters are %s", text.data);
  buf_free(&text);
}

static void tell_unmatched(Sema *S, const RuleVec *rules,
                           const Choice *choices) {
  for (uint32_t i = 0; i < rules->len; i++) {
    const Name *p = &rules->data[i].pattern;
    bool any = false;
    if (choices[i].matched) continue;
    for (uint32_t k = 0; k < S->build->slots.len; k++) {
      const Slot *slot = S->build->slots.data[k]->slot;
      any |= slot->kind == SLOT_PARAM && path_match(p->text, slot->path);
    }
    if (any) {
      fe_error(S, p->span,
               "every parameter that \"%s\" matches is taken by a "
               "pattern before it",
               p->text);
    } else {
      fe_error(S, p->span, "no parameter matches \"%s\"", p->text);
      list_params(S);
    }
  }
}

/* Picks each parameter's optimiser; those that train are collected. What the
 * model has set itself is no optimiser's. */
static bool choose(Sema *S, const Stmt *s, const Map *seen, TrainedVec *out) {
  const RuleVec *rules = &s->minimize.rules;
  Choice *choices = NEW_ARRAY(&S->cx->perm, Choice, rules->len + 1);
  bool ok = true;
  for (uint32_t i = 0; i < rules->len; i++) {
    choices[i].optimiser = fe_item(S, rules->data[i].optimiser);
    ok &= check_optimiser(S, &choices[i].optimiser);
  }
  for (uint32_t i = 0; i < S->build->slots.len; i++) {
    SlotUse *use = S->build->slots.data[i];
    if (use->slot->kind != SLOT_PARAM || use->after) continue;
    int r = rule_for(rules, use->slot->path);
    if (r < 0) {
      fe_error(S, s->span, "no pattern matches parameter '%s'",
               use->slot->path);
      fe_note(S, use->span, "it is declared here");
      ok = false;
      continue;
    }
    choices[r].matched++;
    if (choices[r].optimiser.val.kind == VAL_FREEZE) continue;
    if (!map_get(seen, use->before)) {
      fe_warning(S, use->span,
                 "parameter '%s' is not trained: the loss does "
                 "not depend on it",
                 use->slot->path);
      continue;
    }
    vec_push(&S->cx->perm, out,
             ((Trained){use, &rules->data[r], choices[r].optimiser, NULL}));
  }
  uint32_t before = S->cx->errors;
  tell_unmatched(S, rules, choices);
  return ok && S->cx->errors == before;
}

/* ---- gradients ----------------------------------------------------------- */

static bool make_grad(Sema *S, Span s, Value *loss, TrainedVec *all) {
  ValueVec ins = {0};
  vec_push(&S->cx->perm, &ins, loss);
  for (uint32_t i = 0; i < all->len; i++)
    vec_push(&S->cx->perm, &ins, all->data[i].use->before);
  Node *n = fe_node(S, s, OP_grad, NULL, ins.data, ins.len, NULL);
  if (!n) return false;
  for (uint32_t i = 0; i < all->len; i++) {
    all->data[i].gradient = n->outs.data[i];
    n->outs.data[i]->name = sym_fmt(S->cx, "d_%s", ins.data[i + 1]->name);
  }
  return true;
}

/* sqrt of the sum of squares over all gradients. */
static Value *norm(Sema *S, Span s, const TrainedVec *all) {
  Value *sum = NULL;
  for (uint32_t i = 0; i < all->len; i++) {
    Value *g = fe_cast(S, s, all->data[i].gradient, DT_f32);
    Value *square = g ? fe_binary_op(S, s, OP_mul, g, g) : NULL;
    Value *part = square ? fe_reduce(S, s, OP_reduce_sum, square,
                                     (1u << square->type.rank) - 1)
                         : NULL;
    sum = sum && part ? fe_binary_op(S, s, OP_add, sum, part) : part;
    if (!sum) return NULL;
  }
  return fe_unary_op(S, s, OP_sqrt, sum);
}

/* A step counts only where loss and gradients are finite. */
static void make_ok(Sema *S, Span s, Value *loss, Value *grad_norm) {
  Value *a = fe_unary_op(S, s, OP_is_finite, loss);
  Value *b = fe_unary_op(S, s, OP_is_finite, grad_norm);
  S->build->loss = loss;
  S->build->grad_norm = grad_norm;
  S->build->ok = a && b ? fe_binary_op(S, s, OP_and, a, b) : NULL;
}

/* ---- updates ------------------------------------------------------------- */

/* Calls the optimiser in the path of the parameter. */
static void update(Sema *S, const Trained *t) {
  Frame *f = S->frame;
  const Fn *fn = t->optimiser.val.fn;
  SlotUse *use = t->use;
  ItemVec args = {0};
  Sym path = f->path, layer = S->b.layer;
  Span s = t->rule->optimiser->span;
  vec_push(&S->cx->perm, &args,
           ((Item){.val = val_tensor(use->before), .span = s}));
  vec_push(&S->cx->perm, &args,
           ((Item){.val = val_tensor(t->gradient), .span = s}));
  f->path = use->slot->path;
  S->b.layer = use->slot->path;
  Sym name = sym(S->cx, fn->decl ? fn->decl->name.text : "");
  Item it = {.val = fe_invoke(S, fn, &args, s, name), .span = s};
  f->path = path;
  S->b.layer = layer;
  if (it.val.kind == VAL_ERROR) return;
  if (it.val.kind != VAL_TENSOR ||
      !type_equal(&it.val.tensor->type, &use->slot->type)) {
    fe_error(S, s, "the optimiser of '%s' must give %s, but gives %s",
             use->slot->path, type_text(S->cx, &use->slot->type),
             val_text(S, it.val));
    return;
  }
  use->layer = path_join(S, use->slot->path, name);
  use->after = it.val.tensor;
  use->set_at = s;
}

static bool may_minimize(Sema *S, const Stmt *s) {
  if (!S->build || S->build->starting || S->scan || S->in_optimiser ||
      S->where) {
    fe_error(S, s->span,
             "minimize stands in an entry, not in a loop, an optimiser or "
             "where");
    return false;
  }
  if (!S->build->minimized.file) return true;
  fe_error(S, s->span, "an entry minimizes once");
  fe_note(S, S->build->minimized, "it does so here");
  return false;
}

static Value *loss_value(Sema *S, const Expr *e) {
  Item it = fe_item(S, e);
  Value *v = it.val.kind == VAL_ERROR ? NULL : fe_tensor(S, it);
  if (!v) return NULL;
  if (v->type.rank == 0 && v->type.dtype == DT_f32) return v;
  fe_error(S, e->span, "the loss must be f32[], but is %s",
           type_text(S->cx, &v->type));
  return NULL;
}

void fe_minimize(Sema *S, const Stmt *s) {
  Map seen = {0};
  TrainedVec all = {0};
  if (!may_minimize(S, s)) return;
  S->build->minimized = s->span;
  Value *loss = loss_value(S, s->minimize.loss);
  if (!loss) return;
  reach(S, loss, &seen);
  if (!choose(S, s, &seen, &all)) return;
  if (!all.len) {
    fe_error(S, s->span, "there is no parameter to train");
    return;
  }
  S->build->declared = S->build->slots.len;
  if (!make_grad(S, s->span, loss, &all)) return;
  Value *grad_norm = norm(S, s->span, &all);
  if (!grad_norm) return;
  make_ok(S, s->span, loss, grad_norm);
  S->in_optimiser = true;
  for (uint32_t i = 0; i < all.len; i++)
    update(S, &all.data[i]);
  S->in_optimiser = false;
}
