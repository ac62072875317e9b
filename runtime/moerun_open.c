/* moerun_open.c: opening a model with its checkpoint, messages, and numbers as
 * people read them. */
#include "moerun.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- messages ------------------------------------------------------------ */

static MoertComm *speaking_to;
static int speaking_as;

void run_speak_as(MoertComm *comm, int rank) {
  speaking_to = comm;
  speaking_as = rank;
}

/* "rank 2: ...": what all ranks say alike names the one it is about. */
static bool names_rank(const char *text) {
  int end = 0;
  for (const char *p = text; (p = strstr(p, "rank ")); p++)
    if (sscanf(p, "rank %*d:%n", &end) == 0 && end > 0) return true;
  return false;
}

int run_error(const char *fmt, ...) {
  char text[2048];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  if (speaking_to && !moert_comm_fail(speaking_to, text)) return EXIT_USER;
  if (speaking_as && !names_rank(text))
    fprintf(stderr, "moerun: rank %d: %s\n", speaking_as, text);
  else
    fprintf(stderr, "moerun: %s\n", text);
  return EXIT_USER;
}

int run_failed(MoertStatus st) {
  run_error("%s", moert_error());
  return st == MOERT_INTERNAL ? EXIT_INTERNAL : EXIT_USER;
}

/* ---- opening ------------------------------------------------------------- */

/* "DIR:PATTERN", "DIR": parameters only. */
static MoertStatus load_parameters(Run *r, const char *from) {
  char *dir = strdup(from);
  if (!dir) return MOERT_NO_MEMORY;
  bool is_path = access(dir, F_OK) == 0; /* as it is, colons included */
  char *colon = is_path ? NULL : strrchr(dir, ':');
  if (colon) *colon = 0;
  MoertStatus st = moert_load(r->session, dir, colon ? colon + 1 : "*", NULL);
  free(dir);
  return st;
}

static MoertStatus resume(Run *r, const char *from) {
  const RunArgs *a = r->args;
  bool is_auto = strcmp(from, "auto") == 0;
  MoertStatus st =
      moert_load(r->session, is_auto ? a->ckpt : from, NULL, &r->cursor);
  if (is_auto && st == MOERT_NOT_FOUND) return MOERT_OK; /* from the start */
  r->resumed = st == MOERT_OK;
  return st;
}

static MoertStatus load(Run *r, const char *from) {
  const RunArgs *a = r->args;
  if (a->resume) return resume(r, a->resume);
  if (a->load) return load_parameters(r, a->load);
  return from ? moert_load(r->session, from, "*", NULL) : MOERT_OK;
}

static int set_options(Run *r) {
  for (int i = 0; i < r->args->n_sets; i++) {
    const char *text = r->args->sets[i], *equals = strchr(text, '=');
    char name[128], *end;
    snprintf(name, sizeof name, "%.*s", (int)(equals - text), text);
    double value = strtod(equals + 1, &end);
    if (end == equals + 1 || *end)
      return run_error("--set %s: '%s' is not a number", text, equals + 1);
    MoertStatus st = moert_set_option(r->session, name, value);
    if (st != MOERT_OK) return run_failed(st);
  }
  return 0;
}

int run_find_tokens(const char *name, MoertTokens *out) {
  for (int i = 0; moert_tokens_name(i); i++)
    if (strcmp(moert_tokens_name(i), name) == 0) {
      *out = (MoertTokens)i;
      return 0;
    }
  return run_error("--format: '%s' is not bytes, words, u16 or u32", name);
}

/* Words by default where there is a vocabulary. */
static int set_tokens(Run *r) {
  const RunArgs *a = r->args;
  r->tokens = a->vocab ? MOERT_WORDS : MOERT_BYTES;
  if (a->format && run_find_tokens(a->format, &r->tokens)) return EXIT_USER;
  if (r->tokens == MOERT_WORDS && !a->vocab)
    return run_error("--format words takes --vocab FILE");
  if (r->tokens == MOERT_BYTES && a->vocab)
    return run_error("--format bytes takes no --vocab");
  MoertStatus st = MOERT_OK;
  if (a->vocab) st = moert_vocab_open(a->vocab, &r->vocab);
  if (st == MOERT_OK) st = moert_set_tokens(r->session, r->tokens, r->vocab);
  return st == MOERT_OK ? 0 : run_failed(st);
}

int run_open(const RunArgs *a, const char *from, Run *out) {
  *out = (Run){.args = a};
  MoertStatus st = moert_open(a->model, &out->model);
  if (st != MOERT_OK) return run_failed(st);
  MoertSessionOptions o = {.device = a->device[0],
                           .threads = (int)a->threads,
                           .seed = a->seed < 0 ? 0 : (uint32_t)a->seed,
                           .poison = a->poison,
                           .profile = a->profile,
                           .comm = a->comm,
                           .neighbours = a->neighbours};
  out->resident_before = run_resident_bytes();
  st = moert_session(out->model, &o, &out->session);
  if (st != MOERT_OK) return run_failed(st);
  out->desc = moert_session_desc(out->session);
  out->peak_before = run_peak_bytes();
  int status = set_tokens(out);
  if (status) return status;
  st = load(out, from);
  if (st != MOERT_OK) return run_failed(st);
  return set_options(out);
}

