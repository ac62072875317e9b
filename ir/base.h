/* base.h: the base layer that every room stands on. It knows nothing of the IR.
 *
 * Sections, in the order of the .c files: arena, str, vec, map, diag.
 * Memory lives in arenas and is never freed singly; all of it is zeroed. */
#ifndef MOEC_BASE_H
#define MOEC_BASE_H

#include <assert.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#if defined(__GNUC__)
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define NORETURN __attribute__((noreturn))
#else
#define PRINTF_LIKE(fmt, args)
#define NORETURN
#endif

#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))

/* ---- arena.c: bump allocation in blocks --------------------------------- */

typedef struct ArenaBlock ArenaBlock;
typedef struct Arena {
  ArenaBlock *head;  /* newest block, allocation happens here */
  size_t used_bytes; /* handed out since the last reset */
} Arena;

/* Zeroed, 16-byte aligned memory that lives until arena_reset. Never NULL:
 * running out of memory ends the process with status 70. */
void *arena_alloc(Arena *a, size_t bytes);
void *arena_copy(Arena *a, const void *src, size_t bytes);
void arena_reset(Arena *a); /* frees everything; the arena is then empty */

#define NEW(arena, T) ((T *)arena_alloc((arena), sizeof(T)))
#define NEW_ARRAY(arena, T, n) ((T *)arena_alloc((arena), sizeof(T) * (n)))

/* ---- str.c: interned strings and string building ------------------------ */

/* An interned string: equal text means equal pointer within one Ctx. */
typedef const char *Sym;

typedef struct Ctx Ctx;

Sym sym(Ctx *cx, const char *text);
Sym sym_n(Ctx *cx, const char *text, size_t len);
Sym sym_fmt(Ctx *cx, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* A growing text, in malloc memory. `data` is always NUL-terminated once
 * something was added. */
typedef struct Buf {
  char *data;
  size_t len, cap;
} Buf;

void buf_int(Buf *b, int64_t x); /* in decimal */
void buf_add(Buf *b, const char *text);
void buf_add_n(Buf *b, const char *text, size_t len);
void buf_fmt(Buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void buf_free(Buf *b);

/* The shortest decimal text that strtod reads back as exactly `x`. "inf",
 * "-inf" and "nan" for those. `out` holds at least 32 bytes. */
void format_double(double x, char *out);

/* The candidate nearest to `word` by edit distance, NULL when none is near
 * enough to be what was meant. */
const char *nearest_word(const char *word, const char *const *candidates,
                         size_t n);

/* Shell-style match with '*' (any run, '/' included) and '?'. A pattern also
 * matches a suffix of `path` that starts after a '/'. */
bool path_match(const char *pattern, const char *path);

/* ---- vec.c: growing arrays in an arena ---------------------------------- */

/* VEC(T) is a struct type; name it with typedef before passing it around. */
#define VEC(T)                                                                \
  struct {                                                                    \
    T *data;                                                                  \
    uint32_t len, cap;                                                        \
  }

/* Appends `item`. The old storage stays in the arena. */
#define vec_push(arena, v, item)                                              \
  (vec_grow((arena), (void **)&(v)->data, &(v)->cap, (v)->len,                \
            sizeof *(v)->data),                                               \
   (v)->data[(v)->len++] = (item))

void vec_grow(Arena *a, void **data, uint32_t *cap, uint32_t len,
              size_t item_bytes);

/* ---- map.c: hash maps from pointers, syms or bytes ---------------------- */

/* Key: a pointer (a Sym too) or a 64-bit number. Zeroed is empty. */
typedef struct MapSlot {
  uint64_t key;
  void *value; /* NULL marks a free slot */
} MapSlot;
typedef struct Map {
  MapSlot *slots;
  uint32_t cap, len;
} Map;

void *map_get(const Map *m, const void *key); /* NULL when absent */
void map_put(Arena *a, Map *m, const void *key, void *value); /* not NULL */

uint64_t hash_bytes(uint64_t seed, const void *data, size_t bytes);

/* ---- diag.c: sources, spans and diagnostics ----------------------------- */

/* A byte range of a source. file 0 is "nowhere". */
typedef struct Span {
  uint32_t file, lo, hi;
} Span;

typedef struct Source {
  Sym path;
  const char *text; /* NUL-terminated */
  size_t len;
  uint32_t *lines; /* byte where each line starts */
  uint32_t n_lines;
} Source;

typedef enum Severity { SEV_ERROR, SEV_WARNING, SEV_NOTE } Severity;

typedef struct Diag {
  Severity severity;
  Span span;
  const char *message;
  uint32_t parent; /* a note: index of the diagnostic it belongs to */
} Diag;

typedef VEC(Source) SourceVec;
typedef VEC(Diag) DiagVec;

/* The compiler's context: owns memory, names, sources and diagnostics. */
struct Ctx {
  Arena perm;    /* names, AST, IR */
  Arena scratch; /* reset after each pass */
  Map syms;      /* hash of text -> chain of syms */
  SourceVec sources;
  DiagVec diags;
  uint32_t errors;   /* errors recorded so far */
  uint32_t warnings; /* warnings recorded so far */
};

enum { MAX_SOURCE = 1 << 30 };
enum { MAX_DIAG_ERRORS = 20 }; /* printed at most; the rest is counted */

/* Registers text under a path; returns its file number (from 1). Copies. At
 * most MAX_SOURCE bytes: source_read fails with EFBIG, source_add asserts. */
uint32_t source_add(Ctx *cx, const char *path, const char *text, size_t len);
/* Reads a file and registers it. False: errno says why, nothing recorded. */
bool source_read(Ctx *cx, const char *path, uint32_t *out_file);
/* Writes n bytes as all of a file. False: errno says why. */
bool file_write(const char *path, const void *data, size_t n);
/* Line and column (from 1; column counts characters, not bytes). */
void span_line_col(const Ctx *cx, Span s, uint32_t *line, uint32_t *col);
/* "path:line:col", or "" for nowhere. */
Sym span_text(Ctx *cx, Span s);
Span span_join(Span a, Span b);

/* Record and continue. Messages: lower case, no full stop, both values. */
void diag_error(Ctx *cx, Span s, const char *fmt, ...) PRINTF_LIKE(3, 4);
void diag_warning(Ctx *cx, Span s, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Attaches to the diagnostic recorded last. */
void diag_note(Ctx *cx, Span s, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Takes back what was recorded since there were `from` diagnostics: the first
 * error among it, its message NULL where there was none. */
Diag diag_take(Ctx *cx, uint32_t from);
/* Prints all in source order with source line and caret. */
void diag_print(Ctx *cx, FILE *to);

/* Frees everything that the context owns. */
void ctx_free(Ctx *cx);

/* Our own mistake: says where and ends with status 70. */
NORETURN void internal_error(const char *fmt, ...) PRINTF_LIKE(1, 2);

#endif
