/* arena.c: bump allocation in blocks.
 *
 * A block starts with its header; requests are rounded up to 16 bytes. Blocks
 * come from calloc, so that memory is zero without touching pages that nobody
 * uses. A request larger than a block gets a block of its own behind the
 * current one, which stays in use. */
#include "base.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 16, FIRST_BLOCK = 16 << 10, LARGEST_BLOCK = 1 << 20 };

struct ArenaBlock {
  ArenaBlock *next;
  size_t size, used; /* bytes after the header */
};

enum { HEADER = (sizeof(ArenaBlock) + ALIGN - 1) / ALIGN * ALIGN };

static ArenaBlock *new_block(size_t size) {
  ArenaBlock *b = size <= SIZE_MAX - HEADER ? calloc(1, HEADER + size) : NULL;
  if (!b) internal_error("out of memory: %zu bytes", size);
  b->size = size;
  return b;
}

static void *take(ArenaBlock *b, size_t bytes) {
  void *p = (char *)b + HEADER + b->used;
  b->used += bytes;
  return p;
}

void *arena_alloc(Arena *a, size_t bytes) {
  if (bytes > SIZE_MAX / 2) internal_error("out of memory: %zu bytes", bytes);
  bytes = bytes ? (bytes + ALIGN - 1) / ALIGN * ALIGN : ALIGN;
  a->used_bytes += bytes;
  ArenaBlock *head = a->head;
  if (head && head->size - head->used >= bytes) return take(head, bytes);
  if (head && bytes > LARGEST_BLOCK / 4) {
    ArenaBlock *own = new_block(bytes);
    own->next = head->next;
    head->next = own;
    return take(own, bytes);
  }
  size_t size = head ? head->size * 2 : FIRST_BLOCK;
  if (size > LARGEST_BLOCK) size = LARGEST_BLOCK;
  if (size < bytes) size = bytes;
  a->head = new_block(size);
  a->head->next = head;
  return take(a->head, bytes);
}

void *arena_copy(Arena *a, const void *src, size_t bytes) {
  void *p = arena_alloc(a, bytes);
  if (bytes) memcpy(p, src, bytes);
  return p;
}

void arena_reset(Arena *a) {
  for (ArenaBlock *b = a->head, *next; b; b = next) {
    next = b->next;
    free(b);
  }
  *a = (Arena){0};
}
