/* sema_value.c: values while compiling, what names mean, and how mistakes are
 * told: once a place however often a function is called, with the calls that
 * led there as notes. */
#include "sema.h"

#include <string.h>

/* ---- values -------------------------------------------------------------- */

const Val val_error = {.kind = VAL_ERROR};

Val val_bool(bool b) {
  return (Val){.kind = VAL_BOOL, .b = b};
}
Val val_int(int64_t i) {
  return (Val){.kind = VAL_INT, .i = i};
}
Val val_float(double f) {
  return (Val){.kind = VAL_FLOAT, .f = f};
}

Val val_string(Sym s) {
  return (Val){.kind = VAL_STRING, .s = s};
}

Val val_type(Sema *S, Type t) {
  return (Val){.kind = VAL_TYPE,
               .type = arena_copy(&S->cx->perm, &t, sizeof t)};
}

Val val_tensor(Value *v) {
  return v ? (Val){.kind = VAL_TENSOR, .tensor = v} : val_error;
}

Val val_tuple(Sema *S, const Val *items, uint32_t n) {
  Val v = {.kind = VAL_TUPLE};
  v.tuple.n = n;
  if (n) v.tuple.items = arena_copy(&S->cx->perm, items, n * sizeof *items);
  return v;
}

Val val_fn(Sema *S, Fn fn) {
  return (Val){.kind = VAL_FN, .fn = arena_copy(&S->cx->perm, &fn, sizeof fn)};
}

bool val_is_number(Val v) {
  return v.kind == VAL_INT || v.kind == VAL_FLOAT;
}

double val_number(Val v) {
  assert(val_is_number(v));
  return v.kind == VAL_INT ? (double)v.i : v.f;
}

Sym val_text(Sema *S, Val v) {
  char number[40];
  switch (v.kind) {
  case VAL_ERROR: return sym(S->cx, "a mistake");
  case VAL_BOOL: return sym(S->cx, v.b ? "true" : "false");
  case VAL_INT: return sym_fmt(S->cx, "the integer %lld", (long long)v.i);
  case VAL_FLOAT:
    format_double(v.f, number);
    return sym_fmt(S->cx, "the number %s", number);
  case VAL_STRING: return sym_fmt(S->cx, "the string \"%s\"", v.s);
  case VAL_FN: return sym(S->cx, "a function");
  case VAL_TENSOR: return type_text(S->cx, &v.tensor->type);
  case VAL_TUPLE:
    return v.tuple.n ? sym_fmt(S->cx, "%u values", v.tuple.n)
                     : sym(S->cx, "nothing");
  case VAL_TYPE: return sym_fmt(S->cx, "the type %s", type_text(S->cx, v.type));
  case VAL_FREEZE: return sym(S->cx, "freeze");
  }
  return sym(S->cx, "");
}

Sym val_plain(Sema *S, Val v) {
  char number[40];
  if (v.kind == VAL_INT) return sym_fmt(S->cx, "%lld", (long long)v.i);
  if (v.kind == VAL_STRING) return v.s;
  if (v.kind != VAL_FLOAT) return val_text(S, v);
  format_double(v.f, number);
  return sym(S->cx, number);
}

/* ---- mistakes ------------------------------------------------------------ */

enum { CHAIN_SHOWN = 3 };

void fe_flush(Sema *S) {
  for (uint32_t i = 0; i < S->chain.len; i++) {
    const Frame *f = &S->chain.data[i];
    diag_note(S->cx, f->call, "in '%s', called here", f->decl->name.text);
  }
  S->chain.len = 0;
}

static bool is_within(Span s, Span outer) {
  return s.file == outer.file && s.lo >= outer.lo && s.hi <= outer.hi;
}

/* Remembers the calls around, innermost first: but for one whose text the
 * mistake is in, and one that is there already. */
