/* exec.c: a grid is executed block by block, a block warp by warp, each until
 * it ends or waits at a barrier.
 *
 * The lanes of a warp stand at one place of the code or, after a branch that
 * some of them took, at several: groups. Always the group that is first in the
 * code goes on, and groups that meet become one, so lanes come together again
 * behind what parted them. An instruction of several lanes, like a shuffle,
 * waits until the lanes it names are there; when nobody can go on, that is
 * an error. */
#include "async.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- faults -------------------------------------------------------------- */

static int where(const Warp *w, const Ins *i, int lane, char *text, size_t n) {
  const Launch *l = w->block->launch;
  const uint32_t *id = w->block->id;
  int at =
      snprintf(text, n, "kernel %s, PTX line %d", l->kernel->name, i->line);
  const Module *m = l->kernel->module;
  if (i->loc.line && i->loc.file >= 0 && i->loc.file < m->n_files &&
      m->files[i->loc.file].n)
    at += snprintf(text + at, n - (size_t)at, " (%.*s:%d)",
                   m->files[i->loc.file].n, m->files[i->loc.file].at,
                   i->loc.line);
  else if (i->loc.line)
    at += snprintf(text + at, n - (size_t)at, " (source line %d)", i->loc.line);
  at += snprintf(text + at, n - (size_t)at, ", block (%u,%u,%u), ", id[0],
                 id[1], id[2]);
  if (lane < 0)
    return at + snprintf(text + at, n - (size_t)at, "warp %d: ", w->id);
  const uint32_t *tid = (const uint32_t *)w->base[BASE_SPECIAL] + lane;
  return at + snprintf(text + at, n - (size_t)at, "thread (%u,%u,%u): ",
                       tid[SPECIAL_tid_x * LANES], tid[SPECIAL_tid_y * LANES],
                       tid[SPECIAL_tid_z * LANES]);
}

void fault(Warp *w, const Ins *i, int lane, int status, const char *format,
           ...) {
  Launch *l = w->block->launch;
  w->stop = true;
  if (l->status) return;
  l->status = status;
  int at = where(w, i, lane, l->error, sizeof l->error);
  va_list args;
  va_start(args, format);
  vsnprintf(l->error + at, sizeof l->error - (size_t)at, format, args);
  va_end(args);
}

/* ---- values of operands -------------------------------------------------- */

void get_wide(const Warp *w, const Ins *i, int k, bool is_signed,
              uint64_t *out) {
  const void *v = src(w, i, k);
  for (int l = 0; l < LANES; l++) {
    switch (i->o[k].bytes) {
    case 0: out[l] = *(const uint32_t *)v >> l & 1; break;
    case 2:
      out[l] = is_signed ? (uint64_t)(int64_t)((const int16_t *)v)[l]
                         : ((const uint16_t *)v)[l];
      break;
    case 4:
      out[l] = is_signed ? (uint64_t)(int64_t)((const int32_t *)v)[l]
                         : ((const uint32_t *)v)[l];
      break;
    case 8: out[l] = ((const uint64_t *)v)[l]; break;
    }
  }
}

void put_wide(const Warp *w, const Ins *i, int k, const uint64_t *v) {
  if (i->o[k].none) return;
  void *d = dst(w, i, k);
  for (int l = 0; l < LANES; l++) {
    if (!(w->active >> l & 1)) continue;
    switch (i->o[k].bytes) {
    case 0:
      *(uint32_t *)d &= ~lane_bit(l);
      *(uint32_t *)d |= v[l] & 1 ? lane_bit(l) : 0;
      break;
    case 2: ((uint16_t *)d)[l] = (uint16_t)v[l]; break;
    case 4: ((uint32_t *)d)[l] = (uint32_t)v[l]; break;
    case 8: ((uint64_t *)d)[l] = v[l]; break;
    }
  }
}

/* ---- groups of lanes ----------------------------------------------------- */

