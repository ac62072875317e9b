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

/* Whole stripes of 32 bytes; returns the hash so far and moves *p. */
static uint64_t stripes(const unsigned char **p, const unsigned char *end) {
  uint64_t a[4] = {P1 + P2, P2, 0, 0 - P1};
  const unsigned char *q = *p;
  for (; end - q >= 32; q += 32)
    for (int i = 0; i < 4; i++) a[i] = mix(a[i], read64(q + 8 * i));
  *p = q;
  uint64_t h = rotate(a[0], 1) + rotate(a[1], 7) + rotate(a[2], 12) +
               rotate(a[3], 18);
  for (int i = 0; i < 4; i++) h = merge(h, a[i]);
  return h;
}

uint64_t rt_hash(const void *data, size_t bytes) {
  const unsigned char *p = data, *end = p + bytes;
  uint64_t h = bytes >= 32 ? stripes(&p, end) : P5;
  h += bytes;
  for (; end - p >= 8; p += 8)
    h = rotate(h ^ mix(0, read64(p)), 27) * P1 + P4;
  if (end - p >= 4) {
    h = rotate(h ^ read32(p) * P1, 23) * P2 + P3;
    p += 4;
  }
  for (; p < end; p++) h = rotate(h ^ *p * P5, 11) * P1;
  h = (h ^ h >> 33) * P2;
  h = (h ^ h >> 29) * P3;
  return h ^ h >> 32;
}
