/* random_graph.c: see random_graph.h.
 *
 * Makers add a few nodes each, with operands from the pool of the values made
 * so far in the region; where nothing fits they make what they need.
 * Elementwise ops come from ops.def by the family of their inference rule, so a
 * new row is in the tests from its first day. */
#include "random_graph.h"

#include <stdlib.h>
#include <string.h>

enum { LARGEST = 4096 }; /* elements of a value */

typedef struct Gen {
  Ctx *cx;
  const RandomGraph *o;
  Random random;
  Builder b;
  ValueVec pool; /* plain values of b.region */
  int depth;     /* scans around */
} Gen;

/* ---- numbers ------------------------------------------------------------ */

uint64_t random_bits(Random *r) { /* splitmix64 */
  uint64_t x = r->state += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

int64_t random_below(Random *r, int64_t n) {
  return (int64_t)(random_bits(r) % (uint64_t)n);
}

double random_unit(Random *r) {
  return (double)(random_bits(r) >> 11) * 0x1p-53;
}

static int64_t below(Gen *g, int64_t n) {
  return random_below(&g->random, n);
}
static bool chance(Gen *g, int percent) {
  return below(g, 100) < percent;
}

static int64_t some_size(Gen *g) {
  static const int64_t sizes[] = {1, 1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 33};
  return sizes[below(g, COUNT_OF(sizes))];
}

/* ---- the pool ----------------------------------------------------------- */

static Value *keep(Gen *g, Value *v) {
  vec_push(&g->cx->perm, &g->pool, v);
  return v;
}

static bool is_float(Type t) {
  return dtype_info[t.dtype].kind == DK_FLOAT;
}
static Type some_type(Gen *g, Dtype dtype) {
  int64_t sizes[4], elements = 1;
  int rank = (int)below(g, 4);
  for (int i = 0; i < rank; i++) {
    sizes[i] = some_size(g);
    while (elements * sizes[i] > LARGEST / 4)
      sizes[i] = (sizes[i] + 1) / 2;
    elements *= sizes[i];
  }
  return type_of(dtype, rank, sizes);
}

static Value *some_const(Gen *g, Type t) {
  static const double values[] = {0, 1, 2, 3, 0.5, -1, -2, 0.25, 31};
  double v = values[below(g, COUNT_OF(values))];
  if (t.dtype == DT_bool) v = v > 0.5;
  if (t.dtype == DT_u32 && v < 0) v = -v;
  if (!is_float(t)) v = (double)(int64_t)v;
  return ir_const(&g->b, t, v);
}

/* A value of type `t` made of nothing. */
static Value *make_leaf(Gen *g, Type t) {
  if (t.dtype == DT_bool || t.rank == 0 || chance(g, 40))
    return some_const(g, t);
  Value *i = ir_iota(&g->b, t, (int)below(g, t.rank));
  if (!is_float(t)) return i;
  Value *scale = ir_const(&g->b, t, 0.125);
  return ir_binary(&g->b, OP_mul, i, scale);
}

/* A value of `dtype` and any shape. */
static Value *pick(Gen *g, Dtype dtype) {
  uint32_t n = g->pool.len, start = n ? (uint32_t)below(g, n) : 0;
  for (uint32_t i = 0; i < n; i++) {
    Value *v = g->pool.data[(start + i) % n];
    if (v->type.dtype == dtype) return v;
  }
  return keep(g, make_leaf(g, some_type(g, dtype)));
}

/* One that has `rank` dims at least. */
static Value *pick_rank(Gen *g, Dtype dtype, int rank) {
  for (int tries = 0; tries < 6; tries++) {
    Value *v = pick(g, dtype);
    if (v->type.rank >= rank) return v;
  }
  Type t = some_type(g, dtype);
  while (t.rank < rank)
    t.dims[t.rank++].size = 1 + below(g, 5);
  return keep(g, make_leaf(g, t));
}

static Dtype number(Gen *g) {
  static const Dtype all[] = {DT_f32, DT_f32, DT_f32, DT_i32, DT_u32, DT_bf16};
  return all[below(g, COUNT_OF(all))];
}

static Dtype real(Gen *g) {
  return chance(g, 85) ? DT_f32 : DT_bf16;
}

/* A value of type `t`: an existing one, another by cast, or a leaf. */
static Value *like(Gen *g, Type t) {
  uint32_t n = g->pool.len, start = n ? (uint32_t)below(g, n) : 0;
  for (uint32_t i = 0; i < n; i++) {
    Value *v = g->pool.data[(start + i) % n];
    if (type_equal(&v->type, &t)) return v;
    if (type_same_dims(&v->type, &t) && chance(g, 30))
      return ir_cast(&g->b, v, t.dtype);
  }
  return make_leaf(g, t);
}

/* Brings a float into [-4, 4]; a NaN becomes 4. */
static Value *tame(Gen *g, Value *v) {
  if (g->o->wild || !is_float(v->type)) return v;
  Value *low = ir_binary(&g->b, OP_min, v, ir_const(&g->b, v->type, 4));
  return ir_binary(&g->b, OP_max, low, ir_const(&g->b, v->type, -4));
}

/* ---- elementwise -------------------------------------------------------- */

typedef Value *Family(Gen *g, OpKind op);

static Value *apply(Gen *g, OpKind op, Value *first) {
  Value *ins[5] = {first};
  uint32_t n = (uint32_t)op_info[op].min_ins;
  for (uint32_t i = 1; i < n; i++)
    ins[i] = like(g, first->type);
  if (op == OP_threefry)
    return ir_node(&g->b, op, NULL, ins, n, "site", below(g, 100), NULL)
        ->outs.data[0];
  return ir_node(&g->b, op, NULL, ins, n, NULL)->outs.data[0];
}

static Value *family_same(Gen *g, OpKind op) {
  Dtype d = op == OP_fma   ? real(g)
            : op == OP_rem ? chance(g, 50) ? DT_i32 : DT_u32
                           : number(g);
  return apply(g, op, pick(g, d));
}

static Value *family_float(Gen *g, OpKind op) {
  return apply(g, op, pick(g, real(g)));
}

static Value *family_compare(Gen *g, OpKind op) {
  return apply(g, op, pick(g, number(g)));
}

static Value *family_bits(Gen *g, OpKind op) {
  bool shift = op == OP_shl || op == OP_shr;
  Dtype d = !shift && chance(g, 50) ? DT_bool : chance(g, 50) ? DT_i32 : DT_u32;
  return apply(g, op, pick(g, d));
}

static Value *family_select(Gen *g, OpKind op) {
  (void)op;
  Value *yes = pick(g, chance(g, 80) ? number(g) : DT_bool);
  Value *cond = like(g, type_with_dtype(yes->type, DT_bool));
  return ir_select(&g->b, cond, yes, like(g, yes->type));
}

static Value *family_cast(Gen *g, OpKind op) {
  static const Dtype all[] = {DT_bool, DT_i32, DT_u32, DT_f32, DT_bf16};
  (void)op;
  Value *v = pick(g, all[below(g, COUNT_OF(all))]);
  return ir_cast(&g->b, v, all[below(g, COUNT_OF(all))]);
}

static Value *family_bitcast(Gen *g, OpKind op) {
  static const Dtype all[] = {DT_i32, DT_u32, DT_f32};
  (void)op;
  Value *v = pick(g, all[below(g, COUNT_OF(all))]);
  return ir_bitcast(&g->b, v, all[below(g, COUNT_OF(all))]);
}

static Value *family_from_bits(Gen *g, OpKind op) {
  Value *bits = pick(g, DT_u32);
  Type t = type_with_dtype(bits->type, real(g));
  return ir_node(&g->b, op, &t, &bits, 1, NULL)->outs.data[0];
}

static Value *family_u32(Gen *g, OpKind op) {
  return apply(g, op, pick(g, DT_u32));
}

/* Makes a node of an elementwise op by the name of its inference rule. */
static Value *elementwise(Gen *g, OpKind op) {
  static const char *const rules[OP_COUNT] = {
#define OP(name, min, max, outs, traits, attrs, infer, ...) \
  [OP_##name] = #infer,
#include "../../ir/ops.def"
#undef OP
  };
  static const struct {
    const char *rule;
    Family *make;
  } families[] = {{"same", family_same},           {"float", family_float},
                  {"compare", family_compare},     {"bits", family_bits},
                  {"is_finite", family_float},     {"select", family_select},
                  {"cast", family_cast},           {"bitcast", family_bitcast},
                  {"from_bits", family_from_bits}, {"u32", family_u32}};
  for (size_t i = 0; i < COUNT_OF(families); i++)
    if (strcmp(families[i].rule, rules[op]) == 0)
      return families[i].make(g, op);
  internal_error("random graphs cannot make elementwise %s", rules[op]);
}

static void make_elementwise(Gen *g) {
  OpKind op;
  do
    op = (OpKind)below(g, OP_COUNT);
  while (!op_is(op, TRAIT_EW) || (op_is(op, TRAIT_HIGH) && !g->o->high));
  keep(g, tame(g, elementwise(g, op)));
}

/* ---- moving data -------------------------------------------------------- */

static Dtype any(Gen *g) {
  return chance(g, 85) ? number(g) : DT_bool;
}

static void make_broadcast(Gen *g) {
  Value *v = pick(g, any(g));
  IndexMap m = {.n_ins = 1};
  Type t = {.dtype = v->type.dtype};
  int64_t elements = type_elements(&v->type);
  for (int i = 0; i <= v->type.rank; i++) {
    int64_t fresh = some_size(g);
    if (chance(g, 40) && elements * fresh <= LARGEST && t.rank < 6) {
      m.out[t.rank] = (char)('A' + t.rank);
      t.dims[t.rank++].size = fresh;
      elements *= fresh;
    }
    if (i == v->type.rank) break;
    m.ins[0][i] = m.out[t.rank] = (char)('a' + i);
    t.dims[t.rank++] = v->type.dims[i];
  }
  keep(g, ir_broadcast(&g->b, v, map_text(g->cx, &m), t));
}

static void make_transpose(Gen *g) {
  Value *v = pick_rank(g, any(g), 1);
  IndexMap m = {.n_ins = 1};
  for (int i = 0; i < v->type.rank; i++)
    m.ins[0][i] = m.out[i] = (char)('a' + i);
  for (int i = v->type.rank - 1; i > 0; i--) {
    int64_t j = below(g, i + 1);
    char c = m.out[i];
    m.out[i] = m.out[j];
    m.out[j] = c;
  }
  keep(g, ir_transpose(&g->b, v, map_text(g->cx, &m)));
}

/* Merges two neighbouring dims or splits one. */
static void make_reshape(Gen *g) {
  Value *v = pick_rank(g, any(g), 1);
  Type t = v->type;
  int d = (int)below(g, t.rank);
  if (t.rank > 1 && d + 1 < t.rank && chance(g, 50)) {
    t.dims[d].size *= t.dims[d + 1].size;
    memmove(&t.dims[d + 1], &t.dims[d + 2],
            (size_t)(t.rank - d - 2) * sizeof(Dim));
    t.rank--;
  } else if (t.rank < 6) {
    int64_t by = 1 + below(g, 4);
    if (t.dims[d].size % by) by = 1;
    memmove(&t.dims[d + 1], &t.dims[d], (size_t)(t.rank - d) * sizeof(Dim));
    t.dims[d].size = by;
    t.dims[d + 1].size /= by;
    t.rank++;
  }
  keep(g, ir_reshape(&g->b, v, t));
}

static void make_slice(Gen *g) {
  Value *v = pick_rank(g, any(g), 1);
  int dim = (int)below(g, v->type.rank);
  int64_t size = v->type.dims[dim].size, start = below(g, size);
  keep(g, ir_slice(&g->b, v, dim, start, 1 + below(g, size - start)));
}

static void make_concat(Gen *g) {
  Value *parts[3], *v = pick_rank(g, any(g), 1);
  if (type_elements(&v->type) > LARGEST / 4) return;
  int dim = (int)below(g, v->type.rank);
  uint32_t n = 1 + (uint32_t)below(g, 3);
  for (uint32_t i = 0; i < n; i++) {
    Type t = v->type;
    if (chance(g, 30)) t.dims[dim].size = 1;
    parts[i] = i ? like(g, t) : v;
  }
  keep(g, ir_concat(&g->b, parts, n, dim));
}

static void make_pad(Gen *g) {
  Value *v = pick_rank(g, number(g), 1);
  if (type_elements(&v->type) > LARGEST / 4) return;
  keep(g,
       ir_pad(&g->b, v, (int)below(g, v->type.rank), below(g, 3), below(g, 3)));
}

/* Ids i32 in [0, size) with the dims of `t`, whatever the inputs are. */
static Value *make_ids(Gen *g, Type t, int64_t size) {
  Type i32 = type_with_dtype(t, DT_i32);
  if (chance(g, 15)) /* all the same */
    return ir_const(&g->b, i32, (double)below(g, size));
  Value *any_sign = like(g, i32);
  Value *positive =
      ir_binary(&g->b, OP_and, any_sign, ir_const(&g->b, i32, INT32_MAX));
  return ir_binary(&g->b, OP_rem, positive, ir_const(&g->b, i32, (double)size));
}

static void make_gather(Gen *g) {
  Value *table = pick_rank(g, any(g), 1);
  Type ids = some_type(g, DT_i32);
  int64_t rows = table->type.dims[0].size;
  while (ids.rank &&
         (ids.rank + table->type.rank > 6 ||
          type_elements(&ids) * type_elements(&table->type) / rows > LARGEST))
    ids.rank--;
  Value *ins[] = {table, make_ids(g, ids, rows)};
  keep(g, ir_node(&g->b, OP_gather, NULL, ins, 2, NULL)->outs.data[0]);
}

static void make_scatter_add(Gen *g) {
  Value *x = pick(g, number(g));
  Type ids = x->type;
  ids.rank = (uint8_t)below(g, x->type.rank + 1);
  int64_t rows = some_size(g);
  Value *ins[] = {make_ids(g, ids, rows), x};
  keep(g,
       tame(g, ir_node(&g->b, OP_scatter_add, NULL, ins, 2, "rows", rows, NULL)
                   ->outs.data[0]));
}

static void make_take(Gen *g) {
  Value *x = pick_rank(g, any(g), 1);
  Type ids = x->type;
  int64_t size = x->type.dims[x->type.rank - 1].size;
  ids.dims[ids.rank - 1].size = 1 + below(g, size);
  Value *ins[] = {x, make_ids(g, ids, size)};
  keep(g, ir_node(&g->b, OP_take, NULL, ins, 2, NULL)->outs.data[0]);
}

static void make_put(Gen *g) {
  Value *x = pick_rank(g, number(g), 1);
  int64_t size = some_size(g);
  if (type_elements(&x->type) > LARGEST / 33) return;
  Value *ins[] = {x, make_ids(g, x->type, size)};
  keep(g, tame(g, ir_node(&g->b, OP_put, NULL, ins, 2, "size", size, NULL)
                      ->outs.data[0]));
}

/* ---- sums and orders ---------------------------------------------------- */

static void make_reduce(Gen *g) {
  static const OpKind ops[] = {OP_reduce_sum, OP_reduce_max, OP_reduce_min};
  Value *v = pick_rank(g, number(g), 1);
  IndexMap m = {.n_ins = 1};
  for (int i = 0, kept = 0; i < v->type.rank; i++) {
    m.ins[0][i] = (char)('a' + i);
    if (chance(g, 50)) m.out[kept++] = m.ins[0][i];
  }
  OpKind op = ops[below(g, COUNT_OF(ops))];
  keep(g, tame(g, ir_reduce(&g->b, op, v, map_text(g->cx, &m))));
}

static void make_cumsum(Gen *g) {
  Value *v = pick_rank(g, number(g), 1);
  keep(g, tame(g, ir_node(&g->b, OP_cumsum, NULL, &v, 1, "exclusive",
                          below(g, 2), "reverse", below(g, 2), NULL)
                      ->outs.data[0]));
}

static void make_order(Gen *g) {
  Value *v = pick_rank(g, number(g), 1);
  int64_t k = 1 + below(g, v->type.dims[v->type.rank - 1].size);
  Node *n = chance(g, 50) ? ir_node(&g->b, OP_sort, NULL, &v, 1, NULL)
                          : ir_node(&g->b, OP_top_k, NULL, &v, 1, "k", k, NULL);
  keep(g, n->outs.data[0]);
  keep(g, n->outs.data[1]);
}

/* The other operand shares some letters, has batch letters in common, and adds
 * some of its own. */
static void make_contract(Gen *g) {
  Value *x = pick(g, DT_f32);
  IndexMap m = {.n_ins = 2};
  Type t = {.dtype = DT_f32};
  int out = 0;
  for (int i = 0; i < x->type.rank; i++) {
    char c = m.ins[0][i] = (char)('a' + i);
    bool shared = t.rank < 3 && chance(g, 60), kept = !shared || chance(g, 30);
    if (shared) {
      m.ins[1][t.rank] = c;
      t.dims[t.rank++] = x->type.dims[i];
    }
    if (kept) m.out[out++] = c;
  }
  for (int i = (int)below(g, 3); i > 0 && out < 6; i--) {
    t.dims[t.rank].size = 1 + below(g, 5);
    m.ins[1][t.rank++] = m.out[out++] = (char)('A' + i);
  }
  if (type_elements(&t) > LARGEST) return;
  Value *y = like(g, t);
  keep(g, tame(g, ir_contract(&g->b, x, y, map_text(g->cx, &m))));
}

/* ---- routing ------------------------------------------------------------ */

static Value *node_of(Gen *g, OpKind op, Value **ins, uint32_t n) {
  return ir_node(&g->b, op, NULL, ins, n, NULL)->outs.data[0];
}

/* The experts' work on rows y[N, r<=R, D]. */
static Value *expert(Gen *g, Value *y) {
  int64_t sizes[] = {y->type.dims[0].size, y->type.dims[2].size,
                     1 + below(g, 9)};
  Value *w = like(g, type_of(DT_f32, 3, sizes));
  Value *h = tame(g, ir_contract(&g->b, y, w, "nrd,ndh->nrh"));
  Value *zero = ir_const(&g->b, h->type, 0);
  Value *a = ir_binary(&g->b, OP_max, h, zero);
  if (chance(g, 50)) { /* as a weight gradient does */
    keep(g, tame(g, ir_contract(&g->b, y, a, "nrd,nrh->ndh")));
    keep(g, tame(g, ir_reduce(&g->b, OP_reduce_sum, a, "nrh->nh")));
  }
  if (chance(g, 50)) { /* along each row */
    Value *norm = ir_reduce(&g->b, OP_reduce_sum, a, "nrh->nr");
    Value *wide = ir_broadcast(&g->b, norm, "nr->nrh", a->type);
    a = tame(g, ir_binary(&g->b, OP_sub, a, wide));
  }
  return a;
}

static void make_routing(Gen *g) {
  Value *x = pick_rank(g, DT_f32, 1);
  int64_t experts = some_size(g), k = 1 + below(g, 3);
  Type ids_type = type_with_dtype(x->type, DT_i32);
  ids_type.dims[ids_type.rank - 1].size = k;
  if (type_elements(&ids_type) * x->type.dims[x->type.rank - 1].size > LARGEST)
    return;
  Value *ids = make_ids(g, ids_type, experts);
  Value *gates = like(g, type_with_dtype(ids_type, DT_f32));
  Value *ins[] = {x, ids, gates};
  Value *y = ir_node(&g->b, OP_dispatch, NULL, ins, 2 + (uint32_t)below(g, 2),
                     "experts", experts, NULL)
                 ->outs.data[0];
  Value *a = expert(g, y);
  Value *back[] = {a, ids, gates};
  Value *z = node_of(g, OP_combine, back, 2 + (uint32_t)below(g, 2));
  keep(g, tame(g, z));
  if (chance(g, 50))
    keep(g, tame(g, node_of(g, OP_row_dot, (Value *[]){a, z, ids}, 3)));
}

/* ---- scans -------------------------------------------------------------- */

static void make_some(Gen *g, int nodes);

/* An operand that is scanned along its first dim. */
static Value *scanned(Gen *g, int64_t length) {
  Type t = some_type(g, DT_f32);
  memmove(&t.dims[1], &t.dims[0], t.rank++ * sizeof(Dim));
  t.dims[0].size = length;
  return like(g, t);
}

/* The body's region with a pool of its own, filled from its parameters. */
static void fill_body(Gen *g, Node *n, int64_t carries, int64_t stacked) {
  Builder outside = g->b;
  ValueVec pool = g->pool;
  g->b = ir_builder(g->cx, n->body);
  g->pool = (ValueVec){0};
  g->depth++;
  for (uint32_t i = 0; i < n->body->params.len; i++)
    keep(g, n->body->params.data[i]);
  make_some(g, 2 + (int)below(g, 6));
  for (int64_t i = 0; i < carries; i++) {
    Value *carry = n->body->params.data[1 + i];
    Value *more = like(g, carry->type);
    Value *next = tame(g, ir_binary(&g->b, OP_add, carry, more));
    vec_push(&g->cx->perm, &n->body->results, next);
  }
  for (int64_t i = 0; i < stacked; i++) {
    Value *y = pick(g, number(g));
    vec_push(&g->cx->perm, &n->body->results, y);
  }
  g->depth--;
  g->b = outside;
  g->pool = pool;
}

static void make_scan(Gen *g) {
  static const int64_t lengths[] = {1, 2, 3, 5};
  Value *ins[6];
  uint32_t n = 0;
  if (g->depth == 2) return;
  int64_t carries = below(g, 3), xs = below(g, 3), others = below(g, 3);
  int64_t stacked = below(g, 2) + (carries == 0);
  int64_t length = lengths[below(g, COUNT_OF(lengths))];
  while (n < carries)
    ins[n++] = pick(g, DT_f32);
  while (n < carries + xs)
    ins[n++] = scanned(g, length);
  while (n < carries + xs + others)
    ins[n++] = pick(g, any(g));
  Node *scan =
      ir_node(&g->b, OP_scan, NULL, ins, n, "carries", carries, "scanned", xs,
              "length", length, "reverse", below(g, 2), NULL);
  fill_body(g, scan, carries, stacked);
  ir_finish(&g->b, scan);
  for (uint32_t i = 0; i < scan->outs.len; i++)
    if (type_elements(&scan->outs.data[i]->type) <= LARGEST)
      keep(g, scan->outs.data[i]);
}

static void make_stop_gradient(Gen *g) {
  Value *v = pick(g, any(g));
  if (g->o->high) keep(g, node_of(g, OP_stop_gradient, &v, 1));
}

/* ---- the whole ---------------------------------------------------------- */

static void make_some(Gen *g, int nodes) {
  static void (*const makers[])(Gen *) = {
      make_elementwise, make_elementwise, make_elementwise,  make_elementwise,
      make_elementwise, make_elementwise, make_broadcast,    make_transpose,
      make_reshape,     make_slice,       make_concat,       make_pad,
      make_gather,      make_scatter_add, make_take,         make_put,
      make_reduce,      make_reduce,      make_cumsum,       make_order,
      make_contract,    make_contract,    make_stop_gradient};
  uint32_t goal = g->b.out->len + (uint32_t)nodes;
  for (int tries = 0; tries < 4 * nodes && g->b.out->len < goal; tries++) {
    if (g->o->routing && chance(g, 4))
      make_routing(g);
    else if (g->o->scans && chance(g, 4))
      make_scan(g);
    else
      makers[below(g, COUNT_OF(makers))](g);
  }
}

static Sym name(Gen *g, const char *text) {
  return sym(g->cx, text);
}

static void bind_parameters(Gen *g, Entry *e, Type state) {
  static const char *const inputs[] = {"x", "y", "ids", "bits", "mask"};
  static const Dtype dtypes[] = {DT_f32, DT_f32, DT_i32, DT_u32, DT_bool};
  for (size_t i = 0; i < COUNT_OF(inputs); i++) {
    Binding b = {BIND_INPUT, name(g, inputs[i]), name(g, "text")};
    keep(g, ir_bind_in(e, b, b.name, some_type(g, dtypes[i])));
  }
  Slot *w = NEW(&g->cx->perm, Slot), *s = NEW(&g->cx->perm, Slot);
  *w = (Slot){
      .kind = SLOT_PARAM, .path = name(g, "m/w"), .type = some_type(g, DT_f32)};
  *s = (Slot){.kind = SLOT_STATE, .path = name(g, "main/m/s"), .type = state};
  vec_push(&g->cx->perm, &e->module->slots, w);
  vec_push(&g->cx->perm, &e->module->slots, s);
  Option o = {.name = name(g, "lr"), .value = 0.1};
  vec_push(&g->cx->perm, &e->module->options, o);
  keep(g, ir_bind_in(e, (Binding){.kind = BIND_SLOT, .name = w->path},
                     name(g, "w"), w->type));
  keep(g, ir_bind_in(e, (Binding){.kind = BIND_SLOT, .name = s->path},
                     name(g, "s"), state));
  keep(g, ir_bind_in(e, (Binding){.kind = BIND_OPTION, .name = o.name}, o.name,
                     type_scalar(DT_f32)));
  keep(g, ir_bind_in(e, (Binding){.kind = BIND_STEP}, name(g, "step"),
                     type_scalar(DT_i32)));
  keep(g, ir_bind_in(e, (Binding){.kind = BIND_SEED}, name(g, "seed"),
                     type_scalar(DT_u32)));
}

/* Every value that nothing uses is probed, so that nothing is dead. */
static void bind_results(Gen *g, Entry *e, Type state) {
  Value *next = like(g, state);
  ir_bind_out(e, (Binding){.kind = BIND_SLOT, .name = name(g, "main/m/s")},
              next);
  Value *loss = tame(g, ir_unary(&g->b, OP_neg, like(g, type_scalar(DT_f32))));
  ir_bind_out(e, (Binding){.kind = BIND_REPORT, .name = name(g, "loss")}, loss);
  uint32_t *uses = ir_use_counts(e, &g->cx->scratch), probes = 0;
  for (uint32_t i = 0; i < e->region->nodes.len; i++) {
    Node *n = e->region->nodes.data[i];
    for (uint32_t j = 0; j < n->outs.len; j++) {
      Value *v = n->outs.data[j];
      if (uses[v->id]) continue;
      Binding b = {BIND_PROBE, sym_fmt(g->cx, "p%u", probes++), NULL};
      ir_bind_out(e, b, v);
    }
  }
}

Module *random_graph(Ctx *cx, const RandomGraph *o) {
  Module *m = ir_module_new(cx);
  Gen g = {.cx = cx, .o = o, .random = {o->seed * 2 + 1}};
  Entry *e = ir_entry_new(m, sym(cx, "main"), (Span){0, 0, 0});
  Type state = some_type(&g, DT_f32);
  bind_parameters(&g, e, state);
  g.b = ir_builder(cx, e->region);
  make_some(&g, o->nodes);
  bind_results(&g, e, state);
  ir_sweep(e); /* of what bodies made in vain */
  return m;
}

static void round_to_dtype(Tensor *t) {
  size_t n = (size_t)type_elements(&t->type);
  void *bytes = malloc(n * dtype_info[t->type.dtype].bytes + 1);
  tensor_to_bytes(t, bytes);
  tensor_from_bytes(t, bytes);
  free(bytes);
}

void random_inputs(const Entry *e, uint64_t seed, Arena *a, Tensor **ins) {
  Random r = {seed};
  for (uint32_t i = 0; i < e->region->params.len; i++) {
    Type t = e->region->params.data[i]->type;
    ins[i] = tensor_new(a, t);
    for (int64_t j = 0; j < type_elements(&t); j++) {
      int shift = 32 + (int)random_below(&r, 32); /* numbers of every length */
      uint32_t bits = (uint32_t)(random_bits(&r) >> shift);
      double x = random_unit(&r) * 4 - 2;
      if (dtype_info[t.dtype].kind == DK_BOOL) x = bits & 1;
      if (dtype_info[t.dtype].kind == DK_UINT) x = bits;
      if (dtype_info[t.dtype].kind == DK_INT) x = (int32_t)bits;
      ins[i]->data[j] = x;
    }
    round_to_dtype(ins[i]);
  }
}