static void keep_chain(Sema *S, Span at) {
  S->chain.len = 0;
  for (Frame *f = S->frame; f && S->chain.len < CHAIN_SHOWN; f = f->up) {
    bool told = is_within(at, f->call);
    for (uint32_t i = 0; i < S->chain.len; i++)
      told |= is_within(f->call, S->chain.data[i].call);
    if (!told && f->decl && f->decl->kind == DECL_FN)
      vec_push(&S->cx->perm, &S->chain, *f);
  }
}

/* True the first time that a place is told of with this severity. */
static bool is_first(Sema *S, Severity severity, Span s) {
  uint64_t key = hash_bytes(severity, (uint32_t[]){s.file, s.lo, s.hi}, 12);
  const void *place = (const void *)(uintptr_t)key;
  if (s.file == 0) return true;
  if (map_get(&S->reported, place)) return false;
  map_put(&S->cx->perm, &S->reported, place, S);
  return true;
}

static Sym format(Sema *S, const char *fmt, va_list args) {
  char text[600];
  int n = vsnprintf(text, sizeof text, fmt, args);
  if (n < 0) internal_error("bad format \"%s\"", fmt);
  return sym(S->cx, text);
}

bool fe_error(Sema *S, Span s, const char *fmt, ...) {
  fe_flush(S);
  S->muted = !is_first(S, SEV_ERROR, s);
  if (S->muted) return false;
  va_list args;
  va_start(args, fmt);
  diag_error(S->cx, s, "%s", format(S, fmt, args));
  va_end(args);
  keep_chain(S, s);
  return true;
}

void fe_warning(Sema *S, Span s, const char *fmt, ...) {
  fe_flush(S);
  S->muted = !is_first(S, SEV_WARNING, s);
  if (S->muted) return;
  va_list args;
  va_start(args, fmt);
  diag_warning(S->cx, s, "%s", format(S, fmt, args));
  va_end(args);
}

void fe_note(Sema *S, Span s, const char *fmt, ...) {
  if (S->muted) return;
  va_list args;
  va_start(args, fmt);
  diag_note(S->cx, s, "%s", format(S, fmt, args));
  va_end(args);
}

void fe_settle(Sema *S) {
  DiagVec *all = &S->cx->diags;
  assert(all->len);
  Span at = all->data[all->len - 1].span;
  S->muted = !is_first(S, SEV_ERROR, at);
  if (S->muted) {
    all->len--;
    S->cx->errors--;
    return;
  }
  keep_chain(S, at);
}

/* ---- scopes -------------------------------------------------------------- */

void scope_push(Sema *S, Scope *scope) {
  *scope = (Scope){.up = S->frame->scope};
  S->frame->scope = scope;
}

void scope_pop(Sema *S) {
  S->frame->scope = S->frame->scope->up;
}

static Local *find_in(LocalVec *locals, Sym name) {
  for (uint32_t i = locals->len; i > 0; i--)
    if (locals->data[i - 1].name == name) return &locals->data[i - 1];
  return NULL;
}

Local *scope_add(Sema *S, Name name, Val val) {
  LocalVec *locals = &S->frame->scope->locals;
  Local *old = find_in(locals, name.text);
  bool blank = strcmp(name.text, "_") == 0;
  if (old && !blank) {
    fe_error(S, name.span, "'%s' has a value already", name.text);
    fe_note(S, old->span, "it was given here");
    return old;
  }
  vec_push(&S->cx->perm, locals,
           ((Local){.name = name.text, .val = val, .span = name.span}));
  return &locals->data[locals->len - 1];
}

Local *scope_find(Sema *S, Sym name) {
  for (Scope *s = S->frame->scope; s; s = s->up) {
    Local *l = find_in(&s->locals, name);
    if (l) return l;
  }
  return NULL;
}

/* ---- tensors across regions ---------------------------------------------- */

