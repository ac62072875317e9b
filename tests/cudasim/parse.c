/* parse.c: PTX text to statements, by recursive descent.
 *
 * Nothing is looked up here: names stay parts of the text, since a function is
 * decoded once for each of its calls and names depend on the scope. What this
 * does not know of the language is an error with its line. Debug sections are
 * passed over; `.loc` gives the statements their line in the source. */
#include "cudasim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum TokenKind { T_END, T_WORD, T_INT, T_F32, T_F64, T_TEXT, T_OTHER }
TokenKind;

typedef struct Parser {
  Module *m;
  const char *at; /* behind the token */
  int line;
  TokenKind kind;
  Str word;      /* T_WORD, T_TEXT */
  int64_t value; /* numbers; the character of T_OTHER */
  Loc loc;       /* of the last .loc */
} Parser;

/* ---- types, spaces, errors ----------------------------------------------- */

const TypeInfo type_info[TYPE_COUNT] = {
    {"", 0, 0},
#define TY(name, kind, bytes) {#name, kind, bytes},
#include "types.def"
#undef TY
};

bool str_is(Str s, const char *text) {
  return strlen(text) == (size_t)s.n && !memcmp(s.at, text, (size_t)s.n);
}

bool str_same(Str a, Str b) {
  return a.n == b.n && !memcmp(a.at, b.at, (size_t)a.n);
}

Type type_named(Str name) {
  for (int t = 1; t < TYPE_COUNT; t++)
    if (str_is(name, type_info[t].name)) return (Type)t;
  return TY_none;
}

Space space_named(Str name) {
  static const char *const names[] = {
      [SP_REG] = "reg",       [SP_GLOBAL] = "global", [SP_CONST] = "const",
      [SP_SHARED] = "shared", [SP_LOCAL] = "local",   [SP_PARAM] = "param"};
  for (int s = SP_REG; s <= SP_PARAM; s++)
    if (str_is(name, names[s])) return (Space)s;
  return SP_GENERIC;
}

bool ptx_error(Module *m, int line, const char *format, ...) {
  if (m->error[0]) return false;
  int n = snprintf(m->error, sizeof m->error, "PTX line %d: ", line);
  va_list args;
  va_start(args, format);
  vsnprintf(m->error + n, sizeof m->error - (size_t)n, format, args);
  va_end(args);
  return false;
}

/* Nothing is read behind an error. */
static void wrong(Parser *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void wrong(Parser *p, const char *format, ...) {
  char text[256];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  ptx_error(p->m, p->line, "%s", text);
  p->kind = T_END;
}

/* ---- tokens -------------------------------------------------------------- */

static bool word_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         (c >= '0' && c <= '9') || c == '_' || c == '$' || c == '%' || c == '.';
}

static void skip_blanks(Parser *p) {
  for (;; p->at++) {
    if (*p->at == '\n') {
      p->line++;
    } else if (p->at[0] == '/' && p->at[1] == '/') {
      while (p->at[1] && p->at[1] != '\n')
        p->at++;
    } else if (p->at[0] == '/' && p->at[1] == '*') {
      for (p->at += 2; *p->at && !(p->at[0] == '*' && p->at[1] == '/'); p->at++)
        p->line += *p->at == '\n';
      if (!*p->at) return;
      p->at++;
    } else if (*p->at != ' ' && *p->at != '\t' && *p->at != '\r') {
      return;
    }
  }
}

static void number(Parser *p) {
  char *end;
  char kind = p->at[0] == '0' ? p->at[1] : 0;
  if (kind == 'f' || kind == 'F' || kind == 'd' || kind == 'D') {
    p->kind = kind == 'f' || kind == 'F' ? T_F32 : T_F64;
    p->value = (int64_t)strtoull(p->at + 2, &end, 16);
  } else {
    p->kind = T_INT;
    p->value = (int64_t)strtoull(p->at, &end, 0);
    if (*end == 'U') end++;
  }
  if (word_char(*end) && *end != '.') { /* the 8.0 of .version */
    wrong(p, "malformed number");
  }
  p->at = end;
}

