/* fuse_group.c: what may be one launch.
 *
 * A group has rows: leading dims that all its results share and that its kernel
 * works off one by one. An op on rows, or a sum over inner dims, may join where
 * it is needed once a row; it then limits the rows to the dims that lead in it.
 * A group whose values are all small may have no rows at all. A sum over large
 * leading dims joins only a small group and makes it one of columns: a part
 * over the rows and, after it, the rest. Totals of different tensors, unless
 * tiny, are in groups of their own. */
#include "pass.h"

#include <string.h>

enum {
  SMALL = 1 << 12,     /* elements that one thread sums in a few microseconds */
  MANY_ROWS = 16,      /* enough to share among threads */
  MAX_ROW = 1 << 16,   /* elements of a row that may have to be kept */
  MAX_TABLE = 1 << 14, /* sums over rows that are kept for each chunk */
  CHEAP = 8,           /* scalar ops less than a store and a load are worth */
  MANY_SUMS = 12,      /* in a launch: more take long to compile */
  LARGE_TOTAL = 1 << 10 /* elements of a tensor whose total is worth a launch */
};

/* ---- who needs whom ------------------------------------------------------ */

FuseGroup *fuse_group_new(Fuse *f, Node *fixed) {
  FuseGroup *g = NEW(f->a, FuseGroup);
  g->id = f->all.len;
  g->fixed = fixed;
  g->reach = NEW_ARRAY(f->a, uint64_t, f->words);
  vec_push(f->a, &f->all, g);
  return g;
}

FuseGroup *fuse_now(FuseGroup *g) {
  while (g->merged)
    g = g->merged;
  return g;
}

bool fuse_needs(const FuseGroup *later, const FuseGroup *earlier) {
  return earlier->reach[later->id / 64] >> (later->id % 64) & 1;
}

/* Everything that reaches `g` now reaches what g reaches. */
static void spread_reach(Fuse *f, const FuseGroup *g) {
  uint32_t words = f->all.len / 64 + 1;
  for (uint32_t i = 0; i < f->all.len; i++) {
    FuseGroup *q = f->all.data[i];
    if (q->merged || q == g || !fuse_needs(g, q)) continue;
    for (uint32_t w = 0; w < words; w++)
      q->reach[w] |= g->reach[w];
  }
}

void fuse_need(Fuse *f, FuseGroup *later, FuseGroup *earlier) {
  if (later == earlier || fuse_needs(later, earlier)) return;
  assert(!fuse_needs(earlier, later) && "groups need each other");
  uint32_t words = f->all.len / 64 + 1;
  for (uint32_t w = 0; w < words; w++)
    earlier->reach[w] |= later->reach[w];
  earlier->reach[later->id / 64] |= 1ull << (later->id % 64);
  spread_reach(f, earlier);
}

/* ---- values and shapes --------------------------------------------------- */

FuseValue *fuse_value(const Fuse *f, const Value *v) {
  return map_get(&f->values, v);
}

bool fuse_is_launchable(const Node *n) {
  switch (op_info[n->op].lower) {
  case LOWER_SCALAR:
  case LOWER_ACCESS:
  case LOWER_REDUCE:
  case LOWER_ROW: return true;
  case LOWER_CONTRACT:
  case LOWER_LAUNCH:
  case LOWER_LOOP:
  case LOWER_COMM:
  case LOWER_WAIT:
  case LOWER_EXPAND:
  case LOWER_NONE: return false;
  }
  return false;
}

static int stored(const Value *v, int64_t dims[MAX_RANK]) {
  return type_stored_dims(&v->type, dims);
}

static int64_t product(const int64_t *dims, int n) {
  int64_t p = 1;
  for (int i = 0; i < n; i++)
    p *= dims[i];
  return p;
}

