/* data.c: the tokens of a file as the inputs of an entry.
 *
 * With S the largest shift asked for, the first n - S tokens are positions to
 * read at; they are cut into B streams of equal length that run side by side,
 * so that recurrent state carries on from batch to batch. Training drops what
 * does not fill a batch at the end of the streams and starts again. Covering
 * gives every position exactly once: the streams are rounded up, and what lies
 * behind the end is masked. Ranks that share a batch read the same file, each
 * its own streams of it. */
#include "rt.h"

#include <stdlib.h>
#include <string.h>

/* An input that takes text. */
typedef struct TextInput {
  char *data;
  int dtype;
  int64_t shift;
  bool mask;
} TextInput;

struct MoertText {
  MoertSession *session;
  const MoertEntry *entry;
  RtPairs *pairs; /* NULL: one text, as below */
  const char *next; /* the entry whose inputs have been filled */
  const char *path;
  RtTokens tokens;
  MoertTextMode mode;
  TextInput *inputs;
  int n_inputs;
  bool has_mask, takes_pairs;
  int64_t streams, width;   /* B, T, B over all ranks */
  int64_t first, own;       /* streams of this rank */
  int64_t shift;            /* the largest */
  int64_t below;            /* tokens must be smaller */
  int64_t positions;        /* to read at, over all streams */
  int64_t stream_positions; /* of one stream */
  int64_t batches;          /* in a round */
  int64_t cursor;
  const char *ahead; /* the next batch is filled in for this entry, or NULL */
};

/* ---- opening ------------------------------------------------------------- */

static MoertStatus add_input(MoertText *t, int entry, const MoertBinding *b) {
  RtSource src;
  RT_TRY(rt_source_of(t->session, t->entry, b, &src));
  t->takes_pairs |= src.from == RT_FROM_SOURCE || src.from == RT_FROM_TARGET;
  if (src.from != RT_FROM_TEXT) return MOERT_OK;
  int64_t shares, share;
  RT_TRY(rt_source_share(t->session, &src, &shares, &share));
  if (t->n_inputs == 0) {
    t->own = b->dims[0], t->width = b->dims[1];
    t->streams = t->own * shares;
    t->first = t->own * share;
  }
  if (b->dims[0] * shares != t->streams || b->dims[1] != t->width ||
      b->dims[0] * share != t->first)
    return rt_fail(
        MOERT_INVALID,
        "entry %s: text inputs differ in shape: '%s' is [%lld, %lld], "
        "not [%lld, %lld]",
        t->entry->name, b->name, (long long)b->dims[0], (long long)b->dims[1],
        (long long)t->own, (long long)t->width);
  if (src.shift > t->shift) t->shift = src.shift;
  if (src.below < t->below) t->below = src.below;
  t->has_mask |= src.mask;
  t->inputs[t->n_inputs++] =
      (TextInput){rt_binding_data(t->session, entry, b), b->dtype,
                  src.shift, src.mask};
  return MOERT_OK;
}

static MoertStatus find_inputs(MoertText *t, int entry) {
  RT_TRY(RT_NEW(&t->inputs, t->entry->n_ins));
  for (int i = 0; i < t->entry->n_ins; i++)
    if (t->entry->ins[i].kind == MOERT_BIND_INPUT)
      RT_TRY(add_input(t, entry, &t->entry->ins[i]));
  if (t->n_inputs) return MOERT_OK;
  return rt_fail(MOERT_INVALID, "entry %s takes %s", t->entry->name,
                 t->takes_pairs ? "pairs of sentences, not one text"
                                : "no text");
}

static const char *unit(const MoertText *t) {
  return rt_tokens_unit(t->tokens.kind);
}

static MoertStatus check_tokens(const MoertText *t) {
  RT_TRY(rt_tokens_fit(&t->tokens, t->below));
  for (size_t i = 0; t->below < t->tokens.bound && i < t->tokens.n; i++)
    if (rt_token(&t->tokens, (int64_t)i) >= t->below)
      return rt_fail(MOERT_BAD_DATA,
                     "%s: %s %zu is %lld, the model takes %ss below %lld",
                     t->path, unit(t), i,
                     (long long)rt_token(&t->tokens, (int64_t)i), unit(t),
                     (long long)t->below);
  return MOERT_OK;
}

