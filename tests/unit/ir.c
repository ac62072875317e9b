/* ir.c: the laws of the text form over random modules, and surgery on graphs.
 * What the reader and the verifier say about wrong text is in tests/ir. */
#include "check.h"
#include "random_graph.h"

#include <stdlib.h>
#include <string.h>

/* ---- laws --------------------------------------------------------------- */

static const char *print(Module *m, Buf *b) {
  buf_free(b);
  ir_print(m, (PrintOptions){0}, b);
  return b->data;
}

/* NULL: all laws hold; else which does not. */
static const char *broken_law(Ctx *cx, Module *m) {
  const char *broken = NULL;
  Buf first = {0}, second = {0};
  if (!ir_verify(m, false)) return "the verifier accepts a random graph";
  print(m, &first);
  uint32_t file = source_add(cx, "printed.ir", first.data, first.len);
  Module *read = ir_read(cx, file);
  if (!read)
    broken = "what is printed can be read";
  else if (strcmp(first.data, print(read, &second)) != 0)
    broken = "what is read prints as it was";
  else if (strcmp(first.data, print(ir_module_clone(read), &second)) != 0)
    broken = "a clone prints as the original";
  if (read)
    for (uint32_t i = 0; i < read->entries.len; i++)
      ir_sweep(read->entries.data[i]);
  if (!broken && strcmp(first.data, print(read, &second)) != 0)
    broken = "a sweep removes nothing that is needed";
  if (broken) fputs(first.data, stderr);
  buf_free(&first);
  buf_free(&second);
  return broken;
}

static void test_laws(void) {
  for (uint64_t seed = 0; seed < 400; seed++) {
    Ctx cx = {0};
    RandomGraph o = {.seed = seed,
                     .nodes = 1 + (int)seed % 60,
                     .high = seed % 3 != 0,
                     .routing = seed % 3 != 0,
                     .scans = seed % 4 != 0,
                     .wild = seed % 5 == 0};
    const char *broken = broken_law(&cx, random_graph(&cx, &o));
    if (broken) {
      diag_print(&cx, stderr);
      CHECK("ir laws of text", false, "seed %d: not true that %s", (int)seed,
            broken);
      ctx_free(&cx);
      return;
    }
    ctx_free(&cx);
  }
  CHECK("ir laws of text", true, "%s", "");
}

/* ---- modules from text -------------------------------------------------- */

typedef struct Fixture {
  Ctx cx;
  Module *m;
  Entry *e;
} Fixture;

static void open_text(Fixture *f, const char *text) {
  *f = (Fixture){0};
  f->m = ir_read(&f->cx, source_add(&f->cx, "test.ir", text, strlen(text)));
  if (!f->m) {
    diag_print(&f->cx, stderr);
    internal_error("the text of a test cannot be read");
  }
  f->e = f->m->entries.data[0];
}

static Node *node_at(const Region *r, const char *name) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    if (n->outs.len && strcmp(n->outs.data[0]->name, name) == 0) return n;
  }
  internal_error("a test's text has no %%%s", name);
}

static const char small_text[] =
    "moec-ir 1\n"
    "entry @f(%x: f32[3, 2] = input \"text\", %y: f32[2] = input \"text\") {\n"
    "  %a = neg %x : f32[3, 2]\n"
    "  %b = exp %a : f32[3, 2]\n"
    "  %dead = abs %b : f32[3, 2]\n"
    "  %s, %t = scan %y, %b {carries=1, scanned=1, length=3, reverse=false} (\n"
    "      %i: i32[], %c: f32[2], %bt: f32[2]) {\n"
    "    %d = add %c, %bt : f32[2]\n"
    "    %gone = neg %d : f32[2]\n"
    "    yield %d, %d\n"
    "  } : f32[2], f32[3, 2]\n"
    "  return probe \"s\" = %s, probe \"t\" = %t, probe \"b\" = %b\n"
    "}\n";

/* ---- what only a pass can get wrong ------------------------------------- */

typedef struct Mistake {
  const char *message;
  void (*make)(Fixture *f);
} Mistake;

static void replace_unswept(Fixture *f) {
  ir_replace(node_at(f->e->region, "a")->outs.data[0],
             f->e->region->params.data[0]);
}

static void wrong_def(Fixture *f) {
  node_at(f->e->region, "a")->outs.data[0]->def = node_at(f->e->region, "b");
}

