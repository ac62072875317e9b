/* moerun_translate.c: translations by beam search.
 *
 * The entry `encode` reports what all steps of a search need of a batch of
 * sentences; inputs of the entry `decode` from `encode.NAME` are given that
 * report. `decode` has some rows a sentence, BEAM of them: it is told for each
 * the last word, from `beam.tokens`, and of which row it is the continuation,
 * from `beam.parents`, and reports the likeliest next `words` of each row with
 * their `scores`, logarithms of probabilities.
 *
 * Of all continuations of a sentence the BEAM best are followed. One that ends
 * is a translation, and counts by its score over ((5 + words) / 6) ^ alpha (Wu
 * et al. 2016). A sentence is done when BEAM of them have ended. No word is
 * <unk>. */
#include "moerun.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A row at some step: the word it added, and the row before. */
typedef struct Link {
  int32_t word, parent;
} Link;

typedef struct Candidate {
  double score;
  int32_t row, word;
} Candidate;

typedef struct Sentence {
  int64_t line; /* of the file, -1: none */
  int ended;    /* how many translations */
  double best;
  int step, row; /* where the best ends */
} Sentence;

typedef struct Search {
  Run run;
  MoertText *text;
  char **lines; /* translations by line */
  const MoertEntry *decode;
  int sentences, beam, rows, choices, steps;
  int32_t *tokens, *parents; /* inputs */
  const float *scores;
  const int32_t *words;
  double *live; /* scores of rows, -INFINITY for none */
  Link *links;  /* steps * rows */
  Candidate *candidates;
  Sentence *of;
} Search;

/* ---- what the entries offer ---------------------------------------------- */

static const MoertBinding *find_in(const MoertEntry *e, const char *source) {
  for (int i = 0; i < e->n_ins; i++)
    if (e->ins[i].kind == MOERT_BIND_INPUT &&
        strcmp(e->ins[i].source, source) == 0)
      return &e->ins[i];
  return NULL;
}

static const MoertBinding *find_out(const MoertEntry *e, const char *name,
                                    int dtype) {
  for (int i = 0; i < e->n_outs; i++)
    if (e->outs[i].kind == MOERT_BIND_REPORT && e->outs[i].dtype == dtype &&
        e->outs[i].rank == 2 && strcmp(e->outs[i].name, name) == 0)
      return &e->outs[i];
  return NULL;
}

/* What is behind the first '.', with it: the size of "encode.S16". */
static const char *size_of(const char *entry) {
  const char *dot = strchr(entry, '.');
  return dot ? dot : "";
}

static int check_decode(const MoertEntry *e, int sentences) {
  const MoertBinding *tokens = find_in(e, "beam.tokens");
  const MoertBinding *parents = find_in(e, "beam.parents");
  const MoertBinding *scores = find_out(e, "scores", MOERT_f32);
  const MoertBinding *words = find_out(e, "words", MOERT_i32);
  if (!tokens || !parents || tokens->rank != 1 || parents->rank != 1 ||
      tokens->dtype != MOERT_i32 || parents->dtype != MOERT_i32 ||
      parents->dims[0] != tokens->dims[0])
    return run_error("entry %s must take i32[R] from beam.tokens and from "
                     "beam.parents",
                     e->name);
  int64_t rows = tokens->dims[0];
  if (sentences < 1 || rows % sentences != 0)
    return run_error("entry %s: %lld rows are not a multiple of the %d "
                     "sentences of encode",
                     e->name, (long long)rows, sentences);
  if (!scores || !words || scores->dims[0] != rows || words->dims[0] != rows ||
      words->dims[1] != scores->dims[1] ||
      scores->dims[1] < 2 * (rows / sentences))
    return run_error("entry %s must report scores f32[R, K] and words "
                     "i32[R, K], K at least twice the rows of a sentence",
                     e->name);
  return 0;
}

static int give_reports(Search *s, const char *encode) {
  const MoertEntry *e = s->decode;
  for (int i = 0; i < e->n_ins; i++) {
    const MoertBinding *b = &e->ins[i];
    const void *from;
    void *to;
    size_t has, takes;
    if (b->kind != MOERT_BIND_INPUT || strncmp(b->source, "encode.", 7) != 0)
      continue;
    MoertStatus st = moert_report_data(s->run.session, encode, b->source + 7,
                                       &from, &has);
    if (st == MOERT_OK)
      st = moert_input(s->run.session, e->name, b->name, &to, &takes);
    if (st != MOERT_OK) return run_failed(st);
    if (has != takes)
      return run_error("entry %s: input '%s' is not of the size of %s", e->name,
                       b->name, b->source);
    memcpy(to, from, has);
  }
  return 0;
}

/* ---- a search ------------------------------------------------------------ */

static double normalised(const Search *s, double score, int words) {
  return score / pow((5.0 + words) / 6.0, s->run.args->alpha);
}

