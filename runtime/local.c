/* local.c: ranks on one machine, over shared memory.
 *
 * The memory is made before the processes are forked and has no name, so
 * nothing of it is left when the last of them ends, however it ends. Every
 * ordered pair of ranks has a ring of bytes, written by one and read by the
 * other. In an exchange a rank goes round its partners, copies into a ring what
 * fits and out of one what is there, until all has gone and come: large
 * messages flow through in portions, in both directions at once. Each message
 * starts with its length, so that ranks that do not run the same program are
 * told so. What lies side by side and is long does not go through the ring: the
 * message has its address, and the reader fetches it from the other process
 * itself, where the system lets it.
 *
 * A rank that waits and can do nothing looks again for a while, then sleeps
 * until its bell rings. When it wakes up for nothing, it looks for what went
 * wrong: a rank that said so, a process that is no more, a partner that has not
 * moved a byte for `timeout` seconds. What was found is written down once, for
 * all. */
#include "rt.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
  MOST_RANKS = 256,
  CACHE_LINE = 64,
  PORTION = 64 << 10,   /* bytes copied before the next partner's turn */
  LOOKS = 2000,         /* for news, before going to sleep */
  NAP_MS = 20,          /* the longest without looking for what is wrong */
  DIRECT = 128 << 10,   /* bytes that are worth a system call */
  FETCH = 8 << 20,      /* bytes fetched before the next partner's turn */
  GRACE_MS = 300,       /* for the launcher to say how a process ended */
  WHAT = 160, TEXT = 1024
};

/* ---- what is shared ------------------------------------------------------ */

typedef enum SeatState { SEAT_EMPTY, SEAT_TAKEN, SEAT_LEFT } SeatState;

/* Of one rank. `what` is for messages: it may be seen half written. */
typedef struct Seat {
  _Alignas(CACHE_LINE) atomic_uint bell; /* rings when it changes */
  atomic_uint asleep; /* threads of it that are */
  _Alignas(CACHE_LINE) atomic_int state, pid;
  atomic_ullong exchanges; /* begun so far */
  atomic_int fetches;      /* 1: from all others; 2: it may not */
  atomic_bool waiting;     /* in one now */
  char what[WHAT];
} Seat;

typedef struct Ring {
  _Alignas(CACHE_LINE) atomic_ullong head; /* bytes written */
  _Alignas(CACHE_LINE) atomic_ullong tail; /* bytes read */
  atomic_ullong fetched; /* messages that did not go through the ring */
} Ring;

typedef struct Shared {
  int ranks;
  uint64_t ring_bytes; /* a power of 2 */
  atomic_int failing;  /* 0; 1 while the text is written; 2 */
  atomic_int told;     /* one rank has said so */
  int failed_rank;
  char text[TEXT]; /* "rank 2 was killed by signal 9" */
  Seat seats[];
} Shared;

struct MoertLocal {
  Shared *shared;
  size_t bytes;
  Ring *rings; /* from * ranks + to */
  char *data;  /* of the rings, in the same order */
};

/* What goes ahead of a message. */
typedef struct Head {
  uint64_t length, address; /* 0: the bytes follow in the ring */
} Head;
enum { HEAD = sizeof(Head) };

/* A message on its way: where it is in its head and in its bytes. */
typedef struct Message {
  Head head;
  int head_done;    /* bytes of it that have gone */
  uint64_t left;    /* bytes still to go */
  uint64_t fetched; /* of the ring, when it has been fetched; 0: it is not */
} Message;

/* A wait without news. What counts is the time that this rank could run: a
 * machine that stands still makes nobody late. */
typedef struct Watch {
  int looks;
  bool slept;
  double last;  /* when it woke up; 0: not yet */
  double waited;
  double death; /* when a process was seen to be no more; 0: not so */
} Watch;

typedef struct Local {
  MoertLocal *l;
  Message *out, *in; /* by place, of the exchange at work */
  int *pidfd;        /* by rank, -1 where the system has none */
  int looks;
  Watch watch;
  Watch look; /* of waits that are no exchange */
  bool direct; /* every rank may read every other */
} Local;

static size_t round_up(size_t n, size_t to) {
  return (n + to - 1) / to * to;
}