static void wrong_index(Fixture *f) {
  f->e->region->params.data[1]->index = 0;
}

static void wrong_region(Fixture *f) {
  node_at(f->e->region, "a")->region = node_at(f->e->region, "s")->body;
}

static void wrong_type(Fixture *f) {
  node_at(f->e->region, "b")->outs.data[0]->type.dims[0].size = 2;
}

static void missing_result(Fixture *f) {
  node_at(f->e->region, "s")->outs.len--;
}

static void twice(Fixture *f) {
  vec_push(&f->cx.perm, &f->e->region->nodes, node_at(f->e->region, "a"));
}

static void out_of_order(Fixture *f) {
  NodeVec *nodes = &f->e->region->nodes;
  Node *first = nodes->data[0];
  nodes->data[0] = nodes->data[1];
  nodes->data[1] = first;
}

static void captured(Fixture *f) {
  node_at(node_at(f->e->region, "s")->body, "d")->ins.data[0] =
      f->e->region->params.data[1];
}

static void wrong_owner(Fixture *f) {
  node_at(f->e->region, "s")->body->owner = node_at(f->e->region, "a");
}

static void lost_body(Fixture *f) {
  node_at(f->e->region, "s")->body = NULL;
}

static void missing_attribute(Fixture *f) {
  attr_ref(node_at(f->e->region, "s"), "reverse")->present = false;
}

static void bad_name(Fixture *f) {
  node_at(f->e->region, "a")->outs.data[0]->name = "a b";
}

static void missing_binding(Fixture *f) {
  f->e->outs.len--;
}

static void high_op(Fixture *f) {
  (void)f;
} /* %b is an exp */

static void test_mistakes(void) {
  static const Mistake mistakes[] = {
      {"a replaced value is defined; sweep first", replace_unswept},
      {"a value does not know where it is defined", wrong_def},
      {"a value does not know where it is defined", wrong_index},
      {"neg: stands in a region that it does not name", wrong_region},
      {"exp: result 0 is f32[3, 2], not f32[2, 2]", wrong_type},
      {"scan: has 2 results, not 1", missing_result},
      {"a value is defined twice", twice},
      {"exp: uses %a before its definition", out_of_order},
      {"add: uses %y of another region", captured},
      {"scan: the body names another owner", wrong_owner},
      {"scan: has no body", lost_body},
      {"scan: attribute reverse is missing", missing_attribute},
      {"value \"%a b\" is not a name", bad_name},
      {"has 2 bindings for 2 parameters, 2 for 3 results", missing_binding},
      {"exp: must be gone after expand", high_op}};
  for (size_t i = 0; i < COUNT_OF(mistakes); i++) {
    Fixture f;
    open_text(&f, small_text);
    mistakes[i].make(&f);
    bool found = false, ok = ir_verify(f.m, mistakes[i].make == high_op);
    for (uint32_t k = 0; k < f.cx.diags.len; k++)
      if (strstr(f.cx.diags.data[k].message, mistakes[i].message)) found = true;
    CHECK("the verifier finds a pass's mistake", !ok && found, "not: %s; %s",
          mistakes[i].message,
          f.cx.diags.len ? f.cx.diags.data[0].message : "nothing");
    ctx_free(&f.cx);
  }
}

/* ---- surgery ------------------------------------------------------------ */

static void test_sweep(void) {
  Fixture f;
  open_text(&f, small_text);
  Node *a = node_at(f.e->region, "a"), *scan = node_at(f.e->region, "s");
  Value *x = f.e->region->params.data[0];
  uint32_t values = ir_number(f.e);
  ir_replace(a->outs.data[0], x);
  CHECK("a replaced value reads as the other", ir_now(a->outs.data[0]) == x,
        "it does not");
  ir_sweep(f.e);
  CHECK("a sweep leaves what is needed",
        f.e->region->nodes.len == 2 && scan->body->nodes.len == 1, "%u and %u",
        f.e->region->nodes.len, scan->body->nodes.len);
  CHECK("a swept module verifies", ir_verify(f.m, false), "it does not");
  uint32_t *uses = ir_use_counts(f.e, &f.cx.perm);
  CHECK("values are numbered densely", ir_number(f.e) == values - 3, "%u",
        ir_number(f.e));
  CHECK("uses are counted",
        uses[x->id] == 1 &&
            uses[node_at(f.e->region, "b")->outs.data[0]->id] == 2 &&
            uses[scan->body->params.data[0]->id] == 0 &&
            uses[node_at(scan->body, "d")->outs.data[0]->id] == 2,
        "wrongly");
  ctx_free(&f.cx);
}

