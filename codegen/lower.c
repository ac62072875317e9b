/* lower.c: a fused node as kernel loops.
 *
 * Results are computed by pulling: to store an element, compute the elements of
 * its operands at the indices it needs, down to the arguments. What does not
 * vary in an inner loop ends up outside of it (see loops.c). A value that
 * several inner loops of one row read, and that is not cheap, is kept: computed
 * once into a row of scratch. Softmax is so a loop for the largest, one for the
 * exponentials and their sum, and one for the quotients.
 *
 * Kinds (passes/fuse.c): a `map` runs over all elements of its results, a long
 * last dim in blocks; a `row` runs over the `rows` leading dims of its results
 * and writes the rest of each in inner loops; `cols` is in lower_cols.c, and
 * `product` is a contraction with more behind it: contract.c. */
#include "codegen.h"

#include <string.h>

enum {
  CHUNK_OPS = 32768,  /* element operations of one chunk, about */
  BLOCK = 2048,       /* elements of a long last dim worked off at once */
  KEEP_COST = 6,      /* scalar ops worth a store and a load */
  MAX_KEPT = 1 << 18, /* elements of a row in scratch */
  MAX_CUTS = 16
};

LwValue *lw_value(const Lower *l, const Value *v) {
  LwValue *lv = map_get(&l->values, v);
  assert(lv && "a value of another region");
  return lv;
}

/* ---- rows in scratch ----------------------------------------------------- */

static int64_t product(const int64_t *dims, int n) {
  int64_t p = 1;
  for (int i = 0; i < n; i++)
    p *= dims[i];
  return p;
}

LwRow *lw_row_new(Lower *l, LwValue *v, const Ix *lead, int n_lead, int level) {
  LwRow *row = NEW(l->arena, LwRow);
  for (int i = 0; i < n_lead; i++)
    row->lead[i] = lead[i];
  row->n_lead = n_lead;
  row->level = level;
  row->scope = kb_scope(l->b, level);
  row->base = kb_scratch(l->b, v->v->type.dtype,
                         product(v->dims + n_lead, v->rank - n_lead));
  row->next = v->rows;
  v->rows = row;
  return row;
}

LwRow *lw_keep(Lower *l, LwValue *v, const Ix *lead, int n_lead) {
  for (LwRow *r = v->rows; r; r = r->next)
    if (r->n_lead == n_lead && kb_scope(l->b, r->level) == r->scope &&
        lw_same(r->lead, lead, n_lead))
      return r;
  if (!v->summed) {
    v->summed = true; /* once: filled on the way, see lower_reduce.c */
    lw_reduce_first(l, v, lead);
    if (v->rows) return lw_keep(l, v, lead, n_lead);
  }
  int level = lw_level(lead, n_lead);
  KDetour *d = kb_detour(l->b, level);
  LwRow *row = lw_row_new(l, v, lead, n_lead, level);
  v->rows = row->next; /* not to be found before it is full */
  lw_write(l, &(LwTarget){v, row->base, true}, 1, lead, n_lead);
  kb_return(l->b, d);
  row->next = v->rows;
  v->rows = row;
  return row;
}

/* ---- cuts ------------------------------------------------------------------
 * A concat or pad read elementwise by what is written cuts the loops there, so
 * that each piece pulls one part only. */

typedef struct Cuts {
  int n[MAX_RANK];
  int64_t at[MAX_RANK][MAX_CUTS]; /* ascending, the dim's ends left out */
} Cuts;

static void cut_at(Cuts *c, int dim, int64_t at, int64_t size) {
  int n = c->n[dim], i = n;
  if (at <= 0 || at >= size || n == MAX_CUTS) return;
  for (int j = 0; j < n; j++)
    if (c->at[dim][j] == at) return;
  while (i > 0 && c->at[dim][i - 1] > at) {
    c->at[dim][i] = c->at[dim][i - 1];
    i--;
  }
  c->at[dim][i] = at;
  c->n[dim]++;
}

typedef struct Cutter {
  Lower *l;
  Cuts *cuts;
  const LwValue *target;
  Map seen;
} Cutter;

/* Index i of dim d of a value is index i + off[d] of dim to[d] of the target;
 * to[d] is -1 where it does not follow one. */
typedef struct Follow {
  int to[MAX_RANK];
  int64_t off[MAX_RANK];
} Follow;

