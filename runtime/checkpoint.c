/* checkpoint.c: saving all that a session is, and taking it up again.
 *
 *   DIR/step-00001234/params.safetensors   parameters
 *                     optim.safetensors    optimiser state
 *                     state.safetensors    recurrent state
 *                     meta.json            step, cursor, seed, options, hash
 *                                          of the vocabulary, if any, and
 *                                          size and XXH64 of each file
 *
 * The files hold whole tensors, whatever mesh the model was compiled for. Of
 * several ranks the first writes: parts come to it portion by portion, in the
 * order of the files, and it writes each before the next, so no rank needs more
 * memory than a portion. What several ranks should have alike is compared by
 * its hash before. When the first cannot write, the portions that are still to
 * come go nowhere, so that all ranks get out in order, with its message.
 *
 * Every rank loads by itself, its parts of each tensor. Before that changes
 * anything, every file's hash and every tensor's name, dtype and shape have
 * been checked, on all ranks. */
#include "rt.h"

#include <cjson/cJSON.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { FORMAT = 1, KINDS = 3 };

static const char *const file_names[KINDS] = {
    /* ORDER SLOT */
    [MOERT_SLOT_PARAM] = "params.safetensors",
    [MOERT_SLOT_OPTIM] = "optim.safetensors",
    [MOERT_SLOT_STATE] = "state.safetensors",
};

/* ---- meta.json ----------------------------------------------------------- */

static void hash_text(uint64_t hash, char out[17]) {
  snprintf(out, 17, "%016llx", (unsigned long long)hash);
}

/* Size and hash of a written file. */
static bool describe_file(cJSON *files, int kind, int64_t bytes,
                          uint64_t hash) {
  char text[17];
  hash_text(hash, text);
  cJSON *f = cJSON_AddObjectToObject(files, file_names[kind]);
  return cJSON_AddNumberToObject(f, "bytes", (double)bytes) &&
         cJSON_AddStringToObject(f, "xxh64", text);
}

static void describe_session(cJSON *meta, const MoertSession *s,
                             int64_t cursor) {
  const MoertDesc *d = s->desc;
  cJSON_AddNumberToObject(meta, "format", FORMAT);
  cJSON_AddNumberToObject(meta, "step", (double)s->steps_done);
  cJSON_AddNumberToObject(meta, "cursor", (double)cursor);
  cJSON_AddNumberToObject(meta, "seed", s->seed);
  cJSON_AddStringToObject(meta, "compiler", d->compiler);
  cJSON_AddStringToObject(meta, "source_hash", d->source_hash);
  cJSON_AddNumberToObject(meta, "tensors", d->n_slots);
  if (s->vocab) {
    char hash[17];
    hash_text(rt_vocab_hash(s->vocab), hash);
    cJSON_AddStringToObject(meta, "vocab", hash);
  }
  cJSON *options = cJSON_AddObjectToObject(meta, "options");
  for (int i = 0; i < d->n_options; i++)
    cJSON_AddNumberToObject(options, d->options[i].name, s->options[i]);
}

/* The hash over all of meta but itself. */
static MoertStatus meta_hash(const cJSON *meta, char out[17]) {
  char *text = cJSON_PrintUnformatted(meta);
  if (!text) return rt_fail(MOERT_NO_MEMORY, "out of memory");
  hash_text(rt_hash(text, strlen(text)), out);
  cJSON_free(text);
  return MOERT_OK;
}

/* Takes over `files`. */
static MoertStatus write_meta(const MoertSession *s, const char *dir,
                              int64_t cursor, cJSON *files) {
  cJSON *meta = cJSON_CreateObject();
  char *text = NULL, hash[17];
  MoertStatus st;
  RtPath p;
  describe_session(meta, s, cursor);
  cJSON_AddItemToObject(meta, "files", files);
  RT_TRYGOTO(meta_hash(meta, hash), st, done);
  cJSON_AddStringToObject(meta, "xxh64", hash);
  text = cJSON_Print(meta);
  RT_TRYGOTO(text ? MOERT_OK : rt_fail(MOERT_NO_MEMORY, "out of memory"), st,
             done);
  RT_TRYGOTO(rt_join(dir, "meta.json", &p), st, done);
  st = rt_write_file(p.text, text, strlen(text));
done:
  cJSON_free(text);
  cJSON_Delete(meta);
  return st;
}