static void test_clone(void) {
  Fixture f;
  open_text(&f, small_text);
  Node *scan = node_at(f.e->region, "s");
  Builder b = ir_builder(&f.cx, f.e->region);
  Map map = {0};
  Value *x = f.e->region->params.data[0];
  map_put(&f.cx.perm, &map, scan->ins.data[1], x);
  Node *copy = ir_clone(&b, scan, &map);
  CHECK("a clone has mapped operands",
        copy->ins.data[1] == x && copy->ins.data[0] == scan->ins.data[0],
        "it has not");
  CHECK("a clone's results are in the map",
        map_get(&map, scan->outs.data[1]) == copy->outs.data[1],
        "they are not");
  CHECK("a clone has a body of its own",
        copy->body != scan->body && copy->body->nodes.len == 2 &&
            copy->body->owner == copy,
        "it has not");
  CHECK("a module with a clone verifies", ir_verify(f.m, false), "no");
  ctx_free(&f.cx);
}

static void test_builder(void) {
  Ctx cx = {0};
  Module *m = ir_module_new(&cx);
  Entry *e = ir_entry_new(m, sym(&cx, "f"), (Span){0, 0, 0});
  Binding in = {BIND_INPUT, sym(&cx, "x"), sym(&cx, "text")};
  Type t = type_of(DT_f32, 2, (const int64_t[]){4, 3});
  Value *x = ir_bind_in(e, in, in.name, t);
  Builder b = ir_builder(&cx, e->region);
  Value *h = ir_binary(&b, OP_add, x, ir_const_like(&b, x, 0.5));
  h->name = sym(&cx, "x"); /* a clash, as passes make them */
  Node *scan =
      ir_node(&b, OP_scan, NULL, &h, 1, "carries", (int64_t)0, "scanned",
              (int64_t)1, "length", (int64_t)4, "reverse", (int64_t)1, NULL);
  Builder body = ir_builder(&cx, scan->body);
  Value *slice = scan->body->params.data[1];
  vec_push(&cx.perm, &scan->body->results, ir_unary(&body, OP_tanh, slice));
  ir_finish(&b, scan);
  scan->outs.data[0]->name = sym(&cx, "x.1");
  Value *wide = ir_splat(&b, ir_reduce(&b, OP_reduce_max, x, "ab->"), t);
  Value *sum = ir_binary(&b, OP_mul, scan->outs.data[0], wide);
  ir_bind_out(e, (Binding){.kind = BIND_PROBE, .name = sym(&cx, "p")}, sum);
  Buf text = {0};
  CHECK("a built module verifies", ir_verify(m, false), "it does not");
  static const char want[] =
      "moec-ir 1\n"
      "\n"
      "entry @f(%x: f32[4, 3] = input \"text\") {\n"
      "  %0 = const {value=0.5} : f32[4, 3]\n"
      "  %x.1 = add %x, %0 : f32[4, 3]\n"
      "  %x.2 = scan %x.1 {carries=0, scanned=1, length=4, reverse=true} "
      "(\n"
      "      %1: i32[],\n"
      "      %x.3: f32[3]) {\n"
      "    %2 = tanh %x.3 : f32[3]\n"
      "    yield %2\n"
      "  } : f32[4, 3]\n"
      "  %3 = reduce_max %x {map=\"ab->\"} : f32[]\n"
      "  %4 = broadcast %3 {map=\"->ab\"} : f32[4, 3]\n"
      "  %5 = mul %x.2, %4 : f32[4, 3]\n"
      "  return probe \"p\" = %5\n"
      "}\n";
  print(m, &text);
  CHECK("names that clash are numbered", strcmp(text.data, want) == 0,
        "got:\n%s", text.data);
  buf_free(&text);
  ir_print_node(sum->def, &text);
  CHECK("one node is printed", strncmp(text.data, "%5 = mul", 8) == 0, "got %s",
        text.data);
  buf_free(&text);
  ctx_free(&cx);
}

/* ---- ragged values ------------------------------------------------------ */

