/* fuzz_ir.c: any bytes as IR text. The reader takes them or says why not; what
 * it accepts prints, reads back the same, and goes through the passes. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Ctx cx = {0};
  uint32_t file = source_add(&cx, "fuzz.ir", (const char *)data, size);
  Module *m = ir_read(&cx, file);
  fuzz_diagnostics(&cx, m);
  if (m) {
    fuzz_round_trip(m);
    fuzz_passes(m);
  }
  ctx_free(&cx);
  return 0;
}
