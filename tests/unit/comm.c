/* comm.c: exchanges among processes over shared memory: every collective, over
 * one and two mesh axes, sizes from nothing to many portions; ranks that die,
 * hang, fail, leave, or run another program. */
#include "tiny.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

enum { MOST_RANKS = 8, WHY = 1024 };

/* ---- processes ----------------------------------------------------------- */

/* What rank r leaves behind: "" where all was well. */
static char (*whys)[WHY];

typedef void RankFn(MoertComm *c, char *why);

static double seconds_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void be_rank(MoertLocal *l, int rank, double timeout, RankFn *run) {
  MoertComm *c;
  snprintf(whys[rank], WHY, "it has not ended");
  if (moert_local_join(l, rank, timeout, &c) != MOERT_OK) {
    snprintf(whys[rank], WHY, "joining: %s", moert_error());
    _exit(1);
  }
  whys[rank][0] = 0;
  run(c, whys[rank]);
  moert_comm_close(c);
  moert_local_free(l);
  _exit(0);
}

static void kill_all(const pid_t *pids, int n) {
  for (int r = 0; r < n; r++)
    kill(pids[r], SIGKILL);
}

/* Runs `run` in n processes, waits for those not in `never`, ends the rest. */
static void run_ranks(int n, double timeout, RankFn *run, unsigned never) {
  MoertLocal *l;
  pid_t pids[MOST_RANKS];
  if (moert_local_new(n, &l) != MOERT_OK) {
    printf("not ok local: %s\n", moert_error());
    exit(1);
  }
  fflush(stdout);
  for (int r = 0; r < n; r++)
    if ((pids[r] = fork()) == 0) be_rank(l, r, timeout, run);
  for (int r = 0; r < n; r++)
    if (!(never >> r & 1)) waitpid(pids[r], NULL, 0);
  kill_all(pids, n);
  while (waitpid(-1, NULL, 0) > 0)
    ;
  moert_local_free(l);
}

static void check_ranks(const char *name, int n) {
  char text[WHY + 32] = "";
  for (int r = n - 1; r >= 0; r--)
    if (whys[r][0]) snprintf(text, sizeof text, "rank %d: %s", r, whys[r]);
  CHECK(name, !text[0], "%s", text);
}

/* ---- every collective ---------------------------------------------------- */

/* A mesh, and the axes to exchange over. */
typedef struct Layout {
  MoertAxis mesh[2];
  int n_axes; /* of the mesh */
  int n, axes[2];
} Layout;

static Layout layout;
static const char *last_what;

/* Element i of what rank r starts with. */
static double start_value(int rank, int64_t i) {
  return (double)((rank + 1) * 1000 + i % 977) / 8;
}

static void fill(RtBuffer *b, int rank) {
  int64_t bytes = rt_dtype[b->dtype].bytes;
  for (int64_t i = 0; i < b->elements; i++)
    rt_store(b->dtype, b->data + i * bytes, start_value(rank, i));
}

static double value_at(const RtBuffer *b, int64_t i) {
  return rt_load(b->dtype, b->data + i * rt_dtype[b->dtype].bytes);
}

/* As the dtype holds it. */
static double held(int dtype, double x) {
  char bytes[8];
  rt_store(dtype, bytes, x);
  return rt_load(dtype, bytes);
}

typedef struct Try {
  MoertCollective k;
  int64_t in, out; /* elements */
  int dtype;
} Try;

/* Element i of a piece among all pieces. */
static int64_t in_pieces(int64_t run, int64_t parts, int64_t piece,
                         int64_t i) {
  return (i / run * parts + piece) * run + i % run;
}

static double start_of(const RtPending *p, const Try *t, int place, int64_t i) {
  return held(t->dtype, start_value(p->group.ranks[place], i));
}

static double total(const RtPending *p, const Try *t, int64_t i) {
  double x = start_of(p, t, 0, i);
  for (int q = 1; q < p->group.n; q++) {
    double y = start_of(p, t, q, i);
    x = t->k.combine == MOERT_SUM   ? x + y
        : t->k.combine == MOERT_MAX ? (x > y ? x : y)
                                    : (x < y ? x : y);
  }
  return held(t->dtype, x);
}

