/* rounds.c: rows of experts in rounds, so that their memory has a bound.
 *
 * A rank has to be ready for all rows of all tokens of its group, if they all
 * choose its experts. With `expert_rows` it has room for that many times the
 * mean alone: what comes in the usual case. The first rows that come, up to
 * that bound, go the way that all went before; the rest go in further rounds, a
 * loop whose number of turns is counted and the same on all ranks: none in the
 * usual case.
 *
 * Between rows_send and what leaves the experts, by rows_return or as a sum
 * over rows, all is computed row by row. So that part of the program, with
 * other rows, is the loop's body, and what leaves is the loop's carry: rows
 * that come back fill in what was missing, sums are added up in order of the
 * rounds. Each part that needs only what is there before it is a loop of its
 * own: one forward, one backward. What the latter reads of the former, such as
 * activations of the experts, is kept of the first round, and of the others
 * computed again from the rows, which are sent again.
 *
 *   before: %y = rows_send %x, %o, %got, %theirs {axes="dev", rows=64}
 *           %z = tanh %y : f32[2, r<=64, 8]
 *           %w = rows_return %z, %o, %got, %theirs {axes="dev", rows=32}
 *   after:  %y = rows_send %x, %o, %g0, %t0, %s0 {axes="dev", rows=16}
 *           %z = tanh %y : f32[2, r<=16, 8]
 *           %w0 = rows_return %z, %o, %g0, %t0, %s0 {axes="dev", rows=32}
 *           %w = scan %w0, %x, %o, .. %more {length=3, counted=true} (..) {
 *             .. # %t, %g, %s: which rows are in the round
 *             %y = rows_send %x, %o, %g, %t, %s {axes="dev", rows=16}
 *             %z = tanh %y : f32[2, r<=16, 8]
 *             %n = rows_return %z, %o, %g, %t, %s, %w {axes="dev", rows=32}
 *             yield %n
 *           }
 *
 * Where a node says how many rows an expert has at most, as the model does that
 * gives experts a capacity, there is room for no more in any case, and there
 * are no rounds for what cannot be.
 *
 * What cannot be done with some of the rows is a diagnostic. How many rounds a
 * step took, of the layer that took most, is the report `rounds`. */
#include "pass.h"

#include <math.h>
#include <string.h>

/* Rows that have one list of offsets where their experts are. */
typedef struct Group {
  const Node *send;
  Value *theirs, *first; /* the offsets, of all rows and of the first round */
  int64_t all, bound;    /* rows: that can be here, that there is room for */
  Value *more;           /* rounds beyond the first */
  VEC(RoundRows *) rows; /* as ranks have sent them, each a list */
  Map rows_of;           /* rows_send, rows_return -> RoundRows */
} Group;

typedef struct Rounds {
  Ctx *cx;
  Arena *a;
  bool quiet; /* what cannot be done may stay as it is */
  const PassOptions *o;
  Region *r;
  int depth;      /* of scans around */
  Map wide;       /* Value -> `theirs`: rows where their experts are */
  Map levels;     /* Value -> how often rows have left before */
  Map told;       /* Value -> `theirs`, which it follows from */
} Rounds;

static bool fail(Rounds *s, const Node *n, const char *what) {
  if (s->quiet) return false;
  diag_error(s->cx, n->span, "--expert-rows: rows cannot go in rounds: %s %s",
             op_info[n->op].name, what);
  return false;
}

/* ---- which values are rows at their experts ------------------------------ */

static bool sends_all(const Node *n) {
  return n->op == OP_rows_send && n->ins.len <= ROWS_SOME;
}

static Value *offsets_of(const Rounds *s, const Value *v) {
  return map_get(&s->wide, v);
}

/* The offsets that a ragged result goes by: those of its operands, where its
 * rows do not start here. */
static Value *result_offsets(const Rounds *s, const Node *n) {
  if (sends_all(n)) return n->ins.data[ROWS_THEIRS];
  if (n->op == OP_rows_gather) return n->ins.data[2]; /* theirs, perhaps */
  for (uint32_t i = 0; i < n->ins.len && ir_rows_operand(n->op) < 0; i++)
    if (offsets_of(s, n->ins.data[i])) return offsets_of(s, n->ins.data[i]);
  return NULL;
}

static void find_wide(Rounds *s) {
  for (uint32_t i = 0; i < s->r->nodes.len; i++) {
    const Node *n = s->r->nodes.data[i];
    Value *theirs = result_offsets(s, n);
    for (uint32_t k = 0; theirs && k < n->outs.len; k++)
      if (type_is_ragged(&n->outs.data[k]->type))
        map_put(s->a, &s->wide, n->outs.data[k], theirs);
  }
}

