/* cu.h: types and values of the CUDA driver, of cuBLASLt and of NCCL, as far as
 * cuda.def, cublaslt.def and nccl.def name them, for a build without NVIDIA's
 * headers. Names are theirs; handles are pointers to what nobody looks into.
 * Their enumerations have the size of an int. tests/unit/cuda_headers.c
 * compares with the headers where there are any. */
#ifndef MOEC_CU_H
#define MOEC_CU_H

#include <stddef.h>
#include <stdint.h>

typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphExec_st *CUgraphExec;
typedef struct CUuuid_st {
  char bytes[16];
} CUuuid;
typedef int CUresult, CUdevice_attribute, CUfunction_attribute, CUjit_option,
    CUstreamCaptureMode, CUtensorMapDataType, CUtensorMapInterleave,
    CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill;
typedef struct CUtensorMap_st {
  _Alignas(64) uint64_t opaque[16];
} CUtensorMap;

typedef CUstream cudaStream_t;
typedef int cublasStatus_t, cublasComputeType_t, cublasOperation_t,
    cudaDataType_t, cublasLtMatmulDescAttributes_t,
    cublasLtMatrixLayoutAttribute_t, cublasLtMatmulPreferenceAttributes_t;
typedef struct cublasLtContext *cublasLtHandle_t;
typedef struct cublasLtMatmulDescOpaque *cublasLtMatmulDesc_t;
typedef struct cublasLtMatrixLayoutOpaque *cublasLtMatrixLayout_t;
typedef struct cublasLtMatmulPreferenceOpaque *cublasLtMatmulPreference_t;
typedef struct cublasLtMatmulAlgo_t {
  uint64_t data[8];
} cublasLtMatmulAlgo_t;
typedef struct cublasLtMatmulHeuristicResult_t {
  cublasLtMatmulAlgo_t algo;
  size_t workspaceSize;
  cublasStatus_t state;
  float wavesCount;
  int reserved[4];
} cublasLtMatmulHeuristicResult_t;

typedef int ncclResult_t, ncclDataType_t, ncclRedOp_t;
typedef struct ncclComm *ncclComm_t;
typedef struct ncclUniqueId {
  char internal[128];
} ncclUniqueId;

enum {
#define VALUE(kind, name, value) name = (value),
#include "cuda.def"
#define VALUE(kind, name, value) name = (value),
#include "cublaslt.def"
#define VALUE(kind, name, value) name = (value),
#include "nccl.def"
};

/* All functions, by their names in the tables. */
typedef struct CudaApi {
#define CU(result, name, symbol, params) result(*name) params;
#define CU_LATER(result, name, params) result(*name) params;
#include "cuda.def"
} CudaApi;
typedef struct CublasLtApi {
#define LT(result, name, params) result(*name) params;
#include "cublaslt.def"
} CublasLtApi;
typedef struct NcclApi {
#define NCCL(result, name, params) result(*name) params;
#include "nccl.def"
} NcclApi;

#endif
