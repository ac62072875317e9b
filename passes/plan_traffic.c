/* plan_traffic.c: how long the exchanges of a step take.
 *
 * Devices are numbered as ranks are, the last axis of the mesh the fastest, and
 * neighbours share the inner links. A group of P devices whose places lie `s`
 * apart has m members within D neighbours, the largest divisor of P that is at
 * most D / s. So each level of links joins n = m / (m of the level within)
 * parts of a group, and the bytes that each device sends fall on the levels so
 * that their sum is the same:
 *
 *   all_reduce, reduce_scatter, all_gather: rings within rings. With m members
 *     joined already, a level carries the share (1 - 1/n) / m / (1 - 1/P) of
 *     the bytes, in n - 1 messages one after the other (all_reduce: 2 (n - 1)).
 *   all_to_all: each member sends every other as much, in P - 1 messages; a
 *     level carries those to members that no level within reaches.
 *   permute: the same in one message.
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

double plan_link_seconds(const Module *m, const Topology *t, MoveKind kind,
                         Axes axes, double bytes,
                         const TopologyLink **crossed) {
  int64_t all = axes_parts(m, axes), joined = 1;
  double seconds = 0;
  for (int i = 0; i < t->n_links && joined < all; i++) {
    const TopologyLink *l = &t->links[i];
    int64_t now = members(m, axes, l->devices);
    if (now <= joined) continue;
    double n = (double)now / (double)joined, p = (double)all, share, messages;
    if (kind == MOVE_ALL_TO_ALL || kind == MOVE_PERMUTE) {
      messages = (double)(now - joined);
      share = messages / (p - 1);
      if (kind == MOVE_PERMUTE) messages = share;
    } else {
      messages = (kind == MOVE_ALL_REDUCE ? 2 : 1) * (n - 1);
      share = (1 - 1 / n) / (double)joined / (1 - 1 / p);
    }
    seconds += share * bytes / l->bandwidth + messages * l->latency;
    *crossed = l;
    joined = now;
  }
  return seconds;
}

bool plan_links_suffice(const Module *m, const Topology *t) {
  const TopologyLink *last = t->n_links ? &t->links[t->n_links - 1] : NULL;
  int64_t devices = mesh_devices(m);
  if (devices == 1 || (last && (!last->devices || last->devices >= devices)))
    return true;
  diag_error(m->cx, last ? last->span : t->span,
             "the topology joins %lld devices, and the mesh has %lld",
             (long long)(last ? last->devices : 1), (long long)devices);
  return false;
}

/* ---- exchanges ----------------------------------------------------------- */

static MoveKind kind_of(OpKind op) {
  return op == OP_all_reduce       ? MOVE_ALL_REDUCE
         : op == OP_all_gather     ? MOVE_ALL_GATHER
         : op == OP_reduce_scatter ? MOVE_REDUCE_SCATTER
         : op == OP_permute        ? MOVE_PERMUTE
                                   : MOVE_ALL_TO_ALL;
}

/* Bytes that each device sends, counted as reshard.c does. Of rows, those that
 * the tokens' side has. */
static int64_t bytes_sent(const Module *m, const PlanRows *rows,
                          const Node *n) {
  int64_t devices = axes_parts(m, node_axes(n)), bytes = 0;
  for (uint32_t i = 0; i < n->ins.len; i++) {
    const Type *t = &(n->op == OP_rows_return ? n->outs : n->ins).data[i]->type;
    double local = (double)type_bytes(t) * plan_rows_share(rows, t);
    bytes += move_bytes(kind_of(n->op), devices, (int64_t)(local + 0.5));
    if (n->op == OP_rows_send || n->op == OP_rows_return) break;
  }
  return bytes;
}

static PlanTraffic *traffic_row(PlanPoint *p, OpKind op, const char *axes) {
  for (int i = 0; i < p->n_traffic; i++)
    if (p->traffic[i].op == op && strcmp(p->traffic[i].axes, axes) == 0)
      return &p->traffic[i];
  if (p->n_traffic == MAX_TRAFFIC) return &p->traffic[MAX_TRAFFIC - 1];
  PlanTraffic *t = &p->traffic[p->n_traffic++];
  t->op = op;
  snprintf(t->axes, sizeof t->axes, "%s", axes);
  return t;
}

double plan_exchange(const Module *m, const PlanRows *rows, const Topology *t,
                     const Node *n, int64_t times, PlanPoint *out) {
  Buf axes = {0};
  const TopologyLink *crossed = NULL;
  Axes over = node_axes(n);
  axes_text(m, over, &axes);
  PlanTraffic *row = traffic_row(out, n->op, axes.data + 1);
  buf_free(&axes);
  int64_t bytes = bytes_sent(m, rows, n);
  double seconds = plan_link_seconds(m, t, kind_of(n->op), over, (double)bytes,
                                     &crossed);
  row->times += times;
  row->bytes += times * bytes;
  row->seconds += (double)times * seconds;
  if (crossed) snprintf(row->link, sizeof row->link, "%s", crossed->name);
  out->sent += times * bytes;
  out->exchanging += (double)times * seconds;
  return seconds;
}
