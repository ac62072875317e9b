/* vocab.c: words and their numbers.
 *
 * A text is cut at white space. The end of a line is a word too, <eos>. Where
 * the vocabulary says so, each mark of punctuation is a word as well; a word
 * that follows another without a space then begins with a joiner, U+FFED, so
 * that the text can be put together again. A word that is not in the vocabulary
 * is <unk>.
 *
 * The file is text: a line that says how words are cut, then a word a line, in
 * the order of their numbers: <unk>, <eos>, then from the most frequent one. */
#include "rt.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define JOINER "\xef\xbf\xad"
enum { SPECIALS = 2 };
static const char *const specials[SPECIALS] = {[RT_UNKNOWN] = "<unk>",
                                               [RT_LINE_END] = "<eos>"};

static const char *const heads[] = {
    /* ORDER SPLIT */
    [MOERT_SPLIT_SPACE] = "moert vocabulary: words",
    [MOERT_SPLIT_PUNCTUATION] = "moert vocabulary: words and punctuation",
};

/* ---- words of a text ----------------------------------------------------- */

typedef struct Word {
  const char *text;
  size_t len;
  bool joined; /* its joiner is not in the text */
} Word;

typedef struct Cut {
  const char *p, *start, *end;
  MoertSplit split;
} Cut;

static Cut cut_of(const char *text, size_t bytes, MoertSplit split) {
  if (!text) text = ""; /* of an empty file */
  return (Cut){text, text, text + bytes, split};
}

static bool is_blank(char c) {
  return c != '\n' && isspace((unsigned char)c);
}

static bool is_mark(char c) {
  return ispunct((unsigned char)c);
}

static bool is_line_end(const Word *w) {
  return w->text[0] == '\n';
}

/* The next word; false at the end of the text. */
static bool next_word(Cut *c, Word *out) {
  while (c->p < c->end && is_blank(*c->p))
    c->p++;
  if (c->p == c->end) return false;
  const char *from = c->p++;
  bool marks = c->split == MOERT_SPLIT_PUNCTUATION;
  if (*from != '\n' && !(marks && is_mark(*from)))
    while (c->p < c->end && !isspace((unsigned char)*c->p) &&
           !(marks && is_mark(*c->p)))
      c->p++;
  *out = (Word){from, (size_t)(c->p - from),
                marks && *from != '\n' && from > c->start &&
                    !isspace((unsigned char)from[-1])};
  return true;
}

/* ---- a table of words ---------------------------------------------------- */

typedef struct Kind {
  Word word;
  int64_t count;
} Kind;

/* Open addressing; numbers of kinds from 1, 0 for empty places. */
typedef struct Kinds {
  Kind *items;
  uint32_t *table;
  size_t n, mask, room;
} Kinds;

static void kinds_free(Kinds *k) {
  free(k->items);
  free(k->table);
}

static uint64_t word_hash(const Word *w) {
  RtHash h;
  rt_hash_start(&h);
  if (w->joined) rt_hash_add(&h, JOINER, strlen(JOINER));
  rt_hash_add(&h, w->text, w->len);
  return rt_hash_end(&h);
}

/* By their bytes, joiners included. */
static int word_compare(const Word *x, const Word *y) {
  char a[8] = "", b[8] = "";
  const size_t j = strlen(JOINER);
  size_t na = x->joined ? j : 0, nb = y->joined ? j : 0;
  memcpy(a, JOINER, na);
  memcpy(b, JOINER, nb);
  for (size_t i = 0; i < na + x->len && i < nb + y->len; i++) {
    unsigned char p = (unsigned char)(i < na ? a[i] : x->text[i - na]);
    unsigned char q = (unsigned char)(i < nb ? b[i] : y->text[i - nb]);
    if (p != q) return p < q ? -1 : 1;
  }
  return na + x->len < nb + y->len ? -1 : na + x->len > nb + y->len;
}

/* Where a word's number is, or is to be. */
static uint32_t *find_place(const Kinds *k, const Word *w) {
  size_t at = word_hash(w) & k->mask;
  while (k->table[at] &&
         word_compare(&k->items[k->table[at] - 1].word, w) != 0)
    at = (at + 1) & k->mask;
  return &k->table[at];
}

/* Room for twice as many. */
static MoertStatus kinds_grow(Kinds *k) {
  size_t room = k->room ? 2 * k->room : 1024;
  Kind *items = realloc(k->items, room * sizeof *items);
  if (!items) return rt_fail(MOERT_NO_MEMORY, "out of memory");
  k->items = items;
  free(k->table);
  k->table = NULL;
  const size_t places = 2 * room;
  RT_TRY(RT_NEW(&k->table, places));
  k->room = room;
  k->mask = places - 1;
  for (size_t i = 0; i < k->n; i++)
    *find_place(k, &k->items[i].word) = (uint32_t)i + 1;
  return MOERT_OK;
}

