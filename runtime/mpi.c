/* mpi.c: ranks started by mpirun or srun.
 *
 * MPI is a plug-in, so that this library starts where there is none: a library
 * beside it, loaded when it is asked for, which alone knows MPI's headers. The
 * messages are those of comm.c, point to point, so sums are the same as over
 * shared memory, bit for bit. What MPI does not do is done here: to notice a
 * rank that does not answer. */
#include "rt.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct MpiState {
  void *library;
  const RtMpi *mpi;
  bool failed, crowded;
  int looks; /* without news, and the time of that */
  double last, waited;
  double cpu; /* this thread's time at `last` */
  int naps;   /* to take before looks to come: others want this core */
} MpiState;

static MoertStatus lost(MoertComm *c, const RtExchange *x, const char *why) {
  ((MpiState *)c->state)->failed = true;
  return rt_fail(MOERT_RANK_LOST, "%s: %s", x->what, why);
}

static MoertStatus mpi_start(MoertComm *c, RtExchange *x) {
  char why[RT_WHY];
  const RtMpi *mpi = ((MpiState *)c->state)->mpi;
  return mpi->start(x, why) ? MOERT_OK : lost(c, x, why);
}

static MoertStatus mpi_move(MoertComm *c, RtExchange *x, RtMoved *out) {
  static const RtMoved moved[] = {[RT_MPI_NOTHING] = RT_NOTHING,
                                  [RT_MPI_MOVED] = RT_MOVED,
                                  [RT_MPI_DONE] = RT_DONE};
  MpiState *s = c->state;
  char why[RT_WHY];
  int got = s->mpi->test(x, why);
  if (got == RT_MPI_FAILED) return lost(c, x, why);
  *out = moved[got];
  if (*out != RT_NOTHING) s->last = s->waited = 0;
  return MOERT_OK;
}

/* MPI has no bell. */
static void mpi_nap(MoertComm *c, unsigned news) {
  const struct timespec nap = {.tv_nsec = 200000};
  (void)c, (void)news;
  nanosleep(&nap, NULL);
}

static double cpu_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Who looks all the time keeps others from what is waited for, where there are
 * more who want to run than cores: seen by how little of the time is ours. */
static void look_at_time(MpiState *s) {
  enum { NAPS = 2000 };
  double t = rt_seconds(), step = t - s->last, cpu = cpu_seconds();
  if (s->last > 0) {
    /* A machine may stand still: only time that this rank could run counts. */
    s->waited += step < 0.1 ? step : 0.1;
    if (!s->naps && step > 1e-3 && cpu - s->cpu < step / 2) s->naps = NAPS;
  }
  s->last = t;
  s->cpu = cpu;
}

static MoertStatus mpi_rest(MoertComm *c, RtExchange *x) {
  enum { LOOKS = 1000 };
  MpiState *s = c->state;
  char why[RT_WHY];
  bool nap = s->naps > 0;
  if (nap && s->naps--)
    mpi_nap(c, 0);
  else if (s->crowded)
    sched_yield();
  if (s->looks++ % LOOKS && !nap) return MOERT_OK;
  look_at_time(s);
  if (s->waited < c->timeout) return MOERT_OK;
  snprintf(why, sizeof why, "rank %d has not answered for %g s",
           x->ranks[s->mpi->missing(x)], c->timeout);
  return lost(c, x, why);
}

static int mpi_fail(MoertComm *c, const char *text) {
  MpiState *s = c->state;
  bool lost = s->failed; /* or it has said so before */
  s->failed = true;
  return s->mpi->tell(text, lost);
}

/* After a failure the others may wait for ever: only to end without a good-bye
 * tells mpirun to end them. */
static void mpi_close(MoertComm *c) {
  MpiState *s = c->state;
  if (!s->failed) s->mpi->close();
  free(s);
  free(c);
}

/* mpirun and srun end all ranks when one has died. */
static const RtTransport transport = {mpi_start, mpi_move, mpi_rest, mpi_nap,
                                      mpi_fail,  mpi_close, NULL};

/* ---- loading ------------------------------------------------------------- */

/* The plug-in's path: beside the library or program that this code is in. */
static void plugin_path(char *path, size_t bytes) {
  Dl_info info;
  const char *own =
      dladdr((const void *)&transport, &info) ? info.dli_fname : "";
  const char *slash = strrchr(own, '/');
  snprintf(path, bytes, "%.*slibmoert-mpi.so",
           slash ? (int)(slash - own) + 1 : 0, own);
}

static MoertStatus open_plugin(int flags, void **out) {
  char path[4096];
  plugin_path(path, sizeof path);
  *out = dlopen(path, RTLD_NOW | flags);
  if (*out) return MOERT_OK;
  return rt_fail(MOERT_UNSUPPORTED,
                 "no MPI: %s; a build with MPI's headers (Debian: "
                 "libopenmpi-dev) has it",
                 dlerror());
}

MoertStatus rt_mpi_check(void) {
  void *library;
  RT_TRY(open_plugin(RTLD_LOCAL, &library));
  dlclose(library);
  return MOERT_OK;
}

static MoertStatus load(MpiState *s) {
  /* MPI's own plug-ins look for its symbols among all: global. */
  RT_TRY(open_plugin(RTLD_GLOBAL, &s->library));
  s->mpi = dlsym(s->library, "moert_mpi");
  if (s->mpi && s->mpi->version == RT_MPI_VERSION) return MOERT_OK;
  return rt_fail(MOERT_UNSUPPORTED, "libmoert-mpi.so is of another version");
}

MoertStatus moert_mpi_open(double timeout, MoertComm **out) {
  *out = NULL;
  MoertComm *c;
  MpiState *s;
  char why[RT_WHY];
  RT_TRY(RT_NEW(&c, 1));
  MoertStatus st = RT_NEW(&s, 1);
  if (st == MOERT_OK) st = load(s);
  if (st == MOERT_OK) st = rt_queue_new(c);
  if (st == MOERT_OK && !s->mpi->open(&c->rank, &c->size, &s->crowded,
                                      &c->may_help, &c->far, why))
    st = rt_fail(MOERT_UNSUPPORTED, "MPI does not start: %s", why);
  if (st != MOERT_OK) {
    free(s);
    rt_queue_free(c);
    free(c);
    return st;
  }
  c->transport = &transport;
  c->timeout = timeout > 0 ? timeout : RT_TIMEOUT;
  c->state = s;
  *out = c;
  return MOERT_OK;
}
