/* cudasim_async.c: what the stand-in for libcuda.so.1 has of sm_90a, with
 * numbers that plain loops make: products of warpgroups of every layout of
 * their operands, and boxes of tensors. What must fail is in the last cases,
 * and in tests/cudasim/async.ptx.
 *
 * Layouts are those of the PTX ISA's figures: rows of a swizzle's width, in
 * which groups of 16 bytes change places with the number of the row. */
#include "../cudasim/cuda_api.h"
#include "tiny.h"

#include <dlfcn.h>
#include <stdarg.h>

#define CALLS(X)                                                             \
  X(cuInit) X(cuDevicePrimaryCtxRetain) X(cuDevicePrimaryCtxReset_v2)        \
  X(cuCtxSetCurrent) X(cuMemAlloc_v2) X(cuMemcpyHtoD_v2) X(cuMemcpyDtoH_v2)  \
  X(cuModuleLoadDataEx) X(cuModuleGetFunction) X(cuFuncSetAttribute)         \
  X(cuLaunchKernel) X(cuCtxSynchronize) X(cuTensorMapEncodeTiled)
#define DECLARE(name) static __typeof__(&name) p_##name;
CALLS(DECLARE)
#undef DECLARE

enum { SHARED_MOST = 8, NO_SWIZZLE = 16 };

static void open_library(void) {
  void *lib = dlopen(beside("../tests/cudasim/libcuda.so.1"), RTLD_NOW);
  if (!lib) {
    printf("not ok cudasim_async: %s\n", dlerror());
    exit(1);
  }
#define FIND(name) *(void **)&p_##name = dlsym(lib, #name);
  CALLS(FIND)
#undef FIND
}

/* ---- text and memory ----------------------------------------------------- */

static char ptx[1 << 16];
static size_t ptx_n;

__attribute__((format(printf, 1, 2))) static void add(const char *format, ...) {
  va_list args;
  va_start(args, format);
  ptx_n += (size_t)vsnprintf(ptx + ptx_n, sizeof ptx - ptx_n, format, args);
  va_end(args);
}

static CUdeviceptr to_device(const void *data, size_t bytes) {
  CUdeviceptr at = 0;
  CUresult r = p_cuMemAlloc_v2(&at, bytes);
  if (!r && data) r = p_cuMemcpyHtoD_v2(at, data, bytes);
  if (r) exit(1);
  return at;
}

/* Loads the text and runs its one kernel by 128 threads. */
static CUresult run_text(const char *kernel, int shared, void **params) {
  CUmodule m;
  CUfunction f;
  CUresult r = p_cuModuleLoadDataEx(&m, ptx, 0, NULL, NULL);
  if (!r) r = p_cuModuleGetFunction(&f, m, kernel);
  if (!r) r = p_cuFuncSetAttribute(f, SHARED_MOST, shared);
  if (!r)
    r = p_cuLaunchKernel(f, 1, 1, 1, 128, 1, 1, (unsigned)shared, NULL, params,
                         NULL);
  return r ? r : p_cuCtxSynchronize();
}

static void fresh_context(void) {
  CUcontext x;
  if (p_cuDevicePrimaryCtxReset_v2(0) || p_cuDevicePrimaryCtxRetain(&x, 0) ||
      p_cuCtxSetCurrent(x))
    exit(1);
}

static uint16_t bf16(int v) {
  float f = (float)v;
  uint32_t bits;
  memcpy(&bits, &f, 4);
  return (uint16_t)(bits >> 16); /* small integers have no more digits */
}

static int some(int k) {
  return (int)((uint32_t)(k + 1) * 2654435761u >> 16) % 7 - 3;
}

/* Which group of 16 bytes of a row stands where: Figures 156 to 163. */
static int turned(int span, int row, int group) {
  switch (span) {
  case 128: return group ^ row % 8;
  case 64: return group ^ row / 2 % 4;
  case 32: return group ^ row / 4 % 2;
  }
  return group;
}

/* ---- operands of products ------------------------------------------------ */

