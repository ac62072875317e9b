/* model.c: opening a compiled model, and the dtype table.
 *
 * dlopen trusts what it maps: a truncated library ends the process with SIGBUS.
 * So the file's own headers are checked against its size beforehand. */
#include "cu.h"
#include "rt.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <oneapi/dnnl/dnnl_types.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const RtDtype rt_dtype[MOERT_DTYPE_COUNT] = {
#define DT(name, bytes, kind, llvm, onednn, cuda, nccl, safetensors, sums,   \
           tol)                                                              \
  [MOERT_##name] = {#name, safetensors, bytes, RT_##kind, onednn, cuda,      \
                    nccl, MOERT_##sums},
#include "dtypes.def"
#undef DT
};

int64_t rt_elements(int rank, const int64_t *dims) {
  int64_t n = 1;
  for (int i = 0; i < rank; i++)
    n *= dims[i];
  return n;
}

/* A float is the upper part of a wider one's pattern: bf16 of f32. */
double rt_load(int dtype, const void *data) {
  const RtDtype *d = &rt_dtype[dtype];
  uint64_t bits = 0;
  memcpy(&bits, data, (size_t)d->bytes);
  if (d->kind == RT_INT) return (double)(int32_t)bits;
  if (d->kind != RT_FLOAT) return (double)bits;
  if (d->bytes == 8) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
  }
  uint32_t word = (uint32_t)bits << (32 - 8 * d->bytes);
  float x;
  memcpy(&x, &word, sizeof x);
  return (double)x;
}

void rt_store(int dtype, void *data, double value) {
  const RtDtype *d = &rt_dtype[dtype];
  uint64_t bits;
  if (d->kind == RT_INT) {
    bits = (uint64_t)(int64_t)value;
  } else if (d->kind != RT_FLOAT) {
    bits = (uint64_t)value;
  } else if (d->bytes == 8) {
    memcpy(&bits, &value, sizeof bits);
  } else {
    float x = (float)value;
    uint32_t word;
    memcpy(&word, &x, sizeof word);
    if (d->bytes == 2) /* round to nearest even */
      word = (word + 0x7fff + (word >> 16 & 1)) >> 16;
    bits = word;
  }
  memcpy(data, &bits, (size_t)d->bytes);
}

/* Whether the parts that an ELF file's header promises are there. */
static MoertStatus check_elf(int fd, const char *path) {
  struct stat info;
  RT_TRY(RT_SYS(fstat(fd, &info), path));
  if (!S_ISREG(info.st_mode))
    return rt_fail(MOERT_BAD_DATA, "%s: not a file", path);
  Elf64_Ehdr h = {0};
  ssize_t got = pread(fd, &h, sizeof h, 0);
  if (got < (ssize_t)sizeof h || memcmp(h.e_ident, ELFMAG, SELFMAG) != 0 ||
      h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_type != ET_DYN)
    return rt_fail(MOERT_BAD_DATA, "%s: not a compiled model", path);
  /* The section table is the last thing in the file. */
  uint64_t end = h.e_shoff + (uint64_t)h.e_shnum * h.e_shentsize;
  if (end > (uint64_t)info.st_size)
    return rt_fail(MOERT_BAD_DATA, "%s: truncated: %lld of %llu bytes", path,
                   (long long)info.st_size, (unsigned long long)end);
  return MOERT_OK;
}

static MoertStatus check_file(const char *path) {
  int fd = -1;
  RT_TRY(RT_SYS(fd = open(path, O_RDONLY | O_CLOEXEC), path));
  MoertStatus st = check_elf(fd, path);
  close(fd);
  return st;
}

MoertStatus rt_cpu_features(const MoertDesc *d) {
  char missing[512] = "";
  size_t used = 0;
  int n = 0;
  for (int i = 0; i < d->n_features; i++) {
    if (rt_cpu_has(d->features[i])) continue;
    int w = snprintf(missing + used, sizeof missing - used, "%s%s",
                     n++ ? ", " : "", d->features[i]);
    if (w > 0 && used + (size_t)w < sizeof missing) used += (size_t)w;
  }
  if (n == 0) return MOERT_OK;
  return rt_fail(MOERT_UNSUPPORTED,
                 "compiled for CPU features that this machine lacks: %s; "
                 "compile it again here, or with --mcpu=x86-64-v3",
                 missing);
}

const MoertDesc *rt_program(const MoertModel *m, MoertDevice device) {
  const MoertDesc *d = m->desc;
  while (d && d->device != (int32_t)device)
    d = d->next;
  return d;
}

static MoertStatus check_desc(const MoertDesc *d, const char *path) {
  if (!d || d->magic != MOERT_MAGIC)
    return rt_fail(MOERT_BAD_DATA, "%s: not a compiled model", path);
  if (d->abi_version != MOERT_ABI_VERSION)
    return rt_fail(MOERT_UNSUPPORTED,
                   "%s: compiled for version %u of the runtime, this one is "
                   "version %u; compile it again",
                   path, (unsigned)d->abi_version, (unsigned)MOERT_ABI_VERSION);
  if (d->device != MOERT_CPU &&
      (d->device != MOERT_CUDA || !d->ptx || !d->arch))
    return rt_fail(MOERT_BAD_DATA, "%s: a program for no device", path);
  return MOERT_OK;
}

/* One that runs on CPUs alone can be told at once that this is none for it. */
static MoertStatus check_library(const MoertDesc *d, const char *path) {
  RT_TRY(check_desc(d, path));
  for (const MoertDesc *next = d->next; next; next = next->next)
    RT_TRY(check_desc(next, path));
  if (d->next || d->device != MOERT_CPU) return MOERT_OK;
  MoertStatus st = rt_cpu_features(d);
  return st == MOERT_OK ? st : rt_fail_prefix(st, "%s: ", path);
}

MoertStatus moert_open(const char *path, MoertModel **out_model) {
  *out_model = NULL;
  RT_TRY(check_file(path));
  /* A name without a slash would be looked for elsewhere. */
  char *full = realpath(path, NULL);
  RT_TRY(RT_SYS(full ? 0 : -1, path));
  void *library = dlopen(full, RTLD_NOW | RTLD_LOCAL);
  free(full);
  if (!library)
    return rt_fail(MOERT_BAD_DATA, "%s: not a compiled model: %s", path,
                   dlerror());
  MoertModel *m = NULL;
  MoertStatus st;
  const MoertDesc *d = dlsym(library, "moert_model");
  RT_TRYGOTO(check_library(d, path), st, fail);
  RT_TRYGOTO(RT_NEW(&m, 1), st, fail);
  *m = (MoertModel){library, d};
  *out_model = m;
  return MOERT_OK;
fail:
  dlclose(library);
  return st;
}

void moert_close(MoertModel *model) {
  if (!model) return;
  dlclose(model->library);
  free(model);
}

const MoertDesc *moert_desc(const MoertModel *model) {
  return model->desc;
}
