/* read.c: text to IR, by recursive descent. Grammar and meaning are in IR.md.
 *
 * The text may come from anyone, so everything is checked, and one run reports
 * many mistakes: after one, reading goes on at the next statement, and results
 * of a statement that failed are known but void, so that their uses are not
 * reported again. Types are written in the text and inferred again; where the
 * two differ it is a mistake. */
#include "read.h"

#include <ctype.h>
#include <string.h>

enum { DEEPEST = 16, MOST_ERRORS = 50 };

/* What a name of the entry stands for. value NULL: its statement failed. */
typedef struct Def {
  Value *value;
  Region *region;
  Span span;
} Def;

/* ---- types, places, attributes ------------------------------------------ */

static bool read_dtype(Reader *r, Dtype *out) {
  const char *names[DTYPE_COUNT];
  size_t i;
  for (Dtype d = 0; d < DTYPE_COUNT; d++)
    names[d] = dtype_info[d].name;
  if (!rd_want_one_of(r, "dtype", names, DTYPE_COUNT, &i)) return false;
  *out = (Dtype)i;
  return true;
}

/* @data @expert: as many as there are. `used`: by the tensor so far. */
static bool read_axes(Reader *r, Axes *out, unsigned *used) {
  const char *names[MAX_AXES];
  for (uint32_t i = 0; i < r->m->mesh.len; i++)
    names[i] = r->m->mesh.data[i].name;
  while (r->t.kind == T_ENTRY) {
    int axis = mesh_axis(r->m, r->t.text);
    if (axis < 0) return rd_unknown(r, "mesh axis", names, r->m->mesh.len);
    if (*used >> axis & 1)
      return rd_fail(r, r->t.span, "mesh axis '%s' is used twice in one tensor",
                     r->t.text);
    *used |= 1u << axis;
    *out = axes_add(*out, axis);
    rd_next(r);
  }
  return true;
}

static bool read_dim(Reader *r, Type *t, Placement *p, unsigned *used) {
  if (t->rank == MAX_RANK)
    return rd_fail(r, r->t.span, "more than %d dims", MAX_RANK);
  int at = t->rank++;
  Dim *d = &t->dims[at];
  if (rd_take_word(r, "r")) {
    d->ragged = true;
    if (!rd_want_sign(r, '<')) return false;
  }
  if (!rd_want_int(r, &d->size)) return false;
  if (r->t.kind == T_ENTRY && strcmp(r->t.text, "_") == 0) {
    p->closed |= (uint8_t)(1u << at);
    rd_next(r);
    return true;
  }
  return read_axes(r, &p->dims[at], used);
}

/* ; sum @dev */
static bool read_partial(Reader *r, Placement *p, unsigned *used) {
  size_t kind;
  if (!rd_take_sign(r, ';')) return true;
  if (!rd_want_one_of(r, "partial result", partial_names, PARTIAL_COUNT, &kind))
    return false;
  if (r->t.kind != T_ENTRY) return rd_expected(r, "a mesh axis");
  p->kind = (PartialKind)kind;
  return read_axes(r, &p->partial, used);
}

/* A type, with the placement that is written in it. */
static bool read_type(Reader *r, Type *t, Placement *p) {
  Span from = r->t.span;
  unsigned used = 0;
  *t = (Type){0};
  *p = (Placement){0};
  if (!read_dtype(r, &t->dtype) || !rd_want_sign(r, '[')) return false;
  if (!rd_is_sign(r, ']') && !rd_is_sign(r, ';')) do {
      if (!read_dim(r, t, p, &used)) return false;
    } while (rd_take_sign(r, ','));
  if (!read_partial(r, p, &used)) return false;
  from.hi = r->t.span.hi;
  return rd_want_sign(r, ']') && ir_check_type(r->cx, from, "type", t);
}

