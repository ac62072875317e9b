/* sema_stmt.c: statements of functions and entries. */
#include "sema.h"

#include <string.h>

/* ---- let ----------------------------------------------------------------- */

/* A node's result is called what the model calls it first. */
static void give_name(Val v, Sym name) {
  if (v.kind == VAL_TENSOR && v.tensor->def && !v.tensor->name &&
      strcmp(name, "_") != 0)
    v.tensor->name = name;
}

static void bind_target(Sema *S, const Target *t, Item it) {
  if (t->type &&
      !type_match(S, t->type, &it, sym_fmt(S->cx, "'%s'", t->name.text)))
    it.val = val_error;
  give_name(it.val, t->name.text);
  scope_add(S, t->name, it.val);
}

static void bind_targets(Sema *S, const Stmt *s, Val v) {
  const TargetVec *targets = &s->let.targets;
  uint32_t n = v.kind == VAL_TUPLE ? v.tuple.n : 1;
  Item it = {.span = s->let.value->span};
  if (v.kind != VAL_ERROR && n != targets->len) {
    fe_error(S, s->let.value->span, "%u name%s, but this gives %s",
             targets->len, targets->len == 1 ? "" : "s",
             n == 1 ? "one value" : val_text(S, v));
    v = val_error;
  }
  for (uint32_t i = 0; i < targets->len; i++) {
    it.val = v.kind == VAL_TUPLE ? v.tuple.items[i] : v;
    bind_target(S, &targets->data[i], it);
  }
}

/* Index form with the axes on its left, as a type would have them. */
static Val placed_form(Sema *S, const Target *target, Val v) {
  TypeExpr t = {.span = target->name.span};
  if (v.kind != VAL_TENSOR) return v;
  for (uint32_t i = 0; i < target->subs.len; i++) {
    const Sub *sub = &target->subs.data[i];
    DimExpr d = {.size = sub->kind == SUB_AT ? sub->lo : NULL,
                 .axes = sub->axes,
                 .span = sub->span};
    vec_push(&S->cx->perm, &t.dims, d);
    t.span = span_join(t.span, sub->span);
  }
  return fe_placed(S, &t, v.tensor);
}

static void run_let(Sema *S, const Stmt *s) {
  const Target *first = &s->let.targets.data[0];
  Sym outer = S->frame->let;
  Val v = val_error;
  bool indexed = false;
  for (uint32_t i = 0; i < s->let.targets.len; i++)
    indexed |= s->let.targets.data[i].indexed;
  S->frame->let = strcmp(first->name.text, "_") == 0 ? NULL : first->name.text;
  if (!indexed)
    v = fe_eval(S, s->let.value);
  else if (s->let.targets.len == 1)
    v = placed_form(S, first, fe_index_form(S, first, s->let.value));
  else
    fe_error(S, s->span, "index form gives one tensor, here are %u names",
             s->let.targets.len);
  S->frame->let = outer;
  bind_targets(S, s, v);
}

/* ---- leaving and going on ------------------------------------------------ */

static Val values_of(Sema *S, const ExprVec *exprs) {
  if (exprs->len == 1) return fe_eval(S, exprs->data[0]);
  Val *items = NEW_ARRAY(&S->cx->perm, Val, exprs->len + 1);
  bool ok = true;
  for (uint32_t i = 0; i < exprs->len; i++) {
    items[i] = fe_item(S, exprs->data[i]).val;
    ok &= items[i].kind != VAL_ERROR;
  }
  return ok ? val_tuple(S, items, exprs->len) : val_error;
}

static void run_return(Sema *S, const Stmt *s) {
  Frame *f = S->frame;
  if (!f->decl || f->decl->kind != DECL_FN) {
    fe_error(S, s->span, "only functions return; an entry reports");
    return;
  }
  if (f->loop) {
    fe_error(S, s->span, "a loop cannot be left by return");
    return;
  }
  f->result = values_of(S, &s->values);
  f->returned = true;
  f->returned_at = s->span;
}

static Carry *find_carry(LoopState *loop, Sym name) {
  for (uint32_t i = 0; i < loop->carries.len; i++)
    if (loop->carries.data[i].name == name) return &loop->carries.data[i];
  return NULL;
}

