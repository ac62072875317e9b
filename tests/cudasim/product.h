/* product.h: a product of matrices as work in a stream: what the stand-in for
 * libcublasLt asks of the one for libcuda. */
#ifndef MOEC_CUDASIM_PRODUCT_H
#define MOEC_CUDASIM_PRODUCT_H

#include "cuda_api.h"

#include <stdbool.h>

/* Elements, by their numbers in cudaDataType_t. */
typedef enum ProductType {
  PRODUCT_F32 = 0,
  PRODUCT_F64 = 1,
  PRODUCT_BF16 = 14
} ProductType;

/* In columns: element (r, c) of batch b is at[b * batch_step + c * ld + r]. */
typedef struct ProductMatrix {
  CUdeviceptr at;
  ProductType type;
  uint64_t rows, columns;
  int64_t ld, batch_step;
  bool transposed;
} ProductMatrix;

/* d = alpha a b + beta c, `batch` times; sums in f64 where a is f64. */
typedef struct Product {
  ProductMatrix a, b, c, d;
  uint64_t m, n, k, batch;
  double alpha, beta;
  bool tf32; /* a and b are rounded to that */
} Product;

CUresult cudasim_product(CUstream stream, const Product *p);

#endif
