/* map.c: hash maps with open addressing, at most three quarters full. Nothing
 * is ever removed. */
#include "base.h"

static uint64_t mix(uint64_t x) { /* the finaliser of splitmix64 */
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/* The slot that holds `key`, or the free one where it belongs. */
static MapSlot *find(const Map *m, uint64_t key) {
  uint32_t at = (uint32_t)mix(key) & (m->cap - 1);
  while (m->slots[at].value && m->slots[at].key != key)
    at = (at + 1) & (m->cap - 1);
  return &m->slots[at];
}

void *map_get(const Map *m, const void *key) {
  return m->cap ? find(m, (uint64_t)(uintptr_t)key)->value : NULL;
}

static void grow(Arena *a, Map *m) {
  Map bigger = {.cap = m->cap ? m->cap * 2 : 16, .len = m->len};
  bigger.slots = NEW_ARRAY(a, MapSlot, bigger.cap);
  for (uint32_t i = 0; i < m->cap; i++)
    if (m->slots[i].value) *find(&bigger, m->slots[i].key) = m->slots[i];
  *m = bigger;
}

void map_put(Arena *a, Map *m, const void *key, void *value) {
  assert(value);
  if ((m->len + 1) * 4ull > m->cap * 3ull) grow(a, m);
  MapSlot *s = find(m, (uint64_t)(uintptr_t)key);
  if (!s->value) m->len++;
  *s = (MapSlot){(uint64_t)(uintptr_t)key, value};
}

uint64_t hash_bytes(uint64_t seed, const void *data, size_t bytes) {
  const unsigned char *p = data;
  uint64_t h = seed ^ 0xcbf29ce484222325u; /* FNV-1a */
  for (size_t i = 0; i < bytes; i++)
    h = (h ^ p[i]) * 0x100000001b3u;
  return mix(h ^ bytes);
}
