/* moerun_progress.c: what training tells on the way: a table that grows on
 * stderr, one live line below it on a terminal, lines of JSON, and the loss as
 * a picture at the end. */
#include "moerun.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* ---- JSON ---------------------------------------------------------------- */

JsonLine json_start(FILE *to) {
  fputc('{', to);
  return (JsonLine){to, 0};
}

static void json_text(FILE *to, const char *text) {
  fputc('"', to);
  for (; *text; text++) {
    unsigned char c = (unsigned char)*text;
    if (c == '"' || c == '\\')
      fprintf(to, "\\%c", c);
    else if (c < ' ')
      fprintf(to, "\\u%04x", c);
    else
      fputc(c, to);
  }
  fputc('"', to);
}

static void json_key(JsonLine *j, const char *key) {
  if (j->n++) fputs(", ", j->to);
  json_text(j->to, key);
  fputs(": ", j->to);
}

/* Digits enough to read the same f32 back; counts in full; JSON has no NaN. */
void json_number(JsonLine *j, const char *key, double value) {
  json_key(j, key);
  if (!isfinite(value))
    fputs("null", j->to);
  else if (fabs(value) < 0x1p53 && floor(value) == value)
    fprintf(j->to, "%.0f", value);
  else
    fprintf(j->to, (double)(float)value == value ? "%.9g" : "%.12g", value);
}

void json_string(JsonLine *j, const char *key, const char *value) {
  json_key(j, key);
  json_text(j->to, value);
}

bool json_end(JsonLine *j) {
  fputs("}\n", j->to);
  return fflush(j->to) == 0;
}

/* ---- the table ----------------------------------------------------------- */

static void clear_live(const Progress *p) {
  if (p->live) fputs("\r\033[K", stderr);
}

static void print_header(Progress *p) {
  if (p->has_header) return;
  p->has_header = true;
  fprintf(stderr, "%9s %9s %8s %11s %9s %9s %10s %9s\n", "step", "loss", "bits",
          "perplexity", "lr", "grad_norm", "tokens/s", "left");
}

/* A column, empty for NaN. */
static void print_column(int width, const char *format, double x) {
  char text[64] = "";
  if (!isnan(x)) snprintf(text, sizeof text, format, x);
  fprintf(stderr, " %*s", width, text);
}

static void print_columns(const StepInfo *i) {
  fprintf(stderr, "%9s", run_count_text(i->step));
  print_column(9, "%.4f", i->loss);
  print_column(8, "%.4f", i->loss / log(2));
  print_column(11, i->loss < 10 ? "%.3f" : "%.4g", exp(i->loss));
  print_column(9, "%.2e", i->lr);
  print_column(9, "%#.3g", i->grad_norm);
  fprintf(stderr, " %10s %9s", run_count_text((int64_t)i->tokens_per_s),
          run_time_text(i->seconds_left));
}

void progress_line(Progress *p, const StepInfo *i) {
  if (p->quiet) return;
  clear_live(p);
  print_header(p);
  print_columns(i);
  fputc('\n', stderr);
}

void progress_live(Progress *p, const StepInfo *i) {
  double now = run_seconds();
  if (p->quiet || !p->live || now - p->last_live < 0.2) return;
  p->last_live = now;
  print_header(p);
  clear_live(p);
  print_columns(i);
  fflush(stderr);
}

void progress_note(Progress *p, const char *fmt, ...) {
  if (p->quiet) return;
  va_list ap;
  clear_live(p);
  va_start(ap, fmt);
  vfprintf(stderr, fmt, ap);
  va_end(ap);
  fputc('\n', stderr);
}

/* ---- the curve ----------------------------------------------------------- */

enum { CURVE_WIDTH = 64, CURVE_HEIGHT = 12 };

void progress_add(Progress *p, int64_t step, double loss) {
  if (p->n == p->cap) {
    int64_t cap = p->cap ? 2 * p->cap : 1024;
    float *more = realloc(p->losses, (size_t)cap * sizeof *more);
    if (!more) return; /* the picture misses a point */
    p->losses = more;
    p->cap = cap;
  }
  if (p->n == 0) p->first_step = step;
  p->losses[p->n++] = (float)loss;
}

void progress_add_valid(Progress *p, int64_t step, double loss) {
  if (p->n_valids == p->cap_valids) {
    int cap = p->cap_valids ? 2 * p->cap_valids : 64;
    struct ProgressValid *more = realloc(p->valids, (size_t)cap * sizeof *more);
    if (!more) return;
    p->valids = more;
    p->cap_valids = cap;
  }
  p->valids[p->n_valids++] = (struct ProgressValid){step, loss};
}

/* Mean loss of the steps that fall into each column. Returns how many columns
 * there are. */
static int columns(const Progress *p, double *out) {
  int width = p->n < CURVE_WIDTH ? (int)p->n : CURVE_WIDTH;
  for (int c = 0; c < width; c++) {
    int64_t lo = p->n * c / width, hi = p->n * (c + 1) / width;
    out[c] = 0;
    for (int64_t i = lo; i < hi; i++)
      out[c] += (double)p->losses[i] / (double)(hi - lo);
  }
  return width;
}

static int row_of(double x, double lo, double hi) {
  double y = (hi - x) / (hi - lo) * (CURVE_HEIGHT - 1);
  int row = (int)floor(y + 0.5);
  return row < 0 ? 0 : row >= CURVE_HEIGHT ? CURVE_HEIGHT - 1 : row;
}

static void draw(const Progress *p, int width, const double *mean, double lo,
                 double hi) {
  char grid[CURVE_HEIGHT][CURVE_WIDTH + 1];
  for (int r = 0; r < CURVE_HEIGHT; r++) {
    memset(grid[r], ' ', CURVE_WIDTH);
    grid[r][width] = 0;
  }
  for (int c = 0; c < width; c++)
    grid[row_of(mean[c], lo, hi)][c] = '*';
  for (int i = 0; i < p->n_valids; i++) {
    int64_t at = p->valids[i].step - p->first_step;
    int c = (int)(at * width / p->n);
    if (at >= 0 && c < width) grid[row_of(p->valids[i].loss, lo, hi)][c] = 'o';
  }
  for (int r = 0; r < CURVE_HEIGHT; r++)
    fprintf(stderr, "%8.3f |%s\n",
            hi - (hi - lo) * r / (double)(CURVE_HEIGHT - 1), grid[r]);
}

void progress_curve(const Progress *p) {
  double mean[CURVE_WIDTH], lo = INFINITY, hi = -INFINITY;
  int width = columns(p, mean);
  if (p->quiet || width < 2) return;
  for (int c = 0; c < width; c++) {
    lo = fmin(lo, mean[c]);
    hi = fmax(hi, mean[c]);
  }
  for (int i = 0; i < p->n_valids; i++) {
    lo = fmin(lo, p->valids[i].loss);
    hi = fmax(hi, p->valids[i].loss);
  }
  if (!(hi > lo)) return;
  fprintf(stderr, "\n    loss   (* training%s)\n",
          p->n_valids ? ", o validation" : "");
  draw(p, width, mean, lo, hi);
  fprintf(stderr, "         +");
  for (int c = 0; c < width; c++)
    fputc('-', stderr);
  fprintf(stderr, "\n          step %-*s%s\n", width - 5 > 12 ? width - 12 : 4,
          run_count_text(p->first_step),
          run_count_text(p->first_step + p->n - 1));
}

void progress_free(Progress *p) {
  free(p->losses);
  free(p->valids);
}
