/* read.h: what the reader's two files share: read_lex.c makes tokens of text,
 * read.c makes IR of tokens. */
#ifndef MOEC_READ_H
#define MOEC_READ_H

#include "ir.h"

typedef enum RdKind {
  T_END,
  T_WORD,   /* text: a name or keyword */
  T_VALUE,  /* text: the name behind '%' */
  T_ENTRY,  /* text: the name behind '@' */
  T_NUMBER, /* number; integer when `is_int` */
  T_STRING, /* text: the contents */
  T_SIGN,   /* sign: one of (){}[],;:= or '<' for "<=" */
  T_WRONG   /* reported already */
} RdKind;

typedef struct RdToken {
  RdKind kind;
  Span span;
  bool first; /* on its line */
  char sign;
  Sym text;
  double number;
  bool is_int;
  int64_t integer;
} RdToken;

typedef struct Reader {
  Ctx *cx;
  Arena *a;
  uint32_t file;
  const char *text;
  uint32_t at, len;
  RdToken t;  /* the one to be read next */
  int braces; /* open before t */
  Module *m;
  Entry *entry;
  Map defs; /* name -> Def, of the entry */
  int depth;
} Reader;

/* Reports a mistake; always false. */
bool rd_fail(Reader *r, Span s, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Moves on: r->t becomes the next token. */
void rd_next(Reader *r);

/* Whether the next token is this; take: and if so, moves on; want: reports it
 * where it is not. */
bool rd_is_sign(const Reader *r, char sign);
bool rd_is_word(const Reader *r, const char *word);
bool rd_take_sign(Reader *r, char sign);
bool rd_take_word(Reader *r, const char *word);
bool rd_want_sign(Reader *r, char sign);
bool rd_want_word(Reader *r, const char *word);
bool rd_want_text(Reader *r, RdKind kind, const char *what, Sym *out);
bool rd_want_string(Reader *r, Sym *out);
bool rd_want_int(Reader *r, int64_t *out);
bool rd_want_float(Reader *r, double *out);
/* One of `n` words; gives its index. */
bool rd_want_one_of(Reader *r, const char *what, const char *const *names,
                    size_t n, size_t *out);

/* Always false: something else was expected here; a word is unknown, with the
 * nearest of `names`. */
bool rd_expected(Reader *r, const char *what);
bool rd_unknown(Reader *r, const char *what, const char *const *names,
                size_t n);

#endif