static void cut_value(Cutter *c, const Value *v, Follow f);

static void cut_parts(Cutter *c, const Node *n, Follow f, int d) {
  int64_t start = n->op == OP_pad ? attr_int(n, "lo") : 0;
  int to = f.to[d];
  for (uint32_t i = 0; i < n->ins.len; i++) {
    int64_t size = lw_value(c->l, n->ins.data[i])->dims[d];
    Follow part = f;
    part.off[d] += start;
    if (to >= 0) {
      cut_at(c->cuts, to, part.off[d], c->target->dims[to]);
      cut_at(c->cuts, to, part.off[d] + size, c->target->dims[to]);
    }
    cut_value(c, n->ins.data[i], part);
    start += size;
  }
}

static void cut_mapped(Cutter *c, const Node *n, Follow f) {
  IndexMap m;
  map_parse(attr_sym(n, "map"), &m);
  const char *from = m.ins[0] + type_is_ragged(&n->ins.data[0]->type);
  const char *to = m.out + type_is_ragged(&n->outs.data[0]->type);
  Follow inner = {{0}, {0}};
  for (int i = 0; from[i]; i++) {
    inner.to[i] = f.to[strchr(to, from[i]) - to];
    inner.off[i] = f.off[strchr(to, from[i]) - to];
  }
  cut_value(c, n->ins.data[0], inner);
}

static void cut_value(Cutter *c, const Value *v, Follow f) {
  LwValue *lv = lw_value(c->l, v);
  if (lv->arg >= 0 || lv->keep || map_get(&c->seen, v)) return;
  map_put(c->l->arena, &c->seen, v, lv);
  const Node *n = v->def;
  int ragged = type_is_ragged(&v->type);
  if (op_is(n->op, TRAIT_EW)) {
    for (uint32_t i = 0; i < n->ins.len; i++)
      cut_value(c, n->ins.data[i], f);
  } else if (n->op == OP_concat || n->op == OP_pad) {
    cut_parts(c, n, f, (int)attr_int(n, "dim") - ragged);
  } else if (n->op == OP_slice) {
    f.off[attr_int(n, "dim") - ragged] -= attr_int(n, "start");
    cut_value(c, n->ins.data[0], f);
  } else if (n->op == OP_broadcast || n->op == OP_transpose) {
    cut_mapped(c, n, f);
  }
}

static void add_cuts(Lower *l, const LwValue *v, Cuts *cuts) {
  Cutter c = {.l = l, .cuts = cuts, .target = v};
  Follow f = {{0}, {0}};
  if (l->flat) return;
  for (int d = 0; d < v->rank; d++)
    f.to[d] = d;
  bool keep = lw_value(l, v->v)->keep;
  lw_value(l, v->v)->keep = false; /* it is the target itself */
  cut_value(&c, v->v, f);
  lw_value(l, v->v)->keep = keep;
}

/* ---- writing ------------------------------------------------------------- */

typedef struct Write {
  Lower *l;
  const LwTarget *targets;
  int n, n_lead, rank;
  Ix at[MAX_RANK];
  Cuts cuts;
} Write;

/* All values first, then the stores: a result may take an operand's place. */
static void write_element(Write *w) {
  Lower *l = w->l;
  KVal **vals = NEW_ARRAY(l->arena, KVal *, (size_t)w->n);
  bool before = l->folds;
  l->folds = false;
  for (int i = 0; i < w->n; i++) {
    const LwTarget *t = &w->targets[i];
    bool fill = t->inner && op_info[t->v->v->def->op].lower != LOWER_ROW;
    vals[i] = fill ? lw_compute(l, t->v->v, w->at) : lw_pull(l, t->v->v, w->at);
  }
  l->folds = before;
  for (int i = 0; i < w->n; i++) {
    const LwTarget *t = &w->targets[i];
    int from = t->inner ? w->n_lead : 0;
    Ix to = lw_linear(l, t->v->dims + from, w->rank - from, w->at + from);
    assert(!to.vec && (to.stride == 0 || to.stride == 1));
    KVal *v = kb_splat(l->b, vals[i], to.stride ? l->lanes : 1);
    kb_store(l->b, t->base, to.base, v);
  }
}

