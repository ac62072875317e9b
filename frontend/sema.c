/* sema.c: a model as a whole: files and imports, consts, options and mesh, then
 * every entry in turn. */
#include "sema.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- files --------------------------------------------------------------- */

static void load(Sema *S, uint32_t file);

/* "a/b/c.dsl" and "d.dsl" make "a/b/d.dsl". */
static Sym beside(Sema *S, Sym path, const char *dir, Sym name) {
  const char *slash = strrchr(path, '/');
  int len = slash ? (int)(slash - path) + 1 : 0;
  if (name[0] == '/') return name;
  return sym_fmt(S->cx, "%.*s%s%s", len, path, dir, name);
}

/* Reads the file unless it was read before; false: it cannot be read. */
static bool load_path(Sema *S, Sym path) {
  char real[PATH_MAX];
  uint32_t file;
  if (!realpath(path, real)) return false;
  Sym key = sym(S->cx, real);
  if (map_get(&S->files, key)) return true;
  if (!source_read(S->cx, path, &file)) return false;
  map_put(&S->cx->perm, &S->files, key, S);
  load(S, file);
  return true;
}

static void import(Sema *S, const Decl *d, Sym from) {
  VEC(Sym) tried = {0};
  Arena *a = &S->cx->perm;
  if (S->o->sealed) {
    fe_error(S, d->span, "imports are refused here");
    return;
  }
  vec_push(a, &tried, beside(S, from, "", d->name.text));
  for (uint32_t i = 0; i < S->o->n_includes; i++)
    vec_push(a, &tried,
             sym_fmt(S->cx, "%s/%s", S->o->includes[i], d->name.text));
  vec_push(a, &tried, beside(S, from, "models/", d->name.text));
  for (uint32_t i = 0; i < tried.len; i++) {
    if (load_path(S, tried.data[i])) return;
    if (errno == ENOENT || errno == ENOTDIR) continue;
    fe_error(S, d->name.span, "cannot read '%s': %s", tried.data[i],
             strerror(errno));
    return;
  }
  fe_error(S, d->name.span, "cannot find '%s'", d->name.text);
  for (uint32_t i = 0; i < tried.len; i++)
    if (i == 0 || tried.data[i] != tried.data[0])
      fe_note(S, (Span){0}, "looked for '%s'", tried.data[i]);
}

/* ---- declarations -------------------------------------------------------- */

static void add_global(Sema *S, const Decl *d) {
  Global *old = map_get(&S->globals, d->name.text);
  if (old) {
    fe_error(S, d->name.span, "'%s' is declared already", d->name.text);
    fe_note(S, old->decl->name.span, "it is declared here");
    return;
  }
  Global *g = NEW(&S->cx->perm, Global);
  g->decl = d;
  map_put(&S->cx->perm, &S->globals, d->name.text, g);
  vec_push(&S->cx->perm, &S->all, g);
}

static void add_unique(Sema *S, DeclVec *list, Decl *d, const char *what) {
  for (uint32_t i = 0; i < list->len; i++) {
    if (list->data[i]->name.text != d->name.text) continue;
    fe_error(S, d->name.span, "%s '%s' is declared already", what,
             d->name.text);
    fe_note(S, list->data[i]->name.span, "it is declared here");
    return;
  }
  vec_push(&S->cx->perm, list, d);
}

static void add_entry(Sema *S, Decl *d) {
  if (strcmp(d->name.text, "init") == 0 || strcmp(d->name.text, "reset") == 0)
    fe_error(S, d->name.span, "every model has an entry '%s' of itself",
             d->name.text);
  else
    add_unique(S, &S->entries, d, "entry");
}

static void load(Sema *S, uint32_t file) {
  DeclVec decls = fe_parse(S->cx, file);
  Sym path = S->cx->sources.data[file - 1].path;
  for (uint32_t i = 0; i < decls.len; i++) {
    Decl *d = decls.data[i];
    switch (d->kind) {
    case DECL_IMPORT: import(S, d, path); break;
    case DECL_CONST:
    case DECL_OPTION:
    case DECL_FN: add_global(S, d); break;
    case DECL_MESH: add_unique(S, &S->axes, d, "mesh axis"); break;
    case DECL_ENTRY: add_entry(S, d); break;
    }
  }
}

