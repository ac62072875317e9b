/* ranks.c: exchanges among virtual ranks of the interpreter, against values
 * worked out by hand, over one mesh axis and over two. */
#include "../../ir/ir.h"
#include "check.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_RANKS = 8, MOST_VALUES = 4 };

/* An entry over a mesh with parameters %a, %b, ... of the types in `ins`.
 * `operands` and `expected` have the numbers of all ranks in order, '|' between
 * ranks. `expected` NULL: it fails with an error that has `error` in it. */
typedef struct Case {
  const char *name, *mesh, *ins, *nodes, *results, *operands, *expected, *error;
} Case;

/* Rows: 2 ranks, 4 experts, 3 rows a rank: rank 0 has 1, 0, 2, 0 of them for
 * each, rank 1 has 0, 2, 1, 0. */
#define ROUTE                                                                 \
  "%o, %s, %r = route %b {experts=4} : i32[5], i32[3, 1], i32[3]\n"           \
  "%x = rows_gather %a, %r, %o {choices=1} : f32[4, r<=3, 1]\n"               \
  "%lo = slice %o {dim=0, start=0, size=4} : i32[4]\n"                        \
  "%hi = slice %o {dim=0, start=1, size=4} : i32[4]\n"                        \
  "%n = sub %hi, %lo : i32[4]\n"                                              \
  "%m = all_to_all %n {axes=\"dev\", split=0, concat=0} : i32[4]\n"           \
  "%g = reshape %m : i32[2, 2]\n"                                             \
  "%c = reduce_sum %g {map=\"pm->m\"} : i32[2]\n"                             \
  "%e = cumsum %c {exclusive=false, reverse=false} : i32[2]\n"                \
  "%t = pad %e {dim=0, lo=1, hi=0} : i32[3]\n"
#define SEND(rows)                                                            \
  "%y = rows_send %x, %o, %g, %t {axes=\"dev\", rows=" #rows "}"              \
  " : f32[2, r<=" #rows ", 1]\n"
/* Rows and back, those that %c1 names: to zeros, and doubled to the others. */
#define SOME                                                                  \
  "%k = slice %c1 {dim=0, start=1, size=1} : i32[1, 4]\n"                     \
  "%k1 = reshape %k : i32[4]\n"                                               \
  "%m2 = all_to_all %k1 {axes=\"dev\", split=0, concat=0} : i32[4]\n"         \
  "%g2 = reshape %m2 : i32[2, 2]\n"                                           \
  "%c2 = reduce_sum %g2 {map=\"pm->m\"} : i32[2]\n"                           \
  "%e2 = cumsum %c2 {exclusive=false, reverse=false} : i32[2]\n"              \
  "%t2 = pad %e2 {dim=0, lo=1, hi=0} : i32[3]\n"                              \
  "%sy = rows_send %x, %o, %g2, %t2, %c1 {axes=\"dev\", rows=3}"              \
  " : f32[2, r<=3, 1]\n"                                                      \
  "%sw = rows_return %sy, %o, %g2, %t2, %c1 {axes=\"dev\", rows=3}"           \
  " : f32[4, r<=3, 1]\n"                                                      \
  "%d = add %sy, %sy : f32[2, r<=3, 1]\n"                                     \
  "%sz = rows_return %d, %o, %g2, %t2, %c1, %x {axes=\"dev\", rows=3}"        \
  " : f32[4, r<=3, 1]\n"
#define TOKENS "1 2 3  2 0 2 | 10 20 30  1 2 1"

