/* all_to_all.c: how many bytes a second an all-to-all moves: over shared
 * memory, over MPI through the plug-in, and by MPI alone.
 *
 *   all_to_all N            N processes over shared memory
 *   mpirun -n N all_to_all  both ways over MPI, in turns
 *
 * Prints bytes a rank sends, itself included, and GB/s a rank gets from the
 * others: the median of several times, of the slowest rank each. */
#include "../../runtime/rt.h"

#include <mpi.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_TIMES = 41, BYTES_IN_ALL = 512 << 20 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void stop(const char *what) {
  fprintf(stderr, "all_to_all: %s: %s\n", what, moert_error());
  exit(1);
}

typedef struct Bench {
  MoertComm *comm;
  int ranks;
  int64_t bytes; /* a rank sends */
  char *from, *to;
  RtPending p;
  bool bare; /* MPI alone */
} Bench;

static void run(Bench *b) {
  int n = (int)(b->bytes / b->ranks);
  if (b->bare)
    MPI_Alltoall(b->from, n, MPI_BYTE, b->to, n, MPI_BYTE, MPI_COMM_WORLD);
  else if (rt_comm_start(&b->p) || rt_comm_wait(&b->p))
    stop("all_to_all");
}

/* The slowest rank's, in microseconds: that is when the result is there. */
static double measure(Bench *b) {
  if (moert_comm_barrier(b->comm)) stop("barrier");
  double start = now();
  run(b);
  int us = (int)(1e6 * (now() - start)) + 1;
  if (moert_comm_max(b->comm, &us)) stop("max");
  return us;
}

static double median(Bench *b) {
  double times[MOST_TIMES];
  int n = (int)(BYTES_IN_ALL / b->bytes);
  n = n < 5 ? 5 : n > MOST_TIMES ? MOST_TIMES : n;
  run(b);
  for (int i = 0; i < n; i++)
    times[i] = measure(b);
  qsort(times, (size_t)n, sizeof *times, by_value);
  return times[n / 2];
}

static double gb_a_second(Bench *b, bool bare) {
  b->bare = bare;
  double others = (double)b->bytes * (b->ranks - 1) / b->ranks;
  return others / median(b) / 1e3;
}

static void bench_size(MoertComm *c, int64_t bytes, bool mpi) {
  const MoertAxis mesh = {"ranks", c->size};
  int64_t piece = bytes / c->size;
  const MoertCollective k = {.kind = MOERT_ALL_TO_ALL, .n_axes = 1,
                             .in_rows = 1, .in_run = piece,
                             .out_rows = 1, .out_run = piece};
  Bench b = {.comm = c, .ranks = c->size, .bytes = piece * c->size};
  b.from = malloc((size_t)b.bytes);
  b.to = malloc((size_t)b.bytes);
  if (!b.from || !b.to) stop("memory");
  memset(b.from, c->rank, (size_t)b.bytes);
  memset(b.to, 0, (size_t)b.bytes);
  if (rt_pending_new(c, &mesh, 1, &k, 2, "all_to_all", NULL, &b.p))
    stop("all_to_all");
  b.p.buffers[0] = (RtBuffer){b.from, MOERT_bool, b.bytes};
  b.p.buffers[1] = (RtBuffer){b.to, MOERT_bool, b.bytes};
  double ours = gb_a_second(&b, false);
  double bare = mpi ? gb_a_second(&b, true) : 0;
  if (c->rank == 0 && mpi)
    printf("%10lld  plug-in %6.2f  bare MPI %6.2f GB/s\n", (long long)b.bytes,
           ours, bare);
  else if (c->rank == 0)
    printf("%10lld  shared memory %6.2f GB/s\n", (long long)b.bytes, ours);
  fflush(stdout);
  rt_pending_free(&b.p);
  free(b.from);
  free(b.to);
}

static void bench(MoertComm *c, bool mpi) {
  static const int64_t sizes[] = {64 << 10, 1 << 20, 4 << 20, 16 << 20,
                                  64 << 20};
  for (size_t i = 0; i < COUNT_OF(sizes); i++)
    bench_size(c, sizes[i], mpi);
  moert_comm_close(c);
}

static int bench_local(int ranks) {
  MoertLocal *l;
  if (moert_local_new(ranks, &l)) stop("local");
  for (int r = 0; r < ranks; r++)
    if (fork() == 0) {
      MoertComm *c;
      if (moert_local_join(l, r, 0, &c)) stop("joining");
      bench(c, false);
      _exit(0);
    }
  int how, failed = 0;
  while (wait(&how) > 0)
    failed |= how;
  moert_local_free(l);
  return failed != 0;
}

int main(int argc, char **argv) {
  if (argc > 1) return bench_local(atoi(argv[1]));
  MoertComm *c;
  if (moert_mpi_open(0, &c)) stop("MPI");
  bench(c, true);
  return 0;
}
