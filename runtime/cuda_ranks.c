/* cuda_ranks.c: several ranks, a GPU each.
 *
 * The ranks of a machine take its GPUs in their order. Every group of ranks
 * that exchanges something has a communicator of NCCL, a wire; its id goes over
 * the ranks' own communicator. Exchanges stand in a stream of their own, so
 * that they are in one order on all ranks, whatever is computed beside them.
 *
 * The host never waits for a GPU that waits for others without looking: a rank
 * that has died is known to the launcher, one that hangs does not answer on the
 * ranks' own communicator. Where the exchanges stood is what the last of them
 * has left in the host's memory. */
#include "gpu.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- which GPU ----------------------------------------------------------- */

/* What the others are told of a rank. */
typedef struct Post {
  char machine[128]; /* its name, and which of its runs */
  int gpus;
  CUuuid uuid; /* of the GPU that it takes */
  char name[96];
} Post;

static void machine_name(char *to, size_t bytes) {
  char boot[40] = "", host[80] = "";
  FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");
  if (f) {
    if (!fgets(boot, sizeof boot, f)) boot[0] = 0;
    fclose(f);
  }
  gethostname(host, sizeof host - 1);
  snprintf(to, bytes, "%s %s", host, boot);
}

static MoertStatus tell(MoertComm *c, const Post *mine, Post **out) {
  RT_TRY(RT_NEW(out, c->size));
  return rt_comm_all(c, "GPUs", mine, sizeof *mine, *out);
}

/* How many of the first n ranks are on the machine of this one. */
static int neighbours(const Post *all, int rank, int n) {
  int found = 0;
  for (int r = 0; r < n; r++)
    found += strcmp(all[r].machine, all[rank].machine) == 0;
  return found;
}

/* A rank that sees one GPU was given it; else those of a machine take its GPUs
 * in their order. All ranks tell of the same one that gets none. */
static MoertStatus share_out(const MoertComm *c, const Post *all, int *out) {
  for (int r = 0; r < c->size; r++)
    if (all[r].gpus != 1 && neighbours(all, r, r) >= all[r].gpus)
      return rt_fail(MOERT_UNSUPPORTED,
                     "%d ranks run on a machine with %d GPUs: each rank needs "
                     "one of its own",
                     neighbours(all, r, c->size), all[r].gpus);
  int place = neighbours(all, c->rank, c->rank);
  *out = all[c->rank].gpus == 1 ? 0 : place;
  return MOERT_OK;
}

static MoertStatus check_own(const MoertComm *c, const Post *all) {
  for (int r = 0; r < c->size; r++)
    for (int q = 0; q < r; q++)
      if (strcmp(all[r].machine, all[q].machine) == 0 &&
          memcmp(&all[r].uuid, &all[q].uuid, sizeof(CUuuid)) == 0)
        return rt_fail(MOERT_UNSUPPORTED,
                       "ranks %d and %d would share one GPU, %s: each rank "
                       "needs one of its own",
                       q, r, all[r].name);
  return MOERT_OK;
}

static MoertStatus describe(RtCuda *c, Post *mine) {
  snprintf(mine->name, sizeof mine->name, "%s", c->gpu.name);
  return RT_CU(c, cuDeviceGetUuid(&mine->uuid, c->device));
}

MoertStatus rt_cuda_choose(RtCuda *c, MoertComm *comm) {
  Post mine = {.gpus = rt_cuda_gpus(c)}, *all;
  int ordinal = 0;
  c->comm = comm;
  if (comm->size == 1) return rt_cuda_gpu(c, 0);
  machine_name(mine.machine, sizeof mine.machine);
  MoertStatus st = tell(comm, &mine, &all);
  if (st == MOERT_OK) st = share_out(comm, all, &ordinal);
  free(all);
  RT_TRY(st);
  st = rt_cuda_gpu(c, ordinal);
  if (st == MOERT_OK) st = describe(c, &mine);
  if (st == MOERT_OK) st = rt_nccl_load(c);
  RT_TRY(rt_comm_agree(comm, st));
  st = tell(comm, &mine, &all);
  if (st == MOERT_OK) st = check_own(comm, all);
  free(all);
  return st;
}

/* ---- wires --------------------------------------------------------------- */

static bool same_axes(const MoertCollective *a, const MoertCollective *b) {
  return a->n_axes == b->n_axes &&
         memcmp(a->axes, b->axes, (size_t)a->n_axes * sizeof *a->axes) == 0;
}

static RtWire *find_wire(RtCuda *c, const MoertCollective *axes) {
  for (int i = 0; i < c->n_wires; i++)
    if (c->wires[i].axes && same_axes(c->wires[i].axes, axes))
      return &c->wires[i];
  return NULL;
}

/* Every rank is in one group of these; the first of each has the id. */
static MoertStatus connect(RtCuda *c, RtWire *w, const RtGroup *g) {
  ncclUniqueId mine = {{0}}, *all;
  MoertStatus st = c->nccl_library ? MOERT_OK : rt_nccl_load(c);
  if (g->me == 0 && st == MOERT_OK) st = RT_NCCL(c, ncclGetUniqueId(&mine));
  RT_TRY(rt_comm_agree(c->comm, st));
  RT_TRY(RT_NEW(&all, c->comm->size));
  st = rt_comm_all(c->comm, "ids of NCCL", &mine, sizeof mine, all);
  if (st == MOERT_OK)
    st = rt_comm_agree(c->comm,
                       RT_NCCL(c, ncclCommInitRank(&w->comm, g->n,
                                                   all[g->ranks[0]], g->me)));
  free(all);
  return st;
}

