/* mbarrier.c: barriers that are objects in shared memory: a phase is over when
 * as many arrivals came as it was made for and all bytes that it was told to
 * expect. Who waits asks for the parity of the phase that must be over.
 *
 * The object's 8 bytes are opaque to programs. Who has asked and got a yes
 * knows of all that others did before they arrived: that is kept apart, for
 * races.c. A question that is answered with no lets other warps go on first. */
#include "async.h"

#include <stdlib.h>
#include <string.h>

enum { COUNT_MOST = (1 << 20) - 1, MAGIC = 5 };

typedef struct Barrier {
  int expected, pending, bytes, parity;
} Barrier;

/* Clocks, of each warp, before which its accesses are known by who passes: by
 * the phases that are over, and by the arrivals of this one. */
typedef struct Gate {
  uint64_t offset;
  uint64_t over[WARPS_MOST], now[WARPS_MOST];
} Gate;

struct Gates {
  Gate *all;
  int n, cap;
};

/* ---- who knows of whom --------------------------------------------------- */

static Gate *gate_at(Block *b, const uint8_t *p) {
  uint64_t offset = (uint64_t)(p - b->shared);
  if (!b->gates) b->gates = calloc(1, sizeof *b->gates);
  struct Gates *g = b->gates;
  for (int k = 0; k < g->n; k++)
    if (g->all[k].offset == offset) return &g->all[k];
  if (g->n == g->cap) {
    g->cap = g->cap ? 2 * g->cap : 8;
    g->all = realloc(g->all, (size_t)g->cap * sizeof *g->all);
  }
  g->all[g->n] = (Gate){.offset = offset};
  return &g->all[g->n++];
}

static void learn(uint64_t *to, const uint64_t *from) {
  for (int k = 0; k < WARPS_MOST; k++)
    if (from[k] > to[k]) to[k] = from[k];
}

void gates_start(Block *b) {
  if (b->gates) b->gates->n = 0;
}

void gates_free(Block *b) {
  if (b->gates) free(b->gates->all);
  free(b->gates);
}

/* ---- the object ---------------------------------------------------------- */

static uint64_t packed(const Barrier *x) {
  return (uint64_t)MAGIC << 61 | (uint64_t)x->parity << 60 |
         (uint64_t)x->expected << 40 | (uint64_t)x->pending << 20 |
         ((uint64_t)x->bytes & COUNT_MOST);
}

static Barrier unpacked(uint64_t v) {
  return (Barrier){(int)(v >> 40 & COUNT_MOST), (int)(v >> 20 & COUNT_MOST),
                   (int)(v & COUNT_MOST), (int)(v >> 60 & 1)};
}

/* Where it lies; NULL after a fault. */
static uint8_t *find(Warp *w, const Ins *i, int lane, uint64_t at,
                     Barrier *out) {
  uint64_t v;
  uint8_t *p =
      touch(w, i, lane, (Space)i->space, at, sizeof v, TOUCH_ATOMIC);
  if (w->stop) return NULL;
  memcpy(&v, p, sizeof v);
  *out = unpacked(v);
  if (v >> 61 == MAGIC) return p;
  fault(w, i, lane, CUDA_ERROR_LAUNCH_FAILED,
        "no mbarrier was made at 0x%llx", (unsigned long long)at);
  return NULL;
}

/* Back to its place after an arrival, of which `w` is; a phase that is over
 * begins the next. */
static void put(Warp *w, uint8_t *p, Barrier x) {
  Block *b = w->block;
  Gate *g = gate_at(b, p);
  learn(g->now, w->known);
  g->now[w->id] = ++b->clock;
  if (!x.pending && !x.bytes) {
    x.pending = x.expected;
    x.parity ^= 1;
    learn(g->over, g->now);
  }
  b->changes++;
  uint64_t v = packed(&x);
  memcpy(p, &v, sizeof v);
}

static bool expect(Warp *w, const Ins *i, int lane, Barrier *x, int bytes) {
  if (bytes >= 0 && bytes <= COUNT_MOST - x->bytes) {
    x->bytes += bytes;
    return true;
  }
  fault(w, i, lane, CUDA_ERROR_LAUNCH_FAILED, "%d bytes more are too many",
        bytes);
  return false;
}

bool barrier_bytes(Warp *w, const Ins *i, int lane, uint64_t at, int bytes) {
  Barrier x;
  Ins here = *i;
  here.space = SP_SHARED;
  uint8_t *p = find(w, &here, lane, at, &x);
  if (!p) return false;
  if (bytes > x.bytes) {
    fault(w, i, lane, CUDA_ERROR_LAUNCH_FAILED,
          "%d bytes arrive at an mbarrier that expects %d", bytes, x.bytes);
    return false;
  }
  x.bytes -= bytes;
  put(w, p, x);
  return true;
}

/* ---- instructions -------------------------------------------------------- */

static uint64_t address_at(const Warp *w, const Ins *i, int k, int lane) {
  const void *v = src(w, i, k);
  uint64_t at = i->o[k].bytes == 4 ? ((const uint32_t *)v)[lane]
                                   : ((const uint64_t *)v)[lane];
  return at + (uint64_t)i->imm;
}

/* [address], count */
static void ins_init(Warp *w, const Ins *i) {
  for (uint32_t left = w->active; left && !w->stop; left &= left - 1) {
    int lane = __builtin_ctz(left);
    int n = ((const int32_t *)src(w, i, 1))[lane];
    uint8_t *p = touch(w, i, lane, (Space)i->space, address_at(w, i, 0, lane),
                       8, TOUCH_STORE);
    if (w->stop) return;
    if (n < 1 || n > COUNT_MOST) {
      fault(w, i, lane, CUDA_ERROR_LAUNCH_FAILED, "no such count: %d", n);
      return;
    }
    uint64_t v = packed(&(Barrier){n, n, 0, 0});
    memcpy(p, &v, sizeof v);
    Gate *g = gate_at(w->block, p);
    *g = (Gate){.offset = g->offset};
  }
}

