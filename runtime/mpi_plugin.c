/* mpi_plugin.c: libmoert-mpi.so, the one file that includes MPI's header.
 *
 * An exchange is a receive from and a send to every other rank of the group
 * that it exchanges anything with, all begun at once. Runs that do not lie side
 * by side are described to MPI by a datatype of absolute addresses. Messages
 * between two ranks keep their order, so one tag serves all. */
#include "rt.h"

#include <limits.h>
#include <mpi.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 1 << 30 }; /* bytes of a block in a datatype: counts are int */

static MPI_Comm world;

/* What the first rank of this machine to give up has said, in memory that they
 * share. */
typedef struct Told {
  atomic_int state; /* 0: nothing yet; 1: it is being written; 2 */
  char text[RT_WHY];
} Told;
static MPI_Win told_window;
static Told *told; /* NULL: there is no such memory */

/* An exchange under way. */
typedef struct Requests {
  int n, left;
  MPI_Request *requests;
  int *places;
  int *indices; /* for MPI_Testsome */
} Requests;

static bool ok(int status, char *why) {
  int len = 0;
  char text[MPI_MAX_ERROR_STRING];
  if (status == MPI_SUCCESS) return true;
  MPI_Error_string(status, text, &len);
  snprintf(why, RT_WHY, "%.*s", len, text);
  return false;
}

/* ---- starting ------------------------------------------------------------ */

static void open_told(MPI_Comm near, int rank) {
  MPI_Aint bytes = rank == 0 ? (MPI_Aint)sizeof *told : 0;
  int unit;
  void *own;
  MPI_Comm_set_errhandler(near, MPI_ERRORS_RETURN);
  if (MPI_Win_allocate_shared(bytes, 1, MPI_INFO_NULL, near, &own,
                              &told_window) != MPI_SUCCESS)
    return;
  if (MPI_Win_shared_query(told_window, 0, &bytes, &unit, &told) !=
      MPI_SUCCESS)
    told = NULL;
  if (told && rank == 0) atomic_store(&told->state, 0);
  MPI_Barrier(near);
}

/* How many processes share this machine. */
static int open_near(int size) {
  MPI_Comm near;
  int n = 1, rank;
  if (MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL,
                          &near) != MPI_SUCCESS)
    return size;
  MPI_Comm_size(near, &n);
  MPI_Comm_rank(near, &rank);
  open_told(near, rank);
  MPI_Comm_free(&near);
  return n;
}

static bool plugin_open(int *rank, int *size, bool *crowded, bool *any_thread,
                        bool *far, char *why) {
  int given;
  if (!ok(MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &given), why) ||
      !ok(MPI_Comm_dup(MPI_COMM_WORLD, &world), why) ||
      !ok(MPI_Comm_set_errhandler(world, MPI_ERRORS_RETURN), why))
    return false;
  MPI_Comm_rank(world, rank);
  MPI_Comm_size(world, size);
  int near = open_near(*size);
  *crowded = near > (int)sysconf(_SC_NPROCESSORS_ONLN);
  *far = near < *size;
  *any_thread = given >= MPI_THREAD_SERIALIZED;
  return true;
}

static bool plugin_tell(const char *text, bool lost) {
  enum { GRACE_MS = 100 };
  const struct timespec nap = {.tv_nsec = 1000000};
  int none = 0;
  if (!told) return true;
  if (atomic_compare_exchange_strong(&told->state, &none, 1)) {
    snprintf(told->text, sizeof told->text, "%s", text);
    atomic_store(&told->state, 2);
    return true;
  }
  for (int i = 0; i < GRACE_MS && atomic_load(&told->state) == 1; i++)
    nanosleep(&nap, NULL);
  return !lost && strncmp(told->text, text, sizeof told->text - 1) != 0;
}

static void plugin_close(void) {
  if (told) MPI_Win_free(&told_window);
  MPI_Comm_free(&world);
  MPI_Finalize();
}

/* ---- datatypes ----------------------------------------------------------- */

/* Blocks of a datatype being put together. */
typedef struct Blocks {
  int n, cap;
  int *lengths;
  MPI_Aint *at;
  MPI_Datatype *types;
} Blocks;

static bool add_block(Blocks *b, char *data, int64_t length,
                      MPI_Datatype type) {
  if (b->n == b->cap) {
    int cap = b->cap ? 2 * b->cap : 8;
    size_t n = (size_t)cap;
    int *lengths = realloc(b->lengths, n * sizeof *lengths);
    if (lengths) b->lengths = lengths;
    MPI_Aint *at = realloc(b->at, n * sizeof *at);
    if (at) b->at = at;
    MPI_Datatype *types = realloc(b->types, n * sizeof(*types));
    if (types) b->types = types;
    if (!lengths || !at || !types) return false;
    b->cap = cap;
  }
  MPI_Get_address(data, &b->at[b->n]);
  b->lengths[b->n] = (int)length;
  b->types[b->n++] = type;
  return true;
}

