/* launches.h: compiled code against the interpreter, launch by launch. */
#ifndef MOEC_LAUNCHES_H
#define MOEC_LAUNCHES_H

#include "../../codegen/codegen.h"

/* Compiles a planned module for `cpu` into a library in the temporary folder,
 * opens it, and for each entry runs the interpreter on random inputs. After
 * each of its nodes, the node's record runs on the interpreter's operands in a
 * session whose memory is otherwise NaN, and its results are compared:
 * bit by bit where nothing is summed, by norm where sums may be reordered.
 * Then a whole step runs on the same inputs, compared by norm with `step_tol`
 * (0: not compared). False: `why` says what differs first. */
bool launches_agree(Module *m, const char *cpu, uint64_t seed, double step_tol,
                    Buf *why);

/* Ids that inputs named `name` may hold are in [0, below); by default they are
 * whatever random_inputs gives. Ends at a NULL name. */
typedef struct InputBound {
  const char *name;
  int64_t below;
} InputBound;
extern const InputBound *launches_bounds;

#endif
