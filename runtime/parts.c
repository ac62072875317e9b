/* parts.c: which part of a slot a rank has, and bringing parts together.
 *
 * A slot that axes of the mesh cut is in each rank's slab as a box of the whole
 * tensor, row-major, every dim of the size rounded up; of [4, 6] on a mesh of
 * {a=2, b=4}, dim 0 cut by a and dim 1 by b, rank (1, 2) has
 *
 *   . . . . . .                            lo   = [2, 4]
 *   . . . . . .                            n    = [2, 2]
 *   . . . . x x   and rank (1, 3) nothing  size = [2, 2]
 *   . . . . x x
 *
 * Files and callers have whole tensors. Between the two a walk goes over
 * elements [from, to) of the whole, in order, and gives what of them is the
 * rank's as runs. A whole is gathered in portions, each one exchange, so that
 * it needs no more memory than a portion. What every rank has anyway takes an
 * exchange, too: the others see that the one that writes gets on. */
#include "rt.h"

#include <stdlib.h>
#include <string.h>

/* ---- boxes --------------------------------------------------------------- */

/* The number of a rank along an axis of the mesh; ranks count row-major. */
static int64_t along(const MoertDesc *d, int axis, int rank) {
  int64_t step = 1;
  for (int i = d->n_axes - 1; i > axis; i--)
    step *= d->mesh[i].size;
  return rank / step % d->mesh[axis].size;
}

static void cut_dim(const MoertDesc *d, const MoertSlot *slot, int k, int rank,
                    RtPart *p) {
  p->whole[k] = p->size[k] = p->n[k] = slot->dims[k];
  p->lo[k] = 0;
  for (int i = 0; i < MOERT_MAX_MESH && slot->axes[k][i]; i++) {
    int axis = slot->axes[k][i] - 1;
    int64_t parts = d->mesh[axis].size;
    p->size[k] = (p->size[k] + parts - 1) / parts;
    int64_t before = along(d, axis, rank) * p->size[k];
    if (before > p->n[k]) before = p->n[k];
    p->lo[k] += before;
    p->n[k] -= before;
    if (p->n[k] > p->size[k]) p->n[k] = p->size[k];
    p->is_cut |= parts > 1;
  }
}

RtPart rt_part(const MoertDesc *d, const MoertSlot *slot, int rank) {
  RtPart p = {.rank = slot->rank};
  for (int k = 0; k < slot->rank; k++)
    cut_dim(d, slot, k, rank, &p);
  return p;
}

int rt_part_owner(const MoertDesc *d, const MoertSlot *slot, int rank) {
  int64_t owner = rank, step = 1;
  for (int axis = d->n_axes - 1; axis >= 0; axis--) {
    bool cuts = false;
    for (int k = 0; k < slot->rank; k++)
      for (int i = 0; i < MOERT_MAX_MESH; i++)
        cuts |= slot->axes[k][i] == axis + 1;
    if (!cuts) owner -= along(d, axis, rank) * step;
    step *= d->mesh[axis].size;
  }
  return (int)owner;
}

int64_t rt_slot_bytes(const MoertSlot *slot) {
  return rt_elements(slot->rank, slot->dims) * rt_dtype[slot->dtype].bytes;
}

int64_t rt_part_bytes(const MoertDesc *d, const MoertSlot *slot) {
  RtPart p = rt_part(d, slot, 0);
  return rt_elements(p.rank, p.size) * rt_dtype[slot->dtype].bytes;
}

/* ---- walks --------------------------------------------------------------- */

RtWalk rt_walk(const RtPart *p, int64_t from, int64_t to) {
  RtWalk w = {.part = p, .to = to, .inner = 1};
  int cut = p->rank - 1; /* the innermost dim that is not all here */
  while (cut >= 0 && p->n[cut] == p->whole[cut] && p->size[cut] == p->n[cut])
    w.inner *= p->whole[cut--];
  w.cut = cut;
  w.row = cut < 0 ? w.inner : p->whole[cut] * w.inner;
  w.at = from;
  return w;
}

/* The first element in the slab of what is the rank's of a row of the whole;
 * -1: nothing is. */
static int64_t row_in_slab(const RtWalk *w, int64_t row) {
  const RtPart *p = w->part;
  int64_t at = 0, step = w->cut < 0 ? 0 : p->size[w->cut] * w->inner;
  for (int k = w->cut - 1; k >= 0; k--) {
    int64_t i = row % p->whole[k] - p->lo[k];
    if (i < 0 || i >= p->n[k]) return -1;
    at += i * step;
    step *= p->size[k];
    row /= p->whole[k];
  }
  return at;
}

bool rt_walk_next(RtWalk *w, RtRun *out) {
  const RtPart *p = w->part;
  while (w->at < w->to) {
    int64_t row = w->at / w->row, start = row * w->row;
    int64_t lo = start, hi = start + w->row, slab = row_in_slab(w, row);
    if (w->cut >= 0) {
      lo += p->lo[w->cut] * w->inner;
      hi = lo + p->n[w->cut] * w->inner;
    }
    int64_t from = w->at > lo ? w->at : lo, to = w->to < hi ? w->to : hi;
    w->at = start + w->row;
    *out = (RtRun){from, slab + from - lo, to - from};
    if (slab >= 0 && from < to) return true;
  }
  return false;
}

/* ---- to and from wholes that are in memory ------------------------------- */

void rt_part_take(const MoertSlot *slot, const RtPart *p, const char *whole,
                  int64_t from, int64_t to, char *slab) {
  int64_t bytes = rt_dtype[slot->dtype].bytes;
  RtWalk w = rt_walk(p, from, to);
  for (RtRun r; rt_walk_next(&w, &r);)
    memcpy(slab + r.slab * bytes, whole + (r.whole - from) * bytes,
           (size_t)(r.n * bytes));
}

