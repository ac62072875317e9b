/* shard_rules.c: for each op, which dims of operands and results are cut
 * together, and what cutting them means.
 *
 * A rule makes the node's unit: factors, and for each dim of each operand and
 * result its factor. A dim without one is never split. The levels of a factor
 * say when it takes an axis from an operand (forward) and from a user
 * (backward). */
#include "pass.h"

#include <string.h>

/* ---- making units -------------------------------------------------------- */

ShardUnit *shard_unit(Shard *s, Node *n, const char *what) {
  ShardUnit *u = NEW(s->a, ShardUnit);
  u->id = s->units.len;
  u->n = n;
  u->what = what;
  u->factors = NEW_ARRAY(s->a, ShardFactor, MAX_FACTORS);
  vec_push(s->a, &s->units, u);
  return u;
}

int shard_factor(ShardUnit *u, FactorKind kind, char letter, int64_t size,
                 ShardLevel forward, ShardLevel backward) {
  assert(u->n_factors < MAX_FACTORS);
  u->factors[u->n_factors] = (ShardFactor){.kind = kind,
                                           .letter = letter,
                                           .forward = forward,
                                           .backward = backward,
                                           .size = size};
  return u->n_factors++;
}

ShardValue *shard_value(const Shard *s, const Value *v) {
  return map_get(&s->values, v);
}

static ShardValue *value_of(Shard *s, Value *v) {
  ShardValue *x = shard_value(s, v);
  if (x) return x;
  x = NEW(s->a, ShardValue);
  map_put(s->a, &s->values, v, x);
  return x;
}

ShardEnd *shard_in(Shard *s, ShardUnit *u, Value **use, Region *r,
                   Node *before) {
  ShardEnd e = {.v = *use, .use = use, .region = r, .before = before};
  memset(e.factor, -1, sizeof e.factor);
  ShardReader reader = {u, u->ins.len};
  vec_push(s->a, &value_of(s, *use)->readers, reader);
  vec_push(s->a, &u->ins, e);
  return &u->ins.data[u->ins.len - 1];
}

ShardEnd *shard_out(Shard *s, ShardUnit *u, Value *v) {
  ShardEnd e = {.v = v};
  memset(e.factor, -1, sizeof e.factor);
  value_of(s, v)->by = (ShardReader){u, u->outs.len};
  vec_push(s->a, &u->outs, e);
  return &u->outs.data[u->outs.len - 1];
}

/* ---- a rule at work ------------------------------------------------------ */

typedef struct ShardRule {
  Shard *s;
  Node *n;
  ShardUnit *u;
} ShardRule;

static ShardEnd *in(ShardRule *r, uint32_t i) {
  return &r->u->ins.data[i];
}
static ShardEnd *out(ShardRule *r, uint32_t i) {
  return &r->u->outs.data[i];
}
static const Type *in_type(ShardRule *r, uint32_t i) {
  return &r->n->ins.data[i]->type;
}
static const Type *out_type(ShardRule *r) {
  return &r->n->outs.data[0]->type;
}

static char letter_of(int dim) {
  return (char)('a' + dim);
}

static int kept(ShardRule *r, int dim, int64_t size, ShardLevel level) {
  return shard_factor(r->u, FACTOR_KEPT, letter_of(dim), size, level, level);
}

/* One factor for dim d of all operands and results. */
static void alike(ShardRule *r, int d) {
  int f = kept(r, d, out_type(r)->dims[d].size, LEVEL_SAME);
  for (uint32_t i = 0; i < r->u->ins.len; i++)
    in(r, i)->factor[d] = (int8_t)f;
  for (uint32_t i = 0; i < r->u->outs.len; i++)
    out(r, i)->factor[d] = (int8_t)f;
}

/* ---- the rules ----------------------------------------------------------- */

static void shard_whole(ShardRule *r) {
  (void)r;
}

