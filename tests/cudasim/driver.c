/* driver.c: the driver, its devices and contexts, and their memory. */
#include "device.h"
#include "library.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHARED_DEFAULT = 48 << 10, STACK = 16 };

Counters counters;
struct Settings settings;
Heap pinned;
static Device devices[DEVICES_MAX];
static bool started;
static _Thread_local Device *stack[STACK];
static _Thread_local int depth;

/* ---- errors and counters ------------------------------------------------- */

EXPORT CUresult cuGetErrorName(CUresult error, const char **text) {
  switch (error) {
#define CU(name, value, words) \
  case name: *text = #name; return CUDA_SUCCESS;
#include "errors.def"
#undef CU
  }
  *text = NULL;
  return CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuGetErrorString(CUresult error, const char **text) {
  switch (error) {
#define CU(name, value, words) \
  case name: *text = words; return CUDA_SUCCESS;
#include "errors.def"
#undef CU
  }
  *text = NULL;
  return CUDA_ERROR_INVALID_VALUE;
}

void say(const char *text) {
  const char *path = getenv("CUDASIM_LOG");
  FILE *f = path ? fopen(path, "a") : stderr;
  if (!f) return;
  fprintf(f, "cudasim: %s\n", text);
  if (path) fclose(f);
}

CUresult device_breaks(Device *d, CUresult status, const char *text) {
  if (!d->broken) say(text);
  return d->broken = status;
}

EXPORT uint64_t cudasim_counter(const char *name) {
#define COUNTER(id, what) \
  if (!strcmp(name, #id)) return counters.id;
#include "counters.def"
#undef COUNTER
  return 0;
}

static int first_used = -1; /* number of the device */

/* The path with the device's number for a %. */
static FILE *open_counters(const char *path) {
  char own[4096];
  size_t before = strcspn(path, "%");
  if (!path[before]) return fopen(path, "w");
  snprintf(own, sizeof own, "%.*s%d%s", (int)before, path, first_used,
           path + before + 1);
  return fopen(own, "w");
}

static void write_counters(void) {
  const char *path = getenv("CUDASIM_COUNTERS");
  FILE *f = path ? open_counters(path) : NULL;
  if (!f) return;
#define COUNTER(id, what) \
  fprintf(f, "%s %llu\n", #id, (unsigned long long)counters.id);
#include "counters.def"
#undef COUNTER
  fclose(f);
}

/* ---- devices ------------------------------------------------------------- */

static uint64_t setting(const char *name, uint64_t otherwise) {
  const char *text = getenv(name);
  return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

/* Those that the program may see, in the order in which they are named. */
static void read_visible(void) {
  const char *at = getenv("CUDA_VISIBLE_DEVICES");
  int n = 0;
  for (int k = 0; !at && k < settings.n_devices; k++)
    settings.visible[n++] = k;
  while (at && *at && n < settings.n_devices) {
    char *end;
    long k = strtol(at, &end, 10);
    if (end == at || k < 0 || k >= settings.n_devices) break;
    settings.visible[n++] = (int)k;
    at = end + (*end == ',');
  }
  settings.n_devices = n;
}

static void read_settings(void) {
  const char *order = getenv("CUDASIM_ORDER");
  uint64_t n = setting("CUDASIM_DEVICES", 1);
  settings = (struct Settings){
      .n_devices = (int)(n < DEVICES_MAX ? n : DEVICES_MAX),
      .arch = (int)setting("CUDASIM_ARCH", 90),
      .driver = (int)setting("CUDASIM_DRIVER", 13000),
      .memory = setting("CUDASIM_MEMORY", UINT64_C(16) << 30),
      .max_steps = setting("CUDASIM_STEPS", UINT64_C(1) << 32),
      .reversed = order && !strcmp(order, "reverse")};
  read_visible();
}

/* A range of addresses that is twice the memory, so that freed ones rest. */
static bool heap_open(Heap *h, uint64_t base, uint64_t limit) {
  h->limit = limit;
  bool races = base && setting("CUDASIM_RACES", 1);
  return region_new(&h->region, base, 2 * limit + (1 << 20), races);
}

EXPORT CUresult cuInit(unsigned flags) {
  if (flags) return CUDA_ERROR_INVALID_VALUE;
  if (!started) {
    read_settings();
    if (!heap_open(&pinned, 0, settings.memory))
      return CUDA_ERROR_OUT_OF_MEMORY;
    for (int k = 0; k < settings.n_devices; k++) {
      devices[k].id = settings.visible[k];
      devices[k].arch = settings.arch;
      if (!heap_open(&devices[k].heap,
                     DEVICE_WINDOW + (uint64_t)k * DEVICE_STRIDE,
                     settings.memory))
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    atexit(write_counters);
  }
  started = true;
  return settings.n_devices ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

EXPORT CUresult cuDriverGetVersion(int *version) {
  read_settings();
  *version = settings.driver;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetCount(int *count) {
  if (!started) return CUDA_ERROR_NOT_INITIALIZED;
  *count = settings.n_devices;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  if (!started) return CUDA_ERROR_NOT_INITIALIZED;
  if (ordinal < 0 || ordinal >= settings.n_devices)
    return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

static CUresult find(CUdevice device, Device **out) {
  int ordinal;
  CUresult r = cuDeviceGet(&ordinal, device);
  if (!r) *out = &devices[ordinal];
  return r;
}

EXPORT CUresult cuDeviceGetName(char *name, int bytes, CUdevice device) {
  Device *d;
  CUresult r = find(device, &d);
  if (!r) snprintf(name, (size_t)bytes, "cudasim sm_%d", d->arch);
  return r;
}

/* Of a device, whatever it is called in this process. */
EXPORT CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device) {
  Device *d;
  CUresult r = find(device, &d);
  if (r) return r;
  memset(uuid, 0, sizeof *uuid);
  snprintf(uuid->bytes, sizeof uuid->bytes, "cudasim %d", d->id);
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
  Device *d;
  CUresult r = find(device, &d);
  if (!r) *bytes = d->heap.limit;
  return r;
}

int shared_most(int arch) {
  static const struct {
    int arch, kib;
  } rows[] = {{100, 227}, {90, 227}, {86, 99}, {80, 163}, {75, 64}, {70, 96}};
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++)
    if (arch >= rows[k].arch) return rows[k].kib << 10;
  return SHARED_DEFAULT;
}

EXPORT CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute which,
                                     CUdevice device) {
  static const struct {
    unsigned which;
    int value;
  } rows[] = {{1, 1024},   {2, 1024},  {3, 1024},  {4, 64},
              {5, 1 << 30}, {6, 65535}, {7, 65535}, {ATTRIBUTE_SHARED,
                                                     SHARED_DEFAULT},
              {10, 32},    {12, 65536}, {19, 1},
              {ATTRIBUTE_MULTIPROCESSORS, MULTIPROCESSORS}, {39, 2048},
              {41, 1}, {95, 1}};
  Device *d;
  CUresult r = find(device, &d);
  if (r) return r;
  switch (which) {
  case ATTRIBUTE_MAJOR: *value = d->arch / 10; return CUDA_SUCCESS;
  case ATTRIBUTE_MINOR: *value = d->arch % 10; return CUDA_SUCCESS;
  case ATTRIBUTE_SHARED_OPTIN:
    *value = shared_most(d->arch);
    return CUDA_SUCCESS;
  }
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++)
    if (rows[k].which == which) {
      *value = rows[k].value;
      return CUDA_SUCCESS;
    }
  return CUDA_ERROR_INVALID_VALUE;
}

/* ---- contexts ------------------------------------------------------------ */

CUresult current_device(Device **out) {
  if (!started) return CUDA_ERROR_NOT_INITIALIZED;
  *out = depth ? stack[depth - 1] : NULL;
  if (!*out) return CUDA_ERROR_INVALID_CONTEXT;
  return (*out)->broken;
}

/* All that the context had. */
static void reset(Device *d) {
  streams_free(d);
  while (d->graphs)
    graph_free(d->graphs);
  while (d->modules) {
    CUmodule m = d->modules;
    d->modules = m->next;
    module_free(m);
  }
  for (int k = 0; k < d->heap.n; k++)
    heap_free(&d->heap, d->heap.all[k].at);
  d->broken = CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  Device *d;
  CUresult r = find(device, &d);
  if (r) return r;
  d->retained++;
  if (first_used < 0) first_used = d->id;
  *context = d;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  Device *d;
  CUresult r = find(device, &d);
  if (r) return r;
  if (!d->retained) return CUDA_ERROR_INVALID_CONTEXT;
  if (!--d->retained) reset(d);
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) {
  Device *d;
  CUresult r = find(device, &d);
  if (!r) reset(d);
  return r;
}

EXPORT CUresult cuCtxSetCurrent(CUcontext context) {
  if (!depth) depth = 1;
  stack[depth - 1] = context;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetCurrent(CUcontext *context) {
  *context = depth ? stack[depth - 1] : NULL;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxPushCurrent_v2(CUcontext context) {
  if (depth == STACK) return CUDA_ERROR_INVALID_VALUE;
  stack[depth++] = context;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxPopCurrent_v2(CUcontext *context) {
  if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
  CUcontext top = stack[--depth];
  if (context) *context = top;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxSynchronize(void) {
  Device *d;
  CUresult r = current_device(&d);
  counters.synchronizations++;
  return r ? r : device_run(d);
}

/* ---- memory -------------------------------------------------------------- */

EXPORT CUresult cuMemGetInfo_v2(size_t *unused, size_t *total) {
  Device *d;
  CUresult r = current_device(&d);
  if (r) return r;
  *total = d->heap.limit;
  *unused = d->heap.limit - d->heap.used;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *data, size_t bytes) {
  Device *d;
  CUresult r = current_device(&d);
  if (r) return r;
  if (!bytes) return CUDA_ERROR_INVALID_VALUE;
  *data = heap_new(&d->heap, bytes);
  if (!*data) return CUDA_ERROR_OUT_OF_MEMORY;
  counters.allocations++;
  counters.allocated_bytes += bytes;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr data) {
  Device *d;
  CUresult r = current_device(&d);
  if (!r) r = device_run(d);
  if (r || !data) return r;
  counters.frees++;
  return heap_free(&d->heap, data) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuMemHostAlloc(void **data, size_t bytes, unsigned flags) {
  Device *d;
  CUresult r = current_device(&d);
  if (r) return r;
  if (!bytes || flags > 7) return CUDA_ERROR_INVALID_VALUE;
  uint64_t at = heap_new(&pinned, bytes);
  if (!at) return CUDA_ERROR_OUT_OF_MEMORY;
  heap_set_state(&pinned, at, bytes); /* the host writes unseen */
  *data = (void *)(uintptr_t)at;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuMemFreeHost(void *data) {
  Device *d;
  CUresult r = current_device(&d);
  if (!r) r = device_run(d);
  if (r) return r;
  bool ok = heap_free(&pinned, (uint64_t)(uintptr_t)data);
  return ok ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *device, void *host,
                                             unsigned flags) {
  uint64_t at = (uint64_t)(uintptr_t)host;
  if (flags || !heap_bytes(&pinned, at, 1)) return CUDA_ERROR_INVALID_VALUE;
  *device = at;
  return CUDA_SUCCESS;
}

/* ---- for other libraries ------------------------------------------------- */

EXPORT uint8_t *cudasim_bytes(Device *d, CUdeviceptr at, uint64_t bytes,
                              char *why, size_t n) {
  static uint8_t none[1];
  if (!bytes) return none;
  uint8_t *p = heap_bytes(heap_at(d, at), at, bytes);
  if (!p) heap_explain(&d->heap, at + bytes - 1, why, n);
  return p;
}

EXPORT void cudasim_written(Device *d, CUdeviceptr at, uint64_t bytes) {
  if (bytes) heap_set_state(heap_at(d, at), at, bytes);
}

EXPORT int cudasim_device(void) {
  Device *d;
  return current_device(&d) ? -1 : d->id;
}

EXPORT void cudasim_exchanged(void) {
  counters.exchanges++;
}

EXPORT void cudasim_joined(void) {
  counters.communicators++;
}

EXPORT void cudasim_say(const char *text) {
  say(text);
}
