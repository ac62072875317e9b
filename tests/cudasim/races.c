/* races.c: two threads that use a byte, one of them writing, in no order.
 *
 * A clock ticks when a block begins and at each barrier, of the block
 * (bar.sync) or of a warp (bar.warp.sync). All memory knows who read it last
 * and who wrote it, and when. An access by another thread needs a barrier in
 * between that both took part in: for lanes of one warp either kind. Lanes of
 * a warp too: that they run together is a habit of this machine and no promise.
 * Blocks of one launch are in no order at all, but for those that wait for each
 * other (together.c). Atomics do not race, nor do
 * accesses that are volatile or relaxed; a barrier of some of the warps is
 * taken for one of all. An mbarrier lets those who wait for it know what those
 * did who arrived (mbarrier.c).
 *
 * Shared memory is known by bytes, global memory by halves of a word; accesses
 * to single bytes of that are not looked at. */
#include "cudasim.h"

#include <stdio.h>

enum {
  WHO_WARP = 0x8000,   /* several lanes of the warp in the lower bits */
  WHO_BLOCKS = 0xfffe, /* threads of several blocks */
  WHO_MANY = 0xffff    /* threads of several warps */
};

static inline Access access_by(uint64_t clock, int who) {
  return clock << 16 | (uint64_t)who;
}
static inline uint64_t when(Access a) {
  return a >> 16;
}
static inline int who(Access a) {
  return (int)(a & 0xffff);
}

static int warp_of(Access a) {
  return who(a) & WHO_WARP ? who(a) & ~WHO_WARP : who(a) / LANES;
}

/* Of a block before this one in this launch; shared memory is each block's
 * own. */
static bool by_other_block(const Warp *w, Access a, bool global) {
  if (w->block->launch->together)
    return global && when(a) >= w->block->launch->start &&
           together_races(w->block, when(a), who(a) == WHO_BLOCKS);
  return global && when(a) >= w->block->launch->start &&
         (who(a) == WHO_BLOCKS || when(a) < w->block->start);
}

/* What mbarriers told this warp of that one; of several, of any of them. */
static uint64_t known_until(const Warp *w, Access a) {
  uint64_t most = 0;
  if (who(a) != WHO_MANY) return w->known[warp_of(a)];
  for (int k = 0; k < w->block->n_warps; k++)
    if (w->known[k] > most) most = w->known[k];
  return most;
}

/* It was someone else, and nothing was in between. */
static bool races(const Warp *w, Access a, int me, bool global) {
  if (by_other_block(w, a, global)) return true;
  if (when(a) < w->block->since || who(a) == me) return false;
  bool same_warp = who(a) != WHO_MANY && warp_of(a) == w->id;
  return same_warp ? when(a) >= w->since : when(a) >= known_until(w, a);
}

static void report(Warp *w, const Ins *i, int lane, const char *what,
                   uint64_t at, Access other, bool global) {
  char thread[32];
  snprintf(thread, sizeof thread, "thread %d", who(other));
  const char *by = by_other_block(w, other, global) ? "another block"
                   : who(other) == WHO_MANY ? "threads of several warps"
                   : who(other) & WHO_WARP  ? "other lanes of this warp"
                                            : thread;
  const char *why = by_other_block(w, other, global)
                        ? "blocks are in no order"
                        : "with no barrier in between";
  if (global)
    fault(w, i, lane, CUDA_ERROR_LAUNCH_FAILED,
          "race: global memory was %s by %s, %s (0x%llx)", what, by, why,
          (unsigned long long)at);
  else
    fault(w, i, lane, CUDA_ERROR_LAUNCH_FAILED,
          "race: byte %d of shared memory was %s by %s, %s", (int)at, what, by,
          why);
}

static inline void note_reader(const Warp *w, Access *r, int me, bool global) {
  const Block *b = w->block;
  if (by_other_block(w, *r, global)) {
    me = WHO_BLOCKS;
  } else if (who(*r) != me && when(*r) >= b->since) {
    if (who(*r) == WHO_MANY || warp_of(*r) != w->id) me = WHO_MANY;
    else if (when(*r) >= w->since) me = WHO_WARP | w->id;
  }
  *r = access_by(b->clock, me);
}

/* False after a fault. */
static inline bool note(Warp *w, const Ins *i, int lane, Access *r, Access *v,
                        Touch kind, uint64_t at, bool global) {
  int me = w->id * LANES + lane;
  if (races(w, *v, me, global)) {
    report(w, i, lane, "written", at, *v, global);
    return false;
  }
  if (kind != TOUCH_LOAD && races(w, *r, me, global)) {
    report(w, i, lane, "read", at, *r, global);
    return false;
  }
  if (kind != TOUCH_LOAD) *v = access_by(w->block->clock, me);
  else note_reader(w, r, me, global);
  return true;
}

void note_shared(Warp *w, const Ins *i, int lane, uint32_t at, int bytes,
                 Touch kind) {
  Block *b = w->block;
  if (kind == TOUCH_ATOMIC || i->strong) return;
  for (uint32_t k = at; k < at + (uint32_t)bytes; k++)
    if (!note(w, i, lane, &b->readers[k], &b->writers[k], kind, k, false))
      return;
}

void note_global(Warp *w, const Ins *i, int lane, uint64_t offset, int bytes,
                 Touch kind) {
  const Region *g = &w->block->launch->heap->region;
  if (kind == TOUCH_ATOMIC || i->strong || bytes < 2 || !g->readers) return;
  for (uint64_t k = offset / 2; k < (offset + (uint64_t)bytes) / 2; k++)
    if (!note(w, i, lane, &g->readers[k], &g->writers[k], kind, g->base + 2 * k,
              true))
      return;
}