/* ---- wholes of slots ----------------------------------------------------- */

/* Of several ranks all slots are gathered, in the order of the files: where the
 * next portion starts. */
typedef struct Wholes {
  MoertSession *s;
  RtGather gather;
  int kind, slot;
  int64_t from;
} Wholes;

/* NULL: that was all. */
static const MoertSlot *next_whole(Wholes *w) {
  for (; w->kind < KINDS; w->kind++, w->slot = 0)
    for (; w->slot < w->s->desc->n_slots; w->slot++, w->from = 0) {
      const MoertSlot *x = &w->s->desc->slots[w->slot];
      if (x->kind == w->kind && rt_gather_portion(x, w->from) > 0) return x;
    }
  return NULL;
}

/* Gathers the next portion of the next whole. */
static MoertStatus gather_next(Wholes *w, int64_t *out_bytes) {
  const MoertSlot *x = next_whole(w);
  if (!x) return rt_fail(MOERT_INTERNAL, "nothing is left to gather");
  int64_t n = rt_gather_portion(x, w->from);
  *out_bytes = n * rt_dtype[x->dtype].bytes;
  RT_TRY(rt_gather(&w->gather, x, w->from));
  w->from += n;
  return MOERT_OK;
}

/* What the first rank asks for while it writes a file. */
static MoertStatus next_portion(void *user, const RtTensor *x,
                                const void **out_data, size_t *out_bytes) {
  Wholes *w = user;
  int64_t bytes = 0;
  (void)x;
  MoertStatus st = gather_next(w, &bytes);
  *out_data = w->gather.buffer;
  *out_bytes = (size_t)bytes;
  return st;
}

static MoertStatus gather_rest(Wholes *w) {
  int64_t bytes;
  while (next_whole(w))
    RT_TRY(gather_next(w, &bytes));
  return MOERT_OK;
}

/* ---- what ranks should have alike ---------------------------------------- */

static MoertStatus compare_hashes(const MoertSession *s, const uint64_t *all) {
  const MoertDesc *d = s->desc;
  for (int i = 0; i < d->n_slots; i++)
    for (int r = 0; r < s->comm->size; r++) {
      int owner = rt_part_owner(d, &d->slots[i], r);
      if (all[r * d->n_slots + i] != all[owner * d->n_slots + i])
        return rt_fail(MOERT_BAD_DATA,
                       "slot '%s': ranks %d and %d should have the same in it, "
                       "and do not",
                       d->slots[i].path, owner, r);
    }
  return MOERT_OK;
}

/* Gives all ranks the same answer. */
static MoertStatus check_alike(MoertSession *s) {
  const MoertDesc *d = s->desc;
  size_t n = (size_t)d->n_slots, of_all = n * (size_t)s->comm->size;
  uint64_t *own = NULL, *all = NULL;
  MoertStatus st;
  if (s->comm->size == 1) return MOERT_OK;
  RT_TRYGOTO(RT_NEW(&own, n), st, done);
  RT_TRYGOTO(RT_NEW(&all, of_all), st, done);
  for (int i = 0; i < d->n_slots; i++) {
    RtPart p = rt_part(d, &d->slots[i], s->comm->rank);
    char *part;
    RT_TRYGOTO(rt_slot_view(s, &d->slots[i], &part), st, done);
    own[i] = rt_part_hash(&d->slots[i], &p, part);
  }
  RT_TRYGOTO(rt_comm_all(s->comm, "comparing slots", own, n * sizeof *own, all),
             st, done);
  st = compare_hashes(s, all);
done:
  free(own);
  free(all);
  return st;
}

/* ---- saving -------------------------------------------------------------- */

static RtTensor tensor(const char *name, int dtype, int rank,
                       const int64_t *dims, const void *data) {
  RtTensor t = {.name = name,
                .dtype = rt_dtype[dtype].safetensors,
                .rank = rank,
                .data = data,
                .bytes = rt_elements(rank, dims) * rt_dtype[dtype].bytes};
  if (rank) memcpy(t.dims, dims, sizeof *dims * (size_t)rank);
  return t;
}

