/* memory.c: what a device may touch, and which bytes are known.
 *
 * Each byte of device memory has a state: held by an allocation, set to a
 * value, freed. Device addresses are no addresses of the host, so a program
 * that mixes them up fails here as it does with a GPU. Freed memory is not
 * handed out again before all other memory was, and allocations are apart, so
 * that accesses beyond them or behind their end of life are seen. */
#include "async.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGN = 512, GAP = 512 };

/* ---- arena --------------------------------------------------------------- */

struct Chunk {
  struct Chunk *before;
  size_t used, size;
  _Alignas(64) uint8_t bytes[];
};

void *arena_new(Arena *a, size_t bytes) {
  struct Chunk *c = a->last;
  bytes = (bytes + 63) / 64 * 64;
  if (!c || c->size - c->used < bytes) {
    size_t size = bytes > 1 << 20 ? bytes : 1 << 20;
    c = aligned_alloc(64, sizeof *c + size);
    if (!c) abort();
    *c = (struct Chunk){.before = a->last, .size = size};
    a->last = c;
  }
  void *p = c->bytes + c->used;
  c->used += bytes;
  return memset(p, 0, bytes);
}

void arena_free(Arena *a) {
  while (a->last) {
    struct Chunk *c = a->last;
    a->last = c->before;
    free(c);
  }
}

void *arena_grow(Arena *a, const void *old, int *cap, size_t element) {
  int n = *cap;
  *cap = n ? 2 * n : 8;
  void *p = arena_new(a, (size_t)*cap * element);
  if (n) memcpy(p, old, (size_t)n * element);
  return p;
}

/* ---- regions and heaps --------------------------------------------------- */

static void *reserve(uint64_t size) {
  void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? NULL : p;
}

bool region_new(Region *r, uint64_t base, uint64_t size, bool races) {
  *r = (Region){.base = base,
                .size = size,
                .mem = reserve(size),
                .state = reserve(size)};
  if (!base) r->base = (uint64_t)(uintptr_t)r->mem;
  if (races) {
    r->readers = reserve(size / 2 * sizeof(Access));
    r->writers = reserve(size / 2 * sizeof(Access));
  }
  return r->mem && r->state && (!races || (r->readers && r->writers));
}

static bool is_free(const Heap *h, uint64_t at, uint64_t bytes) {
  if (at + bytes + GAP > h->region.base + h->region.size) return false;
  for (int k = 0; k < h->n; k++) {
    const Allocation *a = &h->all[k];
    if (!a->freed && at < a->at + a->bytes + GAP && a->at < at + bytes + GAP)
      return false;
  }
  return true;
}

/* Behind all others, and once those are at the end, the first place. */
static uint64_t find_place(Heap *h, uint64_t bytes) {
  if (!h->next) h->next = h->region.base + GAP;
  if (is_free(h, h->next, bytes)) return h->next;
  uint64_t at = h->region.base + GAP;
  if (is_free(h, at, bytes)) return at;
  for (int k = 0; k < h->n; k++) {
    at = (h->all[k].at + h->all[k].bytes + GAP + ALIGN - 1) / ALIGN * ALIGN;
    if (is_free(h, at, bytes)) return at;
  }
  return 0;
}

/* What is forgotten of freed allocations that lie where a new one will. */
static void forget(Heap *h, uint64_t at, uint64_t bytes) {
  int kept = 0;
  for (int k = 0; k < h->n; k++) {
    const Allocation *a = &h->all[k];
    if (!a->freed || a->at + a->bytes <= at || a->at >= at + bytes)
      h->all[kept++] = *a;
  }
  h->n = kept;
}

uint64_t heap_new(Heap *h, uint64_t bytes) {
  if (h->used + bytes > h->limit || h->used + bytes < bytes) return 0;
  uint64_t at = find_place(h, bytes);
  if (!at) return 0;
  forget(h, at, bytes);
  if (h->n == h->cap) {
    h->cap = h->cap ? 2 * h->cap : 64;
    h->all = realloc(h->all, (size_t)h->cap * sizeof *h->all);
  }
  h->all[h->n++] = (Allocation){at, bytes, false};
  h->next = (at + bytes + GAP + ALIGN - 1) / ALIGN * ALIGN;
  h->used += bytes;
  memset(h->region.state + (at - h->region.base), BYTE_HELD, bytes);
  return at;
}

bool heap_free(Heap *h, uint64_t at) {
  for (int k = 0; k < h->n; k++) {
    Allocation *a = &h->all[k];
    if (a->at != at || a->freed) continue;
    a->freed = true;
    h->used -= a->bytes;
    memset(h->region.state + (at - h->region.base), BYTE_FREED, a->bytes);
    return true;
  }
  return false;
}

