/* moerun_train.c: training, with progress, logs, evaluation and checkpoints.
 *
 * A signal to stop ends the step that runs, saves, and ends the program. */
#include "moerun.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t stop_signal;

static void on_signal(int number) {
  stop_signal = number;
}

/* The second signal of a kind ends the program at once. */
static void catch_signals(void) {
  struct sigaction a = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
  sigaction(SIGINT, &a, NULL);
  sigaction(SIGTERM, &a, NULL);
}

typedef struct Train {
  Run run;
  const RunArgs *args;
  const char *entry_name;  /* as asked for */
  const MoertEntry *entry; /* of the last step */
  MoertText *data, *valid;
  FILE *log;
  Progress progress;
  int64_t first_step, steps, print_every;
  double started, stepping; /* when; seconds in steps alone */
  RunExchanges exchanges;   /* in steps alone */
  double sum;               /* of losses since the last line */
  int64_t summed;
  double last_loss, valid_loss, valid_tokens;
  int64_t valid_step; /* of valid_loss, -1 for none */
  int64_t saved_step; /* of the newest checkpoint, -1 for none */
  double rounds, most_rounds; /* that rows went to experts in: since the last
                                 line of the table, and before */
} Train;

/* ---- reports ------------------------------------------------------------- */

static bool is_scalar_report(const MoertBinding *b) {
  return b->kind == MOERT_BIND_REPORT && b->rank == 0;
}

static const char *last_part(const char *name) {
  const char *slash = strrchr(name, '/');
  return slash ? slash + 1 : name;
}

/* Whether one scalar report alone ends in this part. */
static bool is_only_one(const MoertEntry *e, const char *part) {
  int n = 0;
  for (int i = 0; i < e->n_outs; i++)
    n += is_scalar_report(&e->outs[i]) &&
         strcmp(last_part(e->outs[i].name), part) == 0;
  return n == 1;
}

static double report(const Train *t, const char *name) {
  double x;
  for (int i = 0; i < t->entry->n_outs; i++)
    if (is_scalar_report(&t->entry->outs[i]) &&
        strcmp(t->entry->outs[i].name, name) == 0 &&
        moert_report(t->run.session, t->entry->name, name, &x) == MOERT_OK)
      return x;
  return NAN;
}

/* As the model reports it, or the option of that name. */
static double learning_rate(const Train *t) {
  double x = report(t, "lr");
  if (!isnan(x)) return x;
  return moert_get_option(t->run.session, "lr", &x) == MOERT_OK ? x : NAN;
}

/* ---- the log ------------------------------------------------------------- */

/* A resumed run drops the lines of steps that it will do again. */
static int cut_log(const char *path, int64_t steps_done) {
  FILE *f = fopen(path, "r+");
  if (!f && errno == ENOENT) return 0;
  if (!f) return run_error("%s: %s", path, strerror(errno));
  char *line = NULL;
  size_t cap = 0;
  long keep = 0;
  long long step;
  while (getline(&line, &cap, f) > 0 && strchr(line, '\n') &&
         sscanf(line, "{\"step\": %lld,", &step) == 1 && step <= steps_done)
    keep = ftell(f);
  free(line);
  int failed = ftruncate(fileno(f), keep);
  fclose(f);
  return failed ? run_error("%s: %s", path, strerror(errno)) : 0;
}

static int open_log(Train *t) {
  const char *path = t->args->log;
  if (!path) return 0;
  if (t->run.resumed) {
    int status = cut_log(path, t->first_step);
    if (status) return status;
  }
  t->log = fopen(path, t->run.resumed ? "a" : "w");
  return t->log ? 0 : run_error("%s: %s", path, strerror(errno));
}

/* What has a place of its own in the log. */
static bool is_common(const char *name) {
  static const char *const names[] = {"loss", "lr", "grad_norm", "ok"};
  for (size_t i = 0; i < COUNT_OF(names); i++)
    if (strcmp(name, names[i]) == 0) return true;
  return false;
}

