/* nccl_api.h: the calls of NCCL that the stand-in has, as in its header. */
#ifndef MOEC_CUDASIM_NCCL_API_H
#define MOEC_CUDASIM_NCCL_API_H

#include "cuda_api.h"

#include <stddef.h>

typedef enum ncclResult_t {
  ncclSuccess = 0,
  ncclSystemError = 2,
  ncclInvalidArgument = 4,
  ncclInvalidUsage = 5,
  ncclRemoteError = 6
} ncclResult_t;

typedef struct ncclComm *ncclComm_t;
typedef struct ncclUniqueId {
  char internal[128];
} ncclUniqueId;

ncclResult_t ncclGetVersion(int *version);
const char *ncclGetErrorString(ncclResult_t result);
ncclResult_t ncclGetUniqueId(ncclUniqueId *id);
ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id,
                              int rank);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
ncclResult_t ncclCommAbort(ncclComm_t comm);
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *result);
ncclResult_t ncclGroupStart(void);
ncclResult_t ncclGroupEnd(void);
ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, int dtype,
                           int op, ncclComm_t comm, CUstream stream);
ncclResult_t ncclAllGather(const void *from, void *to, size_t count, int dtype,
                           ncclComm_t comm, CUstream stream);
ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count,
                               int dtype, int op, ncclComm_t comm,
                               CUstream stream);
ncclResult_t ncclSend(const void *from, size_t count, int dtype, int peer,
                      ncclComm_t comm, CUstream stream);
ncclResult_t ncclRecv(void *to, size_t count, int dtype, int peer,
                      ncclComm_t comm, CUstream stream);

#endif
