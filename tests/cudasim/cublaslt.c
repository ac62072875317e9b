/* cublaslt.c: the stand-in for libcublasLt.so.12: descriptors of products, with
 * the checks that the library makes of them; product.c does them.
 *
 * Only what the runtime asks for is there: matrices in columns, transposes,
 * batches at a distance, f32, also rounded to tf32, and bf16 summed in f32, f64
 * in f64. An attribute
 * that is not known here is CUBLAS_STATUS_NOT_SUPPORTED. */
#include "cublaslt_api.h"
#include "product.h"

#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum {
  COMPUTE_32F = 68,
  COMPUTE_64F = 70,
  COMPUTE_32F_FAST_TF32 = 77,
  DESC_TRANSA = 3,
  DESC_TRANSB = 4,
  LAYOUT_BATCH_COUNT = 5,
  LAYOUT_BATCH_STEP = 6,
  PREFERENCE_MOST = 8,
  ALGORITHM = 0x51b1a5
};

struct Handle {
  int unused;
};
struct Desc {
  int compute, scale;
  int32_t transposed[2];
};
struct Layout {
  int type;
  uint64_t rows, columns;
  int64_t ld, batch_step;
  int32_t batch;
};
struct Preference {
  int unused;
};

/* ---- descriptors --------------------------------------------------------- */

#define CREATE(out, ...)                                                     \
  do {                                                                       \
    *(out) = malloc(sizeof **(out));                                         \
    if (!*(out)) return CUBLAS_STATUS_ALLOC_FAILED;                          \
    **(out) = (__typeof__(**(out))){__VA_ARGS__};                            \
    return CUBLAS_STATUS_SUCCESS;                                            \
  } while (0)

static cublasStatus_t destroy(void *p) {
  free(p);
  return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
  CREATE(handle, 0);
}
EXPORT cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  return destroy(handle);
}

EXPORT size_t cublasLtGetVersion(void) {
  return 120000;
}

EXPORT const char *cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
  case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
  case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
  case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
  case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
  case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
  case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
  }
  return "unknown";
}

EXPORT cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc,
                                               int compute, int scale) {
  bool wide = compute == COMPUTE_64F;
  if (!wide && compute != COMPUTE_32F && compute != COMPUTE_32F_FAST_TF32)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (scale != (wide ? PRODUCT_F64 : PRODUCT_F32))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  CREATE(desc, .compute = compute, .scale = scale);
}
EXPORT cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  return destroy(desc);
}

EXPORT cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                                     int which,
                                                     const void *value,
                                                     size_t bytes) {
  int32_t v;
  if (which != DESC_TRANSA && which != DESC_TRANSB)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (bytes != sizeof v) return CUBLAS_STATUS_INVALID_VALUE;
  memcpy(&v, value, bytes);
  if (v != 0 && v != 1) return CUBLAS_STATUS_INVALID_VALUE;
  desc->transposed[which - DESC_TRANSA] = v;
  return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout,
                                                 int type, uint64_t rows,
                                                 uint64_t columns, int64_t ld) {
  if (type != PRODUCT_F32 && type != PRODUCT_F64 && type != PRODUCT_BF16)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (!rows || !columns || ld < (int64_t)rows)
    return CUBLAS_STATUS_INVALID_VALUE;
  CREATE(layout, type, rows, columns, ld, 0, 1);
}
EXPORT cublasStatus_t
cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  return destroy(layout);
}

EXPORT cublasStatus_t
cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout, int which,
                                 const void *value, size_t bytes) {
  if (which == LAYOUT_BATCH_COUNT && bytes == sizeof layout->batch)
    memcpy(&layout->batch, value, bytes);
  else if (which == LAYOUT_BATCH_STEP && bytes == sizeof layout->batch_step)
    memcpy(&layout->batch_step, value, bytes);
  else
    return which == LAYOUT_BATCH_COUNT || which == LAYOUT_BATCH_STEP
               ? CUBLAS_STATUS_INVALID_VALUE
               : CUBLAS_STATUS_NOT_SUPPORTED;
  return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t
cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference) {
  CREATE(preference, 0);
}
EXPORT cublasStatus_t
cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return destroy(preference);
}