static int by_score(const void *x, const void *y) {
  const Candidate *a = x, *b = y;
  if (a->score != b->score) return a->score > b->score ? -1 : 1;
  if (a->row != b->row) return a->row - b->row;
  return a->word - b->word;
}

/* All continuations of a sentence's rows by words that have a text, which
 * <unk> has not, the best first. */
static int find_candidates(const Search *s, int sentence) {
  int n = 0;
  int64_t words = run_words(&s->run, INT32_MAX);
  int64_t unknown = moert_unknown(s->run.tokens);
  for (int r = sentence * s->beam; r < (sentence + 1) * s->beam; r++)
    for (int k = 0; k < s->choices && s->live[r] > -INFINITY; k++) {
      int32_t word = s->words[r * s->choices + k];
      if (word < words && word != unknown)
        s->candidates[n++] = (Candidate){
            s->live[r] + (double)s->scores[r * s->choices + k], r, word};
    }
  qsort(s->candidates, (size_t)n, sizeof *s->candidates, by_score);
  return n;
}

static void offer(const Search *s, Sentence *of, const Candidate *c, int step) {
  double score = normalised(s, c->score, step + 1);
  of->ended++;
  if (score <= of->best) return;
  of->best = score;
  of->step = step;
  of->row = c->row;
}

/* A sentence that never ended is cut where it is. */
static void settle(Search *s, int sentence, int steps) {
  Sentence *of = &s->of[sentence];
  if (of->ended) return;
  int best = sentence * s->beam;
  for (int r = best; r < (sentence + 1) * s->beam; r++)
    if (s->live[r] > s->live[best]) best = r;
  of->ended = s->beam;
  of->step = steps;
  of->row = best;
}

/* One step of a sentence; its rows are what it goes on with. */
static void advance(Search *s, int sentence, int step, int32_t end) {
  Sentence *of = &s->of[sentence];
  int first = sentence * s->beam, row = first;
  int n = find_candidates(s, sentence);
  if (n == 0) settle(s, sentence, step);
  for (int i = 0; i < n && row < first + s->beam; i++) {
    const Candidate *c = &s->candidates[i];
    if (c->word == end) {
      if (i < s->beam) offer(s, of, c, step);
      continue;
    }
    s->links[step * s->rows + row] = (Link){c->word, c->row};
    s->tokens[row] = c->word;
    s->parents[row] = c->row;
    s->live[row++] = c->score;
  }
  for (; row < first + s->beam; row++)
    s->live[row] = -INFINITY;
  if (of->ended < s->beam) return;
  for (int r = first; r < first + s->beam; r++)
    s->live[r] = -INFINITY;
}

static bool any_live(const Search *s) {
  for (int r = 0; r < s->rows; r++)
    if (s->live[r] > -INFINITY) return true;
  return false;
}

static void start(Search *s, int32_t end) {
  for (int i = 0; i < s->sentences; i++) {
    s->of[i] = (Sentence){.line = moert_text_line(s->text, i),
                          .best = -INFINITY};
    for (int r = i * s->beam; r < (i + 1) * s->beam; r++) {
      s->tokens[r] = end;
      s->parents[r] = r;
      s->live[r] = r == i * s->beam && s->of[i].line >= 0 ? 0 : -INFINITY;
    }
  }
}

static MoertStatus search(Search *s) {
  int32_t end = (int32_t)moert_line_end(s->run.tokens);
  MoertStatus st = moert_reset_state(s->run.session, s->decode->name);
  int step = 0;
  start(s, end);
  for (; st == MOERT_OK && step < s->steps && any_live(s); step++) {
    st = moert_step(s->run.session, s->decode->name);
    for (int i = 0; st == MOERT_OK && i < s->sentences; i++)
      advance(s, i, step, end);
  }
  for (int i = 0; i < s->sentences; i++)
    settle(s, i, step);
  return st;
}

/* ---- text ---------------------------------------------------------------- */

/* The words that lead to where a sentence's best translation ends; NULL when
 * out of memory. */
static char *text_of(const Search *s, const Sentence *of) {
  int32_t *words = calloc((size_t)of->step + 1, sizeof *words);
  char *text = NULL;
  size_t bytes = 0;
  FILE *f = open_memstream(&text, &bytes);
  bool line_start = true;
  for (int t = of->step - 1, row = of->row; words && t >= 0; t--) {
    const Link *l = &s->links[t * s->rows + row];
    words[t] = l->word;
    row = l->parent;
  }
  for (int t = 0; f && words && t < of->step; t++)
    run_put_token(f, &s->run, words[t], &line_start);
  bool ok = f && words && !ferror(f);
  free(words);
  if (f && fclose(f) != 0) ok = false;
  if (ok) return text;
  free(text);
  return NULL;
}

