/* fuzz_dsl.c: any bytes as a model. The front end accepts them or says why not;
 * what it accepts goes through the passes. Imports are refused, so a model is
 * one text. */
#include "fuzz.h"

#include "../../frontend/frontend.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Ctx cx = {0};
  uint32_t file = source_add(&cx, "fuzz.dsl", (const char *)data, size);
  FeOptions o = {.path = "fuzz.dsl", .file = file, .sealed = true};
  Module *m = fe_compile(&cx, &o);
  fuzz_diagnostics(&cx, m);
  if (m) {
    fuzz_round_trip(m);
    fuzz_passes(m);
  }
  ctx_free(&cx);
  return 0;
}