static double wanted(const RtPending *p, const Try *t, int64_t i) {
  int n = p->group.n, me = p->group.me, from = 0;
  int64_t piece, at;
  switch ((MoertCollectiveKind)t->k.kind) {
  case MOERT_ALL_REDUCE: return total(p, t, i);
  case MOERT_REDUCE_SCATTER:
    return total(p, t, in_pieces(t->k.in_run, n, me, i));
  case MOERT_ALL_GATHER:
  case MOERT_ALL_TO_ALL:
    piece = i / t->k.out_run % n;
    at = i / t->k.out_run / n * t->k.out_run + i % t->k.out_run;
    if (t->k.kind == MOERT_ALL_TO_ALL)
      at = in_pieces(t->k.in_run, n, me, at);
    return start_of(p, t, (int)piece, at);
  case MOERT_PERMUTE:
    while (t->k.to[from] != me)
      from++;
    return start_of(p, t, from, i);
  case MOERT_ROWS_SEND:
  case MOERT_ROWS_RETURN:
  case MOERT_PLACE: break;
  }
  return -1;
}

static void new_buffer(RtBuffer *b, int dtype, int64_t elements) {
  size_t bytes = (size_t)(elements * rt_dtype[dtype].bytes);
  *b = (RtBuffer){malloc(bytes ? bytes : 1), dtype, elements};
  memset(b->data, 0xff, bytes);
}

static void compare(const RtPending *p, const Try *t, char *why) {
  for (int64_t i = 0; i < t->out && !why[0]; i++) {
    double x = value_at(&p->buffers[1], i), y = wanted(p, t, i);
    if (x != y)
      snprintf(why, WHY, "kind %d of %lld %s, element %lld: %g, not %g",
               t->k.kind, (long long)t->in, rt_dtype[t->dtype].name,
               (long long)i, x, y);
  }
}

static void prepare(MoertComm *c, const Try *t, RtPending *p, char *why) {
  char *staging = malloc(RT_STAGING);
  if (rt_pending_new(c, layout.mesh, layout.n_axes, &t->k, 2, "a try", staging,
                     p) != MOERT_OK)
    snprintf(why, WHY, "%s", moert_error());
  new_buffer(&p->buffers[0], t->dtype, t->in);
  new_buffer(&p->buffers[1], t->dtype, t->out);
  fill(&p->buffers[0], c->rank);
}

static void drop(RtPending *p) {
  free(p->staging);
  free(p->buffers[0].data);
  free(p->buffers[1].data);
  rt_pending_free(p);
}

static void try_one(MoertComm *c, const Try *t, char *why) {
  RtPending p;
  if (why[0]) return;
  prepare(c, t, &p, why);
  for (int round = 0; round < 2 && !why[0]; round++) {
    MoertStatus st = rt_comm_start(&p);
    if (st == MOERT_OK) st = rt_comm_wait(&p);
    if (st != MOERT_OK) snprintf(why, WHY, "%s", moert_error());
    if (!why[0]) compare(&p, t, why);
  }
  drop(&p);
}

static int group_size(void) {
  int n = 1;
  for (int i = 0; i < layout.n; i++)
    n *= (int)layout.mesh[layout.axes[i]].size;
  return n;
}

static Try new_try(int kind, int dtype) {
  Try t = {.k = {.kind = kind, .n_axes = layout.n}, .dtype = dtype};
  memcpy(t.k.axes, layout.axes, sizeof layout.axes);
  return t;
}

static void try_sums(MoertComm *c, int64_t n, int dtype, char *why) {
  int ranks = group_size();
  for (int op = MOERT_SUM; op <= MOERT_MIN; op++) {
    Try t = new_try(MOERT_ALL_REDUCE, dtype);
    t.k.combine = op;
    t.in = t.out = n;
    try_one(c, &t, why);
    t = new_try(MOERT_REDUCE_SCATTER, dtype);
    t.k.combine = op;
    t.k.in_rows = n % 3 + 1;
    t.k.in_run = n;
    t.out = t.k.in_rows * n;
    t.in = t.out * ranks;
    try_one(c, &t, why);
  }
}