/* ---- consts -------------------------------------------------------------- */

/* The value of text from -D, of the kind that the const has without it. */
static bool read_define(const char *text, Val *v) {
  char *end;
  errno = 0;
  switch (v->kind) {
  case VAL_INT: v->i = strtoll(text, &end, 10); break;
  case VAL_FLOAT: v->f = strtod(text, &end); break;
  case VAL_BOOL:
    v->b = strcmp(text, "true") == 0;
    return v->b || strcmp(text, "false") == 0;
  case VAL_STRING:
  case VAL_ERROR:
  case VAL_FN:
  case VAL_TENSOR:
  case VAL_TUPLE:
  case VAL_TYPE:
  case VAL_FREEZE: return false;
  }
  return end != text && !*end && errno == 0;
}

static void apply_define(Sema *S, Global *g) {
  Name name = g->decl->name;
  Val v = g->val;
  if (v.kind == VAL_STRING) {
    g->val = val_string(sym(S->cx, g->define));
    return;
  }
  if (read_define(g->define, &v)) {
    g->val = v;
    return;
  }
  fe_error(S, (Span){0}, "-D %s=%s: '%s' is %s", name.text, g->define,
           name.text,
           v.kind == VAL_INT     ? "an integer"
           : v.kind == VAL_FLOAT ? "a number"
                                 : "true or false");
  fe_note(S, name.span, "it is declared here");
}

static Val const_value(Sema *S, Global *g) {
  Item it = fe_item(S, g->decl->value);
  switch (it.val.kind) {
  case VAL_INT:
  case VAL_FLOAT:
  case VAL_BOOL:
  case VAL_STRING:
  case VAL_ERROR: return it.val;
  case VAL_FN:
  case VAL_TENSOR:
  case VAL_TUPLE:
  case VAL_TYPE:
  case VAL_FREEZE: break;
  }
  fe_error(S, it.span,
           "a const is a number, a string, true or false, but this "
           "is %s",
           val_text(S, it.val));
  return val_error;
}

Val global_const(Sema *S, Global *g, Span at) {
  if (g->state == GLOBAL_DONE) return g->val;
  if (g->state == GLOBAL_BUSY) {
    fe_error(S, at, "'%s' depends on itself", g->decl->name.text);
    return val_error;
  }
  Frame *frame = S->frame;
  Build *build = S->build;
  S->frame = &S->top;
  S->build = NULL;
  g->state = GLOBAL_BUSY;
  g->val = const_value(S, g);
  g->state = GLOBAL_DONE;
  S->frame = frame;
  S->build = build;
  if (g->define && g->val.kind != VAL_ERROR) apply_define(S, g);
  return g->val;
}

/* ---- the command line's part --------------------------------------------- */

Sym fe_split(Sema *S, const char *text, const char **value) {
  const char *eq = strchr(text, '=');
  *value = eq ? eq + 1 : NULL;
  return eq ? sym_n(S->cx, text, (size_t)(eq - text)) : NULL;
}

static void read_defines(Sema *S) {
  const char **names = NEW_ARRAY(&S->cx->perm, const char *, S->all.len + 1);
  uint32_t n = 0;
  for (uint32_t i = 0; i < S->all.len; i++)
    if (S->all.data[i]->decl->kind == DECL_CONST)
      names[n++] = S->all.data[i]->decl->name.text;
  for (uint32_t i = 0; i < S->o->n_defines; i++) {
    const char *value, *text = S->o->defines[i];
    Sym name = fe_split(S, text, &value);
    Global *g = name ? map_get(&S->globals, name) : NULL;
    if (g && g->decl->kind == DECL_CONST) {
      g->define = value;
      continue;
    }
    const char *near = name ? nearest_word(name, names, n) : NULL;
    if (!name)
      fe_error(S, (Span){0}, "-D %s: must be NAME=VALUE", text);
    else if (near)
      fe_error(S, (Span){0},
               "-D %s: the model has no const '%s'; did you mean "
               "'%s'?",
               text, name, near);
    else
      fe_error(S, (Span){0}, "-D %s: the model has no const '%s'", text, name);
  }
}