static void write_steps(Write *w, int d, KVal *lo, KVal *hi, int lanes) {
  KBuild *b = w->l->b;
  if (lo == hi) return;
  if (lw_is_once(lo, hi, lanes)) {
    w->at[d] = lanes > 1 ? lw_ix_lanes(lo) : lw_ix(lo);
    write_element(w);
    return;
  }
  KVal *loop = kb_for(b, lo, hi, lanes);
  KVal *iv = kb_iv(b, loop);
  w->at[d] = lanes > 1 ? lw_ix_lanes(iv) : lw_ix(iv);
  write_element(w);
  kb_end(b);
}

static void write_dim(Write *w, int d);

/* Of columns [0, size) those of the item's part. */
static void write_part(Write *w, int d, int64_t size) {
  KBuild *b = w->l->b;
  int64_t lanes = w->l->lanes, main = size / lanes * lanes;
  KVal *lo = w->l->part, *hi = kb_alu_c(b, A_ADD, lo, w->l->part_size);
  write_steps(w, d, lo, kb_alu_c(b, A_MIN, hi, main), (int)lanes);
  if (main < size)
    write_steps(w, d, kb_alu_c(b, A_MAX, lo, main),
                kb_alu_c(b, A_MIN, hi, size), 1);
}

static void write_piece(Write *w, int d, int64_t lo, int64_t hi) {
  KBuild *b = w->l->b;
  if (d == w->rank - 1 && w->l->part) {
    write_part(w, d, hi);
  } else if (d == w->rank - 1) {
    int lanes = w->l->lanes;
    KVal *mid = kb_index(b, lo + (hi - lo) / lanes * lanes);
    write_steps(w, d, kb_index(b, lo), mid, lanes);
    write_steps(w, d, mid, kb_index(b, hi), 1);
  } else if (hi - lo == 1) {
    w->at[d] = lw_ix_c(w->l, lo);
    write_dim(w, d + 1);
  } else {
    KVal *loop = kb_for(b, kb_index(b, lo), kb_index(b, hi), 1);
    w->at[d] = lw_ix(kb_iv(b, loop));
    write_dim(w, d + 1);
    kb_end(b);
  }
}

static void write_dim(Write *w, int d) {
  if (d == w->rank) {
    write_element(w);
    return;
  }
  int64_t lo = 0;
  for (int i = 0; i < w->cuts.n[d]; i++) {
    write_piece(w, d, lo, w->cuts.at[d][i]);
    lo = w->cuts.at[d][i];
  }
  write_piece(w, d, lo, w->targets[0].v->dims[d]);
}

static Write write_new(Lower *l, const LwTarget *targets, int n, const Ix *lead,
                       int n_lead) {
  Write w = {.l = l,
             .targets = targets,
             .n = n,
             .n_lead = n_lead,
             .rank = targets[0].v->rank};
  for (int i = 0; i < n_lead; i++)
    w.at[i] = lead[i];
  for (int i = 0; i < n; i++)
    add_cuts(l, targets[i].v, &w.cuts);
  return w;
}

void lw_write(Lower *l, const LwTarget *targets, int n, const Ix *lead,
              int n_lead) {
  Write w = write_new(l, targets, n, lead, n_lead);
  write_dim(&w, n_lead);
}

/* ---- results ------------------------------------------------------------- */

static LwTarget *result_targets(Lower *l, int *n) {
  const Region *body = l->n->body;
  LwTarget *t = NEW_ARRAY(l->arena, LwTarget, body->results.len + 1);
  for (uint32_t i = 0; i < body->results.len; i++) {
    const Value *v = body->results.data[i];
    int arg = (int)(l->n->ins.len + i);
    t[i] = (LwTarget){lw_value(l, v), kb_arg(arg, v->type.dtype), false};
  }
  *n = (int)body->results.len;
  return t;
}

static bool same_inner(const LwValue *x, const LwValue *y, int lead) {
  return x->rank == y->rank &&
         memcmp(x->dims + lead, y->dims + lead,
                sizeof(int64_t) * (size_t)(x->rank - lead)) == 0;
}

/* Whether result number i takes an operand's place, or is written together with
 * one that does. */
static bool is_late(const Lower *l, const LwTarget *all, int n, int i,
                    int n_lead) {
  for (int j = 0; j < n; j++)
    if (same_inner(all[i].v, all[j].v, n_lead) &&
        cg_is_in_place(l->n, (uint32_t)j))
      return true;
  return false;
}

