/* cudasim_driver.c: the stand-ins for libcuda and libcublasLt: streams whose
 * work is done as late as can be, graphs, events, several devices, what the
 * environment sets, and products. PTX is tested by cudasim.c. */
#include "../cudasim/cublaslt_api.h"
#include "tiny.h"

#include <dlfcn.h>
#include <math.h>
#include <sys/wait.h>

#define CALLS(X)                                                              \
  X(cuInit) X(cuDriverGetVersion) X(cuDeviceGetCount) X(cuDeviceGet)          \
  X(cuDeviceGetName) X(cuDeviceGetAttribute) X(cuDeviceTotalMem_v2)           \
  X(cuDevicePrimaryCtxRetain) X(cuDevicePrimaryCtxReset_v2)                   \
  X(cuCtxSetCurrent) X(cuCtxSynchronize) X(cuMemAlloc_v2) X(cuMemFree_v2)     \
  X(cuMemGetInfo_v2) X(cuMemHostAlloc) X(cuMemcpyHtoD_v2) X(cuMemcpyDtoH_v2)  \
  X(cuMemcpyHtoDAsync_v2) X(cuMemcpyDtoHAsync_v2) X(cuMemsetD32Async)         \
  X(cuModuleLoadDataEx) X(cuModuleGetFunction) X(cuModuleGetGlobal_v2)        \
  X(cuModuleUnload) X(cuFuncSetAttribute) X(cuFuncGetAttribute)               \
  X(cuLaunchKernel) X(cuStreamCreate) X(cuStreamSynchronize)                  \
  X(cuStreamWaitEvent) X(cuStreamBeginCapture_v2) X(cuStreamEndCapture)       \
  X(cuGraphInstantiateWithFlags) X(cuGraphLaunch) X(cuGraphExecDestroy)       \
  X(cuGraphDestroy) X(cuEventCreate) X(cuEventRecord) X(cuEventSynchronize)   \
  X(cuEventElapsedTime) X(cudasim_counter)
#define BLAS_CALLS(X)                                                         \
  X(cublasLtCreate) X(cublasLtMatmulDescCreate)                               \
  X(cublasLtMatmulDescSetAttribute) X(cublasLtMatrixLayoutCreate)             \
  X(cublasLtMatrixLayoutSetAttribute) X(cublasLtMatmulPreferenceCreate)       \
  X(cublasLtMatmulAlgoGetHeuristic) X(cublasLtMatmul)                         \
  X(cublasLtMatmulDescDestroy) X(cublasLtMatrixLayoutDestroy)                 \
  X(cublasLtMatmulPreferenceDestroy) X(cublasLtDestroy)
#define DECLARE(name) static __typeof__(&name) p_##name;
CALLS(DECLARE)
BLAS_CALLS(DECLARE)
#undef DECLARE

static void *open_library(const char *name) {
  char path[4096];
  snprintf(path, sizeof path, "../tests/cudasim/%s", name);
  void *lib = dlopen(beside(path), RTLD_NOW | RTLD_GLOBAL);
  if (!lib) {
    printf("not ok cudasim: %s\n", dlerror());
    exit(1);
  }
  return lib;
}

static void open_libraries(void) {
  void *lib = open_library("libcuda.so.1");
#define FIND(name) *(void **)&p_##name = dlsym(lib, #name);
  CALLS(FIND)
  lib = open_library("libcublasLt.so.12");
  BLAS_CALLS(FIND)
#undef FIND
}

