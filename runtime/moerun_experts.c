/* moerun_experts.c: which contexts each expert takes (as Table 9 of Shazeer et
 * al. 2017 has them).
 *
 * A model tells by two reports of an entry over text, whatever layer they are
 * of: PATH/chosen, i32[.., k], has the experts of each token of the batch, and
 * PATH/gates, floats of the same dims, by how much; a gate of 0 is no choice.
 * moe of models/lib/moe.dsl reports them outside of training. */
#include "moerun.h"

#include <stdlib.h>
#include <string.h>

typedef struct Experts {
  Run run;
  const char *entry;
  MoertText *text;
  RunLayer *layers;
  int n_layers;
} Experts;

/* ---- what the entry reports ---------------------------------------------- */

static const MoertBinding *find_report(const MoertEntry *e, const char *path,
                                       const char *name) {
  size_t len = strlen(path);
  for (int i = 0; i < e->n_outs; i++) {
    const MoertBinding *b = &e->outs[i];
    if (b->kind == MOERT_BIND_REPORT && strncmp(b->name, path, len) == 0 &&
        strcmp(b->name + len, name) == 0)
      return b;
  }
  return NULL;
}

/* "a/b/" of "a/b/chosen", "" of "chosen"; NULL for another name. */
static char *path_of_chosen(const char *name) {
  const char *last = strrchr(name, '/');
  last = last ? last + 1 : name;
  return strcmp(last, "chosen") == 0 ? strndup(name, (size_t)(last - name))
                                     : NULL;
}

static int64_t tokens_of(const MoertBinding *b) {
  int64_t n = 1;
  for (int i = 0; i + 1 < b->rank; i++)
    n *= b->dims[i];
  return n;
}

static bool same_dims(const MoertBinding *a, const MoertBinding *b) {
  if (a->rank != b->rank) return false;
  for (int i = 0; i < a->rank; i++)
    if (a->dims[i] != b->dims[i]) return false;
  return true;
}

/* "a/b" of "a/b/", the entry's name of "". */
static char *title_of(char *path, const MoertEntry *e) {
  size_t len = strlen(path);
  if (len) {
    path[len - 1] = 0;
    return path;
  }
  free(path);
  return strdup(e->name);
}

/* Whether it is a layer's choices; *out is filled then. */
static bool find_layer(const Experts *x, const MoertEntry *e,
                       const MoertBinding *chosen, RunLayer *out) {
  if (chosen->kind != MOERT_BIND_REPORT || chosen->dtype != MOERT_i32 ||
      chosen->rank < 2 ||
      tokens_of(chosen) != moert_text_batch_tokens(x->text))
    return false;
  char *path = path_of_chosen(chosen->name);
  if (!path) return false;
  const MoertBinding *gates = find_report(e, path, "gates");
  if (gates && (gates->dtype == MOERT_f32 || gates->dtype == MOERT_f64) &&
      same_dims(gates, chosen)) {
    *out = (RunLayer){title_of(path, e), gates, chosen, NULL, 0, 0};
    return out->title != NULL;
  }
  free(path);
  return false;
}

static int find_layers(Experts *x, const MoertEntry *e) {
  x->layers = calloc((size_t)e->n_outs + 1, sizeof *x->layers);
  if (!x->layers) return run_error("out of memory");
  for (int i = 0; i < e->n_outs; i++)
    if (find_layer(x, e, &e->outs[i], &x->layers[x->n_layers])) x->n_layers++;
  if (x->n_layers) return 0;
  return run_error("entry %s does not report who goes to which expert: "
                   "PATH/chosen, i32[.., k], and PATH/gates, floats of the "
                   "same dims, for each token of a batch",
                   e->name);
}

/* ---- choices ------------------------------------------------------------- */

static bool add_choice(RunLayer *l, RunChoice c) {
  if (l->n == l->cap) {
    int64_t cap = l->cap ? 2 * l->cap : 4096;
    RunChoice *more = realloc(l->choices, (size_t)cap * sizeof *more);
    if (!more) return false;
    l->choices = more;
    l->cap = cap;
  }
  l->choices[l->n++] = c;
  return true;
}

/* Those of the last batch. */
static int add_choices(const Experts *x, RunLayer *l) {
  const void *gates, *chosen;
  size_t bytes;
  MoertStatus st = moert_report_data(x->run.session, x->entry, l->gates->name,
                                     &gates, &bytes);
  if (st == MOERT_OK)
    st = moert_report_data(x->run.session, x->entry, l->chosen->name, &chosen,
                           &bytes);
  if (st != MOERT_OK) return run_failed(st);
  int64_t k = l->chosen->dims[l->chosen->rank - 1];
  for (int64_t i = 0; i < tokens_of(l->chosen) * k; i++) {
    float gate = l->gates->dtype == MOERT_f64
                     ? (float)((const double *)gates)[i]
                     : ((const float *)gates)[i];
    RunChoice c = {moert_text_at(x->text, i / k),
                   ((const int32_t *)chosen)[i], gate};
    if (c.at >= 0 && c.expert >= 0 && gate > 0 && !add_choice(l, c))
      return run_error("out of memory");
  }
  return 0;
}

