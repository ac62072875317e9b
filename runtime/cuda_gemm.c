/* cuda_gemm.c: matrix products on a GPU, by cuBLASLt, or by a plain kernel.
 *
 * cuBLASLt sees columns: a matrix is columns of `rows` elements side by side,
 * `ld` apart, or the transpose of such a one. c[m,n] = a[m,k] b[k,n] is asked
 * for as it is where c lies in columns, and as c' = b' a' where it lies in
 * rows. A matrix neither of whose dims is dense has no such form; nor has one
 * that repeats along a row or a column: these go to the runtime's own kernel.
 *
 * How to do a product is chosen once, when a session begins, for the alignment
 * that its operands have. All share one workspace: they run in one stream. */
#include "gpu.h"

#include <stdlib.h>

enum { WORKSPACE = 32 << 20 };

struct RtCudaGemm {
  MoertGemm shape;
  bool swapped; /* c' = b' a' */
  cublasLtMatmulDesc_t desc; /* NULL: the own kernel */
  cublasLtMatrixLayout_t layout[3]; /* first and second factor, result */
  cublasLtMatmulHeuristicResult_t how;
};

int64_t rt_cuda_gemm_bytes(void) {
  return WORKSPACE;
}

MoertStatus rt_cuda_gemm_open(RtCuda *c) {
  if (c->handle) return MOERT_OK;
  RT_TRY(rt_cublaslt_load(c)); /* may have failed halfway before */
  return RT_LT(c, cublasLtCreate(&c->handle));
}

/* ---- operands ------------------------------------------------------------ */

/* A matrix of rows x columns as cuBLASLt has it. */
typedef struct Operand {
  cublasOperation_t op; /* CUBLAS_OP_T: what is stored is its transpose */
  int64_t rows, columns, ld; /* of what is stored */
  int64_t batch_stride;
} Operand;

/* A dim of one element has no stride of its own. */
static bool is_dense(int64_t size, int64_t stride) {
  return size == 1 || stride == 1;
}

/* Columns `step` apart of `rows` elements each, as ld. -1: they overlap. */
static int64_t leading(int64_t rows, int64_t columns, int64_t step) {
  if (columns == 1) return rows;
  return step >= rows ? step : -1;
}

/* False where it has no such form. */
static bool operand(int64_t rows, int64_t columns, int64_t row_step,
                    int64_t column_step, int64_t batch_stride, Operand *out) {
  int64_t ld = leading(rows, columns, column_step);
  if (is_dense(rows, row_step) && ld > 0) {
    *out = (Operand){CUBLAS_OP_N, rows, columns, ld, batch_stride};
    return true;
  }
  ld = leading(columns, rows, row_step);
  *out = (Operand){CUBLAS_OP_T, columns, rows, ld, batch_stride};
  return is_dense(columns, column_step) && ld > 0;
}

/* The factors and the result, in the order in which cuBLASLt gets them. */
static bool operands(const MoertGemm *g, Operand out[3], bool *out_swapped) {
  const int64_t *a = g->a_stride, *b = g->b_stride, *c = g->c_stride;
  bool has_result = operand(g->m, g->n, c[1], c[2], c[0], &out[2]);
  if (!has_result || (g->batch > 1 && c[0] == 0)) return false;
  *out_swapped = out[2].op == CUBLAS_OP_T;
  if (*out_swapped) /* what is stored of c is c' */
    return operand(g->n, g->k, b[2], b[1], b[0], &out[0]) &&
           operand(g->k, g->m, a[2], a[1], a[0], &out[1]);
  return operand(g->m, g->k, a[1], a[2], a[0], &out[0]) &&
         operand(g->k, g->n, b[1], b[2], b[0], &out[1]);
}

/* ---- making one ready ---------------------------------------------------- */

static MoertStatus make_layout(RtCuda *c, const MoertGemm *g, int dtype,
                               const Operand *x, cublasLtMatrixLayout_t *out) {
  int32_t batch = (int32_t)g->batch;
  RT_TRY(RT_LT(c, cublasLtMatrixLayoutCreate(out, rt_dtype[dtype].cuda,
                                             (uint64_t)x->rows,
                                             (uint64_t)x->columns, x->ld)));
  if (batch == 1) return MOERT_OK;
  RT_TRY(RT_LT(c, cublasLtMatrixLayoutSetAttribute(
                      *out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch,
                      sizeof batch)));
  return RT_LT(c, cublasLtMatrixLayoutSetAttribute(
                      *out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                      &x->batch_stride, sizeof x->batch_stride));
}

static MoertStatus make_desc(RtCuda *c, RtCudaGemm *made,
                             const Operand x[3]) {
  int sums = rt_dtype[made->shape.dtype].sums;
  cublasComputeType_t compute =
      sums == MOERT_f64 ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F;
  if (made->shape.tf32) compute = CUBLAS_COMPUTE_32F_FAST_TF32;
  RT_TRY(RT_LT(c, cublasLtMatmulDescCreate(&made->desc, compute,
                                           rt_dtype[sums].cuda)));
  RT_TRY(RT_LT(c, cublasLtMatmulDescSetAttribute(
                      made->desc, CUBLASLT_MATMUL_DESC_TRANSA, &x[0].op,
                      sizeof x[0].op)));
  return RT_LT(c, cublasLtMatmulDescSetAttribute(
                      made->desc, CUBLASLT_MATMUL_DESC_TRANSB, &x[1].op,
                      sizeof x[1].op));
}