static bool makes(const Rounds *s, const Node *n, const Group *g) {
  for (uint32_t k = 0; k < n->outs.len; k++)
    if (offsets_of(s, n->outs.data[k]) == g->theirs) return true;
  return false;
}

static bool reads(const Rounds *s, const Node *n, const Group *g) {
  for (uint32_t k = 0; k < n->ins.len; k++)
    if (offsets_of(s, n->ins.data[k]) == g->theirs) return true;
  return false;
}

/* How what a node makes of rows is joined over rounds: by an elementwise op, or
 * by rows_return itself. OP_COUNT: it cannot be. */
static OpKind joined_by(OpKind op) {
  switch ((int)op) {
  case OP_contract:
  case OP_reduce_sum: return OP_add;
  case OP_reduce_max: return OP_max;
  case OP_reduce_min: return OP_min;
  case OP_rows_return: return OP_rows_return;
  }
  return OP_COUNT;
}

/* A node where rows leave the experts. */
static bool is_exit(const Rounds *s, const Node *n, const Group *g) {
  return reads(s, n, g) && !makes(s, n, g);
}

static bool check_node(Rounds *s, const Node *n, const Group *g) {
  bool row_by_row = makes(s, n, g) && (sends_all(n) || reads(s, n, g));
  if (n->body && (reads(s, n, g) || makes(s, n, g)))
    return fail(s, n, "has a body that needs all of them");
  if (n->op == OP_rows_gather && makes(s, n, g))
    return fail(s, n, "brings rows by another way than they are sent");
  if (n->op == OP_rows_send && reads(s, n, g))
    return fail(s, n, "sends them on to other ranks");
  if (row_by_row || !reads(s, n, g)) return true;
  bool known = joined_by(n->op) != OP_COUNT;
  return known || fail(s, n, "needs all of them");
}

/* ---- in how many steps rows come and go ---------------------------------- */

static intptr_t level_of(const Rounds *s, const Value *v) {
  return (intptr_t)map_get(&s->levels, v);
}

/* A node reads what is there at its level; what leaves there is the next. */
static void find_levels(Rounds *s, const Group *g) {
  s->levels = (Map){0};
  for (uint32_t i = 0; i < s->r->nodes.len; i++) {
    const Node *n = s->r->nodes.data[i];
    intptr_t level = 0;
    for (uint32_t k = 0; k < n->ins.len; k++)
      if (level_of(s, n->ins.data[k]) > level)
        level = level_of(s, n->ins.data[k]);
    level += is_exit(s, n, g);
    for (uint32_t k = 0; level && k < n->outs.len; k++)
      map_put(s->a, &s->levels, n->outs.data[k], (void *)level);
  }
}

/* ---- the first round ----------------------------------------------------- */

static bool moves_rows(const Node *n) {
  return n->op == OP_rows_send || n->op == OP_rows_return;
}

static RoundRows *find_rows(const Group *g, const Node *n) {
  for (uint32_t i = 0; i < g->rows.len; i++)
    if (g->rows.data[i]->mine == n->ins.data[ROWS_MINE] &&
        g->rows.data[i]->got == n->ins.data[ROWS_GOT])
      return g->rows.data[i];
  return NULL;
}

/* Numbers of all rows, for each pair of ranks' lists. */
static void number_rows(Rounds *s, Group *g, Builder *b) {
  for (uint32_t i = 0; i < s->r->nodes.len; i++) {
    const Node *n = s->r->nodes.data[i];
    if (!moves_rows(n) || n->ins.data[ROWS_THEIRS] != g->theirs) continue;
    RoundRows *r = find_rows(g, n);
    if (!r) {
      r = NEW(s->a, RoundRows);
      *r = rounds_rows(b, n);
      vec_push(s->a, &g->rows, r);
    }
    map_put(s->a, &g->rows_of, n, r);
  }
  g->first = rounds_theirs(b, g->theirs, NULL, g->bound);
  g->more = rounds_more(b, g->theirs, g->bound);
}

/* Ragged, and no rows in particular: a constant, an index, a repeated value. */
static bool is_any_rows(const Rounds *s, const Value *v) {
  return type_is_ragged(&v->type) && !offsets_of(s, v) && v->def &&
         !ir_ragged_owner((Value *)v);
}

