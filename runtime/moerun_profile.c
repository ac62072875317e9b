/* moerun_profile.c: where the time of a step goes, and how near that is to what
 * the machine can do.
 *
 * The limit of a step is the larger of two times, at rates that the machine
 * keeps up (peaks.c): that of its products, by dtype, each counted once however
 * often it is run, and that of the bytes that it must move, as a copy does.
 * It must move each slot that it reads and each that it changes once, and each
 * weight once more for the products of the forward pass, in their dtype. The
 * limit of a record is the same for its products and for the operands and
 * results that it reads and writes; a record whose data stays in a cache may be
 * faster. */
#include "moerun.h"

#include <stdlib.h>
#include <string.h>

enum { NAME_WIDTH = 40, LEAST_LINES = 10 };
static const double least_share = 1e-3; /* of a step: lines below it, beyond so
                                           many, are told together */

/* ---- what a step does ---------------------------------------------------- */

/* FLOPs that a step needs by dtype of the operands, loops included: of one that
 * counts its turns no turn is taken to be needed. */
static void count_flops(const MoertEntry *e, double out[MOERT_DTYPE_COUNT]) {
  double times[MOERT_MAX_LOOPS + 1] = {1};
  int depth = 0;
  for (int i = 0; i < e->n_records; i++) {
    const MoertRecord *r = &e->records[i];
    bool counted = r->n_args > r->n_outs;
    if (r->kind == MOERT_LOOP)
      times[depth + 1] = counted ? 0 : times[depth] * (double)r->count, depth++;
    else if (r->kind == MOERT_END)
      depth--;
    else if (r->needed > 0)
      out[r->dtype] += times[depth] * (double)r->needed;
  }
}

static const MoertSlot *find_slot(const MoertDesc *d, const char *path) {
  for (int i = 0; i < d->n_slots; i++)
    if (strcmp(d->slots[i].path, path) == 0) return &d->slots[i];
  return NULL;
}

/* Elements of the slots among the bindings, as bytes; `weights` counts only
 * parameters of two dims or more, `width` bytes an element. */
static double slot_bytes(const MoertDesc *d, const MoertBinding *all, int n,
                         bool weights, int64_t width) {
  double bytes = 0;
  for (int i = 0; i < n; i++) {
    if (all[i].kind != MOERT_BIND_SLOT) continue;
    const MoertSlot *s = find_slot(d, all[i].name);
    if (!s || (weights && (s->kind != MOERT_SLOT_PARAM || s->rank < 2)))
      continue;
    double size = (double)(weights ? width : run_dtype_bytes[s->dtype]);
    for (int k = 0; k < s->rank; k++)
      size *= (double)s->dims[k];
    bytes += size;
  }
  return bytes;
}

/* Bytes of the dtype in which a step multiplies most. */
static int64_t product_width(const double flops[MOERT_DTYPE_COUNT]) {
  int most = 0;
  for (int i = 1; i < MOERT_DTYPE_COUNT; i++)
    if (flops[i] > flops[most]) most = i;
  return flops[most] > 0 ? run_dtype_bytes[most] : 0;
}

static double step_bytes(const MoertDesc *d, const MoertEntry *e,
                         const double flops[MOERT_DTYPE_COUNT]) {
  return slot_bytes(d, e->ins, e->n_ins, false, 0) +
         slot_bytes(d, e->outs, e->n_outs, false, 0) +
         slot_bytes(d, e->ins, e->n_ins, true, product_width(flops));
}

MoertStatus run_peaks(const Run *r, const MoertEntry *e, RunPeaks *out) {
  double flops[MOERT_DTYPE_COUNT] = {0};
  *out = (RunPeaks){0};
  count_flops(e, flops);
  for (int i = 0; i < MOERT_DTYPE_COUNT; i++)
    if (flops[i] > 0) RT_TRY(moert_peak_flops(r->session, i, &out->flops[i]));
  return moert_peak_copy(r->session, &out->bytes);
}

static double larger(double a, double b) {
  return a > b ? a : b;
}

RunLimit run_limit(const Run *r, const MoertEntry *e, const RunPeaks *p) {
  double flops[MOERT_DTYPE_COUNT] = {0};
  RunLimit l = {0};
  count_flops(e, flops);
  for (int i = 0; i < MOERT_DTYPE_COUNT; i++)
    if (flops[i] > 0) l.products += flops[i] / p->flops[i];
  l.memory = step_bytes(r->desc, e, flops) / p->bytes;
  l.seconds = larger(l.products, l.memory);
  return l;
}

/* ---- lines --------------------------------------------------------------- */

