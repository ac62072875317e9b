/* vec.c: growing arrays in an arena. */
#include "base.h"

#include <string.h>

void vec_grow(Arena *a, void **data, uint32_t *cap, uint32_t len,
              size_t item_bytes) {
  if (len < *cap) return;
  if (len > UINT32_MAX / 2) internal_error("a list of more than 2^31 items");
  uint32_t grown = *cap ? *cap * 2 : 4;
  void *to = arena_alloc(a, grown * item_bytes);
  if (len) memcpy(to, *data, len * item_bytes);
  *data = to;
  *cap = grown;
}