static void run_next(Sema *S, const Stmt *s) {
  LoopState *loop = S->frame->loop;
  if (!loop) {
    fe_error(S, s->span, "'next' belongs into a loop");
    return;
  }
  for (uint32_t i = 0; i < s->named.len; i++) {
    const Named *n = &s->named.data[i];
    Carry *c = find_carry(loop, n->name.text);
    Item it = fe_item(S, n->value);
    if (!c) {
      fe_error(S, n->name.span, "the loop carries no '%s'", n->name.text);
    } else if (c->is_set) {
      fe_error(S, n->name.span, "'%s' got its next value already",
               n->name.text);
      fe_note(S, c->next.span, "it got it here");
    } else {
      c->next = it;
      c->is_set = c->ever_set = true;
    }
  }
}

static void run_yield(Sema *S, const Stmt *s) {
  LoopState *loop = S->frame->loop;
  if (!loop || !loop->is_scan) {
    fe_error(S, s->span, "'yield' belongs into a scan");
    return;
  }
  if (loop->yielded) {
    fe_error(S, s->span, "this scan yields already");
    fe_note(S, loop->yield_at, "it yields here");
    return;
  }
  loop->yielded = true;
  loop->yield_at = s->span;
  for (uint32_t i = 0; i < s->values.len; i++)
    vec_push(&S->cx->perm, &loop->yields, fe_item(S, s->values.data[i]));
}

/* ---- the others ---------------------------------------------------------- */

static void run_if(Sema *S, const Stmt *s) {
  bool cond;
  Scope scope;
  if (!fe_eval_bool(S, s->branch.cond, "the condition of 'if'", &cond)) return;
  scope_push(S, &scope);
  fe_body(S, cond ? &s->branch.yes : &s->branch.no);
  scope_pop(S);
}

/* The block's nodes share a group; its names stay visible. */
static void run_recompute(Sema *S, const Stmt *s) {
  uint32_t outer = S->b.remat;
  if (S->build) S->b.remat = ++S->build->groups;
  fe_body(S, &s->body);
  S->b.remat = outer;
}

/* What the block sets, it sets only where the condition holds when the program
 * runs. */
static void run_where(Sema *S, const Stmt *s) {
  const Expr *e = s->branch.cond;
  Value *outer = S->where, *cond = fe_tensor(S, fe_item(S, e));
  if (!cond) return;
  if (cond->type.dtype != DT_bool || cond->type.rank != 0) {
    fe_error(S, e->span, "the condition of 'where' must be bool[], but is %s",
             type_text(S->cx, &cond->type));
    return;
  }
  Value *both = outer ? value_here(S, outer, e->span) : NULL;
  S->where = both ? fe_binary_op(S, e->span, OP_and, both, cond) : cond;
  fe_body(S, &s->branch.yes);
  S->where = outer;
}

static void run_outputs(Sema *S, const Stmt *s) {
  for (uint32_t i = 0; i < s->named.len; i++) {
    const Named *n = &s->named.data[i];
    Item it = fe_item(S, n->value);
    if (it.val.kind == VAL_ERROR) continue;
    build_output(S, s->kind == ST_PROBE, n->name, it);
  }
}

static void run_expr(Sema *S, const Stmt *s) {
  Val v = fe_eval(S, s->expr);
  if (v.kind == VAL_ERROR || (v.kind == VAL_TUPLE && v.tuple.n == 0)) return;
  fe_error(S, s->span, "this gives %s that nothing uses", val_text(S, v));
}

static void run_kind(Sema *S, const Stmt *s) {
  switch (s->kind) {
  case ST_LET: run_let(S, s); break;
  case ST_PARAM: fe_param(S, s); break;
  case ST_STATE: fe_state(S, s); break;
  case ST_SET: fe_set(S, s); break;
  case ST_NEXT: run_next(S, s); break;
  case ST_YIELD: run_yield(S, s); break;
  case ST_RETURN: run_return(S, s); break;
  case ST_REPORT:
  case ST_PROBE: run_outputs(S, s); break;
  case ST_MINIMIZE: fe_minimize(S, s); break;
  case ST_IF: run_if(S, s); break;
  case ST_RECOMPUTE: run_recompute(S, s); break;
  case ST_WHERE: run_where(S, s); break;
  case ST_EXPR: run_expr(S, s); break;
  }
}

static void run(Sema *S, const Stmt *s) {
  S->depth++;
  if (fe_step(S, s->span)) run_kind(S, s);
  S->depth--;
}

void fe_body(Sema *S, const StmtVec *body) {
  for (uint32_t i = 0; i < body->len && !S->stopped; i++) {
    if (S->frame->returned && S->frame->result.kind == VAL_ERROR) return;
    if (S->frame->returned) {
      fe_warning(S, body->data[i]->span, "nothing gets here");
      fe_note(S, S->frame->returned_at, "the function returns here");
      return;
    }
    run(S, body->data[i]);
  }
}
