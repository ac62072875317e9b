/* pairs.c: sentences and their translations as the inputs of entries.
 *
 * Two files with a sentence a line. The model has an entry for each of several
 * sizes (`entry train for S in {16, 32}`), and a pair belongs to the smallest
 * one that holds both its sentences: that is a bucket. Training draws a new
 * order of the pairs of each bucket in every round, cuts it into full batches,
 * and mixes the batches of all buckets. Covering takes every pair once, in the
 * order of the files; rows of a batch that are left over are masked.
 *
 * With <e> for the end of a sentence, inputs have of a pair the source x1 .. xn
 * <e>, and of the target <e> y1 .. yn or, with a shift of 1, y1 .. yn <e>; then
 * 0 with a mask of 0. Ranks that share a batch read the same files, each its
 * own rows. */
#include "rt.h"

#include <stdlib.h>
#include <string.h>

typedef struct Side {
  const char *path;
  RtTokens tokens;
  int64_t n;    /* sentences */
  size_t *from; /* n + 1: where each begins; its last token is its end */
} Side;

typedef struct Input {
  const MoertBinding *binding;
  RtSource source;
} Input;

typedef struct Bucket {
  int entry;
  Input *inputs;
  int n_inputs;
  bool has_mask;
  int64_t width[2];       /* of source and target */
  int64_t rows;           /* of a batch, over all ranks */
  int64_t first, own;     /* of them this rank's */
  uint32_t *pairs, *order; /* of this bucket, and as they are drawn */
  int64_t n, batches;
} Bucket;

struct RtPairs {
  MoertSession *session;
  MoertTextMode mode;
  bool has_target;
  Side sides[2]; /* source, target */
  Bucket *buckets;
  int n_buckets;
  int64_t below;    /* tokens must be smaller */
  int64_t left_out; /* pairs that no batch has */
  int64_t batches, tokens, round;
  uint32_t *mixed; /* the buckets of a round's batches */
  const Bucket *filled; /* the last batch, and its first row in the order */
  int64_t filled_at;
};

/* ---- sentences ----------------------------------------------------------- */

/* Where each sentence begins. A last line without an end has none in memory:
 * it is read as if it were there. */
static MoertStatus cut_lines(Side *s) {
  int64_t end = moert_line_end(s->tokens.kind), lines = 0;
  int64_t n = (int64_t)s->tokens.n;
  for (int64_t i = 0; i < n; i++)
    lines += rt_token(&s->tokens, i) == end;
  bool open = n > 0 && rt_token(&s->tokens, n - 1) != end;
  RT_TRY(RT_NEW(&s->from, lines + open + 1));
  for (int64_t i = 0; i < n; i++)
    if (rt_token(&s->tokens, i) == end) s->from[++s->n] = (size_t)i + 1;
  if (open) s->from[++s->n] = (size_t)n + 1;
  if (s->n > INT32_MAX)
    return rt_fail(MOERT_BAD_DATA, "%s: more than %d lines", s->path,
                   INT32_MAX);
  return MOERT_OK;
}

/* Its tokens without its end. */
static int64_t length(const Side *s, int64_t sentence) {
  return (int64_t)(s->from[sentence + 1] - s->from[sentence]) - 1;
}

static MoertStatus open_side(Side *s, const MoertSession *m, const char *path) {
  s->path = path;
  RT_TRY(rt_tokens_open(path, m->tokens, m->vocab, &s->tokens));
  RT_TRY(cut_lines(s));
  return s->n ? MOERT_OK
              : rt_fail(MOERT_BAD_DATA, "%s: the file is empty", path);
}

static MoertStatus open_sides(RtPairs *p, const char *source,
                              const char *target) {
  RT_TRY(open_side(&p->sides[0], p->session, source));
  if (!target) return MOERT_OK;
  RT_TRY(open_side(&p->sides[1], p->session, target));
  int64_t n = p->sides[0].n, m = p->sides[1].n;
  if (n == m) return MOERT_OK;
  return rt_fail(MOERT_BAD_DATA,
                 "%s ends after line %lld, %s has %lld lines: which belong "
                 "together?",
                 n < m ? source : target, (long long)(n < m ? n : m),
                 n < m ? target : source, (long long)(n < m ? m : n));
}

/* ---- entries ------------------------------------------------------------- */

