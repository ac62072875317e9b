/* module.c: PTX text as a module of a device, its kernels, their launch. */
#include "device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  JIT_ERROR_LOG = 5,
  JIT_ERROR_LOG_BYTES = 6,
  FUNC_MAX_THREADS = 0,
  FUNC_SHARED = 1,
  FUNC_LOCAL = 3,
  FUNC_REGISTERS = 4,
  FUNC_DYNAMIC_MOST = 8,
  THREADS_MAX = 1024,
  SHARED_PLAIN = 48 << 10
};

/* ---- loading ------------------------------------------------------------- */

/* The PTX that a driver knows: CUDA 11.0 brought 7.0, 12.0 brought 8.0. */
static int newest_ptx(int driver) {
  int major = driver / 1000, minor = driver % 1000 / 10;
  if (major < 12) return 10 * (major - 4) + minor;
  if (major > 12) return 90 + minor;
  return 80 + (minor > 5 ? minor - 1 : minor);
}

/* Variables get device memory for as long as the module is loaded. */
static bool place_variables(CUmodule mod) {
  Module *m = &mod->m;
  for (int k = 0; k < m->n_vars; k++) {
    Var *v = &m->vars[k];
    if (v->space == SP_SHARED) continue;
    if (!v->bytes) return ptx_error(m, v->line, "a variable without a size");
    v->at = heap_new(&mod->device->heap, (uint64_t)v->bytes);
    uint8_t *to = heap_bytes(&mod->device->heap, v->at, (uint64_t)v->bytes);
    if (!to) return ptx_error(m, v->line, "no device memory");
    if (v->init) memcpy(to, v->init, (size_t)v->bytes);
    else memset(to, 0, (size_t)v->bytes);
    heap_set_state(&mod->device->heap, v->at, (uint64_t)v->bytes);
  }
  return true;
}

static CUresult load(CUmodule mod, const char *text) {
  Module *m = &mod->m;
  int arch = mod->device->arch;
  if (!ptx_parse(m, text)) return CUDA_ERROR_INVALID_PTX;
  if (m->version > newest_ptx(settings.driver)) {
    ptx_error(m, 1, "version %d.%d is newer than the driver", m->version / 10,
              m->version % 10);
    return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
  }
  if (m->arch > arch || (m->arch_suffix && m->arch != arch)) {
    ptx_error(m, 1, "made for sm_%d%.1s, the device is sm_%d", m->arch,
              &m->arch_suffix, arch);
    return CUDA_ERROR_NO_BINARY_FOR_GPU;
  }
  if (!place_variables(mod) || !ptx_decode(m)) return CUDA_ERROR_INVALID_PTX;
  return CUDA_SUCCESS;
}

/* The caller's buffer for errors, which has its size beside it. */
static void write_log(const char *text, unsigned n, const CUjit_option *options,
                      void **values) {
  char *to = NULL;
  size_t room = 0, size = strlen(text) + 1;
  for (unsigned k = 0; k < n; k++) {
    if (options[k] == JIT_ERROR_LOG) to = values[k];
    if (options[k] == JIT_ERROR_LOG_BYTES) room = (size_t)values[k];
  }
  if (to && room) snprintf(to, room, "%s", text);
  for (unsigned k = 0; k < n; k++)
    if (options[k] == JIT_ERROR_LOG_BYTES)
      values[k] = (void *)(size < room ? size : room);
}

/* A cubin or a bundle of them: code for a machine, which this is not. */
static bool is_binary(const char *image) {
  static const char fat[4] = {0x50, (char)0xed, 0x55, (char)0xba};
  return !memcmp(image, "\177ELF", 4) || !memcmp(image, fat, 4);
}

EXPORT CUresult cuModuleLoadDataEx(CUmodule *module, const void *image,
                                   unsigned n, CUjit_option *options,
                                   void **values) {
  Device *d;
  CUresult r = current_device(&d);
  if (r) return r;
  if (is_binary(image)) return CUDA_ERROR_NO_BINARY_FOR_GPU;
  CUmodule mod = calloc(1, sizeof *mod);
  if (!mod) return CUDA_ERROR_OUT_OF_MEMORY;
  mod->device = d;
  r = load(mod, image);
  write_log(mod->m.error, n, options, values);
  if (r) {
    say(mod->m.error);
    module_free(mod);
    return r;
  }
  mod->next = d->modules;
  d->modules = mod;
  *module = mod;
  return CUDA_SUCCESS;
}

void module_free(CUmodule mod) {
  Module *m = &mod->m;
  for (int k = 0; k < m->n_vars; k++)
    if (m->vars[k].at && m->vars[k].space != SP_SHARED)
      heap_free(&mod->device->heap, m->vars[k].at);
  for (int k = 0; k < m->n_kernels; k++)
    free(m->kernels[k]->consts);
  while (mod->functions) {
    CUfunction f = mod->functions;
    mod->functions = f->next;
    free(f);
  }
  arena_free(&m->arena);
  free(mod);
}

EXPORT CUresult cuModuleUnload(CUmodule module) {
  Device *d;
  CUresult r = current_device(&d);
  if (!r) r = device_run(d);
  if (r) return r;
  for (CUmodule *at = &d->modules; *at; at = &(*at)->next)
    if (*at == module) {
      *at = module->next;
      module_free(module);
      return CUDA_SUCCESS;
    }
  return CUDA_ERROR_INVALID_HANDLE;
}

