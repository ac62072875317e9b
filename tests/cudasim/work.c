/* work.c: what an op of a stream or a graph does. */
#include "device.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static CUresult run_launch(Device *d, const Op *op) {
  Launch l = {.kernel = op->function->kernel,
              .heap = &d->heap,
              .dynamic_bytes = op->shared_bytes,
              .params = op->data,
              .reversed = settings.reversed,
              .cooperative = op->cooperative,
              .max_steps = settings.max_steps};
  memcpy(l.grid, op->grid, sizeof l.grid);
  memcpy(l.block, op->block, sizeof l.block);
  run_kernel(&l);
  counters.kernels++;
  counters.instructions += l.steps;
  return l.status ? device_breaks(d, l.status, l.error) : CUDA_SUCCESS;
}

Heap *heap_at(Device *d, uint64_t at) {
  bool is_host = at - pinned.region.base < pinned.region.size;
  return is_host ? &pinned : &d->heap;
}

static uint8_t *reach(Device *d, uint64_t at, uint64_t n) {
  return heap_bytes(heap_at(d, at), at, n);
}

static CUresult lost(Device *d, const char *what, uint64_t at, uint64_t n) {
  char text[256], why[128];
  heap_explain(&d->heap, at, why, sizeof why);
  snprintf(text, sizeof text, "%s of %llu bytes at 0x%llx: out of bounds: %s",
           what, (unsigned long long)n, (unsigned long long)at, why);
  return device_breaks(d, CUDA_ERROR_ILLEGAL_ADDRESS, text);
}

static CUresult run_htod(Device *d, const Op *op) {
  uint8_t *to = reach(d, op->to, op->bytes);
  if (!to) return lost(d, "copy to the device", op->to, op->bytes);
  memcpy(to, op->data ? op->data : op->host, op->bytes);
  heap_set_state(heap_at(d, op->to), op->to, op->bytes);
  counters.htod++;
  counters.htod_bytes += op->bytes;
  return CUDA_SUCCESS;
}

static CUresult run_dtoh(Device *d, const Op *op) {
  const uint8_t *from = reach(d, op->from, op->bytes);
  if (!from) return lost(d, "copy from the device", op->from, op->bytes);
  memcpy(op->host, from, op->bytes);
  counters.dtoh++;
  counters.dtoh_bytes += op->bytes;
  return CUDA_SUCCESS;
}

/* What is unknown stays so. */
static CUresult run_dtod(Device *d, const Op *op) {
  const uint8_t *from = reach(d, op->from, op->bytes);
  uint8_t *to = reach(d, op->to, op->bytes);
  if (!from) return lost(d, "copy from", op->from, op->bytes);
  if (!to) return lost(d, "copy to", op->to, op->bytes);
  memmove(to, from, op->bytes);
  const Region *s = &heap_at(d, op->from)->region;
  const Region *t = &heap_at(d, op->to)->region;
  memmove(t->state + (op->to - t->base), s->state + (op->from - s->base),
          op->bytes);
  counters.dtod++;
  return CUDA_SUCCESS;
}

static CUresult run_fill(Device *d, const Op *op) {
  uint8_t *to = reach(d, op->to, op->bytes);
  if (!to) return lost(d, "fill", op->to, op->bytes);
  for (uint64_t k = 0; k < op->bytes; k += (uint64_t)op->value_bytes)
    memcpy(to + k, &op->value, (size_t)op->value_bytes);
  heap_set_state(heap_at(d, op->to), op->to, op->bytes);
  return CUDA_SUCCESS;
}

static CUresult run_call(Device *d, const Op *op) {
  char why[320] = "";
  CUresult r = op->call(d, op->data, why, sizeof why);
  if (r == CUDA_ERROR_NOT_READY) return r;
  return r ? device_breaks(d, r, why) : CUDA_SUCCESS;
}

static CUresult run_record(const Op *op) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  op->event->seconds = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
  op->event->happened = op->ticket;
  return CUDA_SUCCESS;
}

/* Another stream goes on until the event has happened. */
static CUresult run_wait(const Op *op) {
  CUresult r = CUDA_SUCCESS;
  CUevent e = op->event;
  if (!e->stream) return r;
  Ops *o = &e->stream->ops;
  while (!r && e->happened < op->ticket && o->done < o->n) {
    const Op next = o->all[o->done];
    r = op_try(e->stream->device, &next);
    if (r != CUDA_ERROR_NOT_READY) o->done++;
  }
  return r;
}

static CUresult run_graph(Device *d, const Op *op) {
  Ops *o = &op->graph->ops;
  CUresult r = CUDA_SUCCESS;
  while (o->done < o->n && !r) {
    r = op_try(d, &o->all[o->done]);
    if (!r) o->done++;
  }
  if (r == CUDA_ERROR_NOT_READY) return r;
  o->done = 0;
  if (!--op->graph->launched && op->graph->destroyed) graph_free(op->graph);
  return r;
}

void nap(void) {
  const struct timespec t = {.tv_nsec = 50000};
  nanosleep(&t, NULL);
}

CUresult op_run(Device *d, const Op *op) {
  CUresult r;
  while ((r = op_try(d, op)) == CUDA_ERROR_NOT_READY)
    nap();
  return r;
}

CUresult op_try(Device *d, const Op *op) {
  if (d->broken) return d->broken;
  switch (op->kind) {
  case DO_KERNEL: return run_launch(d, op);
  case DO_HTOD: return run_htod(d, op);
  case DO_DTOH: return run_dtoh(d, op);
  case DO_DTOD: return run_dtod(d, op);
  case DO_FILL: return run_fill(d, op);
  case DO_CALL: return run_call(d, op);
  case DO_RECORD: return run_record(op);
  case DO_WAIT: return run_wait(op);
  case DO_GRAPH: return run_graph(d, op);
  }
  return CUDA_ERROR_INVALID_VALUE;
}