/* Writes the slots of a kind to a file; its size and hash go to `files`. */
static MoertStatus write_slots(Wholes *w, int kind, const char *path,
                               cJSON *files) {
  const MoertSession *s = w->s;
  bool in_place = s->comm->size == 1 && s->device->is == MOERT_CPU;
  RtTensor *list;
  int64_t bytes;
  uint64_t hash;
  int n = 0;
  RT_TRY(RT_NEW(&list, s->desc->n_slots));
  for (int i = 0; i < s->desc->n_slots; i++) {
    const MoertSlot *x = &s->desc->slots[i];
    if (x->kind == kind)
      list[n++] = tensor(x->path, x->dtype, x->rank, x->dims,
                         in_place ? rt_slot_data(s, x) : NULL);
  }
  MoertStatus st =
      rt_tensors_write(list, n, next_portion, w, path, &bytes, &hash);
  free(list);
  RT_TRY(st);
  return describe_file(files, kind, bytes, hash)
             ? MOERT_OK
             : rt_fail(MOERT_NO_MEMORY, "out of memory");
}

static MoertStatus write_tensors(Wholes *w, const char *dir, cJSON *files) {
  RtPath p;
  for (int i = 0; i < KINDS; i++) {
    RT_TRY(rt_join(dir, file_names[i], &p));
    RT_TRY(write_slots(w, i, p.text, files));
  }
  return MOERT_OK;
}

static MoertStatus write_files(Wholes *w, const char *dir, int64_t cursor) {
  cJSON *files = cJSON_CreateObject();
  MoertStatus st = write_tensors(w, dir, files);
  if (st == MOERT_OK)
    st = write_meta(w->s, dir, cursor, files);
  else
    cJSON_Delete(files);
  return st == MOERT_OK ? rt_sync_dir(dir) : st;
}

/* Of the first rank: writes everything. Of the others: gives it their parts. */
static MoertStatus save_wholes(Wholes *w, const char *dir, const char *name,
                               const char *aside, int64_t cursor) {
  if (w->s->comm->rank != 0) return gather_rest(w);
  MoertStatus st = write_files(w, aside, cursor);
  if (st != MOERT_OK && st != MOERT_RANK_LOST && w->s->comm->size > 1) {
    char text[RT_VERDICT];
    snprintf(text, sizeof text, "%s", moert_error());
    MoertStatus rest = gather_rest(w);
    if (rest != MOERT_OK) return rest;
    return rt_fail(st, "%s", text);
  }
  return st == MOERT_OK ? rt_put_in_place(aside, dir, name) : st;
}

static MoertStatus save(MoertSession *s, const char *dir, int64_t cursor) {
  char name[40];
  RtPath aside = {""};
  Wholes w = {.s = s};
  bool writes = s->comm->rank == 0;
  snprintf(name, sizeof name, "step-%08lld", (long long)s->steps_done);
  MoertStatus st = rt_gather_open(s, false, &w.gather);
  if (st == MOERT_OK && writes) st = rt_set_aside(dir, name, &aside);
  RT_TRYGOTO(rt_comm_agree(s->comm, st), st, done);
  st = rt_comm_agree(s->comm, save_wholes(&w, dir, name, aside.text, cursor));
done:
  if (st != MOERT_OK && aside.text[0]) rt_remove_dir(aside.text);
  rt_gather_close(&w.gather);
  return st;
}

MoertStatus moert_save(MoertSession *s, const char *dir, int64_t cursor) {
  MoertStatus st = check_alike(s);
  if (st == MOERT_OK) st = save(s, dir, cursor);
  return st == MOERT_OK ? st : rt_fail_prefix(st, "checkpoint not saved: ");
}

/* ---- what a step reports ------------------------------------------------- */

static MoertStatus write_reports(MoertSession *s, int entry,
                                 const char *path) {
  const MoertEntry *e = &s->desc->entries[entry];
  RtTensor *list;
  int64_t bytes;
  uint64_t hash;
  int n = 0;
  RT_TRY(RT_NEW(&list, e->n_outs));
  for (int i = 0; i < e->n_outs; i++) {
    const MoertBinding *b = &e->outs[i];
    if (b->kind == MOERT_BIND_REPORT || b->kind == MOERT_BIND_PROBE)
      list[n++] = tensor(b->name, b->dtype, b->rank, b->dims,
                         rt_binding_data(s, entry, b));
  }
  MoertStatus st = rt_tensors_write(list, n, NULL, NULL, path, &bytes, &hash);
  free(list);
  return st;
}