/* Plain values that follow from the offsets alone, such as which rows count. */
static void find_told(Rounds *s, const Group *g) {
  s->told = (Map){0};
  map_put(s->a, &s->told, g->theirs, g->theirs);
  for (uint32_t i = 0; i < s->r->nodes.len; i++) {
    const Node *n = s->r->nodes.data[i];
    bool any = false;
    for (uint32_t k = 0; k < n->ins.len; k++)
      any = any || map_get(&s->told, n->ins.data[k]);
    if (!any || moves_rows(n) || reads(s, n, g) || n->body) continue;
    for (uint32_t k = 0; k < n->outs.len; k++)
      map_put(s->a, &s->told, n->outs.data[k], g->theirs);
  }
}

/* What a node with the first round's rows reads in place of `v`. */
static Value *for_first(Rounds *s, Group *g, Builder *b, Map *made, Value *v) {
  if (v == g->theirs) return g->first;
  Value *found = map_get(made, v);
  bool any = is_any_rows(s, v);
  if (found || (!any && !map_get(&s->told, v))) return found ? found : v;
  Map map = {0};
  for (uint32_t i = 0; i < v->def->ins.len; i++) {
    Value *in = v->def->ins.data[i];
    map_put(s->a, &map, in, for_first(s, g, b, made, in));
  }
  Node *copy = ir_clone(b, v->def, &map);
  found = copy->outs.data[v->index];
  if (any) found->type.dims[1].size = g->bound;
  if (map_get(&s->told, v)) map_put(s->a, &s->told, found, g->theirs);
  map_put(s->a, made, v, found);
  return found;
}

/* Operands and results of a node for the first round. */
static void shrink_node(Rounds *s, Group *g, Node *n, Builder *b, Map *made) {
  if (!reads(s, n, g) && !makes(s, n, g)) return;
  for (uint32_t k = 0; k < n->ins.len; k++)
    if (n->op != OP_rows_send || k != ROWS_X)
      n->ins.data[k] = for_first(s, g, b, made, n->ins.data[k]);
  for (uint32_t k = 0; k < n->outs.len; k++)
    if (offsets_of(s, n->outs.data[k]) == g->theirs)
      n->outs.data[k]->type.dims[1].size = g->bound;
}

static void shrink(Rounds *s, Group *g, Builder *b) {
  Map made = {0}, got = {0}, some = {0};
  for (uint32_t i = 0; i < s->r->nodes.len; i++) {
    Node *n = s->r->nodes.data[i];
    const RoundRows *r = map_get(&g->rows_of, n);
    shrink_node(s, g, n, b, &made);
    if (n->op == OP_rows_send && makes(s, n, g))
      attr_ref(n, "rows")->i = g->bound;
    if (!r) continue;
    if (!map_get(&got, r)) {
      map_put(s->a, &got, r, rounds_got(b, r, NULL, g->bound));
      map_put(s->a, &some, r, rounds_some(b, r, NULL, g->bound));
    }
    n->ins.data[ROWS_GOT] = map_get(&got, r);
    vec_push(&s->cx->perm, &n->ins, map_get(&some, r));
  }
}

/* ---- further rounds ------------------------------------------------------ */

/* A loop that is made. */
typedef struct Turn {
  Rounds *s;
  Group *g;
  Loop l;
  Builder b;      /* appends to the body */
  intptr_t level; /* of what leaves in it */
  Value *lo;      /* i32[]: the first row of the round */
  Map now;        /* value outside -> in the body */
  Map got, some;  /* RoundRows -> numbers of this round */
  const Map *by;  /* what has left the first round -> all rounds' */
} Turn;

static Value *outside(Turn *t, Value *v) {
  Value *all = map_get(t->by, v);
  return loop_invariant(t->s->cx, &t->l, all ? all : v);
}

/* Rather computed again in each turn than kept until then: what takes no
 * memory, weights in another dtype, and where all that rows come from are
 * tokens, those. */
static bool is_cheap(const Turn *t, const Value *v) {
  OpKind op = v->def->op;
  bool narrow = type_is_ragged(&v->type);
  bool before = level_of(t->s, v) < t->level;
  return op == OP_const || op == OP_iota || op == OP_broadcast ||
         op == OP_cast || (narrow && before && op == OP_rows_gather) ||
         (narrow && before && op_is(op, TRAIT_EW));
}

static Value *inside(Turn *t, Value *v);

