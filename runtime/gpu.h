/* gpu.h: what the runtime's CUDA files share, in their order: cuda_load, cuda,
 * cuda_step, cuda_input, cuda_gemm, cuda_peaks, cuda_own. */
#ifndef MOEC_GPU_H
#define MOEC_GPU_H

#include "cu.h"
#include "rt.h"

/* ---- cuda_load.c: NVIDIA's libraries, and what GPU there is -------------- */

typedef struct RtGpu {
  char name[96];
  int arch;            /* 90: sm_90 */
  int multiprocessors;
  int shared_bytes;    /* that a block may have at most */
  int64_t bytes;       /* of memory */
} RtGpu;

typedef struct RtCudaGemm RtCudaGemm;

/* A kernel of the runtime's; NULL where it has not been needed. */
typedef struct RtOwn {
  CUmodule module;
  CUfunction function;
} RtOwn;

/* An entry's inputs on their way, see cuda_input.c. */
typedef struct RtCudaInputs {
  int64_t bytes;
  char *pinned[2], *set[2]; /* of the host's memory, of the GPU's */
  CUevent there[2];         /* a set's copy is done */
  int next;                 /* the set that is free, */
  bool staged;              /* or has the next inputs */
} RtCudaInputs;

/* What an entry has on the GPU. */
typedef struct RtCudaEntry {
  CUgraphExec graph;      /* NULL: not captured yet */
  RtCudaInputs inputs;
  char *report; /* its reports in the host's memory, for the GPU */
  CUfunction **functions; /* one a record, one a stage of a launch */
  RtCudaGemm **gemms;     /* one a record; NULL where it is no product */
} RtCudaEntry;

struct RtCuda {
  void *driver, *blas, *nccl_library;
  CudaApi cu;
  CublasLtApi lt;
  NcclApi nccl;
  int version; /* of CUDA, that the driver knows: 12040 is 12.4 */
  int nccl_version; /* 22809 is 2.28.9 */
  CUdevice device;
  RtGpu gpu;
  CUcontext context; /* NULL: not made */
  CUstream stream, copies; /* of steps; of what the next ones take */
  CUmodule module; /* the program's kernels */
  RtOwn own_copy, own_product[MOERT_DTYPE_COUNT];
  CUdeviceptr memory;
  void *inputs, *reports; /* the host's, of all entries */
  char *workspace, *arena, *gemm_workspace;
  int64_t workspace_bytes, gemm_bytes, free_before;
  cublasLtHandle_t handle;
  RtCudaEntry *entries;
  void **params;  /* of a kernel that is launched */
  CUevent *marks; /* for profiles: one behind each record of a step */
  int *marked;    /* whose */
  int n_marks, cap_marks;
};

/* A call of the driver, of cuBLASLt and of NCCL, as a status. */
#define RT_CU(c, call) \
  rt_cu_status(&(c)->cu, (c)->cu.call, #call, __FILE__, __LINE__)
#define RT_LT(c, call) \
  rt_lt_status(&(c)->lt, (c)->lt.call, #call, __FILE__, __LINE__)
#define RT_NCCL(c, call) \
  rt_nccl_status(&(c)->nccl, (c)->nccl.call, #call, __FILE__, __LINE__)
MoertStatus rt_cu_status(const CudaApi *cu, CUresult r, const char *call,
                         const char *file, int line);
MoertStatus rt_lt_status(const CublasLtApi *lt, cublasStatus_t r,
                         const char *call, const char *file, int line);

MoertStatus rt_nccl_status(const NcclApi *nccl, ncclResult_t r,
                           const char *call, const char *file, int line);

/* The driver, and GPU `ordinal`. MOERT_UNSUPPORTED, and one line, where one of
 * the two is missing. rt_cuda_unload in any case. */
MoertStatus rt_cuda_load(RtCuda *c);
MoertStatus rt_cuda_gpu(RtCuda *c, int ordinal);
int rt_cuda_gpus(const RtCuda *c);
MoertStatus rt_cublaslt_load(RtCuda *c);
MoertStatus rt_nccl_load(RtCuda *c);
void rt_cuda_unload(RtCuda *c);

/* ---- cuda.c: the GPU as the device of a session -------------------------- */

/* Between the two calls of the driver are about its GPU. */
MoertStatus rt_cuda_enter(RtCuda *c);
void rt_cuda_leave(RtCuda *c);
static inline CUdeviceptr rt_cu_address(const void *p) {
  return (CUdeviceptr)(uintptr_t)p;
}
MoertStatus rt_cuda_module(RtCuda *c, const void *image, CUmodule *out);

/* ---- cuda_step.c --------------------------------------------------------- */

/* The kernels of all records. */
MoertStatus rt_cuda_functions(MoertSession *s);
/* All within rt_cuda_enter. */
MoertStatus rt_cuda_record(MoertSession *s, int entry, int index,
                           const RtLoops *l);
/* Begins a step, and waits for its end. */
MoertStatus rt_cuda_start(MoertSession *s, int entry);
MoertStatus rt_cuda_finish(MoertSession *s, int entry);

/* ---- cuda_input.c -------------------------------------------------------- */

MoertStatus rt_cuda_inputs_open(RtCuda *c, RtCudaInputs *i, int64_t bytes);
void rt_cuda_inputs_close(RtCuda *c, RtCudaInputs *i);
/* Begins to bring inputs to the GPU, for a later step. */
MoertStatus rt_cuda_stage(RtCuda *c, RtCudaInputs *i, const char *from);
/* The same for the step that is begun next, which has them at `to`. */
MoertStatus rt_cuda_take_inputs(RtCuda *c, RtCudaInputs *i, const char *from,
                                char *to);

/* ---- cuda_gemm.c: products ----------------------------------------------- */

/* Loads the library, where it is not there yet. */
MoertStatus rt_cuda_gemm_open(RtCuda *c);
/* A product of operands whose addresses are multiples of `align` bytes. */
MoertStatus rt_cuda_gemm_new(RtCuda *c, const MoertGemm *g,
                             const int64_t align[3], RtCudaGemm **out);
/* Bytes of workspace that all products share. */
int64_t rt_cuda_gemm_bytes(void);
MoertStatus rt_cuda_gemm_run(RtCuda *c, const RtCudaGemm *g,
                             void *const *args);
void rt_cuda_gemm_free(RtCuda *c, RtCudaGemm *g);

/* ---- cuda_peaks.c -------------------------------------------------------- */

MoertStatus rt_cuda_time_product(const MoertSession *s, int dtype, int64_t size,
                                 double *out_seconds);
MoertStatus rt_cuda_time_copy(const MoertSession *s, double *out_seconds);

/* ---- cuda_own.c: kernels of the runtime's -------------------------------- */

/* Make ready what the two below are to run. */
MoertStatus rt_cuda_own_product(RtCuda *c, int dtype);
MoertStatus rt_cuda_own_copy(RtCuda *c);
MoertStatus rt_cuda_run_product(RtCuda *c, const MoertGemm *g,
                                void *const *args);
/* Of whole words of 8 bytes. */
MoertStatus rt_cuda_run_copy(RtCuda *c, void *to, const void *from,
                             int64_t bytes);
void rt_cuda_own_free(RtCuda *c);

#endif
