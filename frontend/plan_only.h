/* plan_only.h: --plan-only, a part of the program moec. */
#ifndef MOEC_PLAN_ONLY_H
#define MOEC_PLAN_ONLY_H

#include "options.h"

#include "../passes/pass.h"
#include "frontend.h"

/* What the options of --plan-only say of one another and of the rest, read. */
enum { MAX_PLAN_POINTS = 32 };
typedef struct PlanOnly {
  const Options *o;
  int64_t devices[MAX_PLAN_POINTS]; /* none: the mesh as it is given */
  int n_devices;
} PlanOnly;

/* False: the command line is wrong, and the returned text says how. */
bool plan_only_read(Ctx *cx, const Options *o, PlanOnly *out, Sym *why);
/* Adds the report to `out`. False: diagnostics were reported in `cx` or
 * printed. */
bool plan_only_run(Ctx *cx, const PlanOnly *p, const FeOptions *fe,
                   const PassOptions *passes, Buf *out);

#endif