/* CHECK that a call returns this. */
#define RETURNS(name, call, status)                       \
  do {                                                    \
    CUresult got = (call);                                \
    CHECK(name, got == (status), "%d from %s", got, #call); \
  } while (0)
/* One that is not tested here; the program ends where it fails. */
#define MUST(call)                                   \
  do {                                               \
    int got = (int)(call);                           \
    if (got) {                                       \
      printf("not ok cudasim: %d from %s\n", got, #call); \
      exit(1);                                       \
    }                                                \
  } while (0)

static const char ptx[] =
    ".version 7.4\n.target sm_80\n.address_size 64\n"
    ".global .u32 seven = 7;\n"
    /* a[i] += more */
    ".visible .entry add(.param .u64 a, .param .u32 more)\n{\n"
    ".reg .b32 %r<4>;\n.reg .b64 %rd<3>;\n"
    "mov.u32 %r0, %tid.x;\nld.param.u64 %rd0, [a];\n"
    "ld.param.u32 %r1, [more];\nmad.wide.u32 %rd1, %r0, 4, %rd0;\n"
    "ld.global.u32 %r2, [%rd1];\nadd.u32 %r2, %r2, %r1;\n"
    "st.global.u32 [%rd1], %r2;\nret;\n}\n"
    /* a[0] = number of the block */
    ".visible .entry last(.param .u64 a)\n{\n"
    ".reg .b32 %r<2>;\n.reg .b64 %rd<2>;\n"
    "mov.u32 %r0, %ctaid.x;\nld.param.u64 %rd0, [a];\n"
    "st.global.u32 [%rd0], %r0;\nret;\n}\n";

enum { N = 4, BYTES = N * 4 };

static CUfunction add, last;
static CUmodule module;
static CUdeviceptr a;
static uint32_t *pinned;

static void begin(void) {
  CUcontext x;
  MUST(p_cuInit(0));
  MUST(p_cuDevicePrimaryCtxReset_v2(0));
  MUST(p_cuDevicePrimaryCtxRetain(&x, 0));
  MUST(p_cuCtxSetCurrent(x));
  MUST(p_cuModuleLoadDataEx(&module, ptx, 0, NULL, NULL));
  MUST(p_cuModuleGetFunction(&add, module, "add"));
  MUST(p_cuModuleGetFunction(&last, module, "last"));
  MUST(p_cuMemAlloc_v2(&a, BYTES));
  MUST(p_cuMemHostAlloc((void **)&pinned, BYTES, 0));
}

static CUresult launch_add(CUdeviceptr to, uint32_t more, CUstream s) {
  void *params[] = {&to, &more};
  return p_cuLaunchKernel(add, 1, 1, 1, N, 1, 1, 0, s, params, NULL);
}

static uint32_t first_of(CUdeviceptr from) {
  uint32_t v[N] = {0};
  MUST(p_cuMemcpyDtoH_v2(v, from, BYTES));
  return v[0];
}

static bool log_has(const char *text) {
  char all[4096] = "";
  FILE *f = fopen(scratch("log"), "r");
  size_t n = f ? fread(all, 1, sizeof all - 1, f) : 0;
  all[n] = 0;
  if (f) fclose(f);
  return strstr(all, text) != NULL;
}

/* ---- streams ------------------------------------------------------------- */

static void test_late(void) {
  CUstream s;
  uint32_t plain[N] = {5, 5, 5, 5};
  begin();
  MUST(p_cuStreamCreate(&s, 1));
  pinned[0] = 1;
  MUST(p_cuMemcpyHtoDAsync_v2(a, pinned, BYTES, s));
  pinned[0] = 2;
  MUST(p_cuStreamSynchronize(s));
  CHECK("pinned memory is read late", first_of(a) == 2,
        "%u", first_of(a));
  MUST(p_cuMemcpyHtoDAsync_v2(a, plain, BYTES, s));
  plain[0] = 6;
  MUST(p_cuStreamSynchronize(s));
  CHECK("other memory at once", first_of(a) == 5,
        "%u", first_of(a));
  MUST(launch_add(a, 10, s));
  MUST(p_cuMemcpyDtoHAsync_v2(pinned, a, BYTES, s));
  CHECK("a result is not there before one waits", pinned[0] == 2, "%u",
        pinned[0]);
  MUST(p_cuStreamSynchronize(s));
  CHECK("but then", pinned[0] == 15, "%u", pinned[0]);
}

static void test_events(void) {
  CUstream s, t;
  CUevent e, f;
  float ms;
  begin();
  MUST(p_cuStreamCreate(&s, 1));
  MUST(p_cuStreamCreate(&t, 1));
  MUST(p_cuEventCreate(&e, 0));
  MUST(p_cuEventCreate(&f, 0));
  MUST(p_cuMemsetD32Async(a, 1, N, s));
  MUST(p_cuEventRecord(e, s));
  MUST(launch_add(a, 1, s));
  MUST(p_cuMemcpyDtoHAsync_v2(pinned, a, BYTES, t));
  pinned[0] = 9;
  p_cuStreamSynchronize(t);
  CHECK("streams do not wait for each other", pinned[0] != 2, "%u",
        pinned[0]);
  MUST(p_cuStreamWaitEvent(t, e, 0));
  MUST(p_cuMemcpyDtoHAsync_v2(pinned, a, BYTES, t));
  MUST(p_cuStreamSynchronize(t));
  CHECK("but for an event", pinned[0] == 1, "%u", pinned[0]);
  RETURNS("no time of what has not happened",
          (p_cuEventRecord(f, s), p_cuEventElapsedTime(&ms, e, f)),
          CUDA_ERROR_NOT_READY);
  MUST(p_cuEventSynchronize(f));
  RETURNS("the time between events", p_cuEventElapsedTime(&ms, e, f),
          CUDA_SUCCESS);
  CHECK("an event is waited for", first_of(a) == 2 && ms >= 0, "%g", ms);
}

static void test_graphs(void) {
  CUstream s, t;
  CUevent e, f;
  CUgraph g;
  CUgraphExec x;
  begin();
  MUST(p_cuStreamCreate(&s, 1));
  MUST(p_cuStreamCreate(&t, 1));
  MUST(p_cuEventCreate(&e, 0));
  MUST(p_cuEventCreate(&f, 0));
  uint64_t kernels = p_cudasim_counter("kernels");
  uint64_t launches = p_cudasim_counter("kernel_launches");
  uint64_t graphs = p_cudasim_counter("graph_launches");
  MUST(p_cuStreamBeginCapture_v2(s, 1));
  MUST(p_cuMemsetD32Async(a, 100, N, s));
  MUST(p_cuEventRecord(e, s));
  MUST(p_cuStreamWaitEvent(t, e, 0));
  MUST(launch_add(a, 1, t));
  MUST(p_cuEventRecord(f, t));
  MUST(p_cuStreamWaitEvent(s, f, 0));
  MUST(launch_add(a, 2, s));
  MUST(p_cuStreamEndCapture(s, &g));
  MUST(p_cuGraphInstantiateWithFlags(&x, g, 0));
  MUST(p_cuGraphDestroy(g));
  CHECK("what is captured is not done",
        p_cudasim_counter("kernels") == kernels, "kernels");
  MUST(p_cuGraphLaunch(x, s));
  MUST(launch_add(a, 5, s));
  MUST(p_cuGraphLaunch(x, s));
  MUST(p_cuStreamSynchronize(s));
  CHECK("a graph of two streams", first_of(a) == 103, "%u", first_of(a));
  CHECK("counters", p_cudasim_counter("kernels") == kernels + 5 &&
        p_cudasim_counter("kernel_launches") == launches + 1 &&
        p_cudasim_counter("graph_launches") == graphs + 2, "otherwise");
  MUST(p_cuGraphExecDestroy(x));

  MUST(p_cuStreamBeginCapture_v2(s, 1));
  RETURNS("a captured stream is not waited for", p_cuStreamSynchronize(s),
          CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  RETURNS("which ends the capture", p_cuStreamEndCapture(s, &g),
          CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  MUST(p_cuStreamBeginCapture_v2(s, 1));
  MUST(p_cuEventRecord(e, s));
  MUST(p_cuStreamWaitEvent(t, e, 0));
  MUST(launch_add(a, 1, t));
  RETURNS("a stream that does not come back", p_cuStreamEndCapture(s, &g),
          CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
}

/* ---- errors -------------------------------------------------------------- */

static void test_errors(void) {
  CUstream s;
  CUdeviceptr b;
  begin();
  MUST(p_cuStreamCreate(&s, 1));
  MUST(p_cuMemAlloc_v2(&b, BYTES));
  MUST(p_cuMemFree_v2(b));
  remove(scratch("log"));
  RETURNS("a launch tells later", launch_add(b, 1, s), CUDA_SUCCESS);
  RETURNS("memory that was freed", p_cuStreamSynchronize(s),
          CUDA_ERROR_ILLEGAL_ADDRESS);
  CHECK("which is said", log_has("kernel add, PTX line 13, block (0,0,0), "
                                 "thread (0,0,0): use after free: load of 4 "
                                 "bytes of global memory, byte 0 of 16 that "
                                 "were freed"), "otherwise");
  RETURNS("nothing goes on from there", p_cuMemAlloc_v2(&b, 4),
          CUDA_ERROR_ILLEGAL_ADDRESS);
  begin();
  uint8_t bytes[BYTES + 4] = {0};
  RETURNS("a copy that is too long", p_cuMemcpyHtoD_v2(a, bytes, BYTES + 4),
          CUDA_ERROR_INVALID_VALUE);
  RETURNS("twice freed", (p_cuMemFree_v2(a), p_cuMemFree_v2(a)),
          CUDA_ERROR_INVALID_VALUE);
  RETURNS("a module that is gone", (p_cuModuleUnload(module),
                                    p_cuModuleUnload(module)),
          CUDA_ERROR_INVALID_HANDLE);
}

static void test_module(void) {
  char log[128] = "";
  unsigned options[] = {5, 6};
  void *values[] = {log, (void *)sizeof log};
  CUmodule m;
  CUdeviceptr at;
  size_t bytes;
  int most;
  begin();
  RETURNS("bad PTX", p_cuModuleLoadDataEx(&m, ".version 8.0\n.target sm_80\nx",
                                          2, options, values),
          CUDA_ERROR_INVALID_PTX);
  CHECK("its log", !strcmp(log, "PTX line 3: expected a directive, not 'x'"),
        "%s", log);
  RETURNS("a cubin", p_cuModuleLoadDataEx(&m, "\177ELF", 0, NULL, NULL),
          CUDA_ERROR_NO_BINARY_FOR_GPU);
  MUST(p_cuModuleGetGlobal_v2(&at, &bytes, module, "seven"));
  uint32_t v = 0;
  MUST(p_cuMemcpyDtoH_v2(&v, at, bytes));
  CHECK("a variable", v == 7 && bytes == 4, "%u", v);
  RETURNS("shared memory beyond what a block may have",
          p_cuFuncSetAttribute(add, 8, 228 << 10), CUDA_ERROR_INVALID_VALUE);
  MUST(p_cuFuncSetAttribute(add, 8, 227 << 10));
  MUST(p_cuFuncGetAttribute(&most, 8, add));
  CHECK("and all of it", most == 227 << 10, "%d", most);
}

/* ---- the environment ----------------------------------------------------- */

static void test_devices(void) {
  CUcontext x[4];
  CUdeviceptr p[4];
  int n = 0, same = 0;
  MUST(p_cuInit(0));
  MUST(p_cuDeviceGetCount(&n));
  for (int k = 0; k < 4; k++) {
    uint32_t v[N] = {(uint32_t)k};
    MUST(p_cuDevicePrimaryCtxRetain(&x[k], k));
    MUST(p_cuCtxSetCurrent(x[k]));
    MUST(p_cuMemAlloc_v2(&p[k], BYTES));
    MUST(p_cuMemcpyHtoD_v2(p[k], v, BYTES));
  }
  for (int k = 0; k < 4; k++) {
    MUST(p_cuCtxSetCurrent(x[k]));
    same += first_of(p[k]) == (uint32_t)k;
  }
  CHECK("four devices", n == 4 && same == 4, "%d, %d", n, same);
  RETURNS("memory of another device", p_cuMemcpyHtoD_v2(p[0], p, BYTES),
          CUDA_ERROR_INVALID_VALUE);
  RETURNS("a fifth", p_cuDevicePrimaryCtxRetain(x, 4),
          CUDA_ERROR_INVALID_DEVICE);
}

static void test_settings(void) {
  int version = 0, major = 0, minor = 0, shared = 0;
  size_t bytes = 0, unused = 0;
  char name[32] = "";
  CUcontext x;
  MUST(p_cuInit(0));
  MUST(p_cuDriverGetVersion(&version));
  MUST(p_cuDeviceGetAttribute(&major, 75, 0));
  MUST(p_cuDeviceGetAttribute(&minor, 76, 0));
  MUST(p_cuDeviceGetAttribute(&shared, 97, 0));
  MUST(p_cuDeviceTotalMem_v2(&bytes, 0));
  MUST(p_cuDeviceGetName(name, sizeof name, 0));
  CHECK("an old driver and a small device",
        version == 11040 && major == 8 && minor == 6 && bytes == 1 << 20 &&
            shared == 99 << 10 && !strcmp(name, "cudasim sm_86"),
        "%d, %d.%d, %zu, %s", version, major, minor, bytes, name);
  MUST(p_cuDevicePrimaryCtxRetain(&x, 0));
  MUST(p_cuCtxSetCurrent(x));
  MUST(p_cuMemAlloc_v2(&a, 1 << 19));
  RETURNS("no more memory", p_cuMemAlloc_v2(&a, (1 << 19) + 1),
          CUDA_ERROR_OUT_OF_MEMORY);
  MUST(p_cuMemGetInfo_v2(&unused, &bytes));
  CHECK("what is left", unused == 1 << 19, "%zu", unused);
  CUmodule m;
  RETURNS("PTX that the driver does not know",
          p_cuModuleLoadDataEx(&m, ".version 7.5\n.target sm_80\n", 0, NULL,
                               NULL),
          CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
}

static void test_none(void) {
  RETURNS("no device", p_cuInit(0), CUDA_ERROR_NO_DEVICE);
}

static void test_order(void) {
  begin();
  void *params[] = {&a};
  MUST(p_cuMemsetD32Async(a, 77, N, NULL));
  MUST(p_cuLaunchKernel(last, 8, 1, 1, 1, 1, 1, 0, NULL, params, NULL));
  bool reversed = getenv("CUDASIM_ORDER");
  CHECK(reversed ? "blocks from the last" : "blocks from the first",
        first_of(a) == (reversed ? 0 : 7), "%u", first_of(a));
}

/* In a process of its own, as the environment is read once. */
static void with(const char *environment, void (*test)(void)) {
  fflush(stdout);
  pid_t pid = fork();
  if (!pid) {
    char *save, *all = strdup(environment);
    for (char *one = strtok_r(all, " ", &save); one;
         one = strtok_r(NULL, " ", &save))
      putenv(one);
    test();
    fflush(stdout);
    _exit(failures != 0);
  }
  int status = 1;
  waitpid(pid, &status, 0);
  if (status) failures++;
}

/* ---- products ------------------------------------------------------------ */

enum { M = 3, K = 5, W = 4, BATCH = 2, PRODUCTS_F32 = 0, PRODUCTS_BF16 = 14 };

static float element(int matrix, int batch, int row, int column) {
  return (float)((7 * matrix + 5 * batch + 3 * row + column) % 11 - 5);
}

static size_t put_element(uint8_t *to, int type, float v) {
  uint32_t bits;
  memcpy(&bits, &v, 4);
  bits >>= type == PRODUCTS_BF16 ? 16 : 0; /* small integers are exact */
  memcpy(to, &bits, type == PRODUCTS_BF16 ? 2 : 4);
  return type == PRODUCTS_BF16 ? 2 : 4;
}

static bool result_is_pinned; /* memory of the host */

/* `rows` x `columns` in columns, `ld` one more than is needed. */
static CUdeviceptr matrix(int which, int type, int rows, int columns,
                          bool transposed, cublasLtMatrixLayout_t *layout) {
  int r = transposed ? columns : rows, c = transposed ? rows : columns;
  int64_t step = (int64_t)(r + 1) * c;
  int32_t batch = BATCH;
  uint8_t data[4 * BATCH * 7 * 7] = {0};
  size_t size = type == PRODUCTS_BF16 ? 2 : 4;
  for (int b = 0; b < BATCH; b++)
    for (int i = 0; i < rows; i++)
      for (int j = 0; j < columns; j++) {
        int64_t at = b * step + (transposed ? i * (r + 1) + j
                                            : j * (r + 1) + i);
        put_element(data + (size_t)at * size, type, element(which, b, i, j));
      }
  CUdeviceptr p;
  if (which == 2 && result_is_pinned) {
    void *host;
    MUST(p_cuMemHostAlloc(&host, (size_t)(BATCH * step) * size, 0));
    p = (CUdeviceptr)(uintptr_t)host;
  } else {
    MUST(p_cuMemAlloc_v2(&p, (size_t)(BATCH * step) * size));
  }
  if (which < 2)
    MUST(p_cuMemcpyHtoD_v2(p, data, (size_t)(BATCH * step) * size));
  MUST(p_cublasLtMatrixLayoutCreate(layout, type, (uint64_t)r, (uint64_t)c,
                                    r + 1));
  MUST(p_cublasLtMatrixLayoutSetAttribute(*layout, 5, &batch, sizeof batch));
  MUST(p_cublasLtMatrixLayoutSetAttribute(*layout, 6, &step, sizeof step));
  return p;
}

static float expected(int batch, int i, int j) {
  float sum = 0;
  for (int k = 0; k < K; k++)
    sum += element(0, batch, i, k) * element(1, batch, k, j);
  return sum;
}

/* Whether c, in columns of M + 1, is `times` the product. */
static bool is_product(CUdeviceptr c, float times) {
  bool ok = true;
  for (int b = 0; b < BATCH; b++)
    for (int j = 0; j < W; j++) {
      float v[M];
      MUST(p_cuMemcpyDtoH_v2(v, c + (CUdeviceptr)(4 * (b * W + j) * (M + 1)),
                             sizeof v));
      for (int i = 0; i < M; i++)
        ok = ok && v[i] == times * expected(b, i, j);
    }
  return ok;
}

static void test_product(const char *name, int type, int32_t ta, int32_t tb) {
  cublasLtHandle_t h;
  cublasLtMatmulDesc_t desc;
  cublasLtMatrixLayout_t al, bl, cl;
  cublasLtMatmulPreference_t pref;
  cublasLtMatmulHeuristicResult_t how;
  float one = 1, none = 0;
  int n = 0;
  begin();
  CUdeviceptr pa = matrix(0, type, M, K, ta, &al);
  CUdeviceptr pb = matrix(1, type, K, W, tb, &bl);
  CUdeviceptr pc = matrix(2, PRODUCTS_F32, M, W, false, &cl);
  void *c = (void *)(uintptr_t)pc;
  MUST(p_cublasLtCreate(&h));
  MUST(p_cublasLtMatmulDescCreate(&desc, 68, PRODUCTS_F32));
  MUST(p_cublasLtMatmulDescSetAttribute(desc, 3, &ta, sizeof ta));
  MUST(p_cublasLtMatmulDescSetAttribute(desc, 4, &tb, sizeof tb));
  MUST(p_cublasLtMatmulPreferenceCreate(&pref));
  MUST(p_cublasLtMatmulAlgoGetHeuristic(h, desc, al, bl, cl, cl, pref, 1, &how,
                                        &n));
  for (int k = 0; k < 2; k++)
    MUST(p_cublasLtMatmul(h, desc, &one, (void *)(uintptr_t)pa, al,
                          (void *)(uintptr_t)pb, bl, k ? &one : &none, c, cl,
                          c, cl, &how.algo, NULL, 0, NULL));
  CHECK(name, is_product(pc, 2), "otherwise");
  remove(scratch("log"));
  CUdeviceptr unset = matrix(3, type, K, W, tb, &bl);
  p_cublasLtMatmul(h, desc, &one, (void *)(uintptr_t)pa, al,
                   (void *)(uintptr_t)unset, bl, &none, c, cl, c, cl,
                   &how.algo, NULL, 0, NULL);
  RETURNS("a factor that nobody has written", p_cuCtxSynchronize(),
          CUDA_ERROR_ILLEGAL_ADDRESS);
  CHECK("is named", log_has("matrix B"), "otherwise");
  int wrong = (int)p_cublasLtMatmul(h, desc, &one, c, cl, c, cl, &none, c, cl,
                                    c, cl, &how.algo, NULL, 0, NULL);
  CHECK("sizes that do not fit", wrong == CUBLAS_STATUS_INVALID_VALUE, "%d",
        wrong);
  MUST(p_cublasLtMatmulPreferenceDestroy(pref));
  MUST(p_cublasLtMatmulDescDestroy(desc));
  MUST(p_cublasLtDestroy(h));
}

static void test_products(void) {
  test_product("product", PRODUCTS_F32, 0, 0);
  test_product("product of a transpose", PRODUCTS_F32, 1, 0);
  test_product("product by a transpose", PRODUCTS_BF16, 0, 1);
  result_is_pinned = true;
  test_product("product of transposes, to the host", PRODUCTS_BF16, 1, 1);
}

static void test_all(void) {
  test_late();
  test_events();
  test_graphs();
  test_errors();
  test_module();
}

int main(void) {
  setenv("CUDASIM_LOG", scratch("log"), 1);
  open_libraries();
  with("CUDASIM_DEVICES=1", test_all);
  with("CUDASIM_DEVICES=4", test_devices);
  with("CUDASIM_DEVICES=0", test_none);
  with("CUDASIM_DRIVER=11040 CUDASIM_MEMORY=1048576 CUDASIM_ARCH=86",
       test_settings);
  with("CUDASIM_RACES=0", test_order);
  with("CUDASIM_RACES=0 CUDASIM_ORDER=reverse", test_order);
  with("CUDASIM_DEVICES=1", test_products);
  scratch_remove();
  return failures != 0;
}
