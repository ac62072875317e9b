/* ranks_run.h: a placed program by one rank against its partition by virtual
 * ranks. */
#ifndef MOEC_RANKS_RUN_H
#define MOEC_RANKS_RUN_H

#include "../../passes/pass.h"

/* An entry before `partition`, which computes whole tensors, and after. */
typedef struct RanksRun {
  Ctx *cx;
  Entry *whole, *part;
  EvalMode mode;
  Arena *a;
  uint64_t seed; /* of inputs drawn */
  int64_t below; /* integers drawn are in [0, below) */
  Tensor **ins;  /* of `whole`, as whole->ins */
  Tensor **outs; /* its results, set by ranks_run */
  double worst;  /* largest difference of a result, as ranks_run has it */
  double rounds; /* report `rounds` of the ranks, 1 where there is none */
} RanksRun;

/* Operands for r->whole: a slot has what `slots` has under its path, or floats
 * around 0; options are their defaults, step `step`. */
typedef struct RanksSlot {
  Sym path;
  Tensor *t;
} RanksSlot;
typedef VEC(RanksSlot) RanksSlots;
void ranks_draw(RanksRun *r, const RanksSlots *slots, int64_t step);
/* Runs both. NULL: every result r->whole makes, each rank of r->part has its
 * part of, within tol in norm, and 0 where it is 0. Else what is wrong. */
const char *ranks_run(RanksRun *r, double tol);

/* A module as it is placed, and partitioned. Zeroed at first; m is in s->cx. */
typedef struct Sides {
  Ctx cx;
  Module *whole, *part;
  Arena a;
  double worst; /* as of RanksRun, over all steps */
  double expert_rows; /* as of PassOptions */
  double rounds;      /* the most of a step */
} Sides;
/* Runs `m`, at stage `from`, NULL for a new one, through the passes, up to
 * `rounds`. False: one has failed. */
bool sides_split(Sides *s, Module *m, const char *from);
/* Step `at` of an entry of both, from `slots`, which are those after it then;
 * integers drawn are in [0, below). As ranks_run. */
const char *sides_step(Sides *s, const char *entry, RanksSlots *slots,
                       int64_t at, EvalMode mode, int64_t below, double tol);
void sides_free(Sides *s);

#endif
