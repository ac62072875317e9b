/* graph.c: the tables, types, lookup and surgery on the graph. */
#include "ir.h"

#include <string.h>

/* ---- tables ------------------------------------------------------------- */

const DtypeInfo dtype_info[DTYPE_COUNT] = {
#define DT(name, bytes, kind, llvm, onednn, cuda, nccl, safetensors, sums,  \
           tol)                                                             \
  [DT_##name] = {#name, bytes, DK_##kind, safetensors, DT_##sums, tol},
#include "../runtime/dtypes.def"
#undef DT
};

enum { /* the table's spelling of the traits */
       EW = TRAIT_EW,
       TYPED = TRAIT_TYPED,
       MAP = TRAIT_MAP,
       REGION = TRAIT_REGION,
       HIGH = TRAIT_HIGH,
       COMMUTE = TRAIT_COMMUTE,
       SUMS = TRAIT_SUMS,
       OFFSETS = TRAIT_OFFSETS
};

const OpInfo op_info[OP_COUNT] = {
#define OP(name, min, max, outs, traits, attrs, infer, vjp, eval, lower, \
           batch, shard, doc)                                            \
  [OP_##name] = {#name, min,           max,           outs, traits,      \
                 attrs, LOWER_##lower, BATCH_##batch, doc},
#include "ops.def"
#undef OP
};

bool op_find(const char *name, OpKind *out) {
  for (OpKind op = 0; op < OP_COUNT; op++)
    if (strcmp(op_info[op].name, name) == 0) {
      *out = op;
      return true;
    }
  return false;
}

bool dtype_find(const char *name, Dtype *out) {
  for (Dtype d = 0; d < DTYPE_COUNT; d++)
    if (strcmp(dtype_info[d].name, name) == 0) {
      *out = d;
      return true;
    }
  return false;
}

bool op_is(OpKind op, unsigned trait) {
  return op_info[op].traits & trait;
}

/* ---- attributes --------------------------------------------------------- */

enum { ATTR_TEXT = 96 }; /* longest attrs column */

typedef struct AttrRow {
  char text[ATTR_TEXT]; /* the column, cut up; names point into it */
  AttrSpec specs[MAX_ATTRS];
  int n;
} AttrRow;

static AttrKind attr_kind(const char *name) {
  static const char *const names[] = {
      [ATTR_INT] = "int", [ATTR_FLOAT] = "float", [ATTR_BOOL] = "bool",
      [ATTR_STR] = "str", [ATTR_MAP] = "map",     [ATTR_INTS] = "ints"};
  for (AttrKind k = 0; k < COUNT_OF(names); k++)
    if (strcmp(names[k], name) == 0) return k;
  internal_error("ops.def: no attribute kind \"%s\"", name);
}

static void parse_attr_row(AttrRow *row, const char *column) {
  assert(strlen(column) < ATTR_TEXT);
  strcpy(row->text, column);
  char *rest = NULL;
  for (char *word = strtok_r(row->text, " ", &rest); word;
       word = strtok_r(NULL, " ", &rest)) {
    assert(row->n < MAX_ATTRS);
    AttrSpec *s = &row->specs[row->n++];
    char *kind = strchr(word, ':');
    assert(kind);
    *kind++ = '\0';
    size_t len = strlen(kind);
    s->optional = kind[len - 1] == '?';
    if (s->optional) kind[len - 1] = '\0';
    s->name = word;
    s->kind = attr_kind(kind);
  }
}

int op_attrs(OpKind op, const AttrSpec **out) {
  static AttrRow rows[OP_COUNT]; /* parsed when first asked for */
  static bool parsed[OP_COUNT];
  if (!parsed[op]) parse_attr_row(&rows[op], op_info[op].attrs);
  parsed[op] = true;
  *out = rows[op].specs;
  return rows[op].n;
}