static void take_group(Warp *w, int k) {
  w->pc = w->groups[k].pc;
  w->mask = w->groups[k].mask;
  w->groups[k] = w->groups[--w->n_groups];
}

static void add_group(Warp *w, uint32_t pc, uint32_t mask, bool waits) {
  w->groups[w->n_groups++] = (Group){pc, mask, waits};
}

/* Groups that stand where this one does join it; then the first goes on. */
static void settle(Warp *w) {
  int first = -1;
  for (int k = 0; k < w->n_groups;) {
    Group *g = &w->groups[k];
    if (g->pc == w->pc) {
      w->mask |= g->mask;
      *g = w->groups[--w->n_groups];
      continue;
    }
    if (!g->waits && g->pc < (first < 0 ? w->pc : w->groups[first].pc))
      first = k;
    k++;
  }
  if (first < 0) return;
  uint32_t pc = w->pc, mask = w->mask;
  take_group(w, first);
  add_group(w, pc, mask, false);
}

void branch(Warp *w, uint32_t taken, uint32_t target) {
  if (w->mask != taken) add_group(w, w->pc, w->mask & ~taken, false);
  w->mask = taken;
  w->pc = target;
}

/* Another group that can go on becomes the current one. */
static bool next_group(Warp *w) {
  for (int k = 0; k < w->n_groups; k++)
    if (!w->groups[k].waits) {
      take_group(w, k);
      return true;
    }
  return false;
}

static void stuck(Warp *w, const Group *g) {
  const Ins *code = w->block->launch->kernel->code, *i = &code[g->pc];
  char others[256] = "";
  for (int k = 0, at = 0; k < w->n_groups && at < 200; k++)
    if (&w->groups[k] != g)
      at += snprintf(others + at, sizeof others - (size_t)at,
                     ", lanes 0x%x at line %d", w->groups[k].mask,
                     code[w->groups[k].pc].line);
  fault(w, i, -1, CUDA_ERROR_LAUNCH_FAILED,
        "lanes that must do this together are apart: lanes 0x%x are here%s",
        g->mask, others);
}

void end_lanes(Warp *w, uint32_t lanes) {
  w->live &= ~lanes;
  w->mask &= ~lanes;
  if (w->mask) return;
  w->stop = w->ended = !w->n_groups;
  if (w->ended || next_group(w)) return;
  /* Those that wait may have waited for these. */
  for (int k = 0; k < w->n_groups; k++)
    w->groups[k].waits = false;
  take_group(w, 0);
}

bool lanes_meet(Warp *w, const Ins *i, uint32_t members) {
  if (w->active & ~members) {
    fault(w, i, __builtin_ctz(w->active & ~members), CUDA_ERROR_LAUNCH_FAILED,
          "executes this, but is not among its lanes 0x%x", members);
    return false;
  }
  uint32_t missing = members & w->live & ~w->active;
  if (!missing) return true;
  if (missing & w->mask) {
    fault(w, i, __builtin_ctz(missing & w->mask), CUDA_ERROR_LAUNCH_FAILED,
          "is named by lanes 0x%x, but its predicate is false", members);
    return false;
  }
  add_group(w, w->pc - 1, w->mask, true);
  if (!next_group(w)) stuck(w, &w->groups[w->n_groups - 1]);
  return false;
}

/* ---- warps and blocks ---------------------------------------------------- */

static void run_warp(Warp *w) {
  const Ins *code = w->block->launch->kernel->code;
  const uint8_t *regs = w->base[BASE_REGS];
  uint64_t most = w->block->launch->max_steps;
  w->stop = false;
  while (!w->stop) {
    if (w->n_groups) settle(w);
    const Ins *i = &code[w->pc++];
    w->active = w->mask;
    if (i->has_pred)
      w->active &= *(const uint32_t *)(regs + i->pred) ^ i->flip;
    if (w->active) i->run(w, i);
    if (++w->steps > most)
      fault(w, i, -1, CUDA_ERROR_LAUNCH_TIMEOUT,
            "%llu instructions: this seems to be endless",
            (unsigned long long)most);
  }
}