enum { DEPTH = 64, STEP = 16, M = 64, IMAGE = 64 << 10 };

/* An operand of `n` rows (or columns) in an image of shared memory. */
typedef struct Layout {
  int n, span;
  bool across;
  int base, leading, stride; /* bytes */
} Layout;

/* Distances that are not the dense ones, so that a reader who takes one for
 * the other is wrong. */
static Layout layout(int n, int span, bool across, int base) {
  Layout l = {n, span, across, base, 0, 0};
  int pad = span == NO_SWIZZLE ? 16 : 8 * span; /* turns begin anew */
  l.stride = 8 * span + pad;
  int groups = (across && span != NO_SWIZZLE ? DEPTH : n) / 8;
  l.leading = groups * l.stride + pad;
  return l;
}

static int place(const Layout *l, int line, int k) {
  int inner = l->across ? line : k, outer = l->across ? k : line;
  int wide = l->span / 2, column = inner % wide, row = outer % 8;
  int at = l->base + row * l->span + column % 8 * 2 +
           turned(l->span, row, column / 8) * 16;
  if (l->across && l->span == NO_SWIZZLE)
    return at + inner / wide * l->stride + outer / 8 * l->leading;
  return at + inner / wide * l->leading + outer / 8 * l->stride;
}

static int end_of(const Layout *l) {
  int most = 0;
  for (int line = 0; line < l->n; line++)
    for (int k = 0; k < DEPTH; k++)
      if (place(l, line, k) > most) most = place(l, line, k);
  return (most + 1024) / 1024 * 1024;
}

/* Where a step's operand begins: its first value, as if nothing were turned.
 * Along the depth, a swizzled row has several steps side by side. */
static uint64_t descriptor(const Layout *l, int step) {
  static const int modes[] = {[8] = 1, [4] = 2, [2] = 3, [1] = 0};
  int k = step * STEP, wide = l->span / 2, at = l->base;
  if (!l->across) at += k / wide * l->leading + k % wide * 2;
  else at += k / 8 * (l->span == NO_SWIZZLE ? l->leading : l->stride);
  return (uint64_t)at >> 4 | (uint64_t)l->leading >> 4 << 16 |
         (uint64_t)l->stride >> 4 << 32 | (uint64_t)modes[l->span / 16] << 62;
}

/* ---- products ------------------------------------------------------------ */

static void add_product(int n, bool a_across, bool b_across, int step) {
  add("  ld.param.u64 %%d0, [a%d];\n  ld.param.u64 %%d1, [b%d];\n"
      "  add.u64 %%d0, %%d0, %%base;\n  add.u64 %%d1, %%d1, %%base;\n"
      "  setp.ne.b32 %%more, %d, 0;\n"
      "  wgmma.mma_async.sync.aligned.m64n%dk16.f32.bf16.bf16 {",
      step, step, step, n);
  for (int k = 0; k < n / 2; k++)
    add("%s%%f%d", k ? ", " : "", k);
  add("}, %%d0, %%d1, %%more, 1, %d, %d, %d;\n", step == 3 ? -1 : 1, a_across,
      b_across);
}

/* Register k of a thread: row 16 (warp) + lane / 4 + 8 (k / 2 % 2), column
 * 8 (k / 4) + 2 (lane % 4) + k % 2. */
static void add_stores(int n) {
  add("  shr.u32 %%r1, %%r0, 5;\n  and.b32 %%r2, %%r0, 31;\n"
      "  shr.u32 %%r3, %%r2, 2;\n  mad.lo.u32 %%r3, %%r1, 16, %%r3;\n"
      "  and.b32 %%r2, %%r2, 3;\n  mul.lo.u32 %%r2, %%r2, 2;\n"
      "  mad.lo.u32 %%r3, %%r3, %d, %%r2;\n"
      "  ld.param.u64 %%d0, [out];\n  mad.wide.u32 %%d0, %%r3, 4, %%d0;\n",
      n);
  for (int k = 0; k < n / 2; k++)
    add("  st.global.f32 [%%d0+%d], %%f%d;\n",
        4 * (k / 2 % 2 * 8 * n + k / 4 * 8 + k % 2), k);
}

