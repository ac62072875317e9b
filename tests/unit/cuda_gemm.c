/* cuda_gemm.c: products on a GPU, of matrices that lie in all ways: by rows, by
 * columns, with gaps, and with strides that cuBLASLt has no form for; in
 * batches, one factor of which may repeat; added to what is there. Values are
 * small whole numbers, so sums are exact in any order, and gaps must keep what
 * they have. */
#include "../../runtime/gpu.h"
#include "stand_ins.h"

enum { M = 5, N = 4, K = 6, ELEMENTS = 512 };

typedef enum Lie { ROWS, COLUMNS, GAPS, ODD, LIES } Lie;

/* stride: batch, row, column. */
static void lay(Lie lie, int64_t rows, int64_t columns, int64_t stride[3]) {
  switch (lie) {
  case ROWS: stride[1] = columns, stride[2] = 1; break;
  case COLUMNS: stride[1] = 1, stride[2] = rows; break;
  case GAPS: stride[1] = columns + 3, stride[2] = 1; break;
  case ODD: stride[1] = 2 * columns + 1, stride[2] = 2; break;
  case LIES: break;
  }
  stride[0] = (rows - 1) * stride[1] + (columns - 1) * stride[2] + 2;
}

/* A matrix on both sides. */
typedef struct Matrix {
  CUdeviceptr device;
  char *host;
  int dtype;
} Matrix;

static double get(const Matrix *x, int64_t i) {
  return rt_load(x->dtype, x->host + i * rt_dtype[x->dtype].bytes);
}

static void set(Matrix *x, int64_t i, double value) {
  rt_store(x->dtype, x->host + i * rt_dtype[x->dtype].bytes, value);
}

static MoertStatus move(RtCuda *c, Matrix *x, bool back) {
  size_t bytes = ELEMENTS * (size_t)rt_dtype[x->dtype].bytes;
  RT_TRY(back ? RT_CU(c, cuMemcpyDtoHAsync(x->host, x->device, bytes,
                                           c->stream))
              : RT_CU(c, cuMemcpyHtoDAsync(x->device, x->host, bytes,
                                           c->stream)));
  return RT_CU(c, cuStreamSynchronize(c->stream));
}

static void multiply(const MoertGemm *g, const Matrix x[3], double *want) {
  const int64_t *a = g->a_stride, *b = g->b_stride, *c = g->c_stride;
  for (int64_t i = 0; i < ELEMENTS; i++)
    want[i] = get(&x[2], i);
  for (int64_t p = 0; p < g->batch; p++)
    for (int64_t i = 0; i < g->m; i++)
      for (int64_t j = 0; j < g->n; j++) {
        double sum = 0;
        for (int64_t k = 0; k < g->k; k++)
          sum += get(&x[0], p * a[0] + i * a[1] + k * a[2]) *
                 get(&x[1], p * b[0] + k * b[1] + j * b[2]);
        double *to = &want[p * c[0] + i * c[1] + j * c[2]];
        *to = g->accumulate ? *to + sum : sum;
      }
}

/* Whether a product is right. */
static MoertStatus run(RtCuda *c, const MoertGemm *g, Matrix x[3],
                       bool *out_same) {
  static double want[ELEMENTS];
  void *args[3];
  int64_t align[3] = {256, 256, 256};
  RtCudaGemm *made;
  for (int i = 0; i < 3; i++) {
    x[i].dtype = i < 2 ? g->dtype : g->c_dtype;
    for (int k = 0; k < ELEMENTS; k++)
      set(&x[i], k, (k * (3 + i) + i) % 7 - 3);
    RT_TRY(move(c, &x[i], false));
    args[i] = (void *)(uintptr_t)x[i].device;
  }
  multiply(g, x, want);
  RT_TRY(rt_cuda_gemm_new(c, g, align, &made));
  MoertStatus st = rt_cuda_gemm_run(c, made, args);
  if (st == MOERT_OK) st = move(c, &x[2], true);
  rt_cuda_gemm_free(c, made);
  *out_same = true;
  for (int64_t i = 0; i < ELEMENTS; i++)
    *out_same &= get(&x[2], i) == want[i];
  return st;
}

/* Lies of a, b and c as digits of `lies`; batch 0: of 3, with a repeated. */
static MoertGemm product(int dtype, int lies, int batch, int accumulate) {
  MoertGemm g = {batch ? batch : 3, M, N, K, {0}, {0}, {0}, dtype,
                 rt_dtype[dtype].sums, accumulate, 0};
  lay((Lie)(lies % LIES), M, K, g.a_stride);
  lay((Lie)(lies / LIES % LIES), K, N, g.b_stride);
  lay((Lie)(lies / LIES / LIES), M, N, g.c_stride);
  if (batch == 0) g.a_stride[0] = 0;
  return g;
}