static void put(const MoertSlot *slot, const RtPart *p, const char *slab,
                int64_t from, int64_t to, char *whole) {
  int64_t bytes = rt_dtype[slot->dtype].bytes;
  RtWalk w = rt_walk(p, from, to);
  for (RtRun r; rt_walk_next(&w, &r);)
    memcpy(whole + (r.whole - from) * bytes, slab + r.slab * bytes,
           (size_t)(r.n * bytes));
}

uint64_t rt_part_hash(const MoertSlot *slot, const RtPart *p,
                      const char *slab) {
  int64_t bytes = rt_dtype[slot->dtype].bytes;
  RtWalk w = rt_walk(p, 0, rt_elements(slot->rank, slot->dims));
  RtHash h;
  rt_hash_start(&h);
  for (RtRun r; rt_walk_next(&w, &r);)
    rt_hash_add(&h, slab + r.slab * bytes, (size_t)(r.n * bytes));
  return rt_hash_end(&h);
}

/* ---- gathering ----------------------------------------------------------- */

/* Adds the runs of a walk, `base` being where element `origin` is; those of one
 * length at one distance become one entry of the stream. */
static MoertStatus add_runs(RtStream *s, RtWalk w, char *base, int64_t bytes,
                            bool in_slab, int64_t origin) {
  RtRuns open = {0};
  for (RtRun r; rt_walk_next(&w, &r);) {
    int64_t at = in_slab ? r.slab : r.whole;
    char *data = base + (at - origin) * bytes;
    int64_t n = r.n * bytes;
    if (open.count == 1) open.stride = data - open.data;
    if (open.count && open.bytes == n &&
        data == open.data + open.count * open.stride) {
      open.count++;
      continue;
    }
    if (open.count) RT_TRY(rt_stream_add(s, open));
    open = (RtRuns){data, n, 1, 0};
  }
  return open.count ? rt_stream_add(s, open) : MOERT_OK;
}

/* What the rank gets of portion [from, to), and from whom; what it gives. */
static MoertStatus lay_portion(RtGather *g, const MoertSlot *slot, int64_t from,
                               int64_t to, char *own_part) {
  const MoertSession *s = g->session;
  int64_t bytes = rt_dtype[slot->dtype].bytes;
  int me = s->comm->rank;
  bool gets = g->to_all || me == 0;
  for (int r = 0; r < s->comm->size; r++) {
    rt_stream_clear(&g->x.send[r]);
    rt_stream_clear(&g->x.recv[r]);
    if (r == me) continue;
    if ((g->to_all || r == 0) && rt_part_owner(s->desc, slot, me) == me) {
      RtPart own = rt_part(s->desc, slot, me);
      RT_TRY(add_runs(&g->x.send[r], rt_walk(&own, from, to),
                      own_part, bytes, true, 0));
    }
    if (gets && rt_part_owner(s->desc, slot, r) == r) {
      RtPart part = rt_part(s->desc, slot, r);
      RT_TRY(add_runs(&g->x.recv[r], rt_walk(&part, from, to), g->buffer,
                      bytes, false, from));
    }
  }
  return MOERT_OK;
}

MoertStatus rt_gather_open(MoertSession *s, bool to_all, RtGather *g) {
  int n = s->comm->size;
  *g = (RtGather){.session = s, .to_all = to_all};
  RT_TRY(RT_NEW(&g->ranks, n));
  RT_TRY(RT_NEW(&g->marks, n));
  for (int r = 0; r < n; r++)
    g->ranks[r] = r;
  g->x = (RtExchange){
      .what = g->what, .n = n, .me = s->comm->rank, .ranks = g->ranks};
  RT_TRY(RT_NEW(&g->x.send, n));
  RT_TRY(RT_NEW(&g->x.recv, n));
  g->buffer = malloc(RT_PORTION);
  return g->buffer ? MOERT_OK : rt_fail(MOERT_NO_MEMORY, "out of memory");
}

void rt_gather_close(RtGather *g) {
  for (int r = 0; r < g->x.n; r++) {
    if (g->x.send) free(g->x.send[r].runs);
    if (g->x.recv) free(g->x.recv[r].runs);
  }
  free(g->x.send);
  free(g->x.recv);
  free(g->ranks);
  free(g->marks);
  free(g->buffer);
  *g = (RtGather){0};
}

int64_t rt_gather_portion(const MoertSlot *slot, int64_t from) {
  int64_t most = RT_PORTION / rt_dtype[slot->dtype].bytes;
  int64_t left = rt_elements(slot->rank, slot->dims) - from;
  return left < most ? left : most;
}

MoertStatus rt_gather(RtGather *g, const MoertSlot *slot, int64_t from) {
  MoertSession *s = g->session;
  MoertComm *c = s->comm;
  char *part;
  int64_t to = from + rt_gather_portion(slot, from);
  RtPart own = rt_part(s->desc, slot, c->rank);
  RT_TRY(rt_slot_view(s, slot, &part));
  if (g->to_all || c->rank == 0) put(slot, &own, part, from, to, g->buffer);
  if (c->size == 1) return MOERT_OK;
  snprintf(g->what, sizeof g->what, "gathering '%s'", slot->path);
  if (!own.is_cut)
    return rt_comm_all(c, g->what, "", sizeof *g->marks, g->marks);
  RT_TRY(lay_portion(g, slot, from, to, part));
  return rt_exchange(c, &g->x);
}
