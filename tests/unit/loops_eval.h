/* loops_eval.h: kernel loops executed in plain C, every access checked. */
#ifndef MOEC_LOOPS_EVAL_H
#define MOEC_LOOPS_EVAL_H

#include "../../codegen/codegen.h"

typedef struct LoopsArg {
  unsigned char *data;
  int64_t bytes;
} LoopsArg;

/* Runs a kernel, each stage's chunks from the last to the first: their order
 * must not matter. Scratch is poisoned before each chunk, the workspace once.
 * False: what went wrong is in `why`. */
bool loops_eval(Ctx *cx, const Kernel *k, const LoopsArg *args, Buf *why);

#endif