static int write_log(const Train *t, const StepInfo *i) {
  if (!t->log) return 0;
  JsonLine j = json_start(t->log);
  json_number(&j, "step", (double)i->step);
  json_number(&j, "loss", i->loss);
  json_number(&j, "lr", i->lr);
  json_number(&j, "grad_norm", i->grad_norm);
  json_number(&j, "tokens_per_s", i->tokens_per_s);
  for (int k = 0; k < t->entry->n_outs; k++) {
    const MoertBinding *b = &t->entry->outs[k];
    if (!is_scalar_report(b) || is_common(b->name)) continue;
    double x = report(t, b->name);
    const char *part = last_part(b->name);
    json_number(&j, b->name, x);
    if (part != b->name && !is_common(part) && is_only_one(t->entry, part))
      json_number(&j, part, x);
  }
  if (t->valid_step == i->step) {
    json_number(&j, "valid_loss", t->valid_loss);
    json_number(&j, "valid_perplexity", exp(t->valid_loss));
    json_number(&j, "valid_tokens", t->valid_tokens);
  }
  return json_end(&j) ? 0 : run_error("%s: %s", t->args->log, strerror(errno));
}

/* ---- evaluating and saving ----------------------------------------------- */

static int validate(Train *t, int64_t step) {
  if (!t->valid || t->valid_step == step) return 0;
  /* Its inputs may be those that the next batch was filled into ahead. */
  moert_text_seek(t->data, moert_text_cursor(t->data));
  moert_text_seek(t->valid, 0);
  MoertStatus st =
      run_evaluate(&t->run, t->valid, &t->valid_loss, &t->valid_tokens);
  if (st != MOERT_OK) return run_failed(st);
  t->valid_step = step;
  progress_add_valid(&t->progress, step, t->valid_loss);
  progress_note(&t->progress, "%9s %9.4f %8.4f %11.3f   on %s tokens of %s",
                "valid", t->valid_loss, t->valid_loss / log(2),
                exp(t->valid_loss), run_count_text((int64_t)t->valid_tokens),
                t->args->valid);
  return 0;
}

static int save(Train *t) {
  const RunArgs *a = t->args;
  int64_t step = moert_steps_done(t->run.session);
  if (!a->ckpt || t->saved_step == step) return 0;
  MoertStatus st =
      moert_save(t->run.session, a->ckpt, moert_text_cursor(t->data));
  if (st == MOERT_OK && a->keep && ranks_own(a) == 0)
    st = moert_prune(a->ckpt, (int)a->keep);
  if (st != MOERT_OK) return run_failed(st);
  t->saved_step = step;
  return 0;
}

static int probe(Train *t) {
  if (!t->args->probe) return 0;
  MoertStatus st =
      moert_save_reports(t->run.session, t->entry->name, t->args->probe);
  return st == MOERT_OK ? 0 : run_failed(st);
}

static bool is_due(int64_t every, int64_t step) {
  return every > 0 && step % every == 0;
}

/* ---- a step -------------------------------------------------------------- */

static int stop_not_finite(const Train *t) {
  run_error("%s", moert_error());
  if (t->saved_step >= 0)
    run_error("stopped; the last good checkpoint is %s/step-%08lld",
              t->args->ckpt, (long long)t->saved_step);
  else
    run_error("stopped; no checkpoint has been saved");
  return EXIT_USER;
}

static void add_exchanges(Train *t, RunExchanges x) {
  x.busy += t->exchanges.busy;
  x.waited += t->exchanges.waited;
  x.bytes += t->exchanges.bytes;
  t->exchanges = x;
}

static int train_step(Train *t, StepInfo *out) {
  MoertSession *s = t->run.session;
  MoertTextEvent event;
  double start = run_seconds();
  RunExchanges before = run_exchanges(&t->run, NULL);
  MoertStatus st = run_step_ahead(&t->run, t->data, &event);
  if (st == MOERT_NOT_FINITE) return stop_not_finite(t);
  if (st != MOERT_OK) return run_failed(st);
  t->entry = run_entry(&t->run, moert_text_entry(t->data));
  double seconds = run_seconds() - start;
  t->stepping += seconds;
  add_exchanges(t, run_exchanges(&t->run, &before));
  int64_t step = moert_steps_done(s), tokens = moert_text_batch_tokens(t->data);
  if (event == MOERT_TEXT_START && moert_text_cursor(t->data) > 1)
    progress_note(&t->progress,
                  "%9s data from the start again, %s; round %lld", "",
                  t->args->target ? "in another order"
                                  : "recurrent state reset",
                  (long long)(moert_text_cursor(t->data) - 1) /
                          (long long)moert_text_batches(t->data) +
                      1);
  double a_step = (run_seconds() - t->started) / (double)(step - t->first_step);
  *out = (StepInfo){.step = step,
                    .steps = t->steps,
                    .loss = report(t, "loss"),
                    .lr = learning_rate(t),
                    .grad_norm = report(t, "grad_norm"),
                    .tokens_per_s = (double)tokens / seconds,
                    .seconds_left = a_step * (double)(t->steps - step)};
  return 0;
}

