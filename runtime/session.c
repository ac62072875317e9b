/* session.c: a model's settings and what is in its memory, read and written.
 *
 * The memory itself is the device's, see cpu_step.c and cuda.c. Inputs and
 * reports of an entry are always in the host's too, so that programs fill and
 * read them there; a slot is seen in a copy where the device's memory is not
 * the host's. */
#include "rt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- finding things by name ---------------------------------------------- */

int rt_find_entry(MoertSession *s, const char *name) {
  const MoertDesc *d = s->desc;
  for (int i = 0; i < d->n_entries; i++)
    if (strcmp(d->entries[i].name, name) == 0) return i;
  rt_fail(MOERT_NOT_FOUND, "the model has no entry '%s'%s", name,
          rt_did_you_mean(name, &d->entries[0].name, (size_t)d->n_entries,
                          sizeof d->entries[0]));
  return -1;
}

static MoertStatus find_slot(const MoertSession *s, const char *path,
                             const MoertSlot **out) {
  const MoertDesc *d = s->desc;
  for (int i = 0; i < d->n_slots; i++)
    if (strcmp(d->slots[i].path, path) == 0) {
      *out = &d->slots[i];
      return MOERT_OK;
    }
  return rt_fail(MOERT_NOT_FOUND, "the model has no slot '%s'%s", path,
                 d->n_slots
                     ? rt_did_you_mean(path, &d->slots[0].path,
                                       (size_t)d->n_slots, sizeof d->slots[0])
                     : "");
}

static MoertStatus find_option(const MoertSession *s, const char *name,
                               int *out) {
  const MoertDesc *d = s->desc;
  for (int i = 0; i < d->n_options; i++)
    if (strcmp(d->options[i].name, name) == 0) {
      *out = i;
      return MOERT_OK;
    }
  return rt_fail(MOERT_NOT_FOUND, "the model has no option '%s'%s", name,
                 d->n_options ? rt_did_you_mean(name, &d->options[0].name,
                                                (size_t)d->n_options,
                                                sizeof d->options[0])
                              : "");
}

static const MoertBinding *find_binding(const MoertBinding *all, int n,
                                        const char *name, int kind,
                                        int other_kind) {
  for (int i = 0; i < n; i++)
    if ((all[i].kind == kind || all[i].kind == other_kind) &&
        strcmp(all[i].name, name) == 0)
      return &all[i];
  return NULL;
}

static const MoertBinding *find_report(const MoertEntry *e, const char *name) {
  return find_binding(e->outs, e->n_outs, name, MOERT_BIND_REPORT,
                      MOERT_BIND_PROBE);
}

static int64_t binding_bytes(const MoertBinding *b) {
  return rt_elements(b->rank, b->dims) * rt_dtype[b->dtype].bytes;
}

/* ---- addresses ----------------------------------------------------------- */

char *rt_slot_data(const MoertSession *s, const MoertSlot *slot) {
  return s->slab[slot->kind] + slot->offset;
}

char *rt_address(const MoertSession *s, int entry, const MoertRef *ref,
                 const int64_t *loop) {
  int64_t offset = ref->offset;
  if (loop)
    for (int i = 0; i < MOERT_MAX_LOOPS; i++)
      offset += loop[i] * ref->stride[i];
  return s->entries[entry].base[ref->slab] + offset;
}

void *moert_address(MoertSession *s, int entry, const MoertRef *ref,
                    const int64_t *loop) {
  return rt_address(s, entry, ref, loop);
}

char *rt_binding_data(const MoertSession *s, int entry, const MoertBinding *b) {
  const RtEntry *e = &s->entries[entry];
  char *data = b->ref.slab == MOERT_SLAB_INPUT ? e->input : e->report;
  return data + b->ref.offset;
}

/* A copy of what the device has at an address. */
static MoertStatus view(MoertSession *s, char *at, int64_t bytes, char **out) {
  *out = at;
  s->viewed = NULL;
  if (s->device->is == MOERT_CPU) return MOERT_OK;
  if (bytes > s->view_bytes) {
    free(s->view);
    s->view = malloc((size_t)bytes);
    s->view_bytes = s->view ? bytes : 0;
    if (!s->view) return rt_fail(MOERT_NO_MEMORY, "out of memory");
  }
  *out = s->view;
  return s->device->read(s, s->view, at, bytes);
}

