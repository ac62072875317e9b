/* cuda_input.c: how inputs get to a GPU.
 *
 * A step reads its inputs at a fixed place of the GPU's memory, where they must
 * stay until it is over. What the next step takes is brought near meanwhile: an
 * entry has two sets, each a piece of pinned memory of the host's and one of
 * the GPU's. One set is filled, by a copy in a stream of its own, while the
 * other one is the running step's. A step waits for its set and moves it to the
 * fixed place, inside of the GPU.
 *
 *   copies    set 1 there |                  set 0 there |
 *   steps     set 0 moved, step n .......... | set 1 moved, step n + 1 ...
 *
 * What is there was put there ahead of time: a step looks whether the inputs
 * are still the same, and brings them again where they are not. */
#include "gpu.h"

#include <string.h>

MoertStatus rt_cuda_inputs_open(RtCuda *c, RtCudaInputs *i, int64_t bytes) {
  i->bytes = bytes;
  for (int k = 0; k < 2; k++)
    RT_TRY(RT_CU(c, cuEventCreate(&i->there[k], CU_EVENT_DISABLE_TIMING)));
  return MOERT_OK;
}

void rt_cuda_inputs_close(RtCuda *c, RtCudaInputs *i) {
  for (int k = 0; k < 2; k++)
    if (i->there[k]) c->cu.cuEventDestroy(i->there[k]);
}

/* Brings the inputs into the set that is free. An earlier copy from the same
 * memory may still be under way. */
static MoertStatus bring(RtCuda *c, RtCudaInputs *i, const char *from) {
  int k = i->next;
  if (i->staged) RT_TRY(RT_CU(c, cuStreamSynchronize(c->copies)));
  i->staged = false;
  memcpy(i->pinned[k], from, (size_t)i->bytes);
  RT_TRY(RT_CU(c, cuMemcpyHtoDAsync(rt_cu_address(i->set[k]), i->pinned[k],
                                    (size_t)i->bytes, c->copies)));
  RT_TRY(RT_CU(c, cuEventRecord(i->there[k], c->copies)));
  i->staged = true;
  return MOERT_OK;
}

MoertStatus rt_cuda_stage(RtCuda *c, RtCudaInputs *i, const char *from) {
  if (i->bytes == 0) return MOERT_OK;
  if (i->staged && !memcmp(i->pinned[i->next], from, (size_t)i->bytes))
    return MOERT_OK;
  return bring(c, i, from);
}

MoertStatus rt_cuda_take_inputs(RtCuda *c, RtCudaInputs *i, const char *from,
                                char *to) {
  if (i->bytes == 0) return MOERT_OK;
  RT_TRY(rt_cuda_stage(c, i, from));
  int k = i->next;
  i->staged = false;
  i->next = !k;
  RT_TRY(RT_CU(c, cuStreamWaitEvent(c->stream, i->there[k], 0)));
  return RT_CU(c, cuMemcpyDtoDAsync(rt_cu_address(to),
                                    rt_cu_address(i->set[k]),
                                    (size_t)i->bytes, c->stream));
}