/* A warp that waits needs the others: why they will not come. */
static bool barrier_fails(Block *b, Warp *w) {
  int ended = 0;
  for (int k = 0; k < b->n_warps; k++)
    ended += b->warps[k].ended;
  if (w->live != w->started)
    fault(w, w->barrier, -1, CUDA_ERROR_LAUNCH_FAILED,
          "divergent barrier: lanes 0x%x of this warp have ended",
          w->started & ~w->live);
  else if (!w->barrier_threads && ended)
    fault(w, w->barrier, -1, CUDA_ERROR_LAUNCH_FAILED,
          "divergent barrier: %d of %d warps have ended", ended, b->n_warps);
  return b->launch->status != 0;
}

/* Lets warps go on whose barrier is full. */
bool release_warps(Block *b) {
  bool any = false;
  for (int k = 0; k < b->n_warps; k++) {
    Warp *w = &b->warps[k];
    if (!w->barrier) continue;
    if (barrier_fails(b, w)) return false;
    int here = 0, wanted = (w->barrier_threads + LANES - 1) / LANES;
    for (int o = 0; o < b->n_warps; o++)
      here += b->warps[o].barrier &&
              b->warps[o].barrier_id == w->barrier_id;
    if (here != (wanted ? wanted : b->n_warps)) continue;
    int id = w->barrier_id;
    for (int o = 0; o < b->n_warps; o++)
      if (b->warps[o].barrier && b->warps[o].barrier_id == id)
        b->warps[o].barrier = NULL;
    b->since = ++b->clock;
    if (b->launch->together) together_met(b);
    any = true;
  }
  return any;
}

/* Each warp as far as it gets; those that are not at their end yet. */
int run_warps(Block *b, Warp **waiting) {
  Launch *l = b->launch;
  int left = 0;
  for (int k = 0; k < b->n_warps && !l->status; k++) {
    Warp *w = &b->warps[l->reversed ? b->n_warps - 1 - k : k];
    w->asks = NULL;
    if (!w->ended && !w->barrier) run_warp(w);
    if (w->ended) continue;
    left++;
    if (!*waiting || w->asks || !(*waiting)->asks) *waiting = w;
  }
  return left;
}

void nobody_goes_on(Warp *w) {
  if (w->asks && w->asks->acquires)
    fault(w, w->asks, -1, CUDA_ERROR_LAUNCH_FAILED,
          "waits for what nobody writes: %s",
          w->block->launch->together
              ? "all blocks wait"
              : "other blocks need not run at the same time, but in a "
                "cooperative launch");
  else if (w->asks)
    fault(w, w->asks, -1, CUDA_ERROR_LAUNCH_FAILED,
          "waits for a phase that nobody ends: all warps wait");
  else
    fault(w, w->barrier, -1, CUDA_ERROR_LAUNCH_FAILED,
          "divergent barrier %d: the other warps wait elsewhere",
          w->barrier_id);
}

/* Warps that ask in vain may do something else in between, so they are asked
 * some times before a copy comes, and often before that counts as the end. */
static void run_block(Block *b) {
  enum { LATE = 4, PATIENCE = 1000 };
  Launch *l = b->launch;
  for (int idle = 0;;) {
    Warp *waiting = NULL;
    uint64_t changes = b->changes;
    if (!run_warps(b, &waiting)) break;
    bool moves = !l->status && release_warps(b);
    idle = moves || b->changes != changes ? 0 : idle + 1;
    if (l->status) return;
    int most = waiting->asks ? PATIENCE : 0;
    if (!idle || (most && idle < LATE)) continue;
    if (bulk_arrives(b)) idle = 0;
    if (idle <= most) continue;
    nobody_goes_on(waiting);
    return;
  }
  block_over(b);
}