/* An optional place, with strides by loop: in arena[64, 1024]. */
static bool read_place(Reader *r, Place *out) {
  static const char *const names[SLAB_COUNT] = {
      "none", "param", "optim", "state", "input", "report", "arena"};
  size_t slab;
  *out = (Place){.slab = SLAB_NONE};
  if (!rd_take_word(r, "in")) return true;
  if (!rd_want_one_of(r, "slab", names + 1, SLAB_COUNT - 1, &slab))
    return false;
  out->slab = (Slab)(slab + 1);
  if (!rd_want_sign(r, '[') || !rd_want_int(r, &out->offset)) return false;
  for (int i = 0; i < MAX_LOOPS && rd_take_sign(r, ','); i++)
    if (!rd_want_int(r, &out->stride[i])) return false;
  return rd_want_sign(r, ']');
}

static bool read_bool(Reader *r, int64_t *out) {
  *out = rd_is_word(r, "true");
  return rd_take_word(r, "true") || rd_take_word(r, "false") ||
         rd_expected(r, "true or false");
}

static bool read_ints(Reader *r, Attr *a) {
  VEC(int64_t) list = {0};
  if (!rd_want_sign(r, '[')) return false;
  if (!rd_is_sign(r, ']')) do {
      int64_t i = 0;
      if (!rd_want_int(r, &i)) return false;
      vec_push(r->a, &list, i);
    } while (rd_take_sign(r, ','));
  a->list = list.data;
  a->list_len = list.len;
  return rd_want_sign(r, ']');
}

static bool read_attr(Reader *r, AttrKind kind, Attr *a) {
  a->present = true;
  switch (kind) {
  case ATTR_INT: return rd_want_int(r, &a->i);
  case ATTR_FLOAT: return rd_want_float(r, &a->f);
  case ATTR_BOOL: return read_bool(r, &a->i);
  case ATTR_STR:
  case ATTR_MAP: return rd_want_string(r, &a->s);
  case ATTR_INTS: return read_ints(r, a);
  }
  return false;
}

static bool read_attrs(Reader *r, Node *n) {
  const AttrSpec *specs;
  const char *names[MAX_ATTRS];
  int count = op_attrs(n->op, &specs);
  for (int i = 0; i < count; i++)
    names[i] = specs[i].name;
  if (!rd_take_sign(r, '{')) return true;
  do {
    size_t i;
    Span at = r->t.span;
    if (!rd_want_one_of(r, "attribute", names, (size_t)count, &i)) return false;
    if (n->attrs[i].present)
      return rd_fail(r, at, "attribute '%s' is given twice", names[i]);
    if (!rd_want_sign(r, '=') || !read_attr(r, specs[i].kind, &n->attrs[i]))
      return false;
  } while (rd_take_sign(r, ','));
  return rd_want_sign(r, '}');
}

/* {a=1, b=2}: all of `names`, in order. */
static bool read_sizes(Reader *r, const char *const *names, int64_t *out,
                       size_t n) {
  if (!rd_want_sign(r, '{')) return false;
  for (size_t i = 0; i < n; i++) {
    if (i && !rd_want_sign(r, ',')) return false;
    if (!rd_want_word(r, names[i]) || !rd_want_sign(r, '=')) return false;
    Span at = r->t.span;
    if (!rd_want_int(r, &out[i])) return false;
    if (out[i] < 0)
      return rd_fail(r, at, "%s=%lld is negative", names[i], (long long)out[i]);
  }
  return rd_want_sign(r, '}');
}

/* ---- values ------------------------------------------------------------- */

/* Makes `name` known; value NULL: void. */
static bool define(Reader *r, Sym name, Span span, Region *region, Value *v) {
  const Def *old = map_get(&r->defs, name);
  if (old) {
    rd_fail(r, span, "%%%s is defined twice", name);
    diag_note(r->cx, old->span, "first defined here");
    return false;
  }
  Def *d = NEW(r->a, Def);
  *d = (Def){v, region, span};
  map_put(r->a, &r->defs, name, d);
  if (v && !isdigit((unsigned char)*name)) v->name = name;
  return true;
}