/* The result to be written next, in the order that passes/plan.c counts on:
 * late ones behind all others; of either the first of those left that has most
 * elements behind the leading dims; -1 for none. */
static int next_target(const LwTarget *all, int n, const bool *done,
                       const bool *late, int n_lead) {
  int best = -1;
  int64_t most = 0;
  for (int i = 0; i < n; i++) {
    const LwValue *v = all[i].v;
    int64_t size = product(v->dims + n_lead, v->rank - n_lead);
    bool sooner = best >= 0 && late[best] && !late[i];
    bool later = best >= 0 && late[i] && !late[best];
    if (done[i] || later || (size <= most && !sooner)) continue;
    most = size;
    best = i;
  }
  return best;
}

void lw_write_results(Lower *l, const Ix *lead, int n_lead) {
  int n;
  LwTarget *all = result_targets(l, &n);
  LwTarget *group = NEW_ARRAY(l->arena, LwTarget, (size_t)n + 1);
  bool *done = NEW_ARRAY(l->arena, bool, (size_t)n + 1);
  bool *late = NEW_ARRAY(l->arena, bool, (size_t)n + 1);
  for (int i = 0; i < n; i++)
    late[i] = is_late(l, all, n, i, n_lead);
  for (int i; (i = next_target(all, n, done, late, n_lead)) >= 0;) {
    int m = 0;
    for (int j = i; j < n; j++)
      if (!done[j] && same_inner(all[i].v, all[j].v, n_lead)) {
        group[m++] = all[j];
        done[j] = true;
      }
    lw_write(l, group, m, lead, n_lead);
  }
}

/* Elements that a node goes over: of a reduction, those that it reads. */
static int64_t work_of(const Lower *l, const Node *n) {
  bool reduces = op_info[n->op].lower == LOWER_REDUCE;
  const LwValue *v = lw_value(l, reduces ? n->ins.data[0] : n->outs.data[0]);
  return product(v->dims, v->rank);
}

int64_t lw_grain(const Lower *l, int64_t count) {
  int64_t ops = 1;
  const Region *body = l->n->body;
  for (uint32_t i = 0; i < body->nodes.len; i++)
    ops += work_of(l, body->nodes.data[i]);
  int64_t each = ops / (count ? count : 1) + 1;
  int64_t grain = CHUNK_OPS / each;
  return grain < 1 ? 1 : grain;
}

static void emit_rows(Lower *l, int rows) {
  const LwValue *first = lw_value(l, l->n->body->results.data[0]);
  int64_t count = product(first->dims, rows), parts = 1;
  l->part_size = lw_part(l, rows);
  if (l->part_size)
    parts = (first->dims[first->rank - 1] + l->part_size - 1) / l->part_size;
  KVal *iv = kb_stage(l->b, count * parts, lw_grain(l, count * parts));
  Ix lead[MAX_RANK];
  if (l->part_size) {
    KVal *nth = kb_alu_c(l->b, A_REM, iv, parts);
    l->part = kb_alu_c(l->b, A_MUL, nth, l->part_size);
    iv = kb_alu_c(l->b, A_DIV, iv, parts);
  }
  lw_split(l, first->dims, rows, lw_ix(iv), lead);
  lw_write_results(l, lead, rows);
  kb_end(l->b);
}

/* The last dim in blocks, none of which needs more than the others. */
static void emit_blocks(Lower *l, int64_t block) {
  int n;
  LwTarget *t = result_targets(l, &n);
  KBuild *b = l->b;
  int last = t[0].v->rank - 1;
  int64_t size = t[0].v->dims[last], blocks = (size + block - 1) / block;
  int64_t count = product(t[0].v->dims, last) * blocks;
  KVal *iv = kb_stage(b, count, lw_grain(l, count));
  Ix lead[MAX_RANK];
  lw_split(l, t[0].v->dims, last, lw_ix(kb_alu_c(b, A_DIV, iv, blocks)), lead);
  Write w = write_new(l, t, n, lead, last);
  int64_t main = size / l->lanes * l->lanes;
  KVal *lo = kb_alu_c(b, A_MUL, kb_alu_c(b, A_REM, iv, blocks), block);
  KVal *hi = kb_alu_c(b, A_ADD, lo, block);
  write_steps(&w, last, lo, kb_alu_c(b, A_MIN, hi, main), l->lanes);
  if (main < size)
    write_steps(&w, last, kb_alu_c(b, A_MAX, lo, main),
                kb_alu_c(b, A_MIN, hi, size), 1);
  kb_end(b);
}