/* Elements that computing the node once goes through. */
static int64_t elements_of(const Node *n) {
  int64_t most = 0;
  for (uint32_t i = 0; i < n->outs.len; i++) {
    int64_t e = type_elements(&n->outs.data[i]->type);
    if (e > most) most = e;
  }
  LowerKind k = op_info[n->op].lower;
  if (k == LOWER_REDUCE || k == LOWER_ROW) {
    int64_t e = type_elements(&n->ins.data[0]->type);
    if (n->op == OP_rows_dot) e = most * n->ins.data[0]->type.dims[2].size;
    if (e > most) most = e;
  }
  return most;
}

static bool is_small(const FuseGroup *g) {
  return g->widest <= SMALL;
}

static bool sums_last(const Node *n) {
  if (op_info[n->op].lower != LOWER_REDUCE) return false;
  if (n->op == OP_rows_dot) return true;
  IndexMap m;
  map_parse(attr_sym(n, "map"), &m);
  size_t rank = strlen(m.ins[0]);
  return rank > 0 && !strchr(m.out, m.ins[0][rank - 1]);
}

/* Leading dims that the node sums over. */
static int summed_lead(const Node *n) {
  if (op_info[n->op].lower != LOWER_REDUCE || n->op == OP_rows_dot) return 0;
  IndexMap m;
  map_parse(attr_sym(n, "map"), &m);
  const char *from = m.ins[0] + type_is_ragged(&n->ins.data[0]->type);
  int i = 0;
  while (from[i] && !strchr(m.out, from[i]))
    i++;
  return i;
}

/* A sum over rows worth doing in chunks. */
static bool is_column(const Node *n) {
  return summed_lead(n) > 0 && elements_of(n) > SMALL &&
         type_elements(&n->outs.data[0]->type) <= MAX_TABLE;
}

/* Whether the node sums all of a tensor that is not tiny. */
static bool is_total(const Node *n) {
  return n->op == OP_reduce_sum && !n->outs.data[0]->type.rank &&
         elements_of(n) > LARGE_TOTAL;
}

/* Whether computing the operands of both loads one tensor. */
static bool share_load(const Fuse *f, const Node *a, const Node *b) {
  const FuseValue *x = fuse_value(f, a->ins.data[0]);
  const FuseValue *y = fuse_value(f, b->ins.data[0]);
  for (int i = 0; i < x->n_loads && i < FUSE_LOADS; i++)
    for (int j = 0; j < y->n_loads && j < FUSE_LOADS; j++)
      if (x->loads[i] == y->loads[j]) return true;
  return false;
}

/* Totals of different tensors gain nothing in one launch, and apart those of
 * equal shape, as in layers that repeat, are one kernel. */
static bool totals_agree(const Fuse *f, const FuseGroup *g, const Node *n) {
  return !is_total(n) || !g->total || share_load(f, n, g->total);
}

/* ---- rows ---------------------------------------------------------------- */

/* Whether `g` works with `rows` rows and values of up to `widest` elements. */
static bool rows_fit(const FuseGroup *g, int rows, int64_t widest) {
  if (rows == g->rank && !g->uneven && !g->orders) return true;
  if (widest <= SMALL) return true;
  int64_t count = product(g->dims, rows);
  return count >= MANY_ROWS && widest / count <= MAX_ROW;
}

static FuseRead *read_of(const FuseGroup *g, const Value *v) {
  return map_get(&g->read, v);
}

/* Elements of operand `i` that are computed for `times` elements of the user's
 * result. What follows leading dims alone is computed outside of inner loops;
 * the parts of a concat are computed apart. */
static double times_of(const Node *user, uint32_t i, double times) {
  const Value *v = user->ins.data[i], *out = user->outs.data[0];
  int64_t dims[MAX_RANK];
  double again = times / (double)type_elements(&out->type);
  double whole = again * (double)type_elements(&v->type);
  if (op_is(user->op, TRAIT_EW)) return times;
  if (user->op == OP_rows_dot) return again * (double)elements_of(user);
  LowerKind k = op_info[user->op].lower;
  if (k == LOWER_REDUCE || k == LOWER_ROW) return whole;
  if (user->op == OP_concat || user->op == OP_pad)
    return whole < times ? whole : times;
  return ir_lead(user, i, MAX_RANK) >= stored(v, dims) ? whole : times;
}