/* The value that the next token names. False without a report: it is void. */
static bool read_use(Reader *r, const Region *region, Value **out) {
  Span at = r->t.span;
  Sym name = NULL;
  if (!rd_want_text(r, T_VALUE, "a value", &name)) return false;
  const Def *d = map_get(&r->defs, name);
  if (!d) return rd_fail(r, at, "%%%s is not defined before this use", name);
  if (d->region != region) {
    rd_fail(r, at,
            "%%%s belongs to another region; a body sees only its own "
            "parameters and values",
            name);
    diag_note(r->cx, d->span, "%%%s is defined here", name);
    return false;
  }
  *out = d->value;
  return d->value != NULL;
}

static bool read_uses(Reader *r, const Region *region, ValueVec *out) {
  bool ok = true;
  do {
    Value *v = NULL;
    if (r->t.kind != T_VALUE) return rd_expected(r, "a value");
    if (!read_use(r, region, &v)) ok = false; /* the rest may be wrong too */
    vec_push(r->a, out, v);
  } while (rd_take_sign(r, ','));
  return ok;
}

/* %x: f32[4] with its place, a parameter of `region`. */
static bool read_param(Reader *r, Region *region, Value **out) {
  Span at = r->t.span;
  Sym name = NULL;
  Type type;
  Placement placement;
  Place place;
  if (!rd_want_text(r, T_VALUE, "a parameter", &name)) return false;
  if (!rd_want_sign(r, ':') || !read_type(r, &type, &placement) ||
      !read_place(r, &place)) {
    define(r, name, at, region, NULL);
    return false;
  }
  *out = ir_param(r->cx, region, NULL, type);
  (*out)->placement = placement;
  (*out)->said = at;
  (*out)->place = place;
  return define(r, name, at, region, *out);
}

/* ---- statements --------------------------------------------------------- */

typedef struct Name {
  Sym text;
  Span span;
} Name;
typedef VEC(Name) NameVec;

/* What is written of a statement, before it is checked. */
typedef struct Statement {
  Node *node;
  NameVec names;
  TypeVec types;
  VEC(Placement) placements;
  VEC(Place) places;
} Statement;

static bool read_flag(Reader *r, Node *n) {
  int64_t group = 0;
  if (rd_take_word(r, "backward")) return n->backward = true;
  if (rd_take_word(r, "layer"))
    return rd_want_sign(r, '(') && rd_want_string(r, &n->layer) &&
           rd_want_sign(r, ')');
  if (rd_take_word(r, "loc"))
    return rd_want_sign(r, '(') && rd_want_string(r, &n->loc) &&
           rd_want_sign(r, ')');
  if (!rd_take_word(r, "remat")) return rd_expected(r, "the end of the line");
  Span at = r->t.span;
  if (!rd_want_sign(r, '(') || !rd_want_int(r, &group) || !rd_want_sign(r, ')'))
    return false;
  if (group < 1 || group > UINT32_MAX)
    return rd_fail(r, at, "remat group %lld is not in 1 to %lld",
                   (long long)group, (long long)UINT32_MAX);
  n->remat = (uint32_t)group;
  return true;
}

static bool read_region(Reader *r, Node *n);

static bool read_results(Reader *r, Statement *s) {
  if (!rd_take_sign(r, ':')) return true;
  do {
    Type t;
    Placement at;
    Place p;
    if (!read_type(r, &t, &at) || !read_place(r, &p)) return false;
    vec_push(r->a, &s->types, t);
    vec_push(r->a, &s->placements, at);
    vec_push(r->a, &s->places, p);
  } while (rd_take_sign(r, ','));
  return true;
}

static bool read_op(Reader *r, Node *n) {
  const char *names[OP_COUNT];
  size_t i;
  for (OpKind op = 0; op < OP_COUNT; op++)
    names[op] = op_info[op].name;
  n->span = r->t.span;
  if (!rd_want_one_of(r, "op", names, OP_COUNT, &i)) return false;
  n->op = (OpKind)i;
  return true;
}

/* Everything behind the '='. */
static bool read_rest(Reader *r, Statement *s) {
  Node *n = s->node;
  if (!read_op(r, n)) return false;
  bool ok = r->t.kind != T_VALUE || read_uses(r, n->region, &n->ins);
  if (!read_attrs(r, n)) return false;
  if (op_is(n->op, TRAIT_REGION) && !read_region(r, n)) ok = false;
  if (!read_results(r, s)) return false;
  while (!r->t.first && r->t.kind != T_END)
    if (!read_flag(r, n)) return false;
  return ok;
}

