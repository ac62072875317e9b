/* step.c: running an entry's records.
 *
 * A record is worked off by all threads, from one fork of the team to its join.
 * A loop of launches and copies alone has one fork and join for all of it: each
 * thread walks the records itself, with loop indices and arguments of its own,
 * does its share of a stage and waits for the others before the next. Its share
 * is the same in each turn, so what it reads of an operand that stays as it is
 * stays in its cache. A loop with a library's product or an exchange between
 * ranks in it runs record by record: the library forks.
 *
 * A training step whose loss or gradient is not finite has changed nothing: the
 * model itself keeps the old values. Such a step is then run once more, with a
 * look at every float that a record writes, to name the first one to go
 * wrong. */
#include "rt.h"

#include <math.h>
#include <string.h>

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
                              const int64_t *loop) {
  const MoertRecord *r = &s->desc->entries[entry].records[index];
  for (int i = 0; i < r->n_args; i++)
    s->args[i] = rt_address(s, entry, &r->args[i], loop);
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
  case MOERT_END: break;
  }
  return MOERT_OK;
}

static MoertStatus run_timed(MoertSession *s, int entry, int index,
                             const int64_t *loop) {
  double start = rt_seconds();
  MoertStatus st = run_record(s, entry, index, loop);
  s->entries[entry].seconds[index] += rt_seconds() - start;
  s->entries[entry].calls[index]++;
  return st;
}

/* ---- looking for what is not finite -------------------------------------- */

/* The bits that are all set in infinities and NaNs only. */
static const uint64_t exponent_bits[MOERT_DTYPE_COUNT] = {
    [MOERT_bf16] = 0x7f80,
    [MOERT_f32] = 0x7f800000,
    [MOERT_f64] = 0x7ff0000000000000,
};

/* How many elements are not finite, and the first of them. */
static int64_t count_bad(const MoertRef *ref, const char *data,
                         int64_t *out_first) {
  uint64_t mask = exponent_bits[ref->dtype];
  size_t bytes = (size_t)rt_dtype[ref->dtype].bytes;
  int64_t bad = 0;
  for (int64_t i = 0; mask && i < ref->elements; i++) {
    uint64_t bits = 0;
    memcpy(&bits, data + (size_t)i * bytes, bytes);
    if ((bits & mask) == mask && bad++ == 0) *out_first = i;
  }
  return bad;
}

/* Describes what is wrong with a tensor, in `text`; false when nothing is. */
static bool describe_bad(const MoertRef *ref, const char *data, char *text,
                         size_t text_bytes) {
  int64_t first = 0, bad = count_bad(ref, data, &first);
  if (bad == 0) return false;
  double x = rt_load(ref->dtype, data + first * rt_dtype[ref->dtype].bytes);
  const char *kind = isnan(x) ? "nan" : x < 0 ? "-inf" : "inf";
  if (ref->elements == 1)
    snprintf(text, text_bytes, "is %s", kind);
  else
    snprintf(text, text_bytes,
             "has %lld of %lld values that are not finite, the first is %s at "
             "%lld",
             (long long)bad, (long long)ref->elements, kind, (long long)first);
  return true;
}

/* Options, slots and inputs that are wrong before anything ran. */
static MoertStatus check_ins(const MoertSession *s, int entry) {
  static const char *const kinds[] = {[MOERT_BIND_SLOT] = "slot",
                                      [MOERT_BIND_INPUT] = "input",
                                      [MOERT_BIND_OPTION] = "option"};
  const MoertEntry *e = &s->desc->entries[entry];
  char text[128];
  for (int i = 0; i < e->n_ins; i++) {
    const MoertBinding *b = &e->ins[i];
    const char *data = rt_address(s, entry, &b->ref, NULL);
    if (describe_bad(&b->ref, data, text, sizeof text))
      return rt_fail(MOERT_NOT_FINITE,
                     "step %lld of entry %s: not finite: %s '%s' %s, before "
                     "any operation",
                     (long long)s->steps_done + 1, e->name, kinds[b->kind],
                     b->name, text);
  }
  return MOERT_OK;
}

/* " in turn 3, 5" of the loops around it. */
static void loop_text(const int64_t *loop, int depth, char *text,
                      size_t bytes) {
  text[0] = 0;
  for (int i = 0, used = 0; i < depth && used < (int)bytes; i++)
    used += snprintf(text + used, bytes - (size_t)used, "%s%lld",
                     i ? ", " : " in turn ", (long long)loop[i]);
}

