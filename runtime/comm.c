/* comm.c: collectives, made of exchanges.
 *
 * A transport can do one thing: every rank of a group sends every other some
 * bytes. All else is done here, the same over any transport: which bytes go
 * where, and sums. A sum is cut into pieces, one a rank; each rank gets the
 * others' parts of its own piece, adds them up in order of rank, and for an
 * all_reduce hands the sum round:
 *
 *   rank 0  a0 a1 a2       a0+b0+c0                      s0 s1 s2
 *   rank 1  b0 b1 b2  ->        a1+b1+c1            ->   s0 s1 s2
 *   rank 2  c0 c1 c2                a2+b2+c2             s0 s1 s2
 *
 * So all ranks add at once, and the result depends on nothing but the values.
 * Large tensors go portion by portion, through a staging area that stays in
 * cache. */
#include "rt.h"

#include <stdlib.h>
#include <string.h>

/* ---- groups -------------------------------------------------------------- */

static int64_t axis_step(const MoertAxis *mesh, int n_axes, int axis) {
  int64_t step = 1;
  for (int i = axis + 1; i < n_axes; i++)
    step *= mesh[i].size;
  return step;
}

MoertStatus rt_group_new(const MoertAxis *mesh, int n_axes,
                         const MoertCollective *k, int rank, RtGroup *out) {
  *out = (RtGroup){.n = 1};
  for (int i = 0; i < k->n_axes; i++) {
    const MoertAxis *a = &mesh[k->axes[i]];
    int64_t own = rank / axis_step(mesh, n_axes, k->axes[i]) % a->size;
    out->me = (int)(out->me * a->size + own);
    out->n *= (int)a->size;
    out->sizes[i] = a->size;
  }
  RT_TRY(RT_NEW(&out->ranks, out->n));
  for (int place = 0; place < out->n; place++) {
    int64_t member = rank, left = place;
    for (int i = k->n_axes - 1; i >= 0; i--) {
      const MoertAxis *a = &mesh[k->axes[i]];
      int64_t step = axis_step(mesh, n_axes, k->axes[i]);
      member += (left % a->size - rank / step % a->size) * step;
      left /= a->size;
    }
    out->ranks[place] = (int)member;
  }
  return MOERT_OK;
}

void rt_group_free(RtGroup *g) {
  free(g->ranks);
  *g = (RtGroup){0};
}

/* ---- one rank ------------------------------------------------------------ */

static int self_fail(MoertComm *c, const char *text) {
  (void)c, (void)text;
  return 1;
}

static void self_close(MoertComm *c) {
  (void)c;
}

/* All its groups are of one: nothing is ever moved. */
static const RtTransport self_transport = {.fail = self_fail,
                                           .close = self_close};
MoertComm rt_comm_self = {.transport = &self_transport, .size = 1};

/* ---- which bytes go where ------------------------------------------------ */

static int64_t buffer_bytes(const RtBuffer *b) {
  return b->elements * rt_dtype[b->dtype].bytes;
}

/* Piece i of a tensor cut as moert.h says. */
static RtRuns piece(const RtBuffer *b, int64_t rows, int64_t run, int parts,
                    int i) {
  int64_t bytes = run * rt_dtype[b->dtype].bytes;
  return (RtRuns){b->data + i * bytes, bytes, rows, parts * bytes};
}

static RtRuns whole(const RtBuffer *b) {
  return (RtRuns){b->data, buffer_bytes(b), 1, 0};
}

/* Adds a run list, which may be of no bytes. */
static MoertStatus add(RtStream *s, RtRuns r) {
  return rt_stream_add(s, r);
}

static MoertStatus lay_all_gather(RtPending *p) {
  const MoertCollective *k = p->k;
  for (int i = 0; i < p->group.n; i++) {
    RT_TRY(add(&p->x.send[i], whole(&p->buffers[0])));
    RT_TRY(add(&p->x.recv[i], piece(&p->buffers[1], k->out_rows, k->out_run,
                                    p->group.n, i)));
  }
  return MOERT_OK;
}

