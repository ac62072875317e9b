/* checkpoint.c: saving all that a session is, and taking it up again.
 *
 *   DIR/step-00001234/params.safetensors   parameters
 *                     optim.safetensors    optimiser state
 *                     state.safetensors    recurrent state
 *                     meta.json            step, cursor, seed, options, and
 *                                          size and XXH64 of each file
 *   DIR/latest                             the name of the newest one
 *
 * A checkpoint is written under another name, synced and renamed, so one that
 * has its name is whole. Before loading changes anything, every file's hash and
 * every tensor's name, dtype and shape have been checked. */
#include "rt.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FORMAT = 1, PATH_BYTES = 4096, KINDS = 3 };
#define ASIDE ".saving-" /* ASIDE<pid>-<name> is not a checkpoint yet */

static const char *const file_names[KINDS] = {
    /* ORDER SLOT */
    [MOERT_SLOT_PARAM] = "params.safetensors",
    [MOERT_SLOT_OPTIM] = "optim.safetensors",
    [MOERT_SLOT_STATE] = "state.safetensors",
};

typedef struct Path {
  char text[PATH_BYTES];
} Path;

/* "dir/name"; MOERT_INVALID when it is too long. */
static MoertStatus join(const char *dir, const char *name, Path *out) {
  int n = snprintf(out->text, sizeof out->text, "%s/%s", dir, name);
  if (n > 0 && (size_t)n < sizeof out->text) return MOERT_OK;
  return rt_fail(MOERT_INVALID, "%s: the path is too long", dir);
}

/* ---- directories --------------------------------------------------------- */

static MoertStatus sync_dir(const char *path) {
  int fd = -1;
  RT_TRY(RT_SYS(fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), path));
  MoertStatus st = RT_SYS(fsync(fd), path);
  close(fd);
  return st;
}

/* Makes a directory and those above it. */
static MoertStatus make_dirs(const char *path) {
  Path p;
  RT_TRY(join(path, "", &p));
  for (char *q = p.text + 1; *q; q++) {
    if (*q != '/') continue;
    *q = 0;
    RT_TRY(RT_SYS(mkdir(p.text, 0777) < 0 && errno != EEXIST ? -1 : 0, p.text));
    *q = '/';
  }
  return MOERT_OK;
}

/* Removes a directory and the files in it, as far as that goes. */
static void remove_dir(const char *path) {
  DIR *d = opendir(path);
  if (!d) return;
  for (struct dirent *e; (e = readdir(d));)
    if (e->d_name[0] != '.') unlinkat(dirfd(d), e->d_name, 0);
  closedir(d);
  rmdir(path);
}

/* Removes what processes that are gone have left half written. */
static void remove_leftovers(const char *dir) {
  DIR *d = opendir(dir);
  if (!d) return;
  for (struct dirent *e; (e = readdir(d));) {
    if (strncmp(e->d_name, ASIDE, strlen(ASIDE)) != 0) continue;
    pid_t pid = (pid_t)atol(e->d_name + strlen(ASIDE));
    Path p;
    if (pid > 0 && kill(pid, 0) < 0 && errno == ESRCH &&
        join(dir, e->d_name, &p) == MOERT_OK) {
      remove_dir(p.text);
      unlink(p.text);
    }
  }
  closedir(d);
}

/* Gives a directory its name; what had it before is removed. */
static MoertStatus put_in_place(const char *aside, const char *name) {
  if (rename(aside, name) == 0) return MOERT_OK;
  if (errno != ENOTEMPTY && errno != EEXIST)
    return rt_fail_errno(errno, name, "rename(aside, name)", __FILE__,
                         __LINE__);
  RT_TRY(RT_SYS(renameat2(AT_FDCWD, aside, AT_FDCWD, name, RENAME_EXCHANGE),
                name));
  remove_dir(aside);
  return MOERT_OK;
}

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
  Path p;
  describe_session(meta, s, cursor);
  cJSON_AddItemToObject(meta, "files", files);
  RT_TRYGOTO(meta_hash(meta, hash), st, done);
  cJSON_AddStringToObject(meta, "xxh64", hash);
  text = cJSON_Print(meta);
  RT_TRYGOTO(text ? MOERT_OK : rt_fail(MOERT_NO_MEMORY, "out of memory"), st,
             done);
  RT_TRYGOTO(join(dir, "meta.json", &p), st, done);
  st = rt_write_file(p.text, text, strlen(text));
