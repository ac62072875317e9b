/* safetensors.c: named tensors in a file, as other programs read them too.
 *
 * The format: 8 bytes with the length of the header, little-endian; the header,
 * JSON from name to dtype, shape and place in the data; then the data, without
 * gaps. The header is padded with spaces so that the data starts at a multiple
 * of 64. Also here: reading and writing whole files. */
#include "rt.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- files --------------------------------------------------------------- */

MoertStatus rt_map_file(const char *path, const char **out_data,
                        size_t *out_bytes) {
  *out_data = NULL;
  *out_bytes = 0;
  int fd = -1;
  RT_TRY(RT_SYS(fd = open(path, O_RDONLY | O_CLOEXEC), path));
  struct stat info;
  MoertStatus st = RT_SYS(fstat(fd, &info), path);
  if (st == MOERT_OK && !S_ISREG(info.st_mode))
    st = rt_fail(MOERT_INVALID, "%s: not a file", path);
  if (st == MOERT_OK && info.st_size > 0) {
    size_t bytes = (size_t)info.st_size;
    void *map = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    st = RT_SYS(map == MAP_FAILED ? -1 : 0, path);
    if (st == MOERT_OK) *out_data = map, *out_bytes = bytes;
  }
  close(fd);
  return st;
}

void rt_unmap(const char *data, size_t bytes) {
  if (data) munmap((void *)(uintptr_t)data, bytes);
}

enum { PIECE = 4 << 20, PAGE = 4096 };

void rt_drop_mapped(const char *data, size_t bytes) {
  uintptr_t lo = (uintptr_t)data / PAGE * PAGE;
  madvise((void *)lo, (uintptr_t)data + bytes - lo, MADV_DONTNEED);
}

uint64_t rt_hash_mapped(const char *data, size_t bytes) {
  RtHash h;
  rt_hash_start(&h);
  for (size_t at = 0; at < bytes; at += PIECE) {
    size_t n = bytes - at < PIECE ? bytes - at : PIECE;
    rt_hash_add(&h, data + at, n);
    rt_drop_mapped(data + at, n);
  }
  return rt_hash_end(&h);
}

static MoertStatus write_all(int fd, const void *data, size_t bytes,
                             const char *path) {
  const char *p = data;
  while (bytes > 0) {
    ssize_t n = write(fd, p, bytes);
    if (n < 0 && errno == EINTR) continue;
    RT_TRY(RT_SYS(n, path));
    p += n;
    bytes -= (size_t)n;
  }
  return MOERT_OK;
}

static MoertStatus open_new(const char *path, int *out_fd) {
  return RT_SYS(*out_fd =
                    open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666),
                path);
}

/* Makes sure that the data is on the disk; some errors show only here. */
static MoertStatus sync_and_close(int fd, MoertStatus so_far,
                                  const char *path) {
  MoertStatus st = so_far;
  if (st == MOERT_OK) st = RT_SYS(fsync(fd), path);
  if (close(fd) < 0 && st == MOERT_OK)
    st = rt_fail_errno(errno, path, "close(fd)", __FILE__, __LINE__);
  return st;
}

MoertStatus rt_write_file(const char *path, const void *data, size_t bytes) {
  int fd = -1;
  RT_TRY(open_new(path, &fd));
  return sync_and_close(fd, write_all(fd, data, bytes, path), path);
}

MoertStatus rt_replace_file(const char *path, const void *data, size_t bytes) {
  char aside[RT_PATH];
  if (snprintf(aside, sizeof aside, "%s.new", path) >= (int)sizeof aside)
    return rt_fail(MOERT_INVALID, "%s: the path is too long", path);
  MoertStatus st = rt_write_file(aside, data, bytes);
  if (st == MOERT_OK) st = RT_SYS(rename(aside, path), path);
  if (st != MOERT_OK) unlink(aside);
  return st;
}

/* ---- writing ------------------------------------------------------------- */