MoertStatus moert_save_reports(MoertSession *s, const char *entry,
                               const char *dir) {
  char name[48];
  RtPath p;
  int e = rt_find_entry(s, entry);
  if (e < 0) return MOERT_NOT_FOUND;
  if (s->comm->rank != 0) return MOERT_OK;
  snprintf(name, sizeof name, "step-%08lld.safetensors",
           (long long)s->steps_done);
  RT_TRY(rt_make_dirs(dir));
  RT_TRY(rt_join(dir, name, &p));
  return write_reports(s, e, p.text);
}

/* ---- loading ------------------------------------------------------------- */

/* A checkpoint opened for reading. */
typedef struct Loaded {
  cJSON *meta; /* NULL for a single file */
  RtTensors tensors[KINDS];
} Loaded;

static void close_loaded(Loaded *l) {
  cJSON_Delete(l->meta);
  for (int i = 0; i < KINDS; i++)
    rt_tensors_close(&l->tensors[i]);
}

static double meta_number(const cJSON *meta, const char *name) {
  const cJSON *n = cJSON_GetObjectItemCaseSensitive(meta, name);
  return cJSON_IsNumber(n) ? n->valuedouble : -1;
}

static MoertStatus check_meta(cJSON *meta, const char *path) {
  if (!cJSON_IsObject(meta))
    return rt_fail(MOERT_BAD_DATA, "%s: not a checkpoint's description", path);
  if (meta_number(meta, "format") != FORMAT)
    return rt_fail(MOERT_UNSUPPORTED, "%s: format %g, this runtime reads %d",
                   path, meta_number(meta, "format"), FORMAT);
  cJSON *stored = cJSON_DetachItemFromObjectCaseSensitive(meta, "xxh64");
  char hash[17] = "";
  MoertStatus st = meta_hash(meta, hash);
  bool same = cJSON_IsString(stored) && strcmp(stored->valuestring, hash) == 0;
  cJSON_Delete(stored);
  RT_TRY(st);
  return same ? MOERT_OK
              : rt_fail(MOERT_BAD_DATA, "%s: changed after it was saved", path);
}

static MoertStatus read_meta(const char *dir, cJSON **out) {
  RtPath p;
  const char *data;
  size_t bytes;
  RT_TRY(rt_join(dir, "meta.json", &p));
  RT_TRY(rt_map_file(p.text, &data, &bytes));
  *out = cJSON_ParseWithLength(data ? data : "", bytes);
  rt_unmap(data, bytes);
  return check_meta(*out, p.text);
}

/* Whether a file is what was saved, by size and hash. */
static MoertStatus check_file(const cJSON *meta, const char *name,
                              const char *path, const char *data,
                              size_t bytes) {
  const cJSON *files = cJSON_GetObjectItemCaseSensitive(meta, "files");
  const cJSON *f = cJSON_GetObjectItemCaseSensitive(files, name);
  const cJSON *want = cJSON_GetObjectItemCaseSensitive(f, "xxh64");
  double size = meta_number(f, "bytes");
  if (size != (double)bytes)
    return rt_fail(MOERT_BAD_DATA, "%s: %s: %zu bytes, %.0f were saved", path,
                   (double)bytes < size ? "truncated" : "changed", bytes, size);
  char hash[17];
  hash_text(rt_hash_mapped(data, bytes), hash);
  if (cJSON_IsString(want) && strcmp(want->valuestring, hash) == 0)
    return MOERT_OK;
  return rt_fail(MOERT_BAD_DATA,
                 "%s: changed after it was saved: hash %s, not %s", path, hash,
                 cJSON_IsString(want) ? want->valuestring : "?");
}

static MoertStatus open_file(Loaded *l, const char *dir, int kind) {
  RtPath p;
  const char *data;
  size_t bytes;
  RT_TRY(rt_join(dir, file_names[kind], &p));
  RT_TRY(rt_map_file(p.text, &data, &bytes));
  MoertStatus st = check_file(l->meta, file_names[kind], p.text, data, bytes);
  rt_unmap(data, bytes);
  RT_TRY(st);
  return rt_tensors_open(p.text, &l->tensors[kind]);
}

