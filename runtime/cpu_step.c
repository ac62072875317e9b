/* cpu_step.c: the CPU as the device of a session: its memory, and its records.
 *
 * All memory is allocated before the first step: the slabs that the plan laid
 * out, the largest workspace of any kernel, one scratch area a thread, and the
 * library's scratchpad. Nothing is allocated in a step.
 *
 * A record is worked off by all threads, from one fork of the team to its join.
 * A loop of launches and copies alone has one fork and join for all of it: each
 * thread walks the records itself, with loop indices and arguments of its own,
 * does its share of a stage and waits for the others before the next. Its share
 * is the same in each turn, so what it reads of an operand that stays as it is
 * stays in its cache. A loop with a library's product or an exchange between
 * ranks in it runs record by record: the library forks. */
#include "rt.h"

#include <string.h>

/* ---- memory -------------------------------------------------------------- */

/* What all kernels of the model need at most. */
typedef struct Needs {
  int64_t workspace, scratch, arena, per_entry, staging;
} Needs;

static void add_kernel(Needs *n, const MoertKernel *k) {
  n->workspace = rt_larger(n->workspace, k->workspace_bytes);
  for (int i = 0; i < k->n_stages; i++)
    n->scratch = rt_larger(n->scratch, k->stages[i].scratch_bytes);
}

static Needs count_needs(const MoertDesc *d) {
  Needs n = {0};
  for (int i = 0; i < d->n_entries; i++) {
    const MoertEntry *e = &d->entries[i];
    n.arena = rt_larger(n.arena, e->arena_bytes);
    n.per_entry += e->input_bytes + e->report_bytes;
    for (int k = 0; k < e->n_records; k++) {
      const MoertRecord *r = &e->records[k];
      if (r->kind == MOERT_LAUNCH) add_kernel(&n, r->kernel);
      if (r->kind == MOERT_START)
        n.staging = rt_larger(n.staging, rt_staging_bytes(r->collective));
    }
  }
  n.scratch = (n.scratch + 63) / 64 * 64; /* no two threads in a cache line */
  return n;
}

static MoertStatus make_gemms(MoertSession *s) {
  for (int i = 0; i < s->desc->n_entries; i++) {
    const MoertEntry *e = &s->desc->entries[i];
    for (int k = 0; k < e->n_records; k++)
      if (e->records[k].kind == MOERT_GEMM) {
        MoertStatus st =
            rt_gemm_get(&s->gemms, e->records[k].gemm, &s->entries[i].gemms[k]);
        if (st != MOERT_OK)
          return rt_fail_prefix(st, "entry %s: record %d (%s, %s): ", e->name,
                                k, e->records[k].name, e->records[k].where);
      }
  }
  return MOERT_OK;
}

static MoertStatus new_block(MoertSession *s, int64_t bytes, char **out) {
  void *data;
  MoertStatus st = rt_mem_new(&s->mem, bytes, s->poison, &data);
  *out = data;
  return st;
}

static MoertStatus make_memory(MoertSession *s, const Needs *n) {
  const MoertDesc *d = s->desc;
  int64_t scratch = n->scratch * s->threads;
  int64_t total = n->arena + n->workspace + scratch + n->per_entry +
                  s->gemms.scratchpad_bytes + d->slab_bytes[MOERT_SLOT_STATE] +
                  n->staging;
  for (int i = 0; i < 3; i++)
    total += d->slab_bytes[i];
  RT_TRY(rt_mem_check(total));
  for (int i = 0; i < 3; i++)
    RT_TRY(new_block(s, d->slab_bytes[i], &s->slab[i]));
  RT_TRY(new_block(s, d->slab_bytes[MOERT_SLOT_STATE], &s->state_kept));
  RT_TRY(new_block(s, n->arena, &s->arena));
  RT_TRY(new_block(s, n->workspace, &s->workspace));
  RT_TRY(new_block(s, scratch, &s->scratch));
  RT_TRY(new_block(s, s->gemms.scratchpad_bytes, &s->scratchpad));
  RT_TRY(new_block(s, n->staging, &s->staging));
  s->workspace_bytes = n->workspace;
  s->scratch_stride = n->scratch;
  for (int i = 0; i < d->n_entries; i++) {
    char **base = s->entries[i].base;
    for (int k = 0; k < 3; k++)
      base[k] = s->slab[k];
    base[MOERT_SLAB_ARENA] = s->arena;
    RT_TRY(new_block(s, d->entries[i].input_bytes, &base[MOERT_SLAB_INPUT]));
    RT_TRY(new_block(s, d->entries[i].report_bytes, &base[MOERT_SLAB_REPORT]));
    s->entries[i].input = base[MOERT_SLAB_INPUT];
    s->entries[i].report = base[MOERT_SLAB_REPORT];
  }
  s->planned = total;
  return s->mem.bytes == total
             ? MOERT_OK
             : rt_fail(MOERT_INTERNAL, "%lld bytes allocated, %lld planned",
                       (long long)s->mem.bytes, (long long)total);
}