/* The number of a word, which is added where it is new. */
static MoertStatus kinds_add(Kinds *k, const Word *w, uint32_t *out) {
  if (k->n == k->room) RT_TRY(kinds_grow(k));
  uint32_t *place = find_place(k, w);
  if (!*place) {
    if (k->n == INT32_MAX)
      return rt_fail(MOERT_INVALID, "more than %d kinds of words", INT32_MAX);
    k->items[k->n++] = (Kind){*w, 0};
    *place = (uint32_t)k->n;
  }
  *out = *place - 1;
  return MOERT_OK;
}

/* ---- a vocabulary -------------------------------------------------------- */

struct MoertVocab {
  MoertSplit split;
  char *text; /* the file; its words point into it */
  size_t bytes;
  Kinds kinds;
  uint64_t hash; /* over the file */
};

static MoertStatus add_line(MoertVocab *v, const char *path, const Word *w) {
  uint32_t number, wanted = (uint32_t)v->kinds.n;
  int line = (int)wanted + 2;
  if (w->len == 0)
    return rt_fail(MOERT_BAD_DATA, "%s:%d: an empty line", path, line);
  for (size_t i = 0; i < w->len; i++)
    if (isspace((unsigned char)w->text[i]))
      return rt_fail(MOERT_BAD_DATA, "%s:%d: white space in a word", path,
                     line);
  RT_TRY(kinds_add(&v->kinds, w, &number));
  if (number != wanted)
    return rt_fail(MOERT_BAD_DATA, "%s:%d: '%.*s' is also in line %u", path,
                   line, (int)w->len, w->text, number + 2);
  if (number < SPECIALS && (strlen(specials[number]) != w->len ||
                            memcmp(specials[number], w->text, w->len) != 0))
    return rt_fail(MOERT_BAD_DATA, "%s:%d: '%.*s' where %s must be", path,
                   line, (int)w->len, w->text, specials[number]);
  return MOERT_OK;
}

/* Takes the line at *p. */
static Word take_line(const char **p, const char *end) {
  const char *from = *p, *nl = memchr(from, '\n', (size_t)(end - from));
  *p = nl ? nl + 1 : end;
  return (Word){from, (size_t)((nl ? nl : end) - from), false};
}

static MoertStatus read_lines(MoertVocab *v, const char *path) {
  const char *p = v->text, *end = v->text + v->bytes;
  Word head = take_line(&p, end);
  size_t split = 0;
  while (split < COUNT_OF(heads) &&
         (strlen(heads[split]) != head.len ||
          memcmp(heads[split], head.text, head.len) != 0))
    split++;
  if (split == COUNT_OF(heads))
    return rt_fail(MOERT_BAD_DATA,
                   "%s is no vocabulary: its first line is not '%s'", path,
                   heads[MOERT_SPLIT_SPACE]);
  v->split = (MoertSplit)split;
  while (p < end) {
    Word w = take_line(&p, end);
    RT_TRY(add_line(v, path, &w));
  }
  if (v->kinds.n < SPECIALS)
    return rt_fail(MOERT_BAD_DATA, "%s: <unk> and <eos> are missing", path);
  return MOERT_OK;
}

/* Takes over `text`. */
static MoertStatus vocab_of(char *text, size_t bytes, const char *path,
                            MoertVocab **out) {
  MoertVocab *v;
  MoertStatus st = RT_NEW(&v, 1);
  if (st != MOERT_OK) {
    free(text);
    return st;
  }
  v->text = text;
  v->bytes = bytes;
  v->hash = rt_hash(text, bytes);
  st = read_lines(v, path);
  if (st == MOERT_OK)
    *out = v;
  else
    moert_vocab_close(v);
  return st;
}

MoertStatus moert_vocab_open(const char *path, MoertVocab **out_vocab) {
  const char *map;
  size_t bytes;
  *out_vocab = NULL;
  RT_TRY(rt_map_file(path, &map, &bytes));
  char *text;
  MoertStatus st = RT_NEW(&text, bytes);
  if (st == MOERT_OK) {
    if (bytes) memcpy(text, map, bytes);
    st = vocab_of(text, bytes, path, out_vocab);
  }
  rt_unmap(map, bytes);
  return st;
}

void moert_vocab_close(MoertVocab *v) {
  if (!v) return;
  kinds_free(&v->kinds);
  free(v->text);
  free(v);
}

int64_t moert_vocab_size(const MoertVocab *v) {
  return (int64_t)v->kinds.n;
}

uint64_t rt_vocab_hash(const MoertVocab *v) {
  return v->hash;
}

MoertStatus moert_vocab_save(const MoertVocab *v, const char *path) {
  return rt_replace_file(path, v->text, v->bytes);
}

/* ---- making one ---------------------------------------------------------- */

/* The most frequent first; of equally frequent ones by their bytes. */
static int by_count(const void *x, const void *y) {
  const Kind *a = x, *b = y;
  if (a->count != b->count) return a->count > b->count ? -1 : 1;
  return word_compare(&a->word, &b->word);
}

typedef struct Text {
  const char *data;
  size_t bytes;
} Text;