static void next(Parser *p) {
  if (p->m->error[0]) {
    p->kind = T_END;
    return;
  }
  skip_blanks(p);
  const char *start = p->at;
  if (!*start) {
    p->kind = T_END;
  } else if (*start >= '0' && *start <= '9') {
    number(p);
  } else if (word_char(*start)) {
    while (word_char(*p->at) || (p->at[0] == ':' && p->at[1] == ':'))
      p->at += *p->at == ':' ? 2 : 1;
    p->kind = T_WORD;
    p->word = (Str){start, (int)(p->at - start)};
  } else if (*start == '"') {
    p->at = strchr(start + 1, '"');
    p->kind = p->at ? T_TEXT : T_END;
    if (!p->at) p->at = start + strlen(start);
    else p->at++;
    p->word = (Str){start + 1, (int)(p->at - start) - 2};
  } else {
    p->kind = T_OTHER;
    p->value = *p->at++;
  }
}

static bool is(const Parser *p, char c) {
  return p->kind == T_OTHER && p->value == c;
}
static bool is_word(const Parser *p, const char *text) {
  return p->kind == T_WORD && str_is(p->word, text);
}
static bool accept(Parser *p, char c) {
  if (!is(p, c)) return false;
  next(p);
  return true;
}
static bool accept_word(Parser *p, const char *text) {
  if (!is_word(p, text)) return false;
  next(p);
  return true;
}

static void unexpected(Parser *p, const char *wanted) {
  if (p->kind == T_WORD || p->kind == T_TEXT)
    wrong(p, "expected %s, not '%.*s'", wanted, p->word.n,
              p->word.at);
  else if (p->kind == T_OTHER)
    wrong(p, "expected %s, not '%c'", wanted, (char)p->value);
  else
    wrong(p, "expected %s", wanted);
}

static void expect(Parser *p, char c) {
  char wanted[4] = {'\'', c, '\'', 0};
  if (!accept(p, c)) unexpected(p, wanted);
}

static Str expect_name(Parser *p) {
  Str name = p->word;
  if (p->kind == T_WORD) next(p);
  else unexpected(p, "a name");
  return name;
}

static int64_t expect_int(Parser *p) {
  bool minus = accept(p, '-');
  int64_t v = p->value;
  if (p->kind == T_INT) next(p);
  else unexpected(p, "a number");
  return minus ? (int64_t)(0 - (uint64_t)v) : v;
}

/* Passes over the rest of a line, as what follows is for other readers. */
static void skip_line(Parser *p) {
  while (*p->at && *p->at != '\n')
    p->at++;
  next(p);
}

/* .loc FILE LINE COLUMN ... */
static void loc(Parser *p) {
  next(p);
  p->loc.file = (int)expect_int(p);
  if (p->kind == T_INT) p->loc.line = (int)p->value;
  skip_line(p);
}

/* .file NUMBER "name" ..., at the word */
static void file(Parser *p) {
  enum { MOST = 1 << 16 };
  next(p);
  int64_t number = expect_int(p);
  Module *m = p->m;
  if (p->kind == T_TEXT && number >= m->n_files && number < MOST) {
    Str *files = arena_new(&m->arena, (size_t)(number + 1) * sizeof *files);
    if (m->n_files)
      memcpy(files, m->files, (size_t)m->n_files * sizeof *files);
    m->files = files;
    m->n_files = (int)number + 1;
  }
  if (p->kind == T_TEXT && number >= 0 && number < m->n_files)
    m->files[number] = p->word;
  skip_line(p);
}

/* ---- variables ----------------------------------------------------------- */

static void put_element(Parser *p, uint8_t *to, int bytes) {
  bool minus = accept(p, '-');
  uint64_t v = (uint64_t)p->value;
  if (p->kind != T_INT && p->kind != T_F32 && p->kind != T_F64) {
    unexpected(p, "a number: addresses as initial values are not known here");
    return;
  }
  next(p);
  if (minus) v = 0 - v;
  memcpy(to, &v, (size_t)bytes); /* little endian */
}

