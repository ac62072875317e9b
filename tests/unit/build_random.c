/* build_random.c: compiled code against the interpreter, launch by launch:
 * random graphs through the whole pipeline. */
#include <stdlib.h>

#include "build.h"
#include "random_graph.h"

static int first_graph; /* number of the first random graph */

/* The whole pipeline. In f64 a step is compared as well: there, rounding moves
 * no comparison. */
static void random_graphs(int n, int opt_level, Dtype precision, bool wild) {
  for (int i = first_graph; i < first_graph + n; i++) {
    Ctx cx = {0};
    char name[128];
    RandomGraph o = {.seed = (uint64_t)i + 1,
                     .nodes = 10 + i % 5 * 15,
                     .high = true,
                     .routing = true,
                     .scans = i % 2,
                     .wild = wild};
    Module *m = random_graph(&cx, &o);
    add_init(m, false);
    if (!run_passes(m, NULL, opt_level, precision)) {
      ctx_free(&cx); /* the bits of floats are not there in f64 */
      continue;
    }
    snprintf(name, sizeof name, "build random%s graph %d -O%d %s",
             wild ? " wild" : "", i, opt_level, dtype_info[precision].name);
    check(&cx, name, m, i % 3 ? "native" : "x86-64-v3", (uint64_t)i,
          precision == DT_f64 ? 1e-6 : 0);
  }
}

/* build_random [FIRST]: number of the first random graph, to look at others
 * than the usual ones. */
int main(int argc, char **argv) {
  const int some = SANITIZED ? 10 : 20; /* it takes minutes there */
  first_graph = argc > 1 ? atoi(argv[1]) : 0;
  random_graphs(some, 2, DT_f32, false);
  random_graphs(some, 2, DT_f32, true);
  random_graphs(some, 2, DT_f64, false);
  random_graphs(some, 2, DT_bf16, false);
  random_graphs(some / 2, 0, DT_f32, false);
  random_graphs(some / 2, 0, DT_f64, false);
  return failures != 0;
}
