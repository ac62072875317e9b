/* build.c: making nodes, and index maps. */
#include "ir.h"

#include <math.h>
#include <string.h>

/* ---- builders ----------------------------------------------------------- */

Builder ir_builder(Ctx *cx, Region *r) {
  return (Builder){.cx = cx, .region = r, .out = &r->nodes};
}

Builder ir_builder_like(Ctx *cx, Region *r, NodeVec *out, const Node *n) {
  return (Builder){.cx = cx,
                   .region = r,
                   .out = out,
                   .span = n->span,
                   .loc = n->loc,
                   .layer = n->layer,
                   .remat = n->remat,
                   .backward = n->backward};
}

/* ---- nodes -------------------------------------------------------------- */

Value *ir_add_result(Ctx *cx, Node *n, Type type) {
  Value *v = NEW(&cx->perm, Value);
  v->type = type;
  v->def = n;
  v->region = n->region;
  v->index = n->outs.len;
  vec_push(&cx->perm, &n->outs, v);
  return v;
}

static Node *new_node(Builder *b, OpKind op, Value *const *ins,
                      uint32_t n_ins) {
  Node *n = NEW(&b->cx->perm, Node);
  n->op = op;
  n->span = b->span;
  n->loc = b->loc;
  n->layer = b->layer;
  n->remat = b->remat;
  n->backward = b->backward;
  n->region = b->region;
  for (uint32_t i = 0; i < n_ins; i++)
    vec_push(&b->cx->perm, &n->ins, ir_now(ins[i]));
  vec_push(&b->cx->perm, b->out, n);
  return n;
}

Node *ir_node_raw(Builder *b, OpKind op, Value *const *ins, uint32_t n_ins,
                  const Attr *attrs, const Type *outs, uint32_t n_outs) {
  Node *n = new_node(b, op, ins, n_ins);
  if (attrs) memcpy(n->attrs, attrs, sizeof n->attrs);
  for (uint32_t i = 0; i < n_outs; i++)
    ir_add_result(b->cx, n, outs[i]);
  return n;
}

static AttrKind kind_of(OpKind op, const char *name) {
  const AttrSpec *specs;
  int n = op_attrs(op, &specs);
  for (int i = 0; i < n; i++)
    if (strcmp(specs[i].name, name) == 0) return specs[i].kind;
  internal_error("%s has no attribute \"%s\"", op_info[op].name, name);
}

static void set_attr(Ctx *cx, Node *n, const char *name, va_list *args) {
  Attr *a = attr_ref(n, name);
  a->present = true;
  switch (kind_of(n->op, name)) {
  case ATTR_INT:
  case ATTR_BOOL: a->i = va_arg(*args, int64_t); break;
  case ATTR_FLOAT: a->f = va_arg(*args, double); break;
  case ATTR_STR:
  case ATTR_MAP: a->s = sym(cx, va_arg(*args, const char *)); break;
  case ATTR_INTS:
    a->list_len = (uint32_t)va_arg(*args, int64_t);
    a->list = arena_copy(&cx->perm, va_arg(*args, const int64_t *),
                         a->list_len * sizeof(int64_t));
    break;
  }
}

void ir_set_attrs(Ctx *cx, Node *n, va_list args) {
  va_list rest;
  va_copy(rest, args);
  for (const char *name; (name = va_arg(rest, const char *));)
    set_attr(cx, n, name, &rest);
  va_end(rest);
}

static void add_scan_params(Ctx *cx, Node *n) {
  int64_t carries = attr_int(n, "carries"), scanned = attr_int(n, "scanned");
  ir_param(cx, n->body, NULL, type_scalar(DT_i32));
  for (uint32_t i = 0; i < n->ins.len; i++) {
    Type t = n->ins.data[i]->type;
    if (i >= carries && i < carries + scanned) {
      assert(t.rank > 0);
      memmove(&t.dims[0], &t.dims[1], --t.rank * sizeof(Dim));
    }
    ir_param(cx, n->body, n->ins.data[i]->name, t);
  }
}

static void add_body(Ctx *cx, Node *n) {
  ir_region(cx, n->region->entry, n);
  if (n->op == OP_scan) {
    add_scan_params(cx, n);
    return;
  }
  for (uint32_t i = 0; i < n->ins.len; i++)
    ir_param(cx, n->body, n->ins.data[i]->name, n->ins.data[i]->type);
}

static void infer_or_die(Builder *b, Node *n) {
  if (ir_infer(b->cx, n)) return;
  diag_print(b->cx, stderr);
  internal_error("%s was built from operands that do not fit",
                 op_info[n->op].name);
}

