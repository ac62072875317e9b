/* cuda.c: a GPU as the device of a session: which one, and its memory.
 *
 * All memory of the GPU is one block, taken before the first step: the slabs
 * that the plan laid out, the inputs of each entry, one workspace for kernels
 * and one for cuBLASLt. Whether there is as much is known before. Addresses
 * never change, so a step can be captured once.
 *
 * Inputs are filled in the host's memory, and get to the GPU by cuda_input.c.
 * At a step's end a kernel writes the reports into the host's memory: a step
 * copies nothing back. */
#include "gpu.h"

#include <stdlib.h>
#include <string.h>

enum { INPUT_SETS = 3, /* where they are read, and two on their way there */
       NEWER = 90     /* sm_90: for which there are other kernels */
};

/* ---- the context --------------------------------------------------------- */

MoertStatus rt_cuda_enter(RtCuda *c) {
  return RT_CU(c, cuCtxPushCurrent(c->context));
}

void rt_cuda_leave(RtCuda *c) {
  CUcontext before;
  c->cu.cuCtxPopCurrent(&before);
}

/* ---- which GPU ----------------------------------------------------------- */

/* "sm_90a": 90, for that GPU alone; without a letter later ones do, too. */
static MoertStatus check_arch(const RtCuda *c, const char *arch) {
  char *end;
  const char *digits = arch + strcspn(arch, "0123456789");
  long wanted = strtol(digits, &end, 10);
  if (*end ? c->gpu.arch == wanted : c->gpu.arch >= wanted) return MOERT_OK;
  if (c->gpu.arch < RT_OLDEST_SM)
    return rt_fail(MOERT_UNSUPPORTED,
                   "%s is an sm_%d: models run on GPUs from sm_%d on",
                   c->gpu.name, c->gpu.arch, RT_OLDEST_SM);
  return rt_fail(MOERT_UNSUPPORTED,
                 "the model's kernels are for %s, but %s is an sm_%d: compile "
                 "it again with --arch=sm_%d",
                 arch, c->gpu.name, c->gpu.arch,
                 c->gpu.arch < NEWER ? RT_OLDEST_SM : NEWER);
}

/* PTX 8.0 came with CUDA 12.0, 7.8 with 11.8. */
static MoertStatus check_ptx(const RtCuda *c, const char *ptx) {
  static const char word[] = ".version ";
  const char *at = strstr(ptx, word);
  int major, minor;
  if (!at || sscanf(at + sizeof word - 1, "%d.%d", &major, &minor) != 2)
    return MOERT_OK; /* the driver will say what it is */
  if (c->version >= (major + 4) * 1000 + minor * 10) return MOERT_OK;
  return rt_fail(MOERT_UNSUPPORTED,
                 "the model's kernels are for CUDA %d.%d and later (PTX "
                 "%d.%d), and the driver is for CUDA %d.%d: a newer driver "
                 "takes them, or compile the model again with --arch=sm_%d",
                 major + 4, minor, major, minor, c->version / 1000,
                 c->version % 1000 / 10, RT_OLDEST_SM);
}

static MoertStatus check_code(const RtCuda *c, const MoertDesc *d) {
  RT_TRY(check_arch(c, d->arch));
  return check_ptx(c, d->ptx);
}

static void cuda_free(RtCuda *c) {
  if (!c) return;
  rt_cuda_unload(c);
  free(c);
}

MoertStatus rt_cuda_find(const MoertDesc *d, MoertComm *comm, RtCuda **out) {
  RtCuda *c;
  *out = NULL;
  RT_TRY(RT_NEW(&c, 1));
  MoertStatus st = rt_comm_agree(comm, rt_cuda_load(c));
  if (st == MOERT_OK) st = rt_cuda_choose(c, comm);
  if (st == MOERT_OK) st = rt_comm_agree(comm, check_code(c, d));
  if (st == MOERT_OK)
    *out = c;
  else
    cuda_free(c);
  return st;
}

void rt_cuda_name(const RtCuda *c, char *out, size_t bytes) {
  snprintf(out, bytes, "%s (sm_%d)", c->gpu.name, c->gpu.arch);
}

/* ---- kernels ------------------------------------------------------------- */

