/* device.h: devices, streams and graphs of the stand-in, for the files that
 * implement the calls of cuda_api.h.
 *
 * Work in a stream waits until somebody asks for its end: as late as a real
 * device could do it. So a host that does not wait before it reads a result or
 * reuses pinned memory, or a stream that does not wait for another, sees the
 * wrong data every time and not once a month. */
#ifndef MOEC_CUDASIM_DEVICE_H
#define MOEC_CUDASIM_DEVICE_H

#include "cuda_api.h"
#include "cudasim.h"

#define EXPORT __attribute__((visibility("default")))

typedef struct Counters {
#define COUNTER(name, what) uint64_t name;
#include "counters.def"
#undef COUNTER
} Counters;
extern Counters counters;

typedef struct CUctx_st Device; /* its primary context */

struct CUctx_st {
  int id, arch;
  Heap heap;
  int retained;
  CUresult broken; /* after a fault, what every call returns */
  CUstream streams;
  CUevent events;
  CUmodule modules;
  CUgraphExec graphs;
};

extern struct Settings {
  int n_devices, arch, driver;
  int visible[DEVICES_MAX]; /* numbers among all devices */
  uint64_t memory, max_steps;
  bool reversed;
} settings;

/* The context of this thread, and that it can go on. */
CUresult current_device(Device **out);
/* Prints and keeps an error of a device. */
CUresult device_breaks(Device *d, CUresult status, const char *text);
void say(const char *text);
enum { MULTIPROCESSORS = 4 };
/* Shared memory that a block may have at most. */
int shared_most(int arch);

/* ---- modules ------------------------------------------------------------- */

struct CUfunc_st {
  Kernel *kernel;
  Device *device;
  CUfunction next;
};

struct CUmod_st {
  Module m;
  Device *device;
  CUfunction functions;
  CUmodule next;
};

void module_free(CUmodule m);

/* ---- work ---------------------------------------------------------------- */

typedef enum OpKind {
  DO_KERNEL,
  DO_HTOD,
  DO_DTOH,
  DO_DTOD,
  DO_FILL,
  DO_CALL,
  DO_RECORD,
  DO_WAIT,
  DO_GRAPH
} OpKind;

/* What another library of the stand-ins puts in a stream: `data` is copied. It
 * may be CUDA_ERROR_NOT_READY, and is then called again. */
typedef CUresult CallFn(Device *d, const void *data, char *why, size_t n);

typedef struct Op {
  OpKind kind;
  CUfunction function; /* DO_KERNEL */
  uint32_t grid[3], block[3], shared_bytes;
  bool cooperative;
  uint8_t *data; /* parameters; bytes of pageable memory; of a call */
  size_t n_data;
  CUdeviceptr to, from; /* copies; DO_FILL */
  void *host;
  uint64_t bytes;
  uint32_t value;
  int value_bytes;
  CallFn *call;
  const void *owner;     /* of a call, for other libraries */
  CUevent event; /* DO_RECORD, DO_WAIT */
  uint64_t ticket;
  CUgraphExec graph;
} Op;

typedef struct Ops {
  Op *all;
  int n, cap, done;
} Ops;

struct CUstream_st {
  Device *device;
  Ops ops;
  bool blocking; /* for the null stream */
  CUgraph capture;
  bool origin, unjoined; /* of the capture */
  CUstream next;
};

struct CUevent_st {
  Device *device;
  CUstream stream;
  uint64_t recorded, happened; /* tickets */
  double seconds;
  CUgraph capture;
  CUevent next;
};

struct CUgraph_st {
  Device *device;
  Ops ops;
  bool invalid;
};

struct CUgraphExec_st {
  Device *device;
  Ops ops; /* `done`: of a launch that is under way */
  int launched;   /* runs that are not over */
  bool destroyed; /* goes when they are */
  CUgraphExec next;
};

/* Memory of the host that is pinned, or the device's. */
Heap *heap_at(Device *d, uint64_t at);
/* Does an op now; a failure breaks the device. CUDA_ERROR_NOT_READY: it, or a
 * part of it, is still to be done. */
CUresult op_try(Device *d, const Op *op);
/* The same, until it is done. */
CUresult op_run(Device *d, const Op *op);
/* Puts an op, whose data it copies, at the end of a stream or its capture. */
CUresult stream_add(CUstream stream, Op op);
/* All that is in a stream, or in all of a device. The first one goes as far as
 * it gets: CUDA_ERROR_NOT_READY. */
CUresult stream_try(CUstream stream);
CUresult stream_run(CUstream stream);
CUresult device_run(Device *d);
/* Between two tries. */
void nap(void);
void ops_free(Ops *ops);
void graph_free(CUgraphExec graph);
void streams_free(Device *d);

#endif