static bool add_tensor(cJSON *header, const RtTensor *x, int64_t at) {
  cJSON *t = cJSON_AddObjectToObject(header, x->name);
  cJSON *shape, *place;
  if (!t || !cJSON_AddStringToObject(t, "dtype", x->dtype) ||
      !(shape = cJSON_AddArrayToObject(t, "shape")) ||
      !(place = cJSON_AddArrayToObject(t, "data_offsets")))
    return false;
  for (int i = 0; i < x->rank; i++)
    cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)x->dims[i]));
  cJSON_AddItemToArray(place, cJSON_CreateNumber((double)at));
  cJSON_AddItemToArray(place, cJSON_CreateNumber((double)(at + x->bytes)));
  return true;
}

/* The header's text, padded; the caller frees it. NULL when out of memory. */
static char *header_text(const RtTensor *x, int n, size_t *out_bytes) {
  cJSON *header = cJSON_CreateObject();
  cJSON *about = cJSON_AddObjectToObject(header, "__metadata__");
  bool ok = cJSON_AddStringToObject(about, "format", "moec") != NULL;
  int64_t at = 0;
  for (int i = 0; ok && i < n; i++) {
    ok = add_tensor(header, &x[i], at);
    at += x[i].bytes;
  }
  char *text = ok ? cJSON_PrintUnformatted(header) : NULL;
  cJSON_Delete(header);
  if (!text) return NULL;
  size_t len = strlen(text), padded = (len + 8 + 63) / 64 * 64 - 8;
  char *out = malloc(padded);
  if (out) {
    memset(out, ' ', padded);
    memcpy(out, text, len);
  }
  cJSON_free(text);
  *out_bytes = padded;
  return out;
}

/* A file being written, and its hash so far. It is synced on the way, so that
 * nobody waits long for the end. */
typedef struct Writer {
  int fd;
  const char *path;
  RtHash hash;
  size_t not_synced;
} Writer;
enum { SYNC_BYTES = 256 << 20 };

static MoertStatus put_piece(Writer *w, const void *data, size_t bytes) {
  rt_hash_add(&w->hash, data, bytes);
  RT_TRY(write_all(w->fd, data, bytes, w->path));
  w->not_synced += bytes;
  if (w->not_synced < SYNC_BYTES) return MOERT_OK;
  w->not_synced = 0;
  return RT_SYS(fdatasync(w->fd), w->path);
}

static MoertStatus put(Writer *w, const void *data, size_t bytes) {
  for (size_t at = 0; at < bytes; at += PIECE) {
    size_t n = bytes - at < PIECE ? bytes - at : PIECE;
    RT_TRY(put_piece(w, (const char *)data + at, n));
  }
  return MOERT_OK;
}

static MoertStatus put_portions(const RtTensor *x, RtNext *next, void *user,
                                Writer *w) {
  const void *data;
  size_t n;
  for (size_t left = (size_t)x->bytes; left > 0; left -= n) {
    RT_TRY(next(user, x, &data, &n));
    RT_TRY(put(w, data, n));
  }
  return MOERT_OK;
}

static MoertStatus write_tensors(const RtTensor *x, int n, RtNext *next,
                                 void *user, Writer *w) {
  size_t bytes = 0;
  char *header = header_text(x, n, &bytes);
  if (!header) return rt_fail(MOERT_NO_MEMORY, "out of memory");
  uint64_t length = bytes;
  MoertStatus st = put(w, &length, sizeof length);
  if (st == MOERT_OK) st = put(w, header, bytes);
  free(header);
  for (int i = 0; st == MOERT_OK && i < n; i++)
    st = x[i].data ? put(w, x[i].data, (size_t)x[i].bytes)
                   : put_portions(&x[i], next, user, w);
  return st;
}

MoertStatus rt_tensors_write(const RtTensor *x, int n, RtNext *next, void *user,
                             const char *path, int64_t *out_bytes,
                             uint64_t *out_hash) {
  Writer w = {.fd = -1, .path = path};
  rt_hash_start(&w.hash);
  RT_TRY(open_new(path, &w.fd));
  RT_TRY(sync_and_close(w.fd, write_tensors(x, n, next, user, &w), path));
  *out_bytes = (int64_t)w.hash.total;
  *out_hash = rt_hash_end(&w.hash);
  return MOERT_OK;
}

/* ---- reading ------------------------------------------------------------- */