/* Nothing depends on how much workspace there is or how things are aligned. */
EXPORT cublasStatus_t
cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                     int which, const void *value,
                                     size_t bytes) {
  if (!preference || !value || !bytes || which > PREFERENCE_MOST)
    return CUBLAS_STATUS_INVALID_VALUE;
  return CUBLAS_STATUS_SUCCESS;
}

/* ---- products ------------------------------------------------------------ */

static uint64_t rows_of(cublasLtMatrixLayout_t x, int transposed) {
  return transposed ? x->columns : x->rows;
}
static uint64_t columns_of(cublasLtMatrixLayout_t x, int transposed) {
  return transposed ? x->rows : x->columns;
}

static cublasStatus_t fits(cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                           cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                           cublasLtMatrixLayout_t d) {
  int ta = desc->transposed[0], tb = desc->transposed[1];
  bool wide = desc->compute == COMPUTE_64F;
  if (columns_of(a, ta) != rows_of(b, tb) || rows_of(a, ta) != d->rows ||
      columns_of(b, tb) != d->columns || c->rows != d->rows ||
      c->columns != d->columns || a->batch != d->batch ||
      b->batch != d->batch || c->batch != d->batch || d->batch < 1)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (a->type != b->type || c->type != d->type ||
      wide != (a->type == PRODUCT_F64) || wide != (d->type == PRODUCT_F64) ||
      (a->type == PRODUCT_F32 && d->type != PRODUCT_F32))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
    cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
    cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
    cublasLtMatmulPreference_t preference, int wanted,
    cublasLtMatmulHeuristicResult_t *found, int *n_found) {
  *n_found = 0;
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!preference || wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
  cublasStatus_t r = fits(desc, a, b, c, d);
  if (r) return r;
  *found = (cublasLtMatmulHeuristicResult_t){.algo = {{ALGORITHM}}};
  *n_found = 1;
  return CUBLAS_STATUS_SUCCESS;
}

static ProductMatrix matrix(const void *at, cublasLtMatrixLayout_t x,
                            int transposed) {
  return (ProductMatrix){(CUdeviceptr)(uintptr_t)at,
                         (ProductType)x->type,
                         x->rows,
                         x->columns,
                         x->ld,
                         x->batch_step,
                         transposed != 0};
}

static double scalar(cublasLtMatmulDesc_t desc, const void *v) {
  return desc->scale == PRODUCT_F64 ? *(const double *)v
                                    : (double)*(const float *)v;
}

EXPORT cublasStatus_t
cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
               const void *alpha, const void *a, cublasLtMatrixLayout_t al,
               const void *b, cublasLtMatrixLayout_t bl, const void *beta,
               const void *c, cublasLtMatrixLayout_t cl, void *d,
               cublasLtMatrixLayout_t dl, const cublasLtMatmulAlgo_t *algo,
               void *workspace, size_t workspace_bytes, CUstream stream) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  cublasStatus_t r = fits(desc, al, bl, cl, dl);
  if (r) return r;
  if ((algo && algo->data[0] != ALGORITHM) || (workspace_bytes && !workspace))
    return CUBLAS_STATUS_INVALID_VALUE;
  Product p = {.a = matrix(a, al, desc->transposed[0]),
               .b = matrix(b, bl, desc->transposed[1]),
               .c = matrix(c, cl, 0),
               .d = matrix(d, dl, 0),
               .m = dl->rows,
               .n = dl->columns,
               .k = columns_of(al, desc->transposed[0]),
               .batch = (uint64_t)dl->batch,
               .alpha = scalar(desc, alpha),
               .beta = scalar(desc, beta),
               .tf32 = desc->compute == COMPUTE_32F_FAST_TF32 &&
                       al->type == PRODUCT_F32};
  return cudasim_product(stream, &p) ? CUBLAS_STATUS_EXECUTION_FAILED
                                     : CUBLAS_STATUS_SUCCESS;
}
