/* decode.c: statements to code: every name is resolved here, once, so that
 * execution follows no name.
 *
 * A function that is called is decoded in place, anew for each call, with
 * registers of its own: lanes then have one place in one code, and `ret` is a
 * branch. Its parameters, which callers declare as `.param` variables, are
 * local memory. */
#include "async.h"

#include <stdlib.h>
#include <string.h>

enum { CALLS_MAX = 32, FILE_MAX = 1 << 26 };

static void place(int *at, int bytes, int align) {
  *at = (*at + align - 1) / align * align + bytes;
}

/* ---- declarations -------------------------------------------------------- */

static void declare(Decoder *d, Name n) {
  PUSH(&d->m->arena, d->names, d->n_names, d->cap_names, n);
}

static bool declare_registers(Decoder *d, const Stmt *s) {
  int bytes = type_info[s->var.type].bytes;
  int step = bytes ? LANES * bytes : 4;
  int n = s->var.count < 0 ? 1 : s->var.count;
  place(&d->k->reg_bytes, 0, 64);
  Name name = {s->var.name, s->var.count, SP_REG, s->var.type,
               (uint64_t)d->k->reg_bytes};
  if (n > FILE_MAX / step || d->k->reg_bytes > FILE_MAX - n * step)
    return ptx_error(d->m, s->line, "too many registers");
  d->k->reg_bytes += n * step;
  declare(d, name);
  return true;
}

/* Local memory, which has what functions hand each other too. */
static bool declare_local(Decoder *d, const Var *v) {
  if (v->bytes > FILE_MAX - d->k->local_bytes)
    return ptx_error(d->m, v->line, "too much local memory");
  place(&d->k->local_bytes, (int)v->bytes, v->align);
  uint64_t at = SHARED_START + (uint64_t)d->k->local_bytes - (uint64_t)v->bytes;
  declare(d, (Name){v->name, -1, SP_LOCAL, v->type, at});
  return true;
}

/* Variables do not touch, so that what runs over the end of one is seen. */
static bool declare_shared(Decoder *d, Var *v) {
  Kernel *k = d->k;
  if (v->bytes > SHARED_END - SHARED_START - k->shared_bytes)
    return ptx_error(d->m, v->line, "too much shared memory");
  int align = v->align > 16 ? v->align : 16;
  k->shared_bytes += 16 + (int)v->bytes;
  place(&k->shared_bytes, 0, align);
  v->at = SHARED_END - (uint64_t)k->shared_bytes;
  PUSH(&d->m->arena, k->shared, k->n_shared, k->cap_shared, *v);
  declare(d, (Name){v->name, -1, SP_SHARED, v->type, v->at});
  return true;
}

static bool variable(Decoder *d, const Stmt *s) {
  Var v = s->var;
  switch (v.space) {
  case SP_REG: return declare_registers(d, s);
  case SP_LOCAL:
  case SP_PARAM: return declare_local(d, &v);
  case SP_SHARED: return declare_shared(d, &v);
  case SP_GLOBAL:
  case SP_CONST:
  case SP_GENERIC: break;
  }
  return ptx_error(d->m, s->line, "such a variable stands in the module");
}

/* No better aligned than it asks for. */
static void place_dynamic(Decoder *d) {
  int align = 16;
  for (int k = 0; k < d->m->n_vars; k++) {
    const Var *v = &d->m->vars[k];
    if (v->space == SP_SHARED && !v->bytes && v->align > align)
      align = v->align;
  }
  d->k->dynamic_at = (SHARED_START / align + 1) * align;
}

/* Variables of the module; `.extern .shared` has a place of its own. */
static bool declare_module(Decoder *d) {
  place_dynamic(d);
  for (int k = 0; k < d->m->n_vars; k++) {
    Var v = d->m->vars[k];
    if (v.space == SP_SHARED && v.bytes) {
      if (!declare_shared(d, &v)) return false;
    } else {
      if (v.space == SP_SHARED) v.at = (uint64_t)d->k->dynamic_at;
      declare(d, (Name){v.name, -1, v.space, v.type, v.at});
    }
  }
  d->n_module = d->n_names;
  return true;
}

