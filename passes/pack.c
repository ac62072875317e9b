/* pack.c: offsets for buffers that live for a while.
 *
 * Two buffers may share bytes when they are never alive together. They are
 * placed one by one, each into the smallest gap that holds it among those
 * already placed that live with it. No one order is always good: the largest
 * first, the largest by bytes and life, and the longest-lived first are all
 * tried, and the least total wins. Ties go by the order given, so the result
 * depends on nothing else. */
#include "pass.h"

static int by_bytes(const PackItem *a, const PackItem *b) {
  return (a->bytes < b->bytes) - (a->bytes > b->bytes);
}

static int by_life(const PackItem *a, const PackItem *b) {
  int x = a->end - a->start, y = b->end - b->start;
  return (x < y) - (x > y);
}

static int by_area(const PackItem *a, const PackItem *b) {
  double x = (double)a->bytes * (a->end - a->start + 1);
  double y = (double)b->bytes * (b->end - b->start + 1);
  return (x < y) - (x > y);
}

typedef int Order(const PackItem *a, const PackItem *b);
static Order *const orders[] = {by_bytes, by_area, by_life};

/* Insertion sort: stable, so ties stay in the order given. */
static void sort_items(PackItem **v, size_t n, Order *order) {
  for (size_t i = 1; i < n; i++) {
    PackItem *item = v[i];
    size_t at = i;
    for (; at && order(v[at - 1], item) > 0; at--)
      v[at] = v[at - 1];
    v[at] = item;
  }
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

/* Places the items in one order; returns the bytes that all take. */
static int64_t pack_in_order(PackItem *const *order, PackItem **placed,
                             size_t n) {
  int64_t total = 0;
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

int64_t pack_offsets(PackItem *items, size_t n, Arena *a) {
  PackItem **order = NEW_ARRAY(a, PackItem *, n + 1);
  PackItem **placed = NEW_ARRAY(a, PackItem *, n + 1);
  Order *best = NULL;
  int64_t least = INT64_MAX;
  for (size_t k = 0; k <= COUNT_OF(orders); k++) {
    Order *by = k < COUNT_OF(orders) ? orders[k] : best;
    for (size_t i = 0; i < n; i++)
      order[i] = &items[i];
    sort_items(order, n, by);
    int64_t total = pack_in_order(order, placed, n);
    if (total < least) {
      least = total;
      best = by;
    }
  }
  return least;
}
