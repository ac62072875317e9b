/* gpu.h: what the runtime's CUDA files share, in their order: cuda_load, cuda,
 * cuda_ranks, cuda_exchange, cuda_rows, cuda_step, cuda_graph, cuda_input,
 * cuda_gemm, cuda_peaks, cuda_own. */
#ifndef MOEC_GPU_H
#define MOEC_GPU_H

#include "cu.h"
#include "rt.h"

/* ---- cuda_load.c: NVIDIA's libraries, and what GPU there is -------------- */

typedef struct RtGpu {
  char name[96];
  int arch;            /* 90: sm_90 */
  int multiprocessors;
  int cooperates;      /* launches of blocks that wait for each other */
  int shared_bytes;    /* that a block may have at most */
  int64_t bytes;       /* of memory */
} RtGpu;

typedef struct RtCudaGemm RtCudaGemm;

enum { RT_CU_MOST_MAPS = 4 }; /* of a kernel */

/* What lies side by side in the GPU's memory starts at multiples of this, as
 * cuMemAlloc's own blocks do. */
enum { RT_CU_ALIGNED = 256 };
static inline int64_t rt_cu_round_up(int64_t bytes) {
  return (bytes + RT_CU_ALIGNED - 1) / RT_CU_ALIGNED * RT_CU_ALIGNED;
}

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

/* A communicator of NCCL among the ranks of a group. */
typedef struct RtWire {
  const MoertCollective *axes; /* over which; NULL: all ranks */
  int n, me;
  ncclComm_t comm; /* NULL: not made */
} RtWire;

/* What an exchange has on the GPU. */
typedef struct RtCudaExchange {
  const RtWire *wire; /* NULL: the record is none */
  int number;         /* from 1, among all of the session */
  CUevent done;       /* behind it, in the stream of exchanges */
  bool flying;        /* started, and nobody has waited */
  bool counted;       /* rows: how many only the step knows */
  int64_t bound;      /* rows for one rank at most */
  char *seats, *bounds; /* rows: of each expert its place and the first one
                           there; of each place its experts */
} RtCudaExchange;

/* A part of an entry's records as a graph. */
typedef struct RtGraph {
  struct RtGraph *next;
  int part;  /* from 0 */
  int share; /* of what exchanges of rows could be, how much they are: in units
                of 1 / RtCuda.shares; 0: not asked */
  CUgraphExec exec;
  int64_t came;  /* bytes of tensors that come in from others */
  int64_t bound; /* of the exchange that follows it; 0: nothing follows */
} RtGraph;

/* What an entry has on the GPU. */
typedef struct RtCudaEntry {
  RtGraph *graphs;        /* that have been captured, the last one first */
  RtCudaInputs inputs;
  RtCudaExchange *exchanges; /* one a record */
  char *report; /* its reports in the host's memory, for the GPU */
  CUfunction **functions; /* one a record, one a stage of a launch */
  RtCudaGemm **gemms;     /* one a record; NULL where it is no product */
} RtCudaEntry;

/* What the GPU writes into the host's memory, beside reports. */
typedef struct RtHostWords {
  int32_t at;   /* number of the exchange that it has come to */
  int32_t most; /* rows of the longest message */
} RtHostWords;

/* ORDER ROWS: cuda_rows.c */
typedef enum RtRowsKernel {
  RT_PIECES,
  RT_TOKENS,
  RT_EXPERTS,
  RT_MOST,
  RT_MARK,
  RT_ROWS_KERNELS
} RtRowsKernel;
enum { RT_WORDS = 4 }; /* of 1, 2, 4 and 8 bytes */

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
  int turns, unrolled; /* loops that are one kernel; for which there is no room,
                          and that of the last of these */
  char no_room[160];
  RtOwn own_copy, own_product[MOERT_DTYPE_COUNT];
  CUdeviceptr memory;
  void *inputs, *reports; /* the host's, of all entries */
  char *workspace, *arena, *gemm_workspace, *exchange_block;
  int64_t workspace_bytes, gemm_bytes, free_before;
  cublasLtHandle_t handle;
  RtCudaEntry *entries;
  void **params;  /* of a kernel that is launched */
  CUevent *marks; /* for profiles: one behind each record of a step */
  int *marked;    /* whose */
  int n_marks, cap_marks;

  /* Of several ranks: */
  MoertComm *comm;
  RtWire *wires; /* one of them of all ranks */
  int n_wires;   /* 0: nothing is exchanged */
  bool lost;     /* some rank is */
  CUstream wire_stream; /* of exchanges */
  CUevent go;
  CUmodule rows_module;
  CUfunction rows_kernels[RT_ROWS_KERNELS][RT_WORDS];
  char **names; /* of exchanges */
  int n_names;
  char *staging[2], *most; /* in the GPU's memory */
  RtHostWords *host; /* NULL: no exchanges; then of each exchange two words,
                        rows of a message and of experts for which there was
                        no room */
  char *host_address; /* of `host`, for the GPU */
  int32_t *over;
  int shares, share; /* see RtGraph; 0: exchanges ask */
  int64_t came;      /* bytes that come in, by what was put in the stream */
  struct Walk *walk; /* cuda_graph.c */
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

