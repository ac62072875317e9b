/* reshard.c: from one placement of a value to another, and what that costs.
 *
 * A change is a list of steps. What each device only has to cut smaller comes
 * first, then sums, then what moves; axes leave a dim from its minor end, as
 * parts of a dim lie in order. Bytes are those that one device sends, with n
 * devices along the axis and L bytes on each before: (n-1)/n L for
 * reduce_scatter and all_to_all, (n-1) L for all_gather, the sum of a
 * reduce_scatter and an all_gather for all_reduce, L for permute.
 *
 * Most steps go over one axis of the mesh. Over several at once go all_reduce,
 * all_to_all where parts are of one size, as one after the other would send
 * nearly L for each axis, and permute: where the same parts change hands, as
 * between @a @b and @b @a. A reduce_scatter or an all_gather of one axis after
 * the other sends no more than one over all, and less over far links. */
#include "pass.h"

#include <string.h>

const char *const move_names[MOVE_COUNT] = {
    [MOVE_SLICE] = "slice",           [MOVE_ALL_REDUCE] = "all_reduce",
    [MOVE_ALL_GATHER] = "all_gather", [MOVE_REDUCE_SCATTER] = "reduce_scatter",
    [MOVE_ALL_TO_ALL] = "all_to_all", [MOVE_PERMUTE] = "permute"};

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
  case MOVE_PERMUTE: return local;
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

/* One all_to_all over all of the axes. */
static void exchange(Mover *v, Axes axes, int from, int to) {
  int64_t before = local_bytes(v->m, v->type, &v->now, -1, 1);
  for (int i = 0; i < axes_count(axes); i++)
    leave(&v->now, axes_at(axes, i), from, to);
  add_step(v, MOVE_ALL_TO_ALL, axes, from, to, before);
}

/* Whether the parts of dim `d` by axes in whatever order are of one size. */
static bool is_even(const Mover *v, int d, Axes axes) {
  return v->type->dims[d].size % axes_parts(v->m, axes) == 0;
}

static bool try_exchange(Mover *v) {
  for (int from = 0; from < v->type->rank; from++)
    for (int to = 0; to < v->type->rank; to++) {
      Axes axes = from != to ? change_over(v, from, to) : 0, all = axes;
      if (axes_count(axes) < 2) continue;
      for (Axes a = v->now.dims[to]; a; a >>= 4)
        all = axes_add(all, axes_at(a, 0));
      if (!is_even(v, from, v->now.dims[from]) || !is_even(v, to, all))
        continue;
      exchange(v, axes, from, to);
      return true;
    }
  return false;
}

/* ---- parts that change hands --------------------------------------------- */

static Axes axes_with(Axes a, Axes more) {
  for (; more; more >>= 4)
    if (!axes_has(a, axes_at(more, 0))) a = axes_add(a, axes_at(more, 0));
  return a;
}

/* The axes over which devices only have to swap parts; 0: they have to do more,
 * or have all already. */
static Axes swapped(const Mover *v) {
  Axes axes = 0;
  for (int d = 0; d < v->type->rank; d++) {
    Axes now = v->now.dims[d], to = v->to->dims[d];
    if (now == to) continue;
    if (axes_parts(v->m, now) != axes_parts(v->m, to) || !is_even(v, d, now))
      return 0;
    axes = axes_with(axes_with(axes, now), to);
  }
  for (Axes a = axes; a; a >>= 4)
    if (axes_has(v->now.partial, axes_at(a, 0))) return 0;
  return axes;
}

static bool try_permute(Mover *v) {
  Axes axes = swapped(v);
  if (!axes) return false;
  int64_t local = local_bytes(v->m, v->type, &v->now, -1, 1);
  for (int d = 0; d < v->type->rank; d++)
    v->now.dims[d] = v->to->dims[d];
  add_step(v, MOVE_PERMUTE, axes, PLACED_NOWHERE, PLACED_NOWHERE, local);
  return true;
}

