/* fuse.c: groups ops into launches.
 *
 * After it every node of an entry or a scan body is a fused launch, a
 * contraction, a route, a scatter_add or a scan. A fused node's region is
 * computed by one kernel, pulled from its results (codegen/lower.c); attribute
 * `kind` says how it is cut into parallel pieces:
 *   map   all results have one shape, whose `rows` dims are all of its dims
 *   row   the `rows` leading dims, shared by all results, are worked off one by
 *         one; sums over inner dims, top_k and the like stay within a row
 *   cols  sums over `rows` leading dims, in chunks, then whatever small is
 *         computed from them; two stages
 *   product  a contraction and what is done with its sums (fuse_product.c)
 *
 * Method: nodes are visited from the results backwards, so that all readers of
 * a value have their groups when its turn comes. It joins the one group that
 * reads it, or is computed again in each where that is cheaper than storing it
 * (few ops, or random bits: anything from iotas and scalars), or brings the
 * groups together; failing that it is stored: beside the results of a group
 * that reads it, of one of the same shape, or as the first of a new one. No
 * group may need itself through others: each keeps the set of those that need
 * it (fuse_group.c).
 *
 *   %a = mul %x, %y                        %b, %s = fused %x, %y
 *   %b = exp' %a                              {kind="row", rows=1} (%x, %y) {
 *   %s = reduce_sum %b {map="rd->r"}           %a = mul %x, %y
 *   return ... %b, ... %s         becomes      ... yield %b, %s } */
#include "pass.h"

#include <stdlib.h>
#include <string.h>

enum {
  CHEAP = 8,   /* scalar ops less than a store and a load are worth */
  SHARED = 3,  /* as many make launches that both need them one */
  TINY = 1024, /* elements: such groups are put together at any chance */
  MANY = 100, /* ops, about, of launches that are put together for little */
  MAX_COST = 10000,
  LOOK_BACK = 200 /* groups that a tiny one is compared with */
};

/* ---- facts about values -------------------------------------------------- */

static int own_cost(const Node *n) {
  if (op_is(n->op, TRAIT_EW)) {
    return n->op == OP_div || n->op == OP_sqrt || n->op == OP_rem ? 4 : 1;
  }
  if (n->op == OP_rows_combine)
    return 2 *
           (int)n->ins.data[1]->type.dims[n->ins.data[1]->type.rank - 1].size;
  return n->op == OP_rows_gather ? 3 : 0;
}

static void note_value(Fuse *f, const Value *v, FuseValue facts) {
  FuseValue *copy = arena_copy(f->a, &facts, sizeof facts);
  map_put(f->a, &f->values, v, copy);
}

static void add_load(FuseValue *facts, const Value *v) {
  for (int i = 0; i < facts->n_loads && i < FUSE_LOADS; i++)
    if (facts->loads[i] == v) return;
  if (facts->n_loads < FUSE_LOADS) facts->loads[facts->n_loads] = v;
  facts->n_loads++;
}

/* What computing `v` loads: itself where that is too much. */
static void add_loads(FuseValue *facts, const Value *v, const FuseValue *of) {
  if (of->n_loads > FUSE_LOADS) add_load(facts, v);
  for (int i = 0; i < of->n_loads && of->n_loads <= FUSE_LOADS; i++)
    add_load(facts, of->loads[i]);
}

static void note_node(Fuse *f, const Node *n) {
  LowerKind k = op_info[n->op].lower;
  bool follows = k == LOWER_SCALAR || k == LOWER_ACCESS;
  FuseValue facts = {.from_seed = follows, .at_start = follows};
  if (follows) facts.cost = own_cost(n);
  for (uint32_t i = 0; follows && i < n->ins.len; i++) {
    const FuseValue *in = fuse_value(f, n->ins.data[i]);
    facts.cost += in->cost;
    facts.from_seed &= in->from_seed;
    facts.at_start &= in->at_start;
    if (n->op != OP_broadcast) add_loads(&facts, n->ins.data[i], in);
  }
  int64_t dims[MAX_RANK];
  if (n->op == OP_broadcast &&
      ir_lead(n, 0, MAX_RANK) >= type_stored_dims(&n->ins.data[0]->type, dims))
    facts.cost = 0; /* once a row, not once an element */
  if (facts.cost > MAX_COST) facts.cost = MAX_COST;
  for (uint32_t i = 0; i < n->outs.len; i++) {
    FuseValue each = facts;
    each.from_seed |= n->outs.data[i]->type.rank == 0;
    if (!follows && !each.from_seed) add_load(&each, n->outs.data[i]);
    note_value(f, n->outs.data[i], each);
  }
}