static MoertStatus lay_all_to_all(RtPending *p) {
  const MoertCollective *k = p->k;
  int n = p->group.n;
  for (int i = 0; i < n; i++) {
    RT_TRY(add(&p->x.send[i],
               piece(&p->buffers[0], k->in_rows, k->in_run, n, i)));
    RT_TRY(add(&p->x.recv[i],
               piece(&p->buffers[1], k->out_rows, k->out_run, n, i)));
  }
  return MOERT_OK;
}

static MoertStatus lay_permute(RtPending *p) {
  int me = p->group.me;
  RT_TRY(add(&p->x.send[p->k->to[me]], whole(&p->buffers[0])));
  for (int i = 0; i < p->group.n; i++)
    if (p->k->to[i] == me)
      RT_TRY(add(&p->x.recv[i], whole(&p->buffers[1])));
  return MOERT_OK;
}

/* ---- rows ---------------------------------------------------------------- */

static int rows_out(const RtPending *p) {
  return p->n_buffers - 1;
}
static bool has_some(const RtPending *p) {
  return rows_out(p) > RT_SOME;
}

static int32_t number(const RtPending *p, int which, int64_t i) {
  return ((const int32_t *)(const void *)p->buffers[which].data)[i];
}

static int64_t row_bytes(const RtPending *p) {
  return p->k->in_run * rt_dtype[p->buffers[RT_X].dtype].bytes;
}

static MoertStatus no_room(const RtPending *p, int64_t rows, int64_t room) {
  return rt_fail(MOERT_INVALID,
                 "%s: rank %d gets %lld rows for its experts and has room for "
                 "%lld",
                 p->x.what, p->comm->rank, (long long)rows, (long long)room);
}

/* Rows of a buffer from `from` on. */
static MoertStatus add_rows(const RtPending *p, RtStream *s, int which,
                            int64_t from, int64_t rows) {
  const RtBuffer *b = &p->buffers[which];
  int64_t bytes = row_bytes(p), room = buffer_bytes(b) / bytes;
  if (from < 0 || rows < 0 || from + rows > room)
    return no_room(p, from + rows, room);
  return add(s, (RtRuns){b->data + from * bytes, rows * bytes, 1, 0});
}

void rt_experts_of(const MoertCollective *k, const RtGroup *g, int64_t experts,
                   int place, int64_t *first, int64_t *end) {
  int64_t part = experts, count = part, below = g->n;
  *first = 0;
  for (int i = 0; i < k->n_axes; i++) {
    int64_t size = g->sizes[i];
    below /= size;
    part = (part + size - 1) / size;
    int64_t before = place / below % size * part;
    *first += before;
    count = count > before ? count - before : 0;
    if (count > part) count = part;
  }
  *end = *first + count;
  if (!count) *first = *end = 0;
}

/* Of each expert's rows those that go. */
static MoertStatus lay_some(const RtPending *p, RtStream *s, int which,
                            int64_t first, int64_t end) {
  int64_t experts = p->buffers[RT_MINE].elements - 1;
  for (int64_t e = first; e < end; e++)
    RT_TRY(add_rows(p, s, which, number(p, RT_SOME, e),
                    number(p, RT_SOME, experts + e)));
  return MOERT_OK;
}

/* Where the tokens are, rows of a rank's experts lie side by side. */
static MoertStatus lay_tokens(const RtPending *p, RtStream *all, int which) {
  int64_t experts = p->buffers[RT_MINE].elements - 1;
  for (int i = 0; i < p->group.n; i++) {
    int64_t first, end;
    rt_experts_of(p->k, &p->group, experts, i, &first, &end);
    if (has_some(p)) {
      RT_TRY(lay_some(p, &all[i], which, first, end));
      continue;
    }
    int64_t lo = number(p, RT_MINE, first), hi = number(p, RT_MINE, end);
    RT_TRY(add_rows(p, &all[i], which, lo, hi - lo));
  }
  return MOERT_OK;
}

/* Where the experts are, rows lie expert by expert, in each by rank. */
static MoertStatus lay_experts(const RtPending *p, RtStream *all, int which) {
  int64_t experts = p->buffers[RT_THEIRS].elements - 1;
  for (int64_t e = 0; e < experts; e++) {
    int64_t at = number(p, RT_THEIRS, e);
    for (int i = 0; i < p->group.n; i++) {
      int64_t rows = number(p, RT_GOT, i * experts + e);
      RT_TRY(add_rows(p, &all[i], which, at, rows));
      at += rows;
    }
  }
  return MOERT_OK;
}

