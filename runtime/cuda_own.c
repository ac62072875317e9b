/* cuda_own.c: the runtime's own kernels, as PTX.
 *
 *   own_f32, own_f64, own_bf16   a product that cuBLASLt has no form for, with
 *                                strides of any kind: one thread an element of
 *                                c, which sums over k in order, as gemm.c's
 *                                plain loops do on the CPU
 *   own_copy                     words of 8 bytes into memory of the host's
 *
 * Registers: %rd0 to %rd2 are a, b, c; %rd3 the element; %rd4, %rd5 its row and
 * column; %rd6 its batch. */
#include "gpu.h"

enum { THREADS = 256 };

#define LOAD_F32(to, at) "  ld.global.f32 " to ", [" at "];\n"
#define LOAD_F64(to, at) "  ld.global.f64 " to ", [" at "];\n"
/* The upper half of an f32. */
#define LOAD_BF16(to, at)               \
  "  ld.global.u16 %h0, [" at "];\n"    \
  "  cvt.u32.u16 %r4, %h0;\n"           \
  "  shl.b32 %r4, %r4, 16;\n"           \
  "  mov.b32 " to ", %r4;\n"

/* to = base + (%rd6 * stride0 + at * stride1) << shift */
#define PLACE(to, base, stride0, at, stride1, shift) \
  "  ld.param.u64 %rd20, [" stride0 "];\n"           \
  "  ld.param.u64 %rd21, [" stride1 "];\n"           \
  "  mul.lo.u64 %rd20, %rd20, %rd6;\n"               \
  "  mul.lo.u64 %rd21, %rd21, " at ";\n"             \
  "  add.u64 %rd20, %rd20, %rd21;\n"                 \
  "  shl.b64 %rd20, %rd20, " shift ";\n"             \
  "  add.u64 " to ", " base ", %rd20;\n"

/* Of T in registers %x; `in` and `out` are shifts for the sizes of elements. */
#define PRODUCT(name, T, zero, LOAD, in, out)                            \
  ".visible .entry " name "(\n"                                          \
  "  .param .u64 a, .param .u64 b, .param .u64 c, .param .u64 total,\n"  \
  "  .param .u64 m, .param .u64 n, .param .u64 k, .param .u64 more,\n"   \
  "  .param .u64 a0, .param .u64 a1, .param .u64 a2,\n"                  \
  "  .param .u64 b0, .param .u64 b1, .param .u64 b2,\n"                  \
  "  .param .u64 c0, .param .u64 c1, .param .u64 c2)\n"                  \
  "{\n"                                                                  \
  "  .reg .pred %p<4>;\n"                                                \
  "  .reg .b16 %h<1>;\n"                                                 \
  "  .reg .b32 %r<5>;\n"                                                 \
  "  .reg .b64 %rd<24>;\n"                                               \
  "  .reg ." T " %x<4>;\n"                                               \
  "  ld.param.u64 %rd0, [a];\n"                                          \
  "  ld.param.u64 %rd1, [b];\n"                                          \
  "  ld.param.u64 %rd2, [c];\n"                                          \
  "  ld.param.u64 %rd7, [total];\n"                                      \
  "  ld.param.u64 %rd8, [m];\n"                                          \
  "  ld.param.u64 %rd9, [n];\n"                                          \
  "  ld.param.u64 %rd10, [k];\n"                                         \
  "  ld.param.u64 %rd11, [more];\n"                                      \
  "  mov.u32 %r0, %ctaid.x;\n"                                           \
  "  mov.u32 %r1, %ntid.x;\n"                                            \
  "  mov.u32 %r2, %tid.x;\n"                                             \
  "  mul.wide.u32 %rd3, %r0, %r1;\n"                                     \
  "  cvt.u64.u32 %rd12, %r2;\n"                                          \
  "  add.u64 %rd3, %rd3, %rd12;\n"                                       \
  "  setp.ge.u64 %p0, %rd3, %rd7;\n"                                     \
  "  @%p0 bra done;\n"                                                   \
  "  rem.u64 %rd5, %rd3, %rd9;\n"                                        \
  "  div.u64 %rd12, %rd3, %rd9;\n"                                       \
  "  rem.u64 %rd4, %rd12, %rd8;\n"                                       \
  "  div.u64 %rd6, %rd12, %rd8;\n"                                       \
  PLACE("%rd0", "%rd0", "a0", "%rd4", "a1", in)                          \
  PLACE("%rd1", "%rd1", "b0", "%rd5", "b2", in)                          \
  PLACE("%rd2", "%rd2", "c0", "%rd4", "c1", out)                         \
  "  ld.param.u64 %rd13, [c2];\n"                                        \
  "  mul.lo.u64 %rd13, %rd13, %rd5;\n"                                   \
  "  shl.b64 %rd13, %rd13, " out ";\n"                                   \
  "  add.u64 %rd2, %rd2, %rd13;\n"                                       \
  "  ld.param.u64 %rd14, [a2];\n"                                        \
  "  shl.b64 %rd14, %rd14, " in ";\n"                                    \
  "  ld.param.u64 %rd15, [b1];\n"                                        \
  "  shl.b64 %rd15, %rd15, " in ";\n"                                    \
  "  mov." T " %x0, " zero ";\n"                                         \
  "next:\n"                                                              \
  "  setp.eq.u64 %p1, %rd10, 0;\n"                                       \
  "  @%p1 bra summed;\n"                                                 \
  LOAD("%x1", "%rd0")                                                    \
  LOAD("%x2", "%rd1")                                                    \
  "  mul.rn." T " %x1, %x1, %x2;\n"                                      \
  "  add.rn." T " %x0, %x0, %x1;\n"                                      \
  "  add.u64 %rd0, %rd0, %rd14;\n"                                       \
  "  add.u64 %rd1, %rd1, %rd15;\n"                                       \
  "  sub.u64 %rd10, %rd10, 1;\n"                                         \
  "  bra next;\n"                                                        \
  "summed:\n"                                                            \
  "  setp.eq.u64 %p2, %rd11, 0;\n"                                       \
  "  @%p2 bra store;\n"                                                  \
  "  ld.global." T " %x3, [%rd2];\n"                                     \
  "  add.rn." T " %x0, %x3, %x0;\n"                                      \
  "store:\n"                                                             \
  "  st.global." T " [%rd2], %x0;\n"                                     \
  "done:\n"                                                              \
  "  ret;\n"                                                             \
  "}\n"