static const Case cases[] = {
    {"rank on one axis", "dev=3", "f32[]",
     "%r = rank {axes=\"dev\"} : i32[]", "%r", "0 | 0 | 0", "0 | 1 | 2", NULL},
    {"rank on two axes", "a=2, b=3", "f32[]",
     "%r = rank {axes=\"a\"} : i32[]\n%s = rank {axes=\"b\"} : i32[]\n"
     "%t = rank {axes=\"a,b\"} : i32[]\n%u = rank {axes=\"b,a\"} : i32[]",
     "%r %s %t %u", "0 | 0 | 0 | 0 | 0 | 0",
     "0 0 0 0 | 0 1 1 2 | 0 2 2 4 | 1 0 3 1 | 1 1 4 3 | 1 2 5 5", NULL},
    {"local_slice", "dev=2", "f32[2, 4]",
     "%r = rank {axes=\"dev\"} : i32[]\n"
     "%x = local_slice %a, %r {dim=1, parts=2} : f32[2, 2]\n"
     "%y = local_slice %a, %r {dim=0, parts=2} : f32[1, 4]",
     "%x %y", "1 2 3 4 5 6 7 8 | 1 2 3 4 5 6 7 8",
     "1 2 5 6 1 2 3 4 | 3 4 7 8 5 6 7 8", NULL},
    {"all_reduce", "dev=3", "f32[2]",
     "%x = all_reduce %a {axes=\"dev\", op=\"sum\"} : f32[2]\n"
     "%y = all_reduce %a {axes=\"dev\", op=\"max\"} : f32[2]\n"
     "%z = all_reduce %a {axes=\"dev\", op=\"min\"} : f32[2]",
     "%x %y %z", "1 2 | 10 -20 | 100 200",
     "111 182 100 200 1 -20 | 111 182 100 200 1 -20 | 111 182 100 200 1 -20",
     NULL},
    {"all_reduce of several", "dev=2", "f32[2] i32[]",
     "%x, %y = all_reduce %a, %b {axes=\"dev\", op=\"sum\"} : f32[2], i32[]",
     "%x %y", "1 2 3 | 10 20 30", "11 22 33 | 11 22 33", NULL},
    {"waits in another order", "dev=2", "f32[2] f32[]",
     "%p, %q = all_reduce %a, %b {axes=\"dev\", op=\"sum\"} : f32[2], f32[]\n"
     "%g = all_gather %a {axes=\"dev\", dim=0} : f32[4]\n"
     "%h = wait %g : f32[4]\n%n = neg %a : f32[2]\n"
     "%x, %y = wait %p, %q : f32[2], f32[]",
     "%x %y %h %n", "1 2 3 | 10 20 30",
     "11 22 33 1 2 10 20 -1 -2 | 11 22 33 1 2 10 20 -10 -20", NULL},
    {"all_reduce rounds once", "dev=3", "f32[]",
     "%x = all_reduce %a {axes=\"dev\", op=\"sum\"} : f32[]", "%x",
     "16777216 | 1 | 1", "16777218 | 16777218 | 16777218", NULL},
    {"all_reduce wraps", "dev=2", "u32[]",
     "%x = all_reduce %a {axes=\"dev\", op=\"sum\"} : u32[]", "%x",
     "4294967295 | 3", "2 | 2", NULL},
    {"all_reduce of bools", "dev=2", "bool[2]",
     "%x = all_reduce %a {axes=\"dev\", op=\"max\"} : bool[2]\n"
     "%y = all_reduce %a {axes=\"dev\", op=\"min\"} : bool[2]",
     "%x %y", "1 0 | 1 1", "1 1 1 0 | 1 1 1 0", NULL},
    {"all_reduce on each of two axes", "a=2, b=2", "f32[]",
     "%x = all_reduce %a {axes=\"a\", op=\"sum\"} : f32[]\n"
     "%y = all_reduce %a {axes=\"b\", op=\"sum\"} : f32[]\n"
     "%z = all_reduce %a {axes=\"a,b\", op=\"sum\"} : f32[]",
     "%x %y %z", "1 | 2 | 4 | 8",
     "5 3 15 | 10 3 15 | 5 12 15 | 10 12 15", NULL},
    {"all_gather", "dev=2", "f32[2, 1]",
     "%x = all_gather %a {axes=\"dev\", dim=0} : f32[4, 1]\n"
     "%y = all_gather %a {axes=\"dev\", dim=1} : f32[2, 2]",
     "%x %y", "1 2 | 3 4", "1 2 3 4 1 3 2 4 | 1 2 3 4 1 3 2 4", NULL},
    {"all_gather in the order of the axes", "a=2, b=2", "f32[1]",
     "%x = all_gather %a {axes=\"a,b\", dim=0} : f32[4]\n"
     "%y = all_gather %a {axes=\"b,a\", dim=0} : f32[4]\n"
     "%z = all_gather %a {axes=\"a\", dim=0} : f32[2]",
     "%x %y %z", "1 | 2 | 3 | 4",
     "1 2 3 4 1 3 2 4 1 3 | 1 2 3 4 1 3 2 4 2 4 |"
     "1 2 3 4 1 3 2 4 1 3 | 1 2 3 4 1 3 2 4 2 4",
     NULL},
    {"reduce_scatter", "dev=2", "f32[2, 2]",
     "%x = reduce_scatter %a {axes=\"dev\", dim=0, op=\"sum\"} : f32[1, 2]\n"
     "%y = reduce_scatter %a {axes=\"dev\", dim=1, op=\"max\"} : f32[2, 1]",
     "%x %y", "1 2 3 4 | 10 20 30 40", "11 22 10 30 | 33 44 20 40", NULL},
    {"reduce_scatter on two axes", "a=2, b=2", "f32[2]",
     "%x = reduce_scatter %a {axes=\"b\", dim=0, op=\"sum\"} : f32[1]", "%x",
     "1 2 | 10 20 | 3 4 | 30 40", "11 | 22 | 33 | 44", NULL},
    {"all_to_all", "dev=2", "f32[2, 2]",
     "%x = all_to_all %a {axes=\"dev\", split=0, concat=1} : f32[1, 4]\n"
     "%y = all_to_all %a {axes=\"dev\", split=1, concat=0} : f32[4, 1]\n"
     "%z = all_to_all %a {axes=\"dev\", split=1, concat=1} : f32[2, 2]",
     "%x %y %z", "1 2 3 4 | 5 6 7 8",
     "1 2 5 6 1 3 5 7 1 5 3 7 | 3 4 7 8 2 4 6 8 2 6 4 8", NULL},
    {"all_to_all and back", "a=2, b=2", "f32[2, 4]",
     "%x = all_to_all %a {axes=\"b,a\", split=1, concat=0} : f32[8, 1]\n"
     "%y = all_to_all %x {axes=\"b,a\", split=0, concat=1} : f32[2, 4]",
     "%y", "1 2 3 4 5 6 7 8 | 2 2 2 2 3 3 3 3 | 9 8 7 6 5 4 3 2 | 4 4 4 4 5 6 "
           "7 8",
     "1 2 3 4 5 6 7 8 | 2 2 2 2 3 3 3 3 | 9 8 7 6 5 4 3 2 | 4 4 4 4 5 6 7 8",
     NULL},
    {"permute", "dev=3", "f32[]",
     "%x = permute %a {axes=\"dev\", to=[1, 2, 0]} : f32[]", "%x",
     "1 | 2 | 3", "3 | 1 | 2", NULL},
    {"in a loop", "dev=2", "f32[]",
     "%x = scan %a {carries=1, scanned=0, length=3, reverse=false} "
     "(%t: i32[], %h: f32[]) {\n"
     "%s = all_reduce %h {axes=\"dev\", op=\"sum\"} : f32[]\nyield %s\n}"
     " : f32[]",
     "%x", "1 | 2", "12 | 12", NULL},
    {"rows to their experts and back", "dev=2", "f32[3, 1] i32[3, 1]",
     ROUTE SEND(6) "%z = rows_return %y, %o, %g, %t {axes=\"dev\", rows=3}"
     " : f32[4, r<=3, 1]\n%w = rows_combine %z, %s : f32[3, 1]",
     "%t %y %w", TOKENS,
     "0 1 3  2 10 30 0 0 0  1 2 3 | 0 3 3  1 3 20 0 0 0  10 20 30", NULL},
    {"rows, a product in between", "dev=2", "f32[3, 1] i32[3, 1] f32[2, 1, 1]",
     ROUTE SEND(4) "%p = contract %y, %c1 {map=\"nrd,ndh->nrh\"}"
     " : f32[2, r<=4, 1]\n"
     "%z = rows_return %p, %o, %g, %t {axes=\"dev\", rows=3}"
     " : f32[4, r<=3, 1]\n%w = rows_combine %z, %s : f32[3, 1]",
     "%w", "1 2 3  2 0 2  100 1000 | 10 20 30  1 2 1  5 7",
     "5 200 15 | 10000 100 30000", NULL},
    {"experts that do not divide", "dev=2", "f32[3, 1] i32[3, 1]",
     "%o, %s, %r = route %b {experts=3} : i32[4], i32[3, 1], i32[3]\n"
     "%x = rows_gather %a, %r, %o {choices=1} : f32[3, r<=3, 1]\n"
     "%lo = slice %o {dim=0, start=0, size=3} : i32[3]\n"
     "%hi = slice %o {dim=0, start=1, size=3} : i32[3]\n"
     "%d = sub %hi, %lo : i32[3]\n"
     "%n = pad %d {dim=0, lo=0, hi=1} : i32[4]\n"
     "%m = all_to_all %n {axes=\"dev\", split=0, concat=0} : i32[4]\n"
     "%g = reshape %m : i32[2, 2]\n"
     "%c = reduce_sum %g {map=\"pm->m\"} : i32[2]\n"
     "%e = cumsum %c {exclusive=false, reverse=false} : i32[2]\n"
     "%t = pad %e {dim=0, lo=1, hi=0} : i32[3]\n" SEND(6)
     "%z = rows_return %y, %o, %g, %t {axes=\"dev\", rows=3}"
     " : f32[3, r<=3, 1]\n%w = rows_combine %z, %s : f32[3, 1]",
     "%t %y %w", TOKENS,
     "0 1 3  2 10 30 0 0 0  1 2 3 | 0 3 3  1 3 20 0 0 0  10 20 30", NULL},
    {"more ranks than experts", "dev=3", "f32[2, 1] i32[2, 1]",
     "%o, %s, %r = route %b {experts=2} : i32[3], i32[2, 1], i32[2]\n"
     "%x = rows_gather %a, %r, %o {choices=1} : f32[2, r<=2, 1]\n"
     "%lo = slice %o {dim=0, start=0, size=2} : i32[2]\n"
     "%hi = slice %o {dim=0, start=1, size=2} : i32[2]\n"
     "%d = sub %hi, %lo : i32[2]\n"
     "%n = pad %d {dim=0, lo=0, hi=1} : i32[3]\n"
     "%m = all_to_all %n {axes=\"dev\", split=0, concat=0} : i32[3]\n"
     "%g = reshape %m : i32[3, 1]\n"
     "%c = reduce_sum %g {map=\"pm->m\"} : i32[1]\n"
     "%t = pad %c {dim=0, lo=1, hi=0} : i32[2]\n"
     "%y = rows_send %x, %o, %g, %t {axes=\"dev\", rows=6} : f32[1, r<=6, 1]\n"
     "%z = rows_return %y, %o, %g, %t {axes=\"dev\", rows=2}"
     " : f32[2, r<=2, 1]\n%w = rows_combine %z, %s : f32[2, 1]",
     "%t %y %w", "1 2  1 0 | 3 4  1 1 | 5 6  1 0",
     "0 2  2 6 0 0 0 0  1 2 | 0 4  1 3 4 5 0 0  3 4 | 0 0  0 0 0 0 0 0  5 6",
     NULL},
    {"the width of rows", "a=2", "f32[2, 4] i32[2, 1] i32[]",
     "%o, %s, %r = route %b {experts=2} : i32[3], i32[2, 1], i32[2]\n"
     "%x = rows_gather %a, %r, %o {choices=1} : f32[2, r<=2, 4]\n"
     "%i = rank {axes=\"a\"} : i32[]\n"
     "%l = local_slice %x, %i {dim=2, parts=2} : f32[2, r<=2, 2]\n"
     "%g = all_gather %l {axes=\"a\", dim=2} : f32[2, r<=2, 4]\n"
     "%t = all_reduce %g {axes=\"a\", op=\"sum\"} : f32[2, r<=2, 4]\n"
     "%u = reduce_scatter %t {axes=\"a\", dim=2, op=\"max\"}"
     " : f32[2, r<=2, 2]\n%w = rows_combine %u, %s : f32[2, 2]",
     "%l %g %w", "1 2 3 4 5 6 7 8  1 0  0 | 11 12 13 14 15 16 17 18  1 0  0",
     "5 6 1 2  5 6 17 18 1 2 13 14  2 4 10 12 | "
     "17 18 13 14  5 6 17 18 1 2 13 14  26 28 34 36", NULL},
    {"experts of others have no rows here", "dev=2", "f32[3, 1] i32[3, 1]",
     "%o, %s, %r = route %b {experts=3} : i32[4], i32[3, 1], i32[3]\n"
     "%own = slice %o {dim=0, start=0, size=3} : i32[3]\n"
     "%x = rows_gather %a, %r, %own {choices=1} : f32[2, r<=3, 1]\n"
     "%p = reduce_sum %x {map=\"nrd->nd\"} : f32[2, 1]",
     "%p", TOKENS, "2 0 | 0 40", NULL},
    {"some of the rows", "dev=2", "f32[3, 1] i32[3, 1] i32[2, 4]",
     ROUTE SOME, "%sy %sw %sz",
     "1 2 3  2 0 2  0 0 2 0 0 0 1 0 | 10 20 30  1 2 1  0 1 2 0 0 1 1 0",
     "30 0 0  0 0 3  2 1 6 | 3 20 0  0 30 20  10 60 40", NULL},
    {"more rows than there is room for", "dev=2", "f32[3, 1] i32[3, 1]",
     ROUTE SEND(2), "%y", TOKENS, NULL, "more rows than there is room for"},
};

