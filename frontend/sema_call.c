/* sema_call.c: calling functions. A call runs the function's body at once; its
 * nodes land in the region of the caller. The path of a call is the chain of
 * `as` names, or of let-names and callees, that leads to it. */
#include "sema.h"

#include <string.h>

/* ---- paths --------------------------------------------------------------- */

Sym path_join(Sema *S, Sym path, Sym more) {
  if (!*more) return path;
  return *path ? sym_fmt(S->cx, "%s/%s", path, more) : more;
}

/* Names after `as` end up in file and report names. */
static bool is_path(Sym text) {
  for (const char *p = text; *p; p++) {
    bool ok = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
              (*p >= '0' && *p <= '9') || strchr("_.-/", *p);
    if (!ok) return false;
  }
  return true;
}

/* What a call adds to the path. */
static Sym component_of(Sema *S, const Expr *callee, const Fn *fn,
                        const Name *as) {
  if (as) {
    if (is_path(as->text)) return as->text;
    fe_error(S, as->span,
             "a name after 'as' has letters, digits and any of "
             "_ . - / in it");
    return sym(S->cx, "");
  }
  Sym name = callee->kind == EX_NAME ? callee->s : fn->decl->name.text;
  return S->frame->let ? sym_fmt(S->cx, "%s/%s", S->frame->let, name) : name;
}

/* ---- arguments ----------------------------------------------------------- */

/* One argument list being bound to a function's parameters. */
typedef struct Bind {
  Sema *S;
  const Decl *decl;
  const ParamVec *params;
  Span call;
  Item *items; /* by parameter */
  bool *given;
} Bind;

static void tell_declared(Bind *b) {
  fe_note(b->S, b->decl->span, "'%s' is declared here", b->decl->name.text);
}

static int param_index(Bind *b, Name name) {
  const char **names =
      NEW_ARRAY(&b->S->cx->perm, const char *, b->params->len + 1);
  for (uint32_t i = 0; i < b->params->len; i++) {
    names[i] = b->params->data[i].name.text;
    if (names[i] == name.text) return (int)i;
  }
  const char *near = nearest_word(name.text, names, b->params->len);
  if (near)
    fe_error(b->S, name.span, "'%s' has no parameter '%s'; did you mean '%s'?",
             b->decl->name.text, name.text, near);
  else
    fe_error(b->S, name.span, "'%s' has no parameter '%s'", b->decl->name.text,
             name.text);
  tell_declared(b);
  return -1;
}

static bool bind_given(Bind *b, const ItemVec *args) {
  uint32_t next = 0;
  bool ok = true;
  for (uint32_t i = 0; i < args->len; i++) {
    const Item *it = &args->data[i];
    int p = it->name.text ? param_index(b, it->name) : (int)next++;
    if (p < 0) return false;
    if ((uint32_t)p >= b->params->len) {
      fe_error(b->S, it->span, "'%s' takes %u argument%s, not %u",
               b->decl->name.text, b->params->len,
               b->params->len == 1 ? "" : "s", args->len);
      tell_declared(b);
      return false;
    }
    if (b->given[p]) {
      fe_error(b->S, it->span, "'%s' got '%s' twice", b->decl->name.text,
               b->params->data[p].name.text);
      fe_note(b->S, b->items[p].span, "the first is here");
      return false;
    }
    b->items[p] = *it;
    b->given[p] = true;
    ok &= it->val.kind != VAL_ERROR;
  }
  for (uint32_t i = 0; i < b->params->len; i++) {
    const ParamDecl *p = &b->params->data[i];
    if (b->given[i] || p->init) continue;
    fe_error(b->S, b->call, "'%s' lacks an argument for '%s'",
             b->decl->name.text, p->name.text);
    tell_declared(b);
    return false;
  }
  return ok;
}

static bool is_literal(const Expr *e) {
  if (e->kind == EX_UNARY) e = e->unary.a;
  return e->kind == EX_INT || e->kind == EX_FLOAT || e->kind == EX_BOOL ||
         e->kind == EX_STRING;
}

/* Evaluates the defaults that are literals, or the others. */
static bool bind_defaults(Bind *b, bool literals) {
  for (uint32_t i = 0; i < b->params->len; i++) {
    const ParamDecl *p = &b->params->data[i];
    if (b->given[i] || !p->init || is_literal(p->init) != literals) continue;
    b->items[i] = fe_item(b->S, p->init);
    b->given[i] = true;
    if (b->items[i].val.kind == VAL_ERROR) return false;
    scope_add(b->S, p->name, b->items[i].val);
  }
  return true;
}

/* Checks types in the order of the parameters; those whose value comes from a
 * default that needs their dims come `late`. */
static bool match_types(Bind *b, bool *done) {
  Sema *S = b->S;
  for (uint32_t i = 0; i < b->params->len; i++) {
    const ParamDecl *p = &b->params->data[i];
    if (!p->type || !b->given[i] || done[i]) continue;
    Sym what = sym_fmt(S->cx, "'%s'", p->name.text);
    if (!type_match(S, p->type, &b->items[i], what)) return false;
    scope_find(S, p->name.text)->val = b->items[i].val;
    done[i] = true;
  }
  return true;
}