static void note_user(Fuse *f, const Value *v, Node *user) {
  NodeVec *users = map_get(&f->users, v);
  if (!users) {
    users = NEW(f->a, NodeVec);
    map_put(f->a, &f->users, v, users);
  }
  if (users->len && users->data[users->len - 1] == user) return;
  vec_push(f->a, users, user);
}

static void study(Fuse *f) {
  Region *r = f->region;
  for (uint32_t i = 0; i < r->params.len; i++) {
    Value *v = r->params.data[i];
    bool is_number = v->type.rank == 0;
    FuseValue facts = {.from_seed = is_number, .at_start = is_number};
    if (!facts.from_seed) add_load(&facts, v);
    note_value(f, v, facts);
  }
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    map_put(f->a, &f->place, n, (void *)(uintptr_t)(i + 1));
    note_node(f, n);
    for (uint32_t j = 0; j < n->ins.len; j++)
      note_user(f, n->ins.data[j], n);
  }
  for (uint32_t i = 0; i < r->results.len; i++)
    map_put(f->a, &f->returned, r->results.data[i], r);
}

/* ---- readers of a node --------------------------------------------------- */

static void add_group(Fuse *f, FuseGroupVec *v, FuseGroup *g) {
  for (uint32_t i = 0; i < v->len; i++)
    if (v->data[i] == g) return;
  vec_push(f->a, v, g);
}

/* What tells of the rows of `n` is read by others without being an operand: it
 * is stored, and not with them. */
static bool tells_rows(const Value *v, const Node *n) {
  int told = ir_rows_operand(n->op);
  return told >= 0 && n->ins.data[told] == v;
}

static void readers_of_value(Fuse *f, const Value *v, FuseReaders *r) {
  const NodeVec *users = map_get(&f->users, v);
  if (map_get(&f->returned, v)) r->returned = true;
  for (uint32_t i = 0; users && i < users->len; i++) {
    const FuseGroupVec *in = map_get(&f->groups, users->data[i]);
    bool apart = tells_rows(v, users->data[i]);
    for (uint32_t j = 0; in && j < in->len; j++) {
      FuseGroup *g = fuse_now(in->data[j]);
      add_group(f, g->fixed || apart ? &r->fixed : &r->launches, g);
    }
  }
}

FuseReaders fuse_readers(Fuse *f, const Node *n) {
  FuseReaders r = {0};
  for (uint32_t i = 0; i < n->outs.len; i++)
    readers_of_value(f, n->outs.data[i], &r);
  return r;
}

/* ---- placing a node ------------------------------------------------------ */

static bool may_repeat(const Fuse *f, const Node *n) {
  LowerKind k = op_info[n->op].lower;
  const FuseValue *v = fuse_value(f, n->outs.data[0]);
  if (k == LOWER_REDUCE || k == LOWER_ROW) return false;
  if (v->n_loads > FUSE_LOADS) return false;
  return v->cost <= CHEAP || (v->from_seed && n->outs.data[0]->type.rank > 0);
}

/* Readers that do more than look at a constant or a random bit together. */
static bool is_worth_merging(const Fuse *f, const Node *n) {
  const FuseValue *v = fuse_value(f, n->outs.data[0]);
  if (f->options->opt_level == 0) return false;
  if (!may_repeat(f, n)) return true;
  return v->cost >= SHARED && !v->from_seed;
}

static bool fits_all(const Fuse *f, const FuseGroupVec *groups, const Node *n) {
  for (uint32_t i = 0; i < groups->len; i++)
    if (!fuse_fits(f, groups->data[i], n, fuse_demand(f, groups->data[i], n)))
      return false;
  return true;
}

static void take_all(Fuse *f, const FuseGroupVec *groups, Node *n) {
  for (uint32_t i = 0; i < groups->len; i++)
    fuse_take(f, groups->data[i], n, fuse_demand(f, groups->data[i], n));
}

