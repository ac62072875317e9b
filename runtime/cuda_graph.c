/* cuda_graph.c: an entry's records as graphs.
 *
 * The records are put into a stream once, loops unrolled, each turn with its
 * own addresses, and captured: a step is then one launch. Where rows of experts
 * go to other GPUs, and the model does not bound how many, the graph ends in
 * front of that: it finds out how many rows the longest message has, the host
 * waits for that number, and goes on with a graph whose messages are so wide:
 *
 *   part 0   ... counts | 4 bytes for the host
 *   part 1   rows there, experts, rows back, ... and the way back of gradients
 *
 * There is a graph of part 1 for each width that has come up, in shares of the
 * widest; exchanges of the same rows have the same counts, so there is a part
 * more for each layer of experts. */
#include "gpu.h"

#include <stdlib.h>

enum { MOST_GRAPHS = 32 }; /* of a part, then one goes for another */

/* ---- what is counted ----------------------------------------------------- */

/* Counts that the host knows, by where they are. */
typedef struct Known {
  const char *at;
  int64_t bytes;
} Known;

/* A way through the records that captures one part of them. */
typedef struct Walk Walk;
struct Walk {
  int part, at; /* wanted, and now */
  Known *known;
  int n, cap;
  int64_t bound; /* of the exchange behind the part; 0: none is */
};

static bool knows(const Walk *w, const char *at) {
  for (int i = 0; i < w->n; i++)
    if (w->known[i].at == at) return true;
  return false;
}

static MoertStatus learn(Walk *w, Known k) {
  if (w->n == w->cap) {
    int cap = w->cap ? 2 * w->cap : 8;
    Known *more = realloc(w->known, (size_t)cap * sizeof *more);
    if (!more) return rt_fail(MOERT_NO_MEMORY, "out of memory");
    w->known = more;
    w->cap = cap;
  }
  w->known[w->n++] = k;
  return MOERT_OK;
}

/* Memory that is written has other numbers then. */
static void forget(Walk *w, const char *at, int64_t bytes) {
  int n = 0;
  for (int i = 0; i < w->n; i++)
    if (at + bytes <= w->known[i].at ||
        w->known[i].at + w->known[i].bytes <= at)
      w->known[n++] = w->known[i];
  w->n = n;
}

static Known counts_of(MoertSession *s, int entry, const MoertRecord *r,
                       const RtLoops *l) {
  const MoertRef *got = &r->args[RT_GOT];
  return (Known){rt_address(s, entry, got, l->index),
                 got->elements * rt_dtype[got->dtype].bytes};
}

/* Whether the host has to ask before this record. */
static bool is_asked(MoertSession *s, int entry, int index, const Walk *w,
                     const RtLoops *l) {
  const MoertRecord *r = &s->desc->entries[entry].records[index];
  const RtCudaExchange *x = &s->cuda->entries[entry].exchanges[index];
  return x->counted && !knows(w, counts_of(s, entry, r, l).at);
}

/* The number that ends a part. */
static MoertStatus end_part(MoertSession *s, int entry, int index, Walk *w,
                            const RtLoops *l) {
  const MoertRecord *r = &s->desc->entries[entry].records[index];
  if (w->at++ != w->part) return MOERT_OK;
  for (int i = 0; i < r->n_args; i++)
    s->args[i] = rt_address(s, entry, &r->args[i], l->index);
  RT_TRY(rt_cuda_count(s, entry, index));
  w->bound = s->cuda->entries[entry].exchanges[index].bound;
  return rt_cuda_await_all(s, entry);
}

static MoertStatus visit(MoertSession *s, int entry, int index,
                         const RtLoops *l) {
  Walk *w = s->cuda->walk;
  const MoertRecord *r = &s->desc->entries[entry].records[index];
  for (int i = r->n_args - r->n_outs; i < r->n_args; i++)
    forget(w, rt_address(s, entry, &r->args[i], l->index),
           r->args[i].elements * rt_dtype[r->args[i].dtype].bytes);
  if (is_asked(s, entry, index, w, l)) {
    RT_TRY(end_part(s, entry, index, w, l));
    RT_TRY(learn(w, counts_of(s, entry, r, l)));
  }
  return w->at == w->part ? rt_cuda_record(s, entry, index, l) : MOERT_OK;
}

/* ---- capturing ----------------------------------------------------------- */

