/* sema_entry.c: entries. An entry's statements are run like a function's body;
 * then its outputs are put together: slots, gated on a finite step where the
 * entry trains, reports, probes. Parameters and results come in one order:
 * slots, inputs, options, step, seed; slots, reports, probes. */
#include "sema.h"

#include <stdlib.h>
#include <string.h>

Build *build_new(Sema *S, Sym name, Span span, const Decl *decl) {
  Build *b = NEW(&S->cx->perm, Build);
  b->entry = ir_entry_new(S->m, name, span);
  b->decl = decl;
  b->base = decl ? decl->name.text : name;
  b->starting = !decl;
  return b;
}

/* ---- what an entry is given besides inputs ------------------------------- */

Value *build_option(Sema *S, Sym name, Span at) {
  Build *b = S->build;
  if (!b || b->starting) {
    fe_error(S, at, "'%s' is an option: its value is known when a step runs",
             name);
    return NULL;
  }
  for (uint32_t i = 0; i < b->options.len; i++)
    if (b->options.data[i].name == name) return b->options.data[i].value;
  Binding from = {.kind = BIND_OPTION, .name = name};
  Value *v = ir_bind_in(b->entry, from, name, type_scalar(DT_f32));
  vec_push(&S->cx->perm, &b->options, ((Output){name, v, at}));
  return v;
}

Value *build_step(Sema *S, Span at) {
  Build *b = S->build;
  if (!b || b->starting) {
    fe_error(S, at, "'step' is known when a step runs");
    return NULL;
  }
  if (!b->step)
    b->step = ir_bind_in(b->entry, (Binding){.kind = BIND_STEP},
                         sym(S->cx, "step"), type_scalar(DT_i32));
  return b->step;
}

Value *build_seed(Sema *S, Span at) {
  Build *b = S->build;
  if (!b) {
    fe_error(S, at, "there is no seed outside of entries");
    return NULL;
  }
  if (!b->seed)
    b->seed = ir_bind_in(b->entry, (Binding){.kind = BIND_SEED},
                         sym(S->cx, "seed"), type_scalar(DT_u32));
  return b->seed;
}

/* ---- inputs -------------------------------------------------------------- */

static bool source_arg(Sema *S, const Arg *arg, Buf *out) {
  char number[40];
  bool flag = !arg->name.text && arg->value->kind == EX_NAME;
  if (flag) {
    buf_add(out, arg->value->s);
    return true;
  }
  if (arg->name.text) buf_fmt(out, "%s=", arg->name.text);
  Item it = fe_item(S, arg->value);
  switch (it.val.kind) {
  case VAL_INT: buf_fmt(out, "%lld", (long long)it.val.i); return true;
  case VAL_BOOL: buf_add(out, it.val.b ? "true" : "false"); return true;
  case VAL_STRING: buf_add(out, it.val.s); return true;
  case VAL_FLOAT:
    format_double(it.val.f, number);
    buf_add(out, number);
    return true;
  case VAL_ERROR: return false;
  case VAL_FN:
  case VAL_TENSOR:
  case VAL_TUPLE:
  case VAL_TYPE:
  case VAL_FREEZE: break;
  }
  fe_error(S, it.span, "an argument of a source cannot be %s",
           val_text(S, it.val));
  return false;
}

/* "text(mask, shift=1)"; NULL: reported. */
static Sym source_text(Sema *S, const ParamDecl *p) {
  Buf b = {0};
  bool ok = true;
  buf_add(&b, p->source.text);
  for (uint32_t i = 0; i < p->source_args.len; i++) {
    buf_add(&b, i ? ", " : "(");
    ok &= source_arg(S, &p->source_args.data[i], &b);
  }
  if (p->source_args.len) buf_add(&b, ")");
  Sym text = ok ? sym(S->cx, b.data) : NULL;
  buf_free(&b);
  return text;
}

static void add_input(Sema *S, const ParamDecl *p) {
  Type t;
  Placement at;
  Val v = val_error;
  Sym what = sym_fmt(S->cx, "input '%s'", p->name.text);
  if (!p->source.text) {
    fe_error(S, p->name.span,
             "nothing says where input '%s' comes from; add "
             "for example: from text",
             p->name.text);
  } else if (type_eval(S, p->type, &t) &&
             place_even(S, p->type, &t, what, &at)) {
    Sym source = source_text(S, p);
    Binding from = {.kind = BIND_INPUT, .name = p->name.text, .source = source};
    if (source)
      v = val_tensor(ir_bind_in(S->build->entry, from, p->name.text, t));
    if (source) place_set(S, v.tensor, &at, p->type->span);
  }
  scope_add(S, p->name, v);
}

/* ---- reports and probes -------------------------------------------------- */