static bool is_at_start(const Fuse *f, const FuseGroup *g) {
  const Value *v = g->results.len ? g->results.data[0] : NULL;
  return v && v->type.rank == 0 && fuse_value(f, v)->at_start;
}

/* Whether launches that share little are better two, as each may be like that
 * of another layer: they are long, or one alone sums columns, or could run
 * before all others, as what prepares random draws. */
static bool is_apart(const Fuse *f, const FuseGroup *g, const FuseGroup *h) {
  return g->nodes.len + h->nodes.len > MANY ||
         !g->column_rows != !h->column_rows ||
         is_at_start(f, g) != is_at_start(f, h);
}

static bool same_dims(const FuseGroup *g, const FuseGroup *h) {
  return h->rank == g->rank &&
         !memcmp(h->dims, g->dims, sizeof(int64_t) * (size_t)g->rank);
}

/* Brings readers together with the first. Where a number is all that they
 * share, and that is full, others of its shape make a launch of their own; and
 * one that a product may join is worth more with that: an update with the
 * gradient that it reads. */
static void merge_readers(Fuse *f, const Node *n, const FuseGroupVec *all) {
  bool is_number = n->outs.data[0]->type.rank == 0;
  FuseGroup *g = all->data[0];
  for (uint32_t i = 1; i < all->len; i++) {
    FuseGroup *h = all->data[i];
    if (is_number && fuse_awaits_product(f, h)) continue;
    if (is_number && fuse_awaits_product(f, g)) g = h;
    else if (!is_number || !is_apart(f, g, h)) fuse_merge(f, g, h);
    else if (same_dims(g, h)) g = h;
  }
}

/* Computes the node where it is read, nowhere else. */
static bool inlined(Fuse *f, Node *n, FuseReaders *r) {
  if (r->returned || r->fixed.len) return false;
  if (r->launches.len > 1 && is_worth_merging(f, n)) {
    merge_readers(f, n, &r->launches);
    *r = fuse_readers(f, n);
  }
  if (r->launches.len > 1 && !may_repeat(f, n)) return false;
  if (!fits_all(f, &r->launches, n)) return false;
  take_all(f, &r->launches, n);
  return true;
}

bool fuse_precedes(const FuseGroup *g, const FuseReaders *r) {
  for (uint32_t i = 0; i < r->launches.len; i++)
    if (r->launches.data[i] != g && fuse_needs(g, r->launches.data[i]))
      return false;
  for (uint32_t i = 0; i < r->fixed.len; i++)
    if (fuse_needs(g, r->fixed.data[i])) return false;
  return true;
}

void fuse_store(Fuse *f, FuseGroup *g, Node *n) {
  for (uint32_t i = 0; i < n->outs.len; i++) {
    Value *v = n->outs.data[i];
    FuseReaders r = {0};
    readers_of_value(f, v, &r);
    bool outside = r.returned || r.fixed.len > 0;
    for (uint32_t j = 0; j < r.launches.len; j++)
      outside |= r.launches.data[j] != g;
    if (!outside) continue;
    map_put(f->a, &f->homes, v, g);
    if (!g->fixed) vec_push(f->a, &g->results, v);
    for (uint32_t j = 0; j < r.launches.len; j++)
      fuse_need(f, r.launches.data[j], g);
    for (uint32_t j = 0; j < r.fixed.len; j++)
      fuse_need(f, r.fixed.data[j], g);
  }
}

static bool stored_with_reader(Fuse *f, Node *n, const FuseReaders *r) {
  if (f->options->opt_level == 0) return false;
  for (uint32_t i = 0; i < r->launches.len; i++) {
    FuseGroup *g = r->launches.data[i];
    if (!fuse_precedes(g, r) ||
        !fuse_take_result(f, g, n, fuse_demand(f, g, n)))
      continue;
    fuse_store(f, g, n);
    return true;
  }
  return false;
}

/* Puts a new group together with one of the same shape that reads one of its
 * operands too. */
static bool joined_sibling(Fuse *f, FuseGroup *g, const Node *n) {
  for (uint32_t i = 0; i < n->ins.len; i++) {
    const NodeVec *users = map_get(&f->users, n->ins.data[i]);
    if (fuse_value(f, n->ins.data[i])->from_seed) continue;
    for (uint32_t u = 0; users && u < users->len; u++) {
      const FuseGroupVec *in = map_get(&f->groups, users->data[u]);
      for (uint32_t j = 0; in && j < in->len; j++) {
        FuseGroup *h = fuse_now(in->data[j]);
        if (h == g || h->fixed || h->column_rows || !same_dims(g, h)) continue;
        if (fuse_merge(f, h, g)) return true;
      }
    }
  }
  return false;
}

