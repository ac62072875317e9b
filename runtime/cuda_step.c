/* cuda_step.c: an entry's records on a GPU.
 *
 * A step is the launch of a graph (cuda_graph.c) behind its inputs
 * (cuda_input.c), and the wait for it. What a kernel may not do is found out by
 * the GPU while others are under way, so nobody knows then which one it was: a
 * session that poisons its memory waits for each record, and names it. One that
 * profiles has an event behind each. */
#include "gpu.h"

#include <stdlib.h>
#include <string.h>

/* ---- kernels ------------------------------------------------------------- */

/* Beyond this a kernel must ask for shared memory. */
enum { SHARED_AT_ONCE = 48 << 10, MOST_THREADS = 1024,
       MOST_PARAMS = MOERT_PARAM_BYTES / 8 };

static MoertStatus named(MoertStatus st, const MoertSession *s, int entry,
                         int index) {
  const MoertEntry *e = &s->desc->entries[entry];
  const MoertRecord *r = &e->records[index];
  if (st == MOERT_OK) return st;
  return rt_fail_prefix(st, "%s: entry %s: record %d (%s)%s%s: ",
                        r->where[0] ? r->where : "an unknown place", e->name,
                        index, r->name, r->kernel ? ", kernel " : "",
                        r->kernel ? r->kernel->name : "");
}

static MoertStatus check_maps(const RtCuda *c, const MoertStage *g,
                              int n_args) {
  if (g->n_maps < 0 || g->n_maps > RT_CU_MOST_MAPS)
    return rt_fail(MOERT_BAD_DATA, "%d maps, a kernel has %d at most",
                   g->n_maps, RT_CU_MOST_MAPS);
  for (int i = 0; i < g->n_maps; i++)
    if (g->maps[i].arg < 0 || g->maps[i].arg >= n_args)
      return rt_fail(MOERT_BAD_DATA, "a map of argument %d, of %d",
                     g->maps[i].arg, n_args);
  if (!g->n_maps || c->cu.cuTensorMapEncodeTiled) return MOERT_OK;
  return rt_fail(MOERT_UNSUPPORTED,
                 "%s needs a driver for CUDA 12.0 or later: this one has no "
                 "cuTensorMapEncodeTiled",
                 g->symbol);
}

static MoertStatus find_stage(RtCuda *c, const MoertStage *g, int n_args,
                              CUfunction *out) {
  if (g->blocks < 0 || g->blocks > INT32_MAX || g->threads < 1 ||
      g->threads > MOST_THREADS || g->shared_bytes < 0)
    return rt_fail(MOERT_BAD_DATA, "%lld blocks of %d threads with %d bytes",
                   (long long)g->blocks, g->threads, g->shared_bytes);
  if (g->shared_bytes > c->gpu.shared_bytes)
    return rt_fail(MOERT_UNSUPPORTED,
                   "%s needs %d bytes of shared memory a block, %s has %d",
                   g->symbol, g->shared_bytes, c->gpu.name,
                   c->gpu.shared_bytes);
  RT_TRY(check_maps(c, g, n_args));
  RT_TRY(RT_CU(c, cuModuleGetFunction(out, c->module, g->symbol)));
  if (g->shared_bytes <= SHARED_AT_ONCE) return MOERT_OK;
  return RT_CU(c, cuFuncSetAttribute(
                      *out, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                      g->shared_bytes));
}

static MoertStatus find_kernel(MoertSession *s, int entry, int index) {
  const MoertRecord *r = &s->desc->entries[entry].records[index];
  CUfunction **functions = &s->cuda->entries[entry].functions[index];
  if (r->n_args + 1 > MOST_PARAMS)
    return rt_fail(MOERT_BAD_DATA, "%d addresses, a kernel takes %d at most",
                   r->n_args + 1, MOST_PARAMS);
  RT_TRY(RT_NEW(functions, r->kernel->n_stages));
  for (int i = 0; i < r->kernel->n_stages; i++)
    RT_TRY(find_stage(s->cuda, &r->kernel->stages[i], r->n_args,
                      &(*functions)[i]));
  return MOERT_OK;
}