/* The image goes to shared memory word by word; then four products. */
static void write_kernel(int n, bool a_across, bool b_across, int words) {
  ptx_n = 0;
  add(".version 8.0\n.target sm_90a\n.address_size 64\n"
      ".extern .shared .align 1024 .b8 s[];\n.visible .entry product("
      ".param .u64 image, .param .u64 out");
  for (int k = 0; k < DEPTH / STEP; k++)
    add(", .param .u64 a%d, .param .u64 b%d", k, k);
  add(") {\n  .reg .pred %%more, %%p;\n  .reg .b32 %%r<8>;\n"
      "  .reg .b64 %%d<4>;\n  .reg .b64 %%base;\n  .reg .f32 %%f<128>;\n"
      "  mov.u32 %%r0, %%tid.x;\n  ld.param.u64 %%d0, [image];\n"
      "  mov.u32 %%r1, %%r0;\n  mov.u32 %%r4, s;\nCOPY:\n"
      "  mad.wide.u32 %%d1, %%r1, 4, %%d0;\n  ld.global.u32 %%r2, [%%d1];\n"
      "  mad.lo.u32 %%r3, %%r1, 4, %%r4;\n  st.shared.u32 [%%r3], %%r2;\n"
      "  add.u32 %%r1, %%r1, 128;\n  setp.lt.u32 %%p, %%r1, %d;\n"
      "  @%%p bra COPY;\n  fence.proxy.async.shared::cta;\n  bar.sync 0;\n"
      "  shr.u32 %%r4, %%r4, 4;\n  cvt.u64.u32 %%base, %%r4;\n"
      "  wgmma.fence.sync.aligned;\n",
      words);
  for (int step = 0; step < DEPTH / STEP; step++)
    add_product(n, a_across, b_across, step);
  add("  wgmma.commit_group.sync.aligned;\n"
      "  wgmma.wait_group.sync.aligned 0;\n");
  add_stores(n);
  add("  ret;\n}\n");
}

static void fill(uint8_t *image, const Layout *l, int seed) {
  for (int line = 0; line < l->n; line++)
    for (int k = 0; k < DEPTH; k++) {
      uint16_t v = bf16(some(seed + line * DEPTH + k));
      memcpy(image + place(l, line, k), &v, 2);
    }
}

/* The last step's sign of a was turned. */
static float expected(int m, int column, int seed_b) {
  int sum = 0;
  for (int k = 0; k < DEPTH; k++)
    sum += (k / STEP == 3 ? -1 : 1) * some(m * DEPTH + k) *
           some(seed_b + column * DEPTH + k);
  return (float)sum;
}

static void check_product(int n, int span_a, bool across_a, int span_b,
                          bool across_b) {
  enum { SEED_B = 10007 };
  static uint8_t image[IMAGE];
  static float out[M * 256];
  char name[128];
  Layout a = layout(M, span_a, across_a, 0);
  Layout b = layout(n, span_b, across_b, end_of(&a));
  int bytes = end_of(&b);
  memset(image, 0xff, sizeof image); /* NaNs between the values */
  fill(image, &a, 0);
  fill(image, &b, SEED_B);
  fresh_context();
  CUdeviceptr from = to_device(image, sizeof image);
  CUdeviceptr to = to_device(NULL, sizeof out);
  uint64_t d[2 * DEPTH / STEP];
  void *params[2 + 2 * DEPTH / STEP] = {&from, &to};
  for (int k = 0; k < 2 * DEPTH / STEP; k++) {
    d[k] = descriptor(k % 2 ? &b : &a, k / 2);
    params[2 + k] = &d[k];
  }
  write_kernel(n, across_a, across_b, bytes / 4);
  CUresult r = run_text("product", bytes, params);
  if (!r)
    r = p_cuMemcpyDtoH_v2(out, to, (size_t)(M * n) * sizeof *out);
  int wrong = 0;
  for (int k = 0; k < M * n; k++)
    wrong += out[k] != expected(k / n, k % n, SEED_B);
  static const char *const ways[] = {"along", "across"};
  snprintf(name, sizeof name, "wgmma n%d, a %d %s, b %d %s", n, span_a,
           ways[across_a], span_b, ways[across_b]);
  CHECK(name, !r && !wrong, "status %d, %d of %d wrong", (int)r, wrong, M * n);
}