/* All ranks make the same wires in the same order. */
static MoertStatus add_wire(RtCuda *c, const MoertCollective *axes,
                            const RtGroup *g) {
  RtWire *more =
      realloc(c->wires, (size_t)(c->n_wires + 1) * sizeof *c->wires);
  if (!more) return rt_fail(MOERT_NO_MEMORY, "out of memory");
  c->wires = more;
  c->wires[c->n_wires] = (RtWire){.axes = axes, .n = g->n, .me = g->me};
  return connect(c, &c->wires[c->n_wires++], g);
}

static const RtWire *wire_of_all(const RtCuda *c) {
  for (int i = 0; i < c->n_wires; i++)
    if (c->wires[i].n == c->comm->size) return &c->wires[i];
  return NULL;
}

/* One of all ranks agrees on how wide exchanges are, for which their order does
 * not matter. Most models have such a group. */
static MoertStatus add_wire_of_all(RtCuda *c) {
  RtGroup g = {.n = c->comm->size, .me = c->comm->rank};
  RT_TRY(RT_NEW(&g.ranks, g.n));
  for (int r = 0; r < g.n; r++)
    g.ranks[r] = r;
  MoertStatus st = add_wire(c, NULL, &g);
  rt_group_free(&g);
  return st;
}

MoertStatus rt_cuda_wires(MoertSession *s) {
  RtCuda *c = s->cuda;
  for (int i = 0; i < s->desc->n_entries; i++)
    for (int k = 0; k < s->desc->entries[i].n_records; k++) {
      const MoertRecord *r = &s->desc->entries[i].records[k];
      bool is_new = r->kind == MOERT_START &&
                    r->collective->kind != MOERT_PLACE &&
                    !find_wire(c, r->collective);
      if (is_new)
        RT_TRY(add_wire(c, r->collective, &s->entries[i].pending[k].group));
    }
  return c->n_wires && !wire_of_all(c) ? add_wire_of_all(c) : MOERT_OK;
}

const RtWire *rt_cuda_wire(RtCuda *c, const MoertCollective *axes) {
  return axes ? find_wire(c, axes) : wire_of_all(c);
}

/* All graphs are gone: NCCL would wait for them. What waits for a rank that is
 * lost ends by this alone. */
void rt_cuda_wires_free(RtCuda *c) {
  for (int i = 0; i < c->n_wires; i++) {
    if (!c->wires[i].comm) continue;
    if (c->lost)
      c->nccl.ncclCommAbort(c->wires[i].comm);
    else
      c->nccl.ncclCommDestroy(c->wires[i].comm);
  }
  free(c->wires);
  c->wires = NULL;
  c->n_wires = 0;
}

/* ---- waiting ------------------------------------------------------------- */

enum { LOOKS = 1000, NAP_NS = 20000, NAMING_S = 5 };
static const double look_s = 0.02; /* between looks for what is wrong */

/* The number of the exchange that the GPU has come to. */
static int32_t progress(const RtCuda *c) {
  return c->host ? *(volatile int32_t *)&c->host->at : 0;
}

static const char *at_work(const RtCuda *c) {
  int32_t at = progress(c);
  return at > 0 && at <= c->n_names ? c->names[at - 1] : "an exchange of GPUs";
}

/* Nothing has moved for long: the ranks meet on their own communicator, which
 * names the one that does not come. */
static MoertStatus name_hung(RtCuda *c) {
  MoertComm *comm = c->comm;
  const char *what = at_work(c);
  double before = comm->timeout;
  int none = 0, *all;
  RT_TRY(RT_NEW(&all, comm->size));
  if (comm->timeout > NAMING_S) comm->timeout = NAMING_S;
  MoertStatus st = rt_comm_all(comm, what, &none, sizeof none, all);
  comm->timeout = before;
  free(all);
  if (st != MOERT_OK) return st;
  return rt_fail(MOERT_RANK_LOST,
                 "%s: all ranks have waited for it for %g s", what, before);
}

static MoertStatus look(RtCuda *c, double waited) {
  MoertComm *comm = c->comm;
  if (comm->transport->look)
    RT_TRY(comm->transport->look(comm, at_work(c)));
  for (int i = 0; i < c->n_wires; i++) {
    ncclResult_t r = ncclSuccess;
    if (!c->wires[i].comm) continue; /* it could not be made */
    RT_TRY(RT_NCCL(c, ncclCommGetAsyncError(c->wires[i].comm, &r)));
    if (r != ncclSuccess && r != ncclInProgress) return name_hung(c);
  }
  return waited > comm->timeout ? name_hung(c) : MOERT_OK;
}

/* A machine that stands still makes nobody late. */
static MoertStatus wait_looking(RtCuda *c) {
  const struct timespec nap = {.tv_nsec = NAP_NS};
  double last = rt_seconds(), waited = 0;
  int32_t at = progress(c);
  for (int looks = 0;; looks++) {
    CUresult r = c->cu.cuStreamQuery(c->stream);
    if (r != CUDA_ERROR_NOT_READY)
      return rt_cu_status(&c->cu, r, "cuStreamQuery(c->stream)", __FILE__,
                          __LINE__);
    if (looks < LOOKS) {
      sched_yield();
      continue;
    }
    nanosleep(&nap, NULL);
    double now = rt_seconds(), step = now - last;
    if (step < look_s) continue;
    waited += step < 5 * look_s ? step : 5 * look_s;
    if (at != progress(c)) waited = 0;
    at = progress(c);
    last = now;
    MoertStatus st = look(c, waited);
    c->lost = st != MOERT_OK;
    RT_TRY(st);
  }
}

MoertStatus rt_cuda_wait(RtCuda *c) {
  if (c->lost)
    return rt_fail(MOERT_RANK_LOST, "ranks on GPUs cannot go on after a "
                   "failure");
  if (c->n_wires) return wait_looking(c);
  return RT_CU(c, cuStreamSynchronize(c->stream));
}