static MoertStatus count_words(const Text *texts, int n, MoertSplit split,
                               Kinds *out) {
  uint32_t number;
  for (int i = 0; i < SPECIALS; i++) {
    Word w = {specials[i], strlen(specials[i]), false};
    RT_TRY(kinds_add(out, &w, &number));
  }
  for (int i = 0; i < n; i++) {
    const Text *t = &texts[i];
    Cut c = cut_of(t->data, t->bytes, split);
    for (Word w; next_word(&c, &w);)
      if (!is_line_end(&w)) {
        RT_TRY(kinds_add(out, &w, &number));
        out->items[number].count++;
      }
  }
  qsort(out->items + SPECIALS, out->n - SPECIALS, sizeof *out->items, by_count);
  return MOERT_OK;
}

static char *put_line(char *to, const Word *w) {
  if (w->joined) to = (char *)mempcpy(to, JOINER, strlen(JOINER));
  to = (char *)mempcpy(to, w->text, w->len);
  *to++ = '\n';
  return to;
}

/* The file of the first `n` kinds. */
static MoertStatus write_lines(const Kinds *k, size_t n, MoertSplit split,
                               char **out, size_t *out_bytes) {
  size_t room = strlen(heads[split]) + 1;
  for (size_t i = 0; i < n; i++)
    room += k->items[i].word.len + strlen(JOINER) + 1;
  RT_TRY(RT_NEW(out, room));
  Word head = {heads[split], strlen(heads[split]), false};
  char *to = put_line(*out, &head);
  for (size_t i = 0; i < n; i++)
    to = put_line(to, &k->items[i].word);
  *out_bytes = (size_t)(to - *out);
  return MOERT_OK;
}

/* The words point into the texts. */
static MoertStatus build(const Text *texts, int n, const char *path,
                         MoertSplit split, int64_t size, MoertVocab **out) {
  Kinds k = {0};
  char *text = NULL;
  size_t bytes = 0;
  MoertStatus st = count_words(texts, n, split, &k);
  if (st == MOERT_OK && k.n == SPECIALS)
    st = rt_fail(MOERT_BAD_DATA, "%s: no words in it", path);
  size_t kept = k.n < (size_t)size ? k.n : (size_t)size;
  if (st == MOERT_OK) st = write_lines(&k, kept, split, &text, &bytes);
  if (st == MOERT_OK) st = vocab_of(text, bytes, path, out);
  kinds_free(&k);
  return st;
}

MoertStatus moert_vocab_build(const char *const *text_paths, int n,
                              MoertSplit split, int64_t size,
                              MoertVocab **out_vocab) {
  Text *texts;
  MoertStatus st = MOERT_OK;
  *out_vocab = NULL;
  if (size <= SPECIALS)
    return rt_fail(MOERT_INVALID,
                   "a vocabulary of %lld words has no room beside <unk> and "
                   "<eos>",
                   (long long)size);
  RT_TRY(RT_NEW(&texts, n));
  for (int i = 0; i < n && st == MOERT_OK; i++)
    st = rt_map_file(text_paths[i], &texts[i].data, &texts[i].bytes);
  if (st == MOERT_OK)
    st = build(texts, n, text_paths[0], split, size, out_vocab);
  for (int i = 0; i < n; i++)
    rt_unmap(texts[i].data, texts[i].bytes);
  free(texts);
  return st;
}

/* ---- text to numbers and back -------------------------------------------- */

static uint32_t number_of(const MoertVocab *v, const Word *w) {
  if (is_line_end(w)) return RT_LINE_END;
  uint32_t place = *find_place(&v->kinds, w);
  return place ? place - 1 : RT_UNKNOWN;
}

MoertStatus moert_vocab_encode(const MoertVocab *v, const char *text,
                               size_t bytes, uint32_t **out_tokens,
                               size_t *out_n) {
  Cut c = cut_of(text, bytes, v->split);
  size_t room = bytes / 4 + 16;
  *out_n = 0;
  RT_TRY(RT_NEW(out_tokens, room));
  for (Word w; next_word(&c, &w);) {
    if (*out_n == room) {
      uint32_t *more = realloc(*out_tokens, 2 * room * sizeof *more);
      if (!more) {
        free(*out_tokens);
        *out_tokens = NULL;
        return rt_fail(MOERT_NO_MEMORY, "out of memory");
      }
      *out_tokens = more;
      room *= 2;
    }
    (*out_tokens)[(*out_n)++] = number_of(v, &w);
  }
  return MOERT_OK;
}

const char *moert_vocab_word(const MoertVocab *v, int64_t token, size_t *out_n,
                             int *out_joined) {
  *out_joined = 0;
  *out_n = 1;
  if (token == RT_LINE_END) return "\n";
  const Word *w = &v->kinds.items[token].word;
  const size_t j = strlen(JOINER);
  *out_joined = v->split == MOERT_SPLIT_PUNCTUATION && w->len > j &&
                memcmp(w->text, JOINER, j) == 0;
  *out_n = w->len - (*out_joined ? j : 0);
  return w->text + (*out_joined ? j : 0);
}