/* Where the node is asked for numbers of the round, they are made. */
static Value *round_number(Turn *t, Map *made, RoundRows *r,
                           Value *make(Builder *, const RoundRows *, Value *,
                                       int64_t)) {
  Value *v = map_get(made, r);
  if (v) return v;
  RoundRows in = {.begin = outside(t, r->begin),
                  .got = outside(t, r->got),
                  .there = outside(t, r->there),
                  .first = outside(t, r->first),
                  .count = outside(t, r->count)};
  v = make(&t->b, &in, t->lo, t->g->bound);
  map_put(t->s->a, made, r, v);
  return v;
}

/* A copy of a node in the body, for the rows of the round. */
static Node *again(Turn *t, Node *n) {
  Arena *a = t->s->a;
  RoundRows *r = map_get(&t->g->rows_of, n);
  Map map = {0};
  for (uint32_t i = 0; i < n->ins.len; i++) {
    Value *v = n->ins.data[i], *to = NULL;
    if (r && i == ROWS_GOT) to = round_number(t, &t->got, r, rounds_got);
    if (r && i == ROWS_SOME) to = round_number(t, &t->some, r, rounds_some);
    map_put(a, &map, v, to ? to : inside(t, v));
  }
  Node *copy = ir_clone(&t->b, n, &map);
  copy->remat = 0;
  copy->backward = t->b.backward;
  for (uint32_t k = 0; k < n->outs.len; k++)
    map_put(a, &t->now, n->outs.data[k], copy->outs.data[k]);
  return copy;
}

/* What stands for `v` in the body. */
static Value *inside(Turn *t, Value *v) {
  Value *found = map_get(&t->now, v);
  if (found) return found;
  bool rows = offsets_of(t->s, v) == t->g->theirs || is_any_rows(t->s, v);
  if (v->def && (rows || is_cheap(t, v) || map_get(&t->s->told, v))) {
    again(t, v->def);
    return map_get(&t->now, v);
  }
  found = outside(t, v);
  map_put(t->s->a, &t->now, v, found);
  return found;
}

/* What leaves the experts in a turn joins what has left before. */
static Value *joined(Turn *t, Node *n, Value *before) {
  Node *copy = again(t, n);
  OpKind op = joined_by(n->op);
  if (op != OP_rows_return)
    return ir_binary(&t->b, op, before, copy->outs.data[0]);
  vec_push(&t->s->cx->perm, &copy->ins, before);
  return copy->outs.data[0];
}

static Turn turn_new(Rounds *s, Group *g, intptr_t level, const Map *by,
                     const Node *like) {
  Turn t = {.s = s, .g = g, .level = level, .by = by};
  int64_t most = (g->all + g->bound - 1) / g->bound - 1;
  t.l = loop_new(s->cx, s->r->entry, most, false);
  Region *body = t.l.index->region;
  t.b = ir_builder_like(s->cx, body, &body->nodes, like);
  t.b.backward = like->backward;
  Value *one = ir_const_like(&t.b, t.l.index, 1);
  Value *bound = ir_const_like(&t.b, t.l.index, (double)g->bound);
  t.lo = ir_binary(&t.b, OP_add, t.l.index, one);
  t.lo = ir_binary(&t.b, OP_mul, t.lo, bound);
  Value *theirs = loop_invariant(s->cx, &t.l, g->theirs);
  map_put(s->a, &t.now, g->first,
          rounds_theirs(&t.b, theirs, t.lo, g->bound));
  return t;
}

/* The loop of what leaves the experts at a level, appended to `list`. */
static void add_loop(Rounds *s, Group *g, intptr_t level, const NodeVec *exits,
                     Map *by, NodeVec *list) {
  Turn t = turn_new(s, g, level, by, exits->data[0]);
  for (uint32_t i = 0; i < exits->len; i++)
    loop_carry(s->cx, &t.l, exits->data[i]->outs.data[0]);
  for (uint32_t i = 0; i < exits->len; i++)
    t.l.carries.data[i].next =
        joined(&t, exits->data[i], t.l.carries.data[i].param);
  loop_count(s->cx, &t.l, g->more);
  Builder b = ir_builder_like(s->cx, s->r, list, exits->data[0]);
  b.backward = t.b.backward;
  loop_close(&b, &t.l);
  for (uint32_t i = 0; i < exits->len; i++)
    map_put(s->a, by, exits->data[i]->outs.data[0], t.l.carries.data[i].out);
  pass_tally(s->o, "loop of rounds");
}

/* ---- putting together ---------------------------------------------------- */