/* Runs of a stride as a datatype of their own where their lengths fit. */
static bool add_runs(Blocks *b, const RtRuns *r) {
  bool fits = r->bytes <= INT_MAX && r->count <= INT_MAX;
  if (r->count > 1 && fits) {
    MPI_Datatype type;
    return MPI_Type_create_hvector((int)r->count, (int)r->bytes,
                                   (MPI_Aint)r->stride, MPI_BYTE,
                                   &type) == MPI_SUCCESS &&
           add_block(b, r->data, 1, type);
  }
  for (int64_t i = 0; i < r->count; i++)
    for (int64_t at = 0; at < r->bytes; at += BLOCK) {
      int64_t n = r->bytes - at < BLOCK ? r->bytes - at : BLOCK;
      if (!add_block(b, r->data + i * r->stride + at, n, MPI_BYTE))
        return false;
    }
  return true;
}

static void free_blocks(Blocks *b) {
  for (int i = 0; i < b->n; i++)
    if (b->types[i] != MPI_BYTE) MPI_Type_free(&b->types[i]);
  free(b->lengths);
  free(b->at);
  free(b->types);
}

static bool type_of(const RtStream *s, MPI_Datatype *out, char *why) {
  Blocks b = {0};
  bool good = true;
  for (int i = 0; i < s->n && good; i++)
    good = add_runs(&b, &s->runs[i]);
  if (!good) snprintf(why, RT_WHY, "out of memory");
  good = good &&
         ok(MPI_Type_create_struct(b.n, b.lengths, b.at, b.types, out), why) &&
         ok(MPI_Type_commit(out), why);
  free_blocks(&b);
  return good;
}

/* ---- exchanges ----------------------------------------------------------- */

static bool post(const RtStream *s, int rank, bool send, MPI_Request *out,
                 char *why) {
  char *data = MPI_BOTTOM;
  int n = 1;
  MPI_Datatype type = MPI_BYTE;
  bool plain = s->n == 1 && s->runs[0].count == 1 && s->total <= INT_MAX;
  if (plain) {
    data = s->runs[0].data;
    n = (int)s->total;
  } else if (!type_of(s, &type, why)) {
    return false;
  }
  bool good = ok(send ? MPI_Isend(data, n, type, rank, 0, world, out)
                      : MPI_Irecv(data, n, type, rank, 0, world, out),
                 why);
  if (!plain) MPI_Type_free(&type); /* once the message has gone */
  return good;
}

static void free_requests(RtExchange *x) {
  Requests *r = x->requests;
  if (!r) return;
  free(r->requests);
  free(r->places);
  free(r->indices);
  free(r);
  x->requests = NULL;
}

static bool new_requests(RtExchange *x, char *why) {
  Requests *r = calloc(1, sizeof *r);
  size_t most = 2 * (size_t)x->n;
  x->requests = r;
  if (r) {
    r->requests = calloc(most, sizeof(*r->requests));
    r->places = calloc(most, sizeof *r->places);
    r->indices = calloc(most, sizeof *r->indices);
  }
  if (r && r->requests && r->places && r->indices) return true;
  free_requests(x);
  snprintf(why, RT_WHY, "out of memory");
  return false;
}

static bool post_all(RtExchange *x, bool send, char *why) {
  Requests *r = x->requests;
  for (int k = 1; k < x->n; k++) {
    int i = (x->me + (send ? k : x->n - k)) % x->n;
    const RtStream *s = send ? &x->send[i] : &x->recv[i];
    if (s->total == 0) continue;
    if (!post(s, x->ranks[i], send, &r->requests[r->n], why)) return false;
    r->places[r->n++] = i;
    r->left++;
  }
  return true;
}

static bool plugin_start(RtExchange *x, char *why) {
  return new_requests(x, why) && post_all(x, false, why) &&
         post_all(x, true, why);
}

static int plugin_test(RtExchange *x, char *why) {
  Requests *r = x->requests;
  int done = 0;
  if (r->left &&
      !ok(MPI_Testsome(r->n, r->requests, &done, r->indices,
                       MPI_STATUSES_IGNORE),
          why))
    return RT_MPI_FAILED;
  if (done != MPI_UNDEFINED) r->left -= done;
  if (r->left) return done > 0 ? RT_MPI_MOVED : RT_MPI_NOTHING;
  free_requests(x);
  return RT_MPI_DONE;
}

static int plugin_missing(const RtExchange *x) {
  const Requests *r = x->requests;
  for (int i = 0; i < r->n; i++)
    if (r->requests[i] != MPI_REQUEST_NULL) return r->places[i];
  return x->me;
}

extern MOERT_API const RtMpi moert_mpi;
const RtMpi moert_mpi = {RT_MPI_VERSION, plugin_open, plugin_start,
                         plugin_test,    plugin_missing, plugin_tell,
                         plugin_close};