static void try_moves(MoertComm *c, int64_t n, int dtype, char *why) {
  int ranks = group_size();
  Try t = new_try(MOERT_ALL_GATHER, dtype);
  t.k.out_rows = 3;
  t.k.out_run = n;
  t.in = 3 * n;
  t.out = t.in * ranks;
  try_one(c, &t, why);
  t = new_try(MOERT_ALL_TO_ALL, dtype);
  t.k.in_rows = 4;
  t.k.in_run = 3 * n;
  t.k.out_rows = 6;
  t.k.out_run = 2 * n;
  t.in = t.out = 12 * n * ranks;
  try_one(c, &t, why);
  int32_t to[MOST_RANKS];
  for (int i = 0; i < ranks; i++)
    to[i] = (i * 3 + 1) % ranks;
  if (ranks % 3 == 0) return; /* no permutation */
  t = new_try(MOERT_PERMUTE, dtype);
  t.k.to = to;
  t.in = t.out = n;
  try_one(c, &t, why);
}

static void try_all(MoertComm *c, char *why) {
  static const int64_t sizes[] = {1, 2, 7, 1000, 20011};
  for (size_t i = 0; i < COUNT_OF(sizes); i++) {
    try_sums(c, sizes[i], MOERT_f32, why);
    try_moves(c, sizes[i], MOERT_f32, why);
  }
  static const int dtypes[] = {MOERT_f64, MOERT_i32, MOERT_u32, MOERT_bf16};
  for (size_t i = 0; i < COUNT_OF(dtypes); i++) {
    try_sums(c, 33, dtypes[i], why);
    try_moves(c, 33, dtypes[i], why);
  }
}

static void test_layout(const char *name, int ranks, Layout l) {
  layout = l;
  run_ranks(ranks, 60, try_all, 0);
  check_ranks(name, ranks);
}

static void test_collectives(void) {
  test_layout("local: one rank", 1, (Layout){{{"d", 1}}, 1, 1, {0}});
  test_layout("local: 2 ranks", 2, (Layout){{{"d", 2}}, 1, 1, {0}});
  test_layout("local: 3 ranks", 3, (Layout){{{"d", 3}}, 1, 1, {0}});
  test_layout("local: 4 ranks", 4, (Layout){{{"d", 4}}, 1, 1, {0}});
  test_layout("local: 8 ranks", 8, (Layout){{{"d", 8}}, 1, 1, {0}});
  test_layout("local: outer axis of 2 x 4", 8,
              (Layout){{{"a", 2}, {"b", 4}}, 2, 1, {0}});
  test_layout("local: inner axis of 2 x 4", 8,
              (Layout){{{"a", 2}, {"b", 4}}, 2, 1, {1}});
  test_layout("local: both axes, inner first", 6,
              (Layout){{{"a", 3}, {"b", 2}}, 2, 2, {1, 0}});
}

/* ---- several at once, in place, bytes ------------------------------------ */

/* Waited for in another order than they were started in. */
static void try_overlap(MoertComm *c, char *why) {
  Try sum = new_try(MOERT_ALL_REDUCE, MOERT_f32);
  sum.in = sum.out = 600000;
  Try move = new_try(MOERT_ALL_GATHER, MOERT_f32);
  move.k.out_rows = 1;
  move.k.out_run = move.in = 1001;
  move.out = move.in * c->size;
  RtPending a, b;
  prepare(c, &sum, &a, why);
  prepare(c, &move, &b, why);
  MoertStatus st = rt_comm_start(&a);
  if (st == MOERT_OK) st = rt_comm_start(&b);
  if (st == MOERT_OK) st = rt_comm_wait(&b);
  if (st == MOERT_OK) st = rt_comm_wait(&a);
  if (st != MOERT_OK) snprintf(why, WHY, "%s", moert_error());
  if (!why[0]) compare(&a, &sum, why);
  if (!why[0]) compare(&b, &move, why);
  drop(&a);
  drop(&b);
}