/* `v` as a parameter of the scan's body. */
static Value *captured(Sema *S, ScanState *scan, Value *v) {
  if (!scan || v->region == scan->body) return v;
  Value *outside = captured(S, scan->up, v);
  for (uint32_t i = 0; i < scan->outside.len; i++)
    if (scan->outside.data[i] == outside) return scan->inside.data[i];
  Value *inside = ir_param(S->cx, scan->body, v->name, v->type);
  vec_push(&S->cx->perm, &scan->outside, outside);
  vec_push(&S->cx->perm, &scan->inside, inside);
  return inside;
}

Value *value_here(Sema *S, Value *v, Span at) {
  if (v->region == S->b.region) return v;
  if (S->build && v->region->entry == S->build->entry)
    return captured(S, S->scan, v);
  fe_error(S, at, "an initial value cannot depend on tensors of the entry");
  return NULL;
}

Val val_here(Sema *S, Val v, Span at) {
  if (v.kind == VAL_TENSOR) return val_tensor(value_here(S, v.tensor, at));
  if (v.kind != VAL_TUPLE) return v;
  Val t = val_tuple(S, v.tuple.items, v.tuple.n);
  for (uint32_t i = 0; i < t.tuple.n; i++)
    t.tuple.items[i] = val_here(S, t.tuple.items[i], at);
  return t;
}

/* ---- names --------------------------------------------------------------- */

void name_unknown(Sema *S, Name name, const char *what) {
  VEC(const char *) all = {0};
  Arena *a = &S->cx->perm;
  for (Scope *s = S->frame->scope; s; s = s->up)
    for (uint32_t i = 0; i < s->locals.len; i++)
      vec_push(a, &all, s->locals.data[i].name);
  for (uint32_t i = 0; i < S->all.len; i++)
    vec_push(a, &all, S->all.data[i]->decl->name.text);
  uint32_t n_builtins;
  const char *const *builtins = builtin_names(S, &n_builtins);
  for (uint32_t i = 0; i < n_builtins; i++)
    vec_push(a, &all, builtins[i]);
  const char *near = nearest_word(name.text, all.data, all.len);
  if (near)
    fe_error(S, name.span, "unknown %s '%s'; did you mean '%s'?", what,
             name.text, near);
  else
    fe_error(S, name.span, "unknown %s '%s'", what, name.text);
}

static Val global_value(Sema *S, Global *g, Span at) {
  switch (g->decl->kind) {
  case DECL_CONST: return global_const(S, g, at);
  case DECL_OPTION: return val_tensor(build_option(S, g->decl->name.text, at));
  case DECL_FN: return val_fn(S, (Fn){.decl = g->decl});
  case DECL_IMPORT:
  case DECL_MESH:
  case DECL_ENTRY: break;
  }
  internal_error("'%s' is no global", g->decl->name.text);
}

static Val grad_norm(Sema *S, Span at) {
  if (S->in_optimiser) return val_tensor(S->build->grad_norm);
  fe_error(S, at, "grad_norm is known in optimisers only");
  return val_error;
}

/* Words that mean something in every entry. */
static bool special(Sema *S, Name name, Val *out) {
  if (strcmp(name.text, "training") == 0)
    *out = val_bool(S->build && S->build->training);
  else if (strcmp(name.text, "freeze") == 0)
    *out = (Val){.kind = VAL_FREEZE};
  else if (strcmp(name.text, "step") == 0)
    *out = val_tensor(build_step(S, name.span));
  else if (strcmp(name.text, "seed") == 0)
    *out = val_tensor(build_seed(S, name.span));
  else if (strcmp(name.text, "grad_norm") == 0)
    *out = grad_norm(S, name.span);
  else
    return false;
  return true;
}

Val name_value(Sema *S, Name name) {
  Local *l = scope_find(S, name.text);
  if (l) return l->val;
  Global *g = map_get(&S->globals, name.text);
  if (g) return global_value(S, g, name.span);
  Val v;
  Fn fn = {0};
  if (special(S, name, &v)) return v;
  if (builtin_find(name.text, &fn)) return val_fn(S, fn);
  name_unknown(S, name, "name");
  return val_error;
}