/* ---- instructions -------------------------------------------------------- */

static Ins *emit(Decoder *d, const Stmt *s, Ins i) {
  Kernel *k = d->k;
  Ref *o = arena_new(&d->m->arena, (size_t)d->n_refs * sizeof *o + 1);
  memcpy(o, d->refs, (size_t)d->n_refs * sizeof *o);
  i.o = o;
  i.line = s->line;
  i.loc = s->loc;
  PUSH(&d->m->arena, k->code, k->n_code, k->cap_code, i);
  return &k->code[k->n_code - 1];
}

static bool predicate(Decoder *d, const Stmt *s, Ins *i) {
  if (!s->pred.n) return true;
  Ins scratch = {0};
  d->n_refs = 0;
  if (!operand_add(d, &scratch, s, &(Operand){.name = s->pred}, 0))
    return false;
  i->has_pred = true;
  i->pred = d->refs[0].at;
  i->flip = s->pred_not ? UINT32_MAX : 0;
  d->n_refs = 0;
  return true;
}

static bool call(Decoder *d, const Stmt *s);

static bool instruction(Decoder *d, const Stmt *s) {
  Ins i = {0};
  d->n_refs = 0;
  if (str_is(s->name, "call") || str_is(s->name, "call.uni"))
    return call(d, s);
  if (!predicate(d, s, &i)) return false;
  const InsRow *row = ins_row(s->name);
  if (!row) return decode_error(d, s, "unknown instruction");
  if (row->decode) {
    Str rest = s->name;
    next_modifier(&rest);
    if (!row->decode(d, &i, s, rest)) return false;
  } else {
    i.run = row->run;
    if (!operands_add(d, &i, s, row->operands)) return false;
  }
  emit(d, s, i);
  return true;
}

/* ---- bodies -------------------------------------------------------------- */

static bool patch_jumps(Decoder *d, int first_label, int first_jump) {
  for (int j = first_jump; j < d->n_jumps; j++) {
    const Label *jump = &d->jumps[j], *to = NULL;
    for (int l = first_label; l < d->n_labels && !to; l++)
      if (str_same(d->labels[l].name, jump->name)) to = &d->labels[l];
    if (!to)
      return ptx_error(d->m, jump->line, "no label '%.*s'", jump->name.n,
                       jump->name.at);
    d->k->code[jump->pc].imm = to->pc;
  }
  d->n_jumps = first_jump;
  d->n_labels = first_label;
  return true;
}

static bool statement(Decoder *d, const Stmt *s, int *scopes, int *depth) {
  switch (s->kind) {
  case ST_INS: return instruction(d, s);
  case ST_VAR: return variable(d, s);
  case ST_LABEL:
    PUSH(&d->m->arena, d->labels, d->n_labels, d->cap_labels,
         ((Label){s->name, d->k->n_code, s->line}));
    return true;
  case ST_OPEN:
    if (*depth == CALLS_MAX) return ptx_error(d->m, s->line, "deep scopes");
    scopes[(*depth)++] = d->n_names;
    return true;
  case ST_CLOSE: d->n_names = scopes[--*depth]; return true;
  }
  return false;
}

/* The end of the body is a label of its own: an empty name. */
static bool body(Decoder *d, const Func *f) {
  int scopes[CALLS_MAX], depth = 0;
  int labels = d->n_labels, jumps = d->n_jumps;
  for (int k = 0; k < f->n_stmts; k++)
    if (!statement(d, &f->stmts[k], scopes, &depth)) return false;
  PUSH(&d->m->arena, d->labels, d->n_labels, d->cap_labels,
       ((Label){{"", 0}, d->k->n_code, 0}));
  return patch_jumps(d, labels, jumps);
}