static MoertStatus walk(MoertSession *s, int entry, Walk *w) {
  s->cuda->walk = w;
  MoertStatus st = rt_each_record(s, entry, visit, rt_cuda_turns);
  s->cuda->walk = NULL;
  if (st == MOERT_OK && w->bound == 0) st = rt_cuda_publish(s, entry);
  return st;
}

/* The stream stops capturing whatever has happened. */
static MoertStatus capture(MoertSession *s, int entry, RtGraph *g,
                           CUgraph *out) {
  RtCuda *c = s->cuda;
  Walk w = {.part = g->part};
  *out = NULL;
  RT_TRY(RT_CU(c, cuStreamBeginCapture(c->stream,
                                       CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)));
  c->came = 0;
  c->share = g->share;
  MoertStatus st = walk(s, entry, &w);
  c->share = 0;
  g->came = c->came;
  g->bound = w.bound;
  free(w.known);
  if (st == MOERT_OK) return RT_CU(c, cuStreamEndCapture(c->stream, out));
  c->cu.cuStreamEndCapture(c->stream, out);
  return st;
}

static MoertStatus make_graph(MoertSession *s, int entry, RtGraph *g) {
  RtCuda *c = s->cuda;
  CUgraph graph;
  MoertStatus st = capture(s, entry, g, &graph);
  if (st == MOERT_OK)
    st = RT_CU(c, cuGraphInstantiateWithFlags(&g->exec, graph, 0));
  if (st != MOERT_OK) g->exec = NULL;
  if (graph) c->cu.cuGraphDestroy(graph);
  return st;
}

static void free_graph(RtCuda *c, RtGraph *g) {
  if (g->exec) c->cu.cuGraphExecDestroy(g->exec);
  free(g);
}

/* Of a part, the one that was used longest ago, where there are too many. */
static void drop_oldest(RtCuda *c, RtCudaEntry *e, int part) {
  RtGraph **last = NULL;
  int n = 0;
  for (RtGraph **at = &e->graphs; *at; at = &(*at)->next)
    if ((*at)->part == part) {
      last = at;
      n++;
    }
  if (n < MOST_GRAPHS) return;
  RtGraph *g = *last;
  *last = g->next;
  free_graph(c, g);
}

static void put_first(RtCudaEntry *e, RtGraph *g) {
  g->next = e->graphs;
  e->graphs = g;
}

static MoertStatus find_graph(MoertSession *s, int entry, int part, int share,
                              RtGraph **out) {
  RtCudaEntry *e = &s->cuda->entries[entry];
  for (RtGraph **at = &e->graphs; *at; at = &(*at)->next)
    if ((*at)->part == part && (*at)->share == share) {
      *out = *at;
      *at = (*at)->next;
      put_first(e, *out);
      return MOERT_OK;
    }
  RtGraph *g;
  RT_TRY(RT_NEW(&g, 1));
  *g = (RtGraph){.part = part, .share = share};
  MoertStatus st = make_graph(s, entry, g);
  if (st != MOERT_OK) {
    free_graph(s->cuda, g);
    return st;
  }
  drop_oldest(s->cuda, e, part);
  put_first(e, g);
  *out = g;
  return MOERT_OK;
}

void rt_cuda_graphs_free(MoertSession *s, int entry) {
  RtCudaEntry *e = &s->cuda->entries[entry];
  while (e->graphs) {
    RtGraph *g = e->graphs;
    e->graphs = g->next;
    free_graph(s->cuda, g);
  }
}

/* ---- a step -------------------------------------------------------------- */

static MoertStatus launch(MoertSession *s, const RtGraph *g) {
  RtCuda *c = s->cuda;
  RT_TRY(RT_CU(c, cuGraphLaunch(g->exec, c->stream)));
  s->comm->bytes += g->came;
  s->last.graphs++;
  return MOERT_OK;
}

/* The last part is not waited for. All exchanges that are counted are as wide
 * as the widest so far needs. */
MoertStatus rt_cuda_run_graphs(MoertSession *s, int entry) {
  RtCuda *c = s->cuda;
  RtGraph *g;
  int share = 0;
  for (int part = 0;; part++) {
    RT_TRY(find_graph(s, entry, part, share, &g));
    RT_TRY(launch(s, g));
    if (g->bound == 0) return MOERT_OK;
    RT_TRY(rt_cuda_wait(c));
    s->last.counts++;
    int next = rt_cuda_share(c, g->bound);
    if (next > share) share = next;
  }
}