static MoertStatus add_input(RtPairs *p, Bucket *k, const MoertEntry *e,
                             const MoertBinding *b) {
  RtSource src;
  int64_t shares, share;
  RT_TRY(rt_source_of(p->session, e, b, &src));
  if (src.from != RT_FROM_SOURCE && src.from != RT_FROM_TARGET)
    return MOERT_OK;
  RT_TRY(rt_source_share(p->session, &src, &shares, &share));
  int side = src.from == RT_FROM_TARGET;
  if (side && !p->has_target)
    return rt_fail(MOERT_INVALID,
                   "entry %s: input '%s' takes translations, and none are "
                   "given",
                   e->name, b->name);
  if (src.shift > side)
    return rt_fail(MOERT_INVALID,
                   "entry %s: input '%s': %s has no shift of %lld", e->name,
                   b->name, side ? "a target" : "a source",
                   (long long)src.shift);
  if (k->n_inputs == 0) {
    k->own = b->dims[0];
    k->rows = k->own * shares;
    k->first = k->own * share;
  }
  if (!k->width[side]) k->width[side] = b->dims[1];
  if (b->dims[0] * shares != k->rows || b->dims[0] * share != k->first ||
      b->dims[1] != k->width[side])
    return rt_fail(MOERT_INVALID,
                   "entry %s: inputs from pairs differ in shape: '%s' is "
                   "[%lld, %lld], not [%lld, %lld]",
                   e->name, b->name, (long long)b->dims[0],
                   (long long)b->dims[1], (long long)k->own,
                   (long long)k->width[side]);
  if (src.below < p->below) p->below = src.below;
  k->has_mask |= src.mask;
  k->inputs[k->n_inputs++] = (Input){b, src};
  return MOERT_OK;
}

/* "train", "train.S16": the entries of a name. */
static bool is_of(const char *entry, const char *name) {
  size_t len = strlen(name);
  return strncmp(entry, name, len) == 0 && (!entry[len] || entry[len] == '.');
}

static int by_width(const void *x, const void *y) {
  const Bucket *a = x, *b = y;
  int64_t p = a->width[0] + a->width[1], q = b->width[0] + b->width[1];
  return p != q ? (p < q ? -1 : 1) : a->entry - b->entry;
}

static MoertStatus find_buckets(RtPairs *p, const char *name) {
  const MoertDesc *d = p->session->desc;
  RT_TRY(RT_NEW(&p->buckets, d->n_entries));
  for (int e = 0; e < d->n_entries; e++) {
    const MoertEntry *entry = &d->entries[e];
    if (!is_of(entry->name, name)) continue;
    Bucket *k = &p->buckets[p->n_buckets++];
    *k = (Bucket){.entry = e};
    RT_TRY(RT_NEW(&k->inputs, entry->n_ins));
    for (int i = 0; i < entry->n_ins; i++)
      if (entry->ins[i].kind == MOERT_BIND_INPUT)
        RT_TRY(add_input(p, k, entry, &entry->ins[i]));
    if (k->n_inputs) continue;
    free(k->inputs);
    p->n_buckets--;
  }
  qsort(p->buckets, (size_t)p->n_buckets, sizeof *p->buckets, by_width);
  if (p->n_buckets) return MOERT_OK;
  return rt_fail(MOERT_INVALID, "entry %s takes no pairs of sentences", name);
}

/* ---- which pair goes where ----------------------------------------------- */

/* A side that no input reads fits anywhere. */
static bool holds(const Bucket *k, const RtPairs *p, int64_t pair) {
  for (int side = 0; side < 2; side++)
    if (k->width[side] && length(&p->sides[side], pair) + 1 > k->width[side])
      return false;
  return true;
}

static Bucket *bucket_of(const RtPairs *p, int64_t pair) {
  for (int i = 0; i < p->n_buckets; i++)
    if (holds(&p->buckets[i], p, pair)) return &p->buckets[i];
  return NULL;
}

static MoertStatus fill_buckets(RtPairs *p) {
  int64_t n = p->sides[0].n;
  for (int64_t i = 0; i < n; i++) {
    Bucket *k = bucket_of(p, i);
    if (k) k->n++;
  }
  for (int i = 0; i < p->n_buckets; i++) {
    Bucket *k = &p->buckets[i];
    RT_TRY(RT_NEW(&k->pairs, k->n));
    RT_TRY(RT_NEW(&k->order, k->n));
    k->n = 0;
  }
  for (int64_t i = 0; i < n; i++) {
    Bucket *k = bucket_of(p, i);
    if (k)
      k->pairs[k->n++] = (uint32_t)i;
    else
      p->left_out++;
  }
  return MOERT_OK;
}