MoertStatus rt_view(MoertSession *s, int entry, const MoertRef *ref,
                    const int64_t *loop, const char **out) {
  char *data;
  MoertStatus st = view(s, rt_address(s, entry, ref, loop),
                        ref->elements * rt_dtype[ref->dtype].bytes, &data);
  *out = data;
  return st;
}

MoertStatus rt_slot_view(MoertSession *s, const MoertSlot *slot, char **out) {
  *out = s->view;
  if (s->viewed == slot) return MOERT_OK;
  RT_TRY(view(s, rt_slot_data(s, slot), rt_part_bytes(s->desc, slot), out));
  if (s->device->is != MOERT_CPU) s->viewed = slot;
  return MOERT_OK;
}

MoertStatus rt_slot_changed(MoertSession *s, const MoertSlot *slot,
                            const char *part) {
  if (s->device->is == MOERT_CPU) return MOERT_OK;
  return s->device->write(s, rt_slot_data(s, slot), part,
                          rt_part_bytes(s->desc, slot));
}

MoertStatus moert_read(MoertSession *s, int entry, const MoertRef *ref,
                       const int64_t *loop, void *out_data) {
  return s->device->read(s, out_data, rt_address(s, entry, ref, loop),
                         ref->elements * rt_dtype[ref->dtype].bytes);
}

MoertStatus moert_write(MoertSession *s, int entry, const MoertRef *ref,
                        const int64_t *loop, const void *data) {
  s->viewed = NULL;
  return s->device->write(s, rt_address(s, entry, ref, loop), data,
                          ref->elements * rt_dtype[ref->dtype].bytes);
}

/* ---- making a session ---------------------------------------------------- */

static int most_args(const MoertDesc *d) {
  int most = 0;
  for (int i = 0; i < d->n_entries; i++)
    for (int k = 0; k < d->entries[i].n_records; k++)
      if (d->entries[i].records[k].n_args > most)
        most = d->entries[i].records[k].n_args;
  return most;
}

static MoertStatus make_tables(MoertSession *s) {
  const MoertDesc *d = s->desc;
  RT_TRY(RT_NEW(&s->options, d->n_options));
  for (int i = 0; i < d->n_options; i++)
    s->options[i] = d->options[i].value;
  s->max_args = most_args(d);
  int all_args = s->max_args * s->threads;
  RT_TRY(RT_NEW(&s->args, all_args));
  RT_TRY(RT_NEW(&s->entries, d->n_entries));
  for (int i = 0; i < d->n_entries; i++) {
    RtEntry *e = &s->entries[i];
    size_t records = (size_t)d->entries[i].n_records;
    RT_TRY(RT_NEW(&e->gemms, records));
    RT_TRY(RT_NEW(&e->pending, records));
    RT_TRY(RT_NEW(&e->seconds, records));
    RT_TRY(RT_NEW(&e->calls, records));
    if (d->entries[i].trains) e->ok = find_report(&d->entries[i], "ok");
  }
  return MOERT_OK;
}

/* ---- ranks --------------------------------------------------------------- */

/* "mesh {data=2, expert=4}" */
static void mesh_text(const MoertDesc *d, char *text, size_t bytes) {
  int used = snprintf(text, bytes, "mesh {");
  for (int i = 0; i < d->n_axes && used < (int)bytes; i++)
    used += snprintf(text + used, bytes - (size_t)used, "%s%s=%lld",
                     i ? ", " : "", d->mesh[i].name,
                     (long long)d->mesh[i].size);
  if (used < (int)bytes) snprintf(text + used, bytes - (size_t)used, "}");
}

static MoertStatus check_ranks(const MoertSession *s) {
  int64_t ranks = 1;
  char mesh[256];
  for (int i = 0; i < s->desc->n_axes; i++)
    ranks *= s->desc->mesh[i].size;
  if (ranks == s->comm->size) return MOERT_OK;
  mesh_text(s->desc, mesh, sizeof mesh);
  return rt_fail(MOERT_INVALID,
                 "the model was compiled for %lld rank%s, %s, but %d %s "
                 "running",
                 (long long)ranks, ranks == 1 ? "" : "s", mesh, s->comm->size,
                 s->comm->size == 1 ? "is" : "are");
}

