/* reshard.c: from one placement of a value to another, and what that costs.
 *
 * A change is a list of steps, each over one axis of the mesh. What each device
 * only has to cut smaller comes first, then sums, then what moves; axes leave a
 * dim from its minor end, as parts of a dim lie in order. Bytes are those that
 * one device sends, with n devices along the axis and L bytes on each before:
 * (n-1)/n L for reduce_scatter and all_to_all, (n-1) L for all_gather, and the
 * sum of a reduce_scatter and an all_gather for all_reduce. */
#include "pass.h"

#include <string.h>

const char *const move_names[MOVE_COUNT] = {
    [MOVE_SLICE] = "slice",           [MOVE_ALL_REDUCE] = "all_reduce",
    [MOVE_ALL_GATHER] = "all_gather", [MOVE_REDUCE_SCATTER] = "reduce_scatter",
    [MOVE_ALL_TO_ALL] = "all_to_all"};

/* ---- one step ------------------------------------------------------------ */

/* What each device has of the value; dim `cut` padded to `parts` pieces of one
 * size where it is going to be cut. */
static int64_t local_bytes(const Module *m, const Type *t, const Placement *p,
                           int cut, int64_t parts) {
  Type local = placement_local(m, t, p);
  if (cut >= 0) {
    int64_t *size = &local.dims[cut].size;
    *size = (*size + parts - 1) / parts * parts;
  }
  return type_bytes(&local);
}

/* What a device has less its own part of it. */
static int64_t others(int64_t local, int64_t devices) {
  int64_t rest = local % devices * (devices - 1);
  return local / devices * (devices - 1) + (rest + devices - 1) / devices;
}

int64_t move_bytes(MoveKind kind, int64_t devices, int64_t local) {
  switch (kind) {
  case MOVE_SLICE: return 0;
  case MOVE_REDUCE_SCATTER:
  case MOVE_ALL_TO_ALL: return others(local, devices);
  case MOVE_ALL_REDUCE: return others(2 * local, devices);
  case MOVE_ALL_GATHER: return local * (devices - 1);
  case MOVE_COUNT: break;
  }
  return 0;
}

typedef struct Mover {
  const Module *m;
  const Type *type;
  const Placement *to;
  Placement now;
  Move *out;
} Mover;

/* Sums over several axes are one, over the devices of all of them. */
static bool join(Move *out, const Mover *v, MoveKind kind, int axis,
                 int64_t local) {
  MoveStep *last = out->n ? &out->steps[out->n - 1] : NULL;
  if (kind != MOVE_ALL_REDUCE || !last || last->kind != kind) return false;
  last->axes = axes_add(last->axes, axis);
  last->after = v->now;
  out->bytes -= last->bytes;
  last->bytes = move_bytes(kind, axes_parts(v->m, last->axes), local);
  out->bytes += last->bytes;
  return true;
}

static void leave(Placement *p, int axis, int from, int to) {
  if (from == PLACED_PARTIAL)
    p->partial = axes_without(p->partial, axis);
  else if (from >= 0)
    p->dims[from] = axes_without(p->dims[from], axis);
  if (to >= 0) p->dims[to] = axes_add(p->dims[to], axis);
  if (!p->partial) p->kind = PARTIAL_SUM;
}

static void add_step(Mover *v, MoveKind kind, Axes axes, int from, int to,
                     int64_t local) {
  Move *out = v->out;
  int64_t bytes = move_bytes(kind, axes_parts(v->m, axes), local);
  assert(out->n < MAX_MOVES);
  out->steps[out->n++] = (MoveStep){
      kind, axes_at(axes, 0), axes, from, to, bytes, v->now};
  out->bytes += bytes;
}

static void step(Mover *v, MoveKind kind, int axis, int from, int to) {
  int64_t parts = v->m->mesh.data[axis].size;
  int64_t before = local_bytes(v->m, v->type, &v->now, to, parts);
  leave(&v->now, axis, from, to);
  if (!join(v->out, v, kind, axis, before))
    add_step(v, kind, axes_add(0, axis), from, to, before);
}

/* The dim that gets `axis` next, as its list of axes is so far; -1: none. */
static int next_dim(const Mover *v, int axis) {
  for (int d = 0; d < v->type->rank; d++) {
    Axes now = v->now.dims[d], to = v->to->dims[d];
    int n = axes_count(now);
    if (axes_begins(to, now) && n < axes_count(to) && axes_at(to, n) == axis)
      return d;
  }
  return -1;
}

