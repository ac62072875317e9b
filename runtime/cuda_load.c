/* cuda_load.c: NVIDIA's libraries, loaded when a program for a GPU is to run.
 *
 * Nothing of CUDA is needed to build the runtime, nor to start it: the tables
 * cuda.def, cublaslt.def and nccl.def say which functions are looked up in what
 * this machine has. What is missing is told in one line. */
#include "gpu.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST_VERSION = 11040 }; /* of CUDA, for all of cuda.def */
/* They have threads and handlers of their own: once in, they stay. */
enum { HOW = RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE };

/* ---- failures ------------------------------------------------------------ */

static const char *file_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

static MoertStatus status_of(CUresult r) {
  switch (r) {
  case CUDA_ERROR_OUT_OF_MEMORY: return MOERT_NO_MEMORY;
  case CUDA_ERROR_NO_DEVICE:
  case CUDA_ERROR_NO_BINARY_FOR_GPU:
  case CUDA_ERROR_UNSUPPORTED_PTX_VERSION: return MOERT_UNSUPPORTED;
  case CUDA_ERROR_INVALID_IMAGE:
  case CUDA_ERROR_INVALID_PTX: return MOERT_BAD_DATA;
  }
  return MOERT_INTERNAL;
}

MoertStatus rt_cu_status(const CudaApi *cu, CUresult r, const char *call,
                         const char *file, int line) {
  if (r == CUDA_SUCCESS) return MOERT_OK;
  const char *name = NULL, *text = NULL;
  cu->cuGetErrorName(r, &name);
  cu->cuGetErrorString(r, &text);
  return rt_fail(status_of(r), "CUDA: %s (%s, %s, runtime/%s:%d)",
                 text ? text : "an unknown error", name ? name : "no name",
                 call, file_name(file), line);
}

MoertStatus rt_lt_status(const CublasLtApi *lt, cublasStatus_t r,
                         const char *call, const char *file, int line) {
  if (r == CUBLAS_STATUS_SUCCESS) return MOERT_OK;
  MoertStatus st = r == CUBLAS_STATUS_NOT_SUPPORTED  ? MOERT_UNSUPPORTED
                   : r == CUBLAS_STATUS_ALLOC_FAILED ? MOERT_NO_MEMORY
                                                     : MOERT_INTERNAL;
  return rt_fail(st, "cuBLASLt: %s (%s, runtime/%s:%d)",
                 lt->cublasLtGetStatusString(r), call, file_name(file), line);
}

MoertStatus rt_nccl_status(const NcclApi *nccl, ncclResult_t r,
                           const char *call, const char *file, int line) {
  if (r == ncclSuccess) return MOERT_OK;
  return rt_fail(r == ncclRemoteError ? MOERT_RANK_LOST : MOERT_INTERNAL,
                 "NCCL: %s (%s, runtime/%s:%d)", nccl->ncclGetErrorString(r),
                 call, file_name(file), line);
}

/* ---- looking up ---------------------------------------------------------- */

/* A function of a library, by its name in a struct of pointers. */
typedef struct Symbol {
  const char *name;
  size_t at;
} Symbol;

static const Symbol cuda_symbols[] = {
#define CU(result, name, symbol, params) {#symbol, offsetof(CudaApi, name)},
#include "cuda.def"
};
static const Symbol cuda_later[] = {
#define CU_LATER(result, name, params) {#name, offsetof(CudaApi, name)},
#include "cuda.def"
};
static const Symbol blas_symbols[] = {
#define LT(result, name, params) {#name, offsetof(CublasLtApi, name)},
#include "cublaslt.def"
};
static const Symbol nccl_symbols[] = {
#define NCCL(result, name, params) {#name, offsetof(NcclApi, name)},
#include "nccl.def"
};

/* NULL, or the name of the first that is not there. */
static const char *look_up(void *library, const Symbol *all, size_t n,
                           void *api) {
  const char *lacks = NULL;
  for (size_t i = 0; i < n; i++) {
    void *found = dlsym(library, all[i].name);
    if (!found && !lacks) lacks = all[i].name;
    memcpy((char *)api + all[i].at, &found, sizeof found);
  }
  return lacks;
}

static MoertStatus load_driver(RtCuda *c) {
  c->driver = dlopen("libcuda.so.1", HOW);
  if (!c->driver)
    return rt_fail(MOERT_UNSUPPORTED, "no CUDA driver: %s", dlerror());
  const char *lacks =
      look_up(c->driver, cuda_symbols, COUNT_OF(cuda_symbols), &c->cu);
  if (lacks)
    return rt_fail(MOERT_UNSUPPORTED,
                   "the CUDA driver is too old: it has no %s", lacks);
  look_up(c->driver, cuda_later, COUNT_OF(cuda_later), &c->cu);
  return MOERT_OK;
}