static MoertStatus check_length(const MoertText *t) {
  bool train = t->mode == MOERT_TEXT_TRAIN;
  long long n = (long long)t->tokens.n, shift = t->shift;
  long long wanted = (train ? t->streams * t->width : 1) + shift;
  if (n == 0) return rt_fail(MOERT_BAD_DATA, "%s: the file is empty", t->path);
  if (n >= wanted) return MOERT_OK;
  if (!train)
    return rt_fail(MOERT_BAD_DATA,
                   "%s: %lld %ss are too few: it takes %lld to predict one",
                   t->path, n, unit(t), wanted);
  return rt_fail(MOERT_BAD_DATA,
                 "%s: %lld %ss are fewer than a batch takes: %lld, for %lld "
                 "sequences of %lld and %lld to look ahead",
                 t->path, n, unit(t), wanted, (long long)t->streams,
                 (long long)t->width, shift);
}

static MoertStatus lay_out(MoertText *t) {
  bool train = t->mode == MOERT_TEXT_TRAIN;
  int64_t n = (int64_t)t->tokens.n;
  RT_TRY(check_length(t));
  t->positions = n - t->shift;
  int64_t round_up = train ? 0 : 1; /* to whole streams, to whole batches */
  t->stream_positions =
      (t->positions + round_up * (t->streams - 1)) / t->streams;
  t->batches = (t->stream_positions + round_up * (t->width - 1)) / t->width;
  if (!train && !t->has_mask &&
      t->batches * t->width * t->streams != t->positions)
    return rt_fail(MOERT_INVALID,
                   "entry %s cannot cover %s: its %lld positions do not fill "
                   "whole batches, and no input is from text(mask)",
                   t->entry->name, t->path, (long long)t->positions);
  return check_tokens(t);
}

/* A file's tokens; some batches of random ones where there is no path. */
static MoertStatus open_tokens(MoertText *t) {
  enum { BATCHES = 16 };
  const MoertSession *s = t->session;
  if (t->path) return rt_tokens_open(t->path, s->tokens, s->vocab, &t->tokens);
  return rt_tokens_random(
      (size_t)(BATCHES * t->streams * t->width + t->shift), t->below,
      &t->tokens);
}

MoertStatus moert_set_tokens(MoertSession *s, MoertTokens tokens,
                             const MoertVocab *vocab) {
  if (tokens == MOERT_WORDS && !vocab)
    return rt_fail(MOERT_INVALID, "words take a vocabulary");
  s->tokens = tokens;
  s->vocab = vocab;
  return MOERT_OK;
}

MoertStatus moert_text_open(MoertSession *s, const char *entry,
                            const char *path, MoertTextMode mode,
                            MoertText **out_text) {
  *out_text = NULL;
  int e = rt_find_entry(s, entry);
  if (e < 0) return MOERT_NOT_FOUND;
  MoertText *t;
  MoertStatus st;
  RT_TRY(RT_NEW(&t, 1));
  t->session = s;
  t->entry = &s->desc->entries[e];
  t->mode = mode;
  t->below = INT32_MAX;
  t->path = path;
  t->next = t->entry->name;
  RT_TRYGOTO(find_inputs(t, e), st, fail);
  RT_TRYGOTO(open_tokens(t), st, fail);
  RT_TRYGOTO(lay_out(t), st, fail);
  *out_text = t;
  return MOERT_OK;
fail:
  moert_text_close(t);
  return st;
}

MoertStatus moert_pairs_open(MoertSession *s, const char *entry,
                             const char *source_path, const char *target_path,
                             MoertTextMode mode, MoertText **out_text) {
  *out_text = NULL;
  MoertText *t;
  RT_TRY(RT_NEW(&t, 1));
  t->session = s;
  t->mode = mode;
  MoertStatus st =
      rt_pairs_open(s, entry, source_path, target_path, mode, &t->pairs);
  if (st == MOERT_OK) {
    t->batches = rt_pairs_batches(t->pairs);
    *out_text = t;
  } else {
    moert_text_close(t);
  }
  return st;
}

void moert_text_close(MoertText *t) {
  if (!t) return;
  rt_pairs_close(t->pairs);
  rt_tokens_close(&t->tokens);
  free(t->inputs);
  free(t);
}