static void shape_text(const char *dtype, int rank, const int64_t *dims,
                       char *out, size_t bytes) {
  size_t used = (size_t)snprintf(out, bytes, "%s[", dtype);
  for (int i = 0; i < rank && used < bytes; i++)
    used += (size_t)snprintf(out + used, bytes - used, "%s%lld", i ? ", " : "",
                             (long long)dims[i]);
  if (used < bytes) snprintf(out + used, bytes - used, "]");
}

static MoertStatus check_tensor(const RtTensors *t, const MoertSlot *slot,
                                const char *file) {
  const RtTensor *x = rt_tensors_find(t, slot->path);
  if (!x)
    return rt_fail(MOERT_BAD_DATA, "%s: tensor '%s' is missing", file,
                   slot->path);
  const char *dtype = rt_dtype[slot->dtype].safetensors;
  bool same = x->rank == slot->rank && strcmp(x->dtype, dtype) == 0;
  for (int i = 0; same && i < x->rank; i++)
    same = x->dims[i] == slot->dims[i];
  if (same) return MOERT_OK;
  char there[256], here[256];
  shape_text(x->dtype, x->rank, x->dims, there, sizeof there);
  shape_text(dtype, slot->rank, slot->dims, here, sizeof here);
  return rt_fail(MOERT_BAD_DATA,
                 "%s: tensor '%s' is %s in the file, %s in the model", file,
                 slot->path, there, here);
}

static bool is_wanted(const MoertSlot *slot, const char *pattern) {
  return !pattern || (slot->kind == MOERT_SLOT_PARAM &&
                      fnmatch(pattern, slot->path, 0) == 0);
}

/* All that is wanted is there, in its shape; all of a whole one is known. */
static MoertStatus check_tensors(const MoertSession *s, const Loaded *l,
                                 const char *pattern) {
  int count[KINDS] = {0}, all = 0;
  for (int i = 0; i < s->desc->n_slots; i++) {
    const MoertSlot *slot = &s->desc->slots[i];
    if (!is_wanted(slot, pattern)) continue;
    RT_TRY(check_tensor(&l->tensors[slot->kind], slot,
                        l->meta ? file_names[slot->kind] : "the file"));
    count[slot->kind]++;
    all++;
  }
  if (pattern && all == 0)
    return rt_fail(MOERT_NOT_FOUND, "no parameter's path matches '%s'",
                   pattern);
  for (int k = 0; !pattern && k < KINDS; k++)
    if (l->tensors[k].n != count[k])
      return rt_fail(MOERT_BAD_DATA,
                     "%s: %d tensors, the model has %d of this kind",
                     file_names[k], l->tensors[k].n, count[k]);
  return MOERT_OK;
}

/* Copies the rank's part of a tensor, without keeping the file in memory. */
static MoertStatus take_part(MoertSession *s, const MoertSlot *slot,
                             const char *data) {
  RtPart p = rt_part(s->desc, slot, s->comm->rank);
  int64_t n = rt_elements(slot->rank, slot->dims), step;
  int64_t bytes = rt_dtype[slot->dtype].bytes;
  char *part;
  RT_TRY(rt_slot_view(s, slot, &part));
  for (int64_t at = 0; at < n; at += step) {
    step = rt_gather_portion(slot, at);
    rt_part_take(slot, &p, data + at * bytes, at, at + step, part);
    rt_drop_mapped(data + at * bytes, (size_t)(step * bytes));
  }
  return rt_slot_changed(s, slot, part);
}

static MoertStatus take_tensors(MoertSession *s, const Loaded *l,
                                const char *pattern) {
  for (int i = 0; i < s->desc->n_slots; i++) {
    const MoertSlot *slot = &s->desc->slots[i];
    if (!is_wanted(slot, pattern)) continue;
    const RtTensor *x = rt_tensors_find(&l->tensors[slot->kind], slot->path);
    RT_TRY(take_part(s, slot, x->data));
  }
  return MOERT_OK;
}

