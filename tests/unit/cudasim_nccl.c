/* cudasim_nccl.c: the stand-in for libnccl: collectives of two processes with
 * known results, and what it does not let pass. */
#include "../cudasim/nccl_api.h"
#include "stand_ins.h"

#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define CALLS(X)                                                              \
  X(cuInit) X(cuDevicePrimaryCtxRetain) X(cuCtxSetCurrent) X(cuMemAlloc_v2)   \
  X(cuMemcpyHtoD_v2) X(cuMemcpyDtoH_v2) X(cuStreamCreate)                     \
  X(cuStreamSynchronize) X(cuStreamQuery) X(cuStreamBeginCapture_v2)          \
  X(cuStreamEndCapture) X(cuGraphInstantiateWithFlags) X(cuGraphLaunch)       \
  X(cuGraphExecDestroy)
#define NCCL_CALLS(X)                                                         \
  X(ncclGetUniqueId) X(ncclCommInitRank) X(ncclCommDestroy) X(ncclCommAbort)  \
  X(ncclCommGetAsyncError) X(ncclGroupStart) X(ncclGroupEnd)                  \
  X(ncclAllReduce) X(ncclAllGather) X(ncclReduceScatter) X(ncclSend)          \
  X(ncclRecv)
#define DECLARE(name) static __typeof__(&name) p_##name;
CALLS(DECLARE)
NCCL_CALLS(DECLARE)
#undef DECLARE

enum { RANKS = 2, N = 4, SUM = 0, MAX = 2, I32 = 2, F32 = 7, BF16 = 9 };

/* What both processes see. */
typedef struct Shared {
  ncclUniqueId id;
  volatile int has_id;
  char why[RANKS][256]; /* what was wrong, or "" */
} Shared;

/* One rank, on a device of its own. */
typedef struct Rank {
  int me;
  ncclComm_t comm;
  CUstream stream;
  CUdeviceptr from, to;
} Rank;

typedef void Test(Rank *r, char *why);

