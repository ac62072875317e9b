/* runtime_gemm.c: matrix products of many shapes and strides against a triple
 * loop in double. */
#include "tiny.h"

#include <math.h>

enum { MOST = 1 << 16 };

typedef struct Case {
  const char *name;
  int64_t batch, m, n, k;
  bool a_turned, b_turned, c_turned, b_repeated, a_inside;
  int dtype;
  int accumulate;
} Case;

static const Case cases[] = {
    {"plain", 1, 64, 96, 33, 0, 0, 0, 0, 0, MOERT_f32, 0},
    {"one row", 1, 1, 96, 33, 0, 0, 0, 0, 0, MOERT_f32, 0},
    {"one column", 1, 64, 1, 33, 0, 0, 0, 0, 0, MOERT_f32, 0},
    {"one product", 1, 64, 96, 1, 0, 0, 0, 0, 0, MOERT_f32, 0},
    {"one of all", 1, 1, 1, 1, 0, 0, 0, 0, 0, MOERT_f32, 0},
    {"a turned", 1, 31, 17, 65, 1, 0, 0, 0, 0, MOERT_f32, 0},
    {"a turned, one row", 1, 1, 17, 65, 1, 0, 0, 0, 0, MOERT_f32, 0},
    {"a turned, one deep", 1, 31, 17, 1, 1, 0, 0, 0, 0, MOERT_f32, 0},
    {"b turned", 1, 31, 17, 65, 0, 1, 0, 0, 0, MOERT_f32, 0},
    {"b turned, one column", 1, 31, 1, 65, 0, 1, 0, 0, 0, MOERT_f32, 0},
    {"b turned, one deep", 1, 31, 17, 1, 0, 1, 0, 0, 0, MOERT_f32, 0},
    {"both turned", 1, 31, 17, 65, 1, 1, 0, 0, 0, MOERT_f32, 0},
    {"c turned", 1, 31, 17, 65, 0, 0, 1, 0, 0, MOERT_f32, 0},
    {"all turned", 1, 31, 17, 65, 1, 1, 1, 0, 0, MOERT_f32, 1},
    {"accumulate", 1, 64, 96, 33, 0, 0, 0, 0, 0, MOERT_f32, 1},
    {"batch", 5, 16, 24, 32, 0, 0, 0, 0, 0, MOERT_f32, 0},
    {"batch, accumulate", 5, 16, 24, 32, 0, 1, 0, 0, 0, MOERT_f32, 1},
    {"batch, b repeated", 5, 16, 24, 32, 0, 0, 0, 1, 0, MOERT_f32, 0},
    {"batch, a turned", 5, 16, 24, 32, 1, 0, 0, 0, 0, MOERT_f32, 0},
    {"batch inside of a's rows", 5, 16, 24, 32, 0, 0, 0, 1, 1, MOERT_f32, 0},
    {"long rows", 1, 3, 4500, 7, 1, 0, 0, 0, 0, MOERT_f32, 0},
    {"long rows, whole blocks", 1, 3, 6144, 7, 1, 0, 0, 0, 0, MOERT_f32, 0},
    {"long rows, all turned", 1, 3, 4500, 7, 1, 1, 1, 0, 0, MOERT_f32, 1},
    {"long rows, batch", 2, 3, 4500, 7, 1, 0, 0, 0, 0, MOERT_f32, 1},
    {"f64", 1, 31, 70, 65, 0, 0, 0, 0, 0, MOERT_f64, 0},
    {"f64, batch, turned", 3, 31, 17, 65, 1, 1, 1, 1, 0, MOERT_f64, 1},
    {"bf16", 1, 64, 96, 33, 0, 0, 0, 0, 0, MOERT_bf16, 0},
    {"bf16, one row", 1, 1, 96, 33, 0, 0, 0, 0, 0, MOERT_bf16, 0},
    {"bf16, one column", 1, 64, 1, 33, 0, 0, 0, 0, 0, MOERT_bf16, 0},
    {"bf16, one product", 1, 64, 96, 1, 0, 0, 0, 0, 0, MOERT_bf16, 0},
    {"bf16, a turned", 1, 31, 17, 65, 1, 0, 0, 0, 0, MOERT_bf16, 0},
    {"bf16, b turned", 1, 31, 17, 65, 0, 1, 0, 0, 0, MOERT_bf16, 0},
    {"bf16, all turned", 1, 31, 17, 65, 1, 1, 1, 0, 0, MOERT_bf16, 1},
    {"bf16, accumulate", 1, 64, 96, 33, 0, 0, 0, 0, 0, MOERT_bf16, 1},
    {"bf16, batch, b repeated", 5, 16, 24, 32, 0, 0, 0, 1, 0, MOERT_bf16, 0},
    {"bf16, long rows", 1, 3, 4500, 7, 1, 0, 0, 0, 0, MOERT_bf16, 0},
    {"bf16, batch inside", 5, 16, 24, 32, 0, 0, 0, 1, 1, MOERT_bf16, 0},
};

