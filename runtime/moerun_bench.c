/* moerun_bench.c: how fast a model trains, and where the time goes. */
#include "rt.h"

#include <stdlib.h>
#include <string.h>

enum { WARM_UP = 3, DEFAULT_STEPS = 20, PROFILE_LINES = 40 };

static MoertStatus steps(Run *r, const char *entry, MoertText *data,
                         int64_t n) {
  MoertTextEvent event;
  MoertStatus st = MOERT_OK;
  for (int64_t i = 0; i < n && st == MOERT_OK; i++) {
    st = moert_text_next(data, &event);
    if (st == MOERT_OK) st = moert_step(r->session, entry);
  }
  return st;
}

/* ---- the profile --------------------------------------------------------- */

/* All records of one source line. */
typedef struct Line {
  const char *where; /* "file:line:col" of the first of them */
  size_t len;        /* without the column */
  const char *name;  /* of the record that takes longest */
  double longest, seconds, flops;
  int64_t calls;
} Line;

static size_t line_length(const char *where) {
  const char *colon = strrchr(where, ':');
  return colon ? (size_t)(colon - where) : strlen(where);
}

static Line *find_line(Line *lines, int *n, const char *where) {
  size_t len = line_length(where);
  for (int i = 0; i < *n; i++)
    if (lines[i].len == len && strncmp(lines[i].where, where, len) == 0)
      return &lines[i];
  lines[*n] = (Line){.where = where, .len = len};
  return &lines[(*n)++];
}

static int by_seconds(const void *a, const void *b) {
  double x = ((const Line *)a)->seconds, y = ((const Line *)b)->seconds;
  return (x < y) - (x > y);
}

static void print_lines(const Line *lines, int n, double total,
                        int64_t n_steps) {
  fprintf(stderr, "%10s %6s %8s %9s  %s\n", "ms a step", "%", "calls",
          "GFLOP/s", "where, and the longest there");
  for (int i = 0; i < n && i < PROFILE_LINES; i++) {
    const Line *l = &lines[i];
    fprintf(stderr, "%10.3f %6.1f %8.1f %9.1f  %.*s  %s\n",
            l->seconds * 1e3 / (double)n_steps, 100 * l->seconds / total,
            (double)l->calls / (double)n_steps,
            l->seconds > 0 ? l->flops / l->seconds / 1e9 : 0,
            l->len ? (int)l->len : 1, l->len ? l->where : "-", l->name);
  }
  if (n > PROFILE_LINES)
    fprintf(stderr, "%10s and %d lines more\n", "", n - PROFILE_LINES);
}

/* Over all steps since the session began, those to warm up included. */
static int print_profile(const Run *r, const MoertEntry *e, int64_t n_steps) {
  const double *seconds;
  const int64_t *calls;
  MoertStatus st =
      moert_profile(r->session, (int)(e - r->desc->entries), &seconds, &calls);
  if (st != MOERT_OK) return run_failed(st);
  Line *lines = calloc((size_t)e->n_records + 1, sizeof *lines);
  if (!lines) return run_error("out of memory");
  int n = 0;
  double total = 0;
  for (int i = 0; i < e->n_records; i++) {
    const MoertRecord *rec = &e->records[i];
    if (calls[i] == 0) continue;
    Line *l = find_line(lines, &n, rec->where);
    if (!l->name || seconds[i] > l->longest)
      l->name = rec->name, l->longest = seconds[i];
    l->seconds += seconds[i];
    l->calls += calls[i];
    l->flops += (double)rec->flops * (double)calls[i];
    total += seconds[i];
  }
  qsort(lines, (size_t)n, sizeof *lines, by_seconds);
  print_lines(lines, n, total, n_steps);
  free(lines);
  return 0;
}

/* ---- the measurement ----------------------------------------------------- */

static void print_json(const Run *r, const MoertEntry *e, int64_t n,
                       double seconds, int64_t tokens) {
  int64_t peak = run_peak_bytes();
  JsonLine j = json_start(stdout);
  json_number(&j, "tokens_per_s", (double)tokens * (double)n / seconds);
  json_number(&j, "step_ms", seconds * 1e3 / (double)n);
  json_number(&j, "gflops", (double)e->flops * (double)n / seconds / 1e9);
  json_number(&j, "peak_bytes_planned",
              (double)moert_planned_bytes(r->session));
  json_number(&j, "peak_bytes_measured", (double)(peak - r->resident_before));
  json_number(&j, "peak_bytes_growth", (double)(peak - r->peak_before));
  json_number(&j, "threads", moert_threads(r->session));
  json_number(&j, "steps", (double)n);
  json_end(&j);
}

static int bench(Run *r, const MoertEntry *e) {
  int64_t n = r->args->steps > 0 ? r->args->steps : DEFAULT_STEPS;
  MoertText *data;
  MoertStatus st = moert_text_open(r->session, e->name, r->args->data,
                                   MOERT_TEXT_TRAIN, &data);
  if (st == MOERT_OK) st = steps(r, e->name, data, WARM_UP);
  double start = run_seconds();
  if (st == MOERT_OK) st = steps(r, e->name, data, n);
  double seconds = run_seconds() - start;
  int status = st == MOERT_OK ? 0 : run_failed(st);
  if (!status) print_json(r, e, n, seconds, moert_text_batch_tokens(data));
  if (!status && r->args->profile) status = print_profile(r, e, n + WARM_UP);
  moert_text_close(data);
  return status;
}

int run_bench(const RunArgs *a) {
  Run r;
  int status = run_open(a, NULL, &r);
  const MoertEntry *e =
      status ? NULL : run_entry(&r, a->entry ? a->entry : "train");
  if (!status) status = e ? bench(&r, e) : EXIT_USER;
  run_close(&r);
  return status;
}