static MoertStatus check_collective(const MoertDesc *d, const MoertEntry *e,
                                    int index) {
  const MoertCollective *k = e->records[index].collective;
  bool ok = k && k->n_axes > 0 && k->n_axes <= MOERT_MAX_MESH &&
            (k->kind != MOERT_PERMUTE || k->to);
  for (int i = 0; ok && i < k->n_axes; i++)
    ok = k->axes[i] >= 0 && k->axes[i] < d->n_axes;
  if (ok) return MOERT_OK;
  return rt_fail(MOERT_BAD_DATA, "entry %s: record %d is no exchange", e->name,
                 index);
}

/* What messages call an exchange: its op and where the model asks for it, or
 * the record's name, which has its values. */
static MoertStatus exchange_name(const MoertRecord *r, char **out) {
  const char *colon = strrchr(r->name, ':');
  const char *op = r->where[0] && colon ? colon + strspn(colon, ": ") : r->name;
  size_t bytes = strlen(op) + strlen(r->where) + 8;
  RT_TRY(RT_NEW(out, bytes));
  snprintf(*out, bytes, "%s%s%s", op, r->where[0] ? " at " : "", r->where);
  return MOERT_OK;
}

/* The exchanges of an entry; what else they need is the device's. */
static MoertStatus make_exchanges(MoertSession *s, int entry) {
  const MoertDesc *d = s->desc;
  const MoertEntry *e = &d->entries[entry];
  for (int i = 0; i < e->n_records; i++) {
    const MoertRecord *r = &e->records[i];
    if (r->kind != MOERT_START) continue;
    char *what;
    RT_TRY(check_collective(d, e, i));
    RT_TRY(exchange_name(r, &what));
    RtPending *p = &s->entries[entry].pending[i];
    MoertStatus st = rt_pending_new(s->comm, d->mesh, d->n_axes, r->collective,
                                    r->n_args, what, NULL, p);
    free(what);
    RT_TRY(st);
  }
  return MOERT_OK;
}

static MoertStatus make_all_exchanges(MoertSession *s) {
  for (int i = 0; i < s->desc->n_entries; i++)
    RT_TRY(make_exchanges(s, i));
  return MOERT_OK;
}

static MoertStatus make_session(MoertSession *s) {
  RT_TRY(check_ranks(s));
  RT_TRY(rt_check_tables(s->desc));
  RT_TRY(make_tables(s));
  RT_TRY(make_all_exchanges(s));
  RT_TRY(s->device->open(s));
  return s->desc->n_slots ? moert_step(s, "init") : MOERT_OK;
}

/* A GPU where the program is for one and there is one; why not, where it could
 * have been, in short: who asks for a GPU is told more. */
static MoertStatus choose_device(MoertSession *s, MoertChoice wanted) {
  const MoertDesc *cpu = rt_program(s->model, MOERT_CPU);
  const MoertDesc *cuda = rt_program(s->model, MOERT_CUDA);
  const char *why = "";
  if (wanted == MOERT_USE_CUDA && !cuda)
    return rt_fail(MOERT_UNSUPPORTED,
                   "the model has no code for GPUs: compile it with "
                   "--target=cpu,cuda");
  if (wanted == MOERT_USE_CPU && !cpu)
    return rt_fail(MOERT_UNSUPPORTED,
                   "the model has no code for the CPU: compile it with "
                   "--target=cpu,cuda");
  if (wanted != MOERT_USE_CPU && cuda) {
    MoertStatus st = rt_cuda_find(cuda, s->comm, &s->cuda);
    if (st == MOERT_OK) {
      s->device = &rt_cuda;
      s->desc = cuda;
      rt_cuda_name(s->cuda, s->device_text, sizeof s->device_text);
    }
    if (st == MOERT_UNSUPPORTED && wanted != MOERT_USE_CUDA && !cpu)
      return rt_fail(st, "%s; and the model has no code for the CPU: compile "
                     "it with --target=cpu,cuda", moert_error());
    if (st != MOERT_UNSUPPORTED || wanted == MOERT_USE_CUDA) return st;
    why = moert_error();
  }
  RT_TRY(rt_cpu_features(cpu));
  s->device = &rt_cpu;
  s->desc = cpu;
  snprintf(s->device_text, sizeof s->device_text, "%d threads%s%.*s%s",
           s->threads, why[0] ? " (" : "", (int)strcspn(why, ":"), why,
           why[0] ? ")" : "");
  return MOERT_OK;
}