/* Ends without anybody waiting, while the program does something else. */
static void try_behind(MoertComm *c, char *why) {
  Try sum = new_try(MOERT_ALL_REDUCE, MOERT_f32);
  sum.in = sum.out = 3000001;
  RtPending a;
  prepare(c, &sum, &a, why);
  for (int round = 0; round < 3 && !why[0]; round++) {
    const struct timespec nap = {.tv_nsec = 1000000};
    double start = seconds_now();
    MoertStatus st = rt_comm_start(&a);
    if (st == MOERT_OK) st = rt_comm_behind(c);
    while (st == MOERT_OK && !a.over && seconds_now() - start < 50)
      nanosleep(&nap, NULL);
    if (st == MOERT_OK && !a.over) snprintf(why, WHY, "it does not go on");
    if (st == MOERT_OK) st = rt_comm_wait(&a);
    if (st == MOERT_OK) st = moert_comm_barrier(c);
    if (st != MOERT_OK) snprintf(why, WHY, "%s", moert_error());
    if (!why[0]) compare(&a, &sum, why);
  }
  double busy, waited;
  moert_comm_seconds(c, &busy, &waited);
  if (!why[0] && (busy <= 0 || waited != 0))
    snprintf(why, WHY, "%g s, waited %g s", busy, waited);
  drop(&a);
}

/* Several behind one another, of all of which only the last is waited for
 * early; the ranks begin to wait at different times. */
static void try_many_behind(MoertComm *c, char *why) {
  enum { MANY = 12 };
  Try sum = new_try(MOERT_ALL_REDUCE, MOERT_f32);
  RtPending all[MANY];
  Try tries[MANY];
  for (int i = 0; i < MANY; i++) {
    sum.in = sum.out = i % 3 ? 70001 * i : 5;
    tries[i] = sum;
    prepare(c, &tries[i], &all[i], why);
  }
  for (int round = 0; round < 5 && !why[0]; round++) {
    const struct timespec nap = {.tv_nsec = 1000000 * (c->rank + 1)};
    MoertStatus st = MOERT_OK;
    for (int i = 0; i < MANY && st == MOERT_OK; i++) {
      st = rt_comm_start(&all[i]);
      if (round < 2)
        rt_comm_poke(c);
      else if (st == MOERT_OK && i % 4 != 3)
        st = rt_comm_behind(c);
      if (i % 4 == 0) nanosleep(&nap, NULL);
    }
    for (int i = MANY; i-- > 0 && st == MOERT_OK;)
      st = rt_comm_wait(&all[i]);
    if (st != MOERT_OK) snprintf(why, WHY, "%s", moert_error());
    for (int i = 0; i < MANY && !why[0]; i++)
      compare(&all[i], &tries[i], why);
  }
  for (int i = 0; i < MANY; i++)
    drop(&all[i]);
}

/* Operands of one dtype are cut as if they were one, others by themselves. */
static void try_several(MoertComm *c, char *why) {
  static const struct {
    int64_t n;
    int dtype;
  } all[] = {{3, MOERT_f32},      {1, MOERT_f32}, {400001, MOERT_f32},
             {100, MOERT_bf16},   {1, MOERT_i32}, {7, MOERT_f64},
             {300000, MOERT_f64}, {2, MOERT_f64}};
  enum { N = COUNT_OF(all) };
  const MoertCollective k = new_try(MOERT_ALL_REDUCE, MOERT_f32).k;
  RtPending p;
  if (rt_pending_new(c, layout.mesh, layout.n_axes, &k, 2 * N, "several",
                     malloc(RT_STAGING), &p) != MOERT_OK)
    snprintf(why, WHY, "%s", moert_error());
  for (int i = 0; i < N; i++) {
    new_buffer(&p.buffers[i], all[i].dtype, all[i].n);
    new_buffer(&p.buffers[i + N], all[i].dtype, all[i].n);
    fill(&p.buffers[i], c->rank);
  }
  if (rt_comm_start(&p) || rt_comm_wait(&p))
    snprintf(why, WHY, "%s", moert_error());
  for (int i = 0; i < N; i++) {
    Try t = new_try(MOERT_ALL_REDUCE, all[i].dtype);
    for (int64_t e = 0; e < all[i].n && !why[0]; e++)
      if (value_at(&p.buffers[i + N], e) != total(&p, &t, e))
        snprintf(why, WHY, "operand %d, element %lld", i, (long long)e);
    free(p.buffers[i].data);
    free(p.buffers[i + N].data);
  }
  free(p.staging);
  rt_pending_free(&p);
}

