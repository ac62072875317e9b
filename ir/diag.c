/* diag.c: sources, spans and diagnostics.
 *
 * Spans are byte ranges; lines and columns are worked out only when something
 * is printed. Diagnostics are recorded, so that one run reports many, and
 * printed once in the order of their places:
 *
 *   models/tiny.dsl:14:21: error: matmul: inner dimensions differ: 512 vs 448
 *      14 |   let h = matmul(x, w1)
 *         |                     ^~
 */
#include "base.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- sources ------------------------------------------------------------ */

uint32_t source_add(Ctx *cx, const char *path, const char *text, size_t len) {
  assert(len <= MAX_SOURCE);
  char *copy = arena_alloc(&cx->perm, len + 1);
  if (len) memcpy(copy, text, len);
  Source s = {.path = sym(cx, path), .text = copy, .len = len, .n_lines = 1};
  for (size_t i = 0; i < len; i++)
    s.n_lines += copy[i] == '\n';
  s.lines = NEW_ARRAY(&cx->perm, uint32_t, s.n_lines);
  uint32_t line = 0;
  for (size_t i = 0; i < len; i++)
    if (copy[i] == '\n') s.lines[++line] = (uint32_t)i + 1;
  vec_push(&cx->perm, &cx->sources, s);
  return cx->sources.len;
}

bool source_read(Ctx *cx, const char *path, uint32_t *out_file) {
  FILE *f = fopen(path, "rb");
  if (!f) return false;
  Buf text = {0};
  char chunk[1 << 14];
  size_t got;
  while ((got = fread(chunk, 1, sizeof chunk, f)) > 0) {
    buf_add_n(&text, chunk, got);
    if (text.len > MAX_SOURCE) break;
  }
  int error = ferror(f) ? errno : text.len > MAX_SOURCE ? EFBIG : 0;
  fclose(f);
  if (!error) *out_file = source_add(cx, path, text.data, text.len);
  buf_free(&text);
  errno = error;
  return !error;
}

bool file_write(const char *path, const void *data, size_t n) {
  FILE *f = fopen(path, "wb");
  if (!f) return false;
  bool ok = fwrite(data, 1, n, f) == n;
  int error = errno;
  if (fclose(f) && ok) {
    ok = false;
    error = errno;
  }
  errno = error;
  return ok;
}

/* ---- spans -------------------------------------------------------------- */

static const Source *span_source(const Ctx *cx, Span s) {
  if (s.file == 0 || s.file > cx->sources.len) return NULL;
  return &cx->sources.data[s.file - 1];
}

/* Index of the line that holds byte `at`. */
static uint32_t line_at(const Source *src, uint32_t at) {
  uint32_t lo = 0, hi = src->n_lines; /* lines[lo] <= at < lines[hi] */
  while (hi - lo > 1) {
    uint32_t mid = lo + (hi - lo) / 2;
    if (src->lines[mid] <= at)
      lo = mid;
    else
      hi = mid;
  }
  return lo;
}

/* True for the first byte of a UTF-8 character. */
static bool starts_char(char c) {
  return ((unsigned char)c & 0xc0) != 0x80;
}

static uint32_t count_chars(const char *text, size_t bytes) {
  uint32_t n = 0;
  for (size_t i = 0; i < bytes; i++)
    n += starts_char(text[i]);
  return n;
}

void span_line_col(const Ctx *cx, Span s, uint32_t *line, uint32_t *col) {
  const Source *src = span_source(cx, s);
  *line = *col = 0;
  if (!src) return;
  uint32_t at = s.lo < src->len ? s.lo : (uint32_t)src->len;
  uint32_t l = line_at(src, at), start = src->lines[l];
  *line = l + 1;
  *col = count_chars(src->text + start, at - start) + 1;
}

Sym span_text(Ctx *cx, Span s) {
  const Source *src = span_source(cx, s);
  uint32_t line, col;
  if (!src) return sym(cx, "");
  span_line_col(cx, s, &line, &col);
  return sym_fmt(cx, "%s:%u:%u", src->path, line, col);
}

Span span_join(Span a, Span b) {
  if (a.file == 0) return b;
  if (b.file != a.file) return a;
  return (Span){a.file, a.lo < b.lo ? a.lo : b.lo, a.hi > b.hi ? a.hi : b.hi};
}

/* ---- recording ---------------------------------------------------------- */

static void record(Ctx *cx, Severity severity, Span s, const char *fmt,
                   va_list args) {
  va_list again;
  va_copy(again, args);
  assert(fmt);
  int len = vsnprintf(NULL, 0, fmt, args);
  if (len < 0) internal_error("bad format \"%s\"", fmt);
  char *text = arena_alloc(&cx->perm, (size_t)len + 1);
  vsnprintf(text, (size_t)len + 1, fmt, again);
  va_end(again);
  Diag d = {severity, s, text, cx->diags.len};
  if (severity == SEV_NOTE && cx->diags.len)
    d.parent = cx->diags.data[cx->diags.len - 1].parent;
  vec_push(&cx->perm, &cx->diags, d);
}

void diag_error(Ctx *cx, Span s, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  record(cx, SEV_ERROR, s, fmt, args);
  va_end(args);
  cx->errors++;
}