static int attr_index(OpKind op, const char *name) {
  const AttrSpec *specs;
  int n = op_attrs(op, &specs);
  for (int i = 0; i < n; i++)
    if (strcmp(specs[i].name, name) == 0) return i;
  internal_error("%s has no attribute \"%s\"", op_info[op].name, name);
}

int64_t attr_int(const Node *n, const char *name) {
  return n->attrs[attr_index(n->op, name)].i;
}

double attr_float(const Node *n, const char *name) {
  return n->attrs[attr_index(n->op, name)].f;
}

bool attr_bool(const Node *n, const char *name) {
  return n->attrs[attr_index(n->op, name)].i != 0;
}

Sym attr_sym(const Node *n, const char *name) {
  return n->attrs[attr_index(n->op, name)].s;
}

Attr *attr_ref(Node *n, const char *name) {
  return &n->attrs[attr_index(n->op, name)];
}

/* ---- types -------------------------------------------------------------- */

Type type_of(Dtype dtype, int rank, const int64_t *sizes) {
  assert(rank >= 0 && rank <= MAX_RANK);
  Type t = {.dtype = dtype, .rank = (uint8_t)rank};
  for (int i = 0; i < rank; i++)
    t.dims[i].size = sizes[i];
  return t;
}

Type type_ragged(Dtype dtype, int64_t groups, int64_t rows, int64_t width) {
  Type t = type_of(dtype, 3, (const int64_t[]){groups, rows, width});
  t.dims[1].ragged = true;
  return t;
}

Type type_scalar(Dtype dtype) {
  return (Type){.dtype = dtype};
}

Type type_with_dtype(Type t, Dtype dtype) {
  t.dtype = dtype;
  return t;
}

bool type_same_dims(const Type *a, const Type *b) {
  if (a->rank != b->rank) return false;
  for (int i = 0; i < a->rank; i++)
    if (a->dims[i].size != b->dims[i].size ||
        a->dims[i].ragged != b->dims[i].ragged)
      return false;
  return true;
}

bool type_equal(const Type *a, const Type *b) {
  return a->dtype == b->dtype && type_same_dims(a, b);
}

bool type_is_ragged(const Type *t) {
  return t->rank > 1 && t->dims[1].ragged;
}

int type_stored_dims(const Type *t, int64_t sizes[MAX_RANK]) {
  int rank = 0;
  for (int i = type_is_ragged(t); i < t->rank; i++)
    sizes[rank++] = t->dims[i].size;
  return rank;
}

int64_t type_elements(const Type *t) {
  int64_t sizes[MAX_RANK], n = 1;
  int rank = type_stored_dims(t, sizes);
  for (int i = 0; i < rank; i++)
    if (__builtin_mul_overflow(n, sizes[i], &n)) return -1;
  return n;
}

int64_t type_bytes(const Type *t) {
  int64_t n = type_elements(t);
  if (n < 0 || __builtin_mul_overflow(n, dtype_info[t->dtype].bytes, &n))
    return -1;
  return n;
}

Sym type_text(Ctx *cx, const Type *t) {
  Buf b = {0};
  buf_fmt(&b, "%s[", dtype_info[t->dtype].name);
  for (int i = 0; i < t->rank; i++)
    buf_fmt(&b, "%s%s%lld", i ? ", " : "", t->dims[i].ragged ? "r<=" : "",
            (long long)t->dims[i].size);
  buf_add(&b, "]");
  Sym s = sym_n(cx, b.data, b.len);
  buf_free(&b);
  return s;
}

/* ---- values ------------------------------------------------------------- */

Value *ir_now(Value *v) {
  Value *last = v;
  while (last->fwd)
    last = last->fwd;
  while (v->fwd && v->fwd != last) { /* shorten the chain for next time */
    Value *next = v->fwd;
    v->fwd = last;
    v = next;
  }
  return last;
}

void ir_replace(Value *old, Value *by) {
  by = ir_now(by);
  assert(!old->fwd && old != by);
  assert(type_equal(&old->type, &by->type));
  if (!by->name) by->name = old->name;
  old->fwd = by;
}