/* Few ranks get long rings, many short ones. */
static uint64_t ring_bytes(int ranks) {
  uint64_t bytes = 256 << 10;
  while (bytes > 16 << 10 && bytes * (uint64_t)(ranks * ranks) > 32 << 20)
    bytes /= 2;
  return bytes;
}

MoertStatus moert_local_new(int ranks, MoertLocal **out) {
  *out = NULL;
  if (ranks < 1 || ranks > MOST_RANKS)
    return rt_fail(MOERT_INVALID, "%d ranks on one machine: between 1 and %d",
                   ranks, MOST_RANKS);
  MoertLocal *l;
  RT_TRY(RT_NEW(&l, 1));
  size_t n = (size_t)ranks * (size_t)ranks, ring = ring_bytes(ranks);
  size_t head = round_up(sizeof(Shared) + (size_t)ranks * sizeof(Seat), 4096);
  size_t rings = round_up(n * sizeof(Ring), 4096);
  l->bytes = head + rings + n * ring;
  char *p = mmap(NULL, l->bytes, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    free(l);
    return rt_fail(MOERT_NO_MEMORY, "no %zu bytes of shared memory: %s",
                   head + rings + n * ring, strerror(errno));
  }
  l->shared = (Shared *)(void *)p;
  l->rings = (Ring *)(void *)(p + head);
  l->data = p + head + rings;
  l->shared->ranks = ranks;
  l->shared->ring_bytes = ring;
  *out = l;
  return MOERT_OK;
}

void moert_local_free(MoertLocal *l) {
  if (!l) return;
  munmap(l->shared, l->bytes);
  free(l);
}

/* ---- bells --------------------------------------------------------------- */