/* The written types are the inferred ones. */
static bool check_results(Reader *r, Statement *s) {
  Node *n = s->node;
  const char *op = op_info[n->op].name;
  TypeVec types = {0};
  if (s->types.len != s->names.len)
    return rd_fail(r, n->span, "%s: %u named, but %u typed of its results", op,
                   s->names.len, s->types.len);
  if (op_is(n->op, TRAIT_TYPED))
    for (uint32_t i = 0; i < s->types.len; i++)
      ir_add_result(r->cx, n, s->types.data[i]);
  if (!ir_infer_types(r->cx, n, &types)) return false;
  if (types.len != s->names.len)
    return rd_fail(r, n->span, "%s: %u named of its %u results", op,
                   s->names.len, types.len);
  for (uint32_t i = 0; i < types.len; i++) {
    if (!type_equal(&types.data[i], &s->types.data[i]))
      return rd_fail(r, n->span, "%s: result %u is %s, but %s is written", op,
                     i, type_text(r->cx, &types.data[i]),
                     type_text(r->cx, &s->types.data[i]));
    if (i == n->outs.len) ir_add_result(r->cx, n, types.data[i]);
    n->outs.data[i]->placement = s->placements.data[i];
    n->outs.data[i]->place = s->places.data[i];
  }
  return true;
}

/* Goes on at the first statement after the one that failed: on a new line, with
 * as many braces open as before it. */
static void recover(Reader *r, int braces) {
  while (r->t.kind != T_END) {
    if (r->braces < braces) return;
    if (r->braces == braces && (r->t.first || rd_is_sign(r, '}'))) return;
    rd_next(r);
  }
}

static bool read_statement(Reader *r, Region *region) {
  Statement s = {.node = NEW(r->a, Node)};
  int braces = r->braces;
  s.node->region = region;
  bool ok = true;
  if (r->t.kind == T_VALUE) {
    do {
      Name name = {NULL, r->t.span};
      ok = rd_want_text(r, T_VALUE, "the name of a result", &name.text);
      if (ok) vec_push(r->a, &s.names, name);
    } while (ok && rd_take_sign(r, ','));
    ok = ok && rd_want_sign(r, '=');
  }
  ok = ok && read_rest(r, &s) && check_results(r, &s);
  if (!ok) {
    if (r->t.span.lo > s.node->span.lo && r->t.first && r->braces == braces)
      ; /* read to its end */
    else
      recover(r, braces);
  }
  for (uint32_t i = 0; i < s.names.len; i++)
    if (!define(r, s.names.data[i].text, s.names.data[i].span, region,
                ok ? s.node->outs.data[i] : NULL))
      ok = false;
  if (ok) vec_push(r->a, &region->nodes, s.node);
  return ok;
}

/* Statements up to `last`, which is "yield" or "return". False: it never came;
 * *ok becomes false when a statement failed. */
static bool read_statements(Reader *r, Region *region, const char *last,
                            bool *ok) {
  while (!rd_is_word(r, last)) {
    if (r->cx->errors >= MOST_ERRORS) return false;
    if (r->t.kind == T_END || rd_is_sign(r, '}')) return rd_expected(r, last);
    uint32_t at = r->t.span.lo;
    if (!read_statement(r, region)) *ok = false;
    if (r->t.span.lo == at) rd_next(r); /* a stray brace, say */
  }
  return rd_take_word(r, last);
}

static bool read_body(Reader *r, Region *body) {
  if (!rd_want_sign(r, '(')) return false;
  bool ok = true;
  if (!rd_is_sign(r, ')')) do {
      Value *v;
      if (!read_param(r, body, &v)) return false;
    } while (rd_take_sign(r, ','));
  if (!rd_want_sign(r, ')') || !rd_want_sign(r, '{') ||
      !read_statements(r, body, "yield", &ok))
    return false;
  if (r->t.kind == T_VALUE && !read_uses(r, body, &body->results)) ok = false;
  return rd_want_sign(r, '}') && ok;
}