static uint32_t number_region(Region *r, uint32_t next) {
  for (uint32_t i = 0; i < r->params.len; i++)
    r->params.data[i]->id = next++;
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    for (uint32_t j = 0; j < n->outs.len; j++)
      n->outs.data[j]->id = next++;
    if (n->body) next = number_region(n->body, next);
  }
  return next;
}

uint32_t ir_number(Entry *e) {
  return number_region(e->region, 0);
}

static void count_uses(const Region *r, uint32_t *counts) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    for (uint32_t j = 0; j < n->ins.len; j++)
      counts[n->ins.data[j]->id]++;
    if (n->body) count_uses(n->body, counts);
  }
  for (uint32_t i = 0; i < r->results.len; i++)
    counts[r->results.data[i]->id]++;
}

uint32_t *ir_use_counts(Entry *e, Arena *a) {
  uint32_t *counts = NEW_ARRAY(a, uint32_t, ir_number(e));
  count_uses(e->region, counts);
  return counts;
}

/* ---- sweeping ----------------------------------------------------------- */

static void rewire(ValueVec *v) {
  for (uint32_t i = 0; i < v->len; i++)
    v->data[i] = ir_now(v->data[i]);
}

static void rewire_region(Region *r) {
  rewire(&r->results);
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    rewire(&r->nodes.data[i]->ins);
    if (r->nodes.data[i]->body) rewire_region(r->nodes.data[i]->body);
  }
}

static bool is_needed(const Node *n, const bool *needed) {
  for (uint32_t i = 0; i < n->outs.len; i++)
    if (needed[n->outs.data[i]->id]) return true;
  return false;
}

/* Drops from `r` what none of its results needs. needed: by value id. */
static void drop_dead(Region *r, bool *needed) {
  for (uint32_t i = 0; i < r->results.len; i++)
    needed[r->results.data[i]->id] = true;
  for (uint32_t i = r->nodes.len; i-- > 0;) {
    Node *n = r->nodes.data[i];
    if (!is_needed(n, needed)) continue;
    for (uint32_t j = 0; j < n->ins.len; j++)
      needed[n->ins.data[j]->id] = true;
    if (n->body) drop_dead(n->body, needed);
  }
  uint32_t kept = 0;
  for (uint32_t i = 0; i < r->nodes.len; i++)
    if (is_needed(r->nodes.data[i], needed))
      r->nodes.data[kept++] = r->nodes.data[i];
  r->nodes.len = kept;
}

void ir_sweep(Entry *e) {
  Ctx *cx = e->module->cx;
  rewire_region(e->region);
  drop_dead(e->region, NEW_ARRAY(&cx->scratch, bool, ir_number(e)));
}

/* ---- ragged values ------------------------------------------------------ */

/* The operand that parameter `v` of a body stands for. NULL: `v` is no such
 * parameter, or the index of a scan. */
static Value *outer_operand(const Value *v) {
  if (v->def || !v->region->owner) return NULL;
  const Node *owner = v->region->owner;
  uint32_t first = owner->op == OP_scan; /* the index has no operand */
  if (v->index < first || v->index - first >= owner->ins.len) return NULL;
  return ir_now(owner->ins.data[v->index - first]);
}

/* A parameter that has one value throughout: not a carry, not a slice. */
static bool is_invariant(const Value *v) {
  const Node *owner = v->region->owner;
  return owner->op != OP_scan ||
         v->index > attr_int(owner, "carries") + attr_int(owner, "scanned");
}

Value *ir_outermost(Value *v) {
  v = ir_now(v);
  for (Value *outer; (outer = outer_operand(v)) && is_invariant(v);)
    v = outer;
  return v;
}

static bool is_inside(const Region *r, const Region *around) {
  while (r != around && r->owner)
    r = r->owner->region;
  return r == around;
}

/* `source` by what region `from` can see: a parameter of a fused body that the
 * search went into stands for the operand outside. */
