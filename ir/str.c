/* str.c: interned strings, text building, number formatting, and the two small
 * matchers: nearest word and path pattern. */
#include "base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- interned strings --------------------------------------------------- */

/* Strings whose hashes are equal form a chain. */
typedef struct SymNode {
  struct SymNode *next;
  size_t len;
  char text[];
} SymNode;

Sym sym_n(Ctx *cx, const char *text, size_t len) {
  uint64_t hash = hash_bytes(0, text, len);
  const void *key = (const void *)(uintptr_t)hash;
  SymNode *first = map_get(&cx->syms, key);
  for (SymNode *s = first; s; s = s->next)
    if (s->len == len && (len == 0 || memcmp(s->text, text, len) == 0))
      return s->text;
  SymNode *s = arena_alloc(&cx->perm, sizeof(SymNode) + len + 1);
  s->next = first;
  s->len = len;
  if (len) memcpy(s->text, text, len);
  map_put(&cx->perm, &cx->syms, key, s);
  return s->text;
}

Sym sym(Ctx *cx, const char *text) {
  return sym_n(cx, text, strlen(text));
}

static void buf_vfmt(Buf *b, const char *fmt, va_list args);

Sym sym_fmt(Ctx *cx, const char *fmt, ...) {
  Buf b = {0};
  va_list args;
  va_start(args, fmt);
  buf_vfmt(&b, fmt, args);
  va_end(args);
  Sym s = sym_n(cx, b.data, b.len);
  buf_free(&b);
  return s;
}

/* ---- text building ------------------------------------------------------ */

static void reserve(Buf *b, size_t more) {
  if (b->cap - b->len > more) return;
  size_t cap = b->cap ? b->cap * 2 : 64;
  while (cap - b->len <= more)
    cap *= 2;
  char *data = realloc(b->data, cap);
  if (!data) internal_error("out of memory: %zu bytes", cap);
  b->data = data;
  b->cap = cap;
}

void buf_add_n(Buf *b, const char *text, size_t len) {
  reserve(b, len);
  if (len) memcpy(b->data + b->len, text, len);
  b->len += len;
  b->data[b->len] = '\0';
}

void buf_add(Buf *b, const char *text) {
  buf_add_n(b, text, strlen(text));
}

void buf_int(Buf *b, int64_t x) {
  char text[24], *at = text + sizeof text;
  uint64_t left = x < 0 ? -(uint64_t)x : (uint64_t)x;
  do {
    *--at = (char)('0' + left % 10);
    left /= 10;
  } while (left);
  if (x < 0) *--at = '-';
  buf_add_n(b, at, (size_t)(text + sizeof text - at));
}

static void buf_vfmt(Buf *b, const char *fmt, va_list args) {
  va_list again;
  va_copy(again, args);
  assert(fmt);
  reserve(b, 0);
  size_t room = b->cap - b->len;
  int len = vsnprintf(b->data + b->len, room, fmt, args);
  if (len < 0) internal_error("bad format \"%s\"", fmt);
  if ((size_t)len >= room) {
    reserve(b, (size_t)len);
    vsnprintf(b->data + b->len, (size_t)len + 1, fmt, again);
  }
  va_end(again);
  b->len += (size_t)len;
}

void buf_fmt(Buf *b, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  buf_vfmt(b, fmt, args);
  va_end(args);
}

void buf_free(Buf *b) {
  free(b->data);
  *b = (Buf){0};
}

/* The shortest decimal that reads back as x. */
static void shortest(double x, char *out) {
  int least = 1, most = 17; /* what suffices suffices with more digits */
  while (least < most) {
    int digits = (least + most) / 2;
    snprintf(out, 32, "%.*g", digits, x);
    if (strtod(out, NULL) == x)
      most = digits;
    else
      least = digits + 1;
  }
  snprintf(out, 32, "%.*g", most, x);
}

/* A module has few different numbers, each printed after every pass: those of
 * late are kept. */
void format_double(double x, char *out) {
  enum { KEPT = 1 << 10 };
  static _Thread_local struct {
    double x;
    char text[32];
  } kept[KEPT];
  if (isnan(x) || isinf(x)) {
    strcpy(out, isnan(x) ? "nan" : x > 0 ? "inf" : "-inf");
    return;
  }
  uint64_t at = hash_bytes(0, &x, sizeof x) % KEPT;
  if (!kept[at].text[0] || memcmp(&kept[at].x, &x, sizeof x)) {
    kept[at].x = x;
    shortest(x, kept[at].text);
  }
  strcpy(out, kept[at].text);
}

/* ---- matchers ----------------------------------------------------------- */

enum { LONGEST_WORD = 63 };

/* Levenshtein distance with swaps of neighbours; words of at most
 * LONGEST_WORD bytes. */
static size_t distance(const char *a, size_t n, const char *b, size_t m) {
  uint8_t d[LONGEST_WORD + 1][LONGEST_WORD + 1];
  for (size_t i = 0; i <= n; i++)
    d[i][0] = (uint8_t)i;
  for (size_t j = 0; j <= m; j++)
    d[0][j] = (uint8_t)j;
  for (size_t i = 1; i <= n; i++)
    for (size_t j = 1; j <= m; j++) {
      int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
      if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
      if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
      bool swapped =
          i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped && d[i - 2][j - 2] + 1 < best) best = d[i - 2][j - 2] + 1;
      d[i][j] = (uint8_t)best;
    }
  return d[n][m];
}

const char *nearest_word(const char *word, const char *const *candidates,
                         size_t n) {
  size_t len = strlen(word);
  if (len > LONGEST_WORD) return NULL;
  const char *best = NULL;
  size_t limit = len < 3 ? 1 : len / 3 + 1; /* farther is another word */
  if (limit > 4) limit = 4;
  for (size_t i = 0; i < n; i++) {
    size_t other = strlen(candidates[i]);
    if (other > LONGEST_WORD) continue;
    size_t d = distance(word, len, candidates[i], other);
    if (d >= len || d >= other || d > limit || (best && d == limit)) continue;
    best = candidates[i];
    limit = d;
  }
  return best;
}

static bool match(const char *pattern, const char *text) {
  const char *star = NULL, *resume = NULL;
  while (*text) {
    if (*pattern == '*') {
      star = ++pattern; /* first try an empty run */
      resume = text;
    } else if (*pattern == '?' || *pattern == *text) {
      pattern++, text++;
    } else if (star) {
      pattern = star; /* let the last run take one character more */
      text = ++resume;
    } else {
      return false;
    }
  }
  while (*pattern == '*')
    pattern++;
  return !*pattern;
}

bool path_match(const char *pattern, const char *path) {
  if (match(pattern, path)) return true;
  for (const char *p = path; *p; p++)
    if (*p == '/' && match(pattern, p + 1)) return true;
  return false;
}