/* The axes of dim `d` with those that stay in front, as it is to have them. */
static Axes staying_first(const Mover *v, int d) {
  Axes now = v->now.dims[d], out = 0;
  for (Axes a = v->to->dims[d]; a; a >>= 4)
    if (axes_has(now, axes_at(a, 0))) out = axes_add(out, axes_at(a, 0));
  return axes_with(out, now);
}

/* Brings the axes that leave a dim to its minor end. */
static bool try_reorder(Mover *v) {
  for (int d = 0; d < v->type->rank; d++) {
    Axes now = v->now.dims[d], order = staying_first(v, d);
    if (order == now || !is_even(v, d, now)) continue;
    int64_t local = local_bytes(v->m, v->type, &v->now, -1, 1);
    v->now.dims[d] = order;
    add_step(v, MOVE_PERMUTE, now, PLACED_NOWHERE, PLACED_NOWHERE, local);
    return true;
  }
  return false;
}

/* The number of the part that the device at `place` of its group has, among
 * those that the group's axes make. */
static int64_t part_at(const Module *m, const Placement *p, Axes group,
                       int64_t place) {
  int64_t at[MAX_AXES] = {0}, part = 0;
  for (int i = axes_count(group); i-- > 0;) {
    int64_t size = m->mesh.data[axes_at(group, i)].size;
    at[axes_at(group, i)] = place % size;
    place /= size;
  }
  for (int d = 0; d < MAX_RANK; d++)
    for (Axes a = p->dims[d]; a; a >>= 4)
      if (axes_has(group, axes_at(a, 0)))
        part = part * m->mesh.data[axes_at(a, 0)].size + at[axes_at(a, 0)];
  return part;
}

/* As many want each part as have it: the first that wants one gets it from the
 * first that has it. */
void reshard_permutation(const Module *m, const MoveStep *s,
                         const Placement *before, Arena *a, int64_t *to) {
  int64_t n = axes_parts(m, s->axes);
  int64_t *next = NEW_ARRAY(a, int64_t, (size_t)n + 1);
  int64_t *wants = NEW_ARRAY(a, int64_t, (size_t)n + 1);
  for (int64_t i = 0; i < n; i++)
    next[part_at(m, &s->after, s->axes, i) + 1]++;
  for (int64_t i = 0; i < n; i++)
    next[i + 1] += next[i];
  for (int64_t i = 0; i < n; i++)
    wants[next[part_at(m, &s->after, s->axes, i)]++] = i;
  for (int64_t i = n; i-- > 0;) /* each has moved to where the next began */
    to[i] = wants[--next[part_at(m, before, s->axes, i)]];
}

/* ---- all of them --------------------------------------------------------- */

/* Rows are not parts of one size. */
static bool try_whole_parts(Mover *v) {
  return !type_is_ragged(v->type) &&
         (try_permute(v) || try_reorder(v) || try_exchange(v));
}

static void try_all(Mover *v) {
  while (try_slice(v) || try_reduce(v, MOVE_REDUCE_SCATTER) ||
         try_whole_parts(v) || try_leave(v, MOVE_ALL_TO_ALL) ||
         try_reduce(v, MOVE_ALL_REDUCE) || try_leave(v, MOVE_ALL_GATHER))
    ;
}

/* ---- rows ---------------------------------------------------------------- */

enum { EXPERTS, ROWS }; /* dims */

/* All other steps are done where the tokens are: there each device knows how
 * many rows it has, at the experts only how many there may be. */
static void move_rows(Mover *v) {
  const Placement *to = v->to;
  Axes back = change_over(v, EXPERTS, ROWS);
  Axes forth = change_over(v, ROWS, EXPERTS);
  Placement before = *to;
  /* One exchange over all axes that change between tokens and experts, as the
   * groups of each axis would send rows several times. */
  if (back) exchange(v, back, EXPERTS, ROWS);
  if (forth) {
    before.dims[EXPERTS] = v->now.dims[EXPERTS];
    before.dims[ROWS] = v->now.dims[ROWS];
  }
  v->to = &before;
  try_all(v);
  if (forth) exchange(v, forth, ROWS, EXPERTS);
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