done:
  cJSON_free(text);
  cJSON_Delete(meta);
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
static MoertStatus write_slots(const MoertSession *s, int kind,
                               const char *path, cJSON *files) {
  RtTensor *list;
  int64_t bytes;
  uint64_t hash;
  int n = 0;
  RT_TRY(RT_NEW(&list, s->desc->n_slots));
  for (int i = 0; i < s->desc->n_slots; i++) {
    const MoertSlot *x = &s->desc->slots[i];
    if (x->kind == kind)
      list[n++] =
          tensor(x->path, x->dtype, x->rank, x->dims, rt_slot_data(s, x));
  }
  MoertStatus st = rt_tensors_write(list, n, path, &bytes, &hash);
  free(list);
  RT_TRY(st);
  return describe_file(files, kind, bytes, hash)
             ? MOERT_OK
             : rt_fail(MOERT_NO_MEMORY, "out of memory");
}

static MoertStatus write_tensors(const MoertSession *s, const char *dir,
                                 cJSON *files) {
  Path p;
  for (int i = 0; i < KINDS; i++) {
    RT_TRY(join(dir, file_names[i], &p));
    RT_TRY(write_slots(s, i, p.text, files));
  }
  return MOERT_OK;
}

static MoertStatus write_files(const MoertSession *s, const char *dir,
                               int64_t cursor) {
  cJSON *files = cJSON_CreateObject();
  MoertStatus st = write_tensors(s, dir, files);
  if (st == MOERT_OK)
    st = write_meta(s, dir, cursor, files);
  else
    cJSON_Delete(files);
  return st == MOERT_OK ? sync_dir(dir) : st;
}

static MoertStatus point_latest(const char *dir, const char *name) {
  Path aside, latest;
  char file[64];
  snprintf(file, sizeof file, ASIDE "%ld-latest", (long)getpid());
  RT_TRY(join(dir, file, &aside));
  RT_TRY(join(dir, "latest", &latest));
  MoertStatus st = rt_write_file(aside.text, name, strlen(name));
  if (st == MOERT_OK) st = RT_SYS(rename(aside.text, latest.text), latest.text);
  if (st != MOERT_OK) unlink(aside.text);
  return st == MOERT_OK ? sync_dir(dir) : st;
}

static MoertStatus save(const MoertSession *s, const char *dir,
                        int64_t cursor) {
  char name[40], aside_name[80];
  Path final, aside;
  snprintf(name, sizeof name, "step-%08lld", (long long)s->steps_done);
  snprintf(aside_name, sizeof aside_name, ASIDE "%ld-%s", (long)getpid(), name);
  RT_TRY(make_dirs(dir));
  remove_leftovers(dir);
  RT_TRY(join(dir, name, &final));
  RT_TRY(join(dir, aside_name, &aside));
  remove_dir(aside.text);
  RT_TRY(RT_SYS(mkdir(aside.text, 0777), aside.text));
  MoertStatus st = write_files(s, aside.text, cursor);
  if (st == MOERT_OK) st = put_in_place(aside.text, final.text);
  if (st != MOERT_OK) {
    remove_dir(aside.text);
    return st;
  }
  RT_TRY(sync_dir(dir));
  return point_latest(dir, name);
}

MoertStatus moert_save(MoertSession *s, const char *dir, int64_t cursor) {
  if (s->comm->rank != 0) return MOERT_OK;
  MoertStatus st = save(s, dir, cursor);
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
                         rt_address(s, entry, &b->ref, NULL));
  }
  MoertStatus st = rt_tensors_write(list, n, path, &bytes, &hash);
  free(list);
  return st;
}

MoertStatus moert_save_reports(MoertSession *s, const char *entry,
                               const char *dir) {
  char name[48];
  Path p;
  int e = rt_find_entry(s, entry);
  if (e < 0) return MOERT_NOT_FOUND;
  if (s->comm->rank != 0) return MOERT_OK;
  snprintf(name, sizeof name, "step-%08lld.safetensors",
           (long long)s->steps_done);
  RT_TRY(make_dirs(dir));
  RT_TRY(join(dir, name, &p));
  return write_reports(s, e, p.text);
}

/* ---- finding the newest, removing old ones ------------------------------- */

static int is_checkpoint(const struct dirent *e) {
  return strncmp(e->d_name, "step-", 5) == 0;
}

static int by_step(const struct dirent **a, const struct dirent **b) {
  long long x = atoll((*a)->d_name + 5), y = atoll((*b)->d_name + 5);
  return (x > y) - (x < y);
}