static bool read_region(Reader *r, Node *n) {
  Region *body = ir_region(r->cx, r->entry, n);
  if (r->depth == DEEPEST)
    return rd_fail(r, n->span, "regions nested deeper than %d", DEEPEST);
  r->depth++;
  bool ok = read_body(r, body);
  r->depth--;
  return ok;
}

/* ---- entries ------------------------------------------------------------ */

static bool read_binding(Reader *r, bool in, Binding *out) {
  static const char *const names[] = {
      [BIND_SLOT] = "slot",  [BIND_INPUT] = "input", [BIND_OPTION] = "option",
      [BIND_STEP] = "step",  [BIND_SEED] = "seed",   [BIND_REPORT] = "report",
      [BIND_PROBE] = "probe"};
  Span at = r->t.span;
  size_t kind;
  if (!rd_want_one_of(r, "binding", names, COUNT_OF(names), &kind))
    return false;
  *out = (Binding){.kind = (BindKind)kind};
  bool result = kind == BIND_REPORT || kind == BIND_PROBE;
  if (kind != BIND_SLOT && result == in)
    return rd_fail(r, at, "'%s' binds a %s", names[kind],
                   result ? "result" : "parameter");
  if (kind == BIND_STEP || kind == BIND_SEED) return true;
  return rd_want_string(r, kind == BIND_INPUT ? &out->source : &out->name);
}

static bool read_entry_param(Reader *r) {
  Value *v;
  Binding b;
  Span at = r->t.span;
  if (!read_param(r, r->entry->region, &v) || !rd_want_sign(r, '=') ||
      !read_binding(r, true, &b))
    return false;
  if (b.kind == BIND_INPUT && !v->name)
    return rd_fail(r, at, "an input needs a name that is not a number");
  if (b.kind == BIND_INPUT) b.name = v->name;
  vec_push(r->a, &r->entry->ins, b);
  return true;
}

static bool read_entry_params(Reader *r) {
  if (!rd_want_sign(r, '(')) return false;
  if (!rd_is_sign(r, ')')) do {
      if (!read_entry_param(r)) return false;
    } while (rd_take_sign(r, ','));
  return rd_want_sign(r, ')');
}

static bool read_return(Reader *r) {
  Region *region = r->entry->region;
  bool ok = true;
  if (rd_is_sign(r, '}')) return true;
  do {
    Binding b;
    Value *v = NULL;
    if (!read_binding(r, false, &b) || !rd_want_sign(r, '=')) return false;
    if (r->t.kind != T_VALUE) return rd_expected(r, "a value");
    if (!read_use(r, region, &v)) ok = false;
    vec_push(r->a, &r->entry->outs, b);
    vec_push(r->a, &region->results, v);
  } while (rd_take_sign(r, ','));
  return ok;
}

static bool read_plan(Reader *r, Entry *e) {
  static const char *const names[] = {"arena", "input", "report"};
  int64_t bytes[3];
  if (!rd_take_word(r, "plan")) return true;
  if (!read_sizes(r, names, bytes, 3)) return false;
  e->arena_bytes = bytes[0];
  e->input_bytes = bytes[1];
  e->report_bytes = bytes[2];
  return true;
}

static bool read_entry(Reader *r) {
  Sym name = NULL;
  Span at = r->t.span;
  if (!rd_want_text(r, T_ENTRY, "an entry's name", &name)) return false;
  r->entry = ir_entry_new(r->m, name, at);
  r->defs = (Map){0};
  bool ok = true;
  if (!read_entry_params(r) || !read_plan(r, r->entry)) return false;
  return rd_want_sign(r, '{') &&
         read_statements(r, r->entry->region, "return", &ok) &&
         read_return(r) && rd_want_sign(r, '}') && ok;
}

/* ---- the module --------------------------------------------------------- */