static MoertStatus count_batches(RtPairs *p) {
  bool train = p->mode == MOERT_TEXT_TRAIN;
  int64_t fit = p->sides[0].n - p->left_out;
  for (int i = 0; i < p->n_buckets; i++) {
    Bucket *k = &p->buckets[i];
    k->batches = (k->n + (train ? 0 : k->rows - 1)) / k->rows;
    if (!k->batches) p->left_out += k->n;
    if (!train && !k->has_mask && k->n % k->rows != 0)
      return rt_fail(MOERT_INVALID,
                     "entry %s cannot cover its %lld pairs in batches of %lld, "
                     "and no input is a mask",
                     p->session->desc->entries[k->entry].name, (long long)k->n,
                     (long long)k->rows);
    p->batches += k->batches;
  }
  if (p->batches) return RT_NEW(&p->mixed, p->batches);
  const Bucket *k = &p->buckets[p->n_buckets - 1];
  return rt_fail(MOERT_BAD_DATA,
                 "%s: no batch can be filled: %lld pairs fit the sizes of the "
                 "model, up to %lld tokens, and a batch takes %lld",
                 p->sides[0].path, (long long)fit, (long long)k->width[0] - 1,
                 (long long)k->rows);
}

/* Tokens of targets, or of sources where there are none, their ends included,
 * that a batch has in the mean. */
static void count_tokens(RtPairs *p) {
  const Side *s = &p->sides[p->has_target];
  int64_t sum = 0;
  for (int i = 0; i < p->n_buckets; i++) {
    const Bucket *k = &p->buckets[i];
    int64_t all = 0;
    for (int64_t j = 0; j < k->n; j++)
      all += length(s, k->pairs[j]) + 1;
    int64_t used = k->batches * k->rows < k->n ? k->batches * k->rows : k->n;
    if (k->n) sum += all * used / k->n;
  }
  p->tokens = sum / p->batches;
}

static MoertStatus check_tokens(const RtPairs *p) {
  for (int side = 0; side < 2; side++) {
    const Side *s = &p->sides[side];
    RT_TRY(rt_tokens_fit(&s->tokens, p->below));
    if (s->tokens.bound <= p->below) continue;
    for (int64_t i = 0, line = 0; i < (int64_t)s->tokens.n; i++) {
      int64_t token = rt_token(&s->tokens, i);
      while (i >= (int64_t)s->from[line + 1])
        line++;
      if (token >= p->below)
        return rt_fail(MOERT_BAD_DATA,
                       "%s:%lld: %s %lld is %lld, the model takes %ss below "
                       "%lld",
                       s->path, (long long)line + 1,
                       rt_tokens_unit(s->tokens.kind),
                       (long long)(i - (int64_t)s->from[line]),
                       (long long)token, rt_tokens_unit(s->tokens.kind),
                       (long long)p->below);
    }
  }
  return MOERT_OK;
}

MoertStatus rt_pairs_open(MoertSession *s, const char *entry,
                          const char *source, const char *target,
                          MoertTextMode mode, RtPairs **out) {
  RtPairs *p;
  MoertStatus st;
  RT_TRY(RT_NEW(&p, 1));
  p->session = s;
  p->mode = mode;
  p->has_target = target != NULL;
  p->below = INT32_MAX;
  p->round = -1;
  RT_TRYGOTO(find_buckets(p, entry), st, fail);
  RT_TRYGOTO(open_sides(p, source, target), st, fail);
  RT_TRYGOTO(check_tokens(p), st, fail);
  RT_TRYGOTO(fill_buckets(p), st, fail);
  RT_TRYGOTO(count_batches(p), st, fail);
  count_tokens(p);
  *out = p;
  return MOERT_OK;
fail:
  rt_pairs_close(p);
  return st;
}

void rt_pairs_close(RtPairs *p) {
  if (!p) return;
  for (int i = 0; i < p->n_buckets; i++) {
    free(p->buckets[i].inputs);
    free(p->buckets[i].pairs);
    free(p->buckets[i].order);
  }
  for (int side = 0; side < 2; side++) {
    rt_tokens_close(&p->sides[side].tokens);
    free(p->sides[side].from);
  }
  free(p->buckets);
  free(p->mixed);
  free(p);
}

