/* read_lex.c: text to tokens, and what the reader may expect of the next. */
#include "read.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- tokens ------------------------------------------------------------- */

bool rd_fail(Reader *r, Span s, const char *fmt, ...) {
  char text[512];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  diag_error(r->cx, s, "%s", text);
  return false;
}

static bool is_name_char(char c) {
  return isalnum((unsigned char)c) || c == '_' || c == '.';
}

static char peek(const Reader *r, uint32_t ahead) {
  return r->at + ahead < r->len ? r->text[r->at + ahead] : '\0';
}

/* Skips blanks and comments; true when a line ended. */
static bool skip_blanks(Reader *r) {
  bool newline = r->at == 0;
  for (; r->at < r->len; r->at++) {
    char c = r->text[r->at];
    if (c == '#')
      while (r->at + 1 < r->len && r->text[r->at + 1] != '\n')
        r->at++;
    else if (c == '\n')
      newline = true;
    else if (c != ' ' && c != '\t' && c != '\r')
      break;
  }
  return newline;
}

static uint32_t name_length(const Reader *r, uint32_t from) {
  uint32_t n = 0;
  while (is_name_char(peek(r, from + n)))
    n++;
  return n;
}

/* A word; '-' may join letters, as in moec-ir. */
static void lex_word(Reader *r, RdToken *t) {
  uint32_t n = name_length(r, 0);
  while (peek(r, n) == '-' && isalpha((unsigned char)peek(r, n + 1)))
    n += 1 + name_length(r, n + 1);
  t->kind = T_WORD;
  t->text = sym_n(r->cx, r->text + r->at, n);
  r->at += n;
}

/* A name behind '%' or '@'. */
static void lex_name(Reader *r, RdToken *t, RdKind kind) {
  uint32_t n = name_length(r, 1);
  t->kind = n ? kind : T_WRONG;
  t->text = sym_n(r->cx, r->text + r->at + 1, n);
  r->at += n + 1;
  t->span.hi = r->at;
  if (!n)
    rd_fail(r, t->span, "expected a name after '%c'", r->text[t->span.lo]);
}