/* Once, and where there are more than ever before. */
static void note_rounds(Train *t) {
  if (t->rounds > t->most_rounds && t->rounds > 1)
    progress_note(&t->progress,
                  "%9s more rows for a rank's experts than it has room for at "
                  "once: up to %.0f rounds a step",
                  "", t->rounds);
  if (t->rounds > t->most_rounds) t->most_rounds = t->rounds;
  t->rounds = 0;
}

/* What the table shows: the mean since its last line, the speed so far. */
static void show(Train *t, const StepInfo *i) {
  double rounds = report(t, "rounds");
  if (rounds > t->rounds) t->rounds = rounds;
  t->last_loss = i->loss;
  t->sum += i->loss;
  t->summed++;
  progress_add(&t->progress, i->step, i->loss);
  StepInfo mean = *i;
  mean.loss = t->sum / (double)t->summed;
  mean.tokens_per_s = (double)moert_text_batch_tokens(t->data) *
                      (double)(i->step - t->first_step) / t->stepping;
  bool is_first = i->step == t->first_step + 1;
  if (is_first || is_due(t->print_every, i->step) || i->step == t->steps) {
    progress_line(&t->progress, &mean);
    note_rounds(t);
    t->sum = 0;
    t->summed = 0;
  } else {
    progress_live(&t->progress, &mean);
  }
}

/* Whether to stop: every rank after the same step. */
static MoertStatus agree_to_stop(const Train *t, bool *out) {
  int stop = stop_signal;
  MoertStatus st =
      t->args->comm ? moert_comm_max(t->args->comm, &stop) : MOERT_OK;
  if (stop) stop_signal = stop;
  *out = stop != 0;
  return st;
}

static int train_all(Train *t) {
  const RunArgs *a = t->args;
  while (moert_steps_done(t->run.session) < t->steps) {
    StepInfo i;
    bool stop;
    MoertStatus st = agree_to_stop(t, &stop);
    if (st != MOERT_OK) return run_failed(st);
    if (stop) break;
    int status = train_step(t, &i);
    if (status) return status;
    show(t, &i);
    if (is_due(a->valid_every, i.step) || i.step == t->steps)
      status = validate(t, i.step);
    if (!status && (is_due(a->probe_every, i.step) || i.step == t->steps))
      status = probe(t);
    int logged = write_log(t, &i);
    if (!status && (logged || is_due(a->ckpt_every, i.step))) status = save(t);
    if (status || logged) return status ? status : logged;
  }
  if (stop_signal)
    progress_note(&t->progress, "%9s stopped by signal %d after this step", "",
                  (int)stop_signal);
  return save(t);
}

/* ---- before and after ---------------------------------------------------- */

static void introduce(Train *t) {
  const MoertDesc *d = t->run.desc;
  int64_t parameters = d->slab_bytes[MOERT_SLOT_PARAM];
  char ranks[40] = "";
  if (ranks_count(t->args) > 1)
    snprintf(ranks, sizeof ranks, "%d ranks, each ", ranks_count(t->args));
  progress_note(&t->progress,
                "%s: %s%s of parameters, %s of memory, %s",
                t->args->model, ranks, run_bytes_text(parameters),
                run_bytes_text(moert_planned_bytes(t->run.session)),
                moert_device(t->run.session));
  progress_note(&t->progress, "%s: %s batches of %s tokens a round",
                t->args->data, run_count_text(moert_text_batches(t->data)),
                run_count_text(moert_text_batch_tokens(t->data)));
  if (moert_text_left_out(t->data))
    progress_note(&t->progress,
                  "%s pairs are left out: too long for the model, or too few "
                  "of a size to fill a batch",
                  run_count_text(moert_text_left_out(t->data)));
  if (t->run.resumed)
    progress_note(&t->progress, "resumed after step %s",
                  run_count_text(t->first_step));
  else if (t->args->resume)
    progress_note(&t->progress, "no checkpoint under %s yet: from the start",
                  t->args->ckpt);
  if (t->run.resumed && t->args->seed >= 0)
    progress_note(&t->progress,
                  "--seed is not used: the checkpoint has its own");
  if (t->first_step >= t->steps)
    progress_note(&t->progress, "nothing to do: --steps is %s",
                  run_count_text(t->steps));
}

static void summary_ranks(const Train *t, JsonLine *j) {
  int64_t steps = moert_steps_done(t->run.session) - t->first_step;
  double n = steps > 0 ? (double)steps : 1;
  json_number(j, "ranks", ranks_count(t->args));
  run_exchanges_json(&t->exchanges, n, j);
  if (t->most_rounds > 1) json_number(j, "rounds", t->most_rounds);
}