static void try_in_place(MoertComm *c, char *why) {
  Try t = new_try(MOERT_ALL_REDUCE, MOERT_f32);
  t.in = t.out = 600001;
  RtPending p;
  prepare(c, &t, &p, why);
  memcpy(p.buffers[1].data, p.buffers[0].data, 4 * (size_t)t.in);
  char *other = p.buffers[0].data;
  p.buffers[0].data = p.buffers[1].data;
  MoertStatus st = rt_comm_start(&p);
  if (st == MOERT_OK) st = rt_comm_wait(&p);
  if (st != MOERT_OK) snprintf(why, WHY, "%s", moert_error());
  if (!why[0]) compare(&p, &t, why);
  p.buffers[0].data = other;
  drop(&p);
}

/* 1001 elements over 4 ranks: 250, 250, 250 and 251 of them. */
static void try_bytes(MoertComm *c, char *why) {
  Try t = new_try(MOERT_ALL_REDUCE, MOERT_f32);
  t.in = t.out = 1001;
  RtPending p;
  prepare(c, &t, &p, why);
  int64_t before = moert_comm_bytes(c), own = c->rank == 3 ? 251 : 250;
  if (rt_comm_start(&p) || rt_comm_wait(&p) || moert_comm_barrier(c))
    snprintf(why, WHY, "%s", moert_error());
  int64_t got = moert_comm_bytes(c) - before, want = 4 * (3 * own + 1001 - own);
  if (got != want)
    snprintf(why, WHY, "%lld bytes, not %lld", (long long)got,
             (long long)want);
  drop(&p);
}

/* ---- rows ---------------------------------------------------------------- */

/* Rank r has (r + e) % 3 rows of 5 numbers for expert e, 2 experts a rank. */
enum { EXPERTS = 2, WIDTH = 5 };

static int rows_for(int rank, int expert) {
  return (rank + expert) % 3;
}

static double row_number(int rank, int expert, int row, int i) {
  return rank * 1000 + expert * 100 + row * 10 + i;
}

typedef struct Rows {
  float *x, *y, *back;
  int32_t mine[MOST_RANKS * EXPERTS + 1], got[MOST_RANKS * EXPERTS];
  int32_t theirs[EXPERTS + 1];
  int n_mine, n_theirs, room;
} Rows;

static void make_rows(MoertComm *c, Rows *r) {
  int experts = c->size * EXPERTS;
  *r = (Rows){.room = 3 * c->size * EXPERTS};
  size_t bytes = sizeof(float) * WIDTH * (size_t)(3 * experts);
  r->x = malloc(bytes);
  r->y = malloc(bytes);
  r->back = malloc(bytes);
  for (int e = 0; e < experts; e++) {
    for (int k = 0; k < rows_for(c->rank, e); k++, r->n_mine++)
      for (int i = 0; i < WIDTH; i++)
        r->x[r->n_mine * WIDTH + i] = (float)row_number(c->rank, e, k, i);
    r->mine[e + 1] = r->n_mine;
  }
  for (int e = 0; e < EXPERTS; e++) {
    for (int s = 0; s < c->size; s++) {
      int n = rows_for(s, c->rank * EXPERTS + e);
      r->got[s * EXPERTS + e] = n;
      r->n_theirs += n;
    }
    r->theirs[e + 1] = r->n_theirs;
  }
}