#define MUST(call)                                              \
  do {                                                          \
    int got_ = (int)(call);                                     \
    if (got_) {                                                 \
      snprintf(why, 256, "%s returned %d", #call, got_);        \
      return;                                                   \
    }                                                           \
  } while (0)
#define WANT(cond)                                              \
  do {                                                          \
    if (!(cond)) {                                              \
      snprintf(why, 256, "not so: %s", #cond);                  \
      return;                                                   \
    }                                                           \
  } while (0)

static const void *in(const Rank *r) {
  return (const void *)(uintptr_t)r->from;
}
static void *out(const Rank *r) {
  return (void *)(uintptr_t)r->to;
}

static void get(const Rank *r, void *to, size_t bytes) {
  p_cuStreamSynchronize(r->stream);
  p_cuMemcpyDtoH_v2(to, r->to, bytes);
}

/* ---- results ------------------------------------------------------------- */

static void sums(Rank *r, char *why) {
  float x[N] = {1, 2, -3, (float)r->me}, y[N];
  MUST(p_cuMemcpyHtoD_v2(r->from, x, sizeof x));
  MUST(p_ncclAllReduce(in(r), out(r), N, F32, SUM, r->comm, r->stream));
  get(r, y, sizeof y);
  WANT(y[0] == 2 && y[1] == 4 && y[2] == -6 && y[3] == 1);
  MUST(p_ncclAllReduce(in(r), out(r), N, F32, MAX, r->comm, r->stream));
  get(r, y, sizeof y);
  WANT(y[0] == 1 && y[2] == -3 && y[3] == 1);
  uint16_t h[2] = {0x3f80, 0x4000}, g[2]; /* 1, 2 */
  MUST(p_cuMemcpyHtoD_v2(r->from, h, sizeof h));
  MUST(p_ncclReduceScatter(in(r), out(r), 1, BF16, SUM, r->comm, r->stream));
  get(r, g, sizeof g);
  WANT(g[0] == (r->me ? 0x4080 : 0x4000));
}

static void gathers(Rank *r, char *why) {
  int32_t x[2] = {10 + r->me, 20 + r->me}, y[N];
  MUST(p_cuMemcpyHtoD_v2(r->from, x, sizeof x));
  MUST(p_ncclAllGather(in(r), out(r), 2, I32, r->comm, r->stream));
  get(r, y, sizeof y);
  WANT(y[0] == 10 && y[1] == 20 && y[2] == 11 && y[3] == 21);
}

/* Rank 0 sends one number to itself and two to the other, which sends one. */
static void messages(Rank *r, char *why) {
  int32_t x[3] = {100 * r->me, 100 * r->me + 1, 100 * r->me + 2}, y[3] = {0};
  size_t sends[2][2] = {{1, 2}, {1, 0}};
  char *from = (char *)(uintptr_t)r->from, *to = out(r);
  MUST(p_cuMemcpyHtoD_v2(r->from, x, sizeof x));
  MUST(p_cuMemcpyHtoD_v2(r->to, y, sizeof y));
  MUST(p_ncclGroupStart());
  for (int p = 0; p < RANKS; p++) {
    size_t n = sends[r->me][p], m = sends[p][r->me];
    MUST(p_ncclSend(from, n, I32, p, r->comm, r->stream));
    MUST(p_ncclRecv(to, m, I32, p, r->comm, r->stream));
    from += 4 * n;
    to += 4 * m;
  }
  MUST(p_ncclGroupEnd());
  get(r, y, sizeof y);
  WANT(y[0] == (r->me ? 1 : 0) && y[1] == (r->me ? 2 : 100));
}

/* Work of a graph, launched twice; then the communicator has to wait for it. */
static void graphs(Rank *r, char *why) {
  float x[N] = {1, 1, 1, 1}, y[N];
  CUgraph graph;
  CUgraphExec exec;
  MUST(p_cuMemcpyHtoD_v2(r->from, x, sizeof x));
  MUST(p_cuStreamBeginCapture_v2(r->stream, 1));
  MUST(p_ncclAllReduce(in(r), out(r), N, F32, SUM, r->comm, r->stream));
  MUST(p_ncclAllReduce(out(r), out(r), N, F32, SUM, r->comm, r->stream));
  MUST(p_cuStreamEndCapture(r->stream, &graph));
  MUST(p_cuGraphInstantiateWithFlags(&exec, graph, 0));
  for (int k = 0; k < 2; k++) {
    MUST(p_cuGraphLaunch(exec, r->stream));
    get(r, y, sizeof y);
    WANT(y[0] == 4 && y[3] == 4);
  }
  WANT(p_ncclCommDestroy(r->comm) == ncclInvalidUsage);
  MUST(p_cuGraphExecDestroy(exec));
  MUST(p_ncclCommDestroy(r->comm));
}

/* A graph that is gone before the other rank comes: both its runs are made. */
static void destroyed(Rank *r, char *why) {
  float x[N] = {1, 2, 3, 4}, y[N];
  CUgraph graph;
  CUgraphExec exec;
  MUST(p_cuMemcpyHtoD_v2(r->to, x, sizeof x));
  MUST(p_cuStreamBeginCapture_v2(r->stream, 1));
  MUST(p_ncclAllReduce(out(r), out(r), N, F32, SUM, r->comm, r->stream));
  MUST(p_cuStreamEndCapture(r->stream, &graph));
  MUST(p_cuGraphInstantiateWithFlags(&exec, graph, 0));
  if (r->me) usleep(100000);
  MUST(p_cuGraphLaunch(exec, r->stream));
  MUST(p_cuGraphLaunch(exec, r->stream));
  MUST(p_cuGraphExecDestroy(exec));
  get(r, y, sizeof y);
  WANT(y[0] == 4 && y[3] == 16);
}

/* ---- what goes wrong ----------------------------------------------------- */

static void differ(Rank *r, char *why) {
  ncclResult_t failed;
  if (r->me)
    MUST(p_ncclAllGather(in(r), out(r), 2, I32, r->comm, r->stream));
  else
    MUST(p_ncclAllReduce(in(r), out(r), N, F32, SUM, r->comm, r->stream));
  WANT(p_cuStreamSynchronize(r->stream) == CUDA_ERROR_LAUNCH_FAILED);
  MUST(p_ncclCommGetAsyncError(r->comm, &failed));
  WANT(failed == ncclInvalidUsage);
}

/* One comes, the other does not: what waits ends when it is given up. */
static void alone(Rank *r, char *why) {
  if (r->me) return;
  MUST(p_ncclAllReduce(in(r), out(r), N, F32, SUM, r->comm, r->stream));
  WANT(p_cuStreamQuery(r->stream) == CUDA_ERROR_NOT_READY);
  MUST(p_ncclCommAbort(r->comm));
  MUST(p_cuStreamSynchronize(r->stream));
}

/* ---- the processes ------------------------------------------------------- */

static void open_libraries(void) {
  void *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
#define FIND(name) *(void **)&p_##name = dlsym(lib, #name);
  if (lib) { CALLS(FIND) }
  lib = lib ? dlopen("libnccl.so.2", RTLD_NOW | RTLD_GLOBAL) : NULL;
  if (lib) { NCCL_CALLS(FIND) }
#undef FIND
  if (!lib) _exit(1);
}

static void connect(Rank *r, Shared *s, int device, char *why) {
  CUcontext context;
  MUST(p_cuInit(0));
  MUST(p_cuDevicePrimaryCtxRetain(&context, device));
  MUST(p_cuCtxSetCurrent(context));
  MUST(p_cuStreamCreate(&r->stream, 1));
  MUST(p_cuMemAlloc_v2(&r->from, 64));
  MUST(p_cuMemAlloc_v2(&r->to, 64));
  if (r->me == 0) {
    MUST(p_ncclGetUniqueId(&s->id));
    s->has_id = 1;
  }
  while (!s->has_id)
    usleep(1000);
  MUST(p_ncclCommInitRank(&r->comm, RANKS, s->id, r->me));
}

/* A test in two processes, on devices 0 and `other`; NULL: they do not even
 * connect. `says` is what one is told then, or what the stand-ins say. */
static void run(const char *name, Test *test, int other, const char *says) {
  Shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  char log[64], text[512] = "";
  snprintf(log, sizeof log, "/tmp/moec-nccl-%d", (int)getpid());
  setenv("CUDASIM_LOG", log, 1);
  fflush(stdout);
  for (int me = 0; me < RANKS; me++) {
    if (fork()) continue;
    alarm(90); /* where the other ends before it has told the id */
    Rank r = {.me = me};
    char *why = s->why[me];
    open_libraries();
    connect(&r, s, me ? other : 0, why);
    if (!why[0] && test) test(&r, why);
    _exit(0);
  }
  int status, ended = 0;
  while (wait(&status) > 0)
    ended += status == 0;
  FILE *f = fopen(log, "r");
  if (f) {
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    unlink(log);
  }
  bool both = !s->why[0][0] == !s->why[1][0] && !s->why[0][0] == (test != NULL);
  CHECK(name, ended == RANKS && both && strstr(test ? text : s->why[0], says),
        "%s; %s; %s", s->why[0], s->why[1], text);
  munmap(s, sizeof *s);
}

int main(int argc, char **argv) {
  (void)argc;
  setenv("CUDASIM_DEVICES", "2", 1);
  use_stand_ins(argv);
  run("sums", sums, 1, "");
  run("gathers", gathers, 1, "");
  run("messages", messages, 1, "");
  run("graphs, and who goes first", graphs, 1, "before a graph of its");
  run("a graph that is destroyed waits twice", destroyed, 1, "");
  run("ranks that differ", differ, 1,
      "is in AllReduce of 4 float32 (sum), rank 1 in AllGather of 2 int32");
  run("a rank that does not come", alone, 1, "");
  run("two ranks on one device", NULL, 0, "ncclCommInitRank(&r->comm, RANKS, "
      "s->id, r->me) returned 5");
  return failures > 0;
}
