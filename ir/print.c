/* print.c: canonical text. Grammar and meaning are in IR.md.
 *
 * Canonical means: one text for one module. Values keep their names; the second
 * user of %h becomes %h.1, values without a name are numbered in the order of
 * the text. Attributes come in table order, numbers are the shortest that read
 * back exactly. What read.c makes of the text prints as the same text. */
#include "ir.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 80 }; /* headers and returns longer than this are wrapped */

/* ---- names of values ---------------------------------------------------- */

/* Of a value: its own, or for one without a name its number. */
typedef struct Name {
  const Value *v; /* NULL: none yet */
  Sym text;       /* NULL: the number */
  uint32_t number;
} Name;

typedef struct Names {
  Ctx *cx;
  Arena arena;
  Name *of;    /* by value id */
  uint32_t count;
  Map taken;   /* name -> not NULL */
  Map numbers; /* name without number -> last number given + 1 */
  uint32_t unnamed;
} Names;

/* "h" of "h.12": a name without numbers at its end. */
static Sym name_stem(Ctx *cx, Sym name) {
  size_t len = strlen(name);
  for (size_t at = len; at-- > 1;) {
    if (name[at] == '.' && at + 1 < len)
      len = at;
    else if (!isdigit((unsigned char)name[at]))
      break;
  }
  return sym_n(cx, name, len);
}

/* The stem of `wish`, numbered when others have it: numbers that were given
 * before say nothing, so that a name depends on the text before it alone. */
static Sym free_name(Names *s, Sym wish) {
  Sym stem = name_stem(s->cx, wish), name = stem;
  uintptr_t number = (uintptr_t)map_get(&s->numbers, stem);
  if (!number) number = 1;
  while (map_get(&s->taken, name))
    name = sym_fmt(s->cx, "%s.%llu", stem, (unsigned long long)number++);
  map_put(&s->arena, &s->numbers, stem, (void *)number);
  return name;
}

static void set_name(Names *s, const Value *v, Sym name) {
  map_put(&s->arena, &s->taken, name, s);
  s->of[v->id] = (Name){.v = v, .text = name};
}

static void give_name(Names *s, const Value *v) {
  if (s->of[v->id].v) return;
  if (v->name)
    set_name(s, v, free_name(s, v->name));
  else
    s->of[v->id] = (Name){.v = v, .number = s->unnamed++};
}

static void name_region(Names *s, const Region *r) {
  for (uint32_t i = 0; i < r->params.len; i++)
    give_name(s, r->params.data[i]);
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    for (uint32_t j = 0; j < n->outs.len; j++)
      give_name(s, n->outs.data[j]);
    if (n->body) name_region(s, n->body);
  }
}

/* Inputs go first: their names are how programs find them. */
static void name_entry(Names *s, Entry *e) {
  s->count = ir_number(e);
  s->of = NEW_ARRAY(&s->arena, Name, s->count);
  for (uint32_t i = 0; i < e->ins.len; i++)
    if (e->ins.data[i].kind == BIND_INPUT)
      set_name(s, e->region->params.data[i], e->ins.data[i].name);
  name_region(s, e->region);
}

/* ---- small parts -------------------------------------------------------- */

typedef struct Printer {
  Ctx *cx;
  const Module *m;
  PrintOptions options;
  Names names;
  Buf *out;
} Printer;

static void indent(Printer *p, int depth) {
  for (int i = 0; i < depth; i++)
    buf_add_n(p->out, "  ", 2);
}

/* Bytes of UTF-8 stay as they are. */
static void print_string(Printer *p, const char *s) {
  buf_add(p->out, "\"");
  while (*s) {
    const char *plain = s;
    while ((unsigned char)*s >= 0x20 && *s != '"' && *s != '\\' && *s != 0x7f)
      s++;
    buf_add_n(p->out, plain, (size_t)(s - plain));
    if (!*s) break;
    unsigned char c = (unsigned char)*s++;
    buf_fmt(p->out, c == '"' || c == '\\' ? "\\%c" : "\\x%02x", c);
  }
  buf_add(p->out, "\"");
}

static void print_double(Printer *p, double x) {
  char text[32];
  format_double(x, text);
  buf_add(p->out, text);
}

