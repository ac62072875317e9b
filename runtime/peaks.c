/* peaks.c: what this machine reaches at best, as a measure for a model: the
 * rate of a large matrix product by dtype, and that of a large copy.
 *
 * Products go through gemm.c, as those of models do. Their size grows until a
 * product takes long enough to be timed well; the best rate of all counts. The
 * copy is of more than caches hold; every thread copies a part of its own. */
#include "rt.h"

#include <stdlib.h>
#include <string.h>

enum { LEAST_SIZE = 256, MOST_SIZE = 4096, LEAST_RUNS = 3, MOST_RUNS = 40 };
#define COPY_BYTES ((int64_t)512 << 20)
static const double long_enough = 5e-3; /* seconds of one product */
static const double patience = 0.5;     /* seconds in all at one size */

/* Something to time: seconds of the fastest of some runs. */
typedef MoertStatus Timed(void *user);
static MoertStatus fastest(Timed *run, void *user, double *out_seconds) {
  double begin = rt_seconds(), best = 0;
  RT_TRY(run(user)); /* pages, caches, the team */
  for (int i = 0; i < LEAST_RUNS ||
                  (i < MOST_RUNS && rt_seconds() - begin < patience); i++) {
    double start = rt_seconds();
    RT_TRY(run(user));
    double seconds = rt_seconds() - start;
    if (i == 0 || seconds < best) best = seconds;
  }
  *out_seconds = best;
  return MOERT_OK;
}

/* ---- products ------------------------------------------------------------ */

typedef struct Product {
  RtGemms gemms;
  RtGemm *gemm;
  void *args[3], *scratchpad;
  int threads;
} Product;

static MoertStatus multiply(void *user) {
  Product *p = user;
  return rt_gemm_run(&p->gemms, p->gemm, p->args, p->scratchpad, p->threads);
}

/* Of two square matrices of `dtype` with `size` rows. */
static MoertStatus time_product(int dtype, int64_t size, int threads,
                                double *out_seconds) {
  Product p = {.threads = threads};
  RtMem mem = {0};
  int c_dtype = rt_dtype[dtype].sums;
  MoertGemm shape = {1, size, size, size, {0, size, 1}, {0, size, 1},
                     {0, size, 1}, dtype, c_dtype, 0};
  MoertStatus st = rt_gemm_get(&p.gemms, &shape, &p.gemm);
  for (int i = 0; i < 3 && st == MOERT_OK; i++)
    st = rt_mem_new(&mem, size * size * rt_dtype[i < 2 ? dtype : c_dtype].bytes,
                    false, &p.args[i]);
  if (st == MOERT_OK)
    st = rt_mem_new(&mem, p.gemms.scratchpad_bytes, false, &p.scratchpad);
  if (st == MOERT_OK) st = fastest(multiply, &p, out_seconds);
  rt_mem_free(&mem);
  rt_gemms_free(&p.gemms);
  return st;
}

static MoertStatus product_rate(int dtype, int threads, double *out) {
  for (int64_t size = LEAST_SIZE; size <= MOST_SIZE; size *= 2) {
    double seconds = 0, n = (double)size;
    RT_TRY(time_product(dtype, size, threads, &seconds));
    double rate = 2 * n * n * n / seconds;
    if (rate > *out) *out = rate;
    if (seconds > 4 * long_enough) break; /* eight times as long: no sooner */
  }
  return MOERT_OK;
}

/* ---- the copy ------------------------------------------------------------ */

typedef struct Copy {
  void *from, *to;
  int threads;
} Copy;

static MoertStatus copy(void *user) {
  Copy *c = user;
  int64_t part = COPY_BYTES / c->threads;
#pragma omp parallel for num_threads(c->threads) schedule(static)
  for (int i = 0; i < c->threads; i++)
    memcpy((char *)c->to + i * part, (char *)c->from + i * part, (size_t)part);
  return MOERT_OK;
}

static MoertStatus copy_rate(int threads, double *out) {
  Copy c = {.threads = threads};
  RtMem mem = {0};
  double seconds = 0;
  MoertStatus st = rt_mem_check(2 * COPY_BYTES);
  if (st == MOERT_OK) st = rt_mem_new(&mem, COPY_BYTES, false, &c.from);
  if (st == MOERT_OK) st = rt_mem_new(&mem, COPY_BYTES, false, &c.to);
  if (st == MOERT_OK) st = fastest(copy, &c, &seconds);
  if (st == MOERT_OK) *out = 2 * (double)COPY_BYTES / seconds;
  rt_mem_free(&mem);
  return st;
}

/* ---- for programs -------------------------------------------------------- */

MoertStatus moert_peak_flops(const MoertSession *s, int dtype, double *out) {
  *out = 0;
  if (dtype < 0 || dtype >= MOERT_DTYPE_COUNT ||
      rt_dtype[dtype].kind != RT_FLOAT)
    return rt_fail(MOERT_INVALID, "there are no products of dtype %d", dtype);
  RtTeam before = rt_team_enter(s->threads);
  MoertStatus st = product_rate(dtype, s->threads, out);
  rt_team_leave(before);
  return st;
}

MoertStatus moert_peak_copy(const MoertSession *s, double *out) {
  *out = 0;
  RtTeam before = rt_team_enter(s->threads);
  MoertStatus st = copy_rate(s->threads, out);
  rt_team_leave(before);
  return st;
}
