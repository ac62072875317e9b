/* warps_eval.h: kernel loops as PTX, executed by the stand-in for libcuda. */
#ifndef MOEC_WARPS_EVAL_H
#define MOEC_WARPS_EVAL_H

#include "loops_eval.h"

/* Compiles a kernel for GPUs and runs its stages on copies of the arguments,
 * which are then brought back. The workspace is unwritten at first. False: what
 * went wrong is in `why`. */
bool warps_eval(Ctx *cx, Kernel *k, const LoopsArg *args, Buf *why);

#endif