static Value *seen_from(const Region *from, Value *source) {
  for (Value *outer; !is_inside(from, source->region); source = outer)
    if (!(outer = outer_operand(source))) break;
  return source;
}

int ir_rows_operand(OpKind op) {
  switch ((int)op) {
  case OP_dispatch: return 1;
  case OP_rows_return: return ROWS_MINE;
  case OP_rows_gather: return 2;
  case OP_rows_send: return ROWS_THEIRS;
  }
  return -1;
}

/* Pushes what hands `v` its rows; gives v's node where they start there. */
static Node *push_owners(Arena *a, ValueVec *todo, Value *v) {
  Node *n = v->def;
  if (!n) {
    Value *outer = outer_operand(v);
    if (outer) vec_push(a, todo, outer);
  } else if (ir_rows_operand(n->op) >= 0) {
    return n;
  } else if (n->op == OP_fused) {
    vec_push(a, todo, ir_now(n->body->results.data[v->index]));
  } else if (n->op == OP_scan) {
    if (v->index < attr_int(n, "carries"))
      vec_push(a, todo, ir_now(n->ins.data[v->index]));
  } else {
    for (uint32_t i = n->ins.len; i-- > 0;) /* the first is looked at first */
      vec_push(a, todo, ir_now(n->ins.data[i]));
  }
  return NULL;
}

Node *ir_ragged_owner(Value *v) {
  Arena a = {0};
  ValueVec todo = {0};
  Map seen = {0};
  Node *owner = NULL;
  vec_push(&a, &todo, ir_now(v));
  while (!owner && todo.len) {
    Value *at = todo.data[--todo.len];
    if (!type_is_ragged(&at->type) || map_get(&seen, at)) continue;
    map_put(&a, &seen, at, at);
    owner = push_owners(&a, &todo, at);
  }
  arena_reset(&a);
  return owner;
}

double ir_rows_share(Value *v) {
  double room = 1, come = 1;
  Node *n = type_is_ragged(&v->type) ? ir_ragged_owner(v) : NULL;
  for (; n && n->op == OP_rows_send; n = ir_ragged_owner(n->ins.data[0])) {
    room *= (double)n->outs.data[0]->type.dims[1].size;
    come *= (double)n->ins.data[0]->type.dims[1].size;
  }
  return come < room ? come / room : 1;
}

double ir_usual_macs(const Node *n) {
  double macs = (double)ir_macs(n), share = 1;
  for (uint32_t i = 0; i < 2 && n->op == OP_contract && share == 1; i++)
    share = ir_rows_share(n->ins.data[i]);
  for (uint32_t i = 0; n->op == OP_fused && i < n->body->nodes.len; i++)
    macs += ir_usual_macs(n->body->nodes.data[i]);
  return macs * share;
}

double ir_usual_bytes(const Node *n) {
  double bytes = 0;
  for (uint32_t i = 0; i < n->ins.len; i++)
    bytes += (double)ir_bytes_read(n, i) * ir_rows_share(n->ins.data[i]);
  for (uint32_t i = 0; i < n->outs.len; i++) {
    Value *v = n->outs.data[i];
    bytes += (double)type_bytes(&v->type) * ir_rows_share(v);
  }
  return bytes;
}

Value *ir_ragged_source(Value *v) {
  const Region *from = v->region;
  const Node *owner = ir_ragged_owner(v);
  if (!owner) return NULL;
  Value *source = ir_now(owner->ins.data[ir_rows_operand(owner->op)]);
  return seen_from(from, source);
}

/* ---- cloning ------------------------------------------------------------ */

static Value *mapped(const Map *map, Value *v) {
  Value *to = map_get(map, v);
  return to ? to : v;
}

static Value *clone_value(Arena *a, const Value *v, Map *map) {
  Value *to = NEW(a, Value);
  *to = *v;
  to->fwd = NULL;
  map_put(a, map, v, to);
  return to;
}

static Node *clone_node(Ctx *cx, const Node *n, Region *to, Map *map);