static void print_value(Printer *p, const Value *v) {
  const Name *name = v->id < p->names.count ? &p->names.of[v->id] : NULL;
  buf_add_n(p->out, "%", 1);
  if (!name || name->v != v) /* a node outside of its region's list */
    buf_add(p->out, v->name ? v->name : "?");
  else if (name->text)
    buf_add(p->out, name->text);
  else
    buf_int(p->out, name->number);
}

static void print_values(Printer *p, const ValueVec *v) {
  for (uint32_t i = 0; i < v->len; i++) {
    if (i) buf_add(p->out, ", ");
    print_value(p, ir_now(v->data[i]));
  }
}

static void print_place(Printer *p, Place place) {
  static const char *const names[SLAB_COUNT] = {
      [SLAB_PARAM] = "param", [SLAB_OPTIM] = "optim",   [SLAB_STATE] = "state",
      [SLAB_INPUT] = "input", [SLAB_REPORT] = "report", [SLAB_ARENA] = "arena"};
  if (place.slab == SLAB_NONE) return;
  int loops = MAX_LOOPS;
  while (loops && !place.stride[loops - 1])
    loops--;
  buf_add(p->out, " in ");
  buf_add(p->out, names[place.slab]);
  buf_add(p->out, "[");
  buf_int(p->out, place.offset);
  for (int i = 0; i < loops; i++) {
    buf_add(p->out, ", ");
    buf_int(p->out, place.stride[i]);
  }
  buf_add(p->out, "]");
}

static void print_type(Printer *p, const Type *t, const Placement *at) {
  placement_text(p->m, t, at, p->out);
}

static void print_attr(Printer *p, AttrKind kind, const Attr *a) {
  switch (kind) {
  case ATTR_INT: buf_int(p->out, a->i); break;
  case ATTR_FLOAT: print_double(p, a->f); break;
  case ATTR_BOOL: buf_add(p->out, a->i ? "true" : "false"); break;
  case ATTR_STR:
  case ATTR_MAP: print_string(p, a->s); break;
  case ATTR_INTS:
    buf_add(p->out, "[");
    for (uint32_t i = 0; i < a->list_len; i++) {
      if (i) buf_add(p->out, ", ");
      buf_int(p->out, a->list[i]);
    }
    buf_add(p->out, "]");
    break;
  }
}

static void print_attrs(Printer *p, const Node *n) {
  const AttrSpec *specs;
  int count = op_attrs(n->op, &specs);
  const char *before = " {";
  for (int i = 0; i < count; i++) {
    if (!n->attrs[i].present) continue;
    buf_add(p->out, before);
    buf_add(p->out, specs[i].name);
    buf_add(p->out, "=");
    print_attr(p, specs[i].kind, &n->attrs[i]);
    before = ", ";
  }
  if (*before == ',') buf_add(p->out, "}");
}

static void print_flags(Printer *p, const Node *n) {
  if (n->layer && *n->layer) {
    buf_add(p->out, " layer(");
    print_string(p, n->layer);
    buf_add(p->out, ")");
  }
  if (n->remat) buf_fmt(p->out, " remat(%u)", n->remat);
  if (n->backward) buf_add(p->out, " backward");
  Sym loc = p->options.loc ? node_loc(p->cx, n) : "";
  if (*loc) {
    buf_add(p->out, " loc(");
    print_string(p, loc);
    buf_add(p->out, ")");
  }
}

/* ---- lists that wrap ---------------------------------------------------- */

typedef void ItemFn(Printer *p, const void *of, uint32_t i);

static size_t line_length(const Buf *b) {
  const char *last = b->len ? memrchr(b->data, '\n', b->len) : NULL;
  return last ? (size_t)(b->data + b->len - last - 1) : b->len;
}

/* Items separated by commas: on this line, after `lead`, when they and `more`
 * bytes after them fit, else each on a line of its own. */
static void print_list(Printer *p, ItemFn *item, const void *of, uint32_t n,
                       const char *lead, int depth, size_t more) {
  size_t start = p->out->len;
  for (int wrap = 0; wrap < 2; wrap++) {
    for (uint32_t i = 0; i < n; i++) {
      if (wrap)
        buf_fmt(p->out, "%s\n%*s", i ? "," : "", 2 * depth + 4, "");
      else
        buf_add(p->out, i ? ", " : lead);
      item(p, of, i);
    }
    if (line_length(p->out) + more <= WIDTH || wrap) return;
    p->out->len = start; /* once more, wrapped */
  }
}