/* A whole number from 0 to 2^53. */
static bool is_count(const cJSON *n) {
  return cJSON_IsNumber(n) && n->valuedouble >= 0 &&
         n->valuedouble <= 9007199254740992.0 &&
         n->valuedouble == (double)(int64_t)n->valuedouble;
}

static int64_t dtype_bytes(const char *safetensors) {
  for (int i = 0; i < MOERT_DTYPE_COUNT; i++)
    if (strcmp(rt_dtype[i].safetensors, safetensors) == 0)
      return rt_dtype[i].bytes;
  return 0;
}

static bool read_shape(const cJSON *shape, RtTensor *out) {
  if (!cJSON_IsArray(shape)) return false;
  const cJSON *dim;
  cJSON_ArrayForEach(dim, shape) {
    if (out->rank == MOERT_MAX_RANK || !is_count(dim)) return false;
    out->dims[out->rank++] = (int64_t)dim->valuedouble;
  }
  return true;
}

/* `data` is what follows the header. */
static bool read_tensor(const cJSON *item, const char *data, size_t data_bytes,
                        RtTensor *out) {
  const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(item, "dtype");
  const cJSON *place = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
  const cJSON *from = cJSON_GetArrayItem(place, 0);
  const cJSON *to = cJSON_GetArrayItem(place, 1);
  out->name = item->string;
  if (!cJSON_IsString(dtype) || !is_count(from) || !is_count(to) ||
      !read_shape(cJSON_GetObjectItemCaseSensitive(item, "shape"), out))
    return false;
  int64_t lo = (int64_t)from->valuedouble, hi = (int64_t)to->valuedouble;
  if (lo > hi || hi > (int64_t)data_bytes) return false;
  out->dtype = dtype->valuestring;
  out->data = data + lo;
  out->bytes = hi - lo;
  double elements = 1; /* cannot overflow, and is exact when it fits */
  for (int i = 0; i < out->rank; i++)
    elements *= (double)out->dims[i];
  int64_t each = dtype_bytes(out->dtype);
  return each == 0 || elements * (double)each == (double)out->bytes;
}

static MoertStatus read_header(const char *path, RtTensors *t) {
  uint64_t length = 0;
  if (t->map_bytes >= 8) memcpy(&length, t->map, 8);
  if (t->map_bytes < 8 || length > t->map_bytes - 8)
    return rt_fail(MOERT_BAD_DATA,
                   "%s: not a whole safetensors file: %zu bytes", path,
                   t->map_bytes);
  t->header = cJSON_ParseWithLength(t->map + 8, (size_t)length);
  if (!cJSON_IsObject((cJSON *)t->header))
    return rt_fail(MOERT_BAD_DATA, "%s: not a safetensors file: bad header",
                   path);
  RT_TRY(RT_NEW(&t->items, cJSON_GetArraySize(t->header)));
  const char *data = t->map + 8 + length;
  const cJSON *item;
  cJSON_ArrayForEach(item, (cJSON *)t->header) {
    if (strcmp(item->string, "__metadata__") == 0) continue;
    if (!read_tensor(item, data, t->map_bytes - 8 - length, &t->items[t->n++]))
      return rt_fail(
          MOERT_BAD_DATA,
          "%s: tensor '%s': its entry in the header is wrong, or the "
          "file is truncated",
          path, item->string);
  }
  return MOERT_OK;
}

MoertStatus rt_tensors_open(const char *path, RtTensors *out) {
  *out = (RtTensors){0};
  RT_TRY(rt_map_file(path, &out->map, &out->map_bytes));
  MoertStatus st = read_header(path, out);
  if (st != MOERT_OK) rt_tensors_close(out);
  return st;
}

const RtTensor *rt_tensors_find(const RtTensors *t, const char *name) {
  for (int i = 0; i < t->n; i++)
    if (strcmp(t->items[i].name, name) == 0) return &t->items[i];
  return NULL;
}

void rt_tensors_close(RtTensors *t) {
  cJSON_Delete(t->header);
  free(t->items);
  rt_unmap(t->map, t->map_bytes);
  *t = (RtTensors){0};
}