enum { RT_OLDEST_SM = 80 }; /* sm_80: what kernels are made for */

/* The driver, and GPU `ordinal`. MOERT_UNSUPPORTED, and one line, where one of
 * the two is missing. rt_cuda_unload in any case. */
MoertStatus rt_cuda_load(RtCuda *c);
MoertStatus rt_cuda_driver(RtCuda *c); /* whether or not there is a GPU */
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

/* ---- cuda_ranks.c: which GPU, and who is there --------------------------- */

/* This rank's GPU, and what it needs to talk to the others'; the same status
 * and text for all. */
MoertStatus rt_cuda_choose(RtCuda *c, MoertComm *comm);
/* Within rt_cuda_enter, as what follows; all ranks together. */
MoertStatus rt_cuda_wires(MoertSession *s);
/* That of a collective's axes; NULL: of all ranks. */
const RtWire *rt_cuda_wire(RtCuda *c, const MoertCollective *axes);
void rt_cuda_wires_free(RtCuda *c);
/* The end of all work. MOERT_RANK_LOST where it will not come. */
MoertStatus rt_cuda_wait(RtCuda *c);

/* ---- cuda_exchange.c: collectives in a stream ---------------------------- */

/* Bytes of the GPU's memory that exchanges need. */
int64_t rt_cuda_exchange_bytes(const MoertSession *s);
/* `block` has so many; all ranks together. */
MoertStatus rt_cuda_exchanges_open(MoertSession *s, char *block);
void rt_cuda_exchanges_free(MoertSession *s);
/* A START record with the args in s->args, and a WAIT record. */
MoertStatus rt_cuda_exchange(MoertSession *s, int entry, int index);
MoertStatus rt_cuda_exchanged(MoertSession *s, int entry, int index);
/* All that has been started is waited for. */
MoertStatus rt_cuda_await_all(MoertSession *s, int entry);
/* Finds out how many rows the longest message of any rank has: in the host's
 * memory when the stream is done. */
MoertStatus rt_cuda_count(MoertSession *s, int entry, int index);
/* What these are of a bound, in shares. */
int rt_cuda_share(const RtCuda *c, int64_t bound);
/* After a step: rows for which there was no room. */
MoertStatus rt_cuda_check_rows(RtCuda *c);

/* ---- cuda_rows.c: kernels for exchanges ---------------------------------- */

typedef struct RtRows {
  char *stage;
  char *mine, *got, *theirs, *some; /* as moert.h says; NULL: all rows */
  char *seats, *bounds; /* see RtCudaExchange */
  char *over;
  int64_t experts, own; /* in all, and of a rank */
  int64_t width, row_bytes;
  int places;
} RtRows;
MoertStatus rt_cuda_rows_open(RtCuda *c);
void rt_cuda_rows_free(RtCuda *c);
MoertStatus rt_cuda_move_pieces(RtCuda *c, char *whole, char *packed,
                                int64_t rows, int64_t run_bytes, int parts,
                                bool back);
MoertStatus rt_cuda_move_tokens(RtCuda *c, const RtRows *r, char *rows,
                                bool back);
MoertStatus rt_cuda_move_experts(RtCuda *c, const RtRows *r, char *rows,
                                 int64_t room, bool back);
MoertStatus rt_cuda_find_most(RtCuda *c, const RtRows *r, char *out);
MoertStatus rt_cuda_mark(RtCuda *c, char *to, int number);

/* ---- cuda_step.c --------------------------------------------------------- */

/* The kernels of all records. */
MoertStatus rt_cuda_functions(MoertSession *s);
/* For a TURNS record the end of its loop, where it is to be done. */
int rt_cuda_turns(MoertSession *s, int entry, int index, const RtLoops *l);
/* All within rt_cuda_enter. */
MoertStatus rt_cuda_record(MoertSession *s, int entry, int index,
                           const RtLoops *l);
/* Begins a step, and waits for its end. */
MoertStatus rt_cuda_start(MoertSession *s, int entry);
MoertStatus rt_cuda_finish(MoertSession *s, int entry);
/* The reports, into the host's memory. */
MoertStatus rt_cuda_publish(MoertSession *s, int entry);

/* ---- cuda_graph.c -------------------------------------------------------- */

/* All records of an entry, as graphs. */
MoertStatus rt_cuda_run_graphs(MoertSession *s, int entry);
void rt_cuda_graphs_free(MoertSession *s, int entry);

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
