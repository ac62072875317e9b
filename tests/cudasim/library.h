/* library.h: what the stand-ins for other libraries ask of the one for
 * libcuda: work of theirs in a stream, and the device's memory. */
#ifndef MOEC_CUDASIM_LIBRARY_H
#define MOEC_CUDASIM_LIBRARY_H

#include "cuda_api.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Does the work: CUDA_SUCCESS, CUDA_ERROR_NOT_READY where it is to be called
 * again, or what breaks the device, with a text in `why`. */
typedef CUresult CudasimCall(CUcontext d, const void *data, char *why,
                             size_t n);
/* Puts a call in a stream; `data` is copied, `owner` says whose it is. */
CUresult cudasim_call(CUstream stream, CudasimCall *call, const void *data,
                      size_t bytes, const void *owner);
/* Whether a graph that has not been destroyed has calls of the owner. */
bool cudasim_in_graphs(const void *owner);
/* The bytes of the device's memory, NULL and a text where it has none there. */
uint8_t *cudasim_bytes(CUcontext d, CUdeviceptr at, uint64_t bytes, char *why,
                       size_t n);
/* They have been written. */
void cudasim_written(CUcontext d, CUdeviceptr at, uint64_t bytes);
/* Number of this thread's device among all of the machine; -1: none. */
int cudasim_device(void);
/* An exchange is over; a communicator was joined. */
void cudasim_exchanged(void);
void cudasim_joined(void);
/* Tells an error as faults of kernels are told. */
void cudasim_say(const char *text);

#endif