Node *ir_node(Builder *b, OpKind op, const Type *type, Value *const *ins,
              uint32_t n_ins, ...) {
  assert(op_is(op, TRAIT_TYPED) == (type != NULL));
  Node *n = new_node(b, op, ins, n_ins);
  va_list args;
  va_start(args, n_ins);
  ir_set_attrs(b->cx, n, args);
  va_end(args);
  if (op_is(op, TRAIT_REGION)) {
    add_body(b->cx, n);
    return n;
  }
  if (type) ir_add_result(b->cx, n, *type);
  infer_or_die(b, n);
  return n;
}

void ir_finish(Builder *b, Node *n) {
  assert(n->body && !n->outs.len);
  infer_or_die(b, n);
}

Region *ir_region(Ctx *cx, Entry *e, Node *owner) {
  Region *r = NEW(&cx->perm, Region);
  r->entry = e;
  r->owner = owner;
  if (owner) owner->body = r;
  return r;
}

Value *ir_param(Ctx *cx, Region *r, Sym name, Type type) {
  Value *v = NEW(&cx->perm, Value);
  v->name = name;
  v->type = type;
  v->region = r;
  v->index = r->params.len;
  vec_push(&cx->perm, &r->params, v);
  return v;
}

/* ---- one line an op ----------------------------------------------------- */

static Value *only(const Node *n) {
  assert(n->outs.len == 1);
  return n->outs.data[0];
}

Value *ir_unary(Builder *b, OpKind op, Value *a) {
  return only(ir_node(b, op, NULL, &a, 1, NULL));
}

Value *ir_binary(Builder *b, OpKind op, Value *a, Value *c) {
  return only(ir_node(b, op, NULL, (Value *[]){a, c}, 2, NULL));
}

Value *ir_fma(Builder *b, Value *x, Value *y, Value *z) {
  return only(ir_node(b, OP_fma, NULL, (Value *[]){x, y, z}, 3, NULL));
}

Value *ir_select(Builder *b, Value *cond, Value *yes, Value *no) {
  return only(ir_node(b, OP_select, NULL, (Value *[]){cond, yes, no}, 3, NULL));
}

Value *ir_cast(Builder *b, Value *a, Dtype dtype) {
  Type t = type_with_dtype(a->type, dtype);
  return only(ir_node(b, OP_cast, &t, &a, 1, NULL));
}

Value *ir_cast_to(Builder *b, Value *a, Dtype dtype) {
  return a->type.dtype == dtype ? a : ir_cast(b, a, dtype);
}

Value *ir_bitcast(Builder *b, Value *a, Dtype dtype) {
  Type t = type_with_dtype(a->type, dtype);
  return only(ir_node(b, OP_bitcast, &t, &a, 1, NULL));
}

Value *ir_const(Builder *b, Type type, double value) {
  return only(ir_node(b, OP_const, &type, NULL, 0, "value", value, NULL));
}

Value *ir_const_like(Builder *b, const Value *like, double value) {
  return ir_const(b, like->type, value);
}

Value *ir_iota(Builder *b, Type type, int dim) {
  return only(ir_node(b, OP_iota, &type, NULL, 0, "dim", (int64_t)dim, NULL));
}

Value *ir_broadcast(Builder *b, Value *a, const char *map, Type type) {
  return only(ir_node(b, OP_broadcast, &type, &a, 1, "map", map, NULL));
}

Value *ir_splat(Builder *b, Value *scalar, Type type) {
  char map[3 + MAX_RANK] = "->";
  for (int i = 0; i < type.rank; i++)
    map[2 + i] = (char)('a' + i);
  return ir_broadcast(b, scalar, map, type);
}

Value *ir_transpose(Builder *b, Value *a, const char *map) {
  return only(ir_node(b, OP_transpose, NULL, &a, 1, "map", map, NULL));
}

Value *ir_reshape(Builder *b, Value *a, Type type) {
  return only(ir_node(b, OP_reshape, &type, &a, 1, NULL));
}

Value *ir_slice(Builder *b, Value *a, int dim, int64_t start, int64_t size) {
  return only(ir_node(b, OP_slice, NULL, &a, 1, "dim", (int64_t)dim, "start",
                      start, "size", size, NULL));
}

Value *ir_concat(Builder *b, Value *const *parts, uint32_t n, int dim) {
  return only(ir_node(b, OP_concat, NULL, parts, n, "dim", (int64_t)dim, NULL));
}