MoertStatus rt_cuda_module(RtCuda *c, const void *image, CUmodule *out) {
  char log[512] = "";
  CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER,
                            CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
                            CU_JIT_GENERATE_LINE_INFO};
  void *values[] = {log, (void *)(uintptr_t)sizeof log, (void *)1};
  MoertStatus st = RT_CU(c, cuModuleLoadDataEx(out, image, 3, options, values));
  if (st == MOERT_OK) return st;
  *out = NULL;
  log[strcspn(log, "\n")] = 0;
  return rt_fail_prefix(st, "the kernels cannot be loaded by the driver, which "
                        "is for CUDA %d.%d: %s%s", c->version / 1000,
                        c->version % 1000 / 10, log, log[0] ? ": " : "");
}

/* Machine code where it is for this very GPU, else PTX. */
static MoertStatus load_kernels(MoertSession *s) {
  RtCuda *c = s->cuda;
  const MoertDesc *d = s->desc;
  char own[16];
  snprintf(own, sizeof own, "sm_%d", c->gpu.arch);
  bool ready = d->cubin && strncmp(d->arch, own, strlen(own)) == 0;
  RT_TRY(rt_cuda_module(c, ready ? d->cubin : d->ptx, &c->module));
  return rt_cuda_functions(s);
}

/* The largest power of two that divides all addresses of a ref, up to that of
 * the slabs. */
static int64_t alignment(const MoertRef *r) {
  uint64_t bits = RT_CU_ALIGNED | (uint64_t)r->offset;
  for (int i = 0; i < MOERT_MAX_LOOPS; i++)
    bits |= (uint64_t)r->stride[i];
  return (int64_t)(bits & (~bits + 1));
}

static MoertStatus make_gemm(MoertSession *s, int entry, int index) {
  const MoertEntry *e = &s->desc->entries[entry];
  const MoertRecord *r = &e->records[index];
  int64_t align[3];
  for (int i = 0; i < 3; i++)
    align[i] = alignment(&r->args[i]);
  MoertStatus st = rt_cuda_gemm_new(s->cuda, r->gemm, align,
                                    &s->cuda->entries[entry].gemms[index]);
  if (st == MOERT_OK) return st;
  return rt_fail_prefix(st, "entry %s: record %d (%s, %s): ", e->name, index,
                        r->name, r->where);
}

/* The library is loaded for programs that have products. */
static MoertStatus make_gemms(MoertSession *s) {
  RtCuda *c = s->cuda;
  for (int i = 0; i < s->desc->n_entries; i++)
    for (int k = 0; k < s->desc->entries[i].n_records; k++) {
      if (s->desc->entries[i].records[k].kind != MOERT_GEMM) continue;
      RT_TRY(rt_cuda_gemm_open(c));
      c->gemm_bytes = rt_cuda_gemm_bytes();
      RT_TRY(make_gemm(s, i, k));
    }
  return MOERT_OK;
}

static MoertStatus make_entries(MoertSession *s) {
  RT_TRY(RT_NEW(&s->cuda->params, s->max_args + 1 + RT_CU_MOST_MAPS));
  RT_TRY(RT_NEW(&s->cuda->entries, s->desc->n_entries));
  for (int i = 0; i < s->desc->n_entries; i++) {
    RtCudaEntry *e = &s->cuda->entries[i];
    RT_TRY(RT_NEW(&e->functions, s->desc->entries[i].n_records));
    RT_TRY(RT_NEW(&e->gemms, s->desc->entries[i].n_records));
    RT_TRY(rt_cuda_inputs_open(s->cuda, &e->inputs,
                               s->desc->entries[i].input_bytes));
    RT_TRY(RT_NEW(&e->exchanges, s->desc->entries[i].n_records));
  }
  return MOERT_OK;
}

/* ---- memory -------------------------------------------------------------- */

/* What all kernels and entries need at most. */
typedef struct Needs {
  int64_t workspace, arena, inputs, reports, exchanges, fixed, total;
} Needs;

static Needs count_needs(const MoertSession *s) {
  const MoertDesc *d = s->desc;
  Needs n = {0};
  for (int i = 0; i < d->n_entries; i++) {
    const MoertEntry *e = &d->entries[i];
    n.arena = rt_larger(n.arena, e->arena_bytes);
    n.inputs += rt_cu_round_up(e->input_bytes);
    n.reports += rt_cu_round_up(e->report_bytes);
    for (int k = 0; k < e->n_records; k++)
      if (e->records[k].kernel)
        n.workspace =
            rt_larger(n.workspace, e->records[k].kernel->workspace_bytes);
  }
  n.fixed = s->cuda->gemm_bytes;
  n.exchanges = rt_cuda_exchange_bytes(s);
  for (int i = 0; i < 3; i++)
    n.fixed += rt_cu_round_up(d->slab_bytes[i]);
  n.total = n.fixed + rt_cu_round_up(n.arena) + rt_cu_round_up(n.workspace) +
            INPUT_SETS * n.inputs + n.reports + n.exchanges;
  return n;
}