static void summary_json(const Train *t, const RunMemory *memory,
                         double seconds, double tokens) {
  JsonLine j = json_start(stdout);
  json_number(&j, "step", (double)moert_steps_done(t->run.session));
  json_number(&j, "loss", t->last_loss);
  if (t->valid_step >= 0) {
    json_number(&j, "valid_loss", t->valid_loss);
    json_number(&j, "valid_perplexity", exp(t->valid_loss));
  }
  json_number(&j, "seconds", seconds);
  json_number(&j, "tokens_per_s", t->stepping > 0 ? tokens / t->stepping : 0);
  json_number(&j, "peak_bytes_planned", (double)memory->planned);
  json_number(&j, "peak_bytes_measured", (double)memory->measured);
  if (ranks_count(t->args) > 1)
    summary_ranks(t, &j);
  if (t->saved_step >= 0) {
    char path[4200];
    snprintf(path, sizeof path, "%s/step-%08lld", t->args->ckpt,
             (long long)t->saved_step);
    json_string(&j, "checkpoint", path);
  }
  json_end(&j);
}

static int summarise(Train *t) {
  RunMemory memory;
  double seconds = run_seconds() - t->started;
  int64_t steps = moert_steps_done(t->run.session) - t->first_step;
  double tokens = (double)steps * (double)moert_text_batch_tokens(t->data);
  MoertStatus st = run_memory(&t->run, &memory);
  if (st != MOERT_OK) return run_failed(st);
  progress_curve(&t->progress);
  if (steps)
    progress_note(&t->progress, "\n%s steps, %s tokens in %s: %s tokens/s",
                  run_count_text(steps), run_count_text((int64_t)tokens),
                  run_time_text(seconds),
                  run_count_text((int64_t)(tokens / t->stepping)));
  if (steps && ranks_count(t->args) > 1)
    progress_note(&t->progress, "rank 0: %s",
                  run_exchanges_text(&t->exchanges, steps));
  progress_note(&t->progress, "memory%s: %s planned, %s at most measured",
                ranks_count(t->args) > 1 ? " of a rank" : "",
                run_bytes_text(memory.planned),
                run_bytes_text(memory.measured));
  if (t->saved_step >= 0)
    progress_note(&t->progress, "checkpoint: %s/step-%08lld", t->args->ckpt,
                  (long long)t->saved_step);
  summary_json(t, &memory, seconds, tokens);
  return 0;
}

static int open_train(Train *t) {
  const RunArgs *a = t->args;
  int status = run_open(a, NULL, &t->run);
  if (status) return status;
  t->entry = run_entry(&t->run, t->entry_name);
  if (!t->entry) return EXIT_USER;
  if (!t->entry->trains)
    return run_error("entry %s does not train: it has no minimize",
                     t->entry_name);
  MoertSession *s = t->run.session;
  MoertStatus st = run_open_text(&t->run, t->entry_name, a->data, a->target,
                                 MOERT_TEXT_TRAIN, &t->data);
  if (st == MOERT_OK && a->valid)
    st = run_open_text(&t->run, "eval", a->valid, a->valid_target,
                       MOERT_TEXT_COVER, &t->valid);
  if (st != MOERT_OK) return run_failed(st);
  moert_text_seek(t->data, t->run.cursor);
  t->first_step = moert_steps_done(s);
  t->saved_step = t->run.resumed && a->ckpt ? t->first_step : -1;
  t->steps = a->steps;
  int64_t lines = (t->steps - t->first_step) / 40;
  t->print_every = a->print_every ? a->print_every : lines > 1 ? lines : 1;
  return open_log(t);
}

int run_train(const RunArgs *a) {
  Train t = {.args = a,
             .entry_name = a->entry ? a->entry : "train",
             .valid_step = -1,
             .last_loss = NAN};
  t.progress.quiet = a->quiet;
  t.progress.live = isatty(STDERR_FILENO) != 0;
  int status = open_train(&t);
  if (!status) {
    introduce(&t);
    catch_signals();
    t.started = run_seconds();
    status = train_all(&t);
    if (!status) status = summarise(&t);
  }
  if (t.log && fclose(t.log) != 0 && !status)
    status = run_error("%s: %s", a->log, strerror(errno));
  progress_free(&t.progress);
  moert_text_close(t.data);
  moert_text_close(t.valid);
  run_close(&t.run);
  return status;
}
