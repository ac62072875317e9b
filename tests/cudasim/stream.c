/* stream.c: streams, copies in them, events, and graphs made of streams.
 *
 * A stream is a list of ops that are not done yet. An op of a stream that is
 * captured goes to its graph, in the order of the calls, which is an order
 * that all streams of the capture agree with. */
#include "device.h"
#include "library.h"

#include <stdlib.h>
#include <string.h>

/* ---- lists of ops -------------------------------------------------------- */

static bool append(Ops *ops, Op op) {
  if (ops->n == ops->cap) {
    ops->cap = ops->cap ? 2 * ops->cap : 64;
    Op *all = realloc(ops->all, (size_t)ops->cap * sizeof *all);
    if (!all) return false;
    ops->all = all;
  }
  if (op.data) {
    uint8_t *data = malloc(op.n_data + 1);
    if (!data) return false;
    op.data = memcpy(data, op.data, op.n_data);
  }
  ops->all[ops->n++] = op;
  return true;
}

static void forget_done(Ops *ops) {
  if (ops->done < ops->n) return;
  for (int k = 0; k < ops->n; k++)
    free(ops->all[k].data);
  ops->n = ops->done = 0;
}

void ops_free(Ops *ops) {
  ops->done = ops->n;
  forget_done(ops);
  free(ops->all);
  *ops = (Ops){0};
}

/* ---- streams ------------------------------------------------------------- */

CUresult stream_try(CUstream s) {
  CUresult r = CUDA_SUCCESS;
  while (!r && s->ops.done < s->ops.n) {
    const Op op = s->ops.all[s->ops.done];
    r = op_try(s->device, &op);
    if (r == CUDA_ERROR_NOT_READY) return r;
    s->ops.done++;
  }
  if (r) s->ops.done = s->ops.n;
  forget_done(&s->ops);
  return r;
}

CUresult stream_run(CUstream s) {
  CUresult r;
  while ((r = stream_try(s)) == CUDA_ERROR_NOT_READY)
    nap();
  return r;
}

CUresult device_run(Device *d) {
  CUresult r = d->broken;
  for (CUstream s = d->streams; s && !r; s = s->next)
    r = stream_run(s);
  return r;
}

/* The null stream: behind all that blocking streams have, and done at once. */
static CUresult run_null(Device *d, Op op) {
  CUresult r = CUDA_SUCCESS;
  for (CUstream s = d->streams; s && !r; s = s->next) {
    if (!s->blocking) continue;
    if (s->capture) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    r = stream_run(s);
  }
  return r ? r : op_run(d, &op);
}

CUresult stream_add(CUstream s, Op op) {
  Device *d;
  CUresult r = current_device(&d);
  if (r) return r;
  if (s && s->capture) {
    s->unjoined = true;
    if (s->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (op.kind == DO_GRAPH) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    return append(&s->capture->ops, op) ? CUDA_SUCCESS
                                        : CUDA_ERROR_OUT_OF_MEMORY;
  }
  if (op.kind == DO_KERNEL) counters.kernel_launches++;
  if (op.kind == DO_GRAPH) counters.graph_launches++;
  if (!s) return run_null(d, op);
  return append(&s->ops, op) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

EXPORT CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
  Device *d;
  CUresult r = current_device(&d);
  if (r) return r;
  if (flags > 1) return CUDA_ERROR_INVALID_VALUE;
  CUstream s = calloc(1, sizeof *s);
  if (!s) return CUDA_ERROR_OUT_OF_MEMORY;
  s->device = d;
  s->blocking = !flags;
  s->next = d->streams;
  d->streams = *stream = s;
  return CUDA_SUCCESS;
}

static void stream_free(CUstream s) {
  ops_free(&s->ops);
  free(s);
}

EXPORT CUresult cuStreamDestroy_v2(CUstream stream) {
  CUresult r = device_run(stream->device); /* events may refer to it */
  for (CUstream *at = &stream->device->streams; *at; at = &(*at)->next)
    if (*at == stream) {
      *at = stream->next;
      stream_free(stream);
      break;
    }
  return r;
}

void streams_free(Device *d) {
  while (d->streams) {
    CUstream s = d->streams;
    d->streams = s->next;
    stream_free(s);
  }
  while (d->events) {
    CUevent e = d->events;
    d->events = e->next;
    free(e);
  }
}

/* Asking for what is captured makes the capture worthless. */
static CUresult not_captured(CUstream s) {
  if (!s || !s->capture) return CUDA_SUCCESS;
  s->capture->invalid = true;
  return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

EXPORT CUresult cuStreamSynchronize(CUstream stream) {
  Device *d;
  CUresult r = current_device(&d);
  if (!r) r = not_captured(stream);
  if (r) return r;
  counters.synchronizations++;
  return stream ? stream_run(stream) : device_run(d);
}

EXPORT CUresult cuStreamQuery(CUstream stream) {
  Device *d;
  CUresult r = current_device(&d);
  if (!r) r = not_captured(stream);
  if (r) return r;
  return stream ? stream_try(stream) : device_run(d);
}

/* ---- copies -------------------------------------------------------------- */

static bool is_device(Device *d, uint64_t at, uint64_t n) {
  return heap_bytes(heap_at(d, at), at, n) != NULL;
}
static bool is_pinned(const void *host, size_t bytes) {
  return heap_bytes(&pinned, (uint64_t)(uintptr_t)host, bytes);
}

static CUresult copy(CUstream stream, Op op) {
  Device *d;
  CUresult r = current_device(&d);
  if (r || !op.bytes) return r;
  if ((op.kind != DO_HTOD && !is_device(d, op.from, op.bytes)) ||
      (op.kind != DO_DTOH && !is_device(d, op.to, op.bytes)))
    return CUDA_ERROR_INVALID_VALUE;
  return stream_add(stream, op);
}

/* Whether another stream than `s` has a graph that nobody has waited for. */
static bool graph_elsewhere(const Device *d, CUstream s) {
  for (CUstream other = d->streams; other; other = other->next)
    for (int k = other->ops.done; other != s && k < other->ops.n; k++)
      if (other->ops.all[k].kind == DO_GRAPH) return true;
  return false;
}

/* Memory that is not pinned is read before the call is over. */
EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from,
                                     size_t bytes, CUstream stream) {
  Op op = {.kind = DO_HTOD, .to = to, .bytes = bytes};
  op.host = (void *)(uintptr_t)from;
  if (!is_pinned(from, bytes) && !(stream && stream->capture)) {
    op.data = op.host;
    op.n_data = bytes;
  }
  CUresult r = copy(stream, op);
  Device *d;
  if (!r && !current_device(&d))
    counters.htod_ahead += graph_elsewhere(d, stream);
  return r;
}

/* And written before it is over. */
EXPORT CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes,
                                     CUstream stream) {
  Op op = {.kind = DO_DTOH, .from = from, .host = to, .bytes = bytes};
  CUresult r = copy(stream, op);
  if (r || !stream || stream->capture || is_pinned(to, bytes)) return r;
  return stream_run(stream);
}

EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from,
                                     size_t bytes, CUstream stream) {
  return copy(stream, (Op){.kind = DO_DTOD, .to = to, .from = from,
                           .bytes = bytes});
}

EXPORT CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from,
                                size_t bytes) {
  return cuMemcpyHtoDAsync_v2(to, from, bytes, NULL);
}

EXPORT CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes) {
  return cuMemcpyDtoHAsync_v2(to, from, bytes, NULL);
}

static CUresult fill(CUdeviceptr to, uint32_t value, int value_bytes, size_t n,
                     CUstream stream) {
  Device *d;
  CUresult r = current_device(&d);
  uint64_t bytes = n * (uint64_t)value_bytes;
  if (r || !n) return r;
  if (!is_device(d, to, bytes) || to % (uint64_t)value_bytes)
    return CUDA_ERROR_INVALID_VALUE;
  return stream_add(stream, (Op){.kind = DO_FILL, .to = to, .bytes = bytes,
                                 .value = value, .value_bytes = value_bytes});
}

EXPORT CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t n,
                                CUstream stream) {
  return fill(to, value, 1, n, stream);
}

EXPORT CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t n,
                                 CUstream stream) {
  return fill(to, value, 4, n, stream);
}

/* ---- events -------------------------------------------------------------- */

EXPORT CUresult cuEventCreate(CUevent *event, unsigned flags) {
  Device *d;
  CUresult r = current_device(&d);
  if (r) return r;
  if (flags & ~7u) return CUDA_ERROR_INVALID_VALUE;
  CUevent e = calloc(1, sizeof *e);
  if (!e) return CUDA_ERROR_OUT_OF_MEMORY;
  e->device = d;
  e->next = d->events;
  d->events = *event = e;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuEventDestroy_v2(CUevent event) {
  CUresult r = device_run(event->device); /* streams may wait for it */
  for (CUevent *at = &event->device->events; *at; at = &(*at)->next)
    if (*at == event) {
      *at = event->next;
      free(event);
      break;
    }
  return r;
}

/* In a capture it orders streams and is no op of the graph. */
EXPORT CUresult cuEventRecord(CUevent event, CUstream stream) {
  if (stream && stream->capture) {
    event->capture = stream->capture;
    event->stream = stream;
    return CUDA_SUCCESS;
  }
  event->capture = NULL;
  event->stream = stream;
  return stream_add(stream, (Op){.kind = DO_RECORD, .event = event,
                                 .ticket = ++event->recorded});
}

EXPORT CUresult cuStreamWaitEvent(CUstream stream, CUevent event,
                                  unsigned flags) {
  if (flags) return CUDA_ERROR_INVALID_VALUE;
  if (event->capture && stream) {
    if (stream->capture && stream->capture != event->capture)
      return CUDA_ERROR_INVALID_VALUE;
    if (!stream->capture) stream->unjoined = true;
    stream->capture = event->capture;
    if (event->stream != stream) event->stream->unjoined = false;
    return CUDA_SUCCESS;
  }
  if (!event->recorded) return CUDA_SUCCESS;
  return stream_add(stream, (Op){.kind = DO_WAIT, .event = event,
                                 .ticket = event->recorded});
}

EXPORT CUresult cuEventSynchronize(CUevent event) {
  Device *d;
  CUresult r = current_device(&d);
  if (r) return r;
  if (event->capture) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  counters.synchronizations++;
  return op_run(d, &(Op){.kind = DO_WAIT, .event = event,
                         .ticket = event->recorded});
}

EXPORT CUresult cuEventQuery(CUevent event) {
  return cuEventSynchronize(event);
}

EXPORT CUresult cuEventElapsedTime(float *milliseconds, CUevent start,
                                   CUevent end) {
  if (!start->recorded || !end->recorded) return CUDA_ERROR_INVALID_HANDLE;
  if (start->happened < start->recorded || end->happened < end->recorded)
    return CUDA_ERROR_NOT_READY;
  *milliseconds = (float)(1e3 * (end->seconds - start->seconds));
  return CUDA_SUCCESS;
}

/* ---- graphs -------------------------------------------------------------- */

EXPORT CUresult cuStreamBeginCapture_v2(CUstream stream,
                                        CUstreamCaptureMode mode) {
  Device *d;
  CUresult r = current_device(&d);
  if (r) return r;
  if (!stream || mode > 2) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
  stream->capture = calloc(1, sizeof *stream->capture);
  if (!stream->capture) return CUDA_ERROR_OUT_OF_MEMORY;
  stream->capture->device = d;
  stream->origin = true;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamIsCapturing(CUstream stream,
                                    CUstreamCaptureStatus *status) {
  *status = 0;
  if (stream && stream->capture) *status = stream->capture->invalid ? 2 : 1;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
  Device *d;
  CUresult r = current_device(&d);
  if (r) return r;
  *graph = NULL;
  if (!stream || !stream->capture || !stream->origin)
    return CUDA_ERROR_ILLEGAL_STATE;
  CUgraph g = stream->capture;
  if (g->invalid) r = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  for (CUstream s = d->streams; s; s = s->next) {
    if (s->capture != g) continue;
    if (!s->origin && s->unjoined && !r)
      r = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    s->capture = NULL;
    s->origin = s->unjoined = false;
  }
  for (CUevent e = d->events; e; e = e->next)
    if (e->capture == g) e->capture = NULL;
  if (r) cuGraphDestroy(g);
  else *graph = g;
  return r;
}

EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *made, CUgraph graph,
                                            unsigned long long flags) {
  if (flags) return CUDA_ERROR_INVALID_VALUE;
  CUgraphExec e = *made = calloc(1, sizeof *e);
  if (!e) return CUDA_ERROR_OUT_OF_MEMORY;
  e->device = graph->device;
  e->next = e->device->graphs;
  e->device->graphs = e;
  for (int k = 0; k < graph->ops.n; k++)
    if (!append(&e->ops, graph->ops.all[k])) return CUDA_ERROR_OUT_OF_MEMORY;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphLaunch(CUgraphExec graph, CUstream stream) {
  graph->launched++;
  CUresult r = stream_add(stream, (Op){.kind = DO_GRAPH, .graph = graph});
  if (r) graph->launched--;
  return r;
}

void graph_free(CUgraphExec graph) {
  for (CUgraphExec *at = &graph->device->graphs; *at; at = &(*at)->next)
    if (*at == graph) {
      *at = graph->next;
      break;
    }
  ops_free(&graph->ops);
  free(graph);
}

/* What is launched runs to its end. */
EXPORT CUresult cuGraphExecDestroy(CUgraphExec graph) {
  Device *d = graph->device;
  CUresult r = d->broken;
  for (CUstream s = d->streams; s && !r; s = s->next)
    r = stream_try(s);
  graph->destroyed = true;
  if (r != CUDA_ERROR_NOT_READY || !graph->launched) graph_free(graph);
  return r == CUDA_ERROR_NOT_READY ? CUDA_SUCCESS : r;
}

/* ---- calls of other libraries -------------------------------------------- */

EXPORT CUresult cudasim_call(CUstream stream, CudasimCall *call,
                             const void *data, size_t bytes,
                             const void *owner) {
  Op op = {.kind = DO_CALL, .call = call, .n_data = bytes, .owner = owner};
  op.data = (uint8_t *)(uintptr_t)data;
  return stream_add(stream, op);
}

EXPORT bool cudasim_in_graphs(const void *owner) {
  Device *d;
  if (current_device(&d)) return false;
  for (CUgraphExec g = d->graphs; g; g = g->next)
    for (int k = 0; k < g->ops.n && !g->destroyed; k++)
      if (g->ops.all[k].owner == owner) return true;
  return false;
}

EXPORT CUresult cuGraphDestroy(CUgraph graph) {
  ops_free(&graph->ops);
  free(graph);
  return CUDA_SUCCESS;
}
