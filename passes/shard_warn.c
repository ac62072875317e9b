/* shard_warn.c: tells of what costs much and nobody asked for: a large
 * parameter that every device has whole, a large value that all gather. A
 * warning stands where the tensor is made and names the annotation that says
 * otherwise, or that it is meant so. */
#include "pass.h"

#include <string.h>

static void tell(Shard *s, Span at, const char *text) {
  if (s->o->reshard_errors)
    diag_error(s->cx, at, "%s", text);
  else
    diag_warning(s->cx, at, "%s", text);
}

/* The dim that is best split over all that is not used: the largest that
 * divides; -1: none. */
static int dim_to_split(const Module *m, const Type *t, int axis) {
  int best = -1;
  for (int d = 0; d < t->rank; d++)
    if (t->dims[d].size % m->mesh.data[axis].size == 0 &&
        (best < 0 || t->dims[d].size > t->dims[best].size))
      best = d;
  return best;
}

static int largest_axis(const Module *m) {
  int best = 0;
  for (int i = 1; i < (int)m->mesh.len; i++)
    if (m->mesh.data[i].size > m->mesh.data[best].size) best = i;
  return best;
}

/* "f32[512, 10000 @dev]", or with every dim said not to be split. */
static Sym annotated(Shard *s, const Type *t, bool split) {
  Buf b = {0};
  Placement p = {0};
  int axis = largest_axis(s->m), d = split ? dim_to_split(s->m, t, axis) : -1;
  if (d >= 0)
    p.dims[d] = axes_add(0, axis);
  else
    p.closed = (uint8_t)((1u << t->rank) - 1);
  placement_text(s->m, t, &p, &b);
  Sym text = sym(s->cx, b.data);
  buf_free(&b);
  return text;
}

/* ---- parameters ---------------------------------------------------------- */

static bool is_said(const ShardUnit *u) {
  for (int f = 0; f < u->n_factors; f++)
    if (u->factors[f].closed) return true;
  return false;
}

static void warn_slot(Shard *s, const ShardUnit *u) {
  char bytes[16];
  Buf b = {0};
  const Slot *slot = u->slot;
  int64_t size = type_bytes(&slot->type);
  if (slot->kind != SLOT_PARAM || size <= s->o->reshard_limit || is_said(u) ||
      !placement_is_whole(&slot->placement))
    return;
  bytes_text(size, bytes);
  buf_fmt(&b, "parameter '%s' of %s is on each of %lld devices; %s would "
              "split it, %s says that it is meant so",
          slot->path, bytes, (long long)mesh_devices(s->m),
          annotated(s, &slot->type, true), annotated(s, &slot->type, false));
  tell(s, slot->span, b.data);
  buf_free(&b);
}

/* ---- gathers ------------------------------------------------------------- */

static int64_t gathered_bytes(const ShardMove *m) {
  int64_t bytes = 0;
  for (int k = 0; k < m->move.n; k++)
    if (m->move.steps[k].kind == MOVE_ALL_GATHER)
      bytes += m->move.steps[k].bytes;
  return bytes * m->times;
}

/* A parameter that the model splits, a reader whose placement it gives, and
 * gradients as results are asked for. */
static bool is_asked_for(const Shard *s, const ShardMove *m) {
  if (!m->from->def) return true;
  if (m->reader->n) return m->reader->n->op == OP_annotate;
  return s->o->keep_grads && m->from->def->backward &&
         strcmp(m->reader->what, "report") == 0;
}

static void warn_move(Shard *s, const ShardMove *m) {
  char bytes[16];
  Buf b = {0};
  int64_t size = gathered_bytes(m);
  if (size <= s->o->reshard_limit || is_asked_for(s, m)) return;
  bytes_text(size, bytes);
  buf_fmt(&b, "each device sends %s a step to gather ", bytes);
  placement_text(s->m, &m->from->type, &m->from->placement, &b);
  buf_add(&b, " as ");
  placement_text(s->m, &m->to->type, &m->to->placement, &b);
  buf_fmt(&b, " for %s; a let with the first type where it is read keeps it "
              "split, one with the second says that it is meant so",
          m->reader->what);
  tell(s, m->from->def->span, b.data);
  buf_free(&b);
}

void shard_warn(Shard *s) {
  for (uint32_t i = 0; i < s->units.len; i++)
    if (s->units.data[i]->slot) warn_slot(s, s->units.data[i]);
  Map told = {0};
  for (uint32_t i = 0; i < s->moves.len; i++) {
    const ShardMove *m = &s->moves.data[i];
    const Node *n = m->from->def;
    uint64_t key = n ? (uint64_t)n->span.file << 32 | n->span.lo : 0;
    if (map_get(&told, (const void *)(uintptr_t)(key + 1))) continue;
    uint32_t before = s->cx->warnings + s->cx->errors;
    warn_move(s, m);
    if (before != s->cx->warnings + s->cx->errors)
      map_put(s->a, &told, (const void *)(uintptr_t)(key + 1), s);
  }
}