MoertStatus rt_cuda_driver(RtCuda *c) {
  RT_TRY(load_driver(c));
  RT_TRY(RT_CU(c, cuDriverGetVersion(&c->version)));
  if (c->version < LEAST_VERSION)
    return rt_fail(MOERT_UNSUPPORTED,
                   "the CUDA driver is too old: it is for CUDA %d.%d, %d.%d is "
                   "needed",
                   c->version / 1000, c->version % 1000 / 10,
                   LEAST_VERSION / 1000, LEAST_VERSION % 1000 / 10);
  return MOERT_OK;
}

MoertStatus rt_cuda_load(RtCuda *c) {
  RT_TRY(rt_cuda_driver(c));
  CUresult r = c->cu.cuInit(0);
  const char *visible = getenv("CUDA_VISIBLE_DEVICES");
  if (r == CUDA_ERROR_NO_DEVICE || (r == CUDA_SUCCESS && rt_cuda_gpus(c) == 0))
    return rt_fail(MOERT_UNSUPPORTED,
                   "no GPU: the CUDA driver finds none%s%s%s",
                   visible ? "; CUDA_VISIBLE_DEVICES is '" : "",
                   visible ? visible : "", visible ? "'" : "");
  MoertStatus st = rt_cu_status(&c->cu, r, "cuInit(0)", __FILE__, __LINE__);
  return st == MOERT_OK ? st : MOERT_UNSUPPORTED;
}

int rt_cuda_gpus(const RtCuda *c) {
  int n = 0;
  return c->cu.cuDeviceGetCount(&n) == CUDA_SUCCESS ? n : 0;
}

static MoertStatus attribute(RtCuda *c, CUdevice_attribute which, int *out) {
  return RT_CU(c, cuDeviceGetAttribute(out, which, c->device));
}

MoertStatus rt_cuda_gpu(RtCuda *c, int ordinal) {
  RtGpu *g = &c->gpu;
  int major, minor;
  size_t bytes;
  RT_TRY(RT_CU(c, cuDeviceGet(&c->device, ordinal)));
  RT_TRY(RT_CU(c, cuDeviceGetName(g->name, (int)sizeof g->name, c->device)));
  RT_TRY(attribute(c, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, &major));
  RT_TRY(attribute(c, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, &minor));
  RT_TRY(attribute(c, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
                   &g->multiprocessors));
  RT_TRY(attribute(c, CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH, &g->cooperates));
  RT_TRY(attribute(c, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
                   &g->shared_bytes));
  RT_TRY(RT_CU(c, cuDeviceTotalMem(&bytes, c->device)));
  g->arch = 10 * major + minor;
  g->bytes = (int64_t)bytes;
  return MOERT_OK;
}

/* The version for the CUDA that most drivers know comes first. */
MoertStatus rt_cublaslt_load(RtCuda *c) {
  static const char *const names[] = {"libcublasLt.so.12", "libcublasLt.so.13",
                                      "libcublasLt.so.11"};
  for (size_t i = 0; i < COUNT_OF(names) && !c->blas; i++)
    c->blas = dlopen(names[i], HOW);
  if (!c->blas)
    return rt_fail(MOERT_UNSUPPORTED,
                   "no cuBLASLt, which matrix products need: none of %s, %s "
                   "and %s can be loaded; LD_LIBRARY_PATH may name its folder",
                   names[0], names[1], names[2]);
  const char *lacks =
      look_up(c->blas, blas_symbols, COUNT_OF(blas_symbols), &c->lt);
  if (lacks)
    return rt_fail(MOERT_UNSUPPORTED, "cuBLASLt is too old: it has no %s",
                   lacks);
  return MOERT_OK;
}

/* Errors of a group of calls can be looked up since 2.14. */
MoertStatus rt_nccl_load(RtCuda *c) {
  enum { LEAST = 21400 };
  int version = 0;
  if (!c->nccl_library) c->nccl_library = dlopen("libnccl.so.2", HOW);
  if (!c->nccl_library)
    return rt_fail(MOERT_UNSUPPORTED,
                   "no NCCL, which ranks on GPUs need: %s; LD_LIBRARY_PATH may "
                   "name its folder",
                   dlerror());
  const char *lacks = look_up(c->nccl_library, nccl_symbols,
                              COUNT_OF(nccl_symbols), &c->nccl);
  if (lacks)
    return rt_fail(MOERT_UNSUPPORTED, "NCCL is too old: it has no %s", lacks);
  RT_TRY(RT_NCCL(c, ncclGetVersion(&version)));
  c->nccl_version = version;
  if (version >= LEAST) return MOERT_OK;
  return rt_fail(MOERT_UNSUPPORTED,
                 "NCCL is too old: it is version %d, %d is needed", version,
                 LEAST);
}

void rt_cuda_unload(RtCuda *c) {
  if (c->nccl_library) dlclose(c->nccl_library);
  if (c->blas) dlclose(c->blas);
  if (c->driver) dlclose(c->driver);
  c->nccl_library = c->blas = c->driver = NULL;
}
