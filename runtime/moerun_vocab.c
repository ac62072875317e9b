/* moerun_vocab.c: vocabularies of texts, and texts as numbers. */
#include "moerun.h"

#include <string.h>

static int find_split(const char *name, MoertSplit *out) {
  *out = MOERT_SPLIT_SPACE;
  if (!name || strcmp(name, "space") == 0) return 0;
  *out = MOERT_SPLIT_PUNCTUATION;
  if (strcmp(name, "punctuation") == 0) return 0;
  return run_error("--split: '%s' is not space or punctuation", name);
}

static double percent(int64_t part, int64_t all) {
  return all ? 100.0 * (double)part / (double)all : 100;
}

int run_vocab(const RunArgs *a) {
  MoertVocab *v = NULL;
  MoertSplit split;
  int64_t n = 0, unknown = 0;
  int status = find_split(a->split, &split);
  if (status) return status;
  const char *const texts[] = {a->model, a->other};
  int n_texts = a->other ? 2 : 1;
  MoertStatus st = moert_vocab_build(texts, n_texts, split, a->size, &v);
  if (st == MOERT_OK) st = moert_vocab_save(v, a->out);
  if (st == MOERT_OK)
    printf("%s: %s words\n", a->out, run_count_text(moert_vocab_size(v)));
  for (int i = 0; i < n_texts && st == MOERT_OK; i++) {
    st = moert_vocab_encode_file(v, texts[i], MOERT_U32, NULL, &n, &unknown);
    if (st == MOERT_OK)
      printf("%s: %s tokens, %.2f %% of them among these\n", texts[i],
             run_count_text(n), percent(n - unknown, n));
  }
  moert_vocab_close(v);
  return st == MOERT_OK ? 0 : run_failed(st);
}

int run_encode(const RunArgs *a) {
  MoertVocab *v = NULL;
  int64_t n, unknown;
  MoertStatus st = moert_vocab_open(a->vocab, &v);
  if (st != MOERT_OK) return run_failed(st);
  MoertTokens tokens = moert_vocab_size(v) <= 65536 ? MOERT_U16 : MOERT_U32;
  int status = a->format ? run_find_tokens(a->format, &tokens) : 0;
  if (!status && tokens != MOERT_U16 && tokens != MOERT_U32)
    status = run_error("--format: '%s' is not u16 or u32", a->format);
  if (!status) {
    st = moert_vocab_encode_file(v, a->model, tokens, a->out, &n, &unknown);
    if (st != MOERT_OK) status = run_failed(st);
  }
  if (!status)
    printf("%s: %s tokens, %s; %.2f %% of them are words of %s\n", a->out,
           run_count_text(n), moert_tokens_name(tokens),
           percent(n - unknown, n), a->vocab);
  moert_vocab_close(v);
  return status;
}