void lw_emit_map(Lower *l) {
  const Region *body = l->n->body;
  const LwValue *first = lw_value(l, body->results.data[0]);
  int last = first->rank - 1;
  Cuts cuts = {0};
  for (uint32_t i = 0; i < body->results.len; i++)
    add_cuts(l, lw_value(l, body->results.data[i]), &cuts);
  for (int d = 0; d <= last; d++)
    if (cuts.n[d]) {
      emit_rows(l, d);
      return;
    }
  if (last < 0)
    emit_rows(l, 0);
  else if (first->dims[last] > 2 * BLOCK)
    emit_blocks(l, BLOCK);
  else
    emit_rows(l, last);
}

/* ---- analysis ------------------------------------------------------------ */

static void bind(Lower *l, const Value *v, int arg) {
  LwValue *lv = NEW(l->arena, LwValue);
  lv->v = v;
  lv->arg = arg;
  lv->rank = type_stored_dims(&v->type, lv->dims);
  map_put(l->arena, &l->values, v, lv);
}

static int op_folds(const Lower *l, const Node *n) {
  LowerKind kind = op_info[n->op].lower;
  int folds = 0;
  for (uint32_t i = 0; i < n->ins.len; i++)
    if (lw_value(l, n->ins.data[i])->folds > folds)
      folds = lw_value(l, n->ins.data[i])->folds;
  return folds + (kind == LOWER_REDUCE || kind == LOWER_ROW);
}

static int op_cost(const Lower *l, const Node *n) {
  if (op_info[n->op].lower == LOWER_REDUCE || op_info[n->op].lower == LOWER_ROW)
    return 0;
  if (n->op == OP_broadcast &&
      ir_lead(n, 0, MAX_RANK) >= lw_value(l, n->ins.data[0])->rank)
    return 0; /* once a row, not once an element */
  int cost = op_is(n->op, TRAIT_EW) ? 1 : 0;
  for (uint32_t i = 0; i < n->ins.len; i++)
    cost += lw_value(l, n->ins.data[i])->cost;
  return cost < 10000 ? cost : 10000;
}

static void bind_all(Lower *l) {
  const Region *body = l->n->body;
  if (!body) bind(l, l->n->outs.data[0], -1); /* a contraction */
  if (!body) return;
  for (uint32_t i = 0; i < body->params.len; i++)
    bind(l, body->params.data[i], (int)i);
  for (uint32_t i = 0; i < body->nodes.len; i++) {
    const Node *n = body->nodes.data[i];
    int cost = op_cost(l, n), folds = op_folds(l, n);
    for (uint32_t j = 0; j < n->outs.len; j++) {
      bind(l, n->outs.data[j], -1);
      lw_value(l, n->outs.data[j])->cost = cost;
      lw_value(l, n->outs.data[j])->folds = folds;
    }
  }
}

/* One reader: the loop nests it stands in, the dims that lead for it, and
 * whether it reads at indices of its own, and does more than sum up there. */
static void note_read(LwValue *v, uint64_t loops, int lead, bool mapped,
                      bool moved) {
  if (lead > v->rank) lead = v->rank;
  if (!v->read)
    v->lead = lead;
  else if (v->loops != loops)
    v->split = true;
  if (lead < v->lead) v->lead = lead;
  v->read = true;
  v->loops |= loops;
  v->mapped |= mapped;
  v->moved |= moved;
}

static bool is_worth_keeping(const LwValue *v) {
  int64_t inner = product(v->dims + v->lead, v->rank - v->lead);
  if (inner <= 1 || inner > MAX_KEPT) return false;
  if (op_info[v->v->def->op].lower == LOWER_REDUCE)
    return v->split || v->mapped || (v->loops & (v->loops - 1));
  return v->split && v->cost >= KEEP_COST;
}

static uint64_t new_nest(int *nests) {
  int i = (*nests)++;
  return 1ull << (i < 63 ? i : 63);
}