static int by_expert(const void *x, const void *y) {
  const RunChoice *a = x, *b = y;
  if (a->expert != b->expert) return a->expert < b->expert ? -1 : 1;
  if (a->gate != b->gate) return a->gate > b->gate ? -1 : 1;
  return (a->at > b->at) - (a->at < b->at);
}

static int read_choices(Experts *x) {
  for (;;) {
    MoertTextEvent event;
    MoertStatus st = run_step(&x->run, x->text, &event);
    if (st != MOERT_OK) return run_failed(st);
    if (event == MOERT_TEXT_END) break;
    for (int i = 0; i < x->n_layers; i++)
      if (add_choices(x, &x->layers[i])) return EXIT_USER;
  }
  for (int i = 0; i < x->n_layers; i++) {
    RunLayer *l = &x->layers[i];
    if (l->n == 0)
      return run_error("layer %s: no token goes to any expert", l->title);
    qsort(l->choices, (size_t)l->n, sizeof *l->choices, by_expert);
  }
  return 0;
}

int64_t run_choices_end(const RunLayer *l, int64_t i) {
  int32_t expert = l->choices[i].expert;
  while (i < l->n && l->choices[i].expert == expert)
    i++;
  return i;
}

/* ---- text ---------------------------------------------------------------- */

/* Bytes of a whole UTF-8 character at s, 0: there is none. */
static size_t utf8_length(const char *s, size_t n) {
  unsigned char c = (unsigned char)s[0];
  size_t len = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
  if (c >= 0xf5 || len > n) return 0;
  for (size_t i = 1; i < len; i++)
    if (((unsigned char)s[i] & 0xc0) != 0x80) return 0;
  unsigned char next = len > 1 ? (unsigned char)s[1] : 0;
  bool overlong = (c == 0xe0 && next < 0xa0) || (c == 0xf0 && next < 0x90);
  bool outside = (c == 0xed && next > 0x9f) || (c == 0xf4 && next > 0x8f);
  return overlong || outside ? 0 : len;
}

/* What is written in the place of a byte in XML, NULL: itself. */
static const char *xml_entity(char c) {
  switch (c) {
  case '<': return "&lt;";
  case '>': return "&gt;";
  case '&': return "&amp;";
  case '"': return "&quot;";
  default: return NULL;
  }
}

void run_put_escaped(FILE *f, const char *text, size_t n, bool xml) {
  for (size_t i = 0; i < n;) {
    size_t len = utf8_length(text + i, n - i);
    unsigned char c = (unsigned char)text[i];
    const char *entity = xml ? xml_entity(text[i]) : NULL;
    if (c == '\n')
      fputs("\\n", f);
    else if (len == 0 || c < ' ' || c == 0x7f)
      fprintf(f, "\\x%02x", c);
    else if (entity)
      fputs(entity, f);
    else
      fwrite(text + i, 1, len, f);
    i += len ? len : 1;
  }
}

/* Tokens [from, to) of the text as one string: a character may be several. */
static int put_tokens(const Experts *x, int64_t from, int64_t to) {
  char *line = NULL;
  size_t n = 0;
  FILE *f = open_memstream(&line, &n);
  if (!f) return run_error("out of memory");
  for (int64_t i = from; i < to; i++) {
    RunToken t = run_token(&x->run, moert_text_token(x->text, i));
    if (!t.joined && i > from) fputc(' ', f);
    fwrite(run_token_text(&t), 1, t.n, f);
  }
  if (fclose(f) != 0) return run_error("out of memory");
  run_put_escaped(stdout, line, n, false);
  free(line);
  return 0;
}

/* Where a context begins that would at `from`: not within a character. */
static int64_t whole_from(const Experts *x, int64_t from, int64_t to) {
  if (x->run.tokens != MOERT_BYTES || from == 0) return from;
  for (int i = 0; i < 3 && from < to; i++, from++)
    if ((moert_text_token(x->text, from) & 0xc0) != 0x80) break;
  return from;
}

static int put_context(const Experts *x, const RunChoice *c) {
  int64_t width = x->run.args->around;
  if (width < 0) width = x->run.tokens == MOERT_BYTES ? 30 : 8;
  int64_t n = moert_text_tokens(x->text);
  int64_t from = whole_from(x, c->at > width ? c->at - width : 0, c->at);
  bool apart = x->run.tokens != MOERT_BYTES;
  printf("    %.3f  ", (double)c->gate);
  if (put_tokens(x, from, c->at)) return EXIT_USER;
  printf(apart && from < c->at ? " [" : "[");
  if (put_tokens(x, c->at, c->at + 1)) return EXIT_USER;
  printf(apart && c->at + 1 < n ? "] " : "]");
  int64_t to = n - c->at > width ? c->at + 1 + width : n;
  if (put_tokens(x, c->at + 1, to)) return EXIT_USER;
  putchar('\n');
  return 0;
}