/* Each layout on either side, and the widest shape. */
static void check_products(void) {
  static const int spans[] = {16, 32, 64, 128};
  for (int k = 0; k < 8; k++) {
    int span = spans[k / 2];
    check_product(64, span, k % 2, spans[3 - k / 2], k / 2 % 2);
    if (span < 128) check_product(8, 128, k % 2, 16, span == 32);
  }
  check_product(128, 128, false, 128, true);
  check_product(64, 128, true, 128, true);
}

/* ---- boxes --------------------------------------------------------------- */

enum { ROWS = 20, COLUMNS = 72, DEPTHS = 3, BOX_ROWS = 16 };

static CUtensorMap map;
static const uint32_t ones[5] = {1, 1, 1, 1, 1};

/* A box of `span` bytes by BOX_ROWS of one of DEPTHS matrices. */
static CUresult encode(CUdeviceptr at, int span, int swizzle) {
  uint64_t dims[3] = {COLUMNS, ROWS, DEPTHS};
  uint64_t strides[2] = {COLUMNS * 2, ROWS * COLUMNS * 2};
  uint32_t box[3] = {(uint32_t)span / 2, BOX_ROWS, 1};
  return p_cuTensorMapEncodeTiled(&map, 9, 3, (void *)(uintptr_t)at, dims,
                                  strides, box, ones, 0, (unsigned)swizzle, 0,
                                  0);
}

static const char copy_text[] =
    ".version 8.0\n.target sm_90a\n.address_size 64\n"
    ".extern .shared .align 1024 .b8 s[];\n"
    ".visible .entry copy(.param .align 64 .b8 map[128], .param .u64 out,"
    " .param .u32 c0, .param .u32 c1, .param .u32 c2, .param .u32 words) {\n"
    "  .reg .pred %p<3>;\n  .reg .b32 %r<12>;\n  .reg .b64 %d<4>;\n"
    "  .shared .align 8 .b8 bar[8];\n"
    "  mov.u32 %r0, %tid.x;\n  mov.u32 %r1, bar;\n  mov.u32 %r2, s;\n"
    "  ld.param.u32 %r3, [c0];\n  ld.param.u32 %r4, [c1];\n"
    "  ld.param.u32 %r5, [c2];\n  ld.param.u32 %r6, [words];\n"
    "  mul.lo.u32 %r7, %r6, 4;\n"
    "  mov.b64 %d0, map;\n  cvta.param.u64 %d0, %d0;\n"
    "  setp.ne.u32 %p0, %r0, 0;\n  @%p0 bra WAIT;\n"
    "  mbarrier.init.shared::cta.b64 [%r1], 1;\n"
    "  fence.proxy.async.shared::cta;\n"
    "  prefetch.tensormap [%d0];\n"
    "  mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], %r7;\n"
    "  cp.async.bulk.tensor.3d.shared::cluster.global.tile"
    ".mbarrier::complete_tx::bytes [%r2], [%d0, {%r3, %r4, %r5}], [%r1];\n"
    "WAIT:\n  bar.sync 0;\nAGAIN:\n"
    "  mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r1], 0;\n"
    "  @!%p1 bra AGAIN;\n"
    "  ld.param.u64 %d1, [out];\nBACK:\n"
    "  setp.ge.u32 %p2, %r0, %r6;\n  @%p2 bra END;\n"
    "  mad.lo.u32 %r8, %r0, 4, %r2;\n  ld.shared.u32 %r9, [%r8];\n"
    "  mad.wide.u32 %d2, %r0, 4, %d1;\n  st.global.u32 [%d2], %r9;\n"
    "  add.u32 %r0, %r0, 128;\n  bra BACK;\nEND:\n  ret;\n}\n";