/* ---- running them -------------------------------------------------------- */

/* "f32[2] i32[]" as the parameters %a and %b; %c is %c1, as nodes have a %c. */
static void add_params(Buf *b, const char *types) {
  for (int i = 0; *types; i++) {
    size_t len = strcspn(types, "]") + 1;
    buf_fmt(b, "%s%%%c%s: %.*s = input \"x\"", i ? ", " : "", 'a' + i,
            i == 2 ? "1" : "", (int)len, types);
    types += len;
    types += strspn(types, " ");
  }
}

static Entry *read_case(Ctx *cx, const Case *c) {
  Buf b = {0};
  buf_fmt(&b, "moec-ir 1\nmesh {%s}\nentry @f(", c->mesh);
  add_params(&b, c->ins);
  buf_fmt(&b, ") {\n%s\n  return ", c->nodes);
  const char *p = c->results;
  for (int i = 0; *p; i++) {
    size_t len = strcspn(p, " ");
    buf_fmt(&b, "%sprobe \"p%d\" = %.*s", i ? ", " : "", i, (int)len, p);
    p += len;
    p += strspn(p, " ");
  }
  buf_add(&b, "\n}\n");
  uint32_t file = source_add(cx, "case.ir", b.data, b.len);
  Module *m = ir_read(cx, file);
  buf_free(&b);
  if (!m) diag_print(cx, stdout);
  return m ? m->entries.data[0] : NULL;
}