static bool read_mesh(Reader *r) {
  if (!rd_want_sign(r, '{')) return false;
  do {
    MeshAxis axis = {.span = r->t.span};
    if (r->m->mesh.len == MAX_AXES)
      return rd_fail(r, r->t.span, "more than %d mesh axes", MAX_AXES);
    if (!rd_want_text(r, T_WORD, "a mesh axis", &axis.name) ||
        !rd_want_sign(r, '=') || !rd_want_int(r, &axis.size))
      return false;
    vec_push(r->a, &r->m->mesh, axis);
  } while (rd_take_sign(r, ','));
  return rd_want_sign(r, '}');
}

static bool read_slabs(Reader *r) {
  static const char *const names[] = {"param", "optim", "state"};
  return read_sizes(r, names, &r->m->slab_bytes[SLAB_PARAM], 3);
}

static bool read_option(Reader *r) {
  Option o = {.span = r->t.span};
  if (!rd_want_text(r, T_WORD, "an option's name", &o.name) ||
      !rd_want_sign(r, '=') || !rd_want_float(r, &o.value))
    return false;
  vec_push(r->a, &r->m->options, o);
  return true;
}

static bool read_slot(Reader *r) {
  static const char *const names[] = {
      [SLOT_PARAM] = "param", [SLOT_OPTIM] = "optim", [SLOT_STATE] = "state"};
  Slot *s = NEW(r->a, Slot);
  size_t kind;
  s->span = r->t.span;
  if (!rd_want_string(r, &s->path) ||
      !rd_want_one_of(r, "slot kind", names, COUNT_OF(names), &kind) ||
      !read_type(r, &s->type, &s->placement) || !read_place(r, &s->place))
    return false;
  s->kind = (SlotKind)kind;
  vec_push(r->a, &r->m->slots, s);
  return true;
}

static bool read_header(Reader *r) {
  int64_t version = 0;
  Span at = r->t.span;
  if (!rd_take_word(r, "moec-ir"))
    return rd_fail(r, at, "expected 'moec-ir 1' at the start of an IR file");
  at = r->t.span;
  if (!rd_want_int(r, &version)) return false;
  return version == 1 || rd_fail(r, at, "IR version %lld is not known, only 1",
                                 (long long)version);
}

static bool read_item(Reader *r) {
  static const char *const names[] = {"mesh", "slabs", "option", "slot",
                                      "entry"};
  static bool (*const read[])(Reader *) = {read_mesh, read_slabs, read_option,
                                           read_slot, read_entry};
  size_t i;
  return rd_want_one_of(r, "item", names, COUNT_OF(names), &i) && read[i](r);
}

/* At the start of an item, or at the end. Within braces "slot" and "option"
 * bind a result, but "entry" never occurs there. */
static bool at_item(const Reader *r) {
  static const char *const names[] = {"mesh", "slabs", "option", "slot"};
  if (r->t.kind == T_END) return true;
  if (!r->t.first) return false;
  for (size_t i = 0; r->braces <= 0 && i < COUNT_OF(names); i++)
    if (rd_is_word(r, names[i])) return true;
  return rd_is_word(r, "entry");
}

static void read_module(Reader *r) {
  if (!read_header(r)) return;
  while (r->t.kind != T_END && r->cx->errors < MOST_ERRORS) {
    uint32_t at = r->t.span.lo;
    if (read_item(r)) {
      if (!r->t.first && r->t.kind != T_END)
        rd_expected(r, "the end of the line");
      else
        continue;
    }
    if (r->t.span.lo == at) rd_next(r);
    while (!at_item(r))
      rd_next(r);
    r->braces = 0;
  }
}

Module *ir_read(Ctx *cx, uint32_t file) {
  const Source *src = &cx->sources.data[file - 1];
  Reader r = {.cx = cx,
              .a = &cx->perm,
              .file = file,
              .text = src->text,
              .len = (uint32_t)src->len,
              .m = ir_module_new(cx)};
  uint32_t errors = cx->errors;
  rd_next(&r);
  read_module(&r);
  if (cx->errors > errors) return NULL;
  return ir_verify(r.m, false) ? r.m : NULL;
}