void diag_warning(Ctx *cx, Span s, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  record(cx, SEV_WARNING, s, fmt, args);
  va_end(args);
  cx->warnings++;
}

void diag_note(Ctx *cx, Span s, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  record(cx, SEV_NOTE, s, fmt, args);
  va_end(args);
}

Diag diag_take(Ctx *cx, uint32_t from) {
  Diag first = {.message = NULL};
  for (uint32_t i = from; i < cx->diags.len; i++) {
    const Diag *d = &cx->diags.data[i];
    if (d->severity == SEV_ERROR && !first.message) first = *d;
    cx->errors -= d->severity == SEV_ERROR;
    cx->warnings -= d->severity == SEV_WARNING;
  }
  cx->diags.len = from;
  return first;
}

/* ---- printing ----------------------------------------------------------- */

enum { LINE_SHOWN = 200 }; /* bytes of a source line shown around the caret */

/* One source byte; what would upset a terminal becomes '?'. */
static void put_source_byte(FILE *to, char c) {
  bool plain = c == '\t' || (unsigned char)c >= 0x20;
  fputc(plain && c != 0x7f ? c : '?', to);
}

/* The line of the span with a caret below. */
static void print_source(const Source *src, Span s, FILE *to) {
  uint32_t lo = s.lo < src->len ? s.lo : (uint32_t)src->len;
  uint32_t line = line_at(src, lo), from = src->lines[line], end = from;
  while (end < src->len && src->text[end] != '\n' && src->text[end] != '\r')
    end++;
  if (lo > end) lo = end;
  if (lo - from > LINE_SHOWN / 2) from = lo - LINE_SHOWN / 2;
  while (from > src->lines[line] && !starts_char(src->text[from]))
    from--;
  if (end - from > LINE_SHOWN) {
    end = from + LINE_SHOWN;
    while (end > lo && !starts_char(src->text[end]))
      end--;
  }
  fprintf(to, "%5u | ", line + 1);
  for (uint32_t i = from; i < end; i++)
    put_source_byte(to, src->text[i]);
  fputs("\n      | ", to);
  for (uint32_t i = from; i < lo; i++)
    if (starts_char(src->text[i])) fputc(src->text[i] == '\t' ? '\t' : ' ', to);
  fputc('^', to);
  uint32_t hi = s.hi < end ? s.hi : end;
  for (uint32_t i = lo + 1; i < hi; i++)
    if (starts_char(src->text[i])) fputc('~', to);
  fputc('\n', to);
}

static void print_diag(Ctx *cx, const Diag *d, FILE *to) {
  static const char *const names[] = {"error", "warning", "note"};
  const Source *src = span_source(cx, d->span);
  if (src) fprintf(to, "%s: ", span_text(cx, d->span));
  fprintf(to, "%s: %s\n", names[d->severity], d->message);
  if (src) print_source(src, d->span, to);
}

typedef struct Order {
  uint32_t file, lo, index;
} Order;

static int compare(uint32_t a, uint32_t b) {
  return (a > b) - (a < b);
}

static int by_place(const void *x, const void *y) {
  const Order *a = x, *b = y;
  int c = compare(a->file, b->file);
  if (!c) c = compare(a->lo, b->lo);
  return c ? c : compare(a->index, b->index);
}

/* A diagnostic and the notes that follow it in the record. */
static void print_with_notes(Ctx *cx, uint32_t index, FILE *to) {
  print_diag(cx, &cx->diags.data[index], to);
  for (uint32_t i = index + 1; i < cx->diags.len; i++) {
    if (cx->diags.data[i].severity != SEV_NOTE) break;
    print_diag(cx, &cx->diags.data[i], to);
  }
}

void diag_print(Ctx *cx, FILE *to) {
  uint32_t n = 0, shown = 0;
  Order *order = calloc(cx->diags.len + 1u, sizeof *order);
  if (!order) internal_error("out of memory: the diagnostics' order");
  for (uint32_t i = 0; i < cx->diags.len; i++) {
    const Diag *d = &cx->diags.data[i];
    if (d->parent == i) order[n++] = (Order){d->span.file, d->span.lo, i};
  }
  qsort(order, n, sizeof *order, by_place);
  for (uint32_t i = 0; i < n; i++) {
    bool error = cx->diags.data[order[i].index].severity == SEV_ERROR;
    if (error && shown == MAX_DIAG_ERRORS) continue;
    shown += error;
    print_with_notes(cx, order[i].index, to);
  }
  free(order);
  if (cx->errors > shown)
    fprintf(to, "%u more error%s not shown\n", cx->errors - shown,
            cx->errors - shown == 1 ? "" : "s");
}

/* ---- the context -------------------------------------------------------- */

void ctx_free(Ctx *cx) {
  arena_reset(&cx->scratch);
  arena_reset(&cx->perm);
  *cx = (Ctx){0};
}

void internal_error(const char *fmt, ...) {
  va_list args;
  fputs("internal error: ", stderr);
  va_start(args, fmt);
  vfprintf(stderr, fmt, args);
  va_end(args);
  fputc('\n', stderr);
  exit(70);
}
