/* eval_comm.c: the interpreter's exchanges, and its virtual ranks.
 *
 * Each rank is a thread with values of its own, and only one of them runs at a
 * time: they hand on a baton in order of rank, at every exchange twice. When
 * the baton has come round once, all ranks stand at the same node and show
 * their operands; when it has come round again, all have taken what they need.
 * Nothing depends on time, and no data is shared while it is written.
 *
 * Without ranks around, a group of one exchanges with itself. */
#include "ir.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct EvalRanks {
  pthread_mutex_t lock;
  pthread_cond_t passed;
  int n, turn;
  bool failed;
  bool *ended;         /* by rank */
  const EvalCall **at; /* by rank: the exchange that it stands at */
  Eval *ev;
} EvalRanks;

/* ---- the baton ----------------------------------------------------------- */

static void wait_for_turn(EvalRanks *all, int rank) {
  while (all->turn != rank)
    pthread_cond_wait(&all->passed, &all->lock);
  all->ev->rank = rank;
}

/* To the next rank that has not ended, if there is one. */
static void pass_on(EvalRanks *all, int rank) {
  all->turn = (rank + 1) % all->n;
  while (all->ended[all->turn] && all->turn != rank)
    all->turn = (all->turn + 1) % all->n;
  pthread_cond_broadcast(&all->passed);
}

static void pass_round(EvalRanks *all, int rank) {
  pass_on(all, rank);
  wait_for_turn(all, rank);
}

/* ---- a group at a node --------------------------------------------------- */

typedef struct Meeting {
  EvalCall *c;
  EvalRanks *all; /* NULL: alone */
  Axes axes;
  int rank;
  int64_t size, place;
} Meeting;

/* Whether the ranks of a group stand at one exchange: loops that count their
 * turns may have brought them to several, where an exchange is missing. */
static bool together(const Meeting *m) {
  const Module *module = m->c->n->region->entry->module;
  for (int64_t p = 0; p < m->size; p++) {
    int64_t r = axes_member(module, m->axes, m->rank, p);
    if (m->all->ended[r] || m->all->at[r]->n != m->c->n) return false;
  }
  return true;
}

/* False: this call fails, because another rank did or there are none. */
static bool meet(EvalCall *c, Meeting *m) {
  const Module *module = c->n->region->entry->module;
  *m = (Meeting){.c = c, .all = c->ev->ranks, .axes = node_axes(c->n)};
  m->size = node_group(c->n);
  if (!m->all && m->size > 1) {
    diag_error(c->ev->cx, c->n->span, "%s: one rank is alone, of %lld",
               op_info[c->n->op].name, (long long)mesh_devices(module));
    c->failed = true;
  }
  if (!m->all) return !c->failed;
  m->rank = c->ev->rank;
  m->place = axes_place(module, m->axes, m->rank);
  m->all->at[m->rank] = c;
  pass_round(m->all, m->rank);
  c->failed = m->all->failed;
  if (!c->failed && !together(m)) {
    diag_error(c->ev->cx, c->n->span,
               "%s: the ranks of a group are at different exchanges",
               op_info[c->n->op].name);
    c->failed = m->all->failed = true;
  }
  return !c->failed;
}

static void part(Meeting *m) {
  if (!m->all) return;
  m->all->failed |= m->c->failed;
  pass_round(m->all, m->rank);
  m->c->failed |= m->all->failed;
}

/* Operand k of the rank at a place of the group. */
static const Tensor *shown(const Meeting *m, int64_t place, uint32_t k) {
  if (!m->all) return m->c->ins[k];
  const Module *module = m->c->n->region->entry->module;
  return m->all->at[axes_member(module, m->axes, m->rank, place)]->ins[k];
}

/* ---- combining ----------------------------------------------------------- */

static double combine(CombineOp op, double a, double b) {
  switch (op) {
  case COMBINE_SUM: return a + b;
  case COMBINE_MAX: return a > b ? a : b;
  case COMBINE_MIN: return a < b ? a : b;
  }
  return 0;
}

static CombineOp combine_of(const Node *n) {
  CombineOp op = COMBINE_SUM;
  combine_find(attr_sym(n, "op"), &op);
  return op;
}

/* Element i of operand k, over the group in order. */
static double combined(const Meeting *m, CombineOp op, uint32_t k, int64_t i) {
  double x = shown(m, 0, k)->data[i];
  for (int64_t p = 1; p < m->size; p++)
    x = combine(op, x, shown(m, p, k)->data[i]);
  return x;
}

/* Where element i of a piece of its own lies among all pieces. */
static int64_t in_pieces(Pieces s, int64_t parts, int64_t piece, int64_t i) {
  return (i / s.run * parts + piece) * s.run + i % s.run;
}

/* ---- dense exchanges ----------------------------------------------------- */

