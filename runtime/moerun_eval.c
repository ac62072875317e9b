/* moerun_eval.c: loss and perplexity over every token of a file.
 *
 * The entry reports sums, `nll` and `tokens`, a batch; what is masked counts in
 * neither. */
#include "moerun.h"

#include <math.h>

MoertStatus run_evaluate(const Run *r, MoertText *text, double *out_loss,
                         double *out_tokens) {
  MoertTextEvent event;
  double sum = 0, count = 0;
  for (;;) {
    double nll, tokens;
    MoertStatus st = run_step_ahead(r, text, &event);
    if (st == MOERT_OK && event == MOERT_TEXT_END) break;
    const char *entry = moert_text_entry(text);
    if (st == MOERT_OK) st = moert_report(r->session, entry, "nll", &nll);
    if (st == MOERT_OK) st = moert_report(r->session, entry, "tokens", &tokens);
    if (st != MOERT_OK) return st;
    sum += nll;
    count += tokens;
  }
  *out_loss = sum / count;
  *out_tokens = count;
  return MOERT_OK;
}

static int evaluate(Run *r, const char *entry) {
  MoertText *text;
  double loss, tokens, start = run_seconds();
  int64_t left_out = 0;
  MoertStatus st = run_open_text(r, entry, r->args->data, r->args->target,
                                 MOERT_TEXT_COVER, &text);
  if (st == MOERT_OK) st = run_evaluate(r, text, &loss, &tokens);
  if (st == MOERT_OK) left_out = moert_text_left_out(text);
  moert_text_close(text);
  if (st != MOERT_OK) return run_failed(st);
  double seconds = run_seconds() - start;
  if (!r->args->quiet)
    fprintf(stderr,
            "%s: loss %.4f nats (%.4f bits), perplexity %.4f over %s tokens, "
            "%s tokens/s\n",
            r->args->data, loss, loss / log(2), exp(loss),
            run_count_text((int64_t)tokens),
            run_count_text((int64_t)(tokens / seconds)));
  if (left_out)
    fprintf(stderr, "%s: %s pairs are too long for the model\n", r->args->data,
            run_count_text(left_out));
  JsonLine j = json_start(stdout);
  json_number(&j, "loss", loss);
  json_number(&j, "bits", loss / log(2));
  json_number(&j, "perplexity", exp(loss));
  json_number(&j, "tokens", tokens);
  json_end(&j);
  return 0;
}

int run_eval(const RunArgs *a) {
  const char *entry = a->entry ? a->entry : "eval";
  Run r;
  int status = run_open(a, a->ckpt, &r);
  if (!status && !run_entry(&r, entry)) status = EXIT_USER;
  if (!status) status = evaluate(&r, entry);
  run_close(&r);
  return status;
}
