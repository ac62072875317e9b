/* plan_traffic.c: how long the exchanges of a step take.
 *
 * Devices are numbered as ranks are, the last axis of the mesh the fastest, and
 * neighbours share the inner links. A group of P devices whose places lie `s`
 * apart has m members within D neighbours, the largest divisor of P that is at
 * most D / s. So each level of links joins n = m / (m of the level within)
 * parts of a group, and the bytes that reshard.c counts for each device fall on
 * the levels so that their sum is the same:
 *
 *   all_reduce, reduce_scatter, all_gather: rings within rings. With m members
 *     joined already, a level carries the share (1 - 1/n) / m / (1 - 1/P) of
 *     the bytes, in n - 1 messages one after the other (all_reduce: 2 (n - 1)).
 *   all_to_all: each member sends every other as much, in P - 1 messages; a
 *     level carries those to members that no level within reaches.
 *
 * Levels work one after the other. */
#include "planner.h"

#include <string.h>

/* ---- groups on links ----------------------------------------------------- */

/* The number of ranks between neighbours along an axis. */
static int64_t stride_of(const Module *m, int axis) {
  int64_t stride = 1;
  for (uint32_t i = (uint32_t)axis + 1; i < m->mesh.len; i++)
    stride *= m->mesh.data[i].size;
  return stride;
}

static int64_t largest_divisor(int64_t n, int64_t most) {
  int64_t d = most < n ? most : n;
  while (d > 1 && n % d != 0)
    d--;
  return d > 1 ? d : 1;
}

/* Members of a group over `axes` among `devices` neighbours; 0: any number. */
static int64_t members(const Module *m, Axes axes, int64_t devices) {
  int64_t n = 1;
  for (; axes; axes >>= 4) {
    int axis = axes_at(axes, 0);
    int64_t size = m->mesh.data[axis].size;
    n *= devices ? largest_divisor(size, devices / stride_of(m, axis)) : size;
  }
  return n;
}

double plan_move_seconds(const Module *m, const Topology *t, const MoveStep *s,
                         const TopologyLink **crossed) {
  int64_t all = axes_parts(m, s->axes), joined = 1;
  double seconds = 0;
  for (int i = 0; i < t->n_links && joined < all; i++) {
    const TopologyLink *l = &t->links[i];
    int64_t now = members(m, s->axes, l->devices);
    if (now <= joined) continue;
    double n = (double)now / (double)joined, p = (double)all, share, messages;
    if (s->kind == MOVE_ALL_TO_ALL) {
      messages = (double)(now - joined);
      share = messages / (p - 1);
    } else {
      messages = (s->kind == MOVE_ALL_REDUCE ? 2 : 1) * (n - 1);
      share = (1 - 1 / n) / (double)joined / (1 - 1 / p);
    }
    seconds += share * (double)s->bytes / l->bandwidth + messages * l->latency;
    *crossed = l;
    joined = now;
  }
  return seconds;
}

/* ---- of an entry --------------------------------------------------------- */

static PlanTraffic *traffic_row(PlanPoint *p, MoveKind kind, const char *axes) {
  for (int i = 0; i < p->n_traffic; i++)
    if (p->traffic[i].kind == kind && strcmp(p->traffic[i].axes, axes) == 0)
      return &p->traffic[i];
  if (p->n_traffic == MAX_TRAFFIC) return &p->traffic[MAX_TRAFFIC - 1];
  PlanTraffic *t = &p->traffic[p->n_traffic++];
  t->kind = kind;
  snprintf(t->axes, sizeof t->axes, "%s", axes);
  return t;
}

static void add_step(const Module *m, const Topology *t, const MoveStep *s,
                     int64_t times, PlanPoint *p) {
  Buf axes = {0};
  const TopologyLink *crossed = NULL;
  axes_text(m, s->axes, &axes);
  PlanTraffic *row = traffic_row(p, s->kind, axes.data + 1);
  buf_free(&axes);
  double seconds = (double)times * plan_move_seconds(m, t, s, &crossed);
  row->times += times;
  row->bytes += times * s->bytes;
  row->seconds += seconds;
  if (crossed) snprintf(row->link, sizeof row->link, "%s", crossed->name);
  p->sent += times * s->bytes;
  p->exchanging += seconds;
}

/* Also the largest value that an exchange makes beside its operand. */
static void add_region(const Module *m, const Region *r, const Topology *t,
                       PlanPoint *p) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    if (n->body) add_region(m, n->body, t, p);
    if (n->op != OP_reshard) continue;
    const Value *from = n->ins.data[0], *to = n->outs.data[0];
    Move move =
        reshard_move(m, &from->type, &from->placement, &to->placement);
    for (int k = 0; k < move.n; k++) {
      const MoveStep *s = &move.steps[k];
      if (s->kind == MOVE_SLICE) continue;
      add_step(m, t, s, shard_times(r), p);
      Type local = placement_local(m, &from->type, &s->after);
      if (s->kind != MOVE_ALL_REDUCE && type_bytes(&local) > p->exchange)
        p->exchange = type_bytes(&local);
    }
  }
}

bool plan_traffic(Module *m, const Entry *e, const Topology *t,
                  PlanPoint *out) {
  const TopologyLink *last = t->n_links ? &t->links[t->n_links - 1] : NULL;
  int64_t devices = mesh_devices(m);
  if (devices > 1 && (!last || (last->devices && last->devices < devices))) {
    diag_error(m->cx, last ? last->span : t->span,
               "the topology joins %lld devices, and the mesh has %lld",
               (long long)(last ? last->devices : 1), (long long)devices);
    return false;
  }
  add_region(m, e->region, t, out);
  return true;
}