static uint16_t element(int c0, int c1, int c2) {
  bool inside = c0 >= 0 && c0 < COLUMNS && c1 >= 0 && c1 < ROWS && c2 >= 0 &&
                c2 < DEPTHS;
  return inside ? (uint16_t)((c2 * ROWS + c1) * COLUMNS + c0 + 1) : 0;
}

static void check_box(int span, int swizzle, int c0, int c1, int c2) {
  static uint16_t data[DEPTHS * ROWS * COLUMNS];
  static uint16_t out[BOX_ROWS * 64];
  char name[128];
  for (int k = 0; k < DEPTHS * ROWS * COLUMNS; k++)
    data[k] = (uint16_t)(k + 1);
  fresh_context();
  CUdeviceptr from = to_device(data, sizeof data);
  CUdeviceptr to = to_device(NULL, sizeof out);
  int words = span * BOX_ROWS / 4, wrong = 0;
  void *params[] = {&map, &to, &c0, &c1, &c2, &words};
  memcpy(ptx, copy_text, sizeof copy_text);
  CUresult r = encode(from, span, swizzle);
  if (!r) r = run_text("copy", span * BOX_ROWS, params);
  if (!r) r = p_cuMemcpyDtoH_v2(out, to, (size_t)words * 4);
  for (int row = 0; row < BOX_ROWS; row++)
    for (int k = 0; k < span / 2; k++) {
      int at = row * span / 2 + turned(swizzle ? span : 16, row, k / 8) * 8;
      wrong += out[at + k % 8] != element(c0 + k, c1 + row, c2);
    }
  snprintf(name, sizeof name, "box of %d bytes, swizzle %d, from %d %d %d",
           span, swizzle, c0, c1, c2);
  CHECK(name, !r && !wrong, "status %d, %d of %d wrong", (int)r, wrong,
        2 * words);
}

static void check_boxes(void) {
  check_box(128, 3, 8, 0, 0);
  check_box(128, 3, 40, 9, 2); /* over two ends */
  check_box(128, 3, -5, -3, 1);
  check_box(64, 2, 3, 4, 1);
  check_box(32, 1, 16, 0, 2);
  check_box(32, 0, 1, 2, 3); /* all outside */
  check_box(96, 0, 7, 1, 0);
}

/* The kernel with a part of its text replaced, which must be seen. */
static void check_mistake(const char *name, const char *part, const char *by,
                          int swizzle, const char *error) {
  static uint16_t data[DEPTHS * ROWS * COLUMNS];
  char log[1024] = "";
  fresh_context();
  CUdeviceptr from = to_device(data, sizeof data);
  CUdeviceptr to = to_device(NULL, BOX_ROWS * 128);
  int zero = 0, words = BOX_ROWS * 32;
  void *params[] = {&map, &to, &zero, &zero, &zero, &words};
  const char *at = strstr(copy_text, part);
  ptx_n = 0;
  add("%.*s%s%s", (int)(at - copy_text), copy_text, by, at + strlen(part));
  remove(scratch("log"));
  CUresult r = encode(from, 128, swizzle);
  if (!strcmp(part, "map[128]")) memset(&map, 0, sizeof map);
  if (!r) r = run_text("copy", BOX_ROWS * 128 + 1024, params);
  FILE *f = fopen(scratch("log"), "r");
  if (f && !fgets(log, sizeof log, f)) log[0] = 0;
  if (f) fclose(f);
  CHECK(name, r && strstr(log, error), "status %d: %s", (int)r, log);
}