/* Adds what `user`, by its own reading `u`, asks of value `v`. */
static void add_demand(const FuseGroup *g, const Node *user, const FuseRead *u,
                       const Value *v, FuseRead *all) {
  bool column = g->column_rows && summed_lead(user) >= g->column_rows &&
                u->parts == FUSE_REST && is_column(user);
  all->parts |= column ? FUSE_ROWS : u->parts;
  for (uint32_t i = 0; i < user->ins.len; i++) {
    if (user->ins.data[i] != v) continue;
    int lead = column ? g->column_rows : ir_lead(user, i, u->lead);
    double times = times_of(user, i, u->times);
    if (lead < all->lead) all->lead = lead;
    if (times > all->times) all->times = times;
  }
}

FuseRead fuse_demand(const Fuse *f, const FuseGroup *g, const Node *n) {
  FuseRead all = {.lead = MAX_RANK};
  for (uint32_t o = 0; o < n->outs.len; o++) {
    const NodeVec *users = map_get(&f->users, n->outs.data[o]);
    for (uint32_t u = 0; users && u < users->len; u++) {
      const Node *user = users->data[u];
      const FuseRead *r = read_of(g, user->outs.data[0]);
      if (r) add_demand(g, user, r, n->outs.data[o], &all);
    }
  }
  int64_t dims[MAX_RANK];
  int rank = stored(n->outs.data[0], dims);
  if (all.lead > rank) all.lead = rank;
  return all;
}

/* ---- may it be computed there? ------------------------------------------- */

/* May `n` be a sum over rows of `g`, the first one or another? */
static bool may_sum(const FuseGroup *g, const Node *n, FuseRead r) {
  if (!is_column(n) || r.parts != FUSE_REST || !is_small(g)) return false;
  if (!g->column_rows) return true;
  int64_t dims[MAX_RANK];
  int rank = stored(n->ins.data[0], dims);
  return summed_lead(n) >= g->column_rows && rank >= g->column_rows &&
         memcmp(dims, g->column_dims,
                sizeof(int64_t) * (size_t)g->column_rows) == 0;
}

/* Dims that all results of the group may run over once `n` is part of it. */
static int rows_with(const FuseGroup *g, const Node *n, FuseRead r) {
  LowerKind k = op_info[n->op].lower;
  int64_t dims[MAX_RANK];
  int rank = stored(n->outs.data[0], dims);
  int limit = k == LOWER_ROW ? rank - 1 : rank;
  if (k != LOWER_REDUCE && k != LOWER_ROW) return g->rows;
  if (r.lead < limit) limit = r.lead;
  return limit < g->rows ? limit : g->rows;
}

/* Costly, and computed far more often than it has elements. */
static bool is_repeated(const Fuse *f, const FuseGroup *g, const Node *n,
                        FuseRead r) {
  const Type *t = &n->outs.data[0]->type;
  if (g->nodes.len == 0 || fuse_value(f, n->outs.data[0])->cost <= CHEAP)
    return false;
  if (t->rank == 0) return g->rank > 0;
  return r.times > 2 * (double)type_elements(t);
}

static bool fits_rows_part(const Fuse *f, const FuseGroup *g, const Node *n,
                           FuseRead r) {
  LowerKind k = op_info[n->op].lower;
  int64_t dims[MAX_RANK];
  int rank = stored(n->outs.data[0], dims);
  if (k == LOWER_REDUCE) return r.lead >= g->column_rows;
  if (k == LOWER_ROW) return r.lead >= rank - 1 && rank - 1 >= g->column_rows;
  return !is_repeated(f, g, n, r);
}

