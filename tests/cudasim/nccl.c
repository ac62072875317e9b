/* nccl.c: the stand-in for libnccl.so.2: exchanges between the devices of
 * several processes of this machine.
 *
 * A communicator is a file in memory that all its ranks map, without a name:
 * the unique id says whose it is and where that process has it open. Each
 * collective, and each group of sends and receives, is a round, in which all
 * ranks take part: a rank writes down what it calls and what it sends, waits
 * until all have, looks whether they call the same, and takes what is for it.
 * Sums are made in order of rank, in the numbers' own dtype, those of bf16 in
 * float. Nothing of this is done before a stream comes to it, and a stream goes
 * on only when all ranks are there, so one that never comes is never waited for
 * by the host.
 *
 * What a GPU would do silently is an error here: ranks that call different
 * things, in another order, of other sizes; a communicator that is destroyed
 * while a graph has calls of it; two ranks on one device. */
#include "nccl_api.h"
#include "library.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { RANKS = 16, PATIENCE_S = 60 };
#define WINDOW (UINT64_C(1) << 28) /* bytes that a rank sends in a round */

/* ---- what ranks see of each other ---------------------------------------- */

typedef enum Kind { ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, MESSAGES } Kind;

/* What a rank calls in a round. */
typedef struct What {
  int kind, dtype, op;
  uint64_t count;
  uint64_t send[RANKS], recv[RANKS]; /* elements, of messages */
} What;

typedef struct Seat {
  atomic_int here; /* device + 1 */
  atomic_ullong posted, done; /* rounds */
  What what;
} Seat;

typedef struct Shared {
  atomic_int joined;
  Seat seats[RANKS];
} Shared;

#define HEAD ((sizeof(Shared) + 4095) / 4096 * 4096)

typedef struct Id {
  long pid;
  int fd;
} Id;

struct ncclComm {
  int n, me;
  Shared *shared;
  uint64_t round;
  bool posted, aborted, destroyed;
  ncclResult_t failed;
  ncclComm_t next; /* those that are over stay: streams may refer to them */
};

static ncclComm_t all;

/* ---- dtypes -------------------------------------------------------------- */

typedef struct Dtype {
  const char *name;
  size_t bytes;
} Dtype;

static const Dtype dtypes[] = {
    [0] = {"int8", 1},    [1] = {"uint8", 1},   [2] = {"int32", 4},
    [3] = {"uint32", 4},  [7] = {"float32", 4}, [8] = {"float64", 8},
    [9] = {"bfloat16", 2}};
static const char *const ops[] = {[0] = "sum", [2] = "max", [3] = "min"};

static bool is_dtype(int d) {
  return d >= 0 && d < (int)(sizeof dtypes / sizeof *dtypes) &&
         dtypes[d].bytes > 0;
}

static bool is_op(int op) {
  return op >= 0 && op < (int)(sizeof ops / sizeof *ops) && ops[op];
}

static double get(int dtype, const uint8_t *at) {
  union {
    int8_t i8;
    uint8_t u8;
    int32_t i32;
    uint32_t u32;
    float f32;
    double f64;
    uint16_t u16;
  } x = {0};
  memcpy(&x, at, dtypes[dtype].bytes);
  switch (dtype) {
  case 0: return x.i8;
  case 1: return x.u8;
  case 2: return x.i32;
  case 3: return x.u32;
  case 7: return (double)x.f32;
  case 9: x.u32 = (uint32_t)x.u16 << 16; return (double)x.f32;
  }
  return x.f64;
}

/* Rounded to the dtype; a bf16 stays a float until it is stored. */
static double rounded(int dtype, double x) {
  switch (dtype) {
  case 0: return (int8_t)(int64_t)x;
  case 1: return (uint8_t)(int64_t)x;
  case 2: return (int32_t)(int64_t)x;
  case 3: return (uint32_t)(int64_t)x;
  case 7:
  case 9: return (double)(float)x;
  }
  return x;
}