static MoertStatus exchange_rows(MoertComm *c, int kind, Rows *r, float *from,
                                 float *to, int64_t room) {
  Try t = new_try(kind, MOERT_f32);
  t.k.in_run = WIDTH;
  RtPending p;
  RT_TRY(rt_pending_new(c, layout.mesh, layout.n_axes, &t.k, 5, "rows", NULL,
                        &p));
  int64_t experts = c->size * EXPERTS, whole = 3 * experts * WIDTH;
  RtBuffer all[] = {{(char *)from, MOERT_f32, whole},
                    {(char *)r->mine, MOERT_i32, experts + 1},
                    {(char *)r->got, MOERT_i32, experts},
                    {(char *)r->theirs, MOERT_i32, EXPERTS + 1},
                    {(char *)to, MOERT_f32, room * WIDTH}};
  memcpy(p.buffers, all, sizeof all);
  MoertStatus st = rt_comm_start(&p);
  if (st == MOERT_OK) st = rt_comm_wait(&p);
  rt_pending_free(&p);
  return st;
}

static void check_experts(const MoertComm *c, const Rows *r, char *why) {
  int at = 0;
  for (int e = 0; e < EXPERTS; e++)
    for (int s = 0; s < c->size; s++)
      for (int k = 0; k < rows_for(s, c->rank * EXPERTS + e); k++, at++)
        for (int i = 0; i < WIDTH; i++)
          if (r->y[at * WIDTH + i] !=
              (float)row_number(s, c->rank * EXPERTS + e, k, i))
            snprintf(why, WHY, "row %d of the experts is another", at);
  for (int i = at * WIDTH; i < r->room * WIDTH; i++)
    if (r->y[i] != 0) snprintf(why, WHY, "rows behind the last are not 0");
}

static void free_rows(Rows *r) {
  free(r->x);
  free(r->y);
  free(r->back);
}

static void try_rows(MoertComm *c, char *why) {
  Rows r;
  make_rows(c, &r);
  MoertStatus st = exchange_rows(c, MOERT_ROWS_SEND, &r, r.x, r.y, r.room);
  if (st == MOERT_OK) check_experts(c, &r, why);
  if (st == MOERT_OK)
    st = exchange_rows(c, MOERT_ROWS_RETURN, &r, r.y, r.back, r.room);
  if (st != MOERT_OK) snprintf(why, WHY, "%s", moert_error());
  if (!why[0] &&
      memcmp(r.x, r.back, sizeof(float) * WIDTH * (size_t)r.n_mine))
    snprintf(why, WHY, "rows that came back are others");
  free_rows(&r);
}

static void try_no_room(MoertComm *c, char *why) {
  Rows r;
  make_rows(c, &r);
  MoertStatus st =
      exchange_rows(c, MOERT_ROWS_SEND, &r, r.x, r.y, r.n_theirs - 1);
  if (st != MOERT_INVALID || !strstr(moert_error(), "rows for its experts"))
    snprintf(why, WHY, "%s", st ? moert_error() : "it went well");
  free_rows(&r);
}

static void test_rows(void) {
  for (int n = 1; n <= 4; n++) {
    layout = (Layout){{{"d", n}}, 1, 1, {0}};
    char name[64];
    snprintf(name, sizeof name, "local: rows of experts, %d ranks", n);
    run_ranks(n, 60, try_rows, 0);
    check_ranks(name, n);
  }
  layout = (Layout){{{"d", 3}}, 1, 1, {0}};
  run_ranks(3, 60, try_no_room, 0);
  check_ranks("local: more rows than there is room for", 3);
}

static void test_more(void) {
  layout = (Layout){{{"d", 4}}, 1, 1, {0}};
  run_ranks(4, 60, try_overlap, 0);
  check_ranks("local: two at once", 4);
  run_ranks(4, 60, try_behind, 0);
  check_ranks("local: behind other work", 4);
  run_ranks(4, 60, try_many_behind, 0);
  check_ranks("local: many behind other work", 4);
  run_ranks(4, 60, try_several, 0);
  check_ranks("local: several operands", 4);
  run_ranks(4, 60, try_in_place, 0);
  check_ranks("local: in place", 4);
  run_ranks(4, 60, try_bytes, 0);
  check_ranks("local: bytes are counted", 4);
}