static void clone_params(Ctx *cx, const Region *r, Region *to, Map *map) {
  for (uint32_t i = 0; i < r->params.len; i++) {
    Value *p = clone_value(&cx->perm, r->params.data[i], map);
    p->region = to;
    vec_push(&cx->perm, &to->params, p);
  }
}

/* Fills the empty region `to` with a copy of `r`. */
static void clone_region(Ctx *cx, const Region *r, Region *to) {
  Map map = {0};
  clone_params(cx, r, to, &map);
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *copy = clone_node(cx, r->nodes.data[i], to, &map);
    vec_push(&cx->perm, &to->nodes, copy);
  }
  for (uint32_t i = 0; i < r->results.len; i++)
    vec_push(&cx->perm, &to->results, mapped(&map, ir_now(r->results.data[i])));
}

static Node *clone_node(Ctx *cx, const Node *n, Region *to, Map *map) {
  Node *copy = NEW(&cx->perm, Node);
  *copy = *n;
  copy->ins = copy->outs = (ValueVec){0};
  copy->region = to;
  copy->body = NULL;
  for (uint32_t i = 0; i < n->ins.len; i++)
    vec_push(&cx->perm, &copy->ins, mapped(map, ir_now(n->ins.data[i])));
  for (uint32_t i = 0; i < n->outs.len; i++) {
    Value *out = clone_value(&cx->perm, n->outs.data[i], map);
    out->def = copy;
    out->region = to;
    vec_push(&cx->perm, &copy->outs, out);
  }
  if (n->body) clone_region(cx, n->body, ir_region(cx, to->entry, copy));
  return copy;
}

Node *ir_clone(Builder *b, const Node *n, Map *map) {
  Node *copy = clone_node(b->cx, n, b->region, map);
  vec_push(&b->cx->perm, b->out, copy);
  return copy;
}

/* ---- modules ------------------------------------------------------------ */

Entry *ir_entry(Module *m, const char *name) {
  for (uint32_t i = 0; i < m->entries.len; i++)
    if (strcmp(m->entries.data[i]->name, name) == 0) return m->entries.data[i];
  return NULL;
}

Entry *ir_main_entry(const Module *m) {
  Entry *first = NULL;
  for (uint32_t i = 0; i < m->entries.len; i++) {
    Entry *e = m->entries.data[i];
    if (strcmp(e->name, "init") == 0 || strcmp(e->name, "reset") == 0) continue;
    if (strcmp(e->name, "train") == 0) return e;
    if (!first) first = e;
  }
  return first;
}

Slot *ir_slot(Module *m, const char *path) {
  for (uint32_t i = 0; i < m->slots.len; i++)
    if (strcmp(m->slots.data[i]->path, path) == 0) return m->slots.data[i];
  return NULL;
}

Module *ir_module_new(Ctx *cx) {
  Module *m = NEW(&cx->perm, Module);
  m->cx = cx;
  return m;
}

Entry *ir_entry_new(Module *m, Sym name, Span span) {
  Arena *a = &m->cx->perm;
  Entry *e = NEW(a, Entry);
  e->name = name;
  e->module = m;
  e->span = span;
  e->arena_bytes = -1;
  e->region = ir_region(m->cx, e, NULL);
  vec_push(a, &m->entries, e);
  return e;
}

Value *ir_bind_in(Entry *e, Binding b, Sym name, Type type) {
  vec_push(&e->module->cx->perm, &e->ins, b);
  return ir_param(e->module->cx, e->region, name, type);
}

void ir_bind_out(Entry *e, Binding b, Value *v) {
  vec_push(&e->module->cx->perm, &e->outs, b);
  vec_push(&e->module->cx->perm, &e->region->results, v);
}

static void clone_entry(Module *to, const Entry *e) {
  Entry *copy = ir_entry_new(to, e->name, e->span);
  copy->arena_bytes = e->arena_bytes;
  copy->input_bytes = e->input_bytes;
  copy->report_bytes = e->report_bytes;
  clone_region(to->cx, e->region, copy->region);
  for (uint32_t i = 0; i < e->ins.len; i++)
    vec_push(&to->cx->perm, &copy->ins, e->ins.data[i]);
  for (uint32_t i = 0; i < e->outs.len; i++)
    vec_push(&to->cx->perm, &copy->outs, e->outs.data[i]);
}