MoertStatus moert_session(MoertModel *model, const MoertSessionOptions *options,
                          MoertSession **out_session) {
  *out_session = NULL;
  MoertSessionOptions o = options ? *options : (MoertSessionOptions){0};
  enum { MOST_THREADS = 1024 };
  if (o.threads < 0 || o.threads > MOST_THREADS)
    return rt_fail(MOERT_INVALID,
                   "%d threads: between 1 and %d, or 0 for all "
                   "cores",
                   o.threads, MOST_THREADS);
  MoertSession *s;
  RT_TRY(RT_NEW(&s, 1));
  s->model = model;
  s->threads = o.threads ? o.threads : rt_cpu_share(o.neighbours);
  int busy = s->threads * (o.neighbours > 0 ? o.neighbours : 1);
  s->seed = o.seed;
  s->poison = o.poison;
  s->profile = o.profile;
  s->comm = o.comm ? o.comm : &rt_comm_self;
  s->has_helper =
      s->comm->may_help && (s->comm->far || busy < rt_cpu_cores());
  MoertStatus st = choose_device(s, o.device);
  if (st == MOERT_OK) st = make_session(s);
  if (st == MOERT_OK)
    *out_session = s;
  else
    moert_session_free(s);
  return st;
}

void moert_session_free(MoertSession *s) {
  if (!s) return;
  if (s->device) s->device->close(s); /* it may speak of what is pending */
  for (int i = 0; s->entries && i < s->desc->n_entries; i++) {
    for (int k = 0; s->entries[i].pending && k < s->desc->entries[i].n_records;
         k++)
      rt_pending_free(&s->entries[i].pending[k]);
    free(s->entries[i].pending);
    free(s->entries[i].gemms);
    free(s->entries[i].seconds);
    free(s->entries[i].calls);
  }
  free(s->entries);
  free(s->options);
  free(s->args);
  free(s->view);
  free(s);
}

/* ---- reading and writing ------------------------------------------------- */

MoertStatus moert_set_option(MoertSession *s, const char *name, double value) {
  int i;
  RT_TRY(find_option(s, name, &i));
  if (!isfinite(value))
    return rt_fail(MOERT_INVALID, "option '%s' must be a finite number", name);
  s->options[i] = value;
  return MOERT_OK;
}

MoertStatus moert_get_option(MoertSession *s, const char *name,
                             double *out_value) {
  int i;
  *out_value = 0;
  RT_TRY(find_option(s, name, &i));
  *out_value = s->options[i];
  return MOERT_OK;
}

MoertStatus moert_input(MoertSession *s, const char *entry, const char *name,
                        void **out_data, size_t *out_bytes) {
  *out_data = NULL;
  *out_bytes = 0;
  int e = rt_find_entry(s, entry);
  if (e < 0) return MOERT_NOT_FOUND;
  const MoertEntry *en = &s->desc->entries[e];
  const MoertBinding *b = find_binding(en->ins, en->n_ins, name,
                                       MOERT_BIND_INPUT, MOERT_BIND_INPUT);
  if (!b)
    return rt_fail(MOERT_NOT_FOUND, "entry %s has no input '%s'", entry, name);
  *out_data = rt_binding_data(s, e, b);
  *out_bytes = (size_t)binding_bytes(b);
  return MOERT_OK;
}

static MoertStatus report(MoertSession *s, const char *entry, const char *name,
                          const MoertBinding **out, const void **out_data) {
  int e = rt_find_entry(s, entry);
  if (e < 0) return MOERT_NOT_FOUND;
  *out = find_report(&s->desc->entries[e], name);
  if (!*out)
    return rt_fail(MOERT_NOT_FOUND, "entry %s has no report '%s'", entry, name);
  *out_data = rt_binding_data(s, e, *out);
  return MOERT_OK;
}

MoertStatus moert_report(MoertSession *s, const char *entry, const char *name,
                         double *out_value) {
  const MoertBinding *b;
  const void *data;
  *out_value = 0;
  RT_TRY(report(s, entry, name, &b, &data));
  if (rt_elements(b->rank, b->dims) != 1)
    return rt_fail(MOERT_INVALID, "report '%s' of entry %s is not a scalar",
                   name, entry);
  *out_value = rt_load(b->dtype, data);
  return MOERT_OK;
}