static uint16_t to_bf16(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
  return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static void put(int dtype, uint8_t *at, double v) {
  int64_t i = dtype < 4 ? (int64_t)v : 0;
  float f = (float)v;
  uint16_t h = to_bf16(f);
  switch (dtype) {
  case 7: memcpy(at, &f, 4); break;
  case 8: memcpy(at, &v, 8); break;
  case 9: memcpy(at, &h, 2); break;
  default: memcpy(at, &i, dtypes[dtype].bytes);
  }
}

static double combine(int op, double a, double b) {
  if (op == 0) return a + b;
  if (a != a || b != b) return a != a ? a : b;
  return op == 2 ? (a > b ? a : b) : (a < b ? a : b);
}

/* ---- a round ------------------------------------------------------------- */

/* What is in a stream. */
typedef struct Call {
  ncclComm_t c;
  What what;
  CUdeviceptr from[RANKS], to[RANKS]; /* of collectives the first */
} Call;

static uint8_t *window(const ncclComm_t c, int rank) {
  return (uint8_t *)c->shared + HEAD + (uint64_t)rank * WINDOW;
}

static bool all_have(ncclComm_t c, bool done, uint64_t rounds) {
  for (int r = 0; r < c->n; r++) {
    const Seat *s = &c->shared->seats[r];
    if (atomic_load(done ? &s->done : &s->posted) < rounds) return false;
  }
  return true;
}

/* Elements that go out at from[k]. */
static uint64_t goes(const Call *k, int peer) {
  const What *w = &k->what;
  if (w->kind == MESSAGES) return w->send[peer];
  if (peer > 0) return 0;
  return w->kind == REDUCE_SCATTER ? w->count * (uint64_t)k->c->n : w->count;
}

static bool post(CUcontext d, const Call *k, char *why, size_t n) {
  ncclComm_t c = k->c;
  Seat *me = &c->shared->seats[c->me];
  uint8_t *to = window(c, c->me);
  uint64_t left = WINDOW;
  for (int p = 0; p < c->n; p++) {
    uint64_t bytes = goes(k, p) * dtypes[k->what.dtype].bytes;
    char text[128] = "more than the stand-in takes at once";
    uint8_t *from =
        bytes <= left
            ? cudasim_bytes(d, k->from[p], bytes, text, sizeof text)
            : NULL;
    if (!from) {
      snprintf(why, n, "NCCL: what rank %d sends: %s", c->me, text);
      return false;
    }
    memcpy(to, from, bytes);
    to += bytes;
    left -= bytes;
  }
  me->what = k->what;
  atomic_store(&me->posted, c->round + 1);
  return true;
}

/* "AllReduce of 8 float32 (sum)" */
static void what_text(const What *w, char *text, size_t n) {
  static const char *const names[] = {"AllReduce", "AllGather",
                                      "ReduceScatter"};
  if (w->kind == MESSAGES)
    snprintf(text, n, "messages of %s", dtypes[w->dtype].name);
  else
    snprintf(text, n, "%s of %llu %s%s%s%s", names[w->kind],
             (unsigned long long)w->count, dtypes[w->dtype].name,
             w->kind == ALL_GATHER ? "" : " (",
             w->kind == ALL_GATHER ? "" : ops[w->op],
             w->kind == ALL_GATHER ? "" : ")");
}

/* Whether another rank calls what this one does. */
static bool matches(ncclComm_t c, int r, char *why, size_t n) {
  const What *mine = &c->shared->seats[c->me].what;
  const What *other = &c->shared->seats[r].what;
  char a[96], b[96];
  what_text(mine, a, sizeof a);
  what_text(other, b, sizeof b);
  if (strcmp(a, b)) {
    snprintf(why, n, "NCCL: rank %d is in %s, rank %d in %s", c->me, a, r, b);
    return false;
  }
  if (mine->kind != MESSAGES || mine->recv[r] == other->send[c->me])
    return true;
  snprintf(why, n, "NCCL: rank %d waits for %llu elements of rank %d, which "
           "sends %llu", c->me, (unsigned long long)mine->recv[r], r,
           (unsigned long long)other->send[c->me]);
  return false;
}

/* Elements [first, first + count) of all ranks' windows. */
static void reduce(ncclComm_t c, const What *w, uint64_t first, uint8_t *to) {
  size_t size = dtypes[w->dtype].bytes;
  for (uint64_t i = 0; i < w->count; i++) {
    double sum = get(w->dtype, window(c, 0) + (first + i) * size);
    for (int r = 1; r < c->n; r++)
      sum = rounded(w->dtype,
                    combine(w->op, sum, get(w->dtype, window(c, r) +
                                                          (first + i) * size)));
    put(w->dtype, to + i * size, sum);
  }
}

/* What rank r sends to this one. */
static const uint8_t *message(ncclComm_t c, int r) {
  const What *w = &c->shared->seats[r].what;
  const uint8_t *at = window(c, r);
  for (int p = 0; p < c->me; p++)
    at += w->send[p] * dtypes[w->dtype].bytes;
  return at;
}

static bool take(CUcontext d, const Call *k, int r, char *why, size_t n) {
  ncclComm_t c = k->c;
  const What *w = &k->what;
  size_t size = dtypes[w->dtype].bytes;
  uint64_t bytes = w->count * size;
  if (w->kind == MESSAGES) bytes = w->recv[r] * size;
  if (w->kind == ALL_GATHER) bytes *= (uint64_t)c->n;
  char text[128];
  uint8_t *to = cudasim_bytes(d, k->to[r], bytes, text, sizeof text);
  if (!to) {
    snprintf(why, n, "NCCL: what rank %d gets: %s", c->me, text);
    return false;
  }
  switch ((Kind)w->kind) {
  case ALL_REDUCE: reduce(c, w, 0, to); break;
  case REDUCE_SCATTER: reduce(c, w, w->count * (uint64_t)c->me, to); break;
  case MESSAGES: memcpy(to, message(c, r), bytes); break;
  case ALL_GATHER:
    for (int p = 0; p < c->n; p++)
      memcpy(to + (uint64_t)p * w->count * size, window(c, p),
             w->count * size);
    break;
  }
  cudasim_written(d, k->to[r], bytes);
  return true;
}

static CUresult fails(ncclComm_t c) {
  c->failed = ncclInvalidUsage;
  return CUDA_ERROR_LAUNCH_FAILED;
}

/* Others may still be where this one was: it writes over nothing that they
 * have not read. */
static CUresult run(CUcontext d, const void *data, char *why, size_t n) {
  const Call *k = data;
  ncclComm_t c = k->c;
  if (c->aborted) return CUDA_SUCCESS;
  if (!c->posted && !all_have(c, true, c->round)) return CUDA_ERROR_NOT_READY;
  if (!c->posted && !post(d, k, why, n)) return fails(c);
  c->posted = true;
  if (!all_have(c, false, c->round + 1)) return CUDA_ERROR_NOT_READY;
  for (int r = 0; r < c->n; r++)
    if (!matches(c, r, why, n)) return fails(c);
  int takes = k->what.kind == MESSAGES ? c->n : 1;
  for (int r = 0; r < takes; r++)
    if (!take(d, k, r, why, n)) return fails(c);
  c->posted = false;
  c->round++;
  atomic_store(&c->shared->seats[c->me].done, c->round);
  cudasim_exchanged();
  return CUDA_SUCCESS;
}

/* ---- groups -------------------------------------------------------------- */

enum { MOST = 256 };
static _Thread_local int depth, n_calls;
static _Thread_local struct Grouped {
  Call call;
  CUstream stream;
} calls[MOST];

static ncclResult_t put_in_stream(const Call *k, CUstream stream) {
  if (k->c->destroyed || k->c->aborted) return ncclInvalidArgument;
  return cudasim_call(stream, run, k, sizeof *k, k->c) ? ncclSystemError
                                                       : ncclSuccess;
}

EXPORT ncclResult_t ncclGroupStart(void) {
  depth++;
  return ncclSuccess;
}

EXPORT ncclResult_t ncclGroupEnd(void) {
  ncclResult_t r = ncclSuccess;
  if (!depth) return ncclInvalidUsage;
  if (--depth) return r;
  for (int k = 0; k < n_calls && !r; k++)
    r = put_in_stream(&calls[k].call, calls[k].stream);
  n_calls = 0;
  return r;
}

static ncclResult_t add(const Call *k, CUstream stream) {
  if (!depth) return put_in_stream(k, stream);
  if (n_calls == MOST) return ncclInvalidUsage;
  calls[n_calls++] = (struct Grouped){*k, stream};
  return ncclSuccess;
}

static ncclResult_t collective(Kind kind, const void *from, void *to,
                               size_t count, int dtype, int op, ncclComm_t c,
                               CUstream stream) {
  if (!c || !is_dtype(dtype) || !is_op(op)) return ncclInvalidArgument;
  Call k = {.c = c, .what = {kind, dtype, op, count, {0}, {0}}};
  k.from[0] = (CUdeviceptr)(uintptr_t)from;
  k.to[0] = (CUdeviceptr)(uintptr_t)to;
  return add(&k, stream);
}

EXPORT ncclResult_t ncclAllReduce(const void *from, void *to, size_t count,
                                  int dtype, int op, ncclComm_t comm,
                                  CUstream stream) {
  return collective(ALL_REDUCE, from, to, count, dtype, op, comm, stream);
}

EXPORT ncclResult_t ncclAllGather(const void *from, void *to, size_t count,
                                  int dtype, ncclComm_t comm,
                                  CUstream stream) {
  return collective(ALL_GATHER, from, to, count, dtype, 0, comm, stream);
}

EXPORT ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count,
                                      int dtype, int op, ncclComm_t comm,
                                      CUstream stream) {
  return collective(REDUCE_SCATTER, from, to, count, dtype, op, comm, stream);
}