static void check_mistakes(void) {
  check_mistake("copy: nobody waits", "@!%p1 bra AGAIN;", "", 3,
                "shared memory where a copy is still under way");
  check_mistake("copy: barrier without a fence",
                "fence.proxy.async.shared::cta;", "", 3,
                "which thread 0 wrote, with no fence.proxy.async in between");
  check_mistake("copy: fewer bytes are expected", "mul.lo.u32 %r7, %r6, 4;",
                "mov.u32 %r7, %r6;", 3,
                "2048 bytes arrive at an mbarrier that expects 512");
  check_mistake("copy: more bytes are expected", "mul.lo.u32 %r7, %r6, 4;",
                "mul.lo.u32 %r7, %r6, 8;", 3,
                "waits for a phase that nobody ends");
  check_mistake("copy: to no multiple of 128", "mov.u32 %r2, s;",
                "mov.u32 %r2, s;\n  add.u32 %r2, %r2, 16;", 3,
                "the box goes to no multiple of 128");
  check_mistake("copy: beyond shared memory", "mov.u32 %r2, s;",
                "mov.u32 %r2, s;\n  add.u32 %r2, %r2, 2048;", 3,
                "out of bounds: copy of 16 bytes of shared memory");
  check_mistake("copy: a map of zeros", "map[128]", "map[128]", 3,
                "this is no tensor map");
  check_mistake("copy: a map in local memory", "cvta.param.u64 %d0, %d0;",
                ".local .align 64 .b8 l[128];\n  mov.u64 %d0, l;\n"
                "  cvta.local.u64 %d0, %d0;",
                3, "a tensor map lies in global memory or among parameters");
  check_mistake("copy: another rank", "tensor.3d", "tensor.2d", 3,
                "expected [map, {2 coordinates}]");
  check_mistake("copy: the block ends", "WAIT:\n", "WAIT:\n  ret;\n", 3,
                "the block ends before this copy has arrived");
  check_mistake("copy: its place is written", "@!%p1 bra AGAIN;",
                "setp.eq.u32 %p1, %r0, 0;\n  @%p1 st.shared.u32 [%r2], %r2;", 3,
                "of shared memory where a copy is still under way");
}

/* ---- what a driver refuses ----------------------------------------------- */

static void check_refusals(void) {
  static const struct {
    const char *name;
    uint64_t address, dim, stride;
    uint32_t box, rows, step;
    unsigned swizzle;
  } rows[] = {
      {"is fine", 0, 64, 128, 64, 256, 1, 3},
      {"address at 8 bytes", 8, 64, 128, 64, 16, 1, 3},
      {"stride of 8 bytes", 0, 64, 136, 64, 16, 1, 3},
      {"empty tensor", 0, 0, 128, 64, 16, 1, 3},
      {"box of 257 rows", 0, 64, 128, 64, 257, 1, 3},
      {"box of no rows", 0, 64, 128, 64, 0, 1, 3},
      {"box of 12 bytes", 0, 64, 128, 6, 16, 1, 0},
      {"box wider than 128 bytes", 0, 128, 256, 128, 16, 1, 3},
      {"box wider than 64 bytes", 0, 64, 128, 64, 16, 1, 2},
      {"box wider than 32 bytes", 0, 64, 128, 32, 16, 1, 1},
      {"swizzle 4", 0, 64, 128, 64, 16, 1, 4},
      {"no step", 0, 64, 128, 64, 16, 0, 3},
  };
  fresh_context();
  CUdeviceptr at = to_device(NULL, 1 << 16);
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    uint64_t dims[2] = {rows[k].dim, 100};
    uint32_t box[2] = {rows[k].box, rows[k].rows};
    uint32_t steps[2] = {1, rows[k].step};
    char name[64];
    CUresult r = p_cuTensorMapEncodeTiled(
        &map, 9, 2, (void *)(uintptr_t)(at + rows[k].address), dims,
        &rows[k].stride, box, steps, 0, rows[k].swizzle, 0, 0);
    snprintf(name, sizeof name, "tensor map: %s", rows[k].name);
    CHECK(name, r == (k ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS),
          "status %d", (int)r);
  }
}

int main(void) {
  setenv("CUDASIM_LOG", scratch("log"), 1);
  open_library();
  if (p_cuInit(0)) return 1;
  check_products();
  check_boxes();
  check_mistakes();
  check_refusals();
  scratch_remove();
  return failures != 0;
}