bool fuse_fits(const Fuse *f, const FuseGroup *g, const Node *n, FuseRead r) {
  LowerKind k = op_info[n->op].lower;
  if (g->product && !fuse_is_behind(g, n)) return false;
  if (n->op == OP_const || n->op == OP_iota) return true;
  if (f->options->opt_level == 0) return false;
  if (k == LOWER_REDUCE && g->sums >= MANY_SUMS) return false;
  if (!totals_agree(f, g, n)) return false;
  if (is_column(n)) return may_sum(g, n, r);
  if (r.parts & FUSE_ROWS) {
    if ((r.parts & FUSE_REST) &&
        (k == LOWER_REDUCE || k == LOWER_ROW || elements_of(n) > SMALL))
      return false;
    return fits_rows_part(f, g, n, r);
  }
  int64_t dims[MAX_RANK];
  int rank = stored(n->outs.data[0], dims), rows = rows_with(g, n, r);
  if (k == LOWER_ROW && r.lead < rank - 1 && rows > 0) return false;
  int64_t widest = elements_of(n);
  if (widest < g->widest) widest = g->widest;
  if (g->column_rows && widest > SMALL) return false;
  FuseGroup after = *g;
  after.orders |= k == LOWER_ROW || sums_last(n);
  return rows_fit(&after, rows, widest) && !is_repeated(f, g, n, r);
}

/* ---- taking -------------------------------------------------------------- */

static void note_read(Fuse *f, FuseGroup *g, const Value *v, FuseRead r) {
  FuseRead *old = read_of(g, v);
  if (old) {
    if (r.lead < old->lead) old->lead = r.lead;
    if (r.times > old->times) old->times = r.times;
    old->parts |= r.parts;
    return;
  }
  r.v = v;
  FuseRead *copy = arena_copy(f->a, &r, sizeof r);
  map_put(f->a, &g->read, v, copy);
  vec_push(f->a, &g->reads, copy);
}

static void become_columns(FuseGroup *g, const Node *n) {
  int64_t dims[MAX_RANK];
  int rank = stored(n->ins.data[0], dims), rows = summed_lead(n);
  if (rows == rank && rank > 1) rows--; /* the last dim is summed by lane */
  g->column_rows = rows;
  memcpy(g->column_dims, dims, sizeof dims);
  g->rows = 0;
}

void fuse_add(Fuse *f, FuseGroup *g, Node *n, FuseRead r) {
  vec_push(f->a, &g->nodes, n);
  FuseGroupVec *in = map_get(&f->groups, n);
  if (!in) {
    in = NEW(f->a, FuseGroupVec);
    map_put(f->a, &f->groups, n, in);
  }
  vec_push(f->a, in, g);
  for (uint32_t i = 0; i < n->outs.len; i++)
    note_read(f, g, n->outs.data[i], r);
}

void fuse_take(Fuse *f, FuseGroup *g, Node *n, FuseRead r) {
  LowerKind k = op_info[n->op].lower;
  bool column = is_column(n) && may_sum(g, n, r);
  if (column && !g->column_rows) become_columns(g, n);
  g->sums += k == LOWER_REDUCE;
  if (is_total(n)) g->total = n;
  if (!column && !(r.parts & FUSE_ROWS)) {
    g->rows = rows_with(g, n, r);
    int64_t e = elements_of(n);
    if (e > g->widest) g->widest = e;
    g->orders |= k == LOWER_ROW || sums_last(n);
  }
  fuse_add(f, g, n, r);
}

/* Dims that lead in both. */
static int common_rows(const FuseGroup *g, const int64_t *dims, int rank) {
  int i = 0;
  while (i < g->rows && i < rank && dims[i] == g->dims[i])
    i++;
  return i;
}

static void start(FuseGroup *g, const Node *n) {
  g->rank = stored(n->outs.data[0], g->dims);
  g->rows = g->rank;
}

/* Whether results with these dims can be stored beside those of `g`; narrows
 * its rows where they must be. */
static bool fits_beside(FuseGroup *g, const int64_t *dims, int rank, int lead,
                        int64_t elements) {
  int rows = common_rows(g, dims, rank);
  if (rows > lead) rows = lead;
  bool same = rank == g->rank && rows == rank;
  FuseGroup after = *g;
  after.uneven |= !same;
  int64_t widest = elements > g->widest ? elements : g->widest;
  if (!same && !rows_fit(&after, rows, widest)) return false;
  if (!same) g->rows = rows;
  g->uneven = after.uneven;
  g->widest = widest;
  return true;
}