void run_close(Run *r) {
  moert_session_free(r->session);
  moert_vocab_close(r->vocab);
  moert_close(r->model);
}

RunExchanges run_exchanges(const Run *r, const RunExchanges *since) {
  RunExchanges x = {0};
  if (!r->args->comm) return x;
  moert_comm_seconds(r->args->comm, &x.busy, &x.waited);
  x.bytes = moert_comm_bytes(r->args->comm);
  x.hidden = r->desc->device == MOERT_CUDA;
  x.graphs = moert_gpu_graphs(r->session);
  x.counts = moert_gpu_counts(r->session);
  if (!since) return x;
  x.busy -= since->busy;
  x.waited -= since->waited;
  x.bytes -= since->bytes;
  return x;
}

static const MoertEntry *find_entry(const Run *r, const char *name) {
  const MoertDesc *d = r->desc;
  size_t len = strlen(name);
  for (int i = 0; i < d->n_entries; i++)
    if (strcmp(d->entries[i].name, name) == 0) return &d->entries[i];
  for (int i = 0; i < d->n_entries; i++)
    if (strncmp(d->entries[i].name, name, len) == 0 &&
        d->entries[i].name[len] == '.')
      return &d->entries[i];
  return NULL;
}

const MoertEntry *run_entry(const Run *r, const char *name) {
  const MoertDesc *d = r->desc;
  const MoertEntry *e = find_entry(r, name);
  if (e) return e;
  const char *near =
      rt_did_you_mean(name, &d->entries[0].name, (size_t)d->n_entries,
                      sizeof d->entries[0]);
  run_error("the model has no entry '%s'%s", name,
            near[0] ? near : "; 'moerun info' lists them: choose by --entry");
  return NULL;
}

MoertStatus run_open_text(const Run *r, const char *entry, const char *data,
                          const char *target, MoertTextMode mode,
                          MoertText **out) {
  if (target)
    return moert_pairs_open(r->session, entry, data, target, mode, out);
  const MoertEntry *e = find_entry(r, entry);
  return moert_text_open(r->session, e ? e->name : entry, data, mode, out);
}

MoertStatus run_step(const Run *r, MoertText *text, MoertTextEvent *out_event) {
  MoertStatus st = moert_text_next(text, out_event);
  if (st != MOERT_OK || *out_event == MOERT_TEXT_END) return st;
  return moert_step(r->session, moert_text_entry(text));
}

MoertStatus run_step_ahead(const Run *r, MoertText *text,
                           MoertTextEvent *out_event) {
  MoertStatus st = moert_text_next(text, out_event);
  if (st != MOERT_OK || *out_event == MOERT_TEXT_END) return st;
  st = moert_start(r->session, moert_text_entry(text));
  if (st != MOERT_OK) return st;
  MoertStatus ahead = moert_text_ahead(text);
  st = moert_finish(r->session);
  return st == MOERT_OK ? ahead : st;
}

int64_t run_words(const Run *r, int64_t n) {
  int64_t size = r->vocab ? moert_vocab_size(r->vocab) : n;
  return size < n ? size : n;
}

RunToken run_token(const Run *r, int64_t token) {
  RunToken t = {.joined = r->tokens == MOERT_BYTES && !r->vocab};
  int joined = 0;
  if (r->vocab && token >= 0 && token < moert_vocab_size(r->vocab)) {
    t.text = moert_vocab_word(r->vocab, token, &t.n, &joined);
    t.joined = joined != 0;
  } else if (t.joined) {
    t.own[0] = (char)token;
    t.n = 1;
  } else {
    t.n = (size_t)snprintf(t.own, sizeof t.own, "%lld", (long long)token);
  }
  return t;
}

const char *run_token_text(const RunToken *t) {
  return t->text ? t->text : t->own;
}

void run_put_token(FILE *f, const Run *r, int64_t token, bool *line_start) {
  RunToken t = run_token(r, token);
  const char *text = run_token_text(&t);
  bool ends = t.n == 1 && text[0] == '\n';
  if (!t.joined && !*line_start && !ends) fputc(' ', f);
  fwrite(text, 1, t.n, f);
  *line_start = ends;
}

/* ---- the process --------------------------------------------------------- */

static int64_t proc_status(const char *field) {
  FILE *f = fopen("/proc/self/status", "r");
  if (!f) return 0;
  char line[256];
  long long kib = 0;
  size_t len = strlen(field);
  while (fgets(line, sizeof line, f))
    if (strncmp(line, field, len) == 0 && line[len] == ':')
      sscanf(line + len + 1, "%lld", &kib);
  fclose(f);
  return (int64_t)kib * 1024;
}