/* ---- nodes -------------------------------------------------------------- */

static void print_param(Printer *p, const void *of, uint32_t i) {
  const Region *r = of;
  const Value *v = r->params.data[i];
  print_value(p, v);
  buf_add(p->out, ": ");
  print_type(p, &v->type, &v->placement);
  print_place(p, v->place);
}

static void print_node(Printer *p, const Node *n, int depth);

static void print_body(Printer *p, const Region *r, int depth) {
  buf_add(p->out, " (");
  print_list(p, print_param, r, r->params.len, "", depth, strlen(") {"));
  buf_add(p->out, ") {\n");
  for (uint32_t i = 0; i < r->nodes.len; i++)
    print_node(p, r->nodes.data[i], depth + 1);
  indent(p, depth + 1);
  buf_add(p->out, r->results.len ? "yield " : "yield");
  print_values(p, &r->results);
  buf_add(p->out, "\n");
  indent(p, depth);
  buf_add(p->out, "}");
}

static void print_results(Printer *p, const Node *n) {
  for (uint32_t i = 0; i < n->outs.len; i++) {
    buf_add(p->out, i ? ", " : " : ");
    const Value *v = n->outs.data[i];
    print_type(p, &v->type, &v->placement);
    print_place(p, v->place);
  }
}

static void print_node(Printer *p, const Node *n, int depth) {
  indent(p, depth);
  print_values(p, &n->outs);
  if (n->outs.len) buf_add(p->out, " = ");
  buf_add(p->out, op_info[n->op].name);
  if (n->ins.len) buf_add(p->out, " ");
  print_values(p, &n->ins);
  print_attrs(p, n);
  if (n->body) print_body(p, n->body, depth);
  print_results(p, n);
  print_flags(p, n);
  buf_add(p->out, "\n");
}

/* ---- entries ------------------------------------------------------------ */

static const char *const bind_names[] = {
    [BIND_SLOT] = "slot",  [BIND_INPUT] = "input", [BIND_OPTION] = "option",
    [BIND_STEP] = "step",  [BIND_SEED] = "seed",   [BIND_REPORT] = "report",
    [BIND_PROBE] = "probe"};

static void print_binding(Printer *p, const Binding *b) {
  Sym name = b->kind == BIND_INPUT ? b->source : b->name;
  buf_add(p->out, bind_names[b->kind]);
  if (b->kind == BIND_STEP || b->kind == BIND_SEED) return;
  buf_add(p->out, " ");
  print_string(p, name ? name : "");
}

static void print_entry_param(Printer *p, const void *of, uint32_t i) {
  const Entry *e = of;
  print_param(p, e->region, i);
  buf_add(p->out, " = ");
  print_binding(p, &e->ins.data[i]);
}

static void print_entry_result(Printer *p, const void *of, uint32_t i) {
  const Entry *e = of;
  print_binding(p, &e->outs.data[i]);
  buf_add(p->out, " = ");
  print_value(p, ir_now(e->region->results.data[i]));
}

static void print_entry(Printer *p, const Entry *e) {
  Buf plan = {0};
  buf_add(&plan, ")");
  if (e->arena_bytes >= 0)
    buf_fmt(&plan, " plan {arena=%lld, input=%lld, report=%lld}",
            (long long)e->arena_bytes, (long long)e->input_bytes,
            (long long)e->report_bytes);
  buf_add(&plan, " {\n");
  buf_fmt(p->out, "entry @%s(", e->name);
  print_list(p, print_entry_param, e, e->ins.len, "", 0, plan.len - 1);
  buf_add(p->out, plan.data);
  buf_free(&plan);
  for (uint32_t i = 0; i < e->region->nodes.len; i++)
    print_node(p, e->region->nodes.data[i], 1);
  buf_add(p->out, "  return");
  print_list(p, print_entry_result, e, e->outs.len, " ", 1, 0);
  buf_add(p->out, "\n}\n");
}