static void read_numbers(const char **list, double *to, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    char *end;
    *list += strspn(*list, " |");
    to[i] = strtod(*list, &end);
    if (end == *list) abort();
    *list = end;
  }
}

static bool as_expected(const Case *c, Tensor **const *outs, uint32_t n_outs,
                        int ranks, Buf *why) {
  const char *list = c->expected;
  for (int r = 0; r < ranks; r++)
    for (uint32_t k = 0; k < n_outs; k++)
      for (int64_t i = 0; i < type_elements(&outs[r][k]->type); i++) {
        double want;
        read_numbers(&list, &want, 1);
        if (outs[r][k]->data[i] == want) continue;
        buf_fmt(why, "rank %d, result %u, %lld: %g, not %g", r, k,
                (long long)i, outs[r][k]->data[i], want);
        return false;
      }
  return true;
}

static void run_case(const Case *c) {
  Ctx cx = {0};
  Buf why = {0};
  Entry *e = read_case(&cx, c);
  if (!e) {
    CHECK(c->name, false, "it is no module");
    return;
  }
  int ranks = (int)mesh_devices(e->module);
  Tensor *in[MOST_RANKS][MOST_VALUES], *out[MOST_RANKS][MOST_VALUES];
  Tensor *const *ins[MOST_RANKS];
  Tensor **outs[MOST_RANKS];
  const char *list = c->operands;
  for (int r = 0; r < ranks; r++) {
    for (uint32_t k = 0; k < e->ins.len; k++) {
      in[r][k] = tensor_new(&cx.perm, e->region->params.data[k]->type);
      read_numbers(&list, in[r][k]->data, type_elements(&in[r][k]->type));
    }
    ins[r] = in[r];
    outs[r] = out[r];
  }
  Eval ev = {.cx = &cx, .mode = EVAL_TYPED};
  uint32_t clamped = ir_eval_ranks(&ev, e, ins, outs, &cx.perm);
  bool ok;
  if (c->expected) {
    if (clamped) diag_print(&cx, stdout);
    ok = clamped == 0 && as_expected(c, outs, e->outs.len, ranks, &why);
  } else {
    ok = clamped == EVAL_FAILED && cx.errors > 0 &&
         strstr(cx.diags.data[0].message, c->error);
  }
  CHECK(c->name, ok, "%s", why.data ? why.data : "failed");
  buf_free(&why);
  ctx_free(&cx);
}