static void read_all_rounds(const Map *by, ValueVec *values) {
  for (uint32_t i = 0; i < values->len; i++) {
    Value *all = map_get(by, values->data[i]);
    if (all) values->data[i] = all;
  }
}

typedef struct Sorted {
  Arena *a;
  Region *r;
  Map done;
  NodeVec out;
} Sorted;

/* Behind what it reads. */
static void emit(Sorted *x, Node *n) {
  if (map_get(&x->done, n)) return;
  map_put(x->a, &x->done, n, n);
  for (uint32_t i = 0; i < n->ins.len; i++) {
    Node *def = n->ins.data[i]->def;
    if (def && def->region == x->r) emit(x, def);
  }
  vec_push(x->a, &x->out, n);
}

static void set_order(Rounds *s, const NodeVec *list) {
  Sorted x = {.a = &s->cx->perm, .r = s->r};
  for (uint32_t i = 0; i < list->len; i++)
    emit(&x, list->data[i]);
  s->r->nodes = x.out;
}

/* Nodes where rows leave at a level, in order. */
static NodeVec exits_at(const Rounds *s, const Group *g, intptr_t level) {
  NodeVec all = {0};
  for (uint32_t i = 0; i < s->r->nodes.len; i++) {
    Node *n = s->r->nodes.data[i];
    if (is_exit(s, n, g) && level_of(s, n->outs.data[0]) == level + 1)
      vec_push(s->a, &all, n);
  }
  return all;
}

/* Loops of all levels; each is to stand behind the last of what leaves in it:
 * `behind` has that node's. */
static void add_loops(Rounds *s, Group *g, Map *by, Map *behind) {
  NodeVec exits = exits_at(s, g, 0);
  for (intptr_t level = 0; exits.len; exits = exits_at(s, g, ++level)) {
    NodeVec made = {0};
    add_loop(s, g, level, &exits, by, &made);
    map_put(s->a, behind, exits.data[exits.len - 1], made.data[0]);
  }
}

/* Nodes that are read come with their readers: numbers of rows. */
static void do_group(Rounds *s, Group *g) {
  NodeVec numbers = {0}, list = {0};
  const NodeVec *old = &s->r->nodes;
  Map by = {0}, behind = {0};
  Builder b = ir_builder_like(s->cx, s->r, &numbers, g->send);
  bool rounds = g->bound < g->all;
  g->first = g->theirs;
  find_levels(s, g);
  if (rounds) number_rows(s, g, &b);
  find_told(s, g);
  shrink(s, g, &b);
  if (rounds) add_loops(s, g, &by, &behind);
  for (uint32_t i = 0; i < old->len; i++) {
    Node *n = old->data[i], *loop = map_get(&behind, n);
    read_all_rounds(&by, &n->ins);
    vec_push(s->a, &list, n);
    if (loop) vec_push(s->a, &list, loop);
  }
  read_all_rounds(&by, &s->r->results);
  set_order(s, &list);
}

/* ---- a region ------------------------------------------------------------ */

int64_t rounds_bound(int64_t rows, int64_t here, int64_t experts,
                     double factor) {
  double mean = (double)rows * (double)here / (double)experts;
  double bound = ceil(factor * mean * (1 - 1e-12)); /* not for a rounding */
  return bound < (double)rows ? (int64_t)bound : rows;
}

/* How many can be here, by what experts have at most; how many are to be. */
static Group *new_group(Rounds *s, const Node *send) {
  int64_t experts = send->ins.data[ROWS_X]->type.dims[0].size;
  int64_t here = send->outs.data[0]->type.dims[0].size;
  int64_t rows = attr_int(send, "rows");
  const Attr *most = attr_ref((Node *)send, "most");
  double factor = s->o->expert_rows;
  Group *g = NEW(s->a, Group);
  *g = (Group){.send = send, .theirs = send->ins.data[ROWS_THEIRS]};
  g->all = most->present && most->i * here < rows ? most->i * here : rows;
  g->bound = factor ? rounds_bound(rows, here, experts, factor) : rows;
  if (g->bound > g->all) g->bound = g->all;
  return g;
}

typedef VEC(Group *) GroupVec;

static Group *find_group(const GroupVec *all, const Value *theirs) {
  for (uint32_t i = 0; i < all->len; i++)
    if (all->data[i]->theirs == theirs) return all->data[i];
  return NULL;
}