static int64_t last_number(const RtPending *p, int which) {
  return number(p, which, p->buffers[which].elements - 1);
}

/* Rows [from, end) of the result are 0. */
static void clear_rows(const RtPending *p, int64_t from, int64_t end) {
  int64_t bytes = row_bytes(p);
  if (from < end)
    memset(p->buffers[rows_out(p)].data + from * bytes, 0,
           (size_t)((end - from) * bytes));
}

/* What does not come back is as it was in `others`, or 0. */
static void fill_others(const RtPending *p) {
  const RtBuffer *out = &p->buffers[rows_out(p)];
  int64_t experts = p->buffers[RT_MINE].elements - 1, done = 0;
  if (rows_out(p) > RT_OTHERS) {
    const RtBuffer *others = &p->buffers[RT_OTHERS];
    if (others->data != out->data)
      memcpy(out->data, others->data, (size_t)buffer_bytes(out));
    return;
  }
  for (int64_t e = 0; e < experts; e++) {
    clear_rows(p, done, number(p, RT_SOME, e));
    done = number(p, RT_SOME, e) + number(p, RT_SOME, experts + e);
  }
  clear_rows(p, done, buffer_bytes(out) / row_bytes(p));
}

/* Rows behind the last are 0. */
static void fill_rest(const RtPending *p, bool back) {
  int64_t room = buffer_bytes(&p->buffers[rows_out(p)]) / row_bytes(p);
  if (back && has_some(p))
    fill_others(p);
  else
    clear_rows(p, last_number(p, back ? RT_MINE : RT_THEIRS), room);
}

static MoertStatus lay_rows(RtPending *p, bool back) {
  int out = rows_out(p);
  RT_TRY(lay_tokens(p, back ? p->x.recv : p->x.send, back ? out : RT_X));
  RT_TRY(lay_experts(p, back ? p->x.send : p->x.recv, back ? RT_X : out));
  fill_rest(p, back);
  return MOERT_OK;
}

/* ---- sums ---------------------------------------------------------------- */

static bool is_sum(const MoertCollective *k) {
  return k->kind == MOERT_ALL_REDUCE || k->kind == MOERT_REDUCE_SCATTER;
}

int64_t rt_staging_bytes(const MoertCollective *k) {
  return is_sum(k) ? RT_STAGING : 0;
}

static const RtBuffer *sum_in(const RtPending *p) {
  return &p->buffers[p->operand];
}

/* Bytes of an element of what is summed. */
static int64_t width(const RtPending *p) {
  return rt_dtype[sum_in(p)->dtype].bytes;
}

/* The operand behind those that are at work: all of one dtype that follow one
 * another are summed as if they lay side by side. */
static int end_of_sum(const RtPending *p) {
  int end = p->operand + 1;
  while (end < p->n && p->buffers[end].dtype == sum_in(p)->dtype)
    end++;
  return end;
}

/* Elements before piece i; of an all_reduce some pieces have one more than
 * others, of a reduce_scatter each counts from 0. */
static int64_t before_piece(const RtPending *p, int i) {
  if (p->k->kind == MOERT_REDUCE_SCATTER) return 0;
  int64_t all = 0;
  for (int k = p->operand, end = end_of_sum(p); k < end; k++)
    all += p->buffers[k].elements;
  return all * i / p->group.n;
}

static int64_t piece_length(const RtPending *p, int i) {
  if (p->k->kind == MOERT_REDUCE_SCATTER) return p->k->in_rows * p->k->in_run;
  return before_piece(p, i + 1) - before_piece(p, i);
}

/* Elements of a piece that are summed at a time. */
static int64_t portion(const RtPending *p) {
  int64_t n = RT_STAGING / (p->group.n * width(p));
  return n >= 16 ? n / 16 * 16 : n;
}

/* Elements [lo, hi) that are at work. */
typedef struct Span {
  int64_t lo, hi;
} Span;

static Span at_work(const RtPending *p, int i) {
  int64_t left = piece_length(p, i) - p->done, most = portion(p);
  int64_t lo = before_piece(p, i) + p->done;
  return (Span){lo, lo + (left < 0 ? 0 : left < most ? left : most)};
}