static void read_options(Sema *S) {
  for (uint32_t i = 0; i < S->all.len; i++) {
    const Decl *d = S->all.data[i]->decl;
    if (d->kind != DECL_OPTION) continue;
    Item it = fe_item(S, d->value);
    if (val_is_number(it.val)) {
      Option o = {.name = d->name.text,
                  .value = val_number(it.val),
                  .span = d->name.span};
      vec_push(&S->cx->perm, &S->m->options, o);
    } else if (it.val.kind != VAL_ERROR) {
      fe_error(S, it.span, "an option is a number, but this is %s",
               val_text(S, it.val));
    }
  }
}

/* ---- the whole ----------------------------------------------------------- */

static void compile(Sema *S) {
  read_defines(S);
  fe_mesh(S);
  if (S->o->fitted) fe_fit(S);
  for (uint32_t i = 0; i < S->all.len; i++)
    if (S->all.data[i]->decl->kind == DECL_CONST)
      global_const(S, S->all.data[i], S->all.data[i]->decl->span);
  read_options(S);
  if (!S->entries.len)
    fe_error(S, (Span){0}, "'%s' has no entry, so there is nothing to compile",
             S->o->path);
  S->init = build_new(S, sym(S->cx, "init"), (Span){0}, NULL);
  S->reset = build_new(S, sym(S->cx, "reset"), (Span){0}, NULL);
  for (uint32_t i = 0; i < S->entries.len; i++)
    fe_entry(S, S->entries.data[i]);
  fe_put_in_order(S);
  fe_flush(S);
}

/* The model's own file as a registered source; false: reported. */
static bool open_model(Ctx *cx, const FeOptions *o, uint32_t *file) {
  *file = o->file;
  if (*file || source_read(cx, o->path, file)) return true;
  diag_error(cx, (Span){0}, "cannot read '%s': %s", o->path, strerror(errno));
  return false;
}

/* The model with all that it imports, parsed. NULL: diagnostics were
 * reported. */
static Sema *load_model(Ctx *cx, const FeOptions *o) {
  Sema *S = NEW(&cx->perm, Sema);
  char real[PATH_MAX];
  uint32_t file, before = cx->errors;
  S->cx = cx;
  S->o = o;
  S->top = (Frame){.path = sym(cx, ""), .scope = &S->top_scope};
  S->frame = &S->top;
  S->b.layer = sym(cx, "");
  if (!open_model(cx, o, &file)) return NULL;
  if (!o->file && realpath(o->path, real))
    map_put(&cx->perm, &S->files, sym(cx, real), S);
  load(S, file);
  fe_flush(S);
  return cx->errors == before ? S : NULL;
}

Module *fe_compile(Ctx *cx, const FeOptions *o) {
  uint32_t before = cx->errors;
  Sema *S = load_model(cx, o);
  if (!S) return NULL;
  S->m = ir_module_new(cx);
  compile(S);
  if (cx->errors != before) return NULL;
  if (!ir_verify(S->m, false)) {
    diag_print(cx, stderr);
    internal_error("the frontend made a module that does not verify");
  }
  return S->m;
}

bool fe_axes(Ctx *cx, const FeOptions *o, SymVec *out) {
  Sema *S = load_model(cx, o);
  for (uint32_t i = 0; S && i < S->axes.len; i++)
    vec_push(&cx->perm, out, S->axes.data[i]->name.text);
  return S != NULL;
}

bool fe_print_ast(Ctx *cx, const FeOptions *o, Buf *out) {
  uint32_t file, before = cx->errors;
  if (!open_model(cx, o, &file)) return false;
  DeclVec decls = fe_parse(cx, file);
  if (cx->errors != before) return false;
  ast_print(&decls, out);
  return true;
}