void heap_explain(const Heap *h, uint64_t at, char *text, size_t n) {
  const Allocation *below = NULL;
  for (int k = 0; k < h->n; k++)
    if (h->all[k].at <= at && (!below || h->all[k].at >= below->at))
      below = &h->all[k];
  if (at - h->region.base >= h->region.size || !below)
    snprintf(text, n, "no memory of this device");
  else if (at - below->at < below->bytes)
    snprintf(text, n, "byte %llu of %llu that were %s",
             (unsigned long long)(at - below->at),
             (unsigned long long)below->bytes,
             below->freed ? "freed" : "allocated");
  else
    snprintf(text, n, "%llu bytes behind the end of %llu that were %s",
             (unsigned long long)(at - below->at - below->bytes),
             (unsigned long long)below->bytes,
             below->freed ? "freed" : "allocated");
}

/* n bytes have the bit, looked at eight at a time. */
static bool region_has(const uint8_t *state, uint64_t n, uint8_t bit) {
  uint64_t all = UINT64_MAX, eight;
  for (; n >= 8; n -= 8, state += 8) {
    memcpy(&eight, state, 8);
    all &= eight;
  }
  for (; n; n--)
    all &= UINT64_C(0x0101010101010101) * *state++;
  uint64_t bits = UINT64_C(0x0101010101010101) * bit;
  return (all & bits) == bits;
}

uint8_t *heap_bytes(Heap *h, uint64_t at, uint64_t n) {
  uint64_t offset = at - h->region.base;
  if (offset >= h->region.size || n > h->region.size - offset) return NULL;
  const uint8_t *state = h->region.state + offset;
  return region_has(state, n, BYTE_HELD) ? h->region.mem + offset : NULL;
}

void heap_set_state(Heap *h, uint64_t at, uint64_t n) {
  memset(h->region.state + (at - h->region.base), BYTE_HELD | BYTE_SET, n);
}

bool heap_is_set(const Heap *h, uint64_t at, uint64_t n) {
  return region_has(h->region.state + (at - h->region.base), n, BYTE_SET);
}

/* ---- accesses of kernels ------------------------------------------------- */

/* All of the bytes have these bits. */
static inline bool all_have(const uint8_t *state, int bytes, uint8_t bits) {
  uint64_t every = UINT64_C(0x0101010101010101) * bits, s = every;
  memcpy(&s, state, (size_t)(bytes > 8 ? 8 : bytes));
  if ((s & every) != every) return false;
  return bytes <= 8 || all_have(state + 8, bytes - 8, bits);
}

static bool any_has(const uint8_t *state, int bytes, uint8_t bit) {
  uint8_t all = 0;
  for (int k = 0; k < bytes; k++)
    all |= state[k];
  return all & bit;
}

typedef struct Place {
  uint8_t *mem, *state;
  uint64_t left; /* bytes from here to the end of what there is */
} Place;

static Place place_in(const Region *r, uint64_t address) {
  uint64_t offset = address - r->base;
  if (offset >= r->size) return (Place){0};
  return (Place){r->mem + offset, r->state + offset, r->size - offset};
}

/* Variables come first among the bytes, and last among the addresses, as they
 * are not all known when the others get theirs. */
uint64_t shared_offset(const Block *b, uint64_t address) {
  const Kernel *k = b->launch->kernel;
  uint64_t fixed = (uint64_t)k->shared_bytes, first = SHARED_END - fixed;
  uint64_t dynamic = (uint64_t)k->dynamic_at;
  if (address >= first)
    return address < SHARED_END ? address - first : UINT64_MAX;
  bool held =
      address >= dynamic && address - dynamic < b->launch->dynamic_bytes;
  return held ? address - dynamic + fixed : UINT64_MAX;
}

static Place find_shared(Block *b, uint64_t address) {
  uint64_t fixed = (uint64_t)b->launch->kernel->shared_bytes;
  uint64_t offset = shared_offset(b, address);
  if (offset == UINT64_MAX) return (Place){0};
  uint64_t end = offset < fixed ? fixed : b->shared_bytes;
  return (Place){b->shared + offset, b->shared_state + offset, end - offset};
}

static Place find_local(Warp *w, int lane, uint64_t address) {
  uint64_t size = (uint64_t)w->block->launch->kernel->local_bytes;
  uint64_t offset = address - SHARED_START, first = size * (uint64_t)lane;
  if (offset >= size) return (Place){0};
  return (Place){w->local + first + offset, w->local_state + first + offset,
                 size - offset};
}

static Space resolve(Space space, uint64_t *address) {
  if (space != SP_GENERIC) return space == SP_CONST ? SP_GLOBAL : space;
  if (*address - SHARED_WINDOW < WINDOW_SIZE) {
    *address -= SHARED_WINDOW;
    return SP_SHARED;
  }
  if (*address - LOCAL_WINDOW < WINDOW_SIZE) {
    *address -= LOCAL_WINDOW;
    return SP_LOCAL;
  }
  if (*address - PARAM_WINDOW < WINDOW_SIZE) {
    *address -= PARAM_WINDOW;
    return SP_PARAM;
  }
  return SP_GLOBAL;
}

