/* pack.c: offsets for buffers that live for a while.
 *
 * Two buffers may share bytes when they are never alive together. The largest
 * goes first, each into the smallest gap that holds it among those already
 * placed that live with it. Ties go by the order given, so the result depends
 * on nothing else. */
#include "pass.h"

#include <stdlib.h>

static int by_size(const void *x, const void *y) {
  const PackItem *a = *(PackItem *const *)x, *b = *(PackItem *const *)y;
  if (a->bytes != b->bytes) return a->bytes < b->bytes ? 1 : -1;
  return a < b ? -1 : 1;
}

/* The smallest gap for `b` among the items placed, which are in order of their
 * offsets. */
static int64_t best_fit(const PackItem *b, PackItem *const *placed, size_t n) {
  int64_t best = -1, best_gap = INT64_MAX, free_from = 0;
  for (size_t i = 0; i < n; i++) {
    const PackItem *o = placed[i];
    if (o->end < b->start || o->start > b->end) continue;
    int64_t gap = o->offset - free_from;
    if (gap >= b->bytes && gap < best_gap) {
      best = free_from;
      best_gap = gap;
    }
    if (o->offset + o->bytes > free_from) free_from = o->offset + o->bytes;
  }
  return best >= 0 ? best : free_from;
}

int64_t pack_offsets(PackItem *items, size_t n, Arena *a) {
  PackItem **order = NEW_ARRAY(a, PackItem *, n + 1);
  PackItem **placed = NEW_ARRAY(a, PackItem *, n + 1);
  int64_t total = 0;
  for (size_t i = 0; i < n; i++)
    order[i] = &items[i];
  qsort(order, n, sizeof *order, by_size);
  for (size_t i = 0; i < n; i++) {
    PackItem *b = order[i];
    b->offset = best_fit(b, placed, i);
    size_t at = i;
    for (; at && placed[at - 1]->offset > b->offset; at--)
      placed[at] = placed[at - 1];
    placed[at] = b;
    if (b->offset + b->bytes > total) total = b->offset + b->bytes;
  }
  return total;
}
