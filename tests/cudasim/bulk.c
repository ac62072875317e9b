/* bulk.c: copies of boxes of a tensor in global memory to shared memory,
 * cp.async.bulk.tensor, which the hardware makes behind the threads.
 *
 * A map, made by cuTensorMapEncodeTiled, says how the tensor lies and how
 * large a box is; elements outside of the tensor become 0. In shared memory the
 * box is dense, its first dim side by side, groups of 16 bytes as the map's
 * swizzle has them. A copy arrives when all warps of its block wait, the
 * oldest first; until then its place counts as unwritten. Then its bytes count
 * at its mbarrier. A swizzled box that is narrower than its swizzle is an
 * error: how it lies is not written down. */
#include "async.h"
#include "tensormap.h"

#include <stdlib.h>
#include <string.h>

typedef struct Coming {
  const Ins *ins;
  Warp *warp;
  int lane;
  TensorMap map;
  int64_t first[TENSOR_RANK]; /* of the box, in elements */
  uint64_t to, barrier;
} Coming;

struct Comings {
  Coming *all;
  int n, cap;
};

/* ---- boxes --------------------------------------------------------------- */

static int row_bytes(const TensorMap *m) {
  return m->box[0] * m->bytes;
}

static int rows(const TensorMap *m) {
  int n = 1;
  for (int d = 1; d < m->rank; d++)
    n *= m->box[d];
  return n;
}

/* Address of the first element of a row of the box; false: outside. */
static bool row_address(const Coming *c, int row, uint64_t *at) {
  const TensorMap *m = &c->map;
  bool inside = true;
  *at = m->address;
  for (int d = 1; d < m->rank; d++) {
    int64_t k = c->first[d] + row % m->box[d];
    row /= m->box[d];
    inside = inside && k >= 0 && k <= (int64_t)m->last[d];
    *at += (uint64_t)k * m->strides[d - 1];
  }
  return inside;
}

/* 16 bytes of a row from byte `from` on. */
static void read_group(const Coming *c, int row, int from, uint8_t *out) {
  const TensorMap *m = &c->map;
  uint64_t at;
  bool inside = row_address(c, row, &at);
  memset(out, 0, UNIT);
  for (int e = 0; inside && e < UNIT / m->bytes && !c->warp->stop; e++) {
    int64_t k = c->first[0] + from / m->bytes + e;
    if (k < 0 || k > (int64_t)m->last[0]) continue;
    uint64_t place = at + (uint64_t)k * m->bytes;
    bool whole = !e && place % UNIT == 0 &&
                 k + UNIT / m->bytes - 1 <= (int64_t)m->last[0];
    int n = whole ? UNIT : m->bytes;
    memcpy(out + e * m->bytes,
           touch(c->warp, c->ins, c->lane, SP_GLOBAL, place, n, TOUCH_LOAD),
           (size_t)n);
    if (whole) return;
  }
}

static uint64_t group_place(const Coming *c, int row, int from) {
  uint64_t at = c->to + (uint64_t)(row * row_bytes(&c->map) + from);
  return swizzled(swizzle_of_map(c->map.swizzle), at);
}

/* ---- from its issue to its arrival --------------------------------------- */

/* The place is taken, and all that is to be read is looked at. */
static bool begin(Coming *c) {
  Warp *w = c->warp;
  uint8_t bytes[UNIT];
  for (int r = 0; r < rows(&c->map); r++)
    for (int from = 0; from < row_bytes(&c->map); from += UNIT) {
      read_group(c, r, from, bytes);
      uint8_t *p = touch(w, c->ins, c->lane, SP_SHARED, group_place(c, r, from),
                         UNIT, TOUCH_TAKE);
      if (w->stop) return false;
      memset(w->block->shared_state + (p - w->block->shared),
             BYTE_HELD | BYTE_COMING, UNIT);
    }
  return true;
}

static void arrive(Coming *c) {
  Warp *w = c->warp;
  uint8_t bytes[UNIT];
  w->stop = false;
  for (int r = 0; r < rows(&c->map); r++)
    for (int from = 0; from < row_bytes(&c->map); from += UNIT) {
      read_group(c, r, from, bytes);
      uint64_t offset = shared_offset(w->block, group_place(c, r, from));
      memcpy(w->block->shared + offset, bytes, UNIT);
      memset(w->block->shared_state + offset, BYTE_HELD | BYTE_SET, UNIT);
    }
  if (!w->stop)
    barrier_bytes(w, c->ins, c->lane, c->barrier,
                  rows(&c->map) * row_bytes(&c->map));
}

bool bulk_arrives(Block *b) {
  struct Comings *x = b->comings;
  if (!x || !x->n) return false;
  Coming c = x->all[0];
  memmove(x->all, x->all + 1, (size_t)--x->n * sizeof *x->all);
  arrive(&c);
  return true;
}

const Ins *bulk_coming(const Block *b) {
  return b->comings && b->comings->n ? b->comings->all[0].ins : NULL;
}

void bulk_free(Block *b) {
  if (b->comings) free(b->comings->all);
  free(b->comings);
}

static void push(Block *b, const Coming *c) {
  if (!b->comings) b->comings = calloc(1, sizeof *b->comings);
  struct Comings *x = b->comings;
  if (x->n == x->cap) {
    x->cap = x->cap ? 2 * x->cap : 8;
    x->all = realloc(x->all, (size_t)x->cap * sizeof *x->all);
  }
  x->all[x->n++] = *c;
}

/* ---- the instruction ----------------------------------------------------- */

static uint64_t value_of(const Warp *w, const Ins *i, int k, int lane) {
  const void *v = src(w, i, k);
  return i->o[k].bytes == 4 ? ((const uint32_t *)v)[lane]
                            : ((const uint64_t *)v)[lane];
}