void ir_print_entry(Entry *e, PrintOptions o, Buf *out) {
  Ctx *cx = e->module->cx;
  Printer p = {.cx = cx,
               .m = e->module,
               .options = o,
               .out = out,
               .names = {.cx = cx}};
  name_entry(&p.names, e);
  print_entry(&p, e);
  arena_reset(&p.names.arena);
}

void ir_print_node(Node *n, Buf *out) {
  Ctx *cx = n->region->entry->module->cx;
  Printer p = {.cx = cx,
               .m = n->region->entry->module,
               .out = out,
               .names = {.cx = cx}};
  name_entry(&p.names, n->region->entry);
  print_node(&p, n, 0);
  arena_reset(&p.names.arena);
}

/* ---- modules ------------------------------------------------------------ */

static const char *const slot_names[] = {
    [SLOT_PARAM] = "param", [SLOT_OPTIM] = "optim", [SLOT_STATE] = "state"};

static void print_mesh(Printer *p, const Module *m) {
  for (uint32_t i = 0; i < m->mesh.len; i++)
    buf_fmt(p->out, "%s%s=%lld", i ? ", " : "mesh {", m->mesh.data[i].name,
            (long long)m->mesh.data[i].size);
  if (m->mesh.len) buf_add(p->out, "}\n");
}

static void print_slabs(Printer *p, const Module *m) {
  int64_t param = m->slab_bytes[SLAB_PARAM], optim = m->slab_bytes[SLAB_OPTIM],
          state = m->slab_bytes[SLAB_STATE];
  if (param || optim || state)
    buf_fmt(p->out, "slabs {param=%lld, optim=%lld, state=%lld}\n",
            (long long)param, (long long)optim, (long long)state);
}

void ir_print(Module *m, PrintOptions o, Buf *out) {
  Printer p = {.cx = m->cx, .m = m, .options = o, .out = out};
  buf_add(out, "moec-ir 1\n");
  print_mesh(&p, m);
  print_slabs(&p, m);
  for (uint32_t i = 0; i < m->options.len; i++) {
    buf_fmt(out, "option %s = ", m->options.data[i].name);
    print_double(&p, m->options.data[i].value);
    buf_add(out, "\n");
  }
  for (uint32_t i = 0; i < m->slots.len; i++) {
    const Slot *s = m->slots.data[i];
    buf_add(out, "slot ");
    print_string(&p, s->path);
    buf_fmt(out, " %s ", slot_names[s->kind]);
    print_type(&p, &s->type, &s->placement);
    print_place(&p, s->place);
    buf_add(out, "\n");
  }
  for (uint32_t i = 0; i < m->entries.len; i++) {
    buf_add(out, "\n");
    ir_print_entry(m->entries.data[i], o, out);
  }
}

/* ---- the list of ops ---------------------------------------------------- */

static void print_count(Buf *out, int min, int max, const char *what) {
  if (max == VARIADIC && min)
    buf_fmt(out, "%d or more %ss", min, what);
  else if (max == VARIADIC)
    buf_fmt(out, "any number of %ss", what);
  else if (min < max)
    buf_fmt(out, "%d to %d %ss", min, max, what);
  else
    buf_fmt(out, "%d %s%s", min, what, min == 1 ? "" : "s");
}

/* Words of `text` on lines of at most WIDTH, indented by 4. */
static void print_wrapped(Buf *out, const char *text) {
  for (size_t column = WIDTH; *text;) {
    size_t n = strcspn(text, " ");
    if (column + 1 + n > WIDTH) {
      buf_add(out, "\n   ");
      column = 3;
    }
    buf_add(out, " ");
    buf_add_n(out, text, n);
    column += 1 + n;
    text += n + strspn(text + n, " ");
  }
}

void ir_print_ops(Buf *out) {
  for (OpKind op = 0; op < OP_COUNT; op++) {
    const OpInfo *o = &op_info[op];
    buf_fmt(out, "%s (", o->name);
    print_count(out, o->min_ins, o->max_ins, "operand");
    buf_add(out, ", ");
    print_count(out, o->outs == VARIADIC ? 0 : o->outs, o->outs, "result");
    buf_add(out, o->traits & TRAIT_TYPED ? ", typed)" : ")");
    if (*o->attrs) buf_fmt(out, " {%s}", o->attrs);
    print_wrapped(out, o->doc);
    buf_add(out, "\n");
  }
}