static void shard_same(ShardRule *r) {
  for (int d = 0; d < out_type(r)->rank; d++)
    alike(r, d);
}

static void shard_linear(ShardRule *r) {
  shard_same(r);
  r->u->linear = true;
}

static void shard_new(ShardRule *r) {
  shard_same(r);
}

/* What the model says of the result; dims of which it says nothing are open. */
static void shard_annotate(ShardRule *r) {
  const Placement *p = &r->n->outs.data[0]->placement;
  shard_same(r);
  for (int d = 0; d < out_type(r)->rank; d++) {
    ShardFactor *f = &r->u->factors[d];
    f->axes = p->dims[d];
    f->closed = p->dims[d] || p->closed >> d & 1;
    for (int k = 0; k < axes_count(f->axes); k++)
      f->why[k] = (ShardWhy){.level = LEVEL_SAID, .origin = r->n->span};
  }
}

static void shard_last(ShardRule *r) {
  for (int d = 0; d + 1 < out_type(r)->rank; d++)
    alike(r, d);
}

static void shard_along(ShardRule *r) {
  int64_t dim = attr_int(r->n, "dim");
  for (int d = 0; d < out_type(r)->rank; d++)
    if (d != dim || in_type(r, 0)->dims[d].size == out_type(r)->dims[d].size)
      alike(r, d);
}

/* In how many operands a letter is; its size. */
static int letter_uses(ShardRule *r, const IndexMap *m, char c, int64_t *size) {
  int uses = 0;
  for (int i = 0; i < m->n_ins; i++) {
    const char *p = strchr(m->ins[i], c);
    if (p) *size = in_type(r, (uint32_t)i)->dims[p - m->ins[i]].size;
    uses += p != NULL;
  }
  return uses;
}

static int map_factor(ShardRule *r, const IndexMap *m, char c) {
  static const FactorKind kinds[OP_COUNT] = {
      [OP_reduce_max] = FACTOR_MAX, [OP_reduce_min] = FACTOR_MIN};
  int64_t size = 0;
  const char *p = strchr(m->out, c);
  int uses = letter_uses(r, m, c, &size);
  FactorKind reduced = kinds[r->n->op] ? kinds[r->n->op] : FACTOR_SUM;
  if (!p) return shard_factor(r->u, reduced, c, size, LEVEL_SUM, LEVEL_SUM);
  size = out_type(r)->dims[p - m->out].size;
  bool spreads = r->n->op == OP_broadcast;
  ShardLevel level = r->n->op == OP_transpose                 ? LEVEL_SAME
                     : uses == m->n_ins && r->n->op == OP_contract ? LEVEL_BATCH
                                                              : LEVEL_KEPT;
  return shard_factor(r->u, FACTOR_KEPT, c, size,
                      spreads ? LEVEL_LAST : level,
                      spreads && !uses ? LEVEL_SAME : level);
}

static void shard_map(ShardRule *r) {
  IndexMap m = map_of(r->n);
  Map seen = {0};
  const char *sides[3] = {m.out, m.ins[0], m.ins[1]};
  ShardEnd *ends[3] = {out(r, 0), in(r, 0), m.n_ins > 1 ? in(r, 1) : NULL};
  for (int e = 0; e < 3 && ends[e]; e++)
    for (int d = 0; sides[e][d]; d++) {
      const void *key = (const void *)(uintptr_t)sides[e][d];
      uintptr_t f = (uintptr_t)map_get(&seen, key);
      if (!f) f = (uintptr_t)map_factor(r, &m, sides[e][d]) + 1;
      map_put(r->s->a, &seen, key, (void *)f);
      ends[e]->factor[d] = (int8_t)(f - 1);
    }
  r->u->linear = r->n->op == OP_transpose;
}