static MoertStatus check_outs(const MoertSession *s, int entry, int index,
                              const int64_t *loop, int depth) {
  const MoertEntry *e = &s->desc->entries[entry];
  const MoertRecord *r = &e->records[index];
  char text[128], turns[128];
  for (int i = r->n_args - r->n_outs; i < r->n_args; i++) {
    const char *data = rt_address(s, entry, &r->args[i], loop);
    if (!describe_bad(&r->args[i], data, text, sizeof text)) continue;
    loop_text(loop, depth, turns, sizeof turns);
    return rt_fail(MOERT_NOT_FINITE,
                   "step %lld of entry %s: not finite: at %s: the result of "
                   "record %d (%s)%s %s",
                   (long long)s->steps_done + 1, e->name,
                   r->where[0] ? r->where : "an unknown place", index, r->name,
                   turns, text);
  }
  return MOERT_OK;
}

/* ---- loops --------------------------------------------------------------- */

/* The loops around the record being run, outermost first. */
typedef struct Loops {
  int64_t index[MOERT_MAX_LOOPS];
  int64_t turn[MOERT_MAX_LOOPS]; /* from 0, whatever the direction */
  int start[MOERT_MAX_LOOPS];    /* its record */
  int depth;
  bool keeps; /* others write the indices down */
} Loops;

/* Sets the index of the innermost loop for its turn. */
static void set_index(const MoertSession *s, int entry, Loops *l) {
  int d = l->depth - 1;
  const MoertRecord *r = &s->desc->entries[entry].records[l->start[d]];
  l->index[d] = r->reverse ? r->count - 1 - l->turn[d] : l->turn[d];
  if (r->n_args && !l->keeps)
    rt_store(r->args[0].dtype, rt_address(s, entry, &r->args[0], l->index),
             (double)l->index[d]);
}

static int end_of_loop(const MoertEntry *e, int start) {
  int depth = 1, i = start;
  while (depth > 0) {
    i++;
    depth +=
        (e->records[i].kind == MOERT_LOOP) - (e->records[i].kind == MOERT_END);
  }
  return i;
}

/* Returns the record to go on after. */
static int enter_loop(const MoertSession *s, int entry, int at, Loops *l) {
  const MoertEntry *e = &s->desc->entries[entry];
  if (e->records[at].count <= 0) return end_of_loop(e, at);
  l->start[l->depth] = at;
  l->turn[l->depth++] = 0;
  set_index(s, entry, l);
  return at;
}

static int next_turn(const MoertSession *s, int entry, int at, Loops *l) {
  int d = l->depth - 1, start = l->start[d];
  if (++l->turn[d] < s->desc->entries[entry].records[start].count) {
    set_index(s, entry, l);
    return start;
  }
  l->index[d] = 0;
  l->depth--;
  return at;
}

/* ---- a loop by the whole team -------------------------------------------- */

/* Whether a record has work for more than one thread. */
static bool is_shared(const MoertRecord *r) {
  for (int i = 0; r->kind == MOERT_LAUNCH && i < r->kernel->n_stages; i++)
    if (r->kernel->stages[i].count > r->kernel->stages[i].grain) return true;
  return false;
}