static const Func *function_named(const Module *m, Str name) {
  for (int k = 0; k < m->n_funcs; k++)
    if (str_same(m->funcs[k].name, name) && m->funcs[k].has_body)
      return &m->funcs[k];
  return NULL;
}

/* The callee's names for variables of the caller. */
static bool bind(Decoder *d, const Stmt *s, const Var *vars, int n,
                 const Operand *list) {
  if (n != (list ? list->n : 0))
    return decode_error(d, s, "%d values where %d are needed",
                        list ? list->n : 0, n);
  for (int k = 0; k < n; k++) {
    const Name *from = name_find(d, list->part[k].name);
    if (!from || from->space != SP_LOCAL)
      return decode_error(d, s, "'%.*s' is no .param variable",
                          list->part[k].name.n, list->part[k].name.at);
    Name name = *from;
    name.name = vars[k].name;
    declare(d, name);
  }
  return true;
}

/* call (results), name, (arguments) */
static bool call(Decoder *d, const Stmt *s) {
  int k = 0;
  const Operand *rets = NULL, *args = NULL;
  if (k < s->n_op && s->op[k].kind == OPD_LIST) rets = &s->op[k++];
  if (k == s->n_op || s->op[k].kind != OPD_NAME)
    return decode_error(d, s, "calls by address are not known");
  const Func *f = function_named(d->m, s->op[k].name);
  if (!f)
    return decode_error(d, s, "no function '%.*s' with a body",
                        s->op[k].name.n, s->op[k].name.at);
  if (++k < s->n_op && s->op[k].kind == OPD_LIST) args = &s->op[k++];
  if (s->pred.n) return decode_error(d, s, "predicates are not known here");
  if (d->depth == CALLS_MAX) return decode_error(d, s, "recursion");
  int names = d->n_names, floor = d->floor;
  bool inlined = d->inlined;
  if (!bind(d, s, f->rets, f->n_rets, rets) ||
      !bind(d, s, f->params, f->n_params, args))
    return false;
  d->floor = names;
  d->inlined = true;
  d->depth++;
  bool ok = body(d, f);
  d->depth--;
  d->inlined = inlined;
  d->floor = floor;
  d->n_names = names;
  return ok;
}

static Kernel *kernel_new(Module *m, const Func *f) {
  Kernel *k = arena_new(&m->arena, sizeof *k);
  k->name = arena_new(&m->arena, (size_t)f->name.n + 1);
  memcpy(k->name, f->name.at, (size_t)f->name.n);
  k->module = m;
  k->params = f->params;
  k->n_params = f->n_params;
  k->param_bytes = f->param_bytes;
  k->max_threads = f->max_threads;
  return k;
}

static bool kernel(Module *m, const Func *f, Kernel **out) {
  Kernel *k = *out = kernel_new(m, f);
  Decoder d = {.m = m, .k = k};
  bool ok = declare_module(&d);
  for (int p = 0; ok && p < f->n_params; p++)
    declare(&d, (Name){f->params[p].name, -1, SP_PARAM, f->params[p].type,
                       f->params[p].at});
  ok = ok && body(&d, f);
  Stmt end = {.line = f->n_stmts ? f->stmts[f->n_stmts - 1].line : f->line,
              .name = {"exit", 4}};
  ok = ok && instruction(&d, &end);
  if (ok && k->async) products_guard(k);
  free(d.pool);
  return ok;
}

bool ptx_decode(Module *m) {
  m->kernels =
      arena_new(&m->arena, (size_t)m->n_funcs * sizeof *m->kernels + 1);
  for (int k = 0; k < m->n_funcs; k++)
    if (m->funcs[k].entry && m->funcs[k].has_body &&
        !kernel(m, &m->funcs[k], &m->kernels[m->n_kernels++]))
      return false;
  return true;
}

Kernel *kernel_named(const Module *m, const char *name) {
  for (int k = 0; k < m->n_kernels; k++)
    if (!strcmp(m->kernels[k]->name, name)) return m->kernels[k];
  return NULL;
}
