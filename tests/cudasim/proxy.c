/* proxy.c: the asynchronous proxy: the way by which products of warpgroups
 * and copies of boxes reach shared memory.
 *
 * A thread's write is seen there when a fence.proxy.async stands behind it: in
 * the thread that wrote, with a barrier between it and who uses it, or behind
 * the barrier, in the warp that uses it. cp.async writes as its thread does.
 * What products still read nobody may write. */
#include "async.h"

#include <stdlib.h>
#include <string.h>

/* ---- swizzles ------------------------------------------------------------ */

static const Swizzle swizzles[] = {
    {0, 0, 16}, {3, 1, 32}, {2, 2, 64}, {1, 3, 128}};

const Swizzle *swizzle_of_descriptor(uint64_t number) {
  const Swizzle *z = swizzles;
  while (z->descriptor != (int)number)
    z++;
  return z;
}

const Swizzle *swizzle_of_map(int number) {
  for (size_t k = 0; k < sizeof swizzles / sizeof *swizzles; k++)
    if (swizzles[k].map == number) return &swizzles[k];
  return NULL;
}

uint64_t swizzled(const Swizzle *z, uint64_t address) {
  uint64_t mask = (uint64_t)z->span / 16 - 1;
  return address ^ (address >> 7 & mask) << 4;
}

/* ---- units --------------------------------------------------------------- */

Unit *unit_at(const Block *b, uint64_t offset) {
  return &b->units[offset / UNIT];
}

static uint64_t last_unit(uint64_t offset, int bytes) {
  return (offset + (uint64_t)bytes - 1) / UNIT;
}

static void note_write(Warp *w, int lane, uint32_t unit) {
  Unit *u = &w->block->units[unit];
  uint16_t me = (uint16_t)(w->id * LANES + lane);
  bool listed = u->written && !u->fenced && u->writer == me;
  u->written = w->block->clock;
  u->fenced = 0;
  u->writer = me;
  if (listed) return;
  if (w->n_unfenced == w->cap_unfenced) {
    w->cap_unfenced = w->cap_unfenced ? 2 * w->cap_unfenced : 256;
    w->unfenced =
        realloc(w->unfenced, (size_t)w->cap_unfenced * sizeof *w->unfenced);
  }
  w->unfenced[w->n_unfenced++] = unit;
}

void proxy_write(Warp *w, const Ins *i, int lane, uint64_t offset, int bytes,
                 Touch kind) {
  bool takes = kind == TOUCH_TAKE;
  if (takes && !proxy_use(w, i, lane, offset, bytes)) return;
  for (uint64_t k = offset / UNIT; k <= last_unit(offset, bytes); k++) {
    Unit *u = &w->block->units[k];
    if (u->readers) {
      fault(w, i, lane, CUDA_ERROR_LAUNCH_FAILED,
            "writes byte %d of shared memory, which the wgmma of PTX line %d "
            "still reads",
            (int)k * UNIT, u->by->line);
      return;
    }
    if (takes) *u = (Unit){0};
    else note_write(w, lane, (uint32_t)k);
  }
}

/* By its writer's fence, which a barrier let this warp know of, or by its own
 * behind a barrier. */
static bool known_to(const Warp *w, const Unit *u) {
  int writer = u->writer / LANES;
  if (!u->written || u->written < w->fenced ||
      u->written < w->known_fenced[writer])
    return true;
  return u->fenced && (writer == w->id || u->fenced < w->block->since ||
                       u->fenced < w->known[writer]);
}

bool proxy_use(Warp *w, const Ins *i, int lane, uint64_t offset, int bytes) {
  for (uint64_t k = offset / UNIT; k <= last_unit(offset, bytes); k++) {
    const Unit *u = &w->block->units[k];
    if (known_to(w, u)) continue;
    fault(w, i, lane, CUDA_ERROR_LAUNCH_FAILED,
          "uses byte %d of shared memory, which thread %d wrote, with no "
          "fence.proxy.async in between",
          (int)k * UNIT, u->writer);
    return false;
  }
  return true;
}

/* Writes of the lanes that are here, and, for this warp, all writes before
 * the last barrier. */
static void ins_proxy_fence(Warp *w, const Ins *i) {
  (void)i;
  Block *b = w->block;
  int kept = 0;
  if (!b->units) return;
  for (int k = 0; k < w->n_unfenced; k++) {
    Unit *u = &b->units[w->unfenced[k]];
    if (u->writer / LANES != w->id) continue;
    if (w->active >> u->writer % LANES & 1) u->fenced = b->clock;
    else w->unfenced[kept++] = w->unfenced[k];
  }
  w->n_unfenced = kept;
  w->fenced = b->since;
  memcpy(w->known_fenced, w->known, sizeof w->known);
}

bool decode_proxy_fence(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  Str whole = rest;
  if (!take_modifier(&rest, "async")) return unknown_modifier(d, s, whole);
  if (rest.n && !str_is(rest, "shared::cta"))
    return unknown_modifier(d, s, rest);
  i->run = ins_proxy_fence;
  return operands_add(d, i, s, "");
}

/* ---- blocks -------------------------------------------------------------- */

static size_t units_of(const Block *b) {
  return b->shared_bytes / UNIT + 1;
}

bool async_new(Block *b) {
  b->units = malloc(units_of(b) * sizeof *b->units);
  return b->units && products_new(b);
}

void async_start(Block *b) {
  memset(b->units, 0, units_of(b) * sizeof *b->units);
  gates_start(b);
  for (int k = 0; k < b->n_warps; k++) {
    Warp *w = &b->warps[k];
    w->n_unfenced = 0;
    w->fenced = 0;
    memset(w->known, 0, sizeof w->known);
    memset(w->known_fenced, 0, sizeof w->known_fenced);
    products_start(w);
  }
}

void async_over(Block *b) {
  const Ins *copy = bulk_coming(b);
  products_over(b);
  if (copy)
    fault(&b->warps[0], copy, -1, CUDA_ERROR_LAUNCH_FAILED,
          "the block ends before this copy has arrived");
}

void async_free(Block *b) {
  products_free(b);
  bulk_free(b);
  gates_free(b);
  free(b->units);
  for (int k = 0; b->warps && k < b->n_warps; k++)
    free(b->warps[k].unfenced);
}