static void initial_value(Parser *p, Var *v) {
  int bytes = type_info[v->type].bytes;
  uint8_t *init = arena_new(&p->m->arena, (size_t)v->bytes + 8);
  v->init = init;
  if (!accept(p, '{')) {
    put_element(p, init, bytes);
    return;
  }
  for (int64_t i = 0; !is(p, '}') && p->kind != T_END; i++) {
    if ((i + 1) * bytes > v->bytes) {
      wrong(p, "more values than '%.*s' has", v->name.n,
                v->name.at);
      return;
    }
    put_element(p, init + i * bytes, bytes);
    if (!accept(p, ',')) break;
  }
  expect(p, '}');
}

/* From behind the space to behind the last dimension: type, name, size. */
static Var variable(Parser *p, Space space) {
  Var v = {.space = space, .count = -1, .line = p->line};
  int vector = 1;
  for (; p->kind == T_WORD && p->word.at[0] == '.'; next(p)) {
    Str w = {p->word.at + 1, p->word.n - 1};
    if (str_is(w, "align")) {
      next(p);
      v.align = (int)p->value;
      if (p->kind != T_INT) unexpected(p, "a number");
    } else if (str_is(w, "v2") || str_is(w, "v4")) {
      vector = w.at[1] - '0';
    } else if (type_named(w)) {
      v.type = type_named(w);
    } else if (!str_is(w, "ptr") && !space_named(w)) {
      unexpected(p, "a type");
    }
  }
  if (!v.type) unexpected(p, "a type");
  v.name = expect_name(p);
  if (accept(p, '<')) {
    v.count = (int)expect_int(p);
    expect(p, '>');
  }
  v.bytes = type_info[v.type].bytes * vector;
  if (!v.align) v.align = v.bytes ? (int)v.bytes : 1;
  while (accept(p, '[')) {
    v.bytes *= is(p, ']') ? 0 : expect_int(p);
    expect(p, ']');
  }
  return v;
}

static void module_variable(Parser *p, Space space) {
  Var v = variable(p, space);
  if (accept(p, '=')) initial_value(p, &v);
  expect(p, ';');
  PUSH(&p->m->arena, p->m->vars, p->m->n_vars, p->m->cap_vars, v);
}

/* ---- operands ------------------------------------------------------------ */

static Operand operand(Parser *p);

static void parts(Parser *p, Operand *o, char end) {
  int cap = 0;
  while (!is(p, end) && p->kind != T_END) {
    PUSH(&p->m->arena, o->part, o->n, cap, operand(p));
    if (!accept(p, ',')) break;
  }
  expect(p, end);
}

static void address(Parser *p, Operand *o) {
  o->kind = OPD_ADDR;
  bool plus = true;
  if (p->kind == T_WORD) {
    o->name = expect_name(p);
    plus = accept(p, '+');
  }
  if (plus || is(p, '-')) o->value = expect_int(p);
  if (accept(p, ',')) {
    o->part = arena_new(&p->m->arena, sizeof *o->part);
    o->part[o->n++] = operand(p);
  }
  expect(p, ']');
}

static Operand simple_operand(Parser *p) {
  Operand o = {.negated = accept(p, '!')};
  if (accept(p, '[')) {
    address(p, &o);
  } else if (accept(p, '{')) {
    o.kind = OPD_VEC;
    parts(p, &o, '}');
  } else if (accept(p, '(')) {
    o.kind = OPD_LIST;
    parts(p, &o, ')');
  } else if (p->kind == T_F32 || p->kind == T_F64) {
    o.kind = p->kind == T_F32 ? OPD_F32 : OPD_F64;
    o.value = p->value;
    next(p);
  } else if (p->kind == T_INT || is(p, '-')) {
    o.kind = OPD_INT;
    o.value = expect_int(p);
  } else {
    o.name = expect_name(p);
    o.kind = str_is(o.name, "_") ? OPD_SINK : OPD_NAME;
    if (accept(p, '+')) o.value = expect_int(p);
  }
  return o;
}