static void read_operands(Lower *l, const Node *n, int *nests) {
  LwValue *out = lw_value(l, n->outs.data[0]);
  LowerKind kind = op_info[n->op].lower;
  bool nest = kind == LOWER_REDUCE || kind == LOWER_ROW;
  if (kind != LOWER_ROW) out->keep = is_worth_keeping(out);
  uint64_t loops = nest || out->keep ? new_nest(nests) : out->loops;
  int lead = MAX_RANK;
  for (uint32_t j = 0; j < n->outs.len; j++) {
    const LwValue *v = lw_value(l, n->outs.data[j]);
    if (v->read && v->lead < lead) lead = v->lead;
  }
  for (uint32_t i = 0; i < n->ins.len; i++) {
    bool mapped = !op_is(n->op, TRAIT_EW) || (out->mapped && !out->keep);
    bool moved = kind != LOWER_REDUCE &&
                 (!op_is(n->op, TRAIT_EW) || (out->moved && !out->keep));
    int in_lead = out->column ? l->rows : ir_lead(n, i, lead);
    note_read(lw_value(l, n->ins.data[i]), loops, in_lead, mapped, moved);
  }
}

/* Which values are kept, from the results to the arguments. `rows`: dims that
 * lead in the results. */
static void analyse(Lower *l, int rows) {
  const Region *body = l->n->body;
  int nests = 0;
  uint64_t *loops = NEW_ARRAY(l->arena, uint64_t, body->results.len + 1);
  for (uint32_t i = 0; i < body->results.len; i++) {
    LwValue *v = lw_value(l, body->results.data[i]);
    for (uint32_t j = 0; j < i && !loops[i]; j++)
      if (same_inner(v, lw_value(l, body->results.data[j]), rows))
        loops[i] = loops[j];
    if (!loops[i]) loops[i] = new_nest(&nests);
    note_read(v, loops[i], rows, false, false);
  }
  for (uint32_t i = body->nodes.len; i-- > 0;)
    read_operands(l, body->nodes.data[i], &nests);
}

/* All values have the dims of `like` or none, and are read where they stand:
 * everything is one long dim. */
static bool is_flat(const Lower *l, const LwValue *like) {
  const Region *body = l->n->body;
  if (like->rank == 0) return false;
  for (uint32_t i = 0; i < body->params.len; i++) {
    const LwValue *v = lw_value(l, body->params.data[i]);
    if (v->rank && !same_inner(v, like, 0)) return false;
  }
  for (uint32_t i = 0; i < body->nodes.len; i++) {
    const Node *n = body->nodes.data[i];
    const LwValue *v = lw_value(l, n->outs.data[0]);
    bool spread =
        n->op == OP_broadcast && lw_value(l, n->ins.data[0])->rank == 0;
    if (v->column && v->rank) return false;
    if (v->column) continue;
    if (!op_is(n->op, TRAIT_EW) && n->op != OP_const && !spread) return false;
    if (v->rank && !same_inner(v, like, 0)) return false;
  }
  return true;
}

void lw_flatten(Lower *l, const LwValue *like) {
  if (!is_flat(l, like)) return;
  l->flat = true;
  const Region *body = l->n->body;
  for (uint32_t i = 0; i < body->params.len; i++) {
    LwValue *v = lw_value(l, body->params.data[i]);
    if (v->rank) v->dims[0] = product(v->dims, v->rank), v->rank = 1;
  }
  for (uint32_t i = 0; i < body->nodes.len; i++) {
    LwValue *v = lw_value(l, body->nodes.data[i]->outs.data[0]);
    if (v->rank) v->dims[0] = product(v->dims, v->rank), v->rank = 1;
  }
}

/* ---- entry --------------------------------------------------------------- */

static bool has_f64(const Node *n) {
  const Region *body = n->body;
  if (!body) return n->outs.data[0]->type.dtype == DT_f64;
  for (uint32_t i = 0; i < body->params.len; i++)
    if (body->params.data[i]->type.dtype == DT_f64) return true;
  for (uint32_t i = 0; i < body->nodes.len; i++)
    if (body->nodes.data[i]->outs.data[0]->type.dtype == DT_f64) return true;
  return false;
}