/* Those of operand k among them, counted from its first; moves *before behind
 * the operand. */
static Span within(const RtPending *p, int k, Span all, int64_t *before) {
  int64_t n = p->buffers[k].elements, lo = all.lo - *before,
          hi = all.hi - *before;
  *before += n;
  return (Span){lo > 0 ? lo : 0, hi < n ? hi : n};
}

/* Where element `at` of operand k, or of its result, is. */
static char *element(const RtPending *p, int k, bool result, int64_t at) {
  return p->buffers[result ? k + p->n : k].data + at * width(p);
}

static MoertStatus add_span(const RtPending *p, RtStream *s, bool results,
                            int i) {
  Span all = at_work(p, i);
  if (p->k->kind == MOERT_REDUCE_SCATTER)
    return rt_stream_add_part(
        s, piece(sum_in(p), p->k->in_rows, p->k->in_run, p->group.n, i),
        all.lo * width(p), all.hi * width(p));
  int64_t before = 0;
  for (int k = p->operand, end = end_of_sum(p); k < end; k++) {
    Span part = within(p, k, all, &before);
    if (part.lo < part.hi)
      RT_TRY(add(s, (RtRuns){element(p, k, results, part.lo),
                             (part.hi - part.lo) * width(p), 1, 0}));
  }
  return MOERT_OK;
}

/* Every rank gets the others' parts of its own piece. */
static MoertStatus lay_scatter(RtPending *p) {
  Span own = at_work(p, p->group.me);
  for (int i = 0; i < p->group.n; i++) {
    char *to = p->staging + i * portion(p) * width(p);
    RT_TRY(add_span(p, &p->x.send[i], false, i));
    RT_TRY(add(&p->x.recv[i],
               (RtRuns){to, (own.hi - own.lo) * width(p), 1, 0}));
  }
  return MOERT_OK;
}

/* Every rank gets the sums that the others have made. */
static MoertStatus lay_gather(RtPending *p) {
  for (int i = 0; i < p->group.n; i++) {
    if (i == p->group.me) continue;
    RT_TRY(add_span(p, &p->x.send[i], true, p->group.me));
    RT_TRY(add_span(p, &p->x.recv[i], true, i));
  }
  return MOERT_OK;
}

static void sum_part(const RtPending *p, int k, Span part,
                     const char *pieces) {
  rt_combine(sum_in(p)->dtype, (MoertCombine)p->k->combine,
             element(p, k, true, part.lo), pieces, portion(p) * width(p),
             p->group.n, part.hi - part.lo);
}

static void sum_portion(const RtPending *p) {
  Span own = at_work(p, p->group.me);
  const char *from = p->staging;
  if (p->k->kind == MOERT_REDUCE_SCATTER) {
    sum_part(p, p->operand, own, from);
    return;
  }
  int64_t before = 0;
  for (int k = p->operand, end = end_of_sum(p); k < end; k++) {
    Span part = within(p, k, own, &before);
    if (part.lo >= part.hi) continue;
    sum_part(p, k, part, from);
    from += (part.hi - part.lo) * width(p);
  }
}

/* Goes on to what is to be summed next; false: all is. All ranks do as many
 * rounds as the longest piece, the last, needs. */
static bool next_portion(RtPending *p) {
  p->done += portion(p);
  while (p->done >= piece_length(p, p->group.n - 1)) {
    p->done = 0;
    p->operand = end_of_sum(p);
    if (p->operand >= p->n) return false;
  }
  return true;
}

/* ---- starting and waiting ------------------------------------------------ */

static MoertStatus lay_out(RtPending *p) {
  switch ((MoertCollectiveKind)p->k->kind) {
  case MOERT_ALL_REDUCE:
  case MOERT_REDUCE_SCATTER:
    return p->gathering ? lay_gather(p) : lay_scatter(p);
  case MOERT_ALL_GATHER: return lay_all_gather(p);
  case MOERT_ALL_TO_ALL: return lay_all_to_all(p);
  case MOERT_PERMUTE: return lay_permute(p);
  case MOERT_ROWS_SEND: return lay_rows(p, false);
  case MOERT_ROWS_RETURN: return lay_rows(p, true);
  case MOERT_PLACE: break;
  }
  return rt_fail(MOERT_BAD_DATA, "%s: no exchange of kind %d", p->x.what,
                 p->k->kind);
}