/* Those of the region that could get more rows than they are to have. */
static GroupVec find_groups(Rounds *s) {
  GroupVec all = {0};
  for (uint32_t i = 0; i < s->r->nodes.len; i++) {
    Node *n = s->r->nodes.data[i];
    if (!sends_all(n) || find_group(&all, n->ins.data[ROWS_THEIRS])) continue;
    Group *g = new_group(s, n);
    if (g->bound < attr_int(n, "rows")) vec_push(s->a, &all, g);
  }
  return all;
}

/* Keeps those that can be done; false: one that has to be cannot. */
static bool check(Rounds *s, GroupVec *all) {
  uint32_t kept = 0;
  for (uint32_t k = 0; k < all->len; k++) {
    Group *g = all->data[k];
    bool ok = true;
    s->quiet = g->bound == g->all;
    if (s->depth == MAX_LOOPS && !s->quiet)
      ok = fail(s, g->send, "is in too many loops already");
    for (uint32_t i = 0; ok && i < s->r->nodes.len; i++)
      ok = check_node(s, s->r->nodes.data[i], g);
    if (!ok && !s->quiet) return false;
    if (ok) all->data[kept++] = g;
  }
  all->len = kept;
  return true;
}

static Value *larger(Builder *b, Value *x, Value *y) {
  return x && y ? ir_binary(b, OP_max, x, y) : x ? x : y;
}

static bool do_region(Rounds s, Value **out_more);

/* The most rounds of any turn of a scan. */
static bool do_scan(const Rounds *s, Node *n, NodeVec *behind, Value **more) {
  Rounds in = *s;
  Value *each;
  in.r = n->body;
  in.depth++;
  if (!do_region(in, &each)) return false;
  if (!each) return true;
  if (attr_bool(n, "counted"))
    return fail((Rounds *)s, n, "is counted, and what is in it is not told");
  Loop l = loop_open(s->cx, n);
  Value *all = loop_stack(s->cx, &l, each);
  Builder b = ir_builder_like(s->cx, s->r, behind, n);
  loop_close(&b, &l);
  *more = larger(&b, *more, ir_reduce(&b, OP_reduce_max, all, "a->"));
  return true;
}

/* *out_more: rounds beyond the first, the most of any layer; NULL where none
 * can be. */
static bool do_region(Rounds s, Value **out_more) {
  NodeVec old = s.r->nodes, made = {0};
  *out_more = NULL;
  for (uint32_t i = 0; i < old.len; i++)
    if (old.data[i]->op == OP_scan &&
        !do_scan(&s, old.data[i], &made, out_more))
      return false;
  find_wide(&s);
  GroupVec all = find_groups(&s);
  if (!check(&s, &all)) return false;
  Builder b = ir_builder(s.cx, s.r);
  for (uint32_t i = 0; i < all.len; i++) {
    do_group(&s, all.data[i]);
    b = ir_builder_like(s.cx, s.r, &made, all.data[i]->send);
    *out_more = larger(&b, *out_more, all.data[i]->more);
  }
  for (uint32_t i = 0; i < made.len; i++)
    vec_push(&s.cx->perm, &s.r->nodes, made.data[i]);
  return true;
}

/* ---- the pass ------------------------------------------------------------ */

static bool has_report(const Entry *e, const char *name) {
  for (uint32_t i = 0; i < e->outs.len; i++)
    if (e->outs.data[i].kind == BIND_REPORT &&
        strcmp(e->outs.data[i].name, name) == 0)
      return true;
  return false;
}

static bool do_entry(Module *m, Entry *e, const PassOptions *o) {
  Rounds s = {.cx = m->cx, .a = &m->cx->scratch, .o = o, .r = e->region};
  Value *more;
  if (!do_region(s, &more)) return false;
  if (!more) return true;
  if (has_report(e, "rounds")) {
    diag_error(m->cx, e->span, "--expert-rows: entry %s has a report 'rounds' "
                               "already", e->name);
    return false;
  }
  Builder b = ir_builder(m->cx, e->region);
  Value *rounds = ir_binary(&b, OP_add, more, ir_const_like(&b, more, 1));
  Binding to = {.kind = BIND_REPORT, .name = sym(m->cx, "rounds")};
  ir_bind_out(e, to, ir_cast(&b, rounds, DT_f32));
  ir_sweep(e);
  return true;
}

bool pass_rounds(Module *m, const PassOptions *o) {
  bool ok = true;
  if (mesh_devices(m) == 1) return pass_same(o);
  for (uint32_t i = 0; i < m->entries.len && ok; i++)
    ok = do_entry(m, m->entries.data[i], o);
  return ok;
}
