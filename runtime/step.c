/* step.c: a step of an entry, on whatever device the session is.
 *
 * The device does a record; here is the way through all of them, with the loops
 * among them.
 *
 * A training step whose loss or gradient is not finite has changed nothing: the
 * model itself keeps the old values. Such a step is then run once more, with a
 * look at every float that a record writes, to name the first one to go
 * wrong. */
#include "rt.h"

#include <math.h>
#include <string.h>

/* ---- loops --------------------------------------------------------------- */

int rt_loop_end(const MoertEntry *e, int start) {
  int depth = 1, i = start;
  while (depth > 0) {
    i++;
    depth +=
        (e->records[i].kind == MOERT_LOOP) - (e->records[i].kind == MOERT_END);
  }
  return i;
}

/* Sets the index of the innermost loop for its turn. */
static void set_index(const MoertEntry *e, RtLoops *l) {
  int d = l->depth - 1;
  const MoertRecord *r = &e->records[l->start[d]];
  l->index[d] = r->reverse ? l->turns[d] - 1 - l->turn[d] : l->turn[d];
}

MoertStatus rt_loop_turns(MoertSession *s, int entry, int at, const RtLoops *l,
                          int64_t *out) {
  const MoertRecord *r = &s->desc->entries[entry].records[at];
  int32_t counted;
  *out = r->count;
  if (r->n_args == r->n_outs) return MOERT_OK;
  RT_TRY(s->device->read(s, &counted,
                         rt_address(s, entry, &r->args[0], l->index),
                         (int64_t)sizeof counted));
  if (counted < *out) *out = counted;
  return MOERT_OK;
}

bool rt_loop_enter(const MoertEntry *e, int *at, int64_t turns, RtLoops *l) {
  if (turns <= 0) {
    *at = rt_loop_end(e, *at);
    return false;
  }
  l->turns[l->depth] = turns;
  l->start[l->depth] = *at;
  l->turn[l->depth++] = 0;
  set_index(e, l);
  return true;
}

bool rt_loop_next(const MoertEntry *e, int *at, RtLoops *l) {
  int d = l->depth - 1, start = l->start[d];
  if (++l->turn[d] < l->turns[d]) {
    set_index(e, l);
    *at = start;
    return true;
  }
  l->index[d] = 0;
  l->depth--;
  return false;
}

