/* tokens.c: a file as a row of tokens: its bytes, its words by a vocabulary, or
 * numbers of 16 or 32 bits, little-endian, that were made before. */
#include "rt.h"

#include <stdlib.h>
#include <string.h>

/* ORDER TOKENS */
static const struct {
  const char *name, *unit;
  int bytes; /* of a token in memory */
  int64_t bound; /* tokens are below it whatever the file */
} kinds[] = {
    [MOERT_BYTES] = {"bytes", "byte", 1, 256},
    [MOERT_WORDS] = {"words", "word", 4, 0},
    [MOERT_U16] = {"u16", "token", 2, 65536},
    [MOERT_U32] = {"u32", "token", 4, INT64_MAX},
};

const char *moert_tokens_name(int tokens) {
  return tokens >= 0 && tokens < (int)COUNT_OF(kinds) ? kinds[tokens].name
                                                      : NULL;
}

int64_t moert_unknown(MoertTokens tokens) {
  return tokens == MOERT_BYTES ? -1 : RT_UNKNOWN;
}

int64_t moert_line_end(MoertTokens tokens) {
  return tokens == MOERT_BYTES ? '\n' : RT_LINE_END;
}

const char *rt_tokens_unit(MoertTokens kind) {
  return kinds[kind].unit;
}

MoertStatus rt_tokens_open(const char *path, MoertTokens kind,
                           const MoertVocab *vocab, RtTokens *out) {
  *out = (RtTokens){.kind = kind,
                    .width = kinds[kind].bytes,
                    .bound = kind == MOERT_WORDS ? moert_vocab_size(vocab)
                                                 : kinds[kind].bound};
  RT_TRY(rt_map_file(path, &out->map, &out->map_bytes));
  out->data = out->map;
  out->n = out->map_bytes / (size_t)out->width;
  if (kind != MOERT_WORDS && out->map_bytes % (size_t)out->width == 0)
    return MOERT_OK;
  MoertStatus st;
  if (kind == MOERT_WORDS) {
    uint32_t *tokens;
    st = moert_vocab_encode(vocab, out->map, out->map_bytes, &tokens, &out->n);
    out->data = out->made = tokens;
    rt_unmap(out->map, out->map_bytes);
    out->map = NULL;
  } else {
    st = rt_fail(MOERT_BAD_DATA,
                 "%s: %zu bytes are no whole number of %s tokens of %d", path,
                 out->map_bytes, kinds[kind].name, out->width);
  }
  if (st != MOERT_OK) rt_tokens_close(out);
  return st;
}

MoertStatus rt_tokens_random(size_t n, int64_t below, RtTokens *out) {
  char *bytes;
  *out = (RtTokens){.kind = MOERT_BYTES, .width = 1, .bound = below, .n = n};
  RT_TRY(RT_NEW(&bytes, n));
  out->data = out->made = bytes;
  uint64_t x = 1;
  for (size_t i = 0; i < n; i++) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    bytes[i] = (char)((x >> 33) % (uint64_t)(below < 256 ? below : 256));
  }
  return MOERT_OK;
}

MoertStatus rt_tokens_fit(const RtTokens *t, int64_t below) {
  if (t->kind != MOERT_WORDS || t->bound <= below) return MOERT_OK;
  return rt_fail(MOERT_INVALID,
                 "the vocabulary has %lld words, the model takes tokens below "
                 "%lld",
                 (long long)t->bound, (long long)below);
}

int64_t rt_token(const RtTokens *t, int64_t i) {
  switch (t->width) {
  case 1: return ((const uint8_t *)t->data)[i];
  case 2: return ((const uint16_t *)t->data)[i];
  default: return ((const uint32_t *)t->data)[i];
  }
}

void rt_tokens_close(RtTokens *t) {
  rt_unmap(t->map, t->map_bytes);
  free(t->made);
  *t = (RtTokens){0};
}

/* ---- making numbers before ----------------------------------------------- */

/* In place, as 16 bits each. */
static void narrow(uint32_t *tokens, size_t n) {
  for (size_t i = 0; i < n; i++) {
    uint16_t x = (uint16_t)tokens[i];
    memcpy((char *)tokens + i * sizeof x, &x, sizeof x);
  }
}

static MoertStatus check_width(const MoertVocab *v, MoertTokens tokens) {
  if (moert_vocab_size(v) <= kinds[tokens].bound) return MOERT_OK;
  return rt_fail(MOERT_INVALID,
                 "%lld words, the size of the vocabulary, are too many for %s",
                 (long long)moert_vocab_size(v), kinds[tokens].name);
}

MoertStatus moert_vocab_encode_file(const MoertVocab *v, const char *text_path,
                                    MoertTokens tokens, const char *out_path,
                                    int64_t *out_n, int64_t *out_unknown) {
  RtTokens t;
  *out_n = *out_unknown = 0;
  if (out_path) RT_TRY(check_width(v, tokens));
  RT_TRY(rt_tokens_open(text_path, MOERT_WORDS, v, &t));
  *out_n = (int64_t)t.n;
  for (size_t i = 0; i < t.n; i++)
    *out_unknown += rt_token(&t, (int64_t)i) == RT_UNKNOWN;
  MoertStatus st = MOERT_OK;
  if (out_path) {
    if (tokens == MOERT_U16) narrow(t.made, t.n);
    st = rt_replace_file(out_path, t.made,
                         t.n * (size_t)kinds[tokens].bytes);
  }
  rt_tokens_close(&t);
  return st;
}