bool fuse_take_result(Fuse *f, FuseGroup *g, Node *n, FuseRead r) {
  int64_t dims[MAX_RANK];
  int rank = stored(n->outs.data[0], dims);
  if (g->nodes.len == 0) {
    start(g, n);
    r = (FuseRead){.lead = rank, .parts = FUSE_REST};
    r.times = (double)type_elements(&n->outs.data[0]->type);
    fuse_take(f, g, n, r);
    return true;
  }
  if ((r.parts & FUSE_ROWS) && g->column_rows) return false;
  if (g->product && !type_same_dims(&n->outs.data[0]->type,
                                    &g->product->outs.data[0]->type))
    return false;
  FuseGroup saved = *g;
  int64_t elements = type_elements(&n->outs.data[0]->type);
  if (!fits_beside(g, dims, rank, r.lead, elements) || !fuse_fits(f, g, n, r)) {
    *g = saved;
    return false;
  }
  fuse_take(f, g, n, r);
  return true;
}

/* ---- merging ------------------------------------------------------------- */

static bool merged_shape(FuseGroup *g, const FuseGroup *h) {
  if (g->column_rows && h->column_rows) {
    if (h->widest > g->widest) g->widest = h->widest;
    return g->column_rows == h->column_rows &&
           memcmp(g->column_dims, h->column_dims,
                  sizeof(int64_t) * (size_t)g->column_rows) == 0;
  }
  if (g->column_rows || h->column_rows) {
    const FuseGroup *c = g->column_rows ? g : h;
    if (!is_small(g) || !is_small(h)) return false;
    g->column_rows = c->column_rows;
    memcpy(g->column_dims, c->column_dims, sizeof g->column_dims);
    g->rows = 0;
    if (h->widest > g->widest) g->widest = h->widest;
    return true;
  }
  g->orders |= h->orders;
  g->uneven |= h->uneven;
  int lead = common_rows(g, h->dims, h->rows);
  return fits_beside(g, h->dims, h->rank, lead, h->widest);
}

static void move_nodes(Fuse *f, FuseGroup *g, FuseGroup *h) {
  for (uint32_t i = 0; i < h->nodes.len; i++) {
    Node *n = h->nodes.data[i];
    FuseGroupVec *in = map_get(&f->groups, n);
    bool there = read_of(g, n->outs.data[0]) != NULL;
    for (uint32_t j = 0; j < in->len; j++)
      if (in->data[j] == h) {
        in->data[j] = there ? in->data[--in->len] : g;
        break;
      }
    if (!there) vec_push(f->a, &g->nodes, n);
  }
  for (uint32_t i = 0; i < h->reads.len; i++)
    note_read(f, g, h->reads.data[i]->v, *h->reads.data[i]);
  for (uint32_t i = 0; i < h->results.len; i++)
    vec_push(f->a, &g->results, h->results.data[i]);
}

bool fuse_merge(Fuse *f, FuseGroup *g, FuseGroup *h) {
  if (g->fixed || h->fixed || g->product || h->product || fuse_needs(g, h) ||
      fuse_needs(h, g) || g->sums + h->sums > MANY_SUMS ||
      (h->total && !totals_agree(f, g, h->total)))
    return false;
  FuseGroup saved = *g;
  if (!merged_shape(g, h)) {
    *g = saved;
    return false;
  }
  move_nodes(f, g, h);
  g->sums += h->sums;
  if (h->total) g->total = h->total;
  h->merged = g;
  uint32_t words = f->all.len / 64 + 1;
  for (uint32_t w = 0; w < words; w++)
    g->reach[w] |= h->reach[w];
  for (uint32_t i = 0; i < f->all.len; i++) {
    FuseGroup *q = f->all.data[i];
    if (fuse_needs(h, q)) q->reach[g->id / 64] |= 1ull << (g->id % 64);
  }
  spread_reach(f, g);
  return true;
}
