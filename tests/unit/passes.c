/* passes.c: no pass changes what a program computes. Every IR file under
 * tests/pass that reads without errors is run through the passes up to
 * `expand`; after each one the interpreter, in f64, must give the results that
 * it gave before.
 * Run from the top of the project. */
#include "../../passes/pass.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int failures;

static void fail(const char *path, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void fail(const char *path, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  printf("not ok passes %s: ", path);
  vprintf(fmt, args);
  printf("\n");
  va_end(args);
  failures++;
}

/* ---- running an entry -------------------------------------------------- */

static uint64_t state;

static double uniform(void) { /* splitmix64 */
  uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

/* The same inputs whenever it is called for the same entry. */
static Tensor **draw(Entry *e, Arena *a) {
  const ValueVec *params = &e->region->params;
  Tensor **ins = NEW_ARRAY(a, Tensor *, params->len + 1);
  state = 5;
  for (uint32_t i = 0; i < params->len; i++) {
    Tensor *t = ins[i] = tensor_new(a, params->data[i]->type);
    bool is_float = dtype_info[t->type.dtype].kind == DK_FLOAT;
    bool is_bool = dtype_info[t->type.dtype].kind == DK_BOOL;
    for (int64_t k = 0; k < type_elements(&t->type); k++)
      t->data[k] =
          is_float ? 0.1 + uniform() : floor((is_bool ? 2 : 3) * uniform());
  }
  return ins;
}

static Tensor **run(Ctx *cx, Entry *e, Arena *a) {
  Eval ev = {.cx = cx, .mode = EVAL_F64};
  Tensor **outs = NEW_ARRAY(a, Tensor *, e->region->results.len + 1);
  if (ir_eval(&ev, e, draw(e, a), outs, a)) return NULL;
  return outs;
}

static double distance(const Tensor *a, const Tensor *b) {
  double diff = 0, size = 0;
  for (int64_t i = 0; i < type_elements(&a->type); i++) {
    diff += (a->data[i] - b->data[i]) * (a->data[i] - b->data[i]);
    size += a->data[i] * a->data[i];
  }
  return sqrt(diff) / (sqrt(size) + 1e-12);
}

/* ---- one file ---------------------------------------------------------- */

static bool same_results(const char *path, const char *pass, const Entry *e,
                         Tensor **before, Tensor **after) {
  if (!after) {
    fail(path, "%s: @%s no longer runs", pass, e->name);
    return false;
  }
  for (uint32_t i = 0; i < e->outs.len; i++) {
    double d = distance(before[i], after[i]);
    if (d < 1e-12) continue;
    fail(path, "%s: result %u of @%s differs by %g", pass, i, e->name, d);
    return false;
  }
  return true;
}

static bool check_pass(const char *path, Module *m, const PassInfo *p) {
  Arena a = {0};
  PassOptions o = {.precision = DT_f64, .opt_level = 2};
  bool was_free = pass_facts(m, FACT_GRADS) == FACT_GRADS, ok = true;
  Tensor ***before = NEW_ARRAY(&a, Tensor **, m->entries.len);
  for (uint32_t i = 0; was_free && i < m->entries.len; i++)
    before[i] = run(m->cx, m->entries.data[i], &a);
  if (!p->run(m, &o)) ok = false;
  if (ok && !ir_verify(m, false)) {
    fail(path, "%s breaks the program", p->name);
    ok = false;
  }
  for (uint32_t i = 0; ok && was_free && i < m->entries.len; i++)
    if (before[i])
      ok = same_results(path, p->name, m->entries.data[i], before[i],
                        run(m->cx, m->entries.data[i], &a));
  arena_reset(&a);
  return ok;
}

static void check_file(const char *path) {
  Ctx cx = {0};
  uint32_t file;
  Module *m = source_read(&cx, path, &file) ? ir_read(&cx, file) : NULL;
  bool ok = m != NULL;
  for (int i = 0; ok && i < pass_find("expand"); i++)
    if (pass_info[i].run != pass_precision)
      ok = check_pass(path, m, &pass_info[i]);
  if (ok) printf("ok passes %s\n", path);
  ctx_free(&cx);
}

static int is_ir(const struct dirent *d) {
  const char *dot = strrchr(d->d_name, '.');
  return dot && strcmp(dot, ".ir") == 0;
}

static void check_folder(const char *folder) {
  struct dirent **files;
  int n = scandir(folder, &files, is_ir, alphasort);
  if (n <= 0) fail(folder, "no IR files");
  for (int i = 0; i < n; i++) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, files[i]->d_name);
    check_file(path);
    free(files[i]);
  }
  if (n >= 0) free(files);
}

int main(void) {
  static const char *const folders[] = {
      "tests/pass/simplify", "tests/pass/hoist", "tests/pass/autodiff",
      "tests/pass/recompute"};
  for (size_t i = 0; i < COUNT_OF(folders); i++)
    check_folder(folders[i]);
  return failures != 0;
}