void eval_rank(EvalCall *c) {
  const Module *module = c->n->region->entry->module;
  c->outs[0]->data[0] =
      (double)axes_place(module, node_axes(c->n), c->ev->rank);
}

void eval_local_slice(EvalCall *c) {
  int64_t parts = attr_int(c->n, "parts"), dim = attr_int(c->n, "dim");
  int64_t piece = eval_id(c, c->ins[1]->data[0], parts);
  Pieces s = pieces_of(&c->ins[0]->type, (int)dim, parts);
  for (int64_t i = 0, n = type_elements(&c->outs[0]->type); i < n; i++)
    c->outs[0]->data[i] = c->ins[0]->data[in_pieces(s, parts, piece, i)];
}

void eval_all_reduce(EvalCall *c) {
  Meeting m;
  CombineOp op = combine_of(c->n);
  if (!meet(c, &m)) return;
  for (uint32_t k = 0; k < c->n->ins.len; k++)
    for (int64_t i = 0, n = type_elements(&c->ins[k]->type); i < n; i++)
      c->outs[k]->data[i] = combined(&m, op, k, i);
  part(&m);
}

void eval_all_gather(EvalCall *c) {
  Meeting m;
  if (!meet(c, &m)) return;
  int dim = (int)attr_int(c->n, "dim");
  Pieces s = pieces_of(&c->outs[0]->type, dim, m.size);
  for (int64_t p = 0; p < m.size; p++)
    for (int64_t i = 0, n = type_elements(&c->ins[0]->type); i < n; i++)
      c->outs[0]->data[in_pieces(s, m.size, p, i)] = shown(&m, p, 0)->data[i];
  part(&m);
}

void eval_reduce_scatter(EvalCall *c) {
  Meeting m;
  CombineOp op = combine_of(c->n);
  if (!meet(c, &m)) return;
  int dim = (int)attr_int(c->n, "dim");
  Pieces s = pieces_of(&c->ins[0]->type, dim, m.size);
  for (int64_t i = 0, n = type_elements(&c->outs[0]->type); i < n; i++)
    c->outs[0]->data[i] = combined(&m, op, 0, in_pieces(s, m.size, m.place, i));
  part(&m);
}

void eval_all_to_all(EvalCall *c) {
  Meeting m;
  if (!meet(c, &m)) return;
  const Type *in = &c->ins[0]->type, *out = &c->outs[0]->type;
  Pieces from = pieces_of(in, (int)attr_int(c->n, "split"), m.size);
  Pieces to = pieces_of(out, (int)attr_int(c->n, "concat"), m.size);
  for (int64_t p = 0; p < m.size; p++)
    for (int64_t i = 0, n = type_elements(in) / m.size; i < n; i++)
      c->outs[0]->data[in_pieces(to, m.size, p, i)] =
          shown(&m, p, 0)->data[in_pieces(from, m.size, m.place, i)];
  part(&m);
}

void eval_permute(EvalCall *c) {
  Meeting m;
  if (!meet(c, &m)) return;
  const Attr *to = attr_ref(c->n, "to");
  for (int64_t p = 0; p < m.size; p++)
    if (to->list[p] == m.place)
      memcpy(c->outs[0]->data, shown(&m, p, 0)->data,
             sizeof(double) * (size_t)type_elements(&c->outs[0]->type));
  part(&m);
}

/* ---- rows ---------------------------------------------------------------- */

/* Rows of one expert from one rank, where the tokens and where the experts
 * are. */
typedef struct Run {
  int64_t here, there, n;
} Run;

/* What the rank at `experts` has of the experts. */
static DimPart experts_of(const Meeting *m, int64_t experts) {
  int64_t all = m->c->ins[ROWS_MINE]->type.dims[0].size - 1;
  if (!m->all) return (DimPart){0, all, all};
  const Module *module = m->c->n->region->entry->module;
  return axes_part(module, m->axes, all,
                   axes_member(module, m->axes, m->rank, experts));
}

/* The rows of expert e of all that go from the rank at `tokens`. */
static Run own_rows(const Meeting *m, int64_t tokens, int64_t e) {
  const double *mine = shown(m, tokens, ROWS_MINE)->data;
  if (m->c->n->ins.len <= ROWS_SOME)
    return (Run){.here = (int64_t)mine[e],
                 .n = (int64_t)mine[e + 1] - (int64_t)mine[e]};
  const Tensor *some = shown(m, tokens, ROWS_SOME);
  int64_t experts = some->type.dims[1].size;
  return (Run){.here = (int64_t)some->data[e],
               .n = (int64_t)some->data[experts + e]};
}

/* What the rank at `tokens` has for expert e of the rank at `experts`: none
 * where the experts do not divide and it is none of them. */