/* The messages of this group in a communicator; NULL: no group, or another
 * dtype, which is more than the stand-in does. */
static Call *messages(ncclComm_t c, int dtype, CUstream stream) {
  if (!depth || !is_dtype(dtype)) return NULL;
  for (int k = 0; k < n_calls; k++) {
    Call *call = &calls[k].call;
    if (call->c == c && call->what.kind == MESSAGES)
      return call->what.dtype == dtype && calls[k].stream == stream ? call
                                                                    : NULL;
  }
  Call k = {.c = c, .what = {.kind = MESSAGES, .dtype = dtype}};
  return add(&k, stream) ? NULL : &calls[n_calls - 1].call;
}

EXPORT ncclResult_t ncclSend(const void *from, size_t count, int dtype,
                             int peer, ncclComm_t c, CUstream stream) {
  Call *k = c && peer >= 0 && peer < c->n ? messages(c, dtype, stream) : NULL;
  if (!k || k->what.send[peer]) return ncclInvalidUsage;
  k->from[peer] = (CUdeviceptr)(uintptr_t)from;
  k->what.send[peer] = count;
  return ncclSuccess;
}

EXPORT ncclResult_t ncclRecv(void *to, size_t count, int dtype, int peer,
                             ncclComm_t c, CUstream stream) {
  Call *k = c && peer >= 0 && peer < c->n ? messages(c, dtype, stream) : NULL;
  if (!k || k->what.recv[peer]) return ncclInvalidUsage;
  k->to[peer] = (CUdeviceptr)(uintptr_t)to;
  k->what.recv[peer] = count;
  return ncclSuccess;
}