MoertStatus moert_report_data(MoertSession *s, const char *entry,
                              const char *name, const void **out_data,
                              size_t *out_bytes) {
  const MoertBinding *b;
  *out_data = NULL;
  *out_bytes = 0;
  RT_TRY(report(s, entry, name, &b, out_data));
  *out_bytes = (size_t)binding_bytes(b);
  return MOERT_OK;
}

static MoertStatus sized_slot(const MoertSession *s, const char *path,
                              size_t bytes, const MoertSlot **out) {
  RT_TRY(find_slot(s, path, out));
  if ((int64_t)bytes == rt_slot_bytes(*out)) return MOERT_OK;
  return rt_fail(MOERT_INVALID, "slot '%s' has %lld bytes, not %zu", path,
                 (long long)rt_slot_bytes(*out), bytes);
}

static MoertStatus get_parts(MoertSession *s, const MoertSlot *slot,
                             char *data) {
  RtGather g;
  int64_t n = rt_elements(slot->rank, slot->dims), step;
  int64_t bytes = rt_dtype[slot->dtype].bytes;
  MoertStatus st = rt_gather_open(s, true, &g);
  for (int64_t at = 0; at < n && st == MOERT_OK; at += step) {
    step = rt_gather_portion(slot, at);
    st = rt_gather(&g, slot, at);
    if (st == MOERT_OK)
      memcpy(data + at * bytes, g.buffer, (size_t)(step * bytes));
  }
  rt_gather_close(&g);
  return st;
}

MoertStatus moert_get(MoertSession *s, const char *path, void *data,
                      size_t bytes) {
  const MoertSlot *slot;
  RT_TRY(sized_slot(s, path, bytes, &slot));
  if (rt_part(s->desc, slot, s->comm->rank).is_cut)
    return get_parts(s, slot, data);
  return s->device->read(s, data, rt_slot_data(s, slot), (int64_t)bytes);
}

MoertStatus moert_put(MoertSession *s, const char *path, const void *data,
                      size_t bytes) {
  const MoertSlot *slot;
  RT_TRY(sized_slot(s, path, bytes, &slot));
  RtPart p = rt_part(s->desc, slot, s->comm->rank);
  char *part;
  RT_TRY(rt_slot_view(s, slot, &part));
  rt_part_take(slot, &p, data, 0, rt_elements(slot->rank, slot->dims), part);
  return rt_slot_changed(s, slot, part);
}

/* State slots are named entry/...: the others get their values back. */
static MoertStatus restore_others(MoertSession *s, const char *entry) {
  size_t len = strlen(entry);
  for (int i = 0; i < s->desc->n_slots; i++) {
    const MoertSlot *slot = &s->desc->slots[i];
    bool own = strncmp(slot->path, entry, len) == 0 && slot->path[len] == '/';
    if (slot->kind == MOERT_SLOT_STATE && !own)
      RT_TRY(s->device->write(s, rt_slot_data(s, slot),
                              s->state_kept + slot->offset,
                              rt_part_bytes(s->desc, slot)));
  }
  return MOERT_OK;
}

MoertStatus moert_reset_state(MoertSession *s, const char *entry) {
  int64_t bytes = s->desc->slab_bytes[MOERT_SLOT_STATE];
  if (entry && rt_find_entry(s, entry) < 0) return MOERT_NOT_FOUND;
  if (bytes == 0) return MOERT_OK;
  RT_TRY(s->device->read(s, s->state_kept, s->slab[MOERT_SLOT_STATE], bytes));
  RT_TRY(moert_step(s, "reset"));
  return entry ? restore_others(s, entry) : MOERT_OK;
}

int64_t moert_steps_done(const MoertSession *s) {
  return s->steps_done;
}
void moert_set_steps_done(MoertSession *s, int64_t steps) {
  s->steps_done = steps;
}
int64_t moert_planned_bytes(const MoertSession *s) {
  return s->planned;
}
int64_t moert_gpu_bytes(MoertSession *s) {
  return s->device->taken(s);
}
int moert_gpu_graphs(const MoertSession *s) {
  return s->last.graphs;
}
int moert_gpu_counts(const MoertSession *s) {
  return s->last.counts;
}
int moert_threads(const MoertSession *s) {
  return s->threads;
}
const char *moert_device(const MoertSession *s) {
  return s->device_text;
}
const MoertDesc *moert_session_desc(const MoertSession *s) {
  return s->desc;
}
