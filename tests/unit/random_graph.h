/* random_graph.h: seeded random modules that pass the verifier, to compare the
 * stages of the compiler with one another. */
#ifndef MOEC_RANDOM_GRAPH_H
#define MOEC_RANDOM_GRAPH_H

#include "../../ir/ir.h"

typedef struct RandomGraph {
  uint64_t seed; /* equal seeds and options give equal modules */
  int nodes;     /* about how many */
  bool high;     /* with ops that `expand` replaces */
  bool routing;  /* with rows of experts */
  bool scans;
  bool wild; /* floats may overflow and become NaN; else they stay small */
} RandomGraph;

/* One entry, @main, that uses all it computes: it takes inputs, a parameter, a
 * state, an option, step and seed, and returns the state, a report and probes.
 * Shapes are small, odd ones and dims of 1 included. Ids are in range whatever
 * the inputs are; some experts get no rows, some get all. */
Module *random_graph(Ctx *cx, const RandomGraph *o);

/* Values for the parameters of an entry, by dtype: floats in [-2, 2), integers
 * of every size. `ins` as entry->ins. */
void random_inputs(const Entry *e, uint64_t seed, Arena *a, Tensor **ins);

/* The generator itself. */
typedef struct Random {
  uint64_t state;
} Random;
uint64_t random_bits(Random *r);
int64_t random_below(Random *r, int64_t n); /* in [0, n) */
double random_unit(Random *r);              /* in [0, 1) */

#endif