static MoertStatus open_cpu(MoertSession *s) {
  Needs n = count_needs(s->desc);
  for (int i = 0; i < s->desc->n_features; i++)
    RT_TRY(rt_cpu_permit(s->desc->features[i]));
  RtTeam before = rt_team_enter(s->threads);
  MoertStatus st = make_gemms(s);
  if (st == MOERT_OK) st = make_memory(s, &n);
  rt_team_leave(before);
  return st;
}

static void close_cpu(MoertSession *s) {
  rt_gemms_free(&s->gemms);
  rt_mem_free(&s->mem);
}

static MoertStatus copy_bytes(MoertSession *s, void *to, const void *from,
                              int64_t bytes) {
  (void)s;
  memcpy(to, from, (size_t)bytes);
  return MOERT_OK;
}

static MoertStatus poison(MoertSession *s, int entry) {
  const MoertEntry *e = &s->desc->entries[entry];
  if (e->arena_bytes) memset(s->arena, 0xff, (size_t)e->arena_bytes);
  if (e->report_bytes)
    memset(s->entries[entry].report, 0xff, (size_t)e->report_bytes);
  if (s->workspace_bytes)
    memset(s->workspace, 0xff, (size_t)s->workspace_bytes);
  return MOERT_OK;
}

/* ---- one record ---------------------------------------------------------- */

static void launch(const MoertSession *s, const MoertKernel *k) {
  for (int i = 0; i < k->n_stages; i++)
    rt_run_stage(&k->stages[i], s->threads, s->args, s->scratch,
                 s->scratch_stride, s->workspace);
}

/* Begins an exchange of the record's args; one's place is known at once. */
static MoertStatus start(MoertSession *s, int entry, int index) {
  const MoertRecord *r = &s->desc->entries[entry].records[index];
  RtPending *p = &s->entries[entry].pending[index];
  if (r->collective->kind == MOERT_PLACE) {
    rt_store(r->args[0].dtype, s->args[0], p->group.me);
    return MOERT_OK;
  }
  p->staging = s->staging; /* one is at work at a time */
  for (int i = 0; i < r->n_args; i++)
    p->buffers[i] =
        (RtBuffer){s->args[i], r->args[i].dtype, r->args[i].elements};
  RT_TRY(rt_comm_start(p));
  const MoertRecord *next = r + 1; /* a wait, at the latest */
  bool at_once = next->kind == MOERT_WAIT && next->count == index;
  if (at_once) return MOERT_OK;
  if (s->has_helper) return rt_comm_behind(s->comm);
  rt_comm_poke(s->comm);
  return MOERT_OK;
}

static MoertStatus run_record(MoertSession *s, int entry, int index,
                              const RtLoops *l) {
  const MoertRecord *r = &s->desc->entries[entry].records[index];
  for (int i = 0; i < r->n_args; i++)
    s->args[i] = rt_address(s, entry, &r->args[i], l->index);
  switch ((MoertRecordKind)r->kind) {
  case MOERT_LAUNCH: launch(s, r->kernel); break;
  case MOERT_GEMM:
    return rt_gemm_run(&s->gemms, s->entries[entry].gemms[index], s->args,
                       s->scratchpad, s->threads);
  case MOERT_COPY: {
    const MoertRef *to = &r->args[1];
    memmove(s->args[1], s->args[0],
            (size_t)(to->elements * rt_dtype[to->dtype].bytes));
    break;
  }
  case MOERT_START: return start(s, entry, index);
  case MOERT_WAIT: return rt_comm_wait(&s->entries[entry].pending[r->count]);
  case MOERT_LOOP:
    if (r->n_outs)
      rt_store(r->args[r->n_args - 1].dtype, s->args[r->n_args - 1],
               (double)l->index[l->depth - 1]);
    break;
  case MOERT_TURNS: /* of GPUs alone */
  case MOERT_END: break;
  }
  return MOERT_OK;
}

static MoertStatus run_timed(MoertSession *s, int entry, int index,
                             const RtLoops *l) {
  if (s->desc->entries[entry].records[index].kind == MOERT_LOOP)
    return run_record(s, entry, index, l);
  double start = rt_seconds();
  MoertStatus st = run_record(s, entry, index, l);
  s->entries[entry].seconds[index] += rt_seconds() - start;
  s->entries[entry].calls[index]++;
  return st;
}

/* ---- a loop by the whole team -------------------------------------------- */

