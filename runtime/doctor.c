/* doctor.c: what this machine has of what the runtime can use.
 *
 * Each probe looks for one thing and says what it has found, or what is missing
 * and what it would give. What is only used on demand is loaded as a session
 * would load it, so that the answer is the one a session gets. */
#include "gpu.h"

#include <string.h>
#include <unistd.h>

#define SAY(f, ...) snprintf((f)->text, sizeof (f)->text, __VA_ARGS__)

/* What the last error says behind this, or else another text. */
static const char *error_behind(const char *head, const char *otherwise) {
  size_t n = strlen(head);
  return strncmp(moert_error(), head, n) ? otherwise : moert_error() + n;
}

/* Fills `text`; whether it is there. `which` counts those of one kind. */
typedef bool Probe(int which, MoertFinding *out);

static bool cores(int which, MoertFinding *out) {
  long all = sysconf(_SC_NPROCESSORS_ONLN);
  int own = rt_cpu_cores();
  (void)which;
  SAY(out, "%d of %ld", own, all);
  return true;
}

static bool memory(int which, MoertFinding *out) {
  (void)which;
  int64_t available = rt_mem_available();
  double all =
      (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
  if (available < 0)
    SAY(out, "%.1f GB", all / 1e9);
  else
    SAY(out, "%.1f GB, %.1f GB of it and of swap available", all / 1e9,
        (double)available / 1e9);
  return true;
}

static bool feature(int which, MoertFinding *out) {
  bool found = rt_cpu_has(out->what) && rt_cpu_permit(out->what) == MOERT_OK;
  (void)which;
  SAY(out, "%s", found ? "the CPU has it" : "the CPU lacks it");
  return found;
}

static bool driver(int which, MoertFinding *out) {
  RtCuda c = {0};
  (void)which;
  MoertStatus st = rt_cuda_driver(&c);
  if (st == MOERT_OK)
    SAY(out, "for CUDA %d.%d", c.version / 1000, c.version % 1000 / 10);
  else
    SAY(out, "%s", error_behind("no CUDA driver: ", moert_error()));
  rt_cuda_unload(&c);
  return st == MOERT_OK;
}

static bool gpu(int which, MoertFinding *out) {
  RtCuda c = {0};
  MoertStatus st = rt_cuda_load(&c);
  bool more = st == MOERT_OK && which < rt_cuda_gpus(&c);
  if (more) st = rt_cuda_gpu(&c, which);
  char old[64] = "";
  if (more && c.gpu.arch < RT_OLDEST_SM)
    snprintf(old, sizeof old, "; too old: models run on GPUs from sm_%d on",
             RT_OLDEST_SM);
  if (more && st == MOERT_OK)
    SAY(out, "%s, sm_%d, %.1f GB, %d multiprocessors%s", c.gpu.name, c.gpu.arch,
        (double)c.gpu.bytes / 1e9, c.gpu.multiprocessors, old);
  else
    SAY(out, "%s", error_behind("no GPU: ", "no driver for it"));
  rt_cuda_unload(&c);
  return more && st == MOERT_OK;
}

static bool blas(int which, MoertFinding *out) {
  RtCuda c = {0};
  (void)which;
  MoertStatus st = rt_cublaslt_load(&c);
  if (st == MOERT_OK)
    SAY(out, "version %zu", c.lt.cublasLtGetVersion());
  else
    SAY(out, "%s", moert_error());
  rt_cuda_unload(&c);
  return st == MOERT_OK;
}

static bool nccl(int which, MoertFinding *out) {
  RtCuda c = {0};
  (void)which;
  MoertStatus st = rt_nccl_load(&c);
  int v = c.nccl_version;
  if (st == MOERT_OK)
    SAY(out, "version %d.%d.%d", v / 10000, v % 10000 / 100, v % 100);
  else
    SAY(out, "%s", moert_error());
  rt_cuda_unload(&c);
  return st == MOERT_OK;
}

static bool mpi(int which, MoertFinding *out) {
  (void)which;
  MoertStatus st = rt_mpi_check();
  SAY(out, "%s", st == MOERT_OK ? "its plug-in loads" : moert_error());
  return st == MOERT_OK;
}

/* One row a thing. */
static const struct Row {
  const char *what, *gives;
  Probe *probe;
  bool several; /* as many as there are */
} rows[] = {
    {"cores", "", cores, false},
    {"memory", "", memory, false},
    {"avx2", "vectors of 8 floats", feature, false},
    {"avx512f", "vectors of 16 floats", feature, false},
    {"avx512bf16", "products in bf16 that are faster than those in f32",
     feature, false},
    {"amx-bf16", "products in bf16 by tiles, several times as fast", feature,
     false},
    {"CUDA driver", "models on NVIDIA's GPUs", driver, false},
    {"GPU", "models with --device=cuda", gpu, true},
    {"cuBLASLt", "matrix products on GPUs", blas, false},
    {"NCCL", "ranks on GPUs, one each", nccl, false},
    {"MPI", "ranks on several machines, by mpirun or srun", mpi, false},
};

int moert_doctor(MoertFinding *out, int cap) {
  int n = 0;
  for (size_t i = 0; i < COUNT_OF(rows); i++)
    for (int k = 0; n < cap; k++) {
      out[n] = (MoertFinding){.what = rows[i].what, .gives = rows[i].gives};
      out[n].found = rows[i].probe(k, &out[n]);
      bool is_end = k > 0 && !out[n].found; /* behind the last of several */
      n += !is_end;
      if (is_end || !rows[i].several || !out[n - 1].found) break;
    }
  return n;
}