/* ---- the steps, in order of preference ----------------------------------- */

static bool try_slice(Mover *v) {
  for (int axis = 0; axis < (int)v->m->mesh.len; axis++) {
    int d = next_dim(v, axis);
    if (d < 0 || placement_of_axis(&v->now, axis) != PLACED_NOWHERE) continue;
    step(v, MOVE_SLICE, axis, PLACED_NOWHERE, d);
    return true;
  }
  return false;
}

static bool try_reduce(Mover *v, MoveKind kind) {
  for (Axes a = v->now.partial; a; a >>= 4) {
    int axis = axes_at(a, 0), d = next_dim(v, axis);
    if (axes_has(v->to->partial, axis)) continue;
    if ((d >= 0) != (kind == MOVE_REDUCE_SCATTER)) continue;
    step(v, kind, axis, PLACED_PARTIAL, d);
    return true;
  }
  return false;
}

/* The minor axis of a dim that is not what it is to be. */
static bool try_leave(Mover *v, MoveKind kind) {
  for (int d = 0; d < v->type->rank; d++) {
    Axes now = v->now.dims[d];
    if (axes_begins(v->to->dims[d], now)) continue;
    int axis = axes_at(now, axes_count(now) - 1), to = next_dim(v, axis);
    if ((to >= 0) != (kind == MOVE_ALL_TO_ALL)) continue;
    step(v, kind, axis, d, to);
    return true;
  }
  return false;
}

static void try_all(Mover *v) {
  while (try_slice(v) || try_reduce(v, MOVE_REDUCE_SCATTER) ||
         try_leave(v, MOVE_ALL_TO_ALL) || try_reduce(v, MOVE_ALL_REDUCE) ||
         try_leave(v, MOVE_ALL_GATHER))
    ;
}

/* ---- rows ---------------------------------------------------------------- */

enum { EXPERTS, ROWS }; /* dims */

/* The axes that leave the end of dim `from` and are next in dim `to`, all of
 * them at once; 0: there are none. */
static Axes change_over(const Mover *v, int from, int to) {
  Axes now = v->now.dims[from], kept = v->to->dims[from];
  if (!axes_begins(now, kept)) return 0;
  Axes left = now >> (4 * axes_count(kept)), all = v->now.dims[to];
  for (int i = 0; i < axes_count(left); i++)
    all = axes_add(all, axes_at(left, i));
  return axes_begins(v->to->dims[to], all) ? left : 0;
}

/* Rows change between tokens and experts in one exchange over all axes that do,
 * as the groups of each axis would send them several times. */
static void exchange_rows(Mover *v, Axes axes, int from, int to) {
  int64_t before = local_bytes(v->m, v->type, &v->now, -1, 1);
  for (int i = 0; i < axes_count(axes); i++)
    leave(&v->now, axes_at(axes, i), from, to);
  add_step(v, MOVE_ALL_TO_ALL, axes, from, to, before);
}

/* All other steps are done where the tokens are: there each device knows how
 * many rows it has, at the experts only how many there may be. */
static void move_rows(Mover *v) {
  const Placement *to = v->to;
  Axes back = change_over(v, EXPERTS, ROWS);
  Axes forth = change_over(v, ROWS, EXPERTS);
  Placement before = *to;
  if (back) exchange_rows(v, back, EXPERTS, ROWS);
  if (forth) {
    before.dims[EXPERTS] = v->now.dims[EXPERTS];
    before.dims[ROWS] = v->now.dims[ROWS];
  }
  v->to = &before;
  try_all(v);
  if (forth) exchange_rows(v, forth, ROWS, EXPERTS);
  v->to = to;
  try_all(v);
}

Move reshard_move(const Module *m, const Type *t, const Placement *from,
                  const Placement *to) {
  Move out = {0};
  Mover v = {.m = m, .type = t, .to = to, .now = *from, .out = &out};
  if (type_is_ragged(t))
    move_rows(&v);
  else
    try_all(&v);
  return out;
}

Move reshard_through_whole(const Module *m, const Type *t,
                           const Placement *from, const Placement *to) {
  Placement whole = {0};
  Move a = reshard_move(m, t, from, &whole);
  Move b = reshard_move(m, t, &whole, to);
  for (int i = 0; i < b.n; i++) {
    a.steps[a.n++] = b.steps[i];
    a.bytes += b.steps[i].bytes;
  }
  return a;
}