static void test_ragged(void) {
  static const char text[] =
      "moec-ir 1\n"
      "entry @f(%x: f32[5, 6] = input \"t\", %ids: i32[5, 2] = input \"t\") {\n"
      "  %d = dispatch %x, %ids {experts=4} : f32[4, r<=10, 6]\n"
      "  %one = const {value=1} : f32[4, r<=10, 6]\n"
      "  %sum = add %one, %d : f32[4, r<=10, 6]\n"
      "  %o, %slot, %src = route %ids {experts=4} : i32[5], i32[5, 2], "
      "i32[10]\n"
      "  %q = fused %x, %src, %o {kind=\"rows\", rows=0} (%fx: f32[5, 6],\n"
      "      %fs: i32[10], %fo: i32[5]) {\n"
      "    %g = rows_gather %fx, %fs, %fo {choices=2} : f32[4, r<=10, 6]\n"
      "    %n = neg %g : f32[4, r<=10, 6]\n"
      "    yield %n\n"
      "  } : f32[4, r<=10, 6]\n"
      "  %r = scan %q, %o {carries=0, scanned=0, length=2, reverse=false} (\n"
      "      %t: i32[], %rq: f32[4, r<=10, 6], %ro: i32[5]) {\n"
      "    %e = exp %rq : f32[4, r<=10, 6]\n"
      "    %y = reduce_sum %e {map=\"nrd->d\"} : f32[6]\n"
      "    yield %y\n"
      "  } : f32[2, 6]\n"
      "  return probe \"r\" = %r, probe \"sum\" = %sum\n"
      "}\n";
  Fixture f;
  open_text(&f, text);
  Region *r = f.e->region;
  Node *fused = node_at(r, "q"), *scan = node_at(r, "r");
  Value *o = node_at(r, "o")->outs.data[0];
  CHECK("a constant has no rows of its own",
        !ir_ragged_source(node_at(r, "one")->outs.data[0]), "it has");
  CHECK("rows come from the ids",
        ir_ragged_source(node_at(r, "sum")->outs.data[0]) == r->params.data[1],
        "they do not");
  CHECK("within a fused op, rows come from its parameter",
        ir_ragged_source(node_at(fused->body, "n")->outs.data[0]) ==
            fused->body->params.data[2],
        "they do not");
  CHECK("outside of it, from its operand",
        ir_ragged_source(fused->outs.data[0]) == o, "they do not");
  CHECK("in a scan, from outside",
        ir_ragged_source(node_at(scan->body, "e")->outs.data[0]) == o,
        "they do not");
  CHECK("an invariant is one value",
        ir_outermost(scan->body->params.data[2]) == o, "it is not");
  Type t = fused->outs.data[0]->type;
  int64_t sizes[MAX_RANK];
  CHECK("rows are stored without the groups",
        type_elements(&t) == 60 && type_bytes(&t) == 240 &&
            type_stored_dims(&t, sizes) == 2 && sizes[0] == 10,
        "they are not");
  ctx_free(&f.cx);
}

/* ---- types, maps, tables ------------------------------------------------ */

static void test_types(void) {
  Type t = type_of(DT_f64, 3, (const int64_t[]){1 << 30, 1 << 30, 1 << 30});
  CHECK("too many elements are noticed",
        type_elements(&t) == -1 && type_bytes(&t) == -1, "they are not");
  t.rank = 2;
  CHECK("too many bytes are noticed",
        type_elements(&t) == INT64_C(1) << 60 && type_bytes(&t) == -1,
        "they are not");
}

static void test_maps(void) {
  static const char *const right[] = {"ab,bc->ac", "->",           "->ab",
                                      ",a->a",     "abcdefgh->hA", "aA->A"};
  static const char *const wrong[] = {"",      "ab",  "a,b,c->a",    "aa->a",
                                      "a->aa", "a-b", "a1->a",       "a->b->c",
                                      "a ->a", "a,b", "abcdefghi->a"};
  Ctx cx = {0};
  IndexMap m;
  for (size_t i = 0; i < COUNT_OF(right); i++)
    CHECK("a map",
          map_parse(right[i], &m) && strcmp(map_text(&cx, &m), right[i]) == 0,
          "not \"%s\"", right[i]);
  for (size_t i = 0; i < COUNT_OF(wrong); i++)
    CHECK("not a map", !map_parse(wrong[i], &m), "\"%s\"", wrong[i]);
  map_parse("abd,bc->ac", &m);
  CHECK("a free letter", map_free_letter(&m) == 'e', "%c", map_free_letter(&m));
  CHECK("a map that drops a dim",
        strcmp(map_dropping(&cx, 4, 2), "abcd->abd") == 0, "%s",
        map_dropping(&cx, 4, 2));
  ctx_free(&cx);
}

