/* moerun_sample.c: writing text, one token at a time.
 *
 * The entry takes one token, from `tokens`, and reports the `logits` of the
 * next one; recurrent state carries what came before. */
#include "moerun.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct Sampler {
  Run run;
  const char *entry;
  void *input; /* one token */
  int input_dtype;
  const MoertBinding *logits;
  const void *logits_data;
  int64_t n; /* vocabulary */
  double *weights;
  uint64_t random;
} Sampler;

static double logit(const Sampler *s, int64_t i) {
  return s->logits->dtype == MOERT_f64
             ? ((const double *)s->logits_data)[i]
             : (double)((const float *)s->logits_data)[i];
}

static int64_t likeliest(const Sampler *s) {
  int64_t best = 0;
  for (int64_t i = 1; i < s->n; i++)
    if (logit(s, i) > logit(s, best)) best = i;
  return best;
}

static int64_t draw(Sampler *s, double temperature) {
  int64_t best = likeliest(s);
  if (temperature == 0) return best;
  double sum = 0, top = logit(s, best);
  for (int64_t i = 0; i < s->n; i++)
    sum += s->weights[i] = exp((logit(s, i) - top) / temperature);
  double at = run_uniform(&s->random) * sum;
  for (int64_t i = 0; i < s->n; i++)
    if ((at -= s->weights[i]) < 0) return i;
  return best; /* the sum was rounded */
}

static MoertStatus feed(Sampler *s, int64_t token) {
  int32_t id = (int32_t)token;
  memcpy(s->input, &id, sizeof id);
  return moert_step(s->run.session, s->entry);
}

/* ---- text ---------------------------------------------------------------- */

/* The tokens of the prompt, a new line where there is none. */
static int read_prompt(const Run *r, uint32_t **out, size_t *out_n) {
  const char *prompt = r->args->prompt;
  const char *text = prompt && prompt[0] ? prompt : "\n";
  size_t bytes = strlen(text);
  if (r->vocab) {
    MoertStatus st = moert_vocab_encode(r->vocab, text, bytes, out, out_n);
    return st == MOERT_OK ? 0 : run_failed(st);
  }
  if (r->tokens != MOERT_BYTES && prompt)
    return run_error("--prompt: words of %s tokens take --vocab FILE",
                     r->args->format);
  if (!(*out = calloc(bytes, sizeof **out))) return run_error("out of memory");
  *out_n = bytes;
  for (size_t i = 0; i < bytes; i++)
    (*out)[i] = (unsigned char)text[i];
  if (!prompt) (*out)[0] = (uint32_t)moert_line_end(r->tokens);
  return 0;
}

static int write_tokens(Sampler *s, const uint32_t *prompt, size_t n) {
  const RunArgs *a = s->run.args;
  bool line_start = true;
  MoertStatus st = moert_reset_state(s->run.session, s->entry);
  for (size_t i = 0; i < n && st == MOERT_OK; i++) {
    if (prompt[i] >= s->n)
      return run_error("--prompt: token %u is outside of the model's "
                       "vocabulary of %lld",
                       prompt[i], (long long)s->n);
    if (a->prompt) run_put_token(stdout, &s->run, prompt[i], &line_start);
    st = feed(s, prompt[i]);
  }
  for (int64_t i = 0; i < a->tokens && st == MOERT_OK; i++) {
    int64_t token = draw(s, a->temperature);
    run_put_token(stdout, &s->run, token, &line_start);
    fflush(stdout);
    if (i + 1 < a->tokens) st = feed(s, token);
  }
  putchar('\n');
  return st == MOERT_OK ? 0 : run_failed(st);
}

static int write_text(Sampler *s) {
  uint32_t *prompt = NULL;
  size_t n = 0;
  s->n = run_words(&s->run, s->n);
  int status = read_prompt(&s->run, &prompt, &n);
  if (!status) status = write_tokens(s, prompt, n);
  free(prompt);
  return status;
}

/* ---- the model ----------------------------------------------------------- */

/* The one input that takes tokens, and the logits. */
static int find_ends(Sampler *s, const MoertEntry *e) {
  size_t bytes = 0;
  const MoertBinding *in = NULL;
  for (int i = 0; i < e->n_ins; i++)
    if (e->ins[i].kind == MOERT_BIND_INPUT &&
        strcmp(e->ins[i].source, "tokens") == 0)
      in = &e->ins[i];
  for (int i = 0; i < e->n_outs; i++)
    if (e->outs[i].kind == MOERT_BIND_REPORT &&
        strcmp(e->outs[i].name, "logits") == 0)
      s->logits = &e->outs[i];
  if (!in || in->dtype != MOERT_i32)
    return run_error("entry %s has no i32 input from tokens", s->entry);
  if (!s->logits ||
      (s->logits->dtype != MOERT_f32 && s->logits->dtype != MOERT_f64))
    return run_error("entry %s does not report logits as floats", s->entry);
  MoertStatus st =
      moert_input(s->run.session, s->entry, in->name, &s->input, &bytes);
  if (st == MOERT_OK && bytes != sizeof(int32_t))
    return run_error("entry %s: input '%s' must be one token", s->entry,
                     in->name);
  if (st == MOERT_OK)
    st = moert_report_data(s->run.session, s->entry, "logits", &s->logits_data,
                           &bytes);
  if (st != MOERT_OK) return run_failed(st);
  s->n = (int64_t)bytes / (s->logits->dtype == MOERT_f64 ? 8 : 4);
  s->weights = calloc((size_t)s->n, sizeof *s->weights);
  return s->weights ? 0 : run_error("out of memory");
}

int run_sample(const RunArgs *a) {
  Sampler s = {.entry = a->entry ? a->entry : "decode",
               .random = a->seed < 0 ? 0 : (uint64_t)a->seed};
  int status = run_open(a, a->ckpt, &s.run);
  const MoertEntry *e = status ? NULL : run_entry(&s.run, s.entry);
  if (!status && !e) status = EXIT_USER;
  if (!status) status = find_ends(&s, e);
  if (!status) status = write_text(&s);
  free(s.weights);
  run_close(&s.run);
  return status;
}
