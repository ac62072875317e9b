/* check.h: what a unit test prints, a line a case. */
#ifndef MOEC_CHECK_H
#define MOEC_CHECK_H

#include <math.h>
#include <stdio.h>

/* Whether ASan checks this program, which takes several times as long. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static int failures; /* main returns whether it is 0 */

/* The larger of two errors; one that is no number is the largest. */
static inline double worse(double a, double b) {
  return a >= b ? a : b == b ? b : (double)INFINITY;
}

/* CHECK(name, condition, "why: %d", ...): one case. */
#define CHECK(name, ok, ...)                                                  \
  do {                                                                        \
    if (ok) {                                                                 \
      printf("ok %s\n", name);                                                \
    } else {                                                                  \
      printf("not ok %s: ", name);                                            \
      printf(__VA_ARGS__);                                                    \
      printf("\n");                                                           \
      failures++;                                                             \
    }                                                                         \
  } while (0)

#endif
