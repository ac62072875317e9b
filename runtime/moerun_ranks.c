/* moerun_ranks.c: one command, several processes.
 *
 * `moerun -n 4` forks four ranks, forwards signals to them, and ends with the
 * status of the first that fails; the others are told at once, and ended if
 * they do not end by themselves. Each rank is a process group of its own, so
 * that a key press reaches them once, through the launcher.
 *
 * mpirun and srun start moerun themselves, and say in the environment how many
 * ranks there are. The first rank speaks; of the others only errors are
 * seen. */
#include "moerun.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_RANKS = 256, LINGER_S = 5 };

/* ---- what the environment says ------------------------------------------- */

typedef struct Launcher {
  const char *name, *rank, *size, *local_size;
  bool mpi;
} Launcher;

static const Launcher launchers[] = {
    {"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
     "OMPI_COMM_WORLD_LOCAL_SIZE", true},
    {"mpiexec", "PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS", true},
    {"srun", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", true},
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", false},
};

static bool read_number(const char *text, int *out) {
  char *end;
  errno = 0;
  long n = strtol(text, &end, 10);
  *out = (int)n;
  return end != text && !*end && !errno && n >= 0 && n <= 1 << 20;
}

/* What a launcher has set: false, and said so, where it makes no sense. */
static bool read_launcher(const Launcher *l, Ranks *out) {
  const char *rank_text = getenv(l->rank), *size_text = getenv(l->size);
  int rank, size;
  if (!read_number(size_text, &size) || size < 1) {
    run_error("%s=%s is not a number of ranks", l->size, size_text);
    return false;
  }
  if (!read_number(rank_text, &rank) || rank >= size) {
    run_error("%s=%s is not a rank: %s is %d", l->rank, rank_text, l->size,
              size);
    return false;
  }
  if (size > 1 && !l->mpi) {
    run_error("%s says that there are %d ranks, but moerun cannot connect "
              "those of %s: start them by moerun -n %d, mpirun or srun",
              l->size, size, l->name, size);
    return false;
  }
  const char *local = getenv(l->local_size);
  int here;
  bool known = local && read_number(local, &here) && here > 0;
  if (size > 1)
    *out = (Ranks){RANKS_MPI, size, known ? here : 1, rank};
  return true;
}

static const Launcher *find_launcher(void) {
  for (size_t i = 0; i < COUNT_OF(launchers); i++)
    if (getenv(launchers[i].rank) && getenv(launchers[i].size))
      return &launchers[i];
  return NULL;
}

/* Cores that were dealt out before, one rank its own: no need to share. */
static void see_binding(Ranks *r) {
  cpu_set_t set;
  long online = sysconf(_SC_NPROCESSORS_ONLN);
  if (sched_getaffinity(0, sizeof set, &set) == 0 &&
      (long)CPU_COUNT(&set) * r->neighbours <= online)
    r->neighbours = 1;
}

bool ranks_find(int *argc, char ***argv, Ranks *out, int *status) {
  const Launcher *l = find_launcher();
  bool given = *argc > 1 && strcmp((*argv)[1], "-n") == 0;
  *out = (Ranks){RANKS_NONE, 1, 1, 0};
  *status = EXIT_USAGE;
  if (!given) {
    *status = EXIT_USER;
    if (!l) return true;
    bool ok = read_launcher(l, out);
    if (out->by == RANKS_MPI) see_binding(out);
    return ok;
  }
  if (*argc < 3 || !read_number((*argv)[2], &out->n) || out->n < 1 ||
      out->n > MOST_RANKS) {
    run_error("-n takes a number of ranks, 1 to %d%s%s", MOST_RANKS,
              *argc < 3 ? "" : ", not ", *argc < 3 ? "" : (*argv)[2]);
    return false;
  }
  Ranks outer = {RANKS_NONE, 1, 1, 0};
  if (l && l->rank[0] != 'S' && read_launcher(l, &outer) && outer.n > 1) {
    run_error("-n and %s: both start ranks, one of them is enough", l->name);
    return false;
  }
  out->by = RANKS_LOCAL;
  out->neighbours = out->n;
  *argc -= 2;
  *argv += 2;
  return true;
}

/* ---- one rank ------------------------------------------------------------ */

int ranks_own(const RunArgs *a) {
  return a->comm ? moert_comm_rank(a->comm) : 0;
}

int ranks_count(const RunArgs *a) {
  return a->comm ? moert_comm_size(a->comm) : 1;
}

/* The first rank alone prints and writes. */
static bool fall_silent(RunArgs *a) {
  a->quiet = true;
  a->log = a->probe = NULL;
  a->probe_every = 0;
  return freopen("/dev/null", "w", stdout) != NULL;
}

static int run_as_rank(const RunVerb *verb, RunArgs *a) {
  int rank = ranks_own(a);
  run_speak_as(a->comm, rank);
  if (rank && !fall_silent(a))
    return run_error("/dev/null: %s", strerror(errno));
  int status = verb->run(a);
  run_speak_as(NULL, rank);
  if (fflush(stdout) != 0 || ferror(stdout))
    status = run_error("cannot write standard output");
  return status;
}

static int run_mpi(const Ranks *r, const RunVerb *verb, RunArgs *a) {
  MoertStatus st = moert_mpi_open(a->timeout, &a->comm);
  if (st != MOERT_OK) return run_failed(st);
  int status = 0;
  if (moert_comm_size(a->comm) != r->n)
    status = run_error("%d ranks were started, but MPI connects %d: was this "
                       "MPI's own mpirun used, or srun --mpi=pmix?",
                       r->n, moert_comm_size(a->comm));
  else if (moert_comm_rank(a->comm) != r->rank)
    status = run_error("this was started as rank %d, but is rank %d of MPI's: "
                       "were two launchers used?",
                       r->rank, moert_comm_rank(a->comm));
  else
    status = run_as_rank(verb, a);
  if (status) moert_comm_fail(a->comm, "its command has failed");
  moert_comm_close(a->comm);
  return status;
}

/* ---- the launcher -------------------------------------------------------- */

typedef struct Launch {
  MoertLocal *local;
  pid_t pids[MOST_RANKS]; /* 0: has ended */
  int n, left, status;
  double failed_at; /* 0: no rank has failed */
  char killed[160]; /* "rank 2 was killed by signal 9", the first that was */
} Launch;

static Launch *launched; /* for the signal handler */

static void kill_all(const Launch *l, int number) {
  for (int r = 0; r < l->n; r++)
    if (l->pids[r]) kill(l->pids[r], number);
}

static void forward(int number) {
  int before = errno;
  kill_all(launched, number);
  errno = before;
}

static void catch_signals(void) {
  static const int all[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2};
  struct sigaction a = {.sa_handler = forward, .sa_flags = SA_RESTART};
  for (size_t i = 0; i < COUNT_OF(all); i++)
    sigaction(all[i], &a, NULL);
}

static void default_signals(void) {
  static const int all[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2};
  for (size_t i = 0; i < COUNT_OF(all); i++)
    signal(all[i], SIG_DFL);
}

/* A rank has ended: `how` in words, where not well. */
static void note_end(Launch *l, int rank, int how) {
  char text[128];
  l->pids[rank] = 0;
  l->left--;
  if (WIFEXITED(how) && WEXITSTATUS(how) == 0) return;
  if (WIFSIGNALED(how))
    snprintf(text, sizeof text, "was killed by signal %d (%s)", WTERMSIG(how),
             strsignal(WTERMSIG(how)));
  else
    snprintf(text, sizeof text, "has ended with status %d", WEXITSTATUS(how));
  moert_local_lost(l->local, rank, text);
  if (l->failed_at != 0) return;
  l->failed_at = run_seconds();
  l->status = WIFEXITED(how) ? WEXITSTATUS(how) : EXIT_USER;
  if (WIFSIGNALED(how))
    snprintf(l->killed, sizeof l->killed, "rank %d %s", rank, text);
}

/* One of those that are left says which rank was killed, and where it was
 * waited for; where none does, it is said here. */
static void wait_for_all(Launch *l) {
  const struct timespec nap = {.tv_nsec = 20000000};
  while (l->left > 0) {
    int how;
    pid_t pid = waitpid(-1, &how, l->failed_at != 0 ? WNOHANG : 0);
    for (int r = 0; pid > 0 && r < l->n; r++)
      if (l->pids[r] == pid) note_end(l, r, how);
    if (pid == 0) nanosleep(&nap, NULL);
    if (l->failed_at != 0 && run_seconds() - l->failed_at > LINGER_S)
      kill_all(l, SIGKILL);
  }
  if (*l->killed && !moert_local_told(l->local)) run_error("%s", l->killed);
}

static int be_rank(Launch *l, int rank, const RunVerb *verb, RunArgs *a) {
  default_signals();
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL); /* the launcher's end is ours */
  run_speak_as(NULL, rank);
  MoertStatus st = moert_local_join(l->local, rank, a->timeout, &a->comm);
  if (st != MOERT_OK) return run_failed(st);
  int status = run_as_rank(verb, a);
  if (!status) moert_comm_close(a->comm);
  return status;
}

static int run_local(const Ranks *r, const RunVerb *verb, RunArgs *a) {
  Launch l = {.n = r->n, .left = r->n};
  MoertStatus st = moert_local_new(r->n, &l.local);
  if (st != MOERT_OK) return run_failed(st);
  fflush(NULL);
  launched = &l;
  catch_signals();
  for (int rank = 0; rank < r->n; rank++) {
    pid_t pid = fork();
    if (pid == 0) exit(be_rank(&l, rank, verb, a));
    if (pid < 0) {
      int status = run_error("cannot start rank %d: %s", rank, strerror(errno));
      l.n = rank;
      kill_all(&l, SIGKILL);
      return status;
    }
    l.pids[rank] = pid;
  }
  wait_for_all(&l);
  default_signals();
  moert_local_free(l.local);
  return l.status;
}

int ranks_run(const Ranks *r, const RunVerb *verb, RunArgs *a) {
  a->neighbours = r->neighbours;
  if (verb->alone) return verb->run(a);
  switch (r->by) {
  case RANKS_NONE: return verb->run(a);
  case RANKS_LOCAL: return run_local(r, verb, a);
  case RANKS_MPI: return run_mpi(r, verb, a);
  }
  return EXIT_INTERNAL;
}
