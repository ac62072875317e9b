/* together.c: blocks of a cooperative launch, all at once.
 *
 * Each goes on as far as it gets, one after the other, until all have ended. A
 * load that acquires and finds what it found before lets the others go first:
 * that is how blocks wait for each other. When all wait, that is an error.
 *
 * For races.c, blocks share a clock, and time is in slices of one block each. A
 * block's accesses before its last barrier are handed on by an access that
 * releases, and what was released at an address is known to a block behind the
 * barrier that follows an access there that acquires. Of several blocks that
 * have read the same the last one is asked for: they all meet, or none. */
#include "cudasim.h"

#include <stdlib.h>
#include <string.h>

typedef struct Slice {
  uint64_t start;
  int block;
} Slice;

typedef struct Released {
  uint64_t address;
  uint64_t *when; /* by block */
} Released;

struct Together {
  int n;
  Slice *slices;
  int n_slices, cap_slices;
  Released *released;
  int n_released;
  uint64_t *seen, *acquired; /* by block, of each block */
};

bool together_new(Launch *l, int blocks) {
  Together *t = l->together = calloc(1, sizeof *t);
  size_t n = (size_t)blocks * (size_t)blocks;
  if (!t) return false;
  t->n = blocks;
  t->seen = calloc(n, sizeof *t->seen);
  t->acquired = calloc(n, sizeof *t->acquired);
  return t->seen && t->acquired;
}

void together_free(Launch *l) {
  Together *t = l->together;
  if (!t) return;
  for (int k = 0; k < t->n_released; k++)
    free(t->released[k].when);
  free(t->released);
  free(t->slices);
  free(t->seen);
  free(t->acquired);
  free(t);
  l->together = NULL;
}

/* ---- whose a time is ----------------------------------------------------- */

void together_slice(Block *b) {
  Together *t = b->launch->together;
  b->slice = ++b->clock;
  if (t->n_slices == t->cap_slices) {
    t->cap_slices = t->cap_slices ? 2 * t->cap_slices : 1024;
    t->slices = realloc(t->slices, (size_t)t->cap_slices * sizeof *t->slices);
    if (!t->slices) abort();
  }
  t->slices[t->n_slices++] = (Slice){b->slice, b->number};
}

static int owner(const Together *t, uint64_t when) {
  int lo = 0, hi = t->n_slices;
  while (hi - lo > 1) {
    int mid = (lo + hi) / 2;
    if (t->slices[mid].start <= when) lo = mid;
    else hi = mid;
  }
  return t->slices[lo].block;
}

bool together_races(const Block *b, uint64_t when, bool several) {
  const Together *t = b->launch->together;
  if (when >= b->slice && !several) return false;
  int who = owner(t, when);
  if (who == b->number && !several) return false;
  return when >= t->seen[b->number * t->n + who];
}

/* ---- what is handed on --------------------------------------------------- */

static Released *released_at(Together *t, uint64_t address) {
  for (int k = 0; k < t->n_released; k++)
    if (t->released[k].address == address) return &t->released[k];
  return NULL;
}

void note_release(Warp *w, uint64_t address) {
  Block *b = w->block;
  Together *t = b->launch->together;
  if (!t) return;
  Released *r = released_at(t, address);
  if (!r) {
    t->released = realloc(t->released,
                          (size_t)(t->n_released + 1) * sizeof *t->released);
    if (!t->released) abort();
    r = &t->released[t->n_released++];
    *r = (Released){address, calloc((size_t)t->n, sizeof *r->when)};
    if (!r->when) abort();
  }
  r->when[b->number] = b->since;
}

void note_acquire(Warp *w, uint64_t address) {
  Block *b = w->block;
  Together *t = b->launch->together;
  const Released *r = t ? released_at(t, address) : NULL;
  for (int k = 0; r && k < t->n; k++) {
    uint64_t *mine = &t->acquired[b->number * t->n + k];
    if (r->when[k] > *mine) *mine = r->when[k];
  }
}

void together_met(Block *b) {
  Together *t = b->launch->together;
  size_t at = (size_t)b->number * (size_t)t->n;
  memcpy(t->seen + at, t->acquired + at, (size_t)t->n * sizeof *t->seen);
}

/* ---- running ------------------------------------------------------------- */

/* As far as it gets; whether it got anywhere. `left`: warps that have not
 * ended. */
static bool go_on(Block *b, int *left, Warp **waiting) {
  Launch *l = b->launch;
  bool any = false, more = true;
  while (more && *left && !l->status) {
    uint64_t changes = b->changes;
    int before = *left;
    *waiting = NULL;
    *left = run_warps(b, waiting);
    if (l->status) break;
    more = release_warps(b) || b->changes != changes || *left != before;
    any = any || more;
  }
  return any;
}

void run_together(Launch *l, Block *blocks, int n) {
  int *left = calloc((size_t)n, sizeof *left), over = 0;
  Warp *waiting = NULL;
  uint64_t clock = blocks[n - 1].clock;
  for (int k = 0; left && k < n; k++)
    left[k] = blocks[k].n_warps;
  for (bool any = true; any && over < n && !l->status;) {
    any = false;
    for (int k = 0; k < n && !l->status; k++) {
      int at = l->reversed ? n - 1 - k : k;
      Block *b = &blocks[at];
      if (!left[at]) continue;
      b->clock = clock;
      together_slice(b);
      any = go_on(b, &left[at], &waiting) || any;
      clock = b->clock;
      if (left[at] || l->status) continue;
      block_over(b);
      over++;
    }
  }
  if (over < n && !l->status) nobody_goes_on(waiting);
  free(left);
}