Value *ir_pad(Builder *b, Value *a, int dim, int64_t lo, int64_t hi) {
  return only(ir_node(b, OP_pad, NULL, &a, 1, "dim", (int64_t)dim, "lo", lo,
                      "hi", hi, NULL));
}

Value *ir_reduce(Builder *b, OpKind op, Value *a, const char *map) {
  return only(ir_node(b, op, NULL, &a, 1, "map", map, NULL));
}

double ir_neutral(OpKind op, Dtype dtype) {
  bool low = op == OP_reduce_max;
  if (!low && op != OP_reduce_min) return 0;
  switch (dtype_info[dtype].kind) {
  case DK_BOOL: break; /* have none */
  case DK_INT: return low ? INT32_MIN : INT32_MAX;
  case DK_UINT: return low ? 0 : UINT32_MAX;
  case DK_FLOAT: return low ? -INFINITY : INFINITY;
  }
  return 0;
}

Value *ir_contract(Builder *b, Value *x, Value *y, const char *map) {
  return only(
      ir_node(b, OP_contract, NULL, (Value *[]){x, y}, 2, "map", map, NULL));
}

Node *ir_drops(Node *n, bool drops) {
  Attr *a = attr_ref(n, "drops");
  a->present = drops;
  a->i = drops;
  return n;
}

/* Choices without a row are those of one group more, behind all others. */
Routes ir_route(Builder *b, Value *ids, int64_t experts, Value *ours) {
  const Node *n = ir_node(b, OP_route, NULL, &ids, 1, "experts",
                          experts + (ours != NULL), NULL);
  Routes r = {n->outs.data[0], n->outs.data[1], n->outs.data[2]};
  if (!ours) return r;
  int64_t last = type_elements(&ids->type) - 1;
  r.offsets = ir_slice(b, r.offsets, 0, 0, experts + 1);
  r.slot = ir_select(b, ours, r.slot, ir_const_like(b, r.slot, (double)last));
  return r;
}

Value *ir_only_rows(Builder *b, Value *v, Value *offsets, double fill) {
  Type i32 = type_with_dtype(v->type, DT_i32);
  int64_t groups = offsets->type.dims[0].size - 1;
  Value *last = ir_slice(b, offsets, 0, groups, 1);
  Value *end = ir_splat(b, ir_reshape(b, last, type_scalar(DT_i32)), i32);
  Value *there = ir_binary(b, OP_lt, ir_iota(b, i32, 1), end);
  return ir_select(b, there, v, ir_const_like(b, v, fill));
}

/* ---- index maps --------------------------------------------------------- */

static bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Reads letters, none twice, into `out`. NULL: malformed or too many. */
static const char *parse_letters(const char *p, char out[MAX_RANK + 1]) {
  int n = 0;
  for (; is_letter(*p); p++) {
    if (n == MAX_RANK || memchr(out, *p, (size_t)n)) return NULL;
    out[n++] = *p;
  }
  out[n] = '\0';
  return p;
}

bool map_parse(const char *text, IndexMap *out) {
  *out = (IndexMap){.n_ins = 1};
  const char *p = parse_letters(text, out->ins[0]);
  if (p && *p == ',') {
    out->n_ins = 2;
    p = parse_letters(p + 1, out->ins[1]);
  }
  if (!p || p[0] != '-' || p[1] != '>') return false;
  p = parse_letters(p + 2, out->out);
  return p && !*p;
}

IndexMap map_of(const Node *n) {
  IndexMap m;
  bool ok = map_parse(attr_sym(n, "map"), &m);
  assert(ok);
  (void)ok;
  return m;
}

Sym map_text(Ctx *cx, const IndexMap *m) {
  return m->n_ins == 2 ? sym_fmt(cx, "%s,%s->%s", m->ins[0], m->ins[1], m->out)
                       : sym_fmt(cx, "%s->%s", m->ins[0], m->out);
}

Sym map_dropping(Ctx *cx, int rank, int dim) {
  IndexMap m = {.n_ins = 1};
  for (int i = 0, kept = 0; i < rank; i++) {
    m.ins[0][i] = (char)('a' + i);
    if (i != dim) m.out[kept++] = m.ins[0][i];
  }
  return map_text(cx, &m);
}

char map_free_letter(const IndexMap *m) {
  static const char letters[] =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  for (const char *c = letters; *c; c++)
    if (!strchr(m->ins[0], *c) && !strchr(m->ins[1], *c) && !strchr(m->out, *c))
      return *c;
  internal_error("an index map uses every letter"); /* 24 at most */
}