static Operand operand(Parser *p) {
  Operand a = simple_operand(p);
  if (!accept(p, '|')) return a;
  Operand pair = {.kind = OPD_PAIR, .n = 2};
  pair.part = arena_new(&p->m->arena, 2 * sizeof *pair.part);
  pair.part[0] = a;
  pair.part[1] = simple_operand(p);
  return pair;
}

/* ---- statements ---------------------------------------------------------- */

static void push_stmt(Parser *p, Func *f, Stmt s) {
  PUSH(&p->m->arena, f->stmts, f->n_stmts, f->cap_stmts, s);
}

static void instruction(Parser *p, Func *f, Stmt s) {
  int cap = 0;
  while (!is(p, ';') && p->kind != T_END) {
    PUSH(&p->m->arena, s.op, s.n_op, cap, operand(p));
    if (!accept(p, ',')) break;
  }
  expect(p, ';');
  push_stmt(p, f, s);
}

/* .reg, .local, ... inside of a function; several names may share a type. */
static void declaration(Parser *p, Func *f, Space space) {
  Stmt s = {.kind = ST_VAR, .line = p->line};
  s.var = variable(p, space);
  push_stmt(p, f, s);
  while (accept(p, ',')) {
    s.var.name = expect_name(p);
    push_stmt(p, f, s);
  }
  expect(p, ';');
}

static void directive(Parser *p, Func *f) {
  Str w = {p->word.at + 1, p->word.n - 1};
  Space space = space_named(w);
  if (str_is(w, "loc")) {
    loc(p);
  } else if (str_is(w, "pragma")) {
    skip_line(p);
  } else if (space) {
    next(p);
    declaration(p, f, space);
  } else {
    wrong(p, "unknown directive '.%.*s'", w.n, w.at);
  }
}

static void statement(Parser *p, Func *f) {
  Stmt s = {.kind = ST_INS, .line = p->line, .loc = p->loc};
  if (accept(p, '@')) {
    s.pred_not = accept(p, '!');
    s.pred = expect_name(p);
  }
  s.line = p->line;
  s.name = expect_name(p);
  if (!s.pred.n && accept(p, ':')) {
    s.kind = ST_LABEL;
    push_stmt(p, f, s);
  } else {
    instruction(p, f, s);
  }
}

static void body(Parser *p, Func *f) {
  int depth = 1;
  f->has_body = true;
  while (depth && p->kind != T_END) {
    Stmt brace = {.line = p->line};
    if (accept(p, ';')) {
      continue;
    } else if (accept(p, '{')) {
      depth++;
      brace.kind = ST_OPEN;
      push_stmt(p, f, brace);
    } else if (is(p, '}')) {
      if (!--depth) break;
      next(p);
      brace.kind = ST_CLOSE;
      push_stmt(p, f, brace);
    } else if (p->kind == T_WORD && p->word.at[0] == '.') {
      directive(p, f);
    } else {
      statement(p, f);
    }
  }
  expect(p, '}');
}

/* ---- functions and modules ----------------------------------------------- */

/* (.param .u64 a, .param .align 8 .b8 b[16]): places one behind another. */
static int parameters(Parser *p, Var **vars, int *n, int *cap) {
  uint64_t at = 0;
  while (!is(p, ')') && p->kind != T_END) {
    if (!accept_word(p, ".param")) unexpected(p, "'.param'");
    Var v = variable(p, SP_PARAM);
    uint64_t align = (uint64_t)v.align;
    v.at = at = (at + align - 1) / align * align;
    at += (uint64_t)v.bytes;
    PUSH(&p->m->arena, *vars, *n, *cap, v);
    if (!accept(p, ',')) break;
  }
  expect(p, ')');
  return (int)at;
}