static void ins_inval(Warp *w, const Ins *i) {
  for (uint32_t left = w->active; left && !w->stop; left &= left - 1) {
    Barrier x;
    int lane = __builtin_ctz(left);
    uint8_t *p = find(w, i, lane, address_at(w, i, 0, lane), &x);
    if (p) memset(p, 0, 8);
  }
}

enum { ARRIVES = 1, EXPECTS = 2 };

/* What it was, [address], {count or bytes} */
static void ins_arrive(Warp *w, const Ins *i) {
  for (uint32_t left = w->active; left && !w->stop; left &= left - 1) {
    int lane = __builtin_ctz(left);
    int n = i->n > 2 ? ((const int32_t *)src(w, i, 2))[lane] : 1;
    int arrivals = i->mode == ARRIVES ? n : i->mode & ARRIVES;
    Barrier x;
    uint8_t *p = find(w, i, lane, address_at(w, i, 1, lane), &x);
    if (!p || (i->mode & EXPECTS && !expect(w, i, lane, &x, n))) return;
    if (arrivals < 0 || arrivals > x.pending) {
      fault(w, i, lane, CUDA_ERROR_LAUNCH_FAILED,
            "%d arrivals where %d of %d are missing", arrivals, x.pending,
            x.expected);
      return;
    }
    uint64_t before = packed(&x);
    if (!i->o[0].none)
      memcpy((uint8_t *)dst(w, i, 0) + lane * 8, &before, sizeof before);
    x.pending -= arrivals;
    put(w, p, x);
  }
}

/* p, [address], parity or what an arrival gave */
static void ins_wait(Warp *w, const Ins *i) {
  uint64_t over[LANES] = {0}, asked[LANES];
  bool all = true;
  get_wide(w, i, 2, false, asked);
  for (uint32_t left = w->active; left && !w->stop; left &= left - 1) {
    int lane = __builtin_ctz(left);
    Barrier x;
    const uint8_t *p = find(w, i, lane, address_at(w, i, 1, lane), &x);
    if (!p) return;
    if (i->flag && asked[lane] > 1) {
      fault(w, i, lane, CUDA_ERROR_LAUNCH_FAILED, "no such parity: %llu",
            (unsigned long long)asked[lane]);
      return;
    }
    int parity = i->flag ? (int)asked[lane] : unpacked(asked[lane]).parity;
    over[lane] = x.parity != parity;
    all = all && over[lane];
    if (over[lane]) learn(w->known, gate_at(w->block, p)->over);
  }
  put_wide(w, i, 0, over);
  if (all) return;
  w->asks = i;
  w->stop = true;
}

/* ---- decoding ------------------------------------------------------------ */

/* Scopes and orders make no difference here. */
static bool modifiers(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  static const char *const names[] = {"release", "acquire", "relaxed", "cta"};
  for (size_t k = 0; k < sizeof names / sizeof *names; k++)
    take_modifier(&rest, names[k]);
  i->space = SP_GENERIC;
  if (take_modifier(&rest, "shared") || take_modifier(&rest, "shared::cta"))
    i->space = SP_SHARED;
  return str_is(rest, "b64") || unknown_modifier(d, s, rest);
}

static bool decode_wait(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  i->run = ins_wait;
  i->flag = take_modifier(&rest, "parity");
  if (!modifiers(d, i, s, rest)) return false;
  if (s->n_op != 3 && s->n_op != 4)
    return decode_error(d, s, "3 or 4 operands are needed");
  return operand_add(d, i, s, &s->op[0], 0) &&
         operand_address(d, i, s, &s->op[1]) &&
         operand_add(d, i, s, &s->op[2], i->flag ? 4 : 8);
}

static bool decode_arrive(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  int at = i->mode & ARRIVES ? 1 : 0, least = at + (i->mode & EXPECTS ? 2 : 1);
  i->run = ins_arrive;
  if (!modifiers(d, i, s, rest)) return false;
  if (s->n_op != least && !(i->mode == ARRIVES && s->n_op == least + 1))
    return decode_error(d, s, "%d operands are needed", least);
  Operand none = {.kind = OPD_SINK};
  return operand_add(d, i, s, at ? &s->op[0] : &none, 8) &&
         operand_address(d, i, s, &s->op[at]) &&
         (s->n_op == at + 1 || operand_add(d, i, s, &s->op[at + 1], 4));
}

bool decode_mbarrier(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  Str whole = rest;
  d->k->async = true;
  if (take_modifier(&rest, "init")) {
    i->run = ins_init;
    return modifiers(d, i, s, rest) &&
           (s->n_op == 2 || decode_error(d, s, "2 operands are needed")) &&
           operand_address(d, i, s, &s->op[0]) &&
           operand_add(d, i, s, &s->op[1], 4);
  }
  if (take_modifier(&rest, "inval")) {
    i->run = ins_inval;
    return modifiers(d, i, s, rest) &&
           (s->n_op == 1 || decode_error(d, s, "1 operand is needed")) &&
           operand_address(d, i, s, &s->op[0]);
  }
  if (take_modifier(&rest, "test_wait") || take_modifier(&rest, "try_wait"))
    return decode_wait(d, i, s, rest);
  if (take_modifier(&rest, "arrive")) i->mode = ARRIVES;
  if (take_modifier(&rest, "expect_tx")) i->mode |= EXPECTS;
  return i->mode ? decode_arrive(d, i, s, rest)
                 : unknown_modifier(d, s, whole);
}