static void join_tiny(Fuse *f, FuseGroup *g) {
  uint32_t stop = f->all.len > LOOK_BACK ? f->all.len - LOOK_BACK : 0;
  for (uint32_t i = f->all.len; i-- > stop;) {
    FuseGroup *h = f->all.data[i];
    if (h == g || h->merged || h->fixed || h->widest > TINY ||
        is_apart(f, g, h))
      continue;
    if (fuse_merge(f, h, g)) return;
  }
}

static void store_apart(Fuse *f, Node *n) {
  FuseGroup *g = fuse_group_new(f, NULL);
  fuse_take_result(f, g, n, (FuseRead){0});
  fuse_store(f, g, n);
  if (f->options->opt_level == 0) return;
  if (!g->column_rows && joined_sibling(f, g, n)) return;
  if (g->widest <= TINY) join_tiny(f, g);
}

static void place_fixed(Fuse *f, Node *n) {
  FuseGroup *g = fuse_group_new(f, n);
  FuseGroupVec *in = NEW(f->a, FuseGroupVec);
  vec_push(f->a, in, g);
  map_put(f->a, &f->groups, n, in);
  fuse_store(f, g, n);
}

static void place(Fuse *f, Node *n) {
  if (fuse_placed_product(f, n) || fuse_placed_loaded(f, n) ||
      fuse_placed_total(f, n))
    return;
  if (!fuse_is_launchable(n)) {
    place_fixed(f, n);
    return;
  }
  FuseReaders r = fuse_readers(f, n);
  if (!r.returned && !r.launches.len && !r.fixed.len) return; /* dead */
  if (fuse_placed_narrow(f, n, &r) || inlined(f, n, &r) ||
      stored_with_reader(f, n, &r))
    return;
  store_apart(f, n);
}

/* ---- making the launches ------------------------------------------------- */

static uintptr_t place_of(const Fuse *f, const Node *n) {
  return (uintptr_t)map_get(&f->place, n);
}

static void sort_nodes(const Fuse *f, NodeVec *v) {
  for (uint32_t i = 1; i < v->len; i++) { /* nearly sorted, backwards */
    Node *n = v->data[i];
    uint32_t j = i;
    for (; j > 0 && place_of(f, v->data[j - 1]) > place_of(f, n); j--)
      v->data[j] = v->data[j - 1];
    v->data[j] = n;
  }
}

static void reverse_nodes(NodeVec *v) {
  for (uint32_t i = 0; i < v->len / 2; i++) {
    Node *n = v->data[i];
    v->data[i] = v->data[v->len - 1 - i];
    v->data[v->len - 1 - i] = n;
  }
}

static void sort_results(const Fuse *f, ValueVec *v) {
  for (uint32_t i = 1; i < v->len; i++) {
    Value *x = v->data[i];
    uintptr_t at = place_of(f, x->def);
    uint32_t j = i;
    for (; j > 0 && (place_of(f, v->data[j - 1]->def) > at ||
                     (v->data[j - 1]->def == x->def &&
                      v->data[j - 1]->index > x->index));
         j--)
      v->data[j] = v->data[j - 1];
    v->data[j] = x;
  }
}

/* What a group's nodes read that they do not compute, in order. */
static ValueVec operands_of(Fuse *f, const FuseGroup *g) {
  ValueVec ins = {0};
  Map seen = {0};
  for (uint32_t i = 0; i < g->nodes.len; i++) {
    const Node *n = g->nodes.data[i];
    for (uint32_t j = 0; j < n->ins.len; j++) {
      Value *v = n->ins.data[j];
      if (map_get(&g->read, v) || map_get(&seen, v)) continue;
      map_put(f->a, &seen, v, v);
      vec_push(f->a, &ins, v);
    }
  }
  return ins;
}

static Value *stored_now(const Fuse *f, Value *v) {
  Value *now = map_get(&f->stored, v);
  return now ? now : v;
}

