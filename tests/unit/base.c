/* base.c: arena, strings, vectors, maps, sources and diagnostics. */
#include "../../ir/base.h"
#include "check.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory ------------------------------------------------------------- */

static void test_arena(void) {
  Arena a = {0};
  bool right = true;
  size_t sizes[] = {0, 1, 15, 16, 17, 4000, 300000, 5, 2000000, 7};
  for (int round = 0; round < 3; round++) {
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
      char *p = arena_alloc(&a, sizes[i]);
      if ((uintptr_t)p % 16) right = false;
      for (size_t k = 0; k < sizes[i]; k++)
        if (p[k]) right = false;
      memset(p, 0x5a, sizes[i]);
    }
    if (round == 1) arena_reset(&a);
  }
  CHECK("arena memory is aligned, zero and its own", right, "it is not");
  char *copy = arena_copy(&a, "text", 5);
  CHECK("arena copies", strcmp(copy, "text") == 0, "got %s", copy);
  arena_reset(&a);
  CHECK("an arena is empty after reset", !a.head && !a.used_bytes, "it is not");
}

static void test_vec(void) {
  Arena a = {0};
  VEC(int) v = {0};
  for (int i = 0; i < 1000; i++)
    vec_push(&a, &v, i * 3);
  bool right = v.len == 1000;
  for (int i = 0; right && i < 1000; i++)
    right = v.data[i] == i * 3;
  CHECK("a vector keeps what was pushed", right, "it does not");
  arena_reset(&a);
}

static void test_map(void) {
  Arena a = {0};
  Map m = {0};
  static int values[5000];
  CHECK("an empty map has nothing", !map_get(&m, "x"), "it has");
  for (uintptr_t i = 0; i < 5000; i++) /* key 0 is a key */
    map_put(&a, &m, (void *)(i << 12), &values[i]);
  map_put(&a, &m, (void *)(uintptr_t)4096, &values[7]);
  bool right = m.len == 5000 && map_get(&m, (void *)4096) == &values[7];
  for (uintptr_t i = 2; i < 5000; i++)
    if (map_get(&m, (void *)(i << 12)) != &values[i]) right = false;
  CHECK("a map finds what was put last", right, "it does not");
  CHECK("a map finds nothing else", !map_get(&m, (void *)1), "it does");
  arena_reset(&a);
}

/* ---- text --------------------------------------------------------------- */

static void test_syms(void) {
  Ctx cx = {0};
  Sym a = sym(&cx, "gate"), b = sym_n(&cx, "gate/w", 4);
  CHECK("equal text is one sym", a == b, "%p and %p", (void *)a, (void *)b);
  CHECK("other text is another", a != sym(&cx, "gat"), "it is not");
  CHECK("syms are formatted", sym_fmt(&cx, "g%ste", "a") == a, "they are not");
  CHECK("the empty sym",
        !*sym(&cx, "") && sym(&cx, "") == sym_fmt(&cx, "%s", ""), "it is not");
  ctx_free(&cx);
}

static void test_buf(void) {
  Buf b = {0};
  for (int i = 0; i < 100; i++)
    buf_fmt(&b, "%d,", i);
  buf_add(&b, "end");
  buf_add_n(&b, "", 0);
  CHECK("a buffer grows", b.len == 293 && !strcmp(b.data + 284, "98,99,end"),
        "its length is %zu", b.len);
  buf_free(&b);
  for (int64_t x = -1; x <= 10; x += 11)
    buf_int(&b, x);
  buf_int(&b, INT64_MIN);
  buf_int(&b, INT64_MAX);
  CHECK("integers are text",
        !strcmp(b.data, "-110-92233720368547758089223372036854775807"),
        "they are %s", b.data);
  buf_free(&b);
  CHECK("a buffer is empty when freed", !b.data && !b.len, "it is not");
}

static void test_format_double(void) {
  static const struct {
    double x;
    const char *text;
  } known[] = {{0, "0"},          {-0.0, "-0"},
               {1, "1"},          {0.1, "0.1"},
               {1e-8, "1e-08"},   {1.5, "1.5"},
               {1e300, "1e+300"}, {1.0 / 3, "0.3333333333333333"},
               {INFINITY, "inf"}, {-INFINITY, "-inf"},
               {NAN, "nan"}};
  char text[32];
  for (size_t i = 0; i < COUNT_OF(known); i++) {
    format_double(known[i].x, text);
    CHECK("a number as text", strcmp(text, known[i].text) == 0, "%s, not %s",
          text, known[i].text);
  }
  bool exact = true;
  uint64_t bits = 1;
  for (int i = 0; i < 20000; i++) {
    double x;
    bits = hash_bytes(bits, &i, sizeof i);
    memcpy(&x, &bits, sizeof x);
    if (isnan(x)) continue;
    format_double(x, text);
    if (strtod(text, NULL) != x || strlen(text) > 31) exact = false;
  }
  CHECK("numbers read back exactly", exact, "they do not");
}

static void test_nearest_word(void) {
  static const char *const words[] = {"reduce_sum", "reduce_max", "add", "max"};
  static const struct {
    const char *word, *near;
  } cases[] = {{"reduce_sun", "reduce_sum"},
               {"redcue_max", "reduce_max"},
               {"ad", "add"},
               {"mxa", "max"},
               {"convolution", NULL},
               {"", NULL},
               {"x", NULL}};
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    const char *near = nearest_word(cases[i].word, words, COUNT_OF(words));
    bool right = near ? cases[i].near && strcmp(near, cases[i].near) == 0
                      : !cases[i].near;
    CHECK("the nearest word", right, "%s for %s", near ? near : "none",
          cases[i].word);
  }
}