MoertStatus rt_each_record(MoertSession *s, int entry, RtVisit *visit,
                           RtWhole *whole) {
  const MoertEntry *e = &s->desc->entries[entry];
  RtLoops l = {0};
  for (int i = 0; i < e->n_records; i++) {
    int kind = e->records[i].kind, was = i;
    int64_t count = 0;
    if (kind == MOERT_TURNS) {
      if (whole) i = whole(s, entry, i, &l);
      if (i != was) RT_TRY(visit(s, entry, was, &l));
      continue;
    }
    if (kind == MOERT_LOOP && whole && (i = whole(s, entry, i, &l)) != was)
      continue;
    if (kind == MOERT_LOOP) RT_TRY(rt_loop_turns(s, entry, i, &l, &count));
    bool turns = kind == MOERT_LOOP  ? rt_loop_enter(e, &i, count, &l)
                 : kind == MOERT_END ? rt_loop_next(e, &i, &l)
                                     : false;
    if (turns)
      RT_TRY(visit(s, entry, l.start[l.depth - 1], &l));
    else if (kind != MOERT_LOOP && kind != MOERT_END)
      RT_TRY(visit(s, entry, i, &l));
  }
  return MOERT_OK;
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
static MoertStatus check_ins(MoertSession *s, int entry) {
  static const char *const kinds[] = {[MOERT_BIND_SLOT] = "slot",
                                      [MOERT_BIND_INPUT] = "input",
                                      [MOERT_BIND_OPTION] = "option"};
  const MoertEntry *e = &s->desc->entries[entry];
  char text[128];
  for (int i = 0; i < e->n_ins; i++) {
    const MoertBinding *b = &e->ins[i];
    const char *data;
    RT_TRY(rt_view(s, entry, &b->ref, NULL, &data));
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

static MoertStatus check_outs(MoertSession *s, int entry, int index,
                              const RtLoops *l) {
  const MoertEntry *e = &s->desc->entries[entry];
  const MoertRecord *r = &e->records[index];
  char text[128], turns[128];
  for (int i = r->n_args - r->n_outs; i < r->n_args; i++) {
    const char *data;
    RT_TRY(rt_view(s, entry, &r->args[i], l->index, &data));
    if (!describe_bad(&r->args[i], data, text, sizeof text)) continue;
    loop_text(l->index, l->depth, turns, sizeof turns);
    return rt_fail(MOERT_NOT_FINITE,
                   "step %lld of entry %s: not finite: at %s: the result of "
                   "record %d (%s)%s %s",
                   (long long)s->steps_done + 1, e->name,
                   r->where[0] ? r->where : "an unknown place", index, r->name,
                   turns, text);
  }
  return MOERT_OK;
}

/* ---- a step -------------------------------------------------------------- */

static double scalar_input(const MoertSession *s, const MoertBinding *b,
                           int64_t steps_done) {
  if (b->kind == MOERT_BIND_STEP) return (double)steps_done;
  if (b->kind == MOERT_BIND_SEED) return (double)s->seed;
  for (int i = 0; i < s->desc->n_options; i++)
    if (strcmp(s->desc->options[i].name, b->name) == 0) return s->options[i];
  return 0;
}

static void write_scalars(MoertSession *s, int entry, int64_t steps_done) {
  const MoertEntry *e = &s->desc->entries[entry];
  for (int i = 0; i < e->n_ins; i++) {
    const MoertBinding *b = &e->ins[i];
    if (b->kind == MOERT_BIND_OPTION || b->kind == MOERT_BIND_STEP ||
        b->kind == MOERT_BIND_SEED)
      rt_store(b->dtype, rt_binding_data(s, entry, b),
               scalar_input(s, b, steps_done));
  }
}

static MoertStatus start(MoertSession *s, int entry) {
  s->viewed = NULL;
  /* What a step may not read before it has written it. */
  if (s->poison) RT_TRY(s->device->poison(s, entry));
  write_scalars(s, entry, s->steps_done);
  return s->device->start(s, entry);
}

static MoertStatus run_checked(MoertSession *s, int entry, int index,
                               const RtLoops *l) {
  RT_TRY(s->device->record(s, entry, index, l));
  return check_outs(s, entry, index, l);
}

static MoertStatus find_culprit(MoertSession *s, int entry) {
  RT_TRY(check_ins(s, entry));
  RT_TRY(rt_each_record(s, entry, run_checked, NULL));
  return rt_fail(MOERT_NOT_FINITE,
                 "step %lld of entry %s: the loss or the norm of its gradient "
                 "is not finite, though every operation's result is",
                 (long long)s->steps_done + 1, s->desc->entries[entry].name);
}

static MoertStatus finish(MoertSession *s, int entry) {
  const MoertBinding *ok = s->entries[entry].ok;
  RT_TRY(s->device->finish(s, entry));
  if (ok && rt_load(ok->dtype, rt_binding_data(s, entry, ok)) != 1)
    return find_culprit(s, entry);
  if (s->desc->entries[entry].trains) s->steps_done++;
  return MOERT_OK;
}

/* Where a started step is over at once it is finished at once, too, while its
 * inputs are there: then nothing is left for moert_finish. */
MoertStatus moert_start(MoertSession *s, const char *entry) {
  int e = rt_find_entry(s, entry);
  if (e < 0) return MOERT_NOT_FOUND;
  if (s->started)
    return rt_fail(MOERT_INVALID, "a step of entry %s is under way",
                   s->desc->entries[s->started - 1].name);
  RtTeam before = rt_team_enter(s->threads);
  MoertStatus st = start(s, e);
  if (st == MOERT_OK && s->device->is == MOERT_CPU) st = finish(s, e);
  rt_team_leave(before);
  if (st == MOERT_OK) s->started = e + 1;
  return st;
}

MoertStatus moert_finish(MoertSession *s) {
  int e = s->started - 1;
  if (e < 0) return rt_fail(MOERT_INVALID, "no step is under way");
  s->started = 0;
  if (s->device->is == MOERT_CPU) return MOERT_OK;
  RtTeam before = rt_team_enter(s->threads);
  MoertStatus st = finish(s, e);
  rt_team_leave(before);
  return st;
}

/* The number of the step that reads them: that after the one under way. */
MoertStatus moert_stage(MoertSession *s, const char *entry) {
  int e = rt_find_entry(s, entry);
  if (e < 0) return MOERT_NOT_FOUND;
  bool trains = s->started && s->desc->entries[s->started - 1].trains;
  if (s->device->is == MOERT_CPU) return MOERT_OK;
  write_scalars(s, e, s->steps_done + trains);
  return s->device->stage(s, e);
}

MoertStatus moert_step(MoertSession *s, const char *entry) {
  RT_TRY(moert_start(s, entry));
  return moert_finish(s);
}

/* ---- for tests and tools ------------------------------------------------- */

static MoertStatus run_alone(MoertSession *s, int entry, int index,
                             const int64_t *loop) {
  RtLoops l = {.depth = MOERT_MAX_LOOPS};
  if (loop) memcpy(l.index, loop, sizeof l.index);
  s->viewed = NULL;
  RT_TRY(s->device->record(s, entry, index, &l));
  return s->device->wait(s);
}

MoertStatus moert_run_record(MoertSession *s, int entry, int index,
                             const int64_t *loop) {
  const MoertEntry *e = &s->desc->entries[entry];
  if (index < 0 || index >= e->n_records ||
      e->records[index].kind == MOERT_LOOP ||
      e->records[index].kind == MOERT_END)
    return rt_fail(MOERT_INVALID, "entry %s has no record %d to run", e->name,
                   index);
  RtTeam before = rt_team_enter(s->threads);
  MoertStatus st = run_alone(s, entry, index, loop);
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