static void ring_bell(Seat *s) {
  atomic_fetch_add(&s->bell, 1);
  if (atomic_load(&s->asleep))
    syscall(SYS_futex, &s->bell, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static void ring_all(Shared *s) {
  for (int r = 0; r < s->ranks; r++)
    ring_bell(&s->seats[r]);
}

static void sleep_until(Seat *s, unsigned seen) {
  struct timespec nap = {.tv_nsec = NAP_MS * 1000000L};
  atomic_fetch_add(&s->asleep, 1);
  if (atomic_load(&s->bell) == seen)
    syscall(SYS_futex, &s->bell, FUTEX_WAIT, seen, &nap, NULL, 0);
  atomic_fetch_sub(&s->asleep, 1);
}

/* ---- what went wrong ----------------------------------------------------- */

/* Writes down what happened to a rank, where nothing is yet. */
static bool note_failure(Shared *s, int rank, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
static bool note_failure(Shared *s, int rank, const char *fmt, ...) {
  int none = 0;
  if (!atomic_compare_exchange_strong(&s->failing, &none, 1)) return false;
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(s->text, sizeof s->text, fmt, ap);
  va_end(ap);
  s->failed_rank = rank;
  atomic_store(&s->failing, 2);
  ring_all(s);
  return true;
}

/* Waits for the text where another rank is writing it. */
static bool has_failed(Shared *s) {
  const struct timespec nap = {.tv_nsec = 1000000};
  if (atomic_load(&s->failing) == 0) return false;
  for (int i = 0; i < GRACE_MS && atomic_load(&s->failing) == 1; i++)
    nanosleep(&nap, NULL); /* it may have been killed just then */
  return true;
}

static MoertStatus lost(Shared *s, const char *what) {
  has_failed(s);
  return rt_fail(MOERT_RANK_LOST, "%s: %s", what,
                 atomic_load(&s->failing) == 2 ? s->text : "a rank is lost");
}

void moert_local_lost(MoertLocal *l, int rank, const char *how) {
  note_failure(l->shared, rank, "rank %d %s", rank, how);
}

int moert_local_told(const MoertLocal *l) {
  return atomic_load(&l->shared->told) != 0;
}

/* What only repeats another's failure, or tells of a lost rank again, says
 * nothing new. */
static int local_fail(MoertComm *c, const char *text) {
  Shared *s = ((Local *)c->state)->l->shared;
  char whole[TEXT];
  snprintf(whole, sizeof whole, "rank %d has failed: %s", c->rank, text);
  if (note_failure(s, c->rank, "%s", whole)) {
    atomic_store(&s->told, 1);
    return 1;
  }
  const char *other = strstr(s->text, "failed: ");
  if (other && strstr(text, other + strlen("failed: "))) return 0;
  return !strstr(text, s->text) || !atomic_exchange(&s->told, 1);
}

/* A process that is no more and has not said good-bye; -1: none. */
static int find_dead(const MoertComm *c) {
  const Local *t = c->state;
  for (int r = 0; r < c->size; r++) {
    struct pollfd p = {.fd = t->pidfd[r], .events = POLLIN};
    if (r == c->rank || t->pidfd[r] < 0) continue;
    if (poll(&p, 1, 0) > 0) return r;
  }
  return -1;
}

static Ring *ring_of(const Local *t, int from, int to) {
  return &t->l->rings[(size_t)from * (size_t)t->l->shared->ranks + (size_t)to];
}

/* Whether anything is still to go to a rank, or to come from it. */
static bool is_open(const Local *t, const RtExchange *x, int place) {
  const Message *in = &t->in[place], *out = &t->out[place];
  const Ring *ring = ring_of(t, x->ranks[x->me], x->ranks[place]);
  return in->left || in->head_done < HEAD || out->left ||
         out->head_done < HEAD || atomic_load(&ring->fetched) < out->fetched;
}

/* Whom to blame: of the group, who has begun the fewest exchanges; among
 * equals one that does not wait itself, and that we wait for. */
static int find_slowest(const MoertComm *c, const RtExchange *x) {
  const Local *t = c->state;
  const Seat *seats = t->l->shared->seats;
  int slowest = -1;
  unsigned long long best = 0;
  for (int i = 0; i < x->n; i++) {
    const Seat *s = &seats[x->ranks[i]];
    if (i == x->me) continue;
    unsigned long long rank_of = atomic_load(&s->exchanges) * 4 +
                                 (atomic_load(&s->waiting) ? 2 : 0) +
                                 (is_open(t, x, i) ? 0 : 1);
    if (slowest < 0 || rank_of < best) {
      slowest = x->ranks[i];
      best = rank_of;
    }
  }
  return slowest;
}

static void note_timeout(const MoertComm *c, const RtExchange *x) {
  Shared *s = ((Local *)c->state)->l->shared;
  int r = find_slowest(c, x);
  const Seat *seat = &s->seats[r];
  char what[WHAT];
  snprintf(what, sizeof what, "%s", seat->what);
  if (atomic_load(&seat->waiting))
    note_failure(s, r, "rank %d has not answered for %g s; it waits in %s", r,
                 c->timeout, what);
  else
    note_failure(s, r, "rank %d has not come for %g s; %s%s", r, c->timeout,
                 what[0] ? "its last exchange was " : "it has had no exchange",
                 what);
}

/* Whether a process that is no more has been so for a while: then it is written
 * down. */
static bool note_death(const MoertComm *c, Watch *w, int dead, double now) {
  Shared *s = ((Local *)c->state)->l->shared;
  if (dead < 0) w->death = 0;
  if (dead >= 0 && w->death == 0) w->death = now;
  if (dead < 0 || now - w->death <= GRACE_MS / 1e3) return false;
  note_failure(s, dead, atomic_load(&s->seats[dead].state) == SEAT_LEFT
                            ? "rank %d has ended before the others"
                            : "rank %d has died", dead);
  return true;
}

/* After some time without news: whether there will be any. */
static MoertStatus look_for_trouble(MoertComm *c, const RtExchange *x,
                                    Watch *w) {
  Shared *s = ((Local *)c->state)->l->shared;
  double t = rt_seconds(), nap = t - w->last, most = 5 * NAP_MS / 1e3;
  if (has_failed(s)) return lost(s, x->what);
  if (w->last > 0 && nap < NAP_MS / 2e3) return MOERT_OK;
  if (w->last > 0) w->waited += nap < most ? nap : most;
  w->last = t;
  if (!note_death(c, w, find_dead(c), t) && w->waited > c->timeout)
    note_timeout(c, x);
  return has_failed(s) ? lost(s, x->what) : MOERT_OK;
}

/* ---- moving bytes -------------------------------------------------------- */

/* Bytes [at, at + n) of a ring lie side by side up to its end. */
static uint64_t side_by_side(uint64_t at, uint64_t n, uint64_t size) {
  uint64_t to_end = size - (at & (size - 1));
  return n < to_end ? n : to_end;
}

static bool push(const Local *t, int from, int to, Message *m, RtStream *s) {
  const Shared *sh = t->l->shared;
  size_t i = (size_t)from * (size_t)sh->ranks + (size_t)to;
  Ring *ring = ring_of(t, from, to);
  char *data = t->l->data + i * sh->ring_bytes;
  uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
  uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
  uint64_t room = sh->ring_bytes - (head - tail), moved = 0;
  while (m->head_done < HEAD && room > moved) {
    data[(head + moved++) & (sh->ring_bytes - 1)] =
        ((const char *)&m->head)[m->head_done++];
  }
  uint64_t limit = moved + PORTION < room ? moved + PORTION : room;
  while (m->head_done == HEAD && m->left && moved < limit) {
    uint64_t at = head + moved;
    uint64_t n = side_by_side(at, limit - moved, sh->ring_bytes);
    n = (uint64_t)rt_stream_read(s, data + (at & (sh->ring_bytes - 1)),
                                 (int64_t)(n < m->left ? n : m->left));
    m->left -= n;
    moved += n;
  }
  if (moved)
    atomic_store_explicit(&ring->head, head + moved, memory_order_release);
  return moved > 0;
}

/* Reads the next bytes of a message where the other process has them. False,
 * and the stream as it was, where it can't: a process that is no more is seen
 * to by whoever waits. */
static bool fetch(const Local *t, int from, Ring *ring, Message *m,
                  RtStream *s) {
  enum { MOST = 64 };
  struct iovec to[MOST];
  const RtStream before = *s;
  int n = 0;
  uint64_t bytes = 0;
  char *at;
  while (n < MOST && bytes < FETCH) {
    int64_t part = rt_stream_take(s, &at, (int64_t)(FETCH - bytes));
    if (part == 0) break;
    to[n++] = (struct iovec){at, (size_t)part};
    bytes += (uint64_t)part;
  }
  uint64_t done = m->head.length - m->left;
  struct iovec there = {(void *)(uintptr_t)(m->head.address + done), bytes};
  pid_t pid = atomic_load(&t->l->shared->seats[from].pid);
  if (process_vm_readv(pid, to, (unsigned long)n, &there, 1, 0) !=
      (ssize_t)bytes) {
    *s = before;
    return false;
  }
  m->left -= bytes;
  if (m->left == 0) atomic_fetch_add(&ring->fetched, 1);
  return true;
}

static bool pull(const Local *t, int from, int to, Message *m, RtStream *s) {
  const Shared *sh = t->l->shared;
  size_t i = (size_t)from * (size_t)sh->ranks + (size_t)to;
  Ring *ring = ring_of(t, from, to);
  const char *data = t->l->data + i * sh->ring_bytes;
  uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
  uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
  uint64_t there = head - tail, moved = 0;
  while (m->head_done < HEAD && there > moved)
    ((char *)&m->head)[m->head_done++] =
        data[(tail + moved++) & (sh->ring_bytes - 1)];
  uint64_t limit = moved + PORTION < there ? moved + PORTION : there;
  bool as_expected = m->head.length == (uint64_t)s->total;
  bool here = as_expected && !m->head.address;
  while (m->head_done == HEAD && here && m->left && moved < limit) {
    uint64_t at = tail + moved;
    uint64_t n = side_by_side(at, limit - moved, sh->ring_bytes);
    n = (uint64_t)rt_stream_write(s, data + (at & (sh->ring_bytes - 1)),
                                  (int64_t)(n < m->left ? n : m->left));
    m->left -= n;
    moved += n;
  }
  if (moved)
    atomic_store_explicit(&ring->tail, tail + moved, memory_order_release);
  bool there_too = as_expected && m->head_done == HEAD && m->head.address;
  return (there_too && m->left && fetch(t, from, ring, m, s)) || moved > 0;
}

static MoertStatus check_length(const MoertComm *c, const RtExchange *x,
                                int place) {
  const Local *t = c->state;
  const Message *m = &t->in[place];
  if (m->head_done < HEAD || m->head.length == (uint64_t)x->recv[place].total)
    return MOERT_OK;
  note_failure(t->l->shared, c->rank,
               "rank %d sends %llu bytes where rank %d expects %lld: they do "
               "not run the same program",
               x->ranks[place], (unsigned long long)m->head.length, c->rank,
               (long long)x->recv[place].total);
  return lost(t->l->shared, x->what);
}

static bool push_to(const MoertComm *c, RtExchange *x, int place) {
  const Local *t = c->state;
  int to = x->ranks[place];
  if (!push(t, c->rank, to, &t->out[place], &x->send[place])) return false;
  ring_bell(&t->l->shared->seats[to]);
  return true;
}

/* One go round all partners. */
static MoertStatus go_round(MoertComm *c, RtExchange *x, bool *moved,
                            bool *open) {
  Local *t = c->state;
  *moved = *open = false;
  for (int k = 1; k < x->n; k++) {
    int to = (x->me + k) % x->n, from = (x->me + x->n - k) % x->n;
    if (push_to(c, x, to)) *moved = true;
    if (pull(t, x->ranks[from], c->rank, &t->in[from], &x->recv[from])) {
      *moved = true;
      ring_bell(&t->l->shared->seats[x->ranks[from]]);
    }
    RT_TRY(check_length(c, x, from));
  }
  for (int i = 0; i < x->n; i++)
    if (i != x->me && is_open(t, x, i)) *open = true;
  return MOERT_OK;
}

/* ---- the transport ------------------------------------------------------- */

static MoertStatus local_start(MoertComm *c, RtExchange *x) {
  Local *t = c->state;
  Seat *me = &t->l->shared->seats[c->rank];
  for (int i = 0; i < x->n; i++) {
    const RtStream *s = &x->send[i];
    Message *m = &t->out[i];
    *m = (Message){.head.length = (uint64_t)s->total};
    t->in[i] = (Message){.left = (uint64_t)x->recv[i].total};
    bool plain = s->n == 1 && s->runs[0].count == 1;
    if (t->direct && plain && s->total >= DIRECT) {
      m->head.address = (uint64_t)(uintptr_t)s->runs[0].data;
      m->fetched =
          atomic_load(&ring_of(t, c->rank, x->ranks[i])->fetched) + 1;
    } else {
      m->left = (uint64_t)s->total;
    }
  }
  snprintf(me->what, sizeof me->what, "%s", x->what);
  atomic_store(&me->waiting, true);
  atomic_fetch_add(&me->exchanges, 1);
  t->watch = (Watch){0};
  for (int k = 1; k < x->n; k++)
    push_to(c, x, (x->me + k) % x->n);
  return MOERT_OK;
}

static MoertStatus local_move(MoertComm *c, RtExchange *x, RtMoved *out) {
  Local *t = c->state;
  Seat *me = &t->l->shared->seats[c->rank];
  bool moved, open;
  c->news = atomic_load(&me->bell);
  RT_TRY(go_round(c, x, &moved, &open));
  if (moved) t->watch = (Watch){0};
  if (!open) atomic_store(&me->waiting, false);
  *out = !open ? RT_DONE : moved ? RT_MOVED : RT_NOTHING;
  return MOERT_OK;
}

static void local_nap(MoertComm *c, unsigned news) {
  sleep_until(&((Local *)c->state)->l->shared->seats[c->rank], news);
}

/* What has come is taken before anything is wrong. */
static MoertStatus local_rest(MoertComm *c, RtExchange *x) {
  Local *t = c->state;
  Watch *w = &t->watch;
  if (w->looks++ < t->looks) {
    __builtin_ia32_pause();
    return MOERT_OK;
  }
  if (w->slept) RT_TRY(look_for_trouble(c, x, w));
  local_nap(c, c->news);
  w->slept = true;
  return MOERT_OK;
}

/* A death counts when it has been seen for a while: the launcher may say how
 * it came. */
static MoertStatus local_look(MoertComm *c, const char *what) {
  Local *t = c->state;
  int dead = has_failed(t->l->shared) ? -1 : find_dead(c);
  note_death(c, &t->look, dead, rt_seconds());
  return has_failed(t->l->shared) ? lost(t->l->shared, what) : MOERT_OK;
}

static void local_close(MoertComm *c) {
  Local *t = c->state;
  Shared *s = t->l->shared;
  atomic_store(&s->seats[c->rank].state, SEAT_LEFT);
  ring_all(s);
  for (int r = 0; t->pidfd && r < c->size; r++)
    if (t->pidfd[r] >= 0) close(t->pidfd[r]);
  free(t->pidfd);
  free(t->in);
  free(t->out);
  free(t);
  free(c);
}

static const RtTransport transport = {local_start, local_move, local_rest,
                                      local_nap,   local_fail, local_close,
                                      local_look};

/* ---- joining ------------------------------------------------------------- */

/* Waits for a rank to set a word of its seat. */
static MoertStatus wait_for(MoertComm *c, int r, atomic_int *word) {
  Shared *s = ((Local *)c->state)->l->shared;
  Seat *me = &s->seats[c->rank];
  double start = rt_seconds();
  for (;;) {
    unsigned bell = atomic_load(&me->bell);
    if (atomic_load(word)) return MOERT_OK;
    if (has_failed(s)) return lost(s, "joining");
    if (rt_seconds() - start > c->timeout) {
      note_failure(s, r, "rank %d has not started within %g s", r, c->timeout);
      return lost(s, "joining");
    }
    sleep_until(me, bell);
  }
}

/* Whether this rank may read the memory of all others; all must. The shared
 * memory is at the same address in each. */
static MoertStatus agree_on_fetching(MoertComm *c) {
  Local *t = c->state;
  Shared *s = t->l->shared;
  bool may = true;
  for (int r = 0; r < c->size && may; r++) {
    int ranks = 0;
    struct iovec to = {&ranks, sizeof ranks}, from = {&s->ranks, sizeof ranks};
    may = process_vm_readv(atomic_load(&s->seats[r].pid), &to, 1, &from, 1,
                           0) == (ssize_t)sizeof ranks;
  }
  atomic_store(&s->seats[c->rank].fetches, may ? 1 : 2);
  ring_all(s);
  t->direct = true;
  for (int r = 0; r < c->size; r++) {
    RT_TRY(wait_for(c, r, &s->seats[r].fetches));
    t->direct = t->direct && atomic_load(&s->seats[r].fetches) == 1;
  }
  return MOERT_OK;
}

static MoertStatus take_seat(MoertComm *c) {
  Local *t = c->state;
  Shared *s = t->l->shared;
  Seat *me = &s->seats[c->rank];
  RT_TRY(RT_NEW(&t->in, c->size));
  RT_TRY(RT_NEW(&t->out, c->size));
  RT_TRY(RT_NEW(&t->pidfd, c->size));
  for (int r = 0; r < c->size; r++)
    t->pidfd[r] = -1;
  int empty = SEAT_EMPTY;
  atomic_store(&me->pid, (int)getpid());
  if (!atomic_compare_exchange_strong(&me->state, &empty, SEAT_TAKEN))
    return rt_fail(MOERT_INVALID, "rank %d has joined before", c->rank);
  ring_all(s);
  for (int r = 0; r < c->size; r++)
    RT_TRY(wait_for(c, r, &s->seats[r].state));
  for (int r = 0; r < c->size; r++) /* -1 where the system has no such thing */
    if (r != c->rank)
      t->pidfd[r] = (int)syscall(SYS_pidfd_open,
                                 atomic_load(&s->seats[r].pid), 0);
  return agree_on_fetching(c);
}

MoertStatus moert_local_join(MoertLocal *l, int rank, double timeout,
                             MoertComm **out) {
  *out = NULL;
  int ranks = l->shared->ranks;
  if (rank < 0 || rank >= ranks)
    return rt_fail(MOERT_INVALID, "rank %d of %d", rank, ranks);
  MoertComm *c;
  Local *t;
  RT_TRY(RT_NEW(&c, 1));
  MoertStatus st = RT_NEW(&t, 1);
  if (st != MOERT_OK) {
    free(c);
    return st;
  }
  *c = (MoertComm){.transport = &transport, .rank = rank, .size = ranks,
                   .timeout = timeout > 0 ? timeout : RT_TIMEOUT, .state = t,
                   .may_help = true};
  t->l = l;
  t->looks = ranks <= rt_cpu_cores() ? LOOKS : 0;
  st = rt_queue_new(c);
  if (st == MOERT_OK) st = take_seat(c);
  if (st == MOERT_OK)
    *out = c;
  else
    moert_comm_close(c);
  return st;
}
