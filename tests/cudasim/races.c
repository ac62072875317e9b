/* races.c: two threads that use a byte of shared memory, one of them writing,
 * with no barrier between them.
 *
 * A clock of the block ticks at each barrier, of the block (bar.sync) or of
 * a warp (bar.warp.sync). Each byte knows who read it last and who wrote it,
 * and when; an access by another thread needs a barrier in between that both
 * took part in: for lanes of one warp either kind. Lanes of a warp too: that
 * they run together is a habit of this machine and no promise. Atomics do not
 * race. A barrier of some of the warps is taken for one of all. */
#include "cudasim.h"

#include <stdio.h>

enum {
  WHO_WARP = 0x8000, /* several lanes of the warp in the lower bits */
  WHO_MANY = 0xffff  /* lanes of several warps */
};

static int warp_of(uint16_t who) {
  return who & WHO_WARP ? who & ~WHO_WARP : who / LANES;
}

/* It was someone else, and no barrier was since. */
static bool races(const Warp *w, const Access *a, uint16_t me) {
  const Block *b = w->block;
  if (a->who == me || a->clock < b->since) return false;
  bool same_warp = a->who != WHO_MANY && warp_of(a->who) == w->id;
  return !same_warp || a->clock >= w->since;
}

static void report(Warp *w, const Ins *i, int lane, uint32_t at,
                   const char *what, const Access *other) {
  const char *who = other->who == WHO_MANY   ? "threads of several warps"
                    : other->who & WHO_WARP ? "other lanes of this warp"
                                             : "thread";
  char number[16] = "";
  if (!(other->who & WHO_WARP))
    snprintf(number, sizeof number, " %d", other->who);
  fault(w, i, lane, CUDA_ERROR_LAUNCH_FAILED,
        "race: byte %u of shared memory was %s by %s%s, with no barrier "
        "in between", at, what, who, number);
}

static void note_reader(const Warp *w, Access *r, uint16_t me) {
  const Block *b = w->block;
  if (r->who != me && r->clock >= b->since) {
    if (r->who == WHO_MANY || warp_of(r->who) != w->id) me = WHO_MANY;
    else if (r->clock >= w->since) me = (uint16_t)(WHO_WARP | w->id);
  }
  *r = (Access){b->clock, me};
}

void note_shared(Warp *w, const Ins *i, int lane, uint32_t at, int bytes,
                 Touch kind) {
  Block *b = w->block;
  uint16_t me = (uint16_t)(w->id * LANES + lane);
  if (kind == TOUCH_ATOMIC) return;
  for (uint32_t k = at; k < at + (uint32_t)bytes; k++) {
    Access *r = &b->readers[k], *v = &b->writers[k];
    if (races(w, v, me)) {
      report(w, i, lane, k, "written", v);
      return;
    }
    if (kind == TOUCH_STORE && races(w, r, me)) {
      report(w, i, lane, k, "read", r);
      return;
    }
    if (kind == TOUCH_STORE) *v = (Access){b->clock, me};
    else note_reader(w, r, me);
  }
}
