/* tiny.h: opening the models of tiny_model.c, for the runtime's unit tests. */
#ifndef MOEC_TINY_H
#define MOEC_TINY_H

#include "../../runtime/rt.h"
#include "check.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* CHECK that a call succeeds. */
#define CHECK_OK(name, call)                               \
  do {                                                     \
    MoertStatus check_status = (call);                     \
    CHECK(name, check_status == MOERT_OK, "%s: %s",        \
          moert_status_name(check_status), moert_error()); \
  } while (0)

/* CHECK that a call fails so, with this in its text. */
#define CHECK_FAILS(name, call, status, text)                            \
  do {                                                                   \
    MoertStatus check_status = (call);                                   \
    CHECK(name, check_status == (status) && strstr(moert_error(), text), \
          "%s: %s", moert_status_name(check_status),                     \
          check_status ? moert_error() : "");                            \
  } while (0)

/* Path of a file beside this program. */
static inline const char *beside(const char *name) {
  static char path[4096];
  ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
  path[n > 0 ? n : 0] = 0;
  char *slash = strrchr(path, '/');
  size_t at = slash ? (size_t)(slash - path) + 1 : 0;
  snprintf(path + at, sizeof path - at, "%s", name);
  return path;
}

/* A model and its session; the program ends where that fails. */
typedef struct Tiny {
  MoertModel *model;
  MoertSession *s;
} Tiny;

static inline Tiny tiny_open(const char *name, MoertSessionOptions o) {
  Tiny t;
  if (moert_open(beside(name), &t.model) || moert_session(t.model, &o, &t.s)) {
    printf("not ok opening %s: %s\n", name, moert_error());
    exit(1);
  }
  return t;
}

static inline void tiny_close(Tiny t) {
  moert_session_free(t.s);
  moert_close(t.model);
}

/* A scratch directory, made once, and a path in it. */
static inline const char *scratch_dir(void) {
  static char dir[64];
  if (!dir[0]) {
    snprintf(dir, sizeof dir, "/tmp/moert-test-XXXXXX");
    if (!mkdtemp(dir)) exit(1);
  }
  return dir;
}
static inline const char *scratch(const char *name) {
  static char path[4][256];
  static unsigned next;
  char *p = path[next++ % 4];
  snprintf(p, sizeof path[0], "%s/%s", scratch_dir(), name);
  return p;
}
static inline int scratch_remove(void) {
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", scratch_dir());
  return system(command);
}

static inline void write_file(const char *path, const void *data, size_t n) {
  FILE *f = fopen(path, "wb");
  if (!f || fwrite(data, 1, n, f) != n || fclose(f)) exit(1);
}

/* n bytes that look like nothing in particular, the same each time. */
static inline void some_text(char *out, size_t n) {
  uint32_t x = 12345;
  for (size_t i = 0; i < n; i++) {
    x = x * 1664525u + 1013904223u;
    out[i] = (char)('a' + (x >> 24) % 26);
  }
}

#endif
