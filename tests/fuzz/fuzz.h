/* fuzz.h: what both fuzzers do with a module that was accepted. */
#ifndef MOEC_FUZZ_H
#define MOEC_FUZZ_H

#include "../../ir/ir.h"

/* libFuzzer calls it with each input. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Prints the module, reads it, prints that: the texts must be equal. */
void fuzz_round_trip(Module *m);
/* Runs every pass, where the module is small enough to do it often. A pass may
 * refuse it with diagnostics, nothing else. */
void fuzz_passes(Module *m);
/* Prints the diagnostics to nowhere; with no module there must be some. */
void fuzz_diagnostics(Ctx *cx, const Module *m);

#endif