static bool is_for_team(const MoertSession *s, const MoertEntry *e, int start) {
  int end = end_of_loop(e, start);
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
static void walk_loop(MoertSession *s, int entry, int start, Loops l) {
  const MoertEntry *e = &s->desc->entries[entry];
  int outside = l.depth, me = rt_team_member(), i = start;
  void **args = s->args + (ptrdiff_t)me * s->max_args;
  l.keeps = me != 0;
  do {
    int kind = e->records[i].kind, was = i;
    if (kind == MOERT_LOOP)
      i = enter_loop(s, entry, i, &l);
    else if (kind == MOERT_END)
      i = next_turn(s, entry, i, &l);
    else if (s->profile && me == 0)
      run_share_timed(s, entry, i, args, l.index);
    else
      run_share(s, entry, i, args, l.index);
    bool turns = kind == MOERT_LOOP || i != was;
    if (turns && e->records[i].n_args) rt_team_wait();
    i++;
  } while (l.depth > outside);
}

/* Returns the loop's end. */
static int run_by_team(MoertSession *s, int entry, int start, const Loops *l) {
#pragma omp parallel num_threads(s->threads)
  walk_loop(s, entry, start, *l);
  return end_of_loop(&s->desc->entries[entry], start);
}

/* ---- all records --------------------------------------------------------- */

static MoertStatus run_records(MoertSession *s, int entry, bool check) {
  const MoertEntry *e = &s->desc->entries[entry];
  Loops l = {0};
  for (int i = 0; i < e->n_records; i++) {
    int kind = e->records[i].kind;
    if (kind == MOERT_LOOP && !check && is_for_team(s, e, i)) {
      i = run_by_team(s, entry, i, &l);
    } else if (kind == MOERT_LOOP) {
      i = enter_loop(s, entry, i, &l);
    } else if (kind == MOERT_END) {
      i = next_turn(s, entry, i, &l);
    } else {
      RT_TRY(s->profile ? run_timed(s, entry, i, l.index)
                        : run_record(s, entry, i, l.index));
      if (check) RT_TRY(check_outs(s, entry, i, l.index, l.depth));
    }
  }
  return MOERT_OK;
}

/* ---- a step -------------------------------------------------------------- */

static double scalar_input(const MoertSession *s, const MoertBinding *b) {
  if (b->kind == MOERT_BIND_STEP) return (double)s->steps_done;
  if (b->kind == MOERT_BIND_SEED) return (double)s->seed;
  for (int i = 0; i < s->desc->n_options; i++)
    if (strcmp(s->desc->options[i].name, b->name) == 0) return s->options[i];
  return 0;
}

static void write_scalars(MoertSession *s, int entry) {
  const MoertEntry *e = &s->desc->entries[entry];
  for (int i = 0; i < e->n_ins; i++) {
    const MoertBinding *b = &e->ins[i];
    if (b->kind == MOERT_BIND_OPTION || b->kind == MOERT_BIND_STEP ||
        b->kind == MOERT_BIND_SEED)
      rt_store(b->dtype, rt_address(s, entry, &b->ref, NULL),
               scalar_input(s, b));
  }
}

/* What a step may not read before it has written it. */
static void poison(MoertSession *s, int entry) {
  const MoertEntry *e = &s->desc->entries[entry];
  if (e->arena_bytes) memset(s->arena, 0xff, (size_t)e->arena_bytes);
  if (e->report_bytes)
    memset(s->entries[entry].base[MOERT_SLAB_REPORT], 0xff,
           (size_t)e->report_bytes);
  if (s->workspace_bytes)
    memset(s->workspace, 0xff, (size_t)s->workspace_bytes);
}

MoertStatus rt_run_entry(MoertSession *s, int entry) {
  if (s->poison) poison(s, entry);
  write_scalars(s, entry);
  return run_records(s, entry, false);
}

static MoertStatus find_culprit(MoertSession *s, int entry) {
  RT_TRY(check_ins(s, entry));
  RT_TRY(run_records(s, entry, true));
  return rt_fail(MOERT_NOT_FINITE,
                 "step %lld of entry %s: the loss or the norm of its gradient "
                 "is not finite, though every operation's result is",
                 (long long)s->steps_done + 1, s->desc->entries[entry].name);
}

static MoertStatus step(MoertSession *s, int entry) {
  const MoertBinding *ok = s->entries[entry].ok;
  RT_TRY(rt_run_entry(s, entry));
  if (ok && rt_load(ok->dtype, rt_address(s, entry, &ok->ref, NULL)) != 1)
    return find_culprit(s, entry);
  if (s->desc->entries[entry].trains) s->steps_done++;
  return MOERT_OK;
}

MoertStatus moert_step(MoertSession *s, const char *entry) {
  int e = rt_find_entry(s, entry);
  if (e < 0) return MOERT_NOT_FOUND;
  RtTeam before = rt_team_enter(s->threads);
  MoertStatus st = step(s, e);
  rt_team_leave(before);
  return st;
}

/* ---- for tests and tools ------------------------------------------------- */

MoertStatus moert_run_record(MoertSession *s, int entry, int index,
                             const int64_t *loop) {
  static const int64_t first[MOERT_MAX_LOOPS];
  const MoertEntry *e = &s->desc->entries[entry];
  if (index < 0 || index >= e->n_records ||
      e->records[index].kind == MOERT_LOOP ||
      e->records[index].kind == MOERT_END)
    return rt_fail(MOERT_INVALID, "entry %s has no record %d to run", e->name,
                   index);
  RtTeam before = rt_team_enter(s->threads);
  MoertStatus st = run_record(s, entry, index, loop ? loop : first);
  rt_team_leave(before);
  return st;
}

MoertStatus moert_profile(MoertSession *s, int entry,
                          const double **out_seconds,
                          const int64_t **out_calls) {
  *out_seconds = NULL;
  *out_calls = NULL;
  if (entry < 0 || entry >= s->desc->n_entries)
    return rt_fail(MOERT_INVALID, "there is no entry number %d", entry);
  *out_seconds = s->entries[entry].seconds;
  *out_calls = s->entries[entry].calls;
  return MOERT_OK;
}