static int keep_texts(Search *s) {
  for (int i = 0; i < s->sentences; i++) {
    if (s->of[i].line < 0) continue;
    char *text = text_of(s, &s->of[i]);
    if (!text) return run_error("out of memory");
    s->lines[s->of[i].line] = text;
  }
  return 0;
}

static void print_lines(const Search *s, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    puts(s->lines[i] ? s->lines[i] : "");
  if (moert_text_left_out(s->text))
    fprintf(stderr, "%s sentences are too long for the model: their lines are "
            "empty\n",
            run_count_text(moert_text_left_out(s->text)));
}

/* ---- a file -------------------------------------------------------------- */

static void free_batch(Search *s) {
  free(s->live);
  free(s->links);
  free(s->candidates);
  free(s->of);
  s->live = NULL;
  s->links = NULL;
  s->candidates = NULL;
  s->of = NULL;
}

/* Memory and addresses for a batch of the entry `encode`. */
static int open_batch(Search *s, const char *encode) {
  const MoertEntry *e = run_entry(&s->run, encode);
  char name[80];
  size_t bytes;
  snprintf(name, sizeof name, "decode%s", size_of(encode));
  s->decode = run_entry(&s->run, name);
  if (!e || !s->decode) return EXIT_USER;
  s->sentences = 0;
  for (int i = 0; i < e->n_ins; i++)
    if (strncmp(e->ins[i].source, "pairs.source", 12) == 0) {
      s->sentences = (int)e->ins[i].dims[0];
      s->steps = 2 * (int)e->ins[i].dims[1];
    }
  int status = check_decode(s->decode, s->sentences);
  if (status) return status;
  s->rows = (int)find_in(s->decode, "beam.tokens")->dims[0];
  s->beam = s->rows / s->sentences;
  s->choices = (int)find_out(s->decode, "words", MOERT_i32)->dims[1];
  size_t rows = (size_t)s->rows;
  s->live = calloc(rows, sizeof *s->live);
  s->links = calloc(rows * (size_t)s->steps, sizeof *s->links);
  s->candidates = calloc((size_t)(s->beam * s->choices), sizeof *s->candidates);
  s->of = calloc((size_t)s->sentences, sizeof *s->of);
  if (!s->live || !s->links || !s->candidates || !s->of)
    return run_error("out of memory");
  MoertSession *m = s->run.session;
  const MoertBinding *tokens = find_in(s->decode, "beam.tokens");
  const MoertBinding *parents = find_in(s->decode, "beam.parents");
  void *to[2];
  const void *from[2];
  const char *decode = s->decode->name;
  MoertStatus st = moert_input(m, decode, tokens->name, &to[0], &bytes);
  if (st == MOERT_OK)
    st = moert_input(m, decode, parents->name, &to[1], &bytes);
  if (st == MOERT_OK)
    st = moert_report_data(m, decode, "scores", &from[0], &bytes);
  if (st == MOERT_OK)
    st = moert_report_data(m, decode, "words", &from[1], &bytes);
  if (st != MOERT_OK) return run_failed(st);
  s->tokens = to[0], s->parents = to[1];
  s->scores = from[0], s->words = from[1];
  return 0;
}

static int translate_batch(Search *s) {
  MoertTextEvent event;
  MoertStatus st = run_step(&s->run, s->text, &event);
  if (st != MOERT_OK) return run_failed(st);
  const char *encode = moert_text_entry(s->text);
  int status = open_batch(s, encode);
  if (!status) status = give_reports(s, encode);
  if (!status && (st = search(s)) != MOERT_OK) status = run_failed(st);
  if (!status) status = keep_texts(s);
  free_batch(s);
  return status;
}

static int translate(Search *s) {
  const RunArgs *a = s->run.args;
  int status = 0;
  MoertStatus st = moert_pairs_open(s->run.session, "encode", a->data, NULL,
                                    MOERT_TEXT_COVER, &s->text);
  if (st != MOERT_OK) return run_failed(st);
  int64_t n = moert_text_lines(s->text), batches = moert_text_batches(s->text);
  double started = run_seconds();
  if (!(s->lines = calloc((size_t)n, sizeof *s->lines)))
    return run_error("out of memory");
  for (int64_t i = 0; i < batches && !status; i++)
    status = translate_batch(s);
  if (!status) print_lines(s, n);
  if (!status && !a->quiet)
    fprintf(stderr, "%s sentences in %s\n", run_count_text(n),
            run_time_text(run_seconds() - started));
  for (int64_t i = 0; i < n; i++)
    free(s->lines[i]);
  free(s->lines);
  return status;
}

int run_translate(const RunArgs *a) {
  Search s = {0};
  if (ranks_count(a) > 1)
    return run_error("translate runs on one rank: compile the model for one, "
                     "its checkpoints fit");
  int status = run_open(a, a->ckpt, &s.run);
  if (!status) status = translate(&s);
  moert_text_close(s.text);
  run_close(&s.run);
  return status;
}