static double a[MOST], b[MOST], c[MOST], want[MOST];
static char bytes[3][MOST * 8];

static void set_strides(int64_t out[3], int64_t rows, int64_t columns,
                        bool turned, bool repeated) {
  out[0] = repeated ? 0 : rows * columns;
  out[1] = turned ? 1 : columns;
  out[2] = turned ? rows : 1;
}

/* Values that differ; those of f32 are exact. */
static void fill(double *x, char *to, int dtype, uint32_t seed) {
  for (int i = 0; i < MOST; i++) {
    char *at = to + i * rt_dtype[dtype].bytes;
    seed = seed * 1664525u + 1013904223u;
    rt_store(dtype, at, ((double)(seed >> 20) - 2048) / 1024);
    x[i] = rt_load(dtype, at);
  }
}

static double largest_error(const MoertGemm *g, const char *got) {
  double worst = 0;
  const int64_t *as = g->a_stride, *bs = g->b_stride, *cs = g->c_stride;
  for (int64_t i = 0; i < g->batch; i++)
    for (int64_t m = 0; m < g->m; m++)
      for (int64_t n = 0; n < g->n; n++) {
        int64_t at = i * cs[0] + m * cs[1] + n * cs[2];
        double sum = g->accumulate ? c[at] : 0;
        for (int64_t k = 0; k < g->k; k++)
          sum += a[i * as[0] + m * as[1] + k * as[2]] *
                 b[i * bs[0] + k * bs[1] + n * bs[2]];
        want[at] = sum;
        double x = rt_load(g->c_dtype, got + at * rt_dtype[g->c_dtype].bytes);
        worst = worse(worst, fabs(x - sum));
      }
  return worst;
}

static void run(RtGemms *all, const Case *k, int threads) {
  MoertGemm g = {.batch = k->batch,
                 .m = k->m,
                 .n = k->n,
                 .k = k->k,
                 .dtype = k->dtype,
                 .c_dtype = k->dtype == MOERT_bf16 ? MOERT_f32 : k->dtype,
                 .accumulate = k->accumulate};
  set_strides(g.a_stride, k->m, k->k, k->a_turned, false);
  set_strides(g.b_stride, k->k, k->n, k->b_turned, k->b_repeated);
  set_strides(g.c_stride, k->m, k->n, k->c_turned, false);
  if (k->a_inside) g.a_stride[0] = k->k, g.a_stride[1] = k->batch * k->k;
  fill(a, bytes[0], k->dtype, 1);
  fill(b, bytes[1], k->dtype, 2);
  fill(c, bytes[2], g.c_dtype, 3);
  RtGemm *made, *again;
  CHECK_OK(k->name, rt_gemm_get(all, &g, &made));
  if (!made) return;
  rt_gemm_get(all, &g, &again);
  CHECK("made once", made == again, "%s: made twice", k->name);
  void *args[3] = {bytes[0], bytes[1], bytes[2]}, *scratchpad;
  RtMem mem = {0};
  rt_mem_new(&mem, all->scratchpad_bytes, true, &scratchpad);
  CHECK_OK(k->name, rt_gemm_run(all, made, args, scratchpad, threads));
  double error = largest_error(&g, bytes[2]);
  double bound = k->dtype == MOERT_f64 ? 1e-12 : 1e-4;
  CHECK(k->name, error < bound, "error %g", error);
  rt_mem_free(&mem);
}

int main(void) {
  for (int i = 0; i < 4; i++) {
    int threads = i % 2 ? 4 : 1;
    RtGemms all = {.widens = i / 2};
    RtTeam before = rt_team_enter(threads);
    for (size_t k = 0; k < COUNT_OF(cases); k++)
      run(&all, &cases[k], threads);
    rt_team_leave(before);
    rt_gemms_free(&all);
  }
  RtGemms all = {0};
  MoertGemm integers = {1,         2,         2,         2, {4, 2, 1},
                        {4, 2, 1}, {4, 2, 1}, MOERT_u32, MOERT_u32,
                        0,         0};
  RtGemm *made;
  CHECK_FAILS("no such product", rt_gemm_get(&all, &integers, &made),
              MOERT_UNSUPPORTED, "no matrix product in u32");
  rt_gemms_free(&all);
  return failures != 0;
}
