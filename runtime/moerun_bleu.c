/* moerun_bleu.c: BLEU of translations (Papineni et al. 2002), as sacrebleu
 * counts it by default: texts are cut by the rules of mteval-v13a, upper and
 * lower case differ, and an order without a match counts as half as many as the
 * last such one had (Chen and Cherry 2014, smoothing 3). */
#include "moerun.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ORDERS = 4 };

typedef struct Words {
  char *text;        /* cut at 0s */
  const char **at;   /* n of them */
  size_t n, room;
} Words;

typedef struct Counts {
  int64_t right[ORDERS], all[ORDERS]; /* n-grams of each length */
  int64_t words, reference;
} Counts;

/* ---- words, by mteval-v13a ----------------------------------------------- */

typedef struct Text {
  char *data;
  size_t n, room;
} Text;

static void put(Text *t, const char *s, size_t n) {
  while (t->n + n > t->room) {
    t->room = 2 * t->room + n + 64;
    t->data = realloc(t->data, t->room);
    if (!t->data) {
      run_error("out of memory");
      exit(EXIT_USER);
    }
  }
  memcpy(t->data + t->n, s, n);
  t->n += n;
}

static void put_char(Text *t, char c) {
  put(t, &c, 1);
}

/* Each occurrence of `from` as `to`. */
static void replace(Text *t, const char *from, const char *to) {
  Text out = {0};
  size_t len = strlen(from);
  for (size_t i = 0; i < t->n;) {
    bool here = i + len <= t->n && memcmp(t->data + i, from, len) == 0;
    if (here)
      put(&out, to, strlen(to));
    else
      put_char(&out, t->data[i]);
    i += here ? len : 1;
  }
  free(t->data);
  *t = out;
}

static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
static bool is_stop(char c) {
  return c == '.' || c == ',';
}
static bool is_dash(char c) {
  return c == '-';
}
static bool is_other(char c) {
  return !is_digit(c);
}
/* ASCII punctuation but for . , - and ' */
static bool is_mark(char c) {
  return c > ' ' && c < 127 && !isalnum((unsigned char)c) && !is_stop(c) &&
         !is_dash(c) && c != '\'';
}

static void space_marks(Text *t) {
  Text out = {0};
  for (size_t i = 0; i < t->n; i++) {
    bool mark = is_mark(t->data[i]);
    if (mark) put_char(&out, ' ');
    put_char(&out, t->data[i]);
    if (mark) put_char(&out, ' ');
  }
  free(t->data);
  *t = out;
}

/* Where `first` is followed by `second`, spaces around the one that is a mark.
 * Pairs do not overlap. */
static void space_pairs(Text *t, bool (*first)(char), bool (*second)(char),
                        bool second_is_mark) {
  Text out = {0};
  for (size_t i = 0; i < t->n; i++) {
    bool pair = i + 1 < t->n && first(t->data[i]) && second(t->data[i + 1]);
    if (pair && !second_is_mark) put_char(&out, ' ');
    put_char(&out, t->data[i]);
    if (!pair) continue;
    put_char(&out, ' ');
    put_char(&out, t->data[++i]);
    if (second_is_mark) put_char(&out, ' ');
  }
  free(t->data);
  *t = out;
}