static Run run_of(const Meeting *m, int64_t tokens, int64_t experts,
                  int64_t e) {
  const double *got = shown(m, experts, ROWS_GOT)->data;
  int64_t width = shown(m, experts, ROWS_GOT)->type.dims[1].size;
  DimPart part = experts_of(m, experts);
  Run r = {0};
  if (e < part.count) r = own_rows(m, tokens, part.start + e);
  r.there = (int64_t)shown(m, experts, ROWS_THEIRS)->data[e];
  for (int64_t p = 0; p < tokens; p++)
    r.there += (int64_t)got[p * width + e];
  if (r.n != (int64_t)got[tokens * width + e]) r.n = -1;
  return r;
}

/* Rows of a ragged tensor, and elements of each. */
static int64_t row_width(const Tensor *t) {
  return type_elements(&t->type) / t->type.dims[1].size;
}

static void copy_run(EvalCall *c, const Tensor *from, int64_t at, int64_t to,
                     int64_t n) {
  const Tensor *out = c->outs[0];
  int64_t width = row_width(out), room = out->type.dims[1].size;
  if (n < 0 || at < 0 || to < 0 || at + n > from->type.dims[1].size ||
      to + n > room) {
    if (!c->failed)
      diag_error(c->ev->cx, c->n->span,
                 n < 0 ? "%s: the counts differ from the rows that come"
                       : "%s: more rows than there is room for",
                 op_info[c->n->op].name);
    c->failed = true;
    return;
  }
  memcpy(out->data + to * width, from->data + at * width,
         sizeof(double) * (size_t)(n * width));
}

static void eval_rows(EvalCall *c, bool back) {
  Meeting m;
  if (!meet(c, &m)) return;
  Tensor *out = c->outs[0];
  int64_t experts = c->ins[ROWS_GOT]->type.dims[1].size;
  size_t bytes = sizeof(double) * (size_t)type_elements(&out->type);
  if (c->n->ins.len > ROWS_OTHERS)
    memcpy(out->data, c->ins[ROWS_OTHERS]->data, bytes);
  else
    memset(out->data, 0, bytes);
  for (int64_t p = 0; p < m.size; p++)
    for (int64_t e = 0; e < experts; e++) {
      Run r = back ? run_of(&m, m.place, p, e) : run_of(&m, p, m.place, e);
      copy_run(c, shown(&m, p, 0), back ? r.there : r.here,
               back ? r.here : r.there, r.n);
    }
  part(&m);
}

void eval_rows_send(EvalCall *c) {
  eval_rows(c, false);
}
void eval_rows_return(EvalCall *c) {
  eval_rows(c, true);
}

/* Virtual ranks exchange all where the exchange stands. */
void eval_wait(EvalCall *c) {
  for (uint32_t i = 0; i < c->n->ins.len; i++)
    memcpy(c->outs[i]->data, c->ins[i]->data,
           sizeof(double) * (size_t)type_elements(&c->outs[i]->type));
}

/* ---- all ranks ----------------------------------------------------------- */

typedef struct RankRun {
  EvalRanks *all;
  int rank;
  Entry *e;
  Tensor *const *ins;
  Tensor **outs;
  Arena *a;
  uint32_t result;
  pthread_t thread;
} RankRun;

static void *run_rank(void *arg) {
  RankRun *r = arg;
  pthread_mutex_lock(&r->all->lock);
  wait_for_turn(r->all, r->rank);
  r->result = ir_eval(r->all->ev, r->e, r->ins, r->outs, r->a);
  r->all->failed |= r->result == EVAL_FAILED;
  r->all->ended[r->rank] = true;
  pass_on(r->all, r->rank);
  pthread_mutex_unlock(&r->all->lock);
  return NULL;
}

uint32_t ir_eval_ranks(Eval *ev, Entry *e, Tensor *const *const *ins,
                       Tensor **const *outs, Arena *a) {
  int n = (int)mesh_devices(e->module);
  EvalRanks all = {.n = n,
                   .ev = ev,
                   .lock = PTHREAD_MUTEX_INITIALIZER,
                   .passed = PTHREAD_COND_INITIALIZER};
  RankRun *runs = calloc((size_t)n, sizeof *runs);
  all.at = calloc((size_t)n, sizeof *all.at);
  all.ended = calloc((size_t)n, sizeof *all.ended);
  if (!runs || !all.at || !all.ended) internal_error("out of memory");
  ev->ranks = &all;
  for (int r = 0; r < n; r++) {
    runs[r] = (RankRun){&all, r, e, ins[r], outs[r], a, 0, 0};
    if (pthread_create(&runs[r].thread, NULL, run_rank, &runs[r]))
      internal_error("no thread for virtual rank %d", r);
  }
  uint32_t clamped = 0;
  for (int r = 0; r < n; r++) {
    pthread_join(runs[r].thread, NULL);
    clamped += runs[r].result == EVAL_FAILED ? 0 : runs[r].result;
  }
  if (all.failed) clamped = EVAL_FAILED;
  ev->ranks = NULL;
  ev->rank = 0;
  free(runs);
  free(all.at);
  free(all.ended);
  return clamped;
}