/* How many of its blocks the GPU runs at once. */
static MoertStatus room_for(RtCuda *c, const MoertStage *g, CUfunction f,
                            int64_t *out) {
  int each;
  *out = 0;
  if (!c->gpu.cooperates) return MOERT_OK;
  RT_TRY(RT_CU(c, cuOccupancyMaxActiveBlocksPerMultiprocessor(
                      &each, f, g->threads, (size_t)g->shared_bytes)));
  *out = (int64_t)each * c->gpu.multiprocessors;
  return MOERT_OK;
}

/* That of a loop, which is nowhere where its blocks cannot all run at once. */
static MoertStatus find_turns(MoertSession *s, int entry, int index) {
  RtCuda *c = s->cuda;
  const MoertRecord *r = &s->desc->entries[entry].records[index];
  const MoertStage *g = &r->kernel->stages[0];
  CUfunction **functions = &c->entries[entry].functions[index];
  int64_t room = 0;
  if (r->kernel->n_stages != 1 || index + 1 >= s->desc->entries[entry].n_records
      || r[1].kind != MOERT_LOOP)
    return rt_fail(MOERT_BAD_DATA, "no kernel of a loop");
  if (g->shared_bytes <= c->gpu.shared_bytes) {
    RT_TRY(find_kernel(s, entry, index));
    RT_TRY(room_for(c, g, (*functions)[0], &room));
  }
  c->turns++;
  if (room >= g->blocks) return MOERT_OK;
  free(*functions);
  *functions = NULL;
  c->unrolled++;
  snprintf(c->no_room, sizeof c->no_room,
           "%s needs %lld blocks of %d bytes of shared memory at once, and "
           "there is room for %lld",
           g->symbol, (long long)g->blocks, g->shared_bytes, (long long)room);
  return MOERT_OK;
}

/* Nobody is to take loops for one kernel each that are not. */
static void tell_of_loops(MoertSession *s) {
  const RtCuda *c = s->cuda;
  size_t used = strlen(s->device_text);
  if (c->unrolled)
    snprintf(s->device_text + used, sizeof s->device_text - used,
             ", %d of %d loops launch by launch: %s", c->unrolled, c->turns,
             c->no_room);
}

MoertStatus rt_cuda_functions(MoertSession *s) {
  for (int i = 0; i < s->desc->n_entries; i++)
    for (int k = 0; k < s->desc->entries[i].n_records; k++) {
      int kind = s->desc->entries[i].records[k].kind;
      if (kind == MOERT_LAUNCH)
        RT_TRY(named(find_kernel(s, i, k), s, i, k));
      else if (kind == MOERT_TURNS)
        RT_TRY(named(find_turns(s, i, k), s, i, k));
    }
  tell_of_loops(s);
  return rt_cuda_own_copy(s->cuda);
}