void build_output(Sema *S, bool probe, Name name, Item it) {
  const char *what = probe ? "probe" : "report";
  if (!S->build || S->build->starting) {
    fe_error(S, name.span, "an initial value has no %ss", what);
    return;
  }
  if (S->scan) {
    fe_error(S, name.span,
             "a %s cannot stand inside of a scan; yield the "
             "value and %s it after",
             what, what);
    return;
  }
  OutputVec *list = probe ? &S->build->probes : &S->build->reports;
  Sym path = path_join(S, S->frame->path, name.text);
  for (uint32_t i = 0; i < list->len; i++) {
    if (list->data[i].name != path) continue;
    fe_error(S, name.span, "there is a %s '%s' already", what, path);
    fe_note(S, list->data[i].span, "it is here");
    return;
  }
  if (it.val.kind == VAL_INT) it.val = val_float((double)it.val.i);
  Value *v = fe_tensor(S, it);
  if (v) vec_push(&S->cx->perm, list, ((Output){path, v, name.span}));
}

static bool has_report(const Build *b, const char *name) {
  for (uint32_t i = 0; i < b->reports.len; i++)
    if (strcmp(b->reports.data[i].name, name) == 0) return true;
  return false;
}

/* What every training entry reports. */
static void add_reports(Sema *S, Build *b) {
  Span s = b->minimized;
  Value *ok = b->ok ? fe_cast(S, s, b->ok, DT_f32) : NULL;
  if (!ok) return;
  static const char *const own[] = {"grad_norm", "ok"};
  for (size_t i = 0; i < COUNT_OF(own); i++)
    if (has_report(b, own[i]))
      fe_error(S, s, "minimize reports '%s' itself", own[i]);
  if (!has_report(b, "loss"))
    vec_push(&S->cx->perm, &b->reports,
             ((Output){sym(S->cx, "loss"), b->loss, s}));
  vec_push(&S->cx->perm, &b->reports,
           ((Output){sym(S->cx, own[0]), b->grad_norm, s}));
  vec_push(&S->cx->perm, &b->reports, ((Output){sym(S->cx, own[1]), ok, s}));
}

/* ---- putting the results together ---------------------------------------- */

/* A slot's next value, the old one where the step went wrong. */
static Value *gated(Sema *S, const Build *b, const SlotUse *use) {
  if (!b->ok) return use->after;
  S->b.layer = use->layer;
  Value *v = fe_choose(S, use->set_at, b->ok, use->after, use->before);
  S->b.layer = sym(S->cx, "");
  return v;
}

static void bind_results(Sema *S, Build *b) {
  for (uint32_t i = 0; i < b->slots.len; i++) {
    const SlotUse *use = b->slots.data[i];
    if (!use->after) continue;
    Value *v = gated(S, b, use);
    Binding to = {.kind = BIND_SLOT, .name = use->slot->path};
    if (v) ir_bind_out(b->entry, to, v);
  }
  for (uint32_t i = 0; i < b->reports.len; i++) {
    Binding to = {.kind = BIND_REPORT, .name = b->reports.data[i].name};
    ir_bind_out(b->entry, to, b->reports.data[i].value);
  }
  for (uint32_t i = 0; i < b->probes.len; i++) {
    Binding to = {.kind = BIND_PROBE, .name = b->probes.data[i].name};
    ir_bind_out(b->entry, to, b->probes.data[i].value);
  }
}

/* Parameters made after minimize saw them all. */
static void tell_late(Sema *S, const Build *b) {
  if (!b->ok) return;
  for (uint32_t i = b->declared; i < b->slots.len; i++)
    if (b->slots.data[i]->slot->kind == SLOT_PARAM && !b->slots.data[i]->after)
      fe_warning(S, b->slots.data[i]->span,
                 "parameter '%s' is not trained: it comes after minimize",
                 b->slots.data[i]->slot->path);
}

/* ---- one entry ----------------------------------------------------------- */

static bool minimizes(const StmtVec *body) {
  for (uint32_t i = 0; i < body->len; i++) {
    const Stmt *s = body->data[i];
    if (s->kind == ST_MINIMIZE) return true;
    if (s->kind == ST_IF &&
        (minimizes(&s->branch.yes) || minimizes(&s->branch.no)))
      return true;
    if (s->kind == ST_RECOMPUTE && minimizes(&s->body)) return true;
  }
  return false;
}

static void run_entry(Sema *S, const Decl *d, Sym name, const Val *size) {
  Scope scope = {0};
  Frame f = {.decl = d, .path = sym(S->cx, ""), .scope = &scope};
  Build *b = build_new(S, name, d->span, d);
  b->training = minimizes(&d->body);
  S->build = b;
  S->frame = &f;
  S->b = ir_builder(S->cx, b->entry->region);
  S->b.layer = f.path;
  if (size) scope_add(S, d->size, *size);
  for (uint32_t i = 0; i < d->params.len; i++)
    add_input(S, &d->params.data[i]);
  fe_body(S, &d->body);
  add_reports(S, b);
  tell_late(S, b);
  bind_results(S, b);
  S->build = NULL;
  S->frame = &S->top;
}