static MoertStatus prefer(RtCuda *c, cublasLtMatmulPreference_t p,
                          const RtCudaGemm *g, const int64_t align[3]) {
  uint64_t bytes = WORKSPACE;
  uint32_t a = (uint32_t)align[g->swapped], b = (uint32_t)align[!g->swapped];
  uint32_t result = (uint32_t)align[2];
  RT_TRY(RT_LT(c, cublasLtMatmulPreferenceSetAttribute(
                      p, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes,
                      sizeof bytes)));
  RT_TRY(RT_LT(c, cublasLtMatmulPreferenceSetAttribute(
                      p, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &a,
                      sizeof a)));
  RT_TRY(RT_LT(c, cublasLtMatmulPreferenceSetAttribute(
                      p, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &b,
                      sizeof b)));
  RT_TRY(RT_LT(c, cublasLtMatmulPreferenceSetAttribute(
                      p, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &result,
                      sizeof result)));
  return RT_LT(c, cublasLtMatmulPreferenceSetAttribute(
                      p, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &result,
                      sizeof result));
}

/* Leaves *out_found false where the library has nothing for it. */
static MoertStatus choose(RtCuda *c, RtCudaGemm *g, const int64_t align[3],
                          bool *out_found) {
  cublasLtMatmulPreference_t p;
  int n = 0;
  *out_found = false;
  RT_TRY(RT_LT(c, cublasLtMatmulPreferenceCreate(&p)));
  MoertStatus st = prefer(c, p, g, align);
  if (st == MOERT_OK)
    st = RT_LT(c, cublasLtMatmulAlgoGetHeuristic(
                      c->handle, g->desc, g->layout[0], g->layout[1],
                      g->layout[2], g->layout[2], p, 1, &g->how, &n));
  c->lt.cublasLtMatmulPreferenceDestroy(p);
  if (st == MOERT_UNSUPPORTED) return MOERT_OK;
  *out_found = n > 0;
  return st;
}

static void drop_forms(RtCuda *c, RtCudaGemm *g) {
  for (int i = 0; i < 3; i++)
    if (g->layout[i]) c->lt.cublasLtMatrixLayoutDestroy(g->layout[i]);
  if (g->desc) c->lt.cublasLtMatmulDescDestroy(g->desc);
  for (int i = 0; i < 3; i++)
    g->layout[i] = NULL;
  g->desc = NULL;
}

static MoertStatus make(RtCuda *c, RtCudaGemm *g, const int64_t align[3]) {
  Operand x[3];
  bool found = false;
  if (operands(&g->shape, x, &g->swapped)) {
    for (int i = 0; i < 3; i++)
      RT_TRY(make_layout(c, &g->shape,
                         i < 2 ? g->shape.dtype : g->shape.c_dtype, &x[i],
                         &g->layout[i]));
    RT_TRY(make_desc(c, g, x));
    RT_TRY(choose(c, g, align, &found));
  }
  if (found) return MOERT_OK;
  drop_forms(c, g);
  return rt_cuda_own_product(c, g->shape.dtype);
}

MoertStatus rt_cuda_gemm_new(RtCuda *c, const MoertGemm *shape,
                             const int64_t align[3], RtCudaGemm **out) {
  RtCudaGemm *g;
  *out = NULL;
  if (rt_dtype[shape->dtype].cuda < 0)
    return rt_fail(MOERT_UNSUPPORTED, "no matrix product in %s",
                   rt_dtype[shape->dtype].name);
  RT_TRY(RT_NEW(&g, 1));
  g->shape = *shape;
  MoertStatus st = make(c, g, align);
  if (st == MOERT_OK)
    *out = g;
  else
    rt_cuda_gemm_free(c, g);
  return st;
}

void rt_cuda_gemm_free(RtCuda *c, RtCudaGemm *g) {
  if (!g) return;
  drop_forms(c, g);
  free(g);
}

/* ---- running one --------------------------------------------------------- */

MoertStatus rt_cuda_gemm_run(RtCuda *c, const RtCudaGemm *g,
                             void *const *args) {
  static const float one_f32 = 1, none_f32 = 0;
  static const double one_f64 = 1, none_f64 = 0;
  if (!g->desc) return rt_cuda_run_product(c, &g->shape, args);
  bool wide = rt_dtype[g->shape.dtype].sums == MOERT_f64;
  const void *one = wide ? (const void *)&one_f64 : &one_f32;
  const void *none = wide ? (const void *)&none_f64 : &none_f32;
  const void *beta = g->shape.accumulate ? one : none;
  return RT_LT(c, cublasLtMatmul(
                      c->handle, g->desc, one, args[g->swapped], g->layout[0],
                      args[!g->swapped], g->layout[1], beta, args[2],
                      g->layout[2], args[2], g->layout[2], &g->how.algo,
                      c->gemm_workspace, (size_t)c->gemm_bytes, c->stream));
}