static const char *kind_of(const FuseGroup *g, int *rows) {
  *rows = g->column_rows ? g->column_rows : g->rows;
  if (g->product) return "product";
  if (g->column_rows) return "cols";
  return g->orders || g->uneven || g->rows < g->rank ? "row" : "map";
}

static bool is_result(const FuseGroup *g, const Value *v) {
  for (uint32_t i = 0; i < g->results.len; i++)
    if (g->results.data[i] == v) return true;
  return false;
}

/* The result of the group that `v`, one as well, is in another shape. */
static Value *seen_as(const FuseGroup *g, const Value *v) {
  while (v->def->op == OP_reshape && v->def->ins.data[0]->def) {
    v = v->def->ins.data[0];
    if (is_result(g, v)) return (Value *)v;
  }
  return NULL;
}

/* Takes results out that are others in another shape: they are reshaped behind
 * the launch, which costs nothing. */
static ValueVec split_views(Fuse *f, FuseGroup *g) {
  ValueVec views = {0}, rest = {0};
  for (uint32_t i = 0; i < g->results.len; i++) {
    Value *v = g->results.data[i];
    vec_push(f->a, seen_as(g, v) ? &views : &rest, v);
  }
  g->results = rest;
  return views;
}

static void make_view(Fuse *f, Value *v, NodeVec *out) {
  Value *from = v->def->ins.data[0];
  while (!map_get(&f->stored, from))
    from = from->def->ins.data[0];
  Builder b = ir_builder_like(f->cx, f->region, out, v->def);
  Value *view = ir_reshape(&b, map_get(&f->stored, from), v->type);
  view->name = v->name;
  map_put(f->a, &f->stored, v, view);
}

static Node *make_launch(Fuse *f, FuseGroup *g, NodeVec *out,
                         const ValueVec *operands) {
  int rows;
  const char *kind = kind_of(g, &rows);
  const Node *last = g->results.data[g->results.len - 1]->def;
  Builder b =
      ir_builder_like(f->cx, f->region, out, g->product ? g->product : last);
  Value **ins = NEW_ARRAY(f->a, Value *, operands->len + 1);
  for (uint32_t i = 0; i < operands->len; i++)
    ins[i] = stored_now(f, operands->data[i]);
  Node *n = ir_node(&b, OP_fused, NULL, ins, operands->len, "kind", kind,
                    "rows", (int64_t)rows, NULL);
  Map map = {0};
  for (uint32_t i = 0; i < operands->len; i++)
    map_put(f->a, &map, operands->data[i], n->body->params.data[i]);
  Builder inner = ir_builder(f->cx, n->body);
  for (uint32_t i = 0; i < g->nodes.len; i++)
    ir_clone(&inner, g->nodes.data[i], &map);
  for (uint32_t i = 0; i < g->results.len; i++)
    vec_push(&f->cx->perm, &n->body->results,
             (Value *)map_get(&map, g->results.data[i]));
  ir_finish(&b, n);
  for (uint32_t i = 0; i < g->results.len; i++) {
    n->outs.data[i]->name = g->results.data[i]->name;
    map_put(f->a, &f->stored, g->results.data[i], n->outs.data[i]);
  }
  return n;
}

static void emit_group(Fuse *f, FuseGroup *g, NodeVec *out);

static void emit_operands(Fuse *f, const ValueVec *operands, NodeVec *out) {
  for (uint32_t i = 0; i < operands->len; i++) {
    FuseGroup *home = map_get(&f->homes, operands->data[i]);
    if (home) emit_group(f, fuse_now(home), out);
  }
}

/* Groups before those that need them; otherwise as the text has them. */
static void emit_group(Fuse *f, FuseGroup *g, NodeVec *out) {
  if (g->emitted) return;
  g->emitted = true;
  if (g->fixed) {
    emit_operands(f, &g->fixed->ins, out);
    vec_push(&f->cx->perm, out, g->fixed);
    return;
  }
  reverse_nodes(&g->nodes);
  sort_nodes(f, &g->nodes);
  sort_results(f, &g->results);
  ValueVec operands = operands_of(f, g);
  emit_operands(f, &operands, out);
  ValueVec views = split_views(f, g);
  make_launch(f, g, out, &operands);
  for (uint32_t i = 0; i < views.len; i++)
    make_view(f, views.data[i], out);
  pass_tally(f->options, "launch");
}

