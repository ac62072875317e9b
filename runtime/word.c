/* word.c: which of the known names was meant.
 *
 * Part of the library and of moerun both; neither exports it. */
#include "rt.h"

#include <stdlib.h>
#include <string.h>

enum { LONGEST = 63 };

static int min3(int a, int b, int c) {
  int m = a < b ? a : b;
  return m < c ? m : c;
}

/* Insertions, deletions and replacements that turn one word into the other. */
static int distance(const char *a, const char *b) {
  int la = (int)strlen(a), lb = (int)strlen(b), row[LONGEST + 1];
  if (la > LONGEST || lb > LONGEST) return LONGEST;
  for (int j = 0; j <= lb; j++)
    row[j] = j;
  for (int i = 1; i <= la; i++) {
    int diagonal = row[0];
    row[0] = i;
    for (int j = 1; j <= lb; j++) {
      int above = row[j];
      row[j] =
          min3(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
      diagonal = above;
    }
  }
  return row[lb];
}

const char *rt_nearest(const char *word, const void *candidates, size_t n,
                       size_t stride) {
  const char *best = NULL;
  int best_distance = (int)strlen(word) / 3 + 2; /* farther is another word */
  for (size_t i = 0; i < n; i++) {
    const char *c;
    memcpy(&c, (const char *)candidates + i * stride, sizeof c);
    int d = distance(word, c);
    if (d < best_distance && d < (int)strlen(c)) best = c, best_distance = d;
  }
  return best;
}

const char *rt_did_you_mean(const char *word, const void *candidates, size_t n,
                            size_t stride) {
  static _Thread_local char text[128];
  const char *c = rt_nearest(word, candidates, n, stride);
  if (c)
    snprintf(text, sizeof text, "; did you mean '%s'?", c);
  else
    text[0] = 0;
  return text;
}
