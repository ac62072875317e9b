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
    RandomGraph o = {.seed = seed, .nodes = 1 + (int)seed % 60,
                     .high = seed % 3 != 0, .scans = seed % 4 != 0,
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

int main(void) {
  test_laws();
  return failures != 0;
}