int cg_lanes(const Isa *isa, int64_t run, bool wide) {
  enum { MANY = 8 }; /* vectors, beside which a tail does not matter */
  if (!isa->least) return isa->lanes;
  int least = wide ? 2 * isa->least : isa->least, lanes = isa->lanes;
  for (; lanes > least; lanes /= 2) {
    int n = wide ? lanes / 2 : lanes;
    if (run % n == 0 || run >= MANY * n) break;
  }
  return lanes;
}

/* Elements side by side in the longest rows that are walked through. */
static int64_t longest_run(const Lower *l) {
  const Region *body = l->n->body;
  int64_t most = 1;
  for (uint32_t i = 0; i < body->nodes.len; i++) {
    const Node *n = body->nodes.data[i];
    for (uint32_t j = 0; j <= n->ins.len; j++) {
      const LwValue *v =
          lw_value(l, j ? n->ins.data[j - 1] : n->outs.data[0]);
      if (v->rank && v->dims[v->rank - 1] > most) most = v->dims[v->rank - 1];
    }
  }
  return most;
}

/* Results are stored once all of them are computed; those of a warp wait in
 * registers, which its threads have enough of for HELD words each. */
static void choose_lanes(Lower *l, const Isa *isa) {
  enum { HELD = 64 };
  bool wide = has_f64(l->n);
  l->warps = isa->least > 0;
  Isa fits = *isa;
  int least = wide ? 2 * fits.least : fits.least;
  while (least && fits.lanes > least &&
         (int)l->n->outs.len * fits.lanes > HELD * fits.least)
    fits.lanes /= 2;
  l->lanes = cg_lanes(&fits, longest_run(l), wide) / (wide ? 2 : 1);
}

static void lower_map(Lower *l, const Isa *isa) {
  lw_flatten(l, lw_value(l, l->n->body->results.data[0]));
  choose_lanes(l, isa);
  analyse(l, lw_value(l, l->n->body->results.data[0])->rank);
  lw_emit_map(l);
}

Lower *lw_new(Ctx *cx, KBuild *b, const Node *n, int lanes) {
  Lower *l = NEW(&cx->scratch, Lower);
  *l = (Lower){.cx = cx,
               .arena = &cx->scratch,
               .b = b,
               .n = n,
               .lanes = has_f64(n) ? lanes / 2 : lanes};
  bind_all(l);
  return l;
}

static Kernel *lower_fused(Ctx *cx, const Node *n, const Isa *isa) {
  Sym kind = attr_sym(n, "kind");
  if (strcmp(kind, "product") == 0) return cg_contract(cx, n, isa);
  int args = (int)(n->ins.len + n->outs.len);
  Lower *l = lw_new(cx, kb_new(cx, kind, args, (int)n->outs.len), n,
                    isa->lanes);
  l->rows = (int)attr_int(n, "rows");
  if (strcmp(kind, "map") == 0) {
    lower_map(l, isa);
  } else if (strcmp(kind, "row") == 0) {
    choose_lanes(l, isa);
    analyse(l, l->rows);
    emit_rows(l, l->rows);
  } else {
    lw_mark_columns(l);
    choose_lanes(l, isa);
    analyse(l, 0);
    lw_emit_cols(l);
  }
  return kb_finish(l->b);
}

/* What has kernels for vectors of one thread alone. */
static bool can_lower(Ctx *cx, const Node *n, const Isa *isa) {
  static const OpKind ops[] = {OP_square_sum, OP_pack};
  for (size_t i = 0; isa->least && i < COUNT_OF(ops); i++)
    if (n->op == ops[i]) {
      diag_error(cx, n->span, "there is no kernel of %s for GPUs",
                 op_info[n->op].name);
      return false;
    }
  return true;
}

Kernel *cg_lower(Ctx *cx, const Node *n, const Isa *isa) {
  if (!can_lower(cx, n, isa)) return NULL;
  switch ((int)n->op) {
  case OP_fused: return lower_fused(cx, n, isa);
  case OP_contract: return cg_contract(cx, n, isa);
  case OP_square_sum: return cg_squares(cx, n, isa);
  case OP_attention: return cg_attention(cx, n, isa);
  case OP_attention_grad: return cg_attention_grad(cx, n, isa);
  case OP_route: return cg_route(cx, n, isa);
  case OP_pack: return cg_pack(cx, n, isa);
  case OP_scatter_add: return cg_scatter_add(cx, n, isa);
  }
  internal_error("%s is not a launch", op_info[n->op].name);
}