/* ---- what goes wrong ----------------------------------------------------- */

/* An exchange that is to fail; `why` is what it said. */
static void fail_with_text(MoertComm *c, char *why) {
  Try t = new_try(MOERT_ALL_REDUCE, MOERT_f32);
  t.in = t.out = c->rank == 0 && last_what ? 999 : 100000;
  RtPending p;
  prepare(c, &t, &p, why);
  p.x.what = "%g: all_reduce at m.dsl:3:4";
  MoertStatus st = rt_comm_start(&p);
  if (st == MOERT_OK) st = rt_comm_wait(&p);
  if (st == MOERT_OK) st = rt_comm_start(&p);
  if (st == MOERT_OK) st = rt_comm_wait(&p);
  snprintf(why, WHY, "%s: %s", moert_status_name(st), moert_error());
  drop(&p);
}

/* The same, going on behind other work when it happens. */
static void fail_behind(MoertComm *c, char *why) {
  const struct timespec nap = {.tv_nsec = 200000000};
  Try t = new_try(MOERT_ALL_REDUCE, MOERT_f32);
  t.in = t.out = 100000;
  RtPending p;
  prepare(c, &t, &p, why);
  p.x.what = "%g: all_reduce at m.dsl:3:4";
  MoertStatus st = rt_comm_start(&p);
  if (st == MOERT_OK) st = rt_comm_behind(c);
  nanosleep(&nap, NULL);
  if (st == MOERT_OK) st = rt_comm_wait(&p);
  snprintf(why, WHY, "%s: %s", moert_status_name(st), moert_error());
  drop(&p);
}

static void rank_1_dies_behind(MoertComm *c, char *why) {
  if (c->rank == 1) raise(SIGKILL);
  fail_behind(c, why);
}

static void rank_1_hangs_behind(MoertComm *c, char *why) {
  if (c->rank == 1 && moert_comm_barrier(c) == MOERT_OK)
    for (;;)
      pause();
  if (moert_comm_barrier(c) == MOERT_OK) fail_behind(c, why);
}

static void rank_1_dies(MoertComm *c, char *why) {
  if (c->rank == 1) raise(SIGKILL);
  fail_with_text(c, why);
}

static void rank_1_hangs(MoertComm *c, char *why) {
  if (c->rank == 1 && moert_comm_barrier(c) == MOERT_OK)
    for (;;)
      pause();
  if (moert_comm_barrier(c) == MOERT_OK) fail_with_text(c, why);
}

static void rank_1_leaves(MoertComm *c, char *why) {
  if (c->rank != 1) fail_with_text(c, why);
}

static void rank_1_fails(MoertComm *c, char *why) {
  if (c->rank == 1)
    moert_comm_fail(c, "no such file");
  else
    fail_with_text(c, why);
}

