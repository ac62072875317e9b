/* peaks.c: what this machine can keep up at best, as a measure for a model: the
 * rate of a matrix product by dtype, and that of a large copy.
 *
 * A rate is that of many runs one after the other, all of their time counted,
 * as a step's is: the best of short runs tells of a lucky moment, in which
 * cores run faster than they can stay or neighbours on a shared machine rest.
 * Products go through gemm.c, as those of models do. Their size grows until one
 * takes long; the size of the best rate counts. They are of random numbers:
 * where power is what limits a machine, it multiplies zeros up to a third
 * faster, but no model does. The copy is of more than caches hold; every thread
 * copies a part of its own. */
#include "rt.h"

#include <stdlib.h>
#include <string.h>

enum { LEAST_SIZE = 512, MOST_SIZE = 16384, LEAST_RUNS = 3 };
static const double long_enough = 20e-3; /* seconds of one product */
static const double patience = 0.25;     /* seconds in all at one size */

MoertStatus rt_steady(RtTimed *run, void *user, double *out_seconds) {
  RT_TRY(run(user)); /* pages, caches, the team */
  double begin = rt_seconds(), all = 0;
  int64_t runs = 0;
  for (; runs < LEAST_RUNS || all < patience; runs++) {
    RT_TRY(run(user));
    all = rt_seconds() - begin;
  }
  *out_seconds = all / (double)runs;
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

MoertGemm rt_square_product(int dtype, int64_t size) {
  return (MoertGemm){1, size, size, size, {0, size, 1}, {0, size, 1},
                     {0, size, 1}, dtype, rt_dtype[dtype].sums, 0, 0};
}

/* All threads write: cores that rest before would be faster than they can stay.
 */
void rt_fill_random(int dtype, char *to, int64_t n, int threads) {
  int64_t bytes = rt_dtype[dtype].bytes;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < n; i++) {
    uint32_t bits = (uint32_t)i * 2654435761u;
    bits = (bits ^ bits >> 15) * 2246822519u;
    rt_store(dtype, to + i * bytes, (int32_t)bits * 0x1p-31);
  }
}

MoertStatus rt_cpu_time_product(const MoertSession *s, int dtype, int64_t size,
                                double *out_seconds) {
  Product p = {.threads = s->threads};
  RtMem mem = {0};
  MoertGemm shape = rt_square_product(dtype, size);
  int c_dtype = shape.c_dtype;
  MoertStatus st = rt_gemm_get(&p.gemms, &shape, &p.gemm);
  for (int i = 0; i < 3 && st == MOERT_OK; i++)
    st = rt_mem_new(&mem, size * size * rt_dtype[i < 2 ? dtype : c_dtype].bytes,
                    false, &p.args[i]);
  for (int i = 0; i < 2 && st == MOERT_OK; i++)
    rt_fill_random(dtype, p.args[i], size * size, p.threads);
  if (st == MOERT_OK)
    st = rt_mem_new(&mem, p.gemms.scratchpad_bytes, false, &p.scratchpad);
  if (st == MOERT_OK) st = rt_steady(multiply, &p, out_seconds);
  rt_mem_free(&mem);
  rt_gemms_free(&p.gemms);
  return st;
}

static MoertStatus product_rate(const MoertSession *s, int dtype,
                                double *out) {
  for (int64_t size = LEAST_SIZE; size <= MOST_SIZE; size *= 2) {
    double seconds = 0, n = (double)size;
    RT_TRY(s->device->time_product(s, dtype, size, &seconds));
    double rate = 2 * n * n * n / seconds;
    if (rate > *out) *out = rate;
    if (seconds > long_enough) break;
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
  int64_t part = RT_COPY_BYTES / c->threads;
#pragma omp parallel for num_threads(c->threads) schedule(static)
  for (int i = 0; i < c->threads; i++)
    memcpy((char *)c->to + i * part, (char *)c->from + i * part, (size_t)part);
  return MOERT_OK;
}

MoertStatus rt_cpu_time_copy(const MoertSession *s, double *out_seconds) {
  Copy c = {.threads = s->threads};
  RtMem mem = {0};
  MoertStatus st = rt_mem_check(2 * RT_COPY_BYTES);
  if (st == MOERT_OK) st = rt_mem_new(&mem, RT_COPY_BYTES, false, &c.from);
  if (st == MOERT_OK) st = rt_mem_new(&mem, RT_COPY_BYTES, false, &c.to);
  if (st == MOERT_OK) st = rt_steady(copy, &c, out_seconds);
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
  MoertStatus st = product_rate(s, dtype, out);
  rt_team_leave(before);
  return st;
}

MoertStatus moert_peak_copy(const MoertSession *s, double *out) {
  *out = 0;
  RtTeam before = rt_team_enter(s->threads);
  double seconds;
  MoertStatus st = s->device->time_copy(s, &seconds);
  if (st == MOERT_OK) *out = 2 * (double)RT_COPY_BYTES / seconds;
  rt_team_leave(before);
  return st;
}