#define HEAD ".version 7.0\n.target sm_80\n.address_size 64\n"

typedef struct Own {
  const char *name, *ptx;
} Own;

static const Own products[MOERT_DTYPE_COUNT] = {
    [MOERT_bf16] = {"own_bf16", HEAD PRODUCT("own_bf16", "f32", "0f00000000",
                                             LOAD_BF16, "1", "2")},
    [MOERT_f32] = {"own_f32", HEAD PRODUCT("own_f32", "f32", "0f00000000",
                                           LOAD_F32, "2", "2")},
    [MOERT_f64] = {"own_f64", HEAD PRODUCT("own_f64", "f64",
                                           "0d0000000000000000", LOAD_F64, "3",
                                           "3")},
};

static const Own copy = {
    "own_copy",
    HEAD
    ".visible .entry own_copy(\n"
    "  .param .u64 to, .param .u64 from, .param .u64 words)\n"
    "{\n"
    "  .reg .pred %p<1>;\n"
    "  .reg .b32 %r<3>;\n"
    "  .reg .b64 %rd<7>;\n"
    "  ld.param.u64 %rd0, [to];\n"
    "  ld.param.u64 %rd1, [from];\n"
    "  ld.param.u64 %rd2, [words];\n"
    "  mov.u32 %r0, %ctaid.x;\n"
    "  mov.u32 %r1, %ntid.x;\n"
    "  mov.u32 %r2, %tid.x;\n"
    "  mul.wide.u32 %rd3, %r0, %r1;\n"
    "  cvt.u64.u32 %rd4, %r2;\n"
    "  add.u64 %rd3, %rd3, %rd4;\n"
    "  setp.ge.u64 %p0, %rd3, %rd2;\n"
    "  @%p0 bra done;\n"
    "  shl.b64 %rd3, %rd3, 3;\n"
    "  add.u64 %rd4, %rd1, %rd3;\n"
    "  add.u64 %rd5, %rd0, %rd3;\n"
    "  ld.global.u64 %rd6, [%rd4];\n"
    "  st.global.u64 [%rd5], %rd6;\n"
    "done:\n"
    "  ret;\n"
    "}\n"};

/* Loaded when first needed: most programs need none of them. */
static MoertStatus find(RtCuda *c, const Own *own, RtOwn *out) {
  if (!out->module) RT_TRY(rt_cuda_module(c, own->ptx, &out->module));
  return RT_CU(c, cuModuleGetFunction(&out->function, out->module, own->name));
}

MoertStatus rt_cuda_own_product(RtCuda *c, int dtype) {
  if (products[dtype].name)
    return find(c, &products[dtype], &c->own_product[dtype]);
  return rt_fail(MOERT_UNSUPPORTED, "no matrix product in %s",
                 rt_dtype[dtype].name);
}

MoertStatus rt_cuda_own_copy(RtCuda *c) {
  return find(c, &copy, &c->own_copy);
}

void rt_cuda_own_free(RtCuda *c) {
  for (int i = 0; i < MOERT_DTYPE_COUNT; i++)
    if (c->own_product[i].module)
      c->cu.cuModuleUnload(c->own_product[i].module);
  if (c->own_copy.module) c->cu.cuModuleUnload(c->own_copy.module);
}

/* One thread each of `n`. */
static MoertStatus launch(RtCuda *c, CUfunction f, int64_t n, uint64_t *values,
                          int n_values) {
  enum { MOST = 20 };
  void *params[MOST];
  for (int i = 0; i < n_values; i++)
    params[i] = &values[i];
  unsigned blocks = (unsigned)((n + THREADS - 1) / THREADS);
  if (n == 0) return MOERT_OK;
  return RT_CU(c, cuLaunchKernel(f, blocks, 1, 1, THREADS, 1, 1, 0, c->stream,
                                 params, NULL));
}

MoertStatus rt_cuda_run_copy(RtCuda *c, void *to, const void *from,
                             int64_t bytes) {
  int64_t words = (bytes + 7) / 8;
  uint64_t values[] = {rt_cu_address(to), rt_cu_address(from),
                       (uint64_t)words};
  return launch(c, c->own_copy.function, words, values,
                (int)COUNT_OF(values));
}

MoertStatus rt_cuda_run_product(RtCuda *c, const MoertGemm *g,
                                void *const *args) {
  int64_t total = g->batch * g->m * g->n;
  uint64_t values[17] = {
      rt_cu_address(args[0]), rt_cu_address(args[1]), rt_cu_address(args[2]),
      (uint64_t)total,        (uint64_t)g->m,         (uint64_t)g->n,
      (uint64_t)g->k,         g->accumulate != 0};
  for (int i = 0; i < 3; i++) {
    values[8 + i] = (uint64_t)g->a_stride[i];
    values[11 + i] = (uint64_t)g->b_stride[i];
    values[14 + i] = (uint64_t)g->c_stride[i];
  }
  return launch(c, c->own_product[g->dtype].function, total, values,
                (int)COUNT_OF(values));
}