static bool wrong(Warp *w, const Ins *i, int lane, const char *why) {
  fault(w, i, lane, CUDA_ERROR_LAUNCH_FAILED, "%s", why);
  return false;
}

/* The map at a generic address. */
static bool read_map(Warp *w, const Ins *i, int lane, uint64_t at,
                     TensorMap *map) {
  uint8_t bytes[TENSOR_MAP_BYTES];
  bool fits = at - SHARED_WINDOW >= WINDOW_SIZE &&
              at - LOCAL_WINDOW >= WINDOW_SIZE && at % TENSOR_MAP_ALIGN == 0;
  if (!fits)
    return wrong(w, i, lane, "a tensor map lies in global memory or among "
                             "parameters, at a multiple of 64");
  for (int k = 0; k < TENSOR_MAP_BYTES && !w->stop; k += UNIT)
    memcpy(bytes + k,
           touch(w, i, lane, SP_GENERIC, at + (uint64_t)k, UNIT, TOUCH_LOAD),
           UNIT);
  if (w->stop) return false;
  memcpy(map, bytes, sizeof *map);
  return map->magic == TENSOR_MAGIC ||
         wrong(w, i, lane, "this is no tensor map");
}

static bool fits(Warp *w, const Ins *i, const Coming *c) {
  const TensorMap *m = &c->map;
  int span = swizzle_of_map(m->swizzle)->span;
  if (m->rank != i->vec)
    return wrong(w, i, c->lane, "the map's tensor has another rank");
  if (m->swizzle && row_bytes(m) != span)
    return wrong(w, i, c->lane, "the box is narrower than its swizzle");
  if (c->to % 128)
    return wrong(w, i, c->lane, "the box goes to no multiple of 128");
  return true;
}

/* Where it goes, map, coordinates, the mbarrier. */
static void ins_bulk(Warp *w, const Ins *i) {
  for (uint32_t left = w->active; left && !w->stop; left &= left - 1) {
    int lane = __builtin_ctz(left);
    Coming c = {.ins = i, .warp = w, .lane = lane};
    c.to = value_of(w, i, 0, lane) + (uint64_t)i->imm;
    c.barrier = value_of(w, i, 2 + i->vec, lane) + (uint64_t)i->imm2;
    for (int d = 0; d < i->vec; d++)
      c.first[d] = (int32_t)value_of(w, i, 2 + d, lane);
    uint8_t *p =
        touch(w, i, lane, SP_SHARED, c.barrier, 8, TOUCH_ATOMIC);
    if (w->stop ||
        !proxy_use(w, i, lane, (uint64_t)(p - w->block->shared), 8) ||
        !read_map(w, i, lane, value_of(w, i, 1, lane), &c.map) ||
        !fits(w, i, &c) || !begin(&c))
      return;
    push(w->block, &c);
  }
}

static void ins_prefetch(Warp *w, const Ins *i) {
  for (uint32_t left = w->active; left && !w->stop; left &= left - 1) {
    TensorMap map;
    int lane = __builtin_ctz(left);
    read_map(w, i, lane, value_of(w, i, 0, lane) + (uint64_t)i->imm, &map);
  }
}

/* ---- decoding ------------------------------------------------------------ */

/* [map, {c0, c1, c2}] */
static bool map_operand(Decoder *d, Ins *i, const Stmt *s, const Operand *o) {
  if (o->kind != OPD_ADDR || o->n != 1 || o->value ||
      o->part[0].kind != OPD_VEC || o->part[0].n != i->vec)
    return decode_error(d, s, "expected [map, {%d coordinates}]", i->vec);
  return operand_add(d, i, s, &(Operand){.name = o->name}, 8) &&
         operand_add(d, i, s, &o->part[0], 4);
}

static bool modifiers(Decoder *d, Ins *i, const Stmt *s, Str rest,
                      bool *hint) {
  Str whole = rest;
  Str rank = next_modifier(&rest);
  if (rank.n == 2 && rank.at[1] == 'd') i->vec = (uint8_t)(rank.at[0] - '0');
  bool known = i->vec >= 1 && i->vec <= TENSOR_RANK &&
               (take_modifier(&rest, "shared::cluster") ||
                take_modifier(&rest, "shared::cta")) &&
               take_modifier(&rest, "global");
  take_modifier(&rest, "tile");
  known = known && take_modifier(&rest, "mbarrier::complete_tx::bytes");
  *hint = take_modifier(&rest, "L2::cache_hint");
  return (known && !rest.n) || unknown_modifier(d, s, whole);
}

bool decode_bulk(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  bool hint;
  Str whole = rest;
  d->k->async = true;
  if (d->m->arch < 90) return decode_error(d, s, "needs sm_90");
  if (!take_modifier(&rest, "tensor")) return unknown_modifier(d, s, whole);
  if (!modifiers(d, i, s, rest, &hint)) return false;
  if (s->n_op != (hint ? 4 : 3))
    return decode_error(d, s, "%d operands are needed", hint ? 4 : 3);
  i->run = ins_bulk;
  Ins at = {.space = SP_SHARED};
  i->space = SP_SHARED;
  if (!operand_address(d, i, s, &s->op[0]) ||
      !map_operand(d, i, s, &s->op[1]) ||
      !operand_address(d, &at, s, &s->op[2]))
    return false;
  i->imm2 = at.imm;
  return !hint || operand_add(d, i, s, &s->op[3], 8);
}

bool decode_prefetch(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  if (!str_is(rest, "tensormap")) return unknown_modifier(d, s, rest);
  i->run = ins_prefetch;
  if (s->n_op != 1) return decode_error(d, s, "1 operand is needed");
  return operand_address(d, i, s, &s->op[0]);
}