static const char *const touch_names[] = {"load", "store", "atomic access",
                                          "copy"};

static uint8_t *refuse(Warp *w, const Ins *i, int lane, Space space,
                       uint64_t address, int bytes, Touch kind,
                       const Place *p) {
  static uint8_t harmless[64];
  static const char *const spaces[] = {
      [SP_GLOBAL] = "global", [SP_SHARED] = "shared", [SP_LOCAL] = "local"};
  char why[128] = "";
  bool held = p->mem && p->left >= (uint64_t)bytes;
  for (int k = 0; held && k < bytes; k++)
    held = p->state[k] & BYTE_HELD;
  if (address % (uint64_t)bytes) {
    fault(w, i, lane, CUDA_ERROR_MISALIGNED_ADDRESS,
          "misaligned %s of %d bytes of %s memory (0x%llx)",
          touch_names[kind], bytes, spaces[space],
          (unsigned long long)address);
    return harmless;
  }
  if (held) {
    bool coming = any_has(p->state, bytes, BYTE_COMING);
    fault(w, i, lane, CUDA_ERROR_LAUNCH_FAILED,
          "%s of %d bytes of %s memory %s (0x%llx)", touch_names[kind], bytes,
          spaces[space],
          coming ? "where a copy is still under way"
                 : "that nobody has written",
          (unsigned long long)address);
    return harmless;
  }
  if (space == SP_GLOBAL)
    heap_explain(w->block->launch->heap, address, why, sizeof why);
  else
    snprintf(why, sizeof why, "outside of its variables");
  bool freed = p->mem && p->state[0] & BYTE_FREED;
  fault(w, i, lane, CUDA_ERROR_ILLEGAL_ADDRESS,
        "%s %s of %d bytes of %s memory, %s (0x%llx)",
        freed ? "use after free:" : "out of bounds:", touch_names[kind], bytes,
        spaces[space], why, (unsigned long long)address);
  return harmless;
}

static uint8_t *param(Warp *w, const Ins *i, int lane, uint64_t address,
                      int bytes, Touch kind) {
  const Launch *l = w->block->launch;
  static uint8_t harmless[64];
  uint64_t size = (uint64_t)l->kernel->param_bytes;
  if (kind == TOUCH_LOAD && address < size && size - address >= (uint64_t)bytes)
    return memcpy(harmless, l->params + address, (size_t)bytes);
  fault(w, i, lane, CUDA_ERROR_ILLEGAL_ADDRESS,
        "%s of %d bytes at %llu of %llu bytes of parameters",
        touch_names[kind], bytes, (unsigned long long)address,
        (unsigned long long)size);
  return harmless;
}

uint8_t *touch(Warp *w, const Ins *i, int lane, Space space, uint64_t address,
               int bytes, Touch kind) {
  space = resolve(space, &address);
  bool in_heap = false;
  Place p = {0};
  switch (space) {
  case SP_GLOBAL:
    p = place_in(&w->block->launch->heap->region, address);
    in_heap = p.mem != NULL;
    if (!in_heap) p = place_in(&pinned.region, address);
    break;
  case SP_SHARED: p = find_shared(w->block, address); break;
  case SP_LOCAL: p = find_local(w, lane, address); break;
  case SP_PARAM: return param(w, i, lane, address, bytes, kind);
  case SP_GENERIC:
  case SP_REG:
  case SP_CONST: break;
  }
  bool writes = kind == TOUCH_STORE || kind == TOUCH_TAKE;
  uint8_t bits = writes ? BYTE_HELD : BYTE_HELD | BYTE_SET;
  if (p.left < (uint64_t)bytes || address % (uint64_t)bytes ||
      !all_have(p.state, bytes, bits))
    return refuse(w, i, lane, space, address, bytes, kind, &p);
  if (writes && space == SP_SHARED && any_has(p.state, bytes, BYTE_COMING))
    return refuse(w, i, lane, space, address, bytes, kind, &p);
  if (space == SP_SHARED)
    note_shared(w, i, lane, (uint32_t)(p.mem - w->block->shared), bytes, kind);
  if (space == SP_SHARED && w->block->units && writes)
    proxy_write(w, i, lane, (uint64_t)(p.mem - w->block->shared), bytes, kind);
  if (space == SP_GLOBAL && in_heap)
    note_global(w, i, lane, address - w->block->launch->heap->region.base,
                bytes, kind);
  if (kind == TOUCH_STORE)
    memset(p.state, BYTE_HELD | BYTE_SET, (size_t)bytes);
  return p.mem;
}