void block_over(Block *b) {
  if (b->units) async_over(b);
  for (int w = 0; w < b->n_warps; w++)
    b->launch->steps += b->warps[w].steps;
}

/* ---- launches ------------------------------------------------------------ */

static void set_special(Warp *w, Special s, int lane, uint32_t value) {
  ((uint32_t *)w->base[BASE_SPECIAL])[(int)s * LANES + lane] = value;
}

static void thread_registers(Warp *w, int lane) {
  const Launch *l = w->block->launch;
  uint32_t t = (uint32_t)(w->id * LANES + lane), x = l->block[0],
           y = l->block[1];
  uint32_t bit = lane_bit(lane);
  set_special(w, SPECIAL_tid_x, lane, t % x);
  set_special(w, SPECIAL_tid_y, lane, t / x % y);
  set_special(w, SPECIAL_tid_z, lane, t / x / y);
  for (int k = 0; k < 3; k++) {
    set_special(w, SPECIAL_ntid_x + (Special)k, lane, l->block[k]);
    set_special(w, SPECIAL_nctaid_x + (Special)k, lane, l->grid[k]);
  }
  set_special(w, SPECIAL_laneid, lane, (uint32_t)lane);
  set_special(w, SPECIAL_warpid, lane, (uint32_t)w->id);
  set_special(w, SPECIAL_nwarpid, lane, (uint32_t)w->block->n_warps);
  set_special(w, SPECIAL_lanemask_eq, lane, bit);
  set_special(w, SPECIAL_lanemask_lt, lane, bit - 1);
  set_special(w, SPECIAL_lanemask_le, lane, bit | (bit - 1));
  set_special(w, SPECIAL_lanemask_ge, lane, ~(bit - 1));
  set_special(w, SPECIAL_lanemask_gt, lane, ~(bit | (bit - 1)));
  set_special(w, SPECIAL_dynamic_smem_size, lane, l->dynamic_bytes);
}

static bool warp_new(Block *b, int id) {
  const Kernel *k = b->launch->kernel;
  Warp *w = &b->warps[id];
  size_t special = SPECIAL_COUNT * LANES * sizeof(uint32_t);
  size_t local = (size_t)k->local_bytes * LANES;
  w->id = id;
  w->block = b;
  w->base[BASE_CONSTS] = k->consts;
  w->base[BASE_REGS] = malloc((size_t)k->reg_bytes + 1);
  w->base[BASE_SPECIAL] = malloc(special);
  w->local = malloc(2 * local + 1);
  if (!w->base[BASE_REGS] || !w->base[BASE_SPECIAL] || !w->local) return false;
  w->local_state = w->local + local;
  memset(w->base[BASE_REGS], 0xa5, (size_t)k->reg_bytes);
  for (int lane = 0; lane < LANES; lane++)
    thread_registers(w, lane);
  int left = b->n_threads - id * LANES;
  w->started = left >= LANES ? UINT32_MAX : lane_bit(left) - 1;
  return true;
}

static void warp_free(Warp *w) {
  free(w->base[BASE_REGS]);
  free(w->base[BASE_SPECIAL]);
  free(w->local);
  free(w->copies);
}

static void warp_start(Warp *w) {
  const Block *b = w->block;
  for (int lane = 0; lane < LANES; lane++)
    for (int k = 0; k < 3; k++)
      set_special(w, SPECIAL_ctaid_x + (Special)k, lane, b->id[k]);
  memset(w->local_state, BYTE_HELD,
         (size_t)b->launch->kernel->local_bytes * LANES);
  w->pc = 0;
  w->mask = w->live = w->started;
  w->n_groups = w->n_copies = 0;
  memset(w->copy_group, 0, sizeof w->copy_group);
  w->ended = false;
  w->barrier = NULL;
  w->steps = 0;
  w->since = 0;
  w->asked = NULL;
}