/* The sizes of `for S in {...}`, each once. */
static bool read_sizes(Sema *S, const Decl *d, int64_t *out) {
  bool ok = true;
  for (uint32_t i = 0; i < d->sizes.len; i++) {
    const Expr *e = d->sizes.data[i];
    if (!fe_eval_int(S, e, "a size", &out[i])) return false;
    if (out[i] < 1) {
      fe_error(S, e->span, "a size must be 1 or more, but this is %lld",
               (long long)out[i]);
      ok = false;
    }
    for (uint32_t k = 0; k < i; k++)
      if (out[k] == out[i]) {
        fe_error(S, e->span, "size %lld is there twice", (long long)out[i]);
        ok = false;
      }
  }
  return ok;
}

void fe_entry(Sema *S, const Decl *d) {
  if (!d->size.text) {
    run_entry(S, d, d->name.text, NULL);
    return;
  }
  int64_t *sizes = NEW_ARRAY(&S->cx->perm, int64_t, d->sizes.len + 1);
  if (!read_sizes(S, d, sizes)) return;
  for (uint32_t i = 0; i < d->sizes.len; i++) {
    Val size = val_int(sizes[i]);
    run_entry(S, d,
              sym_fmt(S->cx, "%s.%s%lld", d->name.text, d->size.text,
                      (long long)sizes[i]),
              &size);
  }
}

/* ---- canonical order ----------------------------------------------------- */

/* One parameter or result while being sorted. */
typedef struct Bound {
  Binding binding;
  Value *value;
  int rank;      /* of its kind */
  uint32_t slot; /* of a slot: its place in the module */
  uint32_t at;   /* where it was */
} Bound;

static int compare(uint32_t a, uint32_t b) {
  return (a > b) - (a < b);
}

static int by_order(const void *x, const void *y) {
  const Bound *a = x, *b = y;
  int c = compare((uint32_t)a->rank, (uint32_t)b->rank);
  if (!c) c = compare(a->slot, b->slot);
  return c ? c : compare(a->at, b->at);
}

static int kind_rank(BindKind k) {
  switch (k) {
  case BIND_SLOT: return 0;
  case BIND_INPUT: return 1;
  case BIND_OPTION: return 2;
  case BIND_STEP: return 3;
  case BIND_SEED: return 4;
  case BIND_REPORT: return 5;
  case BIND_PROBE: return 6;
  }
  return 7;
}

static void sort_bound(Sema *S, BindingVec *bindings, ValueVec *values,
                       const Map *order) {
  uint32_t n = values->len;
  Bound *all = NEW_ARRAY(&S->cx->perm, Bound, n + 1);
  for (uint32_t i = 0; i < n; i++) {
    Binding b = bindings->data[i];
    const void *place = b.kind == BIND_SLOT ? map_get(order, b.name) : NULL;
    all[i] = (Bound){b, values->data[i], kind_rank(b.kind),
                     (uint32_t)(uintptr_t)place, i};
  }
  qsort(all, n, sizeof *all, by_order);
  for (uint32_t i = 0; i < n; i++) {
    bindings->data[i] = all[i].binding;
    values->data[i] = all[i].value;
  }
}

static int by_kind(const void *x, const void *y) {
  const Bound *a = x, *b = y;
  int c = compare((uint32_t)a->rank, (uint32_t)b->rank);
  return c ? c : compare(a->at, b->at);
}

/* Parameters before optimiser states before states, else as they came. */
static void sort_slots(Sema *S, Map *order) {
  uint32_t n = S->m->slots.len;
  Bound *all = NEW_ARRAY(&S->cx->perm, Bound, n + 1);
  Slot **slots = NEW_ARRAY(&S->cx->perm, Slot *, n + 1);
  for (uint32_t i = 0; i < n; i++) {
    slots[i] = S->m->slots.data[i];
    all[i] = (Bound){.rank = (int)slots[i]->kind, .at = i};
  }
  qsort(all, n, sizeof *all, by_kind);
  for (uint32_t i = 0; i < n; i++) {
    Slot *slot = slots[all[i].at];
    S->m->slots.data[i] = slot;
    map_put(&S->cx->perm, order, slot->path, (void *)(uintptr_t)(i + 1));
  }
}

void fe_put_in_order(Sema *S) {
  Map order = {0};
  sort_slots(S, &order);
  for (uint32_t i = 0; i < S->m->entries.len; i++) {
    Entry *e = S->m->entries.data[i];
    sort_bound(S, &e->ins, &e->region->params, &order);
    sort_bound(S, &e->outs, &e->region->results, &order);
    for (uint32_t k = 0; k < e->region->params.len; k++)
      e->region->params.data[k]->index = k;
  }
}