/* What tells how a kernel is to be launched, between its head and body. */
static void tuning(Parser *p, Func *f) {
  while (p->kind == T_WORD && p->word.at[0] == '.') {
    bool threads = is_word(p, ".maxntid") || is_word(p, ".reqntid");
    bool known = threads || is_word(p, ".minnctapersm") ||
                 is_word(p, ".maxnreg") || is_word(p, ".noreturn");
    if (!known) {
      unexpected(p, "'{'");
      return;
    }
    next(p);
    int64_t product = 1;
    if (p->kind == T_INT) {
      do
        product *= expect_int(p);
      while (accept(p, ','));
    }
    if (threads) f->max_threads = (int)product;
  }
}

static void function(Parser *p, bool entry) {
  Func f = {.entry = entry, .line = p->line};
  if (accept(p, '(')) parameters(p, &f.rets, &f.n_rets, &f.cap_rets);
  f.name = expect_name(p);
  if (accept(p, '('))
    f.param_bytes = parameters(p, &f.params, &f.n_params, &f.cap_params);
  tuning(p, &f);
  if (accept(p, '{')) body(p, &f);
  else expect(p, ';');
  PUSH(&p->m->arena, p->m->funcs, p->m->n_funcs, p->m->cap_funcs, f);
}

/* .section .debug_info { ... } */
static void section(Parser *p) {
  while (!is(p, '{') && p->kind != T_END)
    next(p);
  while (!is(p, '}') && p->kind != T_END)
    next(p);
  expect(p, '}');
}

static void version(Parser *p) {
  int major = (int)expect_int(p);
  p->m->version = 10 * major;
  if (p->kind != T_WORD || p->word.n != 2) unexpected(p, "a version as 8.0");
  else p->m->version += p->word.at[1] - '0';
  next(p);
}

static void target(Parser *p) {
  Str name = expect_name(p);
  char *end = NULL;
  if (name.n > 3 && !memcmp(name.at, "sm_", 3))
    p->m->arch = (int)strtol(name.at + 3, &end, 10);
  if (!p->m->arch)
    wrong(p, "unknown target '%.*s'", name.n, name.at);
  else if (end < name.at + name.n)
    p->m->arch_suffix = *end;
  while (accept(p, ','))
    expect_name(p); /* debug, texmode_... */
}

static void module_item(Parser *p) {
  Str w = p->word;
  if (p->kind != T_WORD || w.at[0] != '.') {
    unexpected(p, "a directive");
    return;
  }
  Space space = space_named((Str){w.at + 1, w.n - 1});
  if (str_is(w, ".loc") || str_is(w, ".file")) {
    (str_is(w, ".loc") ? loc : file)(p);
    return;
  }
  next(p);
  if (str_is(w, ".version")) {
    version(p);
  } else if (str_is(w, ".target")) {
    target(p);
  } else if (str_is(w, ".address_size")) {
    if (expect_int(p) != 64) wrong(p, "addresses not of 64");
  } else if (str_is(w, ".pragma")) {
    skip_line(p);
  } else if (str_is(w, ".section")) {
    section(p);
  } else if (str_is(w, ".entry") || str_is(w, ".func")) {
    function(p, str_is(w, ".entry"));
  } else if (space == SP_GLOBAL || space == SP_CONST || space == SP_SHARED) {
    module_variable(p, space);
  } else if (!str_is(w, ".visible") && !str_is(w, ".extern") &&
             !str_is(w, ".weak")) {
    wrong(p, "unknown directive '%.*s'", w.n, w.at);
  }
}

bool ptx_parse(Module *m, const char *text) {
  size_t n = strlen(text);
  m->text = arena_new(&m->arena, n + 2); /* one may look one ahead */
  memcpy(m->text, text, n);
  Parser p = {.m = m, .at = m->text, .line = 1};
  next(&p);
  if (!is_word(&p, ".version")) unexpected(&p, "'.version'");
  while (p.kind != T_END)
    module_item(&p);
  if (!m->error[0] && !m->arch) ptx_error(m, p.line, "no .target");
  return !m->error[0];
}