int64_t rt_pairs_batches(const RtPairs *p) {
  return p->batches;
}
int64_t rt_pairs_tokens(const RtPairs *p) {
  return p->tokens;
}
int64_t rt_pairs_left_out(const RtPairs *p) {
  return p->left_out;
}
int64_t rt_pairs_lines(const RtPairs *p) {
  return p->sides[0].n;
}

int64_t rt_pairs_line(const RtPairs *p, int64_t row) {
  const Bucket *k = p->filled;
  int64_t at = p->filled_at + row;
  return k && row >= 0 && row < k->own && at < k->n ? (int64_t)k->order[at]
                                                     : -1;
}

/* ---- reading ------------------------------------------------------------- */

static uint64_t mix(uint64_t x) {
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
  x = (x ^ x >> 27) * 0x94D049BB133111EB;
  return x ^ x >> 31;
}

/* Fisher and Yates, from a start of its own. */
static void shuffle(uint32_t *x, int64_t n, uint64_t start) {
  uint64_t state = mix(start);
  for (int64_t i = n - 1; i > 0; i--) {
    int64_t j = (int64_t)(mix(state += 0x9E3779B97F4A7C15) % (uint64_t)(i + 1));
    uint32_t other = x[j];
    x[j] = x[i];
    x[i] = other;
  }
}

/* The order of a round: it follows from the seed and the round alone. */
static void start_round(RtPairs *p, int64_t round) {
  bool train = p->mode == MOERT_TEXT_TRAIN;
  uint64_t start = (uint64_t)p->session->seed << 32 | (uint32_t)round;
  int64_t at = 0;
  for (int i = 0; i < p->n_buckets; i++) {
    Bucket *k = &p->buckets[i];
    if (k->n) memcpy(k->order, k->pairs, (size_t)k->n * sizeof *k->order);
    if (train) shuffle(k->order, k->n, mix(start) + (uint64_t)i);
    for (int64_t j = 0; j < k->batches; j++)
      p->mixed[at++] = (uint32_t)i;
  }
  if (train) shuffle(p->mixed, p->batches, ~start);
  p->round = round;
}

/* Token i of a pair as an input sees it; false behind its end. */
static bool token_at(const RtPairs *p, const RtSource *src, int64_t pair,
                     int64_t i, int64_t *out) {
  bool is_target = src->from == RT_FROM_TARGET;
  const Side *s = &p->sides[is_target];
  int64_t n = length(s, pair), word = i + src->shift - is_target;
  bool is_word = word >= 0 && word < n;
  *out = is_word ? rt_token(&s->tokens, (int64_t)s->from[pair] + word)
                 : moert_line_end(s->tokens.kind);
  return i <= n;
}

/* One row of an input; -1: no pair. */
static void fill_row(const RtPairs *p, const Input *in, char *row,
                     int64_t pair) {
  const MoertBinding *b = in->binding;
  int64_t bytes = rt_dtype[b->dtype].bytes;
  for (int64_t i = 0; i < b->dims[1]; i++) {
    int64_t token = 0;
    bool there = pair >= 0 && token_at(p, &in->source, pair, i, &token);
    double x = !there ? 0 : in->source.mask ? 1 : (double)token;
    rt_store(b->dtype, row + i * bytes, x);
  }
}

MoertStatus rt_pairs_fill(RtPairs *p, int64_t number, const char **out_entry) {
  int64_t round = number / p->batches, batch = 0;
  if (round != p->round) start_round(p, round);
  uint32_t which = p->mixed[number % p->batches];
  for (int64_t i = 0; i < number % p->batches; i++)
    batch += p->mixed[i] == which;
  const Bucket *k = &p->buckets[which];
  p->filled = k;
  p->filled_at = batch * k->rows + k->first;
  for (int i = 0; i < k->n_inputs; i++) {
    const MoertBinding *b = k->inputs[i].binding;
    char *to = rt_binding_data(p->session, k->entry, b);
    int64_t bytes = b->dims[1] * rt_dtype[b->dtype].bytes;
    for (int64_t r = 0; r < k->own; r++)
      fill_row(p, &k->inputs[i], to + r * bytes, rt_pairs_line(p, r));
  }
  *out_entry = p->session->desc->entries[k->entry].name;
  return MOERT_OK;
}