static void take_meta(MoertSession *s, const cJSON *meta, int64_t *out_cursor) {
  s->steps_done = (int64_t)meta_number(meta, "step");
  s->seed = (uint32_t)meta_number(meta, "seed");
  if (out_cursor) *out_cursor = (int64_t)meta_number(meta, "cursor");
  const cJSON *o;
  cJSON_ArrayForEach(o, cJSON_GetObjectItemCaseSensitive(meta, "options")) {
    /* One that the model no longer has is of no use. */
    for (int i = 0; i < s->desc->n_options; i++)
      if (strcmp(s->desc->options[i].name, o->string) == 0 && cJSON_IsNumber(o))
        s->options[i] = o->valuedouble;
  }
}

/* Embeddings that are learned for one vocabulary mean nothing for another; who
 * picks tensors by a pattern knows which. */
static MoertStatus check_vocab(const MoertSession *s, const cJSON *meta,
                               const char *pattern) {
  const cJSON *there = cJSON_GetObjectItemCaseSensitive(meta, "vocab");
  char here[17] = "";
  if (pattern && strcmp(pattern, "*") != 0) return MOERT_OK;
  if (s->vocab) hash_text(rt_vocab_hash(s->vocab), here);
  const char *saved = cJSON_IsString(there) ? there->valuestring : "";
  if (strcmp(saved, here) == 0) return MOERT_OK;
  if (!saved[0])
    return rt_fail(MOERT_BAD_DATA, "it was trained without a vocabulary");
  return rt_fail(MOERT_BAD_DATA,
                 "it was trained with a vocabulary of XXH64 %s, %s%s", saved,
                 here[0] ? "and this one has " : "and here is none", here);
}

static MoertStatus open_loaded(Loaded *l, const char *dir,
                               const char *pattern) {
  RT_TRY(read_meta(dir, &l->meta));
  for (int k = 0; k < KINDS; k++)
    if (!pattern || k == MOERT_SLOT_PARAM) RT_TRY(open_file(l, dir, k));
  return MOERT_OK;
}

static bool is_file(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

static MoertStatus find_and_check(const MoertSession *s, const char *dir,
                                  const char *pattern, Loaded *l) {
  if (pattern && is_file(dir)) {
    RT_TRY(rt_tensors_open(dir, &l->tensors[MOERT_SLOT_PARAM]));
  } else {
    RtPath found;
    RT_TRY(rt_find_checkpoint(dir, &found));
    MoertStatus st = open_loaded(l, found.text, pattern);
    if (st == MOERT_NOT_FOUND) st = MOERT_BAD_DATA; /* there, but not whole */
    RT_TRY(st);
    RT_TRY(check_vocab(s, l->meta, pattern));
  }
  return check_tensors(s, l, pattern);
}

/* Ranks of several machines may see different directories of one name. */
static MoertStatus check_same(const MoertSession *s, const Loaded *l) {
  uint64_t own = 0, *all;
  char *text = l->meta ? cJSON_PrintUnformatted(l->meta) : NULL;
  if (text) own = rt_hash(text, strlen(text));
  cJSON_free(text);
  RT_TRY(RT_NEW(&all, s->comm->size));
  MoertStatus st = rt_comm_all(s->comm, "comparing checkpoints", &own,
                               sizeof own, all);
  for (int r = 1; st == MOERT_OK && r < s->comm->size; r++)
    if (all[r] != all[0])
      st = rt_fail(MOERT_BAD_DATA, "rank %d finds another one there than rank "
                   "0", r);
  free(all);
  return st;
}

MoertStatus moert_load(MoertSession *s, const char *dir, const char *pattern,
                       int64_t *out_cursor) {
  Loaded l = {0};
  if (out_cursor) *out_cursor = 0;
  MoertStatus st =
      rt_comm_agree(s->comm, find_and_check(s, dir, pattern, &l));
  if (st == MOERT_OK) st = check_same(s, &l);
  if (st == MOERT_OK) st = take_tensors(s, &l, pattern);
  if (st == MOERT_OK && !pattern) take_meta(s, l.meta, out_cursor);
  close_loaded(&l);
  return st == MOERT_OK ? st
                        : rt_fail_prefix(st, "checkpoint %s not loaded: ", dir);
}
