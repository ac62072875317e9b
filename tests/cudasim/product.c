/* product.c: products of matrices, by plain loops: sums along the depth in its
 * order, in f32, or in f64 for f64. */
#include "product.h"
#include "device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t bytes_of(ProductType t) {
  return t == PRODUCT_F64 ? 8 : t == PRODUCT_F32 ? 4 : 2;
}

static double get(ProductType t, const uint8_t *at) {
  double d;
  float f;
  uint16_t h;
  switch (t) {
  case PRODUCT_F64: memcpy(&d, at, 8); return d;
  case PRODUCT_F32: memcpy(&f, at, 4); return f;
  case PRODUCT_BF16: memcpy(&h, at, 2); return bf16_to_float(h);
  }
  return 0;
}

static void put(ProductType t, uint8_t *at, double v) {
  float f = (float)v;
  uint16_t h = float_to_bf16(f);
  switch (t) {
  case PRODUCT_F64: memcpy(at, &v, 8); break;
  case PRODUCT_F32: memcpy(at, &f, 4); break;
  case PRODUCT_BF16: memcpy(at, &h, 2); break;
  }
}

/* A column of a matrix, checked; NULL after a fault. */
static uint8_t *column(Device *d, const ProductMatrix *x, char name,
                       uint64_t batch, uint64_t c, bool reads, char *why,
                       size_t n) {
  size_t size = bytes_of(x->type);
  int64_t from = (int64_t)batch * x->batch_step + (int64_t)c * x->ld;
  uint64_t at = x->at + (uint64_t)(from * (int64_t)size);
  uint64_t bytes = x->rows * size;
  Heap *h = heap_at(d, at);
  uint8_t *p = heap_bytes(h, at, bytes);
  if (p && (!reads || heap_is_set(h, at, bytes))) return p;
  char what[128] = "memory that nobody has written";
  if (!p) heap_explain(h, at + bytes - 1, what, sizeof what);
  snprintf(why, n,
           "cublasLtMatmul: column %llu of matrix %c, %llu x %llu: %s",
           (unsigned long long)c, name, (unsigned long long)x->rows,
           (unsigned long long)x->columns, what);
  return NULL;
}

/* The matrix of one batch as doubles, `rows` side by side. */
static double *gather(Device *d, const ProductMatrix *x, bool tf32, char name,
                      uint64_t batch, char *why, size_t n) {
  bool t = x->transposed;
  size_t size = bytes_of(x->type), wide = t ? x->rows : x->columns;
  double *out = malloc(x->rows * x->columns * sizeof *out + 1);
  for (uint64_t c = 0; out && c < x->columns; c++) {
    const uint8_t *p = column(d, x, name, batch, c, true, why, n);
    if (!p) {
      free(out);
      return NULL;
    }
    for (uint64_t r = 0; r < x->rows; r++) {
      double v = get(x->type, p + r * size);
      out[t ? c * wide + r : r * wide + c] =
          tf32 ? (double)float_to_tf32((float)v) : v;
    }
  }
  return out;
}

/* One row of the product, as many sums as it has columns. */
static void row_f32(const Product *p, const double *a, const double *b,
                    float *sums) {
  memset(sums, 0, p->n * sizeof *sums);
  for (uint64_t k = 0; k < p->k; k++) {
    float x = (float)a[k];
    const double *row = b + k * p->n;
    for (uint64_t j = 0; j < p->n; j++)
      sums[j] += x * (float)row[j];
  }
}

static void row_f64(const Product *p, const double *a, const double *b,
                    double *sums) {
  memset(sums, 0, p->n * sizeof *sums);
  for (uint64_t k = 0; k < p->k; k++)
    for (uint64_t j = 0; j < p->n; j++)
      sums[j] += a[k] * b[k * p->n + j];
}

static void rows(const Product *p, const double *a, const double *b,
                 double *out) {
  float *sums = malloc(p->n * sizeof *sums + 1);
  for (uint64_t i = 0; sums && i < p->m; i++) {
    if (p->a.type == PRODUCT_F64) {
      row_f64(p, a + i * p->k, b, out + i * p->n);
      continue;
    }
    row_f32(p, a + i * p->k, b, sums);
    for (uint64_t j = 0; j < p->n; j++)
      out[i * p->n + j] = sums[j];
  }
  free(sums);
}

static bool scatter(Device *dev, const Product *p, uint64_t batch,
                    const double *sums, char *why, size_t n) {
  size_t c_size = bytes_of(p->c.type), d_size = bytes_of(p->d.type);
  bool wide = p->a.type == PRODUCT_F64;
  for (uint64_t j = 0; j < p->n; j++) {
    const uint8_t *c = NULL;
    if (p->beta != 0 && !(c = column(dev, &p->c, 'C', batch, j, true, why, n)))
      return false;
    uint8_t *d = column(dev, &p->d, 'D', batch, j, false, why, n);
    if (!d) return false;
    for (uint64_t i = 0; i < p->m; i++) {
      double v = p->alpha * sums[i * p->n + j];
      if (!wide) v = (float)v;
      if (c) v += p->beta * get(p->c.type, c + i * c_size);
      put(p->d.type, d + i * d_size, v);
    }
    int64_t from = (int64_t)batch * p->d.batch_step + (int64_t)j * p->d.ld;
    uint64_t at = p->d.at + (uint64_t)(from * (int64_t)d_size);
    heap_set_state(heap_at(dev, at), at, p->m * d_size);
  }
  return true;
}

static CUresult run(Device *d, const void *data, char *why, size_t n) {
  const Product *p = data;
  bool ok = true;
  for (uint64_t batch = 0; ok && batch < p->batch; batch++) {
    double *a = gather(d, &p->a, p->tf32, 'A', batch, why, n);
    double *b =
        a ? gather(d, &p->b, p->tf32, 'B', batch, why, n) : NULL;
    double *sums = b ? malloc(p->m * p->n * sizeof *sums + 1) : NULL;
    if (sums) rows(p, a, b, sums);
    ok = sums && scatter(d, p, batch, sums, why, n);
    free(a);
    free(b);
    free(sums);
  }
  counters.products++;
  return ok ? CUDA_SUCCESS : CUDA_ERROR_ILLEGAL_ADDRESS;
}

EXPORT CUresult cudasim_product(CUstream stream, const Product *p) {
  Product copy = *p;
  return stream_add(stream, (Op){.kind = DO_CALL, .call = run,
                                 .data = (uint8_t *)&copy,
                                 .n_data = sizeof copy});
}
