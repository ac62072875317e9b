/* plan_memory.c: the arena of an entry on one of many devices.
 *
 * The buffers are those of the planned program for one device, found by their
 * places: values that share bytes while they live are one buffer. Each is as
 * large as the largest part that a device has of one of its values, and lives
 * as long as they do; pack.c gives them offsets again. */
#include "planner.h"

#include <string.h>

typedef struct Piece {
  int64_t offset, bytes; /* in the plan */
  int64_t local;         /* bytes of a device's part */
  int start, end;
  bool gradient;
  uint32_t joined; /* number of an earlier piece of its buffer, or its own */
} Piece;
typedef VEC(Piece) PieceVec;

typedef struct Planner {
  Arena *a;
  const Module *whole;
  PlanMatch *match;
  Life life;
  PieceVec pieces;
} Planner;

/* Whether `v` is a gradient of a parameter: as large, made by autodiff, and in
 * the layer that has it. */
static bool is_gradient(const Planner *p, const Value *v) {
  if (!v->def->backward || !v->def->layer) return false;
  size_t n = strlen(v->def->layer);
  for (uint32_t i = 0; i < p->whole->slots.len; i++) {
    const Slot *s = p->whole->slots.data[i];
    if (s->kind != SLOT_PARAM || strncmp(s->path, v->def->layer, n) != 0 ||
        s->path[n] != '/' || strchr(s->path + n + 1, '/'))
      continue;
    if (type_same_dims(&s->type, &v->type)) return true;
  }
  return false;
}

static void add_piece(Planner *p, const Value *v, int start) {
  if (v->place.slab != SLAB_ARENA) return;
  for (int i = 0; i < MAX_LOOPS; i++)
    if (v->place.stride[i]) return; /* a row of something that is counted */
  double bytes = (double)type_bytes(&v->type);
  Piece x = {.offset = v->place.offset,
             .bytes = type_bytes(&v->type),
             .local = (int64_t)(bytes * plan_share(p->match, v) + 0.5),
             .start = start,
             .end = life_last(&p->life, v),
             .gradient = is_gradient(p, v),
             .joined = p->pieces.len};
  vec_push(p->a, &p->pieces, x);
}

static void collect(Planner *p, const Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    for (uint32_t k = 0; k < n->outs.len; k++)
      add_piece(p, n->outs.data[k], life_start(&p->life, n));
    if (n->op == OP_scan) collect(p, n->body);
  }
}

/* ---- buffers ------------------------------------------------------------- */

static uint32_t root_of(PieceVec *v, uint32_t i) {
  while (v->data[i].joined != i)
    i = v->data[i].joined;
  return i;
}

static bool share_bytes(const Piece *x, const Piece *y) {
  return x->start <= y->end && y->start <= x->end &&
         x->offset < y->offset + y->bytes && y->offset < x->offset + x->bytes;
}

static void join_pieces(PieceVec *v) {
  for (uint32_t i = 0; i < v->len; i++)
    for (uint32_t k = 0; k < i; k++) {
      if (!share_bytes(&v->data[i], &v->data[k])) continue;
      uint32_t a = root_of(v, i), b = root_of(v, k);
      v->data[a < b ? b : a].joined = a < b ? a : b;
    }
}

static uint32_t pack_items(PieceVec *v, PackItem *items) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < v->len; i++) {
    if (v->data[i].joined != i) continue;
    PackItem *x = &items[n++];
    *x = (PackItem){0, v->data[i].start, v->data[i].end, 0};
    for (uint32_t k = i; k < v->len; k++) {
      const Piece *p = &v->data[k];
      if (root_of(v, k) != i) continue;
      if (p->local > x->bytes) x->bytes = p->local;
      if (p->start < x->start) x->start = p->start;
      if (p->end > x->end) x->end = p->end;
    }
    x->bytes = (x->bytes + 63) / 64 * 64;
  }
  return n;
}

/* Gradients that are alive when most is. */
static int64_t gradients_at_peak(const Planner *p) {
  int64_t peak = -1, gradients = 0;
  for (int t = 0; t <= p->life.end; t++) {
    int64_t all = 0, of_params = 0;
    for (uint32_t i = 0; i < p->pieces.len; i++) {
      const Piece *x = &p->pieces.data[i];
      if (x->start > t || x->end < t) continue;
      all += x->local;
      of_params += x->gradient ? x->local : 0;
    }
    if (all > peak) peak = all, gradients = of_params;
  }
  return gradients;
}

PlanArena plan_arena(Ctx *cx, const Module *whole, Entry *e, PlanMatch *m) {
  Planner p = {.a = &cx->scratch, .whole = whole, .match = m};
  ir_number(e);
  life_of(e, p.a, &p.life);
  collect(&p, e->region);
  join_pieces(&p.pieces);
  PackItem *items = NEW_ARRAY(p.a, PackItem, p.pieces.len + 1);
  uint32_t n = pack_items(&p.pieces, items);
  PlanArena out = {.bytes = pack_offsets(items, n, p.a),
                   .gradients = gradients_at_peak(&p)};
  if (out.gradients > out.bytes) out.gradients = out.bytes;
  return out;
}