/* ---- the tokens that an expert takes most of ----------------------------- */

typedef struct Count {
  int64_t token, n;
} Count;

static int by_token(const void *x, const void *y) {
  const Count *a = x, *b = y;
  return (a->token > b->token) - (a->token < b->token);
}

static int by_count(const void *x, const void *y) {
  const Count *a = x, *b = y;
  return a->n != b->n ? (a->n > b->n ? -1 : 1) : by_token(x, y);
}

/* Of choices [from, to), the most frequent first; how many differ. */
static int64_t count_tokens(const Experts *x, const RunLayer *l, int64_t from,
                            int64_t to, Count *out) {
  int64_t n = to - from, differ = 0;
  for (int64_t i = 0; i < n; i++)
    out[i] = (Count){moert_text_token(x->text, l->choices[from + i].at), 1};
  qsort(out, (size_t)n, sizeof *out, by_token);
  for (int64_t i = 0; i < n; i++)
    if (differ && out[differ - 1].token == out[i].token)
      out[differ - 1].n++;
    else
      out[differ++] = out[i];
  qsort(out, (size_t)differ, sizeof *out, by_count);
  return differ;
}

enum { TOKENS_TOLD = 8 };

static int put_expert(const Experts *x, const RunLayer *l, int64_t from,
                      int64_t to) {
  double gates = 0, n = (double)(to - from);
  Count *counts = calloc((size_t)(to - from), sizeof *counts);
  if (!counts) return run_error("out of memory");
  for (int64_t i = from; i < to; i++)
    gates += (double)l->choices[i].gate;
  printf("\n  expert %d: %.2f %% of the choices, mean gate %.3f\n    takes",
         l->choices[from].expert, 100 * n / (double)l->n, gates / n);
  int64_t differ = count_tokens(x, l, from, to, counts);
  for (int64_t i = 0; i < differ && i < TOKENS_TOLD; i++) {
    RunToken t = run_token(&x->run, counts[i].token);
    printf("%s '", i ? "," : "");
    run_put_escaped(stdout, run_token_text(&t), t.n, false);
    printf("' %.0f %%", 100 * (double)counts[i].n / n);
  }
  putchar('\n');
  free(counts);
  for (int64_t i = from; i < to && i < from + x->run.args->top; i++)
    if (put_context(x, &l->choices[i])) return EXIT_USER;
  return 0;
}

static int put_layer(const Experts *x, const RunLayer *l) {
  int64_t only = x->run.args->expert, experts = 0, end;
  for (int64_t i = 0; i < l->n; i = run_choices_end(l, i))
    experts++;
  printf("%s: %s choices of %lld experts, for %s tokens\n", l->title,
         run_count_text(l->n), (long long)experts,
         run_count_text(moert_text_tokens(x->text)));
  for (int64_t i = 0; i < l->n; i = end) {
    end = run_choices_end(l, i);
    if (only >= 0 && l->choices[i].expert != only) continue;
    if (put_expert(x, l, i, end)) return EXIT_USER;
  }
  return 0;
}

static bool has_expert(const RunLayer *l, int64_t expert) {
  for (int64_t i = 0; i < l->n; i = run_choices_end(l, i))
    if (expert < 0 || l->choices[i].expert == expert) return true;
  return false;
}

static int put_layers(const Experts *x) {
  int64_t only = x->run.args->expert, told = 0;
  for (int i = 0; i < x->n_layers; i++) {
    if (!has_expert(&x->layers[i], only)) continue;
    if (told++) putchar('\n');
    if (put_layer(x, &x->layers[i])) return EXIT_USER;
  }
  if (told) return 0;
  return run_error("--expert %lld: no token of %s goes to it", (long long)only,
                   x->run.args->data);
}

/* ---- the verb ------------------------------------------------------------ */

static int tell(Experts *x, const MoertEntry *e) {
  const RunArgs *a = x->run.args;
  MoertStatus st = moert_text_open(x->run.session, e->name, a->data,
                                   MOERT_TEXT_COVER, &x->text);
  if (st != MOERT_OK) return run_failed(st);
  int status = find_layers(x, e);
  if (!status) status = read_choices(x);
  if (!status) status = put_layers(x);
  if (!status && a->out)
    status = run_draw_heat(&x->run, x->text, x->layers, x->n_layers, a->out);
  return status;
}

int run_experts(const RunArgs *a) {
  Experts x = {.entry = a->entry ? a->entry : "eval"};
  int status = run_open(a, a->ckpt, &x.run);
  const MoertEntry *e = status ? NULL : run_entry(&x.run, x.entry);
  if (!status && !e) status = EXIT_USER;
  if (!status) x.entry = e->name;
  if (!status) status = tell(&x, e);
  for (int i = 0; i < x.n_layers; i++) {
    free(x.layers[i].title);
    free(x.layers[i].choices);
  }
  free(x.layers);
  moert_text_close(x.text);
  run_close(&x.run);
  return status;
}
