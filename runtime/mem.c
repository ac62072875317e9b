/* mem.c: a session's memory, allocated once, counted to the byte.
 *
 * Large blocks are aligned to huge pages and ask for them: fewer TLB misses
 * when a step walks through all parameters. Every page is touched at once, so
 * that memory does not run out in the middle of training. */
#include "rt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CACHE_LINE = 64, HUGE_PAGE = 2 << 20 };

/* By all threads of the team: new pages cost more than what is written. */
static void fill(char *data, int64_t bytes, int value) {
  int64_t pieces = (bytes + HUGE_PAGE - 1) / HUGE_PAGE;
#pragma omp parallel for schedule(dynamic) if (pieces > 1)
  for (int64_t i = 0; i < pieces; i++) {
    int64_t left = bytes - i * HUGE_PAGE;
    memset(data + i * HUGE_PAGE, value,
           (size_t)(left < HUGE_PAGE ? left : HUGE_PAGE));
  }
}

MoertStatus rt_mem_new(RtMem *m, int64_t bytes, bool poison, void **out_data) {
  *out_data = NULL;
  if (bytes == 0) return MOERT_OK;
  struct RtBlock *more =
      realloc(m->blocks, (size_t)(m->n_blocks + 1) * sizeof *more);
  if (!more) return rt_fail(MOERT_NO_MEMORY, "out of memory");
  m->blocks = more;
  bool huge = bytes >= 2 * (int64_t)HUGE_PAGE;
  void *data = NULL;
  if (posix_memalign(&data, huge ? HUGE_PAGE : CACHE_LINE, (size_t)bytes))
    return rt_fail(MOERT_NO_MEMORY, "out of memory: %lld bytes wanted",
                   (long long)bytes);
  if (huge) /* only advice: no failure where there are none */
    madvise(data, (size_t)(bytes / HUGE_PAGE) * HUGE_PAGE, MADV_HUGEPAGE);
  fill(data, bytes, poison ? 0xff : 0);
  m->blocks[m->n_blocks++] = (struct RtBlock){data, bytes};
  m->bytes += bytes;
  *out_data = data;
  return MOERT_OK;
}

void rt_mem_free(RtMem *m) {
  for (int i = 0; i < m->n_blocks; i++)
    free(m->blocks[i].data);
  free(m->blocks);
  *m = (RtMem){0};
}

int64_t rt_mem_available(void) {
  FILE *f = fopen("/proc/meminfo", "r");
  if (!f) return -1;
  char line[128];
  int64_t kib, available = -1, swap = 0;
  while (fgets(line, sizeof line, f)) {
    if (sscanf(line, "MemAvailable: %ld kB", &kib) == 1) available = kib;
    if (sscanf(line, "SwapFree: %ld kB", &kib) == 1) swap = kib;
  }
  fclose(f);
  return available < 0 ? -1 : (available + swap) * 1024;
}

MoertStatus rt_mem_check(int64_t bytes) {
  int64_t available = rt_mem_available();
  if (available < 0) return MOERT_OK; /* the allocation will tell */
  if (bytes <= available) return MOERT_OK;
  return rt_fail(MOERT_NO_MEMORY,
                 "the model needs %.2f GB of memory, %.2f GB are available",
                 (double)bytes / 1e9, (double)available / 1e9);
}