static void emit_all(Fuse *f) {
  NodeVec out = {0};
  Region *r = f->region;
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const FuseGroupVec *in = map_get(&f->groups, r->nodes.data[i]);
    for (uint32_t j = 0; in && j < in->len; j++)
      emit_group(f, fuse_now(in->data[j]), &out);
  }
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    for (uint32_t j = 0; j < n->outs.len; j++) {
      Value *now = map_get(&f->stored, n->outs.data[j]);
      if (now) ir_replace(n->outs.data[j], now);
    }
  }
  r->nodes = out;
}

/* ---- sums over the rows of each group ------------------------------------ */

/* Drops the rows of a ragged operand but keeps their groups: who owns which row
 * is not known in a launch. */
static bool sums_groups(const Node *n) {
  if (op_info[n->op].lower != LOWER_REDUCE || n->op == OP_rows_dot ||
      !type_is_ragged(&n->ins.data[0]->type))
    return false;
  IndexMap m;
  map_parse(attr_sym(n, "map"), &m);
  return strchr(m.out, m.ins[0][0]) && !strchr(m.out, m.ins[0][1]);
}

/* What is left of each row to be summed: of "nrde->ne" the sums over d. */
static Value *sum_rows_first(Builder *b, Value *x, IndexMap *m) {
  char kept[MAX_RANK + 1] = {m->ins[0][0], m->ins[0][1]};
  size_t n = 2;
  for (const char *c = m->ins[0] + 2; *c; c++)
    if (strchr(m->out, *c)) kept[n++] = *c;
  if (!m->ins[0][n]) return x;
  x = ir_cast_to(b, x, dtype_info[x->type.dtype].sums);
  Sym map = sym_fmt(b->cx, "%s->%s", m->ins[0], kept);
  memcpy(m->ins[0], kept, sizeof kept);
  return ir_reduce(b, OP_reduce_sum, x, map);
}

/* The sum as a contraction with ones: "nrd->nd" to "nrd,nr->nd". Nothing else
 * is to be had of the rows of a group, says inference. */
static void sum_by_contraction(Ctx *cx, Region *r, Node *n, NodeVec *out) {
  IndexMap m;
  map_parse(attr_sym(n, "map"), &m);
  Dtype dtype = n->outs.data[0]->type.dtype;
  assert(n->op == OP_reduce_sum && dtype_info[dtype].kind == DK_FLOAT);
  Builder b = ir_builder_like(cx, r, out, n);
  Value *x = sum_rows_first(&b, n->ins.data[0], &m);
  Type t = x->type;
  t.rank = 2;
  Value *ones = ir_const(&b, t, 1);
  Sym map = sym_fmt(cx, "%s,%.2s->%s", m.ins[0], m.ins[0], m.out);
  Value *sum = ir_contract(&b, x, ones, map);
  ir_replace(n->outs.data[0], ir_cast_to(&b, sum, dtype));
}

static void rewrite_group_sums(Ctx *cx, Region *r) {
  NodeVec out = {0};
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    if (n->op == OP_scan) rewrite_group_sums(cx, n->body);
    if (sums_groups(n)) sum_by_contraction(cx, r, n, &out);
    else vec_push(&cx->perm, &out, n);
  }
  r->nodes = out;
}

/* ---- entry --------------------------------------------------------------- */

static void fuse_region(Ctx *cx, Region *r, const PassOptions *o) {
  for (uint32_t i = 0; i < r->nodes.len; i++)
    if (r->nodes.data[i]->op == OP_scan)
      fuse_region(cx, r->nodes.data[i]->body, o);
  Fuse *f = NEW(&cx->scratch, Fuse);
  *f = (Fuse){.cx = cx,
              .a = &cx->scratch,
              .options = o,
              .region = r,
              .words = r->nodes.len / 64 + 1};
  study(f);
  for (uint32_t i = r->nodes.len; i-- > 0;)
    place(f, r->nodes.data[i]);
  emit_all(f);
}

bool pass_fuse(Module *m, const PassOptions *o) {
  for (uint32_t i = 0; i < m->entries.len; i++) {
    Entry *e = m->entries.data[i];
    rewrite_group_sums(m->cx, e->region);
    ir_sweep(e);
    fuse_region(m->cx, e->region, o);
    ir_sweep(e);
  }
  return true;
}
