/* fuzz.c: laws that hold for every module that was accepted. */
#include "fuzz.h"

#include "../../passes/pass.h"

#include <stdlib.h>
#include <string.h>

enum { SMALL_NODES = 2000, SMALL_ELEMENTS = 1 << 16 };

void fuzz_round_trip(Module *m) {
  Ctx *cx = m->cx;
  Buf first = {0}, second = {0};
  ir_print(m, (PrintOptions){0}, &first);
  uint32_t file = source_add(cx, "printed.ir", first.data, first.len);
  Module *again = ir_read(cx, file);
  if (!again) {
    fputs(first.data, stderr);
    diag_print(cx, stderr);
    internal_error("printed text cannot be read");
  }
  ir_print(again, (PrintOptions){0}, &second);
  if (strcmp(first.data, second.data) != 0) {
    fprintf(stderr, "%s\n----\n%s", first.data, second.data);
    internal_error("printed text reads as another module");
  }
  buf_free(&first);
  buf_free(&second);
}

static void count_region(const Region *r, uint32_t *nodes, int64_t *elements) {
  for (uint32_t i = 0; i < r->params.len && *elements < SMALL_ELEMENTS; i++)
    *elements += type_elements(&r->params.data[i]->type);
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    ++*nodes;
    for (uint32_t k = 0; k < n->outs.len && *elements < SMALL_ELEMENTS; k++)
      *elements += type_elements(&n->outs.data[k]->type);
    if (n->body) count_region(n->body, nodes, elements);
  }
}

void fuzz_passes(Module *m) {
  uint32_t nodes = 0;
  int64_t elements = 0;
  for (uint32_t i = 0; i < m->entries.len && elements < SMALL_ELEMENTS; i++)
    count_region(m->entries.data[i]->region, &nodes, &elements);
  if (nodes > SMALL_NODES || elements >= SMALL_ELEMENTS) return;
  Pipeline p = {.options = {.opt_level = 2, .precision = DT_f32}};
  if (pass_run(&p, m))
    fuzz_round_trip(m);
  else if (m->cx->errors == 0)
    internal_error("a pass failed without a diagnostic");
}

void fuzz_diagnostics(Ctx *cx, const Module *m) {
  if (!m && cx->errors == 0) internal_error("refused without a diagnostic");
  if (m && cx->errors != 0) internal_error("accepted with errors");
  static FILE *nowhere;
  if (!nowhere) nowhere = fopen("/dev/null", "w");
  if (nowhere) diag_print(cx, nowhere);
}
