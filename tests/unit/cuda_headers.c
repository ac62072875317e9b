/* cuda_headers.c: runtime/cuda.def, cublaslt.def and nccl.def against NVIDIA's
 * headers, where this machine has them: each value, each prototype, each
 * symbol. What is wrong does not build. */
#include "check.h"

#include <string.h>

#if __has_include(<cublasLt.h>) && __has_include(<cuda.h>)

#include <cublasLt.h>
#include <cuda.h>

#define SAME(a, b) _Static_assert(__builtin_types_compatible_p(a, b), "type")
#define VALUE(kind, name, value) _Static_assert((long)(name) == (value), #name);
#define CU(result, name, symbol, params)                      \
  typedef result fn_##symbol params;                          \
  SAME(__typeof__(name), fn_##symbol);
#define CU_LATER(result, name, params)                        \
  typedef result fn_##name params;                            \
  SAME(__typeof__(name), fn_##name);
#include "../../runtime/cuda.def"
#define VALUE(kind, name, value) _Static_assert((long)(name) == (value), #name);
#define LT(result, name, params) \
  typedef result fn_##name params; \
  SAME(__typeof__(name), fn_##name);
#include "../../runtime/cublaslt.def"
#if __has_include(<nccl.h>)
#include <nccl.h>
#define VALUE(kind, name, value) _Static_assert((long)(name) == (value), #name);
#define NCCL(result, name, params) \
  typedef result fn_##name params; \
  SAME(__typeof__(name), fn_##name);
#include "../../runtime/nccl.def"
#endif

/* What cu.h declares otherwise: sizes and places. */
#define INT(type) _Static_assert(sizeof(type) == sizeof(int), #type);
#define POINTER(type) _Static_assert(sizeof(type) == sizeof(void *), #type);
INT(CUdevice)
INT(CUresult)
INT(CUdevice_attribute)
INT(CUfunction_attribute)
INT(CUjit_option)
INT(CUstreamCaptureMode)
INT(CUtensorMapDataType)
INT(CUtensorMapInterleave)
INT(CUtensorMapSwizzle)
INT(CUtensorMapL2promotion)
INT(CUtensorMapFloatOOBfill)
INT(cublasStatus_t)
INT(cublasComputeType_t)
INT(cublasOperation_t)
INT(cudaDataType_t)
INT(cublasLtMatmulDescAttributes_t)
INT(cublasLtMatrixLayoutAttribute_t)
INT(cublasLtMatmulPreferenceAttributes_t)
POINTER(cublasLtHandle_t)
POINTER(cublasLtMatmulDesc_t)
POINTER(cublasLtMatrixLayout_t)
POINTER(cublasLtMatmulPreference_t)
#if __has_include(<nccl.h>)
INT(ncclResult_t)
INT(ncclDataType_t)
INT(ncclRedOp_t)
POINTER(ncclComm_t)
_Static_assert(sizeof(ncclUniqueId) == 128, "");
#endif
_Static_assert(sizeof(CUuuid) == 16, "");
_Static_assert(sizeof(CUtensorMap) == 128, "");
_Static_assert(sizeof(CUdeviceptr) == 8, "");
_Static_assert(sizeof(cublasLtMatmulAlgo_t) == 64, "");
_Static_assert(sizeof(cublasLtMatmulHeuristicResult_t) == 96, "");
_Static_assert(offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize) == 64,
               "");

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

/* A symbol is the version that the header means, or the first one. */
static int is_symbol(const char *symbol, const char *meant) {
  size_t n = strlen(symbol);
  return strcmp(symbol, meant) == 0 ||
         (strncmp(symbol, meant, n) == 0 && strncmp(meant + n, "_v", 2) == 0);
}

int main(void) {
  const char *wrong = "";
#define CU(result, name, symbol, params) \
  if (!is_symbol(#symbol, TEXT(name))) wrong = #symbol;
#include "../../runtime/cuda.def"
  CHECK("types, values and symbols", !wrong[0], "%s", wrong);
  return failures != 0;
}

#else

int main(void) {
  printf("skip cuda_headers: no CUDA headers on this machine\n");
  return 0;
}

#endif