/* ---- communicators ------------------------------------------------------- */

EXPORT ncclResult_t ncclGetVersion(int *version) {
  *version = 22809;
  return ncclSuccess;
}

EXPORT const char *ncclGetErrorString(ncclResult_t result) {
  switch (result) {
  case ncclSuccess: return "no error";
  case ncclSystemError: return "unhandled system error";
  case ncclInvalidArgument: return "invalid argument";
  case ncclInvalidUsage: return "invalid usage";
  case ncclRemoteError: return "remote process exited";
  }
  return "unknown result code";
}

EXPORT ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
  Id own = {(long)getpid(), memfd_create("nccl", MFD_CLOEXEC)};
  if (own.fd < 0 || ftruncate(own.fd, (off_t)(HEAD + RANKS * WINDOW)))
    return ncclSystemError;
  memset(id, 0, sizeof *id);
  memcpy(id->internal, &own, sizeof own);
  return ncclSuccess;
}

static Shared *map_shared(const ncclUniqueId *id) {
  Id own;
  char path[64];
  memcpy(&own, id->internal, sizeof own);
  snprintf(path, sizeof path, "/proc/%ld/fd/%d", own.pid, own.fd);
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return NULL;
  void *p = mmap(NULL, HEAD + RANKS * WINDOW, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_NORESERVE, fd, 0);
  close(fd);
  return p == MAP_FAILED ? NULL : p;
}

/* All are there, each on a device of its own. */
static ncclResult_t join(ncclComm_t c) {
  const struct timespec nap = {.tv_nsec = 1000000};
  Shared *s = c->shared;
  int device = cudasim_device();
  if (device < 0) return ncclInvalidUsage;
  atomic_store(&s->seats[c->me].here, device + 1);
  atomic_fetch_add(&s->joined, 1);
  for (int k = 0; atomic_load(&s->joined) < c->n; k++) {
    if (k > PATIENCE_S * 1000) return ncclRemoteError;
    nanosleep(&nap, NULL);
  }
  for (int r = 0; r < c->n; r++)
    if (r != c->me && atomic_load(&s->seats[r].here) == device + 1)
      return ncclInvalidUsage;
  return ncclSuccess;
}

EXPORT ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks,
                                     ncclUniqueId id, int rank) {
  *comm = NULL;
  if (ranks < 1 || ranks > RANKS || rank < 0 || rank >= ranks)
    return ncclInvalidArgument;
  ncclComm_t c = calloc(1, sizeof *c);
  if (!c) return ncclSystemError;
  *c = (struct ncclComm){.n = ranks, .me = rank, .next = all};
  all = c;
  c->shared = map_shared(&id);
  if (!c->shared) return ncclSystemError;
  ncclResult_t r = join(c);
  if (r) return r;
  cudasim_joined();
  *comm = c;
  return r;
}

EXPORT ncclResult_t ncclCommDestroy(ncclComm_t c) {
  if (!c || c->destroyed) return ncclInvalidArgument;
  if (cudasim_in_graphs(c)) {
    cudasim_say("NCCL: a communicator is destroyed before a graph of its");
    return ncclInvalidUsage;
  }
  c->destroyed = true;
  return ncclSuccess;
}

EXPORT ncclResult_t ncclCommAbort(ncclComm_t c) {
  if (!c || c->destroyed) return ncclInvalidArgument;
  c->aborted = c->destroyed = true;
  return ncclSuccess;
}

EXPORT ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *result) {
  if (!c || c->destroyed) return ncclInvalidArgument;
  *result = c->failed;
  return ncclSuccess;
}