static void test_alone(void) {
  static const Case c = {
      "a rank alone is refused", "dev=2", "f32[]",
      "%x = all_reduce %a {axes=\"dev\", op=\"sum\"} : f32[]", "%x",
      NULL, NULL, NULL};
  Ctx cx = {0};
  Entry *e = read_case(&cx, &c);
  Eval ev = {.cx = &cx, .mode = EVAL_TYPED};
  Tensor *in = tensor_new(&cx.perm, type_scalar(DT_f32)), *out;
  uint32_t got = ir_eval(&ev, e, &in, &out, &cx.perm);
  CHECK(c.name, got == EVAL_FAILED && cx.errors == 1, "returned %u", got);
  ctx_free(&cx);
}

/* Over all ranks of a group, what comes in is what is predicted. */
static void test_bytes(void) {
  static const Case c = {
      "", "a=2, b=3", "f32[7] f32[6, 6]",
      "%r = all_reduce %a {axes=\"b\", op=\"sum\"} : f32[7]\n"
      "%g = all_gather %a {axes=\"a\", dim=0} : f32[14]\n"
      "%s = reduce_scatter %b {axes=\"b\", dim=1, op=\"sum\"} : f32[6, 2]\n"
      "%t = all_to_all %b {axes=\"a,b\", split=0, concat=1} : f32[1, 36]\n"
      "%p = permute %a {axes=\"b\", to=[0, 2, 1]} : f32[7]",
      "%r", NULL, NULL, NULL};
  static const int64_t want[] = {4 * 28, 2 * 28, 3 * 96, 6 * 120, 2 * 28};
  Ctx cx = {0};
  Entry *e = read_case(&cx, &c);
  for (uint32_t i = 0; i < e->region->nodes.len; i++) {
    Node *n = e->region->nodes.data[i];
    int64_t sum = 0;
    for (int64_t p = 0; p < node_group(n); p++)
      sum += ir_comm_bytes(n, p);
    char name[64];
    snprintf(name, sizeof name, "bytes of %s", op_info[n->op].name);
    CHECK(name, sum == want[i], "%lld, not %lld", (long long)sum,
          (long long)want[i]);
  }
  ctx_free(&cx);
}