/* The checkpoint of the latest step, where nothing points at it. */
static MoertStatus find_latest(const char *dir, char *out, size_t out_bytes) {
  struct dirent **list;
  int n;
  RT_TRY(RT_SYS(n = scandir(dir, &list, is_checkpoint, by_step), dir));
  if (n) snprintf(out, out_bytes, "%s", list[n - 1]->d_name);
  for (int i = 0; i < n; i++)
    free(list[i]);
  free(list);
  return n ? MOERT_OK
           : rt_fail(MOERT_NOT_FOUND, "%s: no checkpoint there", dir);
}

/* Fills the name that DIR/latest holds. */
static MoertStatus read_latest(const char *dir, char *out, size_t out_bytes) {
  Path p;
  const char *data;
  size_t bytes;
  RT_TRY(join(dir, "latest", &p));
  MoertStatus st = rt_map_file(p.text, &data, &bytes);
  if (st == MOERT_NOT_FOUND) return find_latest(dir, out, out_bytes);
  RT_TRY(st);
  size_t len = 0;
  while (len < bytes && len + 1 < out_bytes && data[len] > ' ')
    len++;
  if (len) memcpy(out, data, len);
  out[len] = 0;
  rt_unmap(data, bytes);
  if (strncmp(out, "step-", 5) == 0 && !strchr(out, '/')) return MOERT_OK;
  return rt_fail(MOERT_BAD_DATA, "%s: does not name a checkpoint", p.text);
}

/* The checkpoint's own directory: `dir`, or the newest one in it. */
static MoertStatus resolve(const char *dir, Path *out) {
  Path meta;
  struct stat info;
  char name[256];
  RT_TRY(RT_SYS(stat(dir, &info), dir));
  RT_TRY(join(dir, "meta.json", &meta));
  if (stat(meta.text, &info) == 0) {
    snprintf(out->text, sizeof out->text, "%s", dir);
    return MOERT_OK;
  }
  RT_TRY(read_latest(dir, name, sizeof name));
  return join(dir, name, out);
}

MoertStatus moert_prune(const char *dir, int keep) {
  char latest[256];
  RT_TRY(read_latest(dir, latest, sizeof latest));
  struct dirent **list;
  int n;
  RT_TRY(RT_SYS(n = scandir(dir, &list, is_checkpoint, by_step), dir));
  for (int i = 0; i < n; i++) {
    Path p, aside;
    char name[320];
    snprintf(name, sizeof name, ASIDE "%ld-%s", (long)getpid(),
             list[i]->d_name);
    /* Renamed first: one that is half removed must not look whole. */
    if (i < n - keep && strcmp(list[i]->d_name, latest) != 0 &&
        join(dir, list[i]->d_name, &p) == MOERT_OK &&
        join(dir, name, &aside) == MOERT_OK && rename(p.text, aside.text) == 0)
      remove_dir(aside.text);
    free(list[i]);
  }
  free(list);
  return MOERT_OK;
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
  Path p;
  const char *data;
  size_t bytes;
  RT_TRY(join(dir, "meta.json", &p));
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
  Path p;
  const char *data;
  size_t bytes;
  RT_TRY(join(dir, file_names[kind], &p));
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

static void take_tensors(MoertSession *s, const Loaded *l,
                         const char *pattern) {
  for (int i = 0; i < s->desc->n_slots; i++) {
    const MoertSlot *slot = &s->desc->slots[i];
    if (!is_wanted(slot, pattern)) continue;
    const RtTensor *x = rt_tensors_find(&l->tensors[slot->kind], slot->path);
    rt_copy_mapped(rt_slot_data(s, slot), x->data, (size_t)x->bytes);
  }
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

MoertStatus moert_load(MoertSession *s, const char *dir, const char *pattern,
                       int64_t *out_cursor) {
  Loaded l = {0};
  Path found;
  MoertStatus st;
  if (out_cursor) *out_cursor = 0;
  if (pattern && is_file(dir)) {
    RT_TRYGOTO(rt_tensors_open(dir, &l.tensors[MOERT_SLOT_PARAM]), st, done);
  } else {
    RT_TRYGOTO(resolve(dir, &found), st, done);
    st = open_loaded(&l, found.text, pattern);
    if (st == MOERT_NOT_FOUND) st = MOERT_BAD_DATA; /* there, but not whole */
    if (st != MOERT_OK) goto done;
  }
  RT_TRYGOTO(check_tensors(s, &l, pattern), st, done);
  take_tensors(s, &l, pattern);
  if (!pattern) take_meta(s, l.meta, out_cursor);
done:
  close_loaded(&l);
  return st == MOERT_OK ? st
                        : rt_fail_prefix(st, "checkpoint %s not loaded: ", dir);
}
