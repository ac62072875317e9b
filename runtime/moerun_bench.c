/* moerun_bench.c: how fast a model trains. */
#include "moerun.h"

enum { WARM_UP = 3, DEFAULT_STEPS = 20 };

static MoertStatus steps(Run *r, MoertText *data, int64_t n) {
  MoertTextEvent event;
  MoertStatus st = MOERT_OK;
  for (int64_t i = 0; i < n && st == MOERT_OK; i++)
    st = run_step_ahead(r, data, &event);
  return st;
}

/* ---- the measurement ----------------------------------------------------- */

/* What was measured. */
typedef struct Bench {
  int64_t steps, tokens; /* tokens of one step */
  double seconds;
  int64_t peak_memory;
  RunMemory memory;
  RunExchanges exchanges; /* of this rank */
  bool has_peaks;
  RunPeaks peaks;
} Bench;

static void json_roofline(JsonLine *j, const Run *r, const MoertEntry *e,
                          const Bench *b) {
  RunLimit limit = run_limit(r, e, &b->peaks);
  json_number(j, "limit_ms", limit.seconds * 1e3);
  json_number(j, "limit_share",
              limit.seconds * (double)b->steps / b->seconds);
  json_number(j, "products_ms", limit.products * 1e3);
  json_number(j, "memory_ms", limit.memory * 1e3);
  for (int i = 0; i < MOERT_DTYPE_COUNT; i++) {
    char key[32];
    snprintf(key, sizeof key, "peak_gflops_%s", run_dtype_name[i]);
    if (b->peaks.flops[i] > 0) json_number(j, key, b->peaks.flops[i] / 1e9);
  }
  json_number(j, "peak_gbytes_per_s", b->peaks.bytes / 1e9);
}

static void print_json(const Run *r, const MoertEntry *e, const Bench *b) {
  double n = (double)b->steps;
  JsonLine j = json_start(stdout);
  json_number(&j, "tokens_per_s", (double)b->tokens * n / b->seconds);
  json_number(&j, "step_ms", b->seconds * 1e3 / n);
  json_number(&j, "gflops", (double)e->flops * n / b->seconds / 1e9);
  json_number(&j, "peak_bytes_planned", (double)b->memory.planned);
  json_number(&j, "peak_bytes_measured", (double)b->memory.measured);
  json_number(&j, "peak_bytes_growth",
              (double)(b->peak_memory - r->peak_before));
  if (ranks_count(r->args) > 1) {
    json_number(&j, "ranks", ranks_count(r->args));
    run_exchanges_json(&b->exchanges, n, &j);
  }
  json_string(&j, "device", moert_device(r->session));
  json_number(&j, "threads", moert_threads(r->session));
  json_number(&j, "steps", n);
  if (b->has_peaks) json_roofline(&j, r, e, b);
  json_end(&j);
}

static MoertStatus measure(Run *r, const MoertEntry *e, Bench *b) {
  MoertText *data;
  RT_TRY(run_open_text(r, e->name, r->args->data, r->args->target,
                       MOERT_TEXT_TRAIN, &data));
  b->tokens = moert_text_batch_tokens(data);
  MoertStatus st = steps(r, data, WARM_UP);
  RunExchanges before = run_exchanges(r, NULL);
  double start = run_seconds();
  if (st == MOERT_OK) st = steps(r, data, b->steps);
  b->seconds = run_seconds() - start;
  b->exchanges = run_exchanges(r, &before);
  b->peak_memory = run_peak_bytes(); /* before the peaks take theirs */
  if (st == MOERT_OK) st = run_memory(r, &b->memory);
  moert_text_close(data);
  if (st == MOERT_OK && b->has_peaks) st = run_peaks(r, e, &b->peaks);
  return st;
}

static int bench(Run *r, const MoertEntry *e) {
  const RunArgs *a = r->args;
  Bench b = {.steps = a->steps > 0 ? a->steps : DEFAULT_STEPS,
             .has_peaks = a->roofline || a->profile};
  MoertStatus st = measure(r, e, &b);
  if (st != MOERT_OK) return run_failed(st);
  print_json(r, e, &b);
  if (!a->profile || ranks_own(a)) return 0;
  if (ranks_count(a) > 1)
    fprintf(stderr, "rank 0: %s\n", run_exchanges_text(&b.exchanges, b.steps));
  return run_print_profile(r, e, b.steps + WARM_UP, &b.peaks);
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