static int64_t common_divisor(int64_t a, int64_t b) {
  while (b) {
    int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

/* Runs of dims with the same product on both sides; the major dim of each side
 * of a run is cut with that of the other, where both can be cut evenly. */
static void shard_reshape(ShardRule *r) {
  const Type *x = in_type(r, 0), *y = out_type(r);
  int i = 0, j = 0;
  r->u->linear = true;
  if (type_is_ragged(x)) /* groups and rows are the same on both sides */
    for (; i < 2; i++, j++)
      in(r, 0)->factor[i] = out(r, 0)->factor[j] =
          (int8_t)kept(r, j, x->dims[i].size, LEVEL_SAME);
  while (i < x->rank && j < y->rank) {
    while (i + 1 < x->rank && x->dims[i].size == 1)
      i++;
    while (j + 1 < y->rank && y->dims[j].size == 1)
      j++;
    int64_t a = x->dims[i].size, b = y->dims[j].size;
    int f = kept(r, j, common_divisor(a, b), LEVEL_SAME);
    r->u->factors[f].even = a != b;
    in(r, 0)->factor[i++] = (int8_t)f;
    out(r, 0)->factor[j++] = (int8_t)f;
    while (a != b) {
      if (a < b && i < x->rank)
        a *= x->dims[i++].size;
      else if (b < a && j < y->rank)
        b *= y->dims[j++].size;
      else
        return;
    }
  }
}

/* How what is found by ids in parts of a table comes together: zeros but in one
 * part, there is no sum of bools. */
static FactorKind found(ShardRule *r) {
  return out_type(r)->dtype == DT_bool ? FACTOR_MAX : FACTOR_SUM;
}

/* table[V, D..], ids[S..] -> [S.., D..]: with part of the table, rows of ids
 * outside of it are zero, and the sum over parts is right. */
static void shard_gather(ShardRule *r) {
  int s = in_type(r, 1)->rank, rank = out_type(r)->rank;
  int table = shard_factor(r->u, found(r), 'v', in_type(r, 0)->dims[0].size,
                           LEVEL_SUM, LEVEL_SUM);
  in(r, 0)->factor[0] = (int8_t)table;
  for (int d = 0; d < rank; d++) {
    int f = kept(r, d, out_type(r)->dims[d].size, LEVEL_KEPT);
    out(r, 0)->factor[d] = (int8_t)f;
    if (d < s)
      in(r, 1)->factor[d] = (int8_t)f;
    else
      in(r, 0)->factor[d - s + 1] = (int8_t)f;
  }
}

/* ids[S..], x[S.., D..] -> [rows, D..] */
static void shard_scatter(ShardRule *r) {
  int s = in_type(r, 0)->rank, rank = in_type(r, 1)->rank;
  out(r, 0)->factor[0] = (int8_t)shard_factor(
      r->u, FACTOR_KEPT, 'v', out_type(r)->dims[0].size, LEVEL_KEPT,
      LEVEL_KEPT);
  for (int d = 0; d < rank; d++) {
    int64_t size = in_type(r, 1)->dims[d].size;
    int f = shard_factor(r->u, d < s ? FACTOR_SUM : FACTOR_KEPT, letter_of(d),
                         size, d < s ? LEVEL_SUM : LEVEL_KEPT,
                         d < s ? LEVEL_SUM : LEVEL_KEPT);
    in(r, 1)->factor[d] = (int8_t)f;
    if (d < s)
      in(r, 0)->factor[d] = (int8_t)f;
    else
      out(r, 0)->factor[d - s + 1] = (int8_t)f;
  }
}

/* x[S.., N], ids[S.., K] -> [S.., K]: as gather, along the last dim. */
static void shard_take(ShardRule *r) {
  int last = in_type(r, 0)->rank - 1;
  for (int d = 0; d < last; d++)
    alike(r, d);
  in(r, 0)->factor[last] =
      (int8_t)shard_factor(r->u, found(r), 'n', in_type(r, 0)->dims[last].size,
                           LEVEL_SUM, LEVEL_SUM);
}

/* x[S.., K], ids[S.., K] -> [S.., N]: each device the ids of its part. */
static void shard_put(ShardRule *r) {
  int last = out_type(r)->rank - 1;
  for (int d = 0; d < last; d++)
    alike(r, d);
  out(r, 0)->factor[last] = (int8_t)shard_factor(
      r->u, FACTOR_KEPT, 'n', out_type(r)->dims[last].size, LEVEL_KEPT,
      LEVEL_KEPT);
}

/* The first dim of the tokens goes with the rows of the ragged value: those of
 * one device's tokens are together, in token order. Of tokens that are padding
 * there would be rows too, so there are none. */
static int tokens(ShardRule *r, const Type *ids) {
  int f = shard_factor(r->u, FACTOR_KEPT, 's', ids->dims[0].size, LEVEL_BATCH,
                       LEVEL_BATCH);
  r->u->factors[f].even = true;
  return f;
}

/* x[S.., D], ids[S.., K] (, gates[S.., K]) -> [N, r, D] */
static void shard_dispatch(ShardRule *r) {
  int d = in_type(r, 0)->rank - 1;
  int width = kept(r, 3, in_type(r, 0)->dims[d].size, LEVEL_KEPT);
  int group = shard_factor(r->u, FACTOR_KEPT, 'n', out_type(r)->dims[0].size,
                           LEVEL_LAST, LEVEL_LAST);
  in(r, 0)->factor[d] = out(r, 0)->factor[2] = (int8_t)width;
  out(r, 0)->factor[0] = (int8_t)group;
  if (in_type(r, 1)->rank < 2) return;
  int f = tokens(r, in_type(r, 1));
  for (uint32_t i = 0; i < r->u->ins.len; i++)
    in(r, i)->factor[0] = (int8_t)f;
  out(r, 0)->factor[1] = (int8_t)f;
}

/* y[N, r, D], ids[S.., K] (, gates[S.., K]) -> [S.., D] */
static void shard_combine(ShardRule *r) {
  int d = out_type(r)->rank - 1;
  int width = kept(r, 3, out_type(r)->dims[d].size, LEVEL_KEPT);
  in(r, 0)->factor[0] =
      (int8_t)shard_factor(r->u, FACTOR_SUM, 'n', in_type(r, 0)->dims[0].size,
                           LEVEL_LAST, LEVEL_LAST);
  in(r, 0)->factor[2] = out(r, 0)->factor[d] = (int8_t)width;
  if (in_type(r, 1)->rank < 2) return;
  int f = tokens(r, in_type(r, 1));
  for (uint32_t i = 1; i < r->u->ins.len; i++)
    in(r, i)->factor[0] = (int8_t)f;
  in(r, 0)->factor[1] = out(r, 0)->factor[0] = (int8_t)f;
}

/* y[N, r, D], d[S.., D], ids[S.., K] -> [S.., K] */
static void shard_row_dot(ShardRule *r) {
  int d = in_type(r, 1)->rank - 1;
  int width = shard_factor(r->u, FACTOR_SUM, 'd', in_type(r, 1)->dims[d].size,
                           LEVEL_SUM, LEVEL_SUM);
  in(r, 0)->factor[0] =
      (int8_t)shard_factor(r->u, FACTOR_SUM, 'n', in_type(r, 0)->dims[0].size,
                           LEVEL_LAST, LEVEL_LAST);
  in(r, 0)->factor[2] = in(r, 1)->factor[d] = (int8_t)width;
  if (in_type(r, 2)->rank < 2) return;
  int f = tokens(r, in_type(r, 2));
  in(r, 0)->factor[1] = in(r, 1)->factor[0] = in(r, 2)->factor[0] =
      out(r, 0)->factor[0] = (int8_t)f;
}

/* Heads of queries are cut with those of keys that they read. */
static int heads_factor(ShardRule *r) {
  int h = in_type(r, 0)->rank - 2;
  int64_t heads = in_type(r, 0)->dims[h].size;
  int64_t of_keys = in_type(r, 1)->dims[h].size;
  int f = kept(r, h, of_keys, LEVEL_BATCH);
  r->u->factors[f].even = heads != of_keys;
  return f;
}

/* [S.., time, heads, width], a number a row [S.., time, heads], and mask
 * [S.., time]: time and width are whole. */
static void shard_attention(ShardRule *r) {
  int lead = in_type(r, 0)->rank - 3;
  uint32_t ins = r->u->ins.len, outs = r->u->outs.len;
  for (int d = 0; d <= lead; d++) {
    bool heads = d == lead;
    int f = heads ? heads_factor(r)
                  : kept(r, d, in_type(r, 0)->dims[d].size, LEVEL_BATCH);
    for (uint32_t i = 0; i < ins + outs; i++) {
      ShardEnd *e = i < ins ? in(r, i) : out(r, i - ins);
      int dim = heads ? lead + 1 : d;
      if (dim < e->v->type.rank) e->factor[dim] = (int8_t)f;
    }
  }
}

static void shard_loop(ShardRule *r) {
  (void)r; /* has a unit for each carry, operand and result: scan_units */
}

/* ---- scans --------------------------------------------------------------- */

/* Factors for the dims of `t`, one iteration's part. */
static ShardUnit *link_unit(Shard *s, Node *n, const char *what,
                            const Type *t) {
  ShardUnit *u = shard_unit(s, n, what);
  for (int d = 0; d < t->rank; d++)
    shard_factor(u, FACTOR_KEPT, letter_of(d), t->dims[d].size, LEVEL_SAME,
                 LEVEL_SAME);
  return u;
}

/* Dim d + shift of the end is factor d. */
static void link(ShardEnd *e, int rank, int shift) {
  for (int d = 0; d < rank; d++)
    e->factor[d + shift] = (int8_t)d;
}

static void carry_unit(Shard *s, Node *n, uint32_t i) {
  Region *body = n->body;
  Value *param = body->params.data[1 + i];
  int rank = param->type.rank;
  ShardUnit *u = link_unit(s, n, "carry", &param->type);
  link(shard_in(s, u, &n->ins.data[i], n->region, n), rank, 0);
  link(shard_in(s, u, &body->results.data[i], body, NULL), rank, 0);
  link(shard_out(s, u, param), rank, 0);
  link(shard_out(s, u, n->outs.data[i]), rank, 0);
}

static void operand_unit(Shard *s, Node *n, uint32_t i, bool scanned) {
  Value *param = n->body->params.data[1 + i];
  ShardUnit *u = link_unit(s, n, scanned ? "scanned" : "loop-invariant",
                           &param->type);
  link(shard_in(s, u, &n->ins.data[i], n->region, n), param->type.rank,
       scanned);
  link(shard_out(s, u, param), param->type.rank, 0);
}

static void stacked_unit(Shard *s, Node *n, uint32_t i) {
  Value **made = &n->body->results.data[i];
  int rank = (*made)->type.rank;
  ShardUnit *u = link_unit(s, n, "stacked", &(*made)->type);
  link(shard_in(s, u, made, n->body, NULL), rank, 0);
  link(shard_out(s, u, n->outs.data[i]), rank, 1);
}

static void region_units(Shard *s, Region *r);

static void scan_units(Shard *s, Node *n) {
  uint32_t carries = (uint32_t)attr_int(n, "carries");
  uint32_t scanned = (uint32_t)attr_int(n, "scanned");
  ShardUnit *index = shard_unit(s, n, "index");
  shard_out(s, index, n->body->params.data[0]);
  for (uint32_t i = 0; i < n->ins.len; i++)
    if (i < carries)
      carry_unit(s, n, i);
    else
      operand_unit(s, n, i, i < carries + scanned);
  region_units(s, n->body);
  for (uint32_t i = carries; i < n->outs.len; i++)
    stacked_unit(s, n, i);
}

/* ---- the module ---------------------------------------------------------- */

typedef void ShardFn(ShardRule *r);
static ShardFn *const rules[OP_COUNT] = {
#define OP(name, min, max, outs, traits, attrs, infer, vjp, eval, lower,      \
           batch, shard, doc)                                                 \
  [OP_##name] = shard_##shard,
#include "../ir/ops.def"
#undef OP
};

void shard_node(Shard *s, Node *n) {
  if (n->op == OP_scan) {
    scan_units(s, n);
    return;
  }
  ShardUnit *u = shard_unit(s, n, op_info[n->op].name);
  for (uint32_t i = 0; i < n->ins.len; i++)
    shard_in(s, u, &n->ins.data[i], n->region, n);
  for (uint32_t i = 0; i < n->outs.len; i++)
    shard_out(s, u, n->outs.data[i]);
  ShardRule r = {s, n, u};
  rules[n->op](&r);
}

static void region_units(Shard *s, Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++)
    shard_node(s, r->nodes.data[i]);
}

/* Factors for a slot or an input, with what the model says of it. Of an input,
 * data that is dealt out, there are parts of one size only. */
static void said(ShardUnit *u, const Type *t, const Placement *p, Span at) {
  for (int d = 0; d < t->rank; d++) {
    int i = shard_factor(u, FACTOR_KEPT, letter_of(d), t->dims[d].size,
                         LEVEL_SAME, LEVEL_SAME);
    ShardFactor *f = &u->factors[i];
    f->axes = p->dims[d];
    f->closed = p->dims[d] || p->closed >> d & 1;
    f->even = !u->slot;
    for (int k = 0; k < axes_count(f->axes); k++)
      f->why[k] = (ShardWhy){.level = LEVEL_SAID, .origin = at};
  }
}

static ShardUnit *slot_unit(Shard *s, Slot *slot) {
  ShardUnit *u = shard_unit(s, NULL, "slot");
  u->slot = slot;
  said(u, &slot->type, &slot->placement, slot->span);
  return u;
}

/* Parameters: of slots they share the slot's unit, each other has its own. */
static void entry_params(Shard *s, Entry *e, const Map *slots) {
  for (uint32_t i = 0; i < e->ins.len; i++) {
    Value *v = e->region->params.data[i];
    bool kept_on = e->ins.data[i].kind == BIND_SLOT;
    ShardUnit *u = kept_on ? map_get(slots, ir_slot(s->m, e->ins.data[i].name))
                           : shard_unit(s, NULL, "input");
    if (!kept_on) said(u, &v->type, &v->placement, v->said);
    link(shard_out(s, u, v), v->type.rank, 0);
  }
}

/* Reports and probes are whole: one device hands them over. */
static void entry_results(Shard *s, Entry *e, const Map *slots) {
  for (uint32_t i = 0; i < e->outs.len; i++) {
    Value **v = &e->region->results.data[i];
    bool kept_on = e->outs.data[i].kind == BIND_SLOT;
    ShardUnit *u = kept_on ? map_get(slots, ir_slot(s->m, e->outs.data[i].name))
                           : shard_unit(s, NULL, "report");
    ShardEnd *end = shard_in(s, u, v, e->region, NULL);
    if (kept_on) link(end, (*v)->type.rank, 0);
  }
}

void shard_units(Shard *s) {
  Map slots = {0};
  for (uint32_t i = 0; i < s->m->slots.len; i++)
    map_put(s->a, &slots, s->m->slots.data[i],
            slot_unit(s, s->m->slots.data[i]));
  for (uint32_t i = 0; i < s->m->entries.len; i++) {
    Entry *e = s->m->entries.data[i];
    entry_params(s, e, &slots);
    region_units(s, e->region);
    entry_results(s, e, &slots);
  }
}