/* "12.34 GB", "12.34 MB" */
typedef struct Size {
  char text[24];
} Size;
static Size size(int64_t bytes) {
  Size x;
  bool big = bytes >= 1000000000;
  snprintf(x.text, sizeof x.text, "%.2f %s",
           (double)bytes / (big ? 1e9 : 1e6), big ? "GB" : "MB");
  return x;
}

/* What of the model would fit: all but slots and workspace grows with the
 * batch. */
static MoertStatus check_memory(RtCuda *c, const Needs *n) {
  size_t free_bytes, all_bytes;
  RT_TRY(RT_CU(c, cuMemGetInfo(&free_bytes, &all_bytes)));
  int64_t left = (int64_t)free_bytes - n->fixed, rest = n->total - n->fixed;
  if (left >= rest) return MOERT_OK;
  char fits[160] = " alone, whatever the size of a batch";
  if (left > 0)
    snprintf(fits, sizeof fits, ", and with a batch of %d %% of this one the "
             "rest would fit", (int)(100 * (double)left / (double)rest));
  return rt_fail(MOERT_NO_MEMORY,
                 "the model needs %s of GPU memory, and of the %s of %s %s are "
                 "free: parameters, optimiser state and cuBLASLt take %s%s",
                 size(n->total).text, size((int64_t)all_bytes).text,
                 c->gpu.name, size((int64_t)free_bytes).text,
                 size(n->fixed).text, fits);
}

/* The next `bytes` of the block that *at walks through. */
static char *take(char **at, int64_t bytes) {
  char *taken = *at;
  *at += rt_cu_round_up(bytes);
  return taken;
}

static MoertStatus host_block(RtCuda *c, int64_t bytes, void **out,
                              char **out_device) {
  CUdeviceptr device;
  *out_device = NULL;
  if (bytes == 0) return MOERT_OK;
  RT_TRY(RT_CU(c, cuMemHostAlloc(out, (size_t)bytes,
                                 CU_MEMHOSTALLOC_DEVICEMAP)));
  memset(*out, 0, (size_t)bytes);
  RT_TRY(RT_CU(c, cuMemHostGetDevicePointer(&device, *out, 0)));
  *out_device = (char *)(uintptr_t)device;
  return MOERT_OK;
}

static MoertStatus fill(RtCuda *c, char *to, int value, int64_t bytes) {
  if (bytes == 0) return MOERT_OK;
  return RT_CU(c, cuMemsetD8Async(rt_cu_address(to), (unsigned char)value,
                                  (size_t)bytes, c->stream));
}

static void lay_out(MoertSession *s, const Needs *n, char *at,
                    char *report_at) {
  RtCuda *c = s->cuda;
  const MoertDesc *d = s->desc;
  char *inputs = c->inputs, *reports = c->reports;
  for (int i = 0; i < 3; i++)
    s->slab[i] = take(&at, d->slab_bytes[i]);
  c->arena = take(&at, n->arena);
  c->workspace = take(&at, n->workspace);
  c->gemm_workspace = take(&at, c->gemm_bytes);
  c->exchange_block = take(&at, n->exchanges);
  for (int i = 0; i < d->n_entries; i++) {
    const MoertEntry *e = &d->entries[i];
    RtEntry *own = &s->entries[i];
    for (int k = 0; k < 3; k++)
      own->base[k] = s->slab[k];
    own->base[MOERT_SLAB_ARENA] = c->arena;
    own->base[MOERT_SLAB_INPUT] = take(&at, e->input_bytes);
    own->base[MOERT_SLAB_REPORT] = take(&at, e->report_bytes);
    c->entries[i].report = take(&report_at, e->report_bytes);
    own->input = take(&inputs, e->input_bytes);
    for (int k = 0; k < 2; k++) {
      c->entries[i].inputs.set[k] = take(&at, e->input_bytes);
      c->entries[i].inputs.pinned[k] = take(&inputs, e->input_bytes);
    }
    own->report = take(&reports, e->report_bytes);
  }
}