/* Counts what will come. One's own part is copied while others fetch theirs. */
static MoertStatus start_round(RtPending *p) {
  int me = p->group.me;
  for (int i = 0; i < p->group.n; i++) {
    rt_stream_clear(&p->x.send[i]);
    rt_stream_clear(&p->x.recv[i]);
  }
  RT_TRY(lay_out(p));
  if (p->x.send[me].total != p->x.recv[me].total)
    return rt_fail(MOERT_INVALID,
                   "%s: the counts differ from the rows that there are",
                   p->x.what);
  for (int i = 0; i < p->group.n; i++)
    if (i != me && !p->uncounted) p->comm->bytes += p->x.recv[i].total;
  if (p->group.n > 1) RT_TRY(p->comm->transport->start(p->comm, &p->x));
  rt_stream_copy(&p->x.recv[me], &p->x.send[me]);
  return MOERT_OK;
}

/* A round is over; what comes next, RT_DONE where nothing does. */
static RtMoved next_round(RtPending *p) {
  if (!is_sum(p->k)) return RT_DONE;
  if (!p->gathering) sum_portion(p);
  if (p->k->kind == MOERT_ALL_REDUCE) p->gathering = !p->gathering;
  return p->gathering || next_portion(p) ? RT_MOVED : RT_DONE;
}

MoertStatus rt_pending_advance(RtPending *p, RtMoved *out) {
  *out = RT_DONE;
  if (!p->in_round) RT_TRY(start_round(p));
  p->in_round = true;
  if (p->group.n > 1)
    RT_TRY(p->comm->transport->move(p->comm, &p->x, out));
  if (*out != RT_DONE) return MOERT_OK;
  p->in_round = false;
  *out = next_round(p);
  return MOERT_OK;
}

/* Alone in a group there is nothing to wait for. */
static MoertStatus run_alone(RtPending *p) {
  RtMoved moved = RT_NOTHING;
  while (moved != RT_DONE)
    RT_TRY(rt_pending_advance(p, &moved));
  p->over = true;
  return MOERT_OK;
}

MoertStatus rt_comm_start(RtPending *p) {
  if (p->active)
    return rt_fail(MOERT_BAD_DATA, "%s: started twice", p->x.what);
  p->operand = 0;
  p->done = 0;
  p->gathering = p->in_round = false;
  p->active = true;
  p->over = false;
  p->status = MOERT_OK;
  if (p->group.n == 1) return run_alone(p);
  rt_queue_start(p->comm, p);
  return MOERT_OK;
}

MoertStatus rt_comm_wait(RtPending *p) {
  if (!p->active)
    return rt_fail(MOERT_BAD_DATA, "%s: waited for before it was started",
                   p->x.what);
  if (p->group.n > 1) RT_TRY(rt_queue_wait(p->comm, p));
  p->active = false;
  if (p->status == MOERT_OK) return MOERT_OK;
  return rt_fail(p->status, "%s", p->why ? p->why : "out of memory");
}

/* ---- making ready -------------------------------------------------------- */

MoertStatus rt_pending_new(MoertComm *c, const MoertAxis *mesh, int n_axes,
                           const MoertCollective *k, int n_buffers,
                           const char *what, char *staging_area,
                           RtPending *out) {
  *out = (RtPending){.comm = c, .k = k, .n_buffers = n_buffers,
                     .staging = staging_area};
  out->n = n_buffers / 2;
  RT_TRY(rt_group_new(mesh, n_axes, k, c->rank, &out->group));
  int n = out->group.n;
  out->what = strdup(what);
  if (!out->what) return rt_fail(MOERT_NO_MEMORY, "out of memory");
  out->x = (RtExchange){
      .what = out->what, .n = n, .me = out->group.me,
      .ranks = out->group.ranks};
  RT_TRY(RT_NEW(&out->buffers, n_buffers));
  RT_TRY(RT_NEW(&out->x.send, n));
  return RT_NEW(&out->x.recv, n);
}

static void free_streams(RtStream *all, int n) {
  for (int i = 0; all && i < n; i++)
    free(all[i].runs);
  free(all);
}