static void test_dtype(RtCuda *c, int dtype, Matrix x[3]) {
  for (int how = 0; how < 4; how++) {
    int wrong = -1, batch = how < 2 ? 1 : 3 * (how - 2), n = 0;
    for (int lies = 0; lies < LIES * LIES * LIES; lies++) {
      MoertGemm g = product(dtype, lies, batch, how % 2);
      bool same = false;
      MoertStatus st = run(c, &g, x, &same);
      if (st != MOERT_OK) printf("    %s\n", moert_error());
      if (st != MOERT_OK || !same) wrong = lies, n++;
    }
    char name[64];
    snprintf(name, sizeof name, "%s, batch %d, %s", rt_dtype[dtype].name,
             batch, how % 2 ? "added" : "stored");
    CHECK(name, wrong < 0, "%d are wrong, as a %d, b %d, c %d", n, wrong % LIES,
          wrong / LIES % LIES, wrong / LIES / LIES);
  }
}

/* Operands of 12 bits: rounded to tf32 in a product that asks for it and that
 * the library does, and not otherwise. */
static void test_tf32(RtCuda *c, Matrix x[3]) {
  static const struct {
    const char *name;
    int32_t tf32;
    int lies;
    double want;
  } cases[] = {{"f32 as it is", 0, 0, K * (1 + 0x1p-12)},
               {"f32 as tf32", 1, 0, K},
               {"f32 as it is, without the library", 1, ODD,
                K * (1 + 0x1p-12)}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int64_t align[3] = {256, 256, 256};
    MoertGemm g = product(MOERT_f32, cases[i].lies, 1, 0);
    RtCudaGemm *made;
    void *args[3];
    g.tf32 = cases[i].tf32;
    for (int k = 0; k < 3; k++) {
      x[k].dtype = MOERT_f32;
      for (int j = 0; j < ELEMENTS; j++)
        set(&x[k], j, k == 0 ? 1 + 0x1p-12 : 1);
      CHECK_OK(cases[i].name, move(c, &x[k], false));
      args[k] = (void *)(uintptr_t)x[k].device;
    }
    CHECK_OK(cases[i].name, rt_cuda_gemm_new(c, &g, align, &made));
    CHECK_OK(cases[i].name, rt_cuda_gemm_run(c, made, args));
    CHECK_OK(cases[i].name, move(c, &x[2], true));
    rt_cuda_gemm_free(c, made);
    CHECK(cases[i].name, get(&x[2], 0) == cases[i].want, "%.9g instead of %.9g",
          get(&x[2], 0), cases[i].want);
  }
}

static MoertStatus open_gpu(RtCuda *c, Matrix x[3], CUdeviceptr *workspace) {
  RT_TRY(rt_cuda_load(c));
  RT_TRY(rt_cuda_gpu(c, 0));
  RT_TRY(RT_CU(c, cuDevicePrimaryCtxRetain(&c->context, c->device)));
  RT_TRY(rt_cuda_enter(c));
  RT_TRY(RT_CU(c, cuStreamCreate(&c->stream, CU_STREAM_NON_BLOCKING)));
  RT_TRY(rt_cuda_gemm_open(c));
  c->gemm_bytes = rt_cuda_gemm_bytes();
  RT_TRY(RT_CU(c, cuMemAlloc(workspace, (size_t)c->gemm_bytes)));
  c->gemm_workspace = (char *)(uintptr_t)*workspace;
  for (int i = 0; i < 3; i++) {
    RT_TRY(RT_CU(c, cuMemAlloc(&x[i].device, ELEMENTS * sizeof(double))));
    RT_TRY(RT_NEW(&x[i].host, ELEMENTS * sizeof(double)));
  }
  return MOERT_OK;
}

int main(int argc, char **argv) {
  (void)argc;
  static RtCuda c;
  Matrix x[3] = {{0}};
  CUdeviceptr workspace = 0;
  if (!has_driver()) {
    use_stand_ins(argv);
    return no_stand_ins("cuda_gemm");
  }
  CHECK_OK("a GPU", open_gpu(&c, x, &workspace));
  if (failures) return 1;
  test_dtype(&c, MOERT_f32, x);
  test_dtype(&c, MOERT_bf16, x);
  test_dtype(&c, MOERT_f64, x);
  if (getenv("CUDASIM_CHECKED")) test_tf32(&c, x); /* others may not round */
  CHECK_FAILS("of whole numbers",
              rt_cuda_gemm_new(&c, &(MoertGemm){.dtype = MOERT_i32},
                               (int64_t[]){1, 1, 1}, &(RtCudaGemm *){NULL}),
              MOERT_UNSUPPORTED, "no matrix product in i32");
  for (int i = 0; i < 3; i++) {
    c.cu.cuMemFree(x[i].device);
    free(x[i].host);
  }
  c.cu.cuMemFree(workspace);
  rt_cuda_own_free(&c);
  c.lt.cublasLtDestroy(c.handle);
  c.cu.cuStreamDestroy(c.stream);
  rt_cuda_leave(&c);
  c.cu.cuDevicePrimaryCtxRelease(c.device);
  rt_cuda_unload(&c);
  return failures != 0;
}