static void lex_number(Reader *r, RdToken *t) {
  char digits[64], *end;
  uint32_t n = 0;
  while (n < sizeof digits - 1) {
    char c = peek(r, n);
    bool sign = (c == '-' || c == '+') &&
                (n == 0 || digits[n - 1] == 'e' || digits[n - 1] == 'E');
    if (!isalnum((unsigned char)c) && c != '.' && !sign) break;
    digits[n++] = c;
  }
  digits[n] = '\0';
  r->at += n;
  t->span.hi = r->at;
  t->kind = T_NUMBER;
  errno = 0;
  t->integer = strtoll(digits, &end, 10);
  t->is_int = !*end && errno == 0;
  t->number = strtod(digits, &end);
  bool hex = digits[strspn(digits, "+-0")] == 'x' ||
             digits[strspn(digits, "+-0")] == 'X';
  if (*end || end == digits || hex) {
    t->kind = T_WRONG;
    rd_fail(r, t->span, "'%s' is not a number", digits);
  }
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = (char)tolower((unsigned char)c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The character that an escape at r->at stands for; -1: malformed. */
static int lex_escape(Reader *r) {
  char c = peek(r, 1);
  if (c == '"' || c == '\\') return r->at += 2, c;
  if (c != 'x') return -1;
  int hi = hex_digit(peek(r, 2)), lo = hi < 0 ? -1 : hex_digit(peek(r, 3));
  if (lo < 0 || hi * 16 + lo == 0) return -1;
  r->at += 4;
  return hi * 16 + lo;
}

static void lex_string(Reader *r, RdToken *t) {
  Buf b = {0};
  t->kind = T_STRING;
  r->at++;
  while (t->kind == T_STRING && peek(r, 0) != '"') {
    int c = (unsigned char)peek(r, 0);
    if (c == '\\')
      c = lex_escape(r);
    else if (c != '\0' && c != '\n')
      r->at++;
    else
      c = -1;
    if (c < 0) {
      t->span.hi = r->at + 1;
      rd_fail(r, t->span,
              "malformed string: it ends with '\"' on the same line, "
              "escapes are \\\" \\\\ \\xHH");
      t->kind = T_WRONG;
      while (r->at < r->len && r->text[r->at] != '\n')
        r->at++; /* nothing sensible follows on this line */
    }
    if (c >= 0) buf_add_n(&b, (char[]){(char)c}, 1);
  }
  if (t->kind == T_STRING) r->at++;
  t->text = sym_n(r->cx, b.data, b.len);
  buf_free(&b);
}

static void lex_sign(Reader *r, RdToken *t) {
  char c = r->text[r->at++];
  bool le = c == '<' && peek(r, 0) == '=';
  r->at += le;
  t->span.hi = r->at;
  t->kind = T_SIGN;
  t->sign = c;
  if (le || (c && strchr("(){}[],;:=", c))) return;
  t->kind = T_WRONG;
  if (isprint((unsigned char)c))
    rd_fail(r, t->span, "unexpected character '%c'", c);
  else
    rd_fail(r, t->span, "unexpected byte 0x%02x", (unsigned char)c);
}

void rd_next(Reader *r) {
  if (r->t.kind == T_SIGN) r->braces += (r->t.sign == '{') - (r->t.sign == '}');
  Span after_last = {r->file, r->t.span.hi, r->t.span.hi};
  r->t = (RdToken){.kind = T_END, .span = after_last};
  r->t.first = skip_blanks(r);
  if (r->at >= r->len) return;
  r->t.span.lo = r->at;
  char c = r->text[r->at], after = peek(r, 1);
  if (isalpha((unsigned char)c) || c == '_')
    lex_word(r, &r->t);
  else if (c == '%')
    lex_name(r, &r->t, T_VALUE);
  else if (c == '@')
    lex_name(r, &r->t, T_ENTRY);
  else if (isdigit((unsigned char)c) || c == '.' ||
           ((c == '-' || c == '+') && isalnum((unsigned char)after)))
    lex_number(r, &r->t);
  else if (c == '"')
    lex_string(r, &r->t);
  else
    lex_sign(r, &r->t);
  r->t.span.hi = r->at;
}

/* ---- expecting tokens --------------------------------------------------- */

bool rd_is_sign(const Reader *r, char sign) {
  return r->t.kind == T_SIGN && r->t.sign == sign;
}

bool rd_is_word(const Reader *r, const char *word) {
  return r->t.kind == T_WORD && strcmp(r->t.text, word) == 0;
}

bool rd_take_sign(Reader *r, char sign) {
  if (!rd_is_sign(r, sign)) return false;
  rd_next(r);
  return true;
}

bool rd_take_word(Reader *r, const char *word) {
  if (!rd_is_word(r, word)) return false;
  rd_next(r);
  return true;
}

bool rd_expected(Reader *r, const char *what) {
  if (r->t.kind == T_WRONG) return false;
  if (r->t.kind == T_END)
    return rd_fail(r, r->t.span, "expected %s, but the text ends", what);
  int len = (int)(r->t.span.hi - r->t.span.lo);
  return rd_fail(r, r->t.span, "expected %s, found '%.*s'", what,
                 len < 40 ? len : 40, r->text + r->t.span.lo);
}

bool rd_want_sign(Reader *r, char sign) {
  char what[] = {'\'', sign, '\'', '\0'};
  return rd_take_sign(r, sign) || rd_expected(r, sign == '<' ? "'<='" : what);
}

bool rd_want_word(Reader *r, const char *word) {
  return rd_take_word(r, word) || rd_expected(r, word);
}

bool rd_want_text(Reader *r, RdKind kind, const char *what, Sym *out) {
  if (r->t.kind != kind) return rd_expected(r, what);
  *out = r->t.text;
  rd_next(r);
  return true;
}

bool rd_want_string(Reader *r, Sym *out) {
  return rd_want_text(r, T_STRING, "a string", out);
}

bool rd_want_int(Reader *r, int64_t *out) {
  if (r->t.kind != T_NUMBER || !r->t.is_int)
    return rd_expected(r, "a 64-bit integer");
  *out = r->t.integer;
  rd_next(r);
  return true;
}

bool rd_want_float(Reader *r, double *out) {
  if (rd_is_word(r, "inf") || rd_is_word(r, "nan"))
    *out = strtod(r->t.text, NULL);
  else if (r->t.kind == T_NUMBER)
    *out = r->t.number;
  else
    return rd_expected(r, "a number");
  rd_next(r);
  return true;
}

bool rd_unknown(Reader *r, const char *what, const char *const *names,
                size_t n) {
  const char *near = nearest_word(r->t.text, names, n);
  return near ? rd_fail(r, r->t.span, "unknown %s '%s'; did you mean '%s'?",
                        what, r->t.text, near)
              : rd_fail(r, r->t.span, "unknown %s '%s'", what, r->t.text);
}

bool rd_want_one_of(Reader *r, const char *what, const char *const *names,
                    size_t n, size_t *out) {
  char a_what[32];
  snprintf(a_what, sizeof a_what, "%s %s", strchr("aeiou", *what) ? "an" : "a",
           what);
  if (r->t.kind != T_WORD) return rd_expected(r, a_what);
  for (*out = 0; *out < n; ++*out)
    if (names[*out] && rd_take_word(r, names[*out])) return true;
  return rd_unknown(r, what, names, n);
}