static MoertStatus make_memory(MoertSession *s) {
  RtCuda *c = s->cuda;
  Needs n = count_needs(s);
  char *unused, *reports;
  int64_t state = s->desc->slab_bytes[MOERT_SLOT_STATE];
  RT_TRY(check_memory(c, &n));
  RT_TRY(RT_NEW(&s->state_kept, state));
  if (n.total)
    RT_TRY(RT_CU(c, cuMemAlloc(&c->memory, (size_t)n.total)));
  RT_TRY(host_block(c, INPUT_SETS * n.inputs, &c->inputs, &unused));
  RT_TRY(host_block(c, n.reports, &c->reports, &reports));
  char *block = (char *)(uintptr_t)c->memory;
  lay_out(s, &n, block, reports);
  c->workspace_bytes = n.workspace;
  s->planned = n.total;
  return fill(c, block, s->poison ? 0xff : 0, n.total);
}

/* ---- between the memories ------------------------------------------------ */

static MoertStatus wait_inside(RtCuda *c) {
  return rt_cuda_wait(c);
}

static MoertStatus read_inside(RtCuda *c, void *to, const void *from,
                               int64_t bytes) {
  RT_TRY(RT_CU(c, cuMemcpyDtoHAsync(to, rt_cu_address(from), (size_t)bytes,
                                    c->stream)));
  return wait_inside(c);
}

static MoertStatus read(MoertSession *s, void *to, const void *from,
                        int64_t bytes) {
  if (bytes == 0) return MOERT_OK;
  RT_TRY(rt_cuda_enter(s->cuda));
  MoertStatus st = read_inside(s->cuda, to, from, bytes);
  rt_cuda_leave(s->cuda);
  return st;
}

static MoertStatus write(MoertSession *s, void *to, const void *from,
                         int64_t bytes) {
  RtCuda *c = s->cuda;
  if (bytes == 0) return MOERT_OK;
  RT_TRY(rt_cuda_enter(c));
  MoertStatus st = RT_CU(c, cuMemcpyHtoDAsync(rt_cu_address(to), from,
                                              (size_t)bytes, c->stream));
  if (st == MOERT_OK) st = wait_inside(c);
  rt_cuda_leave(c);
  return st;
}

static MoertStatus poison_inside(MoertSession *s, int entry) {
  RtCuda *c = s->cuda;
  const MoertEntry *e = &s->desc->entries[entry];
  RT_TRY(fill(c, s->entries[entry].base[MOERT_SLAB_REPORT], 0xff,
              e->report_bytes));
  RT_TRY(fill(c, c->arena, 0xff, e->arena_bytes));
  return fill(c, c->workspace, 0xff, c->workspace_bytes);
}

static MoertStatus poison(MoertSession *s, int entry) {
  RT_TRY(rt_cuda_enter(s->cuda));
  MoertStatus st = poison_inside(s, entry);
  rt_cuda_leave(s->cuda);
  return st;
}

/* ---- the device ---------------------------------------------------------- */

static MoertStatus get_free(RtCuda *c, int64_t *out) {
  size_t free_bytes, all_bytes;
  RT_TRY(RT_CU(c, cuMemGetInfo(&free_bytes, &all_bytes)));
  *out = (int64_t)free_bytes;
  return MOERT_OK;
}

static int64_t taken(MoertSession *s) {
  int64_t now = s->cuda->free_before;
  if (rt_cuda_enter(s->cuda) != MOERT_OK) return 0;
  get_free(s->cuda, &now);
  rt_cuda_leave(s->cuda);
  return s->cuda->free_before - now;
}

static MoertStatus open_inside(MoertSession *s) {
  RtCuda *c = s->cuda;
  RT_TRY(get_free(c, &c->free_before));
  RT_TRY(RT_CU(c, cuStreamCreate(&c->stream, CU_STREAM_NON_BLOCKING)));
  RT_TRY(RT_CU(c, cuStreamCreate(&c->copies, CU_STREAM_NON_BLOCKING)));
  RT_TRY(make_entries(s));
  RT_TRY(load_kernels(s));
  RT_TRY(make_gemms(s));
  RT_TRY(make_memory(s));
  return wait_inside(c);
}

static MoertStatus open_one(MoertSession *s) {
  RtCuda *c = s->cuda;
  RT_TRY(RT_CU(c, cuDevicePrimaryCtxRetain(&c->context, c->device)));
  RT_TRY(rt_cuda_enter(c));
  MoertStatus st = open_inside(s);
  rt_cuda_leave(c);
  return st;
}