Module *ir_module_clone(const Module *m) {
  Arena *a = &m->cx->perm;
  Module *to = ir_module_new(m->cx);
  for (uint32_t i = 0; i < m->mesh.len; i++)
    vec_push(a, &to->mesh, m->mesh.data[i]);
  for (uint32_t i = 0; i < m->slots.len; i++)
    vec_push(a, &to->slots, arena_copy(a, m->slots.data[i], sizeof(Slot)));
  for (uint32_t i = 0; i < m->options.len; i++)
    vec_push(a, &to->options, m->options.data[i]);
  memcpy(to->slab_bytes, m->slab_bytes, sizeof to->slab_bytes);
  for (uint32_t i = 0; i < m->entries.len; i++)
    clone_entry(to, m->entries.data[i]);
  return to;
}

Sym node_loc(Ctx *cx, const Node *n) {
  return n->loc ? n->loc : span_text(cx, n->span);
}

/* ---- cost --------------------------------------------------------------- */

/* Index of a letter in a map's side, -1 when absent. */
static int letter_at(const char *letters, char c) {
  const char *p = strchr(letters, c);
  return p ? (int)(p - letters) : -1;
}

double ir_usual_turns(const Node *scan) {
  return attr_bool(scan, "counted") ? 0 : (double)attr_int(scan, "length");
}

int64_t ir_macs(const Node *n) {
  IndexMap m;
  if (n->op == OP_attention || n->op == OP_attention_grad)
    return ir_attention_macs(n);
  if (n->op != OP_contract || !map_parse(attr_sym(n, "map"), &m)) return 0;
  const Value *sides[3] = {n->ins.data[0], n->ins.data[1], n->outs.data[0]};
  const char *letters[3] = {m.ins[0], m.ins[1], m.out};
  char group = 0; /* of a ragged pair: its rows are counted by the row letter */
  for (int s = 0; s < 3; s++)
    if (type_is_ragged(&sides[s]->type)) group = letters[s][0];
  int64_t macs = 1;
  for (int s = 0; s < 2; s++)
    for (int i = 0; letters[s][i]; i++) {
      bool seen = s == 1 && letter_at(letters[0], letters[1][i]) >= 0;
      if (letters[s][i] != group && !seen) macs *= sides[s]->type.dims[i].size;
    }
  return macs;
}

/* Bytes that a node reads of operand `v`: no more than the results' where it
 * takes a part of it. */
static int64_t bytes_read(const Value *v, const Node *n) {
  if ((n->op == OP_gather || n->op == OP_slice) && n->ins.data[0] == v)
    return type_bytes(&n->outs.data[0]->type);
  return type_bytes(&v->type);
}

static int64_t bytes_read_in(const Value *v, const Region *r) {
  int64_t bytes = 0;
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    bool uses = false;
    for (uint32_t k = 0; k < n->ins.len; k++)
      uses |= n->ins.data[k] == v;
    if (uses) bytes += bytes_read(v, n);
  }
  return bytes;
}

int64_t ir_bytes_read(const Node *n, uint32_t operand) {
  const Value *v = n->ins.data[operand];
  int64_t all = type_bytes(&v->type);
  int64_t read = n->op == OP_fused
                     ? bytes_read_in(n->body->params.data[operand], n->body)
                     : bytes_read(v, n);
  return read < all ? read : all;
}

int64_t ir_bytes(const Node *n) {
  int64_t bytes = 0;
  for (uint32_t i = 0; i < n->ins.len; i++)
    bytes += ir_bytes_read(n, i);
  for (uint32_t i = 0; i < n->outs.len; i++)
    bytes += type_bytes(&n->outs.data[i]->type);
  return bytes;
}