static void block_start(Block *b) {
  const Launch *l = b->launch;
  const Kernel *k = l->kernel;
  memset(b->shared_state, 0, (size_t)k->shared_bytes);
  for (int v = 0; v < k->n_shared; v++)
    memset(b->shared_state + shared_offset(b, k->shared[v].at), BYTE_HELD,
           (size_t)k->shared[v].bytes);
  memset(b->shared_state + k->shared_bytes, BYTE_HELD, l->dynamic_bytes);
  b->start = b->since = ++b->clock;
  for (int w = 0; w < b->n_warps; w++)
    warp_start(&b->warps[w]);
  if (b->units) async_start(b);
}

static bool block_new(Block *b, Launch *l) {
  b->launch = l;
  b->n_threads = (int)(l->block[0] * l->block[1] * l->block[2]);
  b->n_warps = (b->n_threads + LANES - 1) / LANES;
  b->warps = calloc((size_t)b->n_warps, sizeof *b->warps);
  size_t n = b->shared_bytes = (uint32_t)l->kernel->shared_bytes +
                               l->dynamic_bytes;
  b->shared = malloc(2 * n + 1);
  b->readers = calloc(2 * n + 1, sizeof *b->readers);
  if (!b->warps || !b->shared || !b->readers) return false;
  b->shared_state = b->shared + n;
  b->writers = b->readers + n;
  for (int w = 0; w < b->n_warps; w++)
    if (!warp_new(b, w)) return false;
  return !l->kernel->async || async_new(b);
}

static void block_free(Block *b) {
  async_free(b);
  for (int w = 0; b->warps && w < b->n_warps; w++)
    warp_free(&b->warps[w]);
  free(b->warps);
  free(b->shared);
  free(b->readers);
}

static void set_number(Block *b, uint64_t at) {
  const uint32_t *grid = b->launch->grid;
  b->number = (int)at;
  b->id[0] = (uint32_t)(at % grid[0]);
  b->id[1] = (uint32_t)(at / grid[0] % grid[1]);
  b->id[2] = (uint32_t)(at / grid[0] / grid[1]);
}

/* One block after the other, in the memory of one. */
static bool run_apart(Launch *l, uint64_t n, uint64_t *clock) {
  Block b = {.clock = *clock};
  bool ok = block_new(&b, l);
  for (uint64_t k = 0; ok && k < n && !l->status; k++) {
    set_number(&b, l->reversed ? n - 1 - k : k);
    block_start(&b);
    run_block(&b);
  }
  *clock = b.clock;
  block_free(&b);
  return ok;
}

static bool run_at_once(Launch *l, uint64_t n, uint64_t *clock) {
  Block *all = calloc(n, sizeof *all);
  bool ok = all && together_new(l, (int)n);
  for (uint64_t k = 0; ok && k < n; k++) {
    all[k].clock = *clock;
    ok = block_new(&all[k], l);
    set_number(&all[k], k);
    if (!ok) break;
    together_slice(&all[k]);
    block_start(&all[k]);
    *clock = all[k].clock;
  }
  if (ok) run_together(l, all, (int)n);
  for (uint64_t k = 0; all && k < n; k++) {
    if (all[k].clock > *clock) *clock = all[k].clock;
    if (all[k].launch) block_free(&all[k]);
  }
  together_free(l);
  free(all);
  return ok;
}

int run_kernel(Launch *l) {
  static uint64_t clock; /* goes on from launch to launch */
  uint64_t n = (uint64_t)l->grid[0] * l->grid[1] * l->grid[2];
  l->start = clock + 1;
  if ((l->cooperative ? run_at_once : run_apart)(l, n, &clock))
    return l->status;
  l->status = CUDA_ERROR_OUT_OF_MEMORY;
  snprintf(l->error, sizeof l->error, "kernel %s: no memory to simulate it",
           l->kernel->name);
  return l->status;
}