/* Rank 1 offers what no other can read, as one does that dies just then. */
static void rank_1_is_gone(MoertComm *c, char *why) {
  enum { BYTES = 1 << 20 };
  Try t = new_try(MOERT_ALL_TO_ALL, MOERT_f32);
  t.k.in_rows = t.k.out_rows = 1;
  t.k.in_run = t.k.out_run = BYTES / 4;
  t.in = t.out = t.k.in_run * c->size;
  RtPending p;
  prepare(c, &t, &p, why);
  char *own = p.buffers[0].data;
  size_t all = (size_t)c->size * BYTES;
  char *data =
      mmap(NULL, all, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  p.buffers[0].data = data;
  p.x.what = "%g: all_to_all";
  for (int r = 0; r < c->size; r++)
    if (c->rank == 1 && r != 1) mprotect(data + r * BYTES, BYTES, PROT_NONE);
  MoertStatus st = rt_comm_start(&p);
  if (st == MOERT_OK) st = rt_comm_wait(&p);
  snprintf(why, WHY, "%s: %s", moert_status_name(st), moert_error());
  munmap(data, all);
  p.buffers[0].data = own;
  drop(&p);
}

static void ranks_differ(MoertComm *c, char *why) {
  last_what = "another size";
  fail_with_text(c, why);
}

/* Each text has both. Which ranks say something is up to the case. */
static void check_texts(const char *name, int n, unsigned who, const char *a,
                        const char *b) {
  for (int r = 0; r < n; r++)
    if (who >> r & 1)
      CHECK(name, strstr(whys[r], a) && strstr(whys[r], b), "rank %d: %s", r,
            whys[r]);
}

static void test_trouble(void) {
  const char *where = "a rank is lost: %g: all_reduce at m.dsl:3:4: ";
  layout = (Layout){{{"d", 3}}, 1, 1, {0}};
  double start = seconds_now();
  run_ranks(3, 30, rank_1_dies, 0);
  CHECK("local: a death is noticed early", seconds_now() - start < 20,
        "it took %g s", seconds_now() - start);
  check_texts("local: a rank dies", 3, 5, where, "rank 1 has died");
  run_ranks(3, 1, rank_1_hangs, 2);
  check_texts("local: a rank hangs", 3, 5, where,
              "rank 1 has not come for 1 s; its last exchange was barrier");
  run_ranks(3, 30, rank_1_dies_behind, 0);
  check_texts("local: a rank dies meanwhile", 3, 5, where, "rank 1 has died");
  run_ranks(3, 1, rank_1_hangs_behind, 2);
  check_texts("local: a rank hangs meanwhile", 3, 5, where,
              "rank 1 has not come for 1 s; its last exchange was barrier");
  run_ranks(3, 30, rank_1_leaves, 0);
  check_texts("local: a rank leaves", 3, 5, where,
              "rank 1 has ended before the others");
  run_ranks(3, 30, rank_1_fails, 0);
  check_texts("local: a rank fails", 3, 5, where,
              "rank 1 has failed: no such file");
  run_ranks(3, 1, rank_1_is_gone, 0);
  check_texts("local: a rank is gone while it is read from", 3, 7,
              "a rank is lost: %g: all_to_all: ",
              "has not answered for 1 s");
  run_ranks(3, 30, ranks_differ, 0);
  check_texts("local: ranks differ", 3, 7, where,
              "they do not run the same program");
  last_what = NULL;
}

static void never_run(MoertComm *c, char *why) {
  (void)c;
  snprintf(why, WHY, "it has joined");
}

/* Two seats, one of them never taken. */
static void test_joining(void) {
  MoertLocal *l;
  MoertComm *c;
  CHECK_FAILS("local: no ranks", moert_local_new(0, &l), MOERT_INVALID,
              "between 1 and");
  CHECK_OK("local: new", moert_local_new(2, &l));
  CHECK_FAILS("local: no such rank", moert_local_join(l, 2, 1, &c),
              MOERT_INVALID, "rank 2 of 2");
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) be_rank(l, 0, 0.3, never_run);
  waitpid(pid, NULL, 0);
  CHECK("local: a rank never comes",
        strstr(whys[0], "rank 1 has not started within 0.3 s"), "%s", whys[0]);
  moert_local_free(l);
}

/* No file is behind the memory: nothing can be left of it. */
static void find_files(MoertComm *c, char *why) {
  char line[512];
  FILE *f = fopen("/proc/self/maps", "r");
  (void)c;
  while (f && fgets(line, sizeof line, f))
    if (strstr(line, " rw-s ") && !strstr(line, "/dev/zero (deleted)"))
      snprintf(why, WHY, "%s", line);
  if (f) fclose(f);
}

static void test_no_files(void) {
  run_ranks(2, 30, find_files, 0);
  check_ranks("local: memory without a name", 2);
}

int main(void) {
  whys = mmap(NULL, sizeof(*whys) * MOST_RANKS, PROT_READ | PROT_WRITE,
              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  test_collectives();
  test_more();
  test_rows();
  test_trouble();
  test_joining();
  test_no_files();
  return failures > 0;
}