static void test_path_match(void) {
  static const struct {
    const char *pattern, *path;
    bool matches;
  } cases[] = {{"*", "lm/moe/w1", true},
               {"moe/experts/*", "lm/moe/experts/w1", true},
               {"moe/experts/*", "lm/moe/experts", false},
               {"w?", "lm/moe/w1", true},
               {"w?", "lm/moe/xw1", false},
               {"*/gate/*", "lm/moe/gate/w", true},
               {"lm/*/w", "lm/a/b/w", true},
               {"lm/moe", "lm/moe/w1", false},
               {"*a*b*c", "xxaxxbxxc", true},
               {"*a*b*c", "xxaxxcxxb", false},
               {"", "", true},
               {"", "x", false}};
  for (size_t i = 0; i < COUNT_OF(cases); i++)
    CHECK("a path pattern",
          path_match(cases[i].pattern, cases[i].path) == cases[i].matches,
          "\"%s\" and \"%s\"", cases[i].pattern, cases[i].path);
}

/* ---- diagnostics -------------------------------------------------------- */

/* What diag_print prints, to be freed. */
static char *printed(Ctx *cx) {
  char *text = NULL;
  size_t len = 0;
  FILE *f = open_memstream(&text, &len);
  diag_print(cx, f);
  fclose(f);
  return text;
}

static void check_printed(const char *name, Ctx *cx, const char *want) {
  char *got = printed(cx);
  CHECK(name, strcmp(got, want) == 0, "got:\n%s", got);
  free(got);
  ctx_free(cx);
}

static Span at(uint32_t file, const char *text, const char *what) {
  uint32_t lo = (uint32_t)(strstr(text, what) - text);
  return (Span){file, lo, lo + (uint32_t)strlen(what)};
}

static void test_order(void) {
  static const char text[] = "let a = 1\nlet b = aa\n";
  Ctx cx = {0};
  uint32_t f = source_add(&cx, "m.dsl", text, strlen(text));
  diag_error(&cx, at(f, text, "aa"), "there is no '%s'", "aa");
  diag_note(&cx, at(f, text, "a ="), "'a' is here");
  diag_warning(&cx, at(f, text, "1"), "one");
  diag_error(&cx, (Span){0, 0, 0}, "nowhere");
  CHECK("errors are counted", cx.errors == 2 && cx.warnings == 1, "%u",
        cx.errors);
  check_printed("diagnostics in order of place, with their notes", &cx,
                "error: nowhere\n"
                "m.dsl:1:9: warning: one\n"
                "    1 | let a = 1\n"
                "      |         ^\n"
                "m.dsl:2:9: error: there is no 'aa'\n"
                "    2 | let b = aa\n"
                "      |         ^~\n"
                "m.dsl:1:5: note: 'a' is here\n"
                "    1 | let a = 1\n"
                "      |     ^~~\n");
}

static void test_columns(void) {
  static const char text[] = "\t\xc3\xa9 = w\xc3\xb6rd\x01\r\n";
  Ctx cx = {0};
  uint32_t f = source_add(&cx, "m", text, strlen(text));
  diag_error(&cx, at(f, text, "w\xc3\xb6rd"), "word");
  diag_error(&cx, (Span){f, sizeof text - 1, sizeof text}, "end");
  check_printed("columns count characters, tabs stay", &cx,
                "m:1:6: error: word\n"
                "    1 | \t\xc3\xa9 = w\xc3\xb6rd?\n"
                "      | \t    ^~~~\n"
                "m:2:1: error: end\n"
                "    2 | \n"
                "      | ^\n");
}

static void test_many(void) {
  Ctx cx = {0};
  for (int i = 0; i < 23; i++)
    diag_error(&cx, (Span){0, 0, 0}, "number %d", i);
  char *text = printed(&cx);
  CHECK("20 errors are shown",
        strstr(text, "number 19\n3 more errors not shown\n"), "got:\n%s", text);
  free(text);
  ctx_free(&cx);
}

static void test_long_line(void) {
  static char text[2000];
  memset(text, 'x', sizeof text - 1);
  text[1000] = '!';
  Ctx cx = {0};
  uint32_t f = source_add(&cx, "m", text, sizeof text - 1);
  diag_error(&cx, at(f, text, "!"), "far right");
  char *got = printed(&cx), *line = strstr(got, "| x"),
       *caret = strchr(got, '^');
  CHECK("a long line is cut around the caret",
        strlen(got) < 500 &&
            caret - strrchr(got, '|') == strchr(line, '!') - line,
        "got:\n%s", got);
  free(got);
  ctx_free(&cx);
}

static void test_sources(void) {
  Ctx cx = {0};
  uint32_t f = 0, line, col;
  CHECK("a missing file", !source_read(&cx, "/no/such", &f) && errno == ENOENT,
        "errno is %d", errno);
  CHECK("a folder is no file", !source_read(&cx, "/", &f) && errno == EISDIR,
        "errno is %d", errno);
  CHECK("an empty file", source_read(&cx, "/dev/null", &f) && f == 1,
        "errno is %d", errno);
  span_line_col(&cx, (Span){f, 0, 0}, &line, &col);
  CHECK("the place of nothing", line == 1 && col == 1, "%u:%u", line, col);
  CHECK("nowhere has no text", !*span_text(&cx, (Span){0, 0, 0}), "it has");
  Span s = span_join((Span){1, 5, 9}, (Span){1, 2, 6});
  CHECK("spans join", s.lo == 2 && s.hi == 9, "%u to %u", s.lo, s.hi);
  ctx_free(&cx);
}

int main(void) {
  test_arena();
  test_vec();
  test_map();
  test_syms();
  test_buf();
  test_format_double();
  test_nearest_word();
  test_path_match();
  test_order();
  test_columns();
  test_many();
  test_long_line();
  test_sources();
  return failures != 0;
}