/* What one rank lacks is told by all, before they wait for each other. */
static MoertStatus open_all(MoertSession *s) {
  RtCuda *c = s->cuda;
  MoertStatus st = rt_comm_agree(s->comm, open_one(s));
  if (st != MOERT_OK || rt_cuda_exchange_bytes(s) == 0) return st;
  st = rt_cuda_enter(c);
  if (st == MOERT_OK) {
    st = rt_cuda_exchanges_open(s, c->exchange_block);
    rt_cuda_leave(c);
  }
  return rt_comm_agree(s->comm, st);
}

static void free_entry(MoertSession *s, int entry) {
  RtCuda *c = s->cuda;
  RtCudaEntry *e = &c->entries[entry];
  rt_cuda_inputs_close(c, &e->inputs);
  for (int k = 0; k < s->desc->entries[entry].n_records; k++) {
    if (e->functions) free(e->functions[k]);
    if (e->gemms) rt_cuda_gemm_free(c, e->gemms[k]);
  }
  free(e->functions);
  free(e->gemms);
}

/* What a failed call leaves behind is let go of all the same: graphs first, as
 * they have calls of communicators. A step that is under way is waited for;
 * where a rank is lost its end comes only when communicators are gone. */
static void close_inside(MoertSession *s) {
  RtCuda *c = s->cuda;
  if (c->copies) c->cu.cuStreamSynchronize(c->copies);
  if (c->n_wires && !c->lost) rt_cuda_wait(c); /* it tells whether one is */
  if (c->stream && !c->lost) c->cu.cuStreamSynchronize(c->stream);
  for (int i = 0; c->entries && i < s->desc->n_entries; i++)
    rt_cuda_graphs_free(s, i);
  rt_cuda_exchanges_free(s);
  for (int i = 0; c->entries && i < s->desc->n_entries; i++)
    free_entry(s, i);
  free(c->entries);
  for (int i = 0; i < c->cap_marks; i++)
    c->cu.cuEventDestroy(c->marks[i]);
  free(c->marks);
  free(c->marked);
  free(c->params);
  if (c->handle) c->lt.cublasLtDestroy(c->handle);
  rt_cuda_own_free(c);
  if (c->module) c->cu.cuModuleUnload(c->module);
  if (c->inputs) c->cu.cuMemFreeHost(c->inputs);
  if (c->reports) c->cu.cuMemFreeHost(c->reports);
  if (c->memory) c->cu.cuMemFree(c->memory);
  if (c->copies) c->cu.cuStreamDestroy(c->copies);
  if (c->stream) c->cu.cuStreamDestroy(c->stream);
}

static void close_cuda(MoertSession *s) {
  RtCuda *c = s->cuda;
  if (c->context && rt_cuda_enter(c) == MOERT_OK) {
    close_inside(s);
    rt_cuda_leave(c);
  }
  if (c->context) c->cu.cuDevicePrimaryCtxRelease(c->device);
  free(s->state_kept);
  cuda_free(c);
}

static MoertStatus wait(MoertSession *s) {
  RT_TRY(rt_cuda_enter(s->cuda));
  MoertStatus st = wait_inside(s->cuda);
  rt_cuda_leave(s->cuda);
  return st;
}

static MoertStatus record(MoertSession *s, int entry, int index,
                          const RtLoops *l) {
  RT_TRY(rt_cuda_enter(s->cuda));
  MoertStatus st = rt_cuda_record(s, entry, index, l);
  rt_cuda_leave(s->cuda);
  return st;
}

static MoertStatus start(MoertSession *s, int entry) {
  RT_TRY(rt_cuda_enter(s->cuda));
  MoertStatus st = rt_cuda_start(s, entry);
  rt_cuda_leave(s->cuda);
  return st;
}

static MoertStatus finish(MoertSession *s, int entry) {
  RT_TRY(rt_cuda_enter(s->cuda));
  MoertStatus st = rt_cuda_finish(s, entry);
  rt_cuda_leave(s->cuda);
  return st;
}

static MoertStatus stage(MoertSession *s, int entry) {
  RT_TRY(rt_cuda_enter(s->cuda));
  MoertStatus st = rt_cuda_stage(s->cuda, &s->cuda->entries[entry].inputs,
                                 s->entries[entry].input);
  rt_cuda_leave(s->cuda);
  return st;
}

const RtDevice rt_cuda = {.is = MOERT_CUDA,
                          .open = open_all,
                          .close = close_cuda,
                          .start = start,
                          .finish = finish,
                          .stage = stage,
                          .record = record,
                          .wait = wait,
                          .read = read,
                          .write = write,
                          .poison = poison,
                          .taken = taken,
                          .time_product = rt_cuda_time_product,
                          .time_copy = rt_cuda_time_copy};