/* All records of one source line. */
typedef struct Line {
  const char *where; /* "file:line:col" of the first of them */
  size_t len;        /* without the column */
  const char *name;  /* of the record that takes longest */
  double longest, seconds, flops, bytes, limit;
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

static void add_record(Line *l, const MoertRecord *rec, double seconds,
                       int64_t calls, const RunPeaks *p) {
  double n = (double)calls, flops = n * (double)rec->flops,
         bytes = n * (double)rec->bytes;
  if (!l->name || seconds > l->longest)
    l->name = rec->name, l->longest = seconds;
  l->seconds += seconds;
  l->calls += calls;
  l->flops += flops;
  l->bytes += bytes;
  l->limit += larger(rec->flops > 0 ? flops / p->flops[rec->dtype] : 0,
                     bytes / p->bytes);
}

static int by_seconds(const void *a, const void *b) {
  double x = ((const Line *)a)->seconds, y = ((const Line *)b)->seconds;
  return (x < y) - (x > y);
}

/* ---- the table ----------------------------------------------------------- */

static void print_peaks(const Run *r, const RunPeaks *p) {
  fprintf(stderr, "kept up by %s: ", moert_device(r->session));
  for (int i = 0; i < MOERT_DTYPE_COUNT; i++)
    if (p->flops[i] > 0)
      fprintf(stderr, "%s products %.0f GFLOP/s, ", run_dtype_name[i],
              p->flops[i] / 1e9);
  fprintf(stderr, "a copy %.1f GB/s\n", p->bytes / 1e9);
}

static void print_step(const RunLimit *l, double seconds) {
  fprintf(stderr,
          "a step: %.1f ms, limit %.1f ms (products %.1f, memory %.1f): "
          "%.0f %%\n\n",
          seconds * 1e3, l->seconds * 1e3, l->products * 1e3, l->memory * 1e3,
          100 * l->seconds / seconds);
}

/* A number in its column; an empty one for none. */
static void print_column(int width, int digits, double x) {
  if (x > 0)
    fprintf(stderr, " %*.*f", width, digits, x);
  else
    fprintf(stderr, " %*s", width, "");
}

static void print_line(const Line *l, double total, double n_steps) {
  size_t len = strlen(l->name);
  double s = l->seconds > 0 ? l->seconds : 1;
  fprintf(stderr, "%9.3f %5.1f %7.0f", l->seconds * 1e3 / n_steps,
          100 * l->seconds / total, (double)l->calls / n_steps);
  print_column(8, 1, l->flops / s / 1e9);
  print_column(6, 1, l->bytes / s / 1e9);
  print_column(7, 0, 100 * l->limit / s);
  fprintf(stderr, "  %.*s  ", l->len ? (int)l->len : 1,
          l->len ? l->where : "-");
  if (len > NAME_WIDTH) /* its end says what it is */
    fprintf(stderr, "..%s\n", l->name + len - (NAME_WIDTH - 2));
  else
    fprintf(stderr, "%s\n", l->name);
}

static void print_lines(const Line *lines, int n, double total,
                        double n_steps) {
  int shown = 0;
  double rest = 0;
  fprintf(stderr, "%9s %5s %7s %8s %6s %7s  %s\n", "ms a step", "%", "calls",
          "GFLOP/s", "GB/s", "% limit", "where, and the longest there");
  for (; shown < n && (shown < LEAST_LINES ||
                       lines[shown].seconds >= least_share * total);
       shown++)
    print_line(&lines[shown], total, n_steps);
  for (int i = shown; i < n; i++)
    rest += lines[i].seconds;
  if (shown < n)
    fprintf(stderr, "%9.3f %5.1f  in %d more lines\n", rest * 1e3 / n_steps,
            100 * rest / total, n - shown);
}

/* The exchanges that were waited for, the longest first: what starts and waits
 * took. */
static int print_waits(const MoertEntry *e, const double *seconds,
                       const int64_t *calls, double n_steps) {
  Line *lines = calloc((size_t)e->n_records + 1, sizeof *lines);
  int n = 0;
  if (!lines) return run_error("out of memory");
  for (int i = 0; i < e->n_records; i++) {
    const MoertRecord *rec = &e->records[i];
    if (rec->kind != MOERT_WAIT || calls[i] == 0) continue;
    lines[n++] = (Line){.where = rec->where, .len = line_length(rec->where),
                        .name = rec->name, .calls = calls[i],
                        .seconds = seconds[i] + seconds[rec->count]};
  }
  qsort(lines, (size_t)n, sizeof *lines, by_seconds);
  if (n) fprintf(stderr, "\n%9s %7s  %s\n", "ms waited", "calls", "exchange");
  for (int i = 0; i < n && i < LEAST_LINES; i++)
    fprintf(stderr, "%9.3f %7.0f  %.*s  %s\n",
            lines[i].seconds * 1e3 / n_steps, (double)lines[i].calls / n_steps,
            (int)lines[i].len, lines[i].where, lines[i].name);
  if (n > LEAST_LINES)
    fprintf(stderr, "%9s %7s  and %d that were waited for less\n", "", "",
            n - LEAST_LINES);
  free(lines);
  return 0;
}

/* Over all steps since the session began, those to warm up included. */
int run_print_profile(const Run *r, const MoertEntry *e, int64_t n_steps,
                      const RunPeaks *p) {
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
    if (calls[i] == 0) continue;
    Line *l = find_line(lines, &n, e->records[i].where);
    add_record(l, &e->records[i], seconds[i], calls[i], p);
    total += seconds[i];
  }
  qsort(lines, (size_t)n, sizeof *lines, by_seconds);
  RunLimit limit = run_limit(r, e, p);
  print_peaks(r, p);
  print_step(&limit, total / (double)n_steps);
  print_lines(lines, n, total, (double)n_steps);
  free(lines);
  return print_waits(e, seconds, calls, (double)n_steps);
}