/* Whether a record has work for more than one thread. */
static bool is_shared(const MoertRecord *r) {
  for (int i = 0; r->kind == MOERT_LAUNCH && i < r->kernel->n_stages; i++)
    if (r->kernel->stages[i].count > r->kernel->stages[i].grain) return true;
  return false;
}

static bool is_for_team(const MoertSession *s, const MoertEntry *e, int start) {
  int end = rt_loop_end(e, start);
  bool any = false;
  for (int i = start; i < end; i++) {
    int kind = e->records[i].kind;
    if (kind == MOERT_GEMM || kind == MOERT_START) return false;
    any = any || is_shared(&e->records[i]);
  }
  return any && s->threads > 1;
}

static void copy_share(const MoertRecord *r, void *const *args) {
  const MoertRef *to = &r->args[1];
  int64_t lo, hi;
  rt_team_share(to->elements, &lo, &hi);
  size_t bytes = (size_t)rt_dtype[to->dtype].bytes;
  memcpy((char *)args[1] + (size_t)lo * bytes,
         (const char *)args[0] + (size_t)lo * bytes, (size_t)(hi - lo) * bytes);
  rt_team_wait();
}

/* This thread's share of a record, and the wait for the others'. */
static void run_share(MoertSession *s, int entry, int index, void **args,
                      const int64_t *loop) {
  const MoertRecord *r = &s->desc->entries[entry].records[index];
  for (int i = 0; i < r->n_args; i++)
    args[i] = rt_address(s, entry, &r->args[i], loop);
  if (r->kind == MOERT_COPY) copy_share(r, args);
  for (int i = 0; r->kind == MOERT_LAUNCH && i < r->kernel->n_stages; i++) {
    rt_run_share(&r->kernel->stages[i], args, s->scratch, s->scratch_stride,
                 s->workspace);
    rt_team_wait();
  }
}

static void run_share_timed(MoertSession *s, int entry, int index, void **args,
                            const int64_t *loop) {
  double start = rt_seconds();
  run_share(s, entry, index, args, loop);
  s->entries[entry].seconds[index] += rt_seconds() - start;
  s->entries[entry].calls[index]++;
}

/* One thread's way through a loop and those in it. The first thread keeps the
 * indices in memory and the time. */
static void walk_loop(MoertSession *s, int entry, int start, RtLoops l) {
  const MoertEntry *e = &s->desc->entries[entry];
  int outside = l.depth, me = rt_team_member(), i = start;
  void **args = s->args + (ptrdiff_t)me * s->max_args;
  do {
    int kind = e->records[i].kind, was = i;
    bool turns = false;
    int64_t count = 0;
    if (kind == MOERT_LOOP) rt_loop_turns(s, entry, i, &l, &count);
    if (kind == MOERT_LOOP)
      turns = rt_loop_enter(e, &i, count, &l);
    else if (kind == MOERT_END)
      turns = rt_loop_next(e, &i, &l);
    else if (s->profile && me == 0)
      run_share_timed(s, entry, i, args, l.index);
    else
      run_share(s, entry, i, args, l.index);
    if (turns && me == 0) run_record(s, entry, l.start[l.depth - 1], &l);
    if ((kind == MOERT_LOOP || i != was) && e->records[i].n_args)
      rt_team_wait();
    i++;
  } while (l.depth > outside);
}

static int run_by_team(MoertSession *s, int entry, int start,
                       const RtLoops *l) {
  if (!is_for_team(s, &s->desc->entries[entry], start)) return start;
#pragma omp parallel num_threads(s->threads)
  walk_loop(s, entry, start, *l);
  return rt_loop_end(&s->desc->entries[entry], start);
}

/* ---- a step -------------------------------------------------------------- */

static MoertStatus step(MoertSession *s, int entry) {
  return rt_each_record(s, entry, s->profile ? run_timed : run_record,
                        run_by_team);
}

/* Nothing is under way when a step has been started, or elsewhere. */
static MoertStatus nothing_left(MoertSession *s, int entry) {
  (void)s, (void)entry;
  return MOERT_OK;
}

static MoertStatus wait(MoertSession *s) {
  (void)s;
  return MOERT_OK;
}

static int64_t taken(MoertSession *s) {
  (void)s;
  return 0;
}

const RtDevice rt_cpu = {.is = MOERT_CPU,
                         .open = open_cpu,
                         .close = close_cpu,
                         .start = step,
                         .finish = nothing_left,
                         .stage = nothing_left,
                         .record = run_record,
                         .wait = wait,
                         .read = copy_bytes,
                         .write = copy_bytes,
                         .poison = poison,
                         .taken = taken,
                         .time_product = rt_cpu_time_product,
                         .time_copy = rt_cpu_time_copy};