/* Of 6 rows that two ranks might send there are 3 if they share out. */
static void test_share(void) {
  static const Case c = {
      "", "dev=2", "f32[3, 1] i32[3, 1] f32[2, 1, 1]",
      ROUTE SEND(6) "%p = contract %y, %c1 {map=\"nrd,ndh->nrh\"}"
      " : f32[2, r<=6, 1]\n"
      "%z = rows_return %p, %o, %g, %t {axes=\"dev\", rows=3}"
      " : f32[4, r<=3, 1]\n%w = rows_combine %z, %s : f32[3, 1]",
      "%w", NULL, NULL, NULL};
  Ctx cx = {0};
  Entry *e = read_case(&cx, &c);
  for (uint32_t i = 0; i < e->region->nodes.len; i++) {
    Value *v = e->region->nodes.data[i]->outs.data[0];
    bool there = !strcmp(v->name, "y") || !strcmp(v->name, "p");
    double share = ir_rows_share(v), want = there ? 0.5 : 1;
    CHECK("rows that come of those that may", share == want, "%s: %g, not %g",
          v->name, share, want);
  }
  ctx_free(&cx);
}

int main(void) {
  for (size_t i = 0; i < COUNT_OF(cases); i++)
    run_case(&cases[i]);
  test_alone();
  test_bytes();
  test_share();
  return failures > 0;
}