static MoertStatus encode(RtCuda *c, const MoertMap *m, void *tensor,
                          CUtensorMap *out) {
  uint64_t size[3], stride[2];
  unsigned box[3], step[3];
  for (int i = 0; i < 3; i++) {
    size[i] = (uint64_t)m->size[i];
    if (i < 2) stride[i] = (uint64_t)m->stride[i];
    box[i] = (unsigned)m->box[i];
    step[i] = 1;
  }
  return RT_CU(c, cuTensorMapEncodeTiled(
                      out, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, tensor, size,
                      stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                      CU_TENSOR_MAP_SWIZZLE_128B,
                      CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
}

/* Maps are of where their arguments are now: each launch, and so each turn of a
 * loop in a graph, has its own. */
static MoertStatus launch_stage(MoertSession *s, const MoertRecord *r,
                                const MoertStage *g, CUfunction function) {
  RtCuda *c = s->cuda;
  CUtensorMap maps[RT_CU_MOST_MAPS];
  if (g->blocks == 0) return MOERT_OK;
  for (int i = 0; i < g->n_maps; i++) {
    RT_TRY(encode(c, &g->maps[i], s->args[g->maps[i].arg], &maps[i]));
    c->params[r->n_args + 1 + i] = &maps[i];
  }
  return RT_CU(c, cuLaunchKernel(function, (unsigned)g->blocks, 1, 1,
                                 (unsigned)g->threads, 1, 1,
                                 (unsigned)g->shared_bytes, c->stream,
                                 c->params, NULL));
}

int rt_cuda_turns(MoertSession *s, int entry, int index, const RtLoops *l) {
  const MoertEntry *e = &s->desc->entries[entry];
  (void)l;
  if (e->records[index].kind != MOERT_TURNS ||
      !s->cuda->entries[entry].functions[index])
    return index;
  return rt_loop_end(e, index + 1);
}

/* Parameters: addresses of the args, then of the workspace; maps are behind
 * them. */
static void set_params(MoertSession *s, const MoertRecord *r) {
  RtCuda *c = s->cuda;
  for (int i = 0; i < r->n_args; i++)
    c->params[i] = &s->args[i];
  c->params[r->n_args] = &c->workspace;
}

/* All blocks at once, or none. */
static MoertStatus launch_turns(MoertSession *s, const MoertRecord *r,
                                CUfunction *functions) {
  RtCuda *c = s->cuda;
  const MoertStage *g = &r->kernel->stages[0];
  set_params(s, r);
  return RT_CU(c, cuLaunchCooperativeKernel(
                      functions[0], (unsigned)g->blocks, 1, 1,
                      (unsigned)g->threads, 1, 1, (unsigned)g->shared_bytes,
                      c->stream, c->params));
}

static MoertStatus launch(MoertSession *s, const MoertRecord *r,
                          CUfunction *functions) {
  set_params(s, r);
  for (int i = 0; i < r->kernel->n_stages; i++)
    RT_TRY(launch_stage(s, r, &r->kernel->stages[i], functions[i]));
  return MOERT_OK;
}

/* ---- one record ---------------------------------------------------------- */

static MoertStatus copy(MoertSession *s, const MoertRecord *r) {
  RtCuda *c = s->cuda;
  const MoertRef *ref = &r->args[1];
  int64_t bytes = ref->elements * rt_dtype[ref->dtype].bytes;
  char *from = s->args[0], *to = s->args[1];
  if (from == to || bytes == 0) return MOERT_OK;
  if (from < to + bytes && to < from + bytes)
    return rt_fail(MOERT_BAD_DATA, "a copy onto a part of itself");
  return RT_CU(c, cuMemcpyDtoDAsync(rt_cu_address(to), rt_cu_address(from),
                                    (size_t)bytes, c->stream));
}

static MoertStatus set_index(MoertSession *s, const MoertRecord *r,
                             int64_t index) {
  RtCuda *c = s->cuda;
  if (r->n_outs == 0) return MOERT_OK;
  return RT_CU(c, cuMemsetD32Async(rt_cu_address(s->args[r->n_args - 1]),
                                   (unsigned)index, 1, c->stream));
}

static MoertStatus run(MoertSession *s, int entry, int index,
                       const RtLoops *l) {
  const MoertRecord *r = &s->desc->entries[entry].records[index];
  RtCudaEntry *e = &s->cuda->entries[entry];
  for (int i = 0; i < r->n_args; i++)
    s->args[i] = rt_address(s, entry, &r->args[i], l->index);
  switch ((MoertRecordKind)r->kind) {
  case MOERT_LAUNCH: return launch(s, r, e->functions[index]);
  case MOERT_TURNS: return launch_turns(s, r, e->functions[index]);
  case MOERT_GEMM:
    return rt_cuda_gemm_run(s->cuda, e->gemms[index], s->args);
  case MOERT_COPY: return copy(s, r);
  case MOERT_LOOP: return set_index(s, r, l->index[l->depth - 1]);
  case MOERT_START: return rt_cuda_exchange(s, entry, index);
  case MOERT_WAIT: return rt_cuda_exchanged(s, entry, index);
  case MOERT_END: break;
  }
  return MOERT_OK;
}

MoertStatus rt_cuda_record(MoertSession *s, int entry, int index,
                           const RtLoops *l) {
  return named(run(s, entry, index, l), s, entry, index);
}

static MoertStatus run_and_wait(MoertSession *s, int entry, int index,
                                const RtLoops *l) {
  MoertStatus st = run(s, entry, index, l);
  if (st == MOERT_OK) st = rt_cuda_wait(s->cuda);
  return named(st, s, entry, index);
}

MoertStatus rt_cuda_publish(MoertSession *s, int entry) {
  return rt_cuda_run_copy(s->cuda, s->cuda->entries[entry].report,
                          s->entries[entry].base[MOERT_SLAB_REPORT],
                          s->desc->entries[entry].report_bytes);
}

/* ---- profiles ------------------------------------------------------------ */

static MoertStatus more_marks(RtCuda *c) {
  int cap = c->cap_marks ? 2 * c->cap_marks : 64;
  CUevent *marks = realloc(c->marks, (size_t)cap * sizeof *marks);
  if (marks) c->marks = marks;
  int *marked = realloc(c->marked, (size_t)cap * sizeof *marked);
  if (marked) c->marked = marked;
  if (!marks || !marked) return rt_fail(MOERT_NO_MEMORY, "out of memory");
  for (; c->cap_marks < cap; c->cap_marks++)
    RT_TRY(RT_CU(c, cuEventCreate(&c->marks[c->cap_marks], CU_EVENT_DEFAULT)));
  return MOERT_OK;
}

/* Notes the time at which record `index` is done; -1: the start. */
static MoertStatus mark(RtCuda *c, int index) {
  if (c->n_marks == c->cap_marks) RT_TRY(more_marks(c));
  c->marked[c->n_marks] = index;
  return RT_CU(c, cuEventRecord(c->marks[c->n_marks++], c->stream));
}

static MoertStatus run_marked(MoertSession *s, int entry, int index,
                              const RtLoops *l) {
  RT_TRY(rt_cuda_record(s, entry, index, l));
  return mark(s->cuda, index);
}

/* A loop's mark is for the store of its index: no record's time. */
static MoertStatus read_marks(MoertSession *s, int entry) {
  RtCuda *c = s->cuda;
  const MoertEntry *e = &s->desc->entries[entry];
  for (int i = 1; i < c->n_marks; i++) {
    int index = c->marked[i];
    float ms;
    if (e->records[index].kind == MOERT_LOOP) continue;
    RT_TRY(RT_CU(c, cuEventElapsedTime(&ms, c->marks[i - 1], c->marks[i])));
    s->entries[entry].seconds[index] += (double)ms * 1e-3;
    s->entries[entry].calls[index]++;
  }
  return MOERT_OK;
}

static MoertStatus run_profiled(MoertSession *s, int entry) {
  RtCuda *c = s->cuda;
  c->n_marks = 0;
  RT_TRY(mark(c, -1));
  RT_TRY(rt_each_record(s, entry, run_marked, rt_cuda_turns));
  RT_TRY(rt_cuda_publish(s, entry));
  RT_TRY(rt_cuda_wait(c));
  return read_marks(s, entry);
}

/* ---- a step -------------------------------------------------------------- */

/* Whether what is launched depends on what is computed: no graph says it. */
static bool counts_turns(const MoertEntry *e) {
  for (int i = 0; i < e->n_records; i++)
    if (e->records[i].kind == MOERT_LOOP &&
        e->records[i].n_args > e->records[i].n_outs)
      return true;
  return false;
}

static MoertStatus run_waiting(MoertSession *s, int entry) {
  RT_TRY(rt_each_record(s, entry, run_and_wait, rt_cuda_turns));
  return rt_cuda_publish(s, entry);
}

static MoertStatus run_all(MoertSession *s, int entry) {
  const RtEntry *e = &s->entries[entry];
  RT_TRY(rt_cuda_take_inputs(s->cuda, &s->cuda->entries[entry].inputs, e->input,
                             e->base[MOERT_SLAB_INPUT]));
  bool waits = s->poison || counts_turns(&s->desc->entries[entry]);
  if (!waits && !s->profile) return rt_cuda_run_graphs(s, entry);
  s->cuda->came = 0;
  RT_TRY(waits ? run_waiting(s, entry) : run_profiled(s, entry));
  s->comm->bytes += s->cuda->came;
  return MOERT_OK;
}

static MoertStatus of_step(MoertStatus st, const MoertSession *s, int entry) {
  if (st == MOERT_OK) return st;
  if (s->cuda->n_wires) s->cuda->lost = true; /* for the others this one is */
  const char *more = st == MOERT_INTERNAL && !s->poison
                         ? "; when memory is poisoned the operation is named"
                         : "";
  return rt_fail(st, "step %lld of entry %s: %s%s",
                 (long long)s->steps_done + 1, s->desc->entries[entry].name,
                 moert_error(), more);
}

MoertStatus rt_cuda_start(MoertSession *s, int entry) {
  s->last.graphs = s->last.counts = 0;
  return of_step(run_all(s, entry), s, entry);
}

MoertStatus rt_cuda_finish(MoertSession *s, int entry) {
  MoertStatus st = rt_cuda_wait(s->cuda);
  if (st == MOERT_OK) st = rt_cuda_check_rows(s->cuda);
  return of_step(st, s, entry);
}