int64_t run_resident_bytes(void) {
  return proc_status("VmRSS");
}
int64_t run_peak_bytes(void) {
  return proc_status("VmHWM");
}

double run_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- of all ranks -------------------------------------------------------- */

MoertStatus run_memory(const Run *r, RunMemory *out) {
  int n = ranks_count(r->args);
  int64_t gpu = moert_gpu_bytes(r->session);
  *out = (RunMemory){moert_planned_bytes(r->session),
                     gpu ? gpu : run_peak_bytes() - r->resident_before};
  if (n == 1) return MOERT_OK;
  RunMemory *all = calloc((size_t)n, sizeof *all);
  if (!all) return MOERT_NO_MEMORY;
  MoertStatus st = moert_comm_all(r->args->comm, out, sizeof *out, all);
  for (int i = 0; i < n && st == MOERT_OK; i++) {
    if (all[i].planned > out->planned) out->planned = all[i].planned;
    if (all[i].measured > out->measured) out->measured = all[i].measured;
  }
  free(all);
  return st;
}

/* ---- numbers ------------------------------------------------------------- */

double run_uniform(uint64_t *state) {
  uint64_t x = *state += 0x9E3779B97F4A7C15;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
  x = (x ^ x >> 27) * 0x94D049BB133111EB;
  return (double)((x ^ x >> 31) >> 11) * 0x1p-53;
}

/* ---- numbers as text ----------------------------------------------------- */

const char *const run_dtype_name[MOERT_DTYPE_COUNT] = {
#define DT(name, ...) [MOERT_##name] = #name,
#include "dtypes.def"
#undef DT
};
const int64_t run_dtype_bytes[MOERT_DTYPE_COUNT] = {
#define DT(name, bytes, ...) [MOERT_##name] = bytes,
#include "dtypes.def"
#undef DT
};

enum { TEXT_BYTES = 40 };

/* One of four buffers, in turn. */
static char *text_buffer(void) {
  static _Thread_local char buffers[4][TEXT_BYTES];
  static _Thread_local unsigned next;
  return buffers[next++ % 4];
}

const char *run_bytes_text(int64_t bytes) {
  static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
  char *text = text_buffer();
  double x = (double)bytes;
  size_t u = 0;
  while (x >= 999.95 && u + 1 < COUNT_OF(units))
    x /= 1000, u++;
  snprintf(text, TEXT_BYTES, u ? "%.1f %s" : "%.0f %s", x, units[u]);
  return text;
}

/* How a step is put on a GPU, where exchanges are a part of it. */
static void graphs_text(const RunExchanges *x, char *text, size_t bytes) {
  int n = x->graphs == 0
              ? snprintf(text, bytes, "operations launched one by one")
              : snprintf(text, bytes, "%d graph%s a step", x->graphs,
                         x->graphs > 1 ? "s" : "");
  if (x->counts && n < (int)bytes)
    snprintf(text + n, bytes - (size_t)n,
             ", %d time%s the host is told how many rows go to others",
             x->counts, x->counts > 1 ? "s" : "");
}

const char *run_exchanges_text(const RunExchanges *x, int64_t steps) {
  static _Thread_local char text[200];
  char how[120];
  double n = steps > 0 ? (double)steps : 1;
  if (x->hidden)
    graphs_text(x, how, sizeof how);
  else
    snprintf(how, sizeof how,
             "%.1f ms a step in exchanges, %.1f ms of it waited for",
             x->busy * 1e3 / n, x->waited * 1e3 / n);
  snprintf(text, sizeof text, "%s; %s a step come in", how,
           run_bytes_text((int64_t)((double)x->bytes / n)));
  return text;
}

void run_exchanges_json(const RunExchanges *x, double steps, JsonLine *j) {
  if (x->hidden) {
    json_number(j, "graphs", x->graphs);
    json_number(j, "row_counts", x->counts);
  } else {
    json_number(j, "exchange_ms", x->busy * 1e3 / steps);
    json_number(j, "exposed_ms", x->waited * 1e3 / steps);
  }
  json_number(j, "exchange_bytes", (double)x->bytes / steps);
}

const char *run_count_text(int64_t n) {
  char digits[24], *text = text_buffer(), *to = text;
  int len = snprintf(digits, sizeof digits, "%lld", (long long)n);
  for (int i = 0; i < len; i++) {
    if (i && (len - i) % 3 == 0 && digits[i - 1] != '-') *to++ = ',';
    *to++ = digits[i];
  }
  *to = 0;
  return text;
}

const char *run_time_text(double seconds) {
  char *text = text_buffer();
  if (!isfinite(seconds) || seconds < 0) seconds = 0;
  long long s = (long long)(seconds + 0.5);
  if (s < 3600)
    snprintf(text, TEXT_BYTES, "%lld:%02lld", s / 60, s % 60);
  else
    snprintf(text, TEXT_BYTES, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60,
             s % 60);
  return text;
}