EXPORT CUresult cuModuleGetFunction(CUfunction *function, CUmodule module,
                                    const char *name) {
  Device *d;
  CUresult r = current_device(&d);
  if (r) return r;
  Kernel *k = kernel_named(&module->m, name);
  if (!k) return CUDA_ERROR_NOT_FOUND;
  CUfunction f = calloc(1, sizeof *f);
  if (!f) return CUDA_ERROR_OUT_OF_MEMORY;
  *f = (struct CUfunc_st){k, d, module->functions};
  module->functions = *function = f;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleGetGlobal_v2(CUdeviceptr *at, size_t *bytes,
                                     CUmodule module, const char *name) {
  for (int k = 0; k < module->m.n_vars; k++) {
    const Var *v = &module->m.vars[k];
    if (v->space == SP_SHARED || !str_is(v->name, name)) continue;
    if (at) *at = v->at;
    if (bytes) *bytes = (size_t)v->bytes;
    return CUDA_SUCCESS;
  }
  return CUDA_ERROR_NOT_FOUND;
}

/* ---- kernels ------------------------------------------------------------- */

/* Of its variables, without what keeps them apart here. */
static int static_shared(const Kernel *k) {
  int bytes = 0;
  for (int v = 0; v < k->n_shared; v++) {
    bytes = (bytes + k->shared[v].align - 1) / k->shared[v].align *
            k->shared[v].align;
    bytes += (int)k->shared[v].bytes;
  }
  return bytes;
}

static int dynamic_most(const Kernel *k) {
  int plain = SHARED_PLAIN - static_shared(k);
  return k->max_dynamic > plain ? k->max_dynamic : plain;
}

EXPORT CUresult cuFuncGetAttribute(int *value, CUfunction_attribute which,
                                   CUfunction function) {
  const Kernel *k = function->kernel;
  switch (which) {
  case FUNC_MAX_THREADS:
    *value = k->max_threads ? k->max_threads : THREADS_MAX;
    return CUDA_SUCCESS;
  case FUNC_SHARED: *value = static_shared(k); return CUDA_SUCCESS;
  case FUNC_LOCAL: *value = k->local_bytes; return CUDA_SUCCESS;
  case FUNC_REGISTERS: *value = 32; return CUDA_SUCCESS;
  case FUNC_DYNAMIC_MOST: *value = dynamic_most(k); return CUDA_SUCCESS;
  }
  return CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuFuncSetAttribute(CUfunction function,
                                   CUfunction_attribute which, int value) {
  Kernel *k = function->kernel;
  int most = shared_most(function->device->arch) - static_shared(k);
  if (which != FUNC_DYNAMIC_MOST || value < 0 || value > most)
    return CUDA_ERROR_INVALID_VALUE;
  k->max_dynamic = value;
  return CUDA_SUCCESS;
}

/* By threads and shared memory alone. */
EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(
    int *blocks, CUfunction function, int threads, size_t shared_bytes) {
  if (threads < 1 || threads > THREADS_MAX) return CUDA_ERROR_INVALID_VALUE;
  size_t shared = shared_bytes + (size_t)static_shared(function->kernel) + 1024;
  size_t fit = (size_t)shared_most(function->device->arch) / shared;
  int by_threads = 2 * THREADS_MAX / threads;
  *blocks = (int)fit < by_threads ? (int)fit : by_threads;
  return CUDA_SUCCESS;
}

static bool sizes_fit(const Kernel *k, const uint32_t *grid,
                      const uint32_t *block, unsigned shared_bytes) {
  for (int a = 0; a < 3; a++)
    if (!grid[a] || !block[a] || grid[a] > (a ? 65535u : INT32_MAX) ||
        block[a] > (a == 2 ? 64u : (unsigned)THREADS_MAX))
      return false;
  uint32_t threads = block[0] * block[1] * block[2];
  uint32_t most = k->max_threads ? (uint32_t)k->max_threads : THREADS_MAX;
  return threads <= most && (int64_t)shared_bytes <= dynamic_most(k);
}

static CUresult launch(Op op, CUstream stream, void **params) {
  Device *d;
  CUresult r = current_device(&d);
  if (r) return r;
  if (!op.function || op.function->device != d)
    return CUDA_ERROR_INVALID_HANDLE;
  const Kernel *k = op.function->kernel;
  op.kind = DO_KERNEL;
  if ((k->n_params && !params) ||
      !sizes_fit(k, op.grid, op.block, op.shared_bytes))
    return CUDA_ERROR_INVALID_VALUE;
  uint8_t data[4096] = {0};
  if (k->param_bytes > (int)sizeof data) return CUDA_ERROR_INVALID_VALUE;
  for (int p = 0; p < k->n_params; p++)
    memcpy(data + k->params[p].at, params[p], (size_t)k->params[p].bytes);
  op.data = data;
  op.n_data = (size_t)k->param_bytes;
  return stream_add(stream, op);
}

EXPORT CUresult cuLaunchKernel(CUfunction function, unsigned grid_x,
                               unsigned grid_y, unsigned grid_z,
                               unsigned block_x, unsigned block_y,
                               unsigned block_z, unsigned shared_bytes,
                               CUstream stream, void **params, void **extra) {
  Op op = {.function = function,
           .grid = {grid_x, grid_y, grid_z},
           .block = {block_x, block_y, block_z},
           .shared_bytes = shared_bytes};
  return extra ? CUDA_ERROR_INVALID_VALUE : launch(op, stream, params);
}

EXPORT CUresult cuLaunchCooperativeKernel(
    CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
    unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
    CUstream stream, void **params) {
  Op op = {.function = function,
           .grid = {grid_x, grid_y, grid_z},
           .block = {block_x, block_y, block_z},
           .shared_bytes = shared_bytes,
           .cooperative = true};
  int each;
  CUresult r = cuOccupancyMaxActiveBlocksPerMultiprocessor(
      &each, function, (int)(block_x * block_y * block_z), shared_bytes);
  if (r) return r;
  if ((uint64_t)grid_x * grid_y * grid_z > (uint64_t)each * MULTIPROCESSORS)
    return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
  return launch(op, stream, params);
}
