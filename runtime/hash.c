/* hash.c: XXH64, the 64-bit hash by Yann Collet, with seed 0; `xxhsum -H64`
 * gives the same. Little-endian machines only, as all of the runtime. */
#include "rt.h"

#include <string.h>

static const uint64_t P1 = 0x9E3779B185EBCA87, P2 = 0xC2B2AE3D27D4EB4F,
                      P3 = 0x165667B19E3779F9, P4 = 0x85EBCA77C2B2AE63,
                      P5 = 0x27D4EB2F165667C5;

static uint64_t rotate(uint64_t x, int bits) {
  return x << bits | x >> (64 - bits);
}

static uint64_t read64(const unsigned char *p) {
  uint64_t x;
  memcpy(&x, p, sizeof x);
  return x;
}

static uint32_t read32(const unsigned char *p) {
  uint32_t x;
  memcpy(&x, p, sizeof x);
  return x;
}

static uint64_t mix(uint64_t acc, uint64_t word) {
  return rotate(acc + word * P2, 31) * P1;
}

static uint64_t merge(uint64_t h, uint64_t acc) {
  return (h ^ mix(0, acc)) * P1 + P4;
}

void rt_hash_start(RtHash *h) {
  *h = (RtHash){.acc = {P1 + P2, P2, 0, 0 - P1}};
}

static void stripe(RtHash *h, const unsigned char *p) {
  for (int i = 0; i < 4; i++)
    h->acc[i] = mix(h->acc[i], read64(p + 8 * i));
}

void rt_hash_add(RtHash *h, const void *data, size_t bytes) {
  const unsigned char *p = data, *end = p + bytes;
  h->total += bytes;
  if (h->n_rest) { /* fill up the stripe that was begun */
    size_t room = sizeof h->rest - h->n_rest;
    size_t take = bytes < room ? bytes : room;
    memcpy(h->rest + h->n_rest, p, take);
    h->n_rest += take;
    p += take;
    if (h->n_rest < sizeof h->rest) return;
    stripe(h, h->rest);
    h->n_rest = 0;
  }
  for (; end - p >= 32; p += 32)
    stripe(h, p);
  h->n_rest = (size_t)(end - p);
  if (h->n_rest) memcpy(h->rest, p, h->n_rest);
}

static uint64_t all_stripes(const RtHash *h) {
  const uint64_t *a = h->acc;
  uint64_t x =
      rotate(a[0], 1) + rotate(a[1], 7) + rotate(a[2], 12) + rotate(a[3], 18);
  for (int i = 0; i < 4; i++)
    x = merge(x, a[i]);
  return x;
}

uint64_t rt_hash_end(const RtHash *hash) {
  const unsigned char *p = hash->rest, *end = p + hash->n_rest;
  uint64_t h = hash->total >= 32 ? all_stripes(hash) : P5;
  h += hash->total;
  for (; end - p >= 8; p += 8)
    h = rotate(h ^ mix(0, read64(p)), 27) * P1 + P4;
  if (end - p >= 4) {
    h = rotate(h ^ read32(p) * P1, 23) * P2 + P3;
    p += 4;
  }
  for (; p < end; p++)
    h = rotate(h ^ *p * P5, 11) * P1;
  h = (h ^ h >> 33) * P2;
  h = (h ^ h >> 29) * P3;
  return h ^ h >> 32;
}

uint64_t rt_hash(const void *data, size_t bytes) {
  RtHash h;
  rt_hash_start(&h);
  rt_hash_add(&h, data, bytes);
  return rt_hash_end(&h);
}