/* Arguments first, so that types may name any of them; then types, which give
 * dims their sizes; then the defaults that may use those. */
static bool bind_params(Sema *S, const Decl *decl, const ParamVec *params,
                        Span call, const ItemVec *args) {
  Arena *a = &S->cx->perm;
  Bind b = {.S = S,
            .decl = decl,
            .params = params,
            .call = call,
            .items = NEW_ARRAY(a, Item, params->len + 1),
            .given = NEW_ARRAY(a, bool, params->len + 1)};
  bool *done = NEW_ARRAY(a, bool, params->len + 1);
  if (!bind_given(&b, args)) return false;
  for (uint32_t i = 0; i < params->len; i++)
    if (b.given[i]) scope_add(S, params->data[i].name, b.items[i].val);
  return bind_defaults(&b, true) && match_types(&b, done) &&
         bind_defaults(&b, false) && match_types(&b, done);
}

/* ---- running ------------------------------------------------------------- */

static Val check_results(Sema *S, Frame *f, Val v) {
  const TypeExprVec *types = &f->decl->results;
  Item one = {.val = v, .span = f->returned_at};
  if (!f->decl->typed || v.kind == VAL_ERROR) return v;
  uint32_t n = v.kind == VAL_TUPLE ? v.tuple.n : 1;
  if (n != types->len) {
    fe_error(S, f->returned ? f->returned_at : f->decl->span,
             "'%s' must return %u value%s, but returns %u", f->decl->name.text,
             types->len, types->len == 1 ? "" : "s", n);
    return val_error;
  }
  Val *items = NEW_ARRAY(&S->cx->perm, Val, n + 1);
  for (uint32_t i = 0; i < n; i++) {
    if (v.kind == VAL_TUPLE) one.val = v.tuple.items[i];
    Sym what =
        n == 1 ? sym(S->cx, "the result") : sym_fmt(S->cx, "result %u", i + 1);
    if (!type_match(S, types->data[i], &one, what)) return val_error;
    items[i] = one.val;
  }
  return v.kind == VAL_TUPLE ? val_tuple(S, items, n) : items[0];
}

static Val run_body(Sema *S, Frame *f) {
  Sym layer = S->b.layer;
  S->b.layer = f->path;
  fe_body(S, &f->decl->body);
  S->b.layer = layer;
  return check_results(S, f, f->returned ? f->result : val_tuple(S, NULL, 0));
}

static LocalVec copy_locals(Sema *S, const LocalVec *from) {
  LocalVec to = *from;
  to.cap = to.len;
  to.data = arena_copy(&S->cx->perm, from->data, from->len * sizeof(Local));
  return to;
}

Val fe_invoke(Sema *S, const Fn *fn, const ItemVec *args, Span s,
              Sym component) {
  if (!fn->decl) return builtin_call(S, fn, s, args);
  if (S->calls == MAX_CALLS) {
    fe_error(S, s, "calls are nested more than %d deep: does '%s' call itself?",
             MAX_CALLS, fn->decl->name.text);
    return val_error;
  }
  Scope scope = {0};
  if (fn->bound) scope.locals = copy_locals(S, &fn->locals);
  Frame f = {.up = S->frame,
             .decl = fn->decl,
             .call = s,
             .scope = &scope,
             .path = path_join(S, S->frame->path, component),
             .lead = fn->lead};
  bool last = fn->bound || !fn->decl->curried;
  Val v = val_error;
  S->frame = &f;
  S->calls++;
  if (bind_params(S, fn->decl, fn->bound ? &fn->decl->more : &fn->decl->params,
                  s, args))
    v = last ? run_body(S, &f)
             : val_fn(S, (Fn){.decl = fn->decl,
                              .bound = true,
                              .locals = scope.locals,
                              .lead = f.lead});
  S->calls--;
  S->frame = f.up;
  return v;
}

/* ---- calls --------------------------------------------------------------- */

Val fe_apply(Sema *S, const Expr *e, Item callee, const ItemVec *args,
             const Name *as) {
  if (callee.val.kind == VAL_ERROR) return val_error;
  if (callee.val.kind != VAL_FN) {
    fe_error(S, callee.span, "this is %s, not a function",
             val_text(S, callee.val));
    return val_error;
  }
  const Fn *fn = callee.val.fn;
  bool runs = fn->decl && (fn->bound || !fn->decl->curried);
  if (as && !runs) {
    fe_error(S, as->span,
             "'as' names a call that runs a function of the "
             "model; this one %s",
             fn->decl ? "waits for its second arguments" : "is built in");
    return val_error;
  }
  Sym component =
      runs ? component_of(S, e->call.callee, fn, as) : sym(S->cx, "");
  return fe_invoke(S, fn, args, e->span, component);
}

Val fe_call(Sema *S, const Expr *e, const Name *as) {
  ItemVec args = {0};
  Item callee = fe_item(S, e->call.callee);
  for (uint32_t i = 0; i < e->call.args.len; i++) {
    Item it = fe_item(S, e->call.args.data[i].value);
    it.name = e->call.args.data[i].name;
    vec_push(&S->cx->perm, &args, it);
  }
  return fe_apply(S, e, callee, &args, as);
}
