/* cuda_peaks.c: what a GPU can keep up: a large product by cuBLASLt, as those
 * of models are done, and a large copy within its memory. Each run is waited
 * for: they take much longer than the wait. */
#include "gpu.h"

#include <stdlib.h>

typedef struct Product {
  RtCuda *c;
  RtCudaGemm *gemm;
  void *args[3];
} Product;

static MoertStatus multiply(void *user) {
  Product *p = user;
  RT_TRY(rt_cuda_gemm_run(p->c, p->gemm, p->args));
  return RT_CU(p->c, cuStreamSynchronize(p->c->stream));
}

static MoertStatus new_block(RtCuda *c, int64_t bytes, void **out) {
  CUdeviceptr data;
  RT_TRY(RT_CU(c, cuMemAlloc(&data, (size_t)bytes)));
  *out = (void *)(uintptr_t)data;
  return RT_CU(c, cuMemsetD8Async(data, 0, (size_t)bytes, c->stream));
}

/* Random numbers for both operands: zeros would take less power, and time. */
static MoertStatus fill_operands(Product *p, const MoertSession *s, int dtype,
                                 int64_t n) {
  RtCuda *c = p->c;
  size_t bytes = (size_t)(n * rt_dtype[dtype].bytes);
  char *numbers;
  RT_TRY(RT_NEW(&numbers, bytes));
  rt_fill_random(dtype, numbers, n, s->threads);
  MoertStatus st = MOERT_OK;
  for (int i = 0; i < 2 && st == MOERT_OK; i++)
    st = RT_CU(c, cuMemcpyHtoDAsync(rt_cu_address(p->args[i]), numbers, bytes,
                                    c->stream));
  if (st == MOERT_OK) st = RT_CU(c, cuStreamSynchronize(c->stream));
  free(numbers);
  return st;
}

static void free_block(RtCuda *c, void *data) {
  if (data) c->cu.cuMemFree(rt_cu_address(data));
}

/* With a workspace of its own: the program may have no products. */
static MoertStatus time_product(Product *p, const MoertSession *s, int dtype,
                                int64_t size, double *out_seconds) {
  RtCuda *c = p->c;
  MoertGemm shape = rt_square_product(dtype, size);
  int64_t align[3] = {256, 256, 256};
  void *workspace = NULL, *before = c->gemm_workspace;
  int64_t bytes_before = c->gemm_bytes;
  RT_TRY(rt_cuda_gemm_open(c));
  RT_TRY(rt_cuda_gemm_new(c, &shape, align, &p->gemm));
  for (int i = 0; i < 3; i++)
    RT_TRY(new_block(
        c, size * size * rt_dtype[i < 2 ? dtype : shape.c_dtype].bytes,
        &p->args[i]));
  RT_TRY(fill_operands(p, s, dtype, size * size));
  c->gemm_bytes = rt_cuda_gemm_bytes();
  MoertStatus st = new_block(c, c->gemm_bytes, &workspace);
  c->gemm_workspace = workspace;
  if (st == MOERT_OK) st = rt_steady(multiply, p, out_seconds);
  free_block(c, workspace);
  c->gemm_workspace = before;
  c->gemm_bytes = bytes_before;
  return st;
}

MoertStatus rt_cuda_time_product(const MoertSession *s, int dtype, int64_t size,
                                 double *out_seconds) {
  Product p = {.c = s->cuda};
  RT_TRY(rt_cuda_enter(p.c));
  MoertStatus st = time_product(&p, s, dtype, size, out_seconds);
  for (int i = 0; i < 3; i++)
    free_block(p.c, p.args[i]);
  rt_cuda_gemm_free(p.c, p.gemm);
  rt_cuda_leave(p.c);
  return st;
}

/* ---- the copy ------------------------------------------------------------ */

typedef struct Copy {
  RtCuda *c;
  void *from, *to;
} Copy;

static MoertStatus copy(void *user) {
  Copy *p = user;
  RT_TRY(RT_CU(p->c, cuMemcpyDtoDAsync(rt_cu_address(p->to),
                                       rt_cu_address(p->from), RT_COPY_BYTES,
                                       p->c->stream)));
  return RT_CU(p->c, cuStreamSynchronize(p->c->stream));
}

MoertStatus rt_cuda_time_copy(const MoertSession *s, double *out_seconds) {
  Copy p = {.c = s->cuda};
  RT_TRY(rt_cuda_enter(p.c));
  MoertStatus st = new_block(p.c, RT_COPY_BYTES, &p.from);
  if (st == MOERT_OK) st = new_block(p.c, RT_COPY_BYTES, &p.to);
  if (st == MOERT_OK) st = rt_steady(copy, &p, out_seconds);
  free_block(p.c, p.from);
  free_block(p.c, p.to);
  rt_cuda_leave(p.c);
  return st;
}
