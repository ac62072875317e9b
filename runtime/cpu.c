/* cpu.c: the thread team, and the clock.
 *
 * The runtime alone owns it: OpenMP's team, the one that oneDNN uses too,
 * always of one size. libgomp ends and restarts threads when a region asks for
 * fewer than the last one had, so no region here asks for fewer, even when it
 * has fewer chunks than threads. */
#include "rt.h"

#include <omp.h>
#include <sched.h>
#include <time.h>

double rt_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The processor time that a container may use, in cores; 0 for no limit. */
static int quota(void) {
  FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
  long long time = 0, period = 0;
  if (!f) return 0;
  int got = fscanf(f, "%lld %lld", &time, &period); /* "max ..." is no limit */
  fclose(f);
  return got == 2 && period > 0 ? (int)((time + period - 1) / period) : 0;
}

int rt_cpu_cores(void) {
  cpu_set_t set;
  int n = omp_get_num_procs(), limit = quota();
  if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
  if (limit > 0 && limit < n) n = limit;
  return n > 0 ? n : 1;
}

int rt_cpu_share(int neighbours) {
  int cores = rt_cpu_cores();
  if (neighbours <= 1) return cores;
  return cores > neighbours ? cores / neighbours : 1;
}

RtTeam rt_team_enter(int threads) {
  RtTeam before = {omp_get_max_threads(), omp_get_dynamic()};
  omp_set_dynamic(0);
  omp_set_num_threads(threads);
  return before;
}

void rt_team_leave(RtTeam before) {
  omp_set_num_threads(before.threads);
  omp_set_dynamic(before.dynamic);
}

int rt_team_member(void) {
  return omp_get_thread_num();
}

void rt_team_wait(void) {
#pragma omp barrier
}

void rt_team_share(int64_t n, int64_t *out_lo, int64_t *out_hi) {
  int64_t threads = omp_get_num_threads(), me = omp_get_thread_num();
  int64_t each = n / threads, more = n % threads;
  *out_lo = each * me + (me < more ? me : more);
  *out_hi = *out_lo + each + (me < more);
}

static void run_chunk(const MoertStage *g, int64_t chunk, void *const *args,
                      void *scratch, void *workspace) {
  int64_t lo = chunk * g->grain;
  int64_t hi = g->count - lo < g->grain ? g->count : lo + g->grain;
  g->body(args, lo, hi, scratch, workspace);
}

/* The part of `scratch` that is this thread's. */
static char *own(char *scratch, int64_t stride) {
  return stride ? scratch + omp_get_thread_num() * stride : scratch;
}

static int64_t chunks_of(const MoertStage *g) {
  return g->count / g->grain + (g->count % g->grain != 0);
}

void rt_run_share(const MoertStage *g, void *const *args, char *scratch,
                  int64_t scratch_stride, void *workspace) {
  int64_t chunks = chunks_of(g), lo, hi, step = 1;
  rt_team_share(chunks, &lo, &hi);
  if (g->uneven) { /* in turn, as cards are dealt */
    lo = omp_get_thread_num();
    hi = chunks;
    step = omp_get_num_threads();
  }
  for (int64_t i = lo; i < hi; i += step)
    run_chunk(g, i, args, own(scratch, scratch_stride), workspace);
}

void rt_run_stage(const MoertStage *g, int threads, void *const *args,
                  char *scratch, int64_t scratch_stride, void *workspace) {
  int64_t chunks = chunks_of(g);
  if (chunks <= 1 || threads == 1) {
    for (int64_t i = 0; i < chunks; i++)
      run_chunk(g, i, args, scratch, workspace);
  } else if (g->uneven) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t i = 0; i < chunks; i++)
      run_chunk(g, i, args, own(scratch, scratch_stride), workspace);
  } else {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < chunks; i++)
      run_chunk(g, i, args, own(scratch, scratch_stride), workspace);
  }
}