/* ---- reading ------------------------------------------------------------- */

/* Where in the text a position of one of this rank's streams is, -1 behind the
 * stream's or the text's end. */
static int64_t position_of(const MoertText *t, int64_t own, int64_t in_stream) {
  int64_t p = (t->first + own) * t->stream_positions + in_stream;
  return in_stream < t->stream_positions && p < t->positions ? p : -1;
}

/* One row of an input: positions [at, at + width) of a stream. What is behind
 * the end becomes 0, in the mask too. */
static void fill_row(const MoertText *t, const TextInput *in, int64_t own,
                     int64_t at) {
  int64_t bytes = rt_dtype[in->dtype].bytes;
  char *row = in->data + own * t->width * bytes;
  for (int64_t i = 0; i < t->width; i++) {
    int64_t p = position_of(t, own, at + i);
    double x = p < 0      ? 0
               : in->mask ? 1
                          : (double)rt_token(&t->tokens, p + in->shift);
    rt_store(in->dtype, row + i * bytes, x);
  }
}

static MoertStatus fill(MoertText *t, int64_t batch, const char **out_entry) {
  if (t->pairs) return rt_pairs_fill(t->pairs, t->cursor, out_entry);
  *out_entry = t->entry->name;
  if (batch == 0) RT_TRY(moert_reset_state(t->session, t->entry->name));
  for (int i = 0; i < t->n_inputs; i++)
    for (int64_t b = 0; b < t->own; b++)
      fill_row(t, &t->inputs[i], b, batch * t->width);
  return MOERT_OK;
}

MoertStatus moert_text_next(MoertText *t, MoertTextEvent *out_event) {
  *out_event = MOERT_TEXT_END;
  int64_t batch = t->cursor % t->batches;
  if (t->mode == MOERT_TEXT_COVER && t->cursor >= t->batches) return MOERT_OK;
  if (t->ahead)
    t->next = t->ahead;
  else
    RT_TRY(fill(t, batch, &t->next));
  t->ahead = NULL;
  t->cursor++;
  *out_event = batch == 0 ? MOERT_TEXT_START : MOERT_TEXT_BATCH;
  return MOERT_OK;
}

/* What begins a round resets state, which waits for the step under way. */
MoertStatus moert_text_ahead(MoertText *t) {
  int64_t batch = t->cursor % t->batches;
  if (batch == 0 || t->ahead) return MOERT_OK;
  RT_TRY(fill(t, batch, &t->ahead));
  return moert_stage(t->session, t->ahead);
}

const char *moert_text_entry(const MoertText *t) {
  return t->next;
}
int64_t moert_text_tokens(const MoertText *t) {
  return t->pairs ? 0 : (int64_t)t->tokens.n;
}
int64_t moert_text_token(const MoertText *t, int64_t at) {
  return at < 0 || at >= moert_text_tokens(t) ? -1 : rt_token(&t->tokens, at);
}
int64_t moert_text_at(const MoertText *t, int64_t i) {
  if (t->pairs || t->cursor < 1 || i < 0 || i >= t->own * t->width) return -1;
  int64_t batch = (t->cursor - 1) % t->batches;
  return position_of(t, i / t->width, batch * t->width + i % t->width);
}
int64_t moert_text_lines(const MoertText *t) {
  return t->pairs ? rt_pairs_lines(t->pairs) : 0;
}
int64_t moert_text_line(const MoertText *t, int64_t row) {
  return t->pairs ? rt_pairs_line(t->pairs, row) : -1;
}
int64_t moert_text_left_out(const MoertText *t) {
  return t->pairs ? rt_pairs_left_out(t->pairs) : 0;
}
int64_t moert_text_cursor(const MoertText *t) {
  return t->cursor;
}
void moert_text_seek(MoertText *t, int64_t cursor) {
  t->cursor = cursor < 0 ? 0 : cursor;
  t->ahead = NULL;
}
int64_t moert_text_batch_tokens(const MoertText *t) {
  return t->pairs ? rt_pairs_tokens(t->pairs) : t->streams * t->width;
}
int64_t moert_text_batches(const MoertText *t) {
  return t->batches;
}