static void test_tables(void) {
  bool found = true;
  for (OpKind op = 0; op < OP_COUNT; op++) {
    OpKind again = OP_COUNT;
    const AttrSpec *specs;
    if (!op_find(op_info[op].name, &again) || again != op) found = false;
    int n = op_attrs(op, &specs);
    for (int i = 0; i < n; i++)
      if (!*specs[i].name) found = false;
  }
  CHECK("every op is found by name", found, "it is not");
  OpKind op;
  Dtype d;
  CHECK("no op is found by no name", !op_find("", &op) && !dtype_find("f", &d),
        "it is");
}

/* ---- what a node costs -------------------------------------------------- */

static const char bytes_text[] =
    "moec-ir 1\n"
    "entry @f(%x: f32[100, 4] = input \"x\", %i: i32[3] = input \"i\") {\n"
    "  %all = reduce_sum %x {map=\"ab->b\"} : f32[4]\n"
    "  %rows = gather %x, %i : f32[3, 4]\n"
    "  %part = slice %x {dim=0, start=2, size=5} : f32[5, 4]\n"
    "  %in = fused %x, %i {kind=\"map\", rows=0} (\n"
    "      %y: f32[100, 4], %k: i32[3]) {\n"
    "    %h = gather %y, %k : f32[3, 4]\n"
    "    yield %h\n"
    "  } : f32[3, 4]\n"
    "  return probe \"a\" = %all, probe \"r\" = %rows, probe \"p\" = %part, "
    "probe \"i\" = %in\n"
    "}\n";

static void test_bytes(void) {
  static const struct {
    const char *name;
    int64_t bytes;
  } cases[] = {{"all", 1600 + 16},
               {"rows", 48 + 12 + 48},
               {"part", 80 + 80},
               {"in", 48 + 12 + 48}};
  Fixture f;
  open_text(&f, bytes_text);
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    int64_t bytes = ir_bytes(node_at(f.e->region, cases[i].name));
    CHECK("bytes moved", bytes == cases[i].bytes, "%%%s: %lld, not %lld",
          cases[i].name, (long long)bytes, (long long)cases[i].bytes);
  }
  ctx_free(&f.cx);
}

/* ---- the page ----------------------------------------------------------- */

static void test_page(void) {
  Ctx cx = {0};
  Buf ops = {0}, text = {0};
  uint32_t file = 0;
  CHECK("IR.md is there", source_read(&cx, "ir/IR.md", &file), "it is not");
  const char *page = file ? cx.sources.data[file - 1].text : "";
  ir_print_ops(&ops);
  const char *list = strstr(page, "```text\n");
  CHECK("IR.md lists the ops as moec --ops does",
        list && strncmp(list + 8, ops.data, ops.len) == 0 &&
            strcmp(list + 8 + ops.len, "```\n") == 0,
        "replace its last block");
  const char *line = strstr(page, "    moec-ir 1\n");
  for (const char *end; line && (!strncmp(line, "    ", 4) || *line == '\n');
       line = end + 1) {
    end = strchr(line, '\n');
    buf_add_n(&text, line + (*line == '\n' ? 0 : 4),
              (size_t)(end - line) + (*line == '\n' ? 1 : -3));
  }
  while (text.len > 1 && text.data[text.len - 2] == '\n')
    text.data[--text.len] = '\0';
  Module *m = ir_read(&cx, source_add(&cx, "IR.md", text.data, text.len));
  if (!m) diag_print(&cx, stderr);
  buf_free(&ops);
  CHECK("the example of IR.md is canonical",
        m && strcmp(print(m, &ops), text.data) == 0, "it prints as:\n%s",
        ops.data ? ops.data : "");
  buf_free(&ops);
  buf_free(&text);
  ctx_free(&cx);
}

int main(void) {
  test_laws();
  test_mistakes();
  test_sweep();
  test_clone();
  test_builder();
  test_ragged();
  test_types();
  test_maps();
  test_tables();
  test_bytes();
  test_page();
  return failures != 0;
}