void rt_pending_free(RtPending *p) {
  if (p->active && p->group.n > 1) rt_queue_drop(p->comm, p);
  free_streams(p->x.send, p->group.n);
  free_streams(p->x.recv, p->group.n);
  free(p->buffers);
  free(p->what);
  free(p->why);
  rt_group_free(&p->group);
  *p = (RtPending){0};
}

/* ---- for programs -------------------------------------------------------- */

int moert_comm_rank(const MoertComm *c) {
  return c->rank;
}
int moert_comm_size(const MoertComm *c) {
  return c->size;
}
int64_t moert_comm_bytes(const MoertComm *c) {
  return c->bytes;
}
void moert_comm_seconds(const MoertComm *c, double *out_busy,
                        double *out_waited) {
  *out_busy = c->busy;
  *out_waited = c->waited;
}
int moert_comm_fail(MoertComm *c, const char *text) {
  return c->transport->fail(c, text);
}
void moert_comm_close(MoertComm *c) {
  if (!c) return;
  rt_queue_free(c);
  c->transport->close(c);
}

MoertStatus rt_comm_all(MoertComm *c, const char *what, const void *mine,
                        size_t bytes, void *all) {
  const MoertAxis ranks = {"ranks", c->size};
  const MoertCollective k = {.kind = MOERT_ALL_GATHER, .n_axes = 1,
                             .out_rows = 1, .out_run = (int64_t)bytes};
  RtPending p;
  int64_t n = (int64_t)bytes;
  MoertStatus st = rt_pending_new(c, &ranks, 1, &k, 2, what, NULL, &p);
  if (st == MOERT_OK) { /* of a dtype of one byte */
    p.buffers[0] = (RtBuffer){(char *)(uintptr_t)mine, MOERT_bool, n};
    p.buffers[1] = (RtBuffer){all, MOERT_bool, n * c->size};
    p.uncounted = true;
    st = rt_comm_start(&p);
  }
  if (st == MOERT_OK) st = rt_comm_wait(&p);
  rt_pending_free(&p);
  return st;
}

/* How something went on one rank. */
typedef struct Verdict {
  int32_t status;
  char text[RT_VERDICT];
} Verdict;

/* What failed first, by rank: said as it is where it failed so everywhere. */
static MoertStatus judge(const Verdict *all, int n) {
  int first = 0, same = 0;
  while (first < n && all[first].status == MOERT_OK)
    first++;
  if (first == n) return MOERT_OK;
  const Verdict *v = &all[first];
  MoertStatus st = (MoertStatus)v->status;
  for (int r = 0; r < n; r++)
    same += all[r].status == v->status && strcmp(all[r].text, v->text) == 0;
  if (same == n) return rt_fail(st, "%s", v->text);
  if (st == MOERT_NOT_FOUND) st = MOERT_BAD_DATA; /* others have found it */
  return rt_fail(st, "rank %d: %s", first, v->text);
}

MoertStatus rt_comm_agree(MoertComm *c, MoertStatus st) {
  Verdict mine = {.status = (int32_t)st}, *all;
  if (c->size == 1 || st == MOERT_RANK_LOST) return st;
  if (st != MOERT_OK)
    snprintf(mine.text, sizeof mine.text, "%s", moert_error());
  RT_TRY(RT_NEW(&all, c->size));
  MoertStatus got = rt_comm_all(c, "agreement", &mine, sizeof mine, all);
  if (got == MOERT_OK) got = judge(all, c->size);
  free(all);
  return got;
}

MoertStatus moert_comm_all(MoertComm *c, const void *mine, size_t bytes,
                           void *all) {
  return rt_comm_all(c, "agreement", mine, bytes, all);
}

static MoertStatus largest(MoertComm *c, const char *what, int *value) {
  int *all;
  RT_TRY(RT_NEW(&all, c->size));
  MoertStatus st = rt_comm_all(c, what, value, sizeof *value, all);
  for (int i = 0; st == MOERT_OK && i < c->size; i++)
    if (all[i] > *value) *value = all[i];
  free(all);
  return st;
}

MoertStatus moert_comm_max(MoertComm *c, int *value) {
  return largest(c, "agreement", value);
}

MoertStatus moert_comm_barrier(MoertComm *c) {
  int none = 0;
  return largest(c, "barrier", &none);
}