/* Bytes of the white space at p, 0 where there is none: that of Unicode. */
static size_t blank(const char *p, size_t n) {
  static const char *const wide[] = {
      "\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\xa8",
      "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};
  unsigned char c = (unsigned char)p[0];
  if (c == ' ' || (c >= 9 && c <= 13) || (c >= 28 && c <= 31)) return 1;
  for (size_t i = 0; i < COUNT_OF(wide); i++) {
    size_t len = strlen(wide[i]);
    if (len <= n && memcmp(p, wide[i], len) == 0) return len;
  }
  bool quad = n >= 3 && memcmp(p, "\xe2\x80", 2) == 0 &&
              (unsigned char)p[2] >= 0x80 && (unsigned char)p[2] <= 0x8a;
  return quad ? 3 : 0;
}

static void add_word(Words *w, const char *at) {
  if (w->n == w->room) {
    w->room = 2 * w->room + 64;
    w->at = realloc(w->at, w->room * sizeof *w->at);
    if (!w->at) {
      run_error("out of memory");
      exit(EXIT_USER);
    }
  }
  w->at[w->n++] = at;
}

static void cut_blanks(Text *t, Words *out) {
  put_char(t, 0);
  *out = (Words){.text = t->data};
  bool inside = false;
  for (size_t i = 0; i + 1 < t->n;) {
    size_t len = blank(t->data + i, t->n - 1 - i);
    if (!len && !inside) add_word(out, t->data + i);
    if (len) memset(t->data + i, 0, len);
    inside = !len;
    i += len ? len : 1;
  }
}

static void words_of(const char *line, size_t n, Words *out) {
  static const char *const entities[][2] = {{"<skipped>", ""},
                                            {"&quot;", "\""},
                                            {"&amp;", "&"},
                                            {"&lt;", "<"},
                                            {"&gt;", ">"}};
  Text t = {0};
  put(&t, line, n);
  for (size_t i = 0; i < COUNT_OF(entities); i++)
    if (i == 0 || memchr(line, '&', n))
      replace(&t, entities[i][0], entities[i][1]);
  Text all = {0};
  put_char(&all, ' ');
  put(&all, t.data ? t.data : "", t.n);
  put_char(&all, ' ');
  free(t.data);
  space_marks(&all);
  space_pairs(&all, is_other, is_stop, true);
  space_pairs(&all, is_stop, is_other, false);
  space_pairs(&all, is_digit, is_dash, true);
  cut_blanks(&all, out);
}

static void words_free(Words *w) {
  free(w->text);
  free(w->at);
}

/* ---- counting ------------------------------------------------------------ */

static const Words *sorting; /* whose n-grams, and how long */
static int sorting_n;

static int compare(const Words *x, size_t i, const Words *y, size_t j, int n) {
  for (int k = 0; k < n; k++) {
    int order = strcmp(x->at[i + (size_t)k], y->at[j + (size_t)k]);
    if (order) return order;
  }
  return 0;
}

static int by_words(const void *x, const void *y) {
  return compare(sorting, *(const uint32_t *)x, sorting, *(const uint32_t *)y,
                 sorting_n);
}

/* Where each n-gram begins, in order. */
static uint32_t *sorted(const Words *w, int n, size_t *out_n) {
  *out_n = w->n >= (size_t)n ? w->n - (size_t)n + 1 : 0;
  uint32_t *at = calloc(*out_n + 1, sizeof *at);
  if (!at) {
    run_error("out of memory");
    exit(EXIT_USER);
  }
  for (size_t i = 0; i < *out_n; i++)
    at[i] = (uint32_t)i;
  sorting = w;
  sorting_n = n;
  qsort(at, *out_n, sizeof *at, by_words);
  return at;
}

/* N-grams of x that are in y, each at most as often as there. */
static int64_t common(const Words *x, const Words *y, int n) {
  size_t nx, ny, i = 0, j = 0;
  uint32_t *a = sorted(x, n, &nx), *b = sorted(y, n, &ny);
  int64_t count = 0;
  while (i < nx && j < ny) {
    int order = compare(x, a[i], y, b[j], n);
    count += order == 0;
    i += order <= 0;
    j += order >= 0;
  }
  free(a);
  free(b);
  return count;
}

static void count_line(const char *line, size_t n, const char *other,
                       size_t other_n, Counts *c) {
  Words x, y;
  words_of(line, n, &x);
  words_of(other, other_n, &y);
  c->words += (int64_t)x.n;
  c->reference += (int64_t)y.n;
  for (int k = 0; k < ORDERS; k++) {
    c->right[k] += common(&x, &y, k + 1);
    c->all[k] += x.n > (size_t)k ? (int64_t)x.n - k : 0;
  }
  words_free(&x);
  words_free(&y);
}

/* What an output shorter than its reference is multiplied by. */
static double brevity(const Counts *c) {
  if (!c->words) return 0;
  double ratio = (double)c->reference / (double)c->words;
  return ratio > 1 ? exp(1 - ratio) : 1;
}

/* In percent; the precision of each order too. */
static double bleu(const Counts *c, double *precision) {
  double sum = 0, smooth = 1;
  bool any = false;
  for (int k = 0; k < ORDERS; k++) {
    precision[k] = 0;
    any |= c->right[k] > 0;
  }
  if (!any) return 0;
  for (int k = 0; k < ORDERS && c->all[k]; k++) {
    if (!c->right[k]) smooth *= 2;
    precision[k] = c->right[k] ? 100.0 * (double)c->right[k] / (double)c->all[k]
                               : 100.0 / (smooth * (double)c->all[k]);
  }
  for (int k = 0; k < ORDERS; k++)
    sum += precision[k] > 0 ? log(precision[k]) : -9999999999;
  return brevity(c) * exp(sum / ORDERS);
}

/* ---- files --------------------------------------------------------------- */

static int count_files(FILE *f, FILE *g, const RunArgs *a, Counts *c) {
  char *x = NULL, *y = NULL;
  size_t room[2] = {0};
  int64_t line = 0;
  int status = 0;
  for (;; line++) {
    ssize_t n = getline(&x, &room[0], f), m = getline(&y, &room[1], g);
    if (ferror(f) || ferror(g)) {
      status = run_error("%s: cannot be read", ferror(f) ? a->model : a->other);
      break;
    }
    if (n < 0 && m < 0) break;
    if (n < 0 || m < 0) {
      status = run_error("%s ends after line %lld, and %s does not",
                         n < 0 ? a->model : a->other, (long long)line,
                         n < 0 ? a->other : a->model);
      break;
    }
    count_line(x, (size_t)n, y, (size_t)m, c);
  }
  if (!status && line == 0) status = run_error("%s is empty", a->model);
  free(x);
  free(y);
  return status;
}

static void print_bleu(const Counts *c) {
  double p[ORDERS], score = bleu(c, p);
  double ratio =
      c->reference ? (double)c->words / (double)c->reference : 0;
  printf("BLEU = %.2f %.1f/%.1f/%.1f/%.1f (BP = %.3f ratio = %.3f hyp_len = "
         "%lld ref_len = %lld)\n",
         score, p[0], p[1], p[2], p[3], brevity(c), ratio, (long long)c->words,
         (long long)c->reference);
}

int run_bleu(const RunArgs *a) {
  Counts c = {0};
  FILE *f = fopen(a->model, "r"), *g = fopen(a->other, "r");
  int status = 0;
  if (!f || !g)
    status = run_error("%s: cannot be read", f ? a->other : a->model);
  if (!status) status = count_files(f, g, a, &c);
  if (!status) print_bleu(&c);
  if (f) fclose(f);
  if (g) fclose(g);
  return status;
}
