/* alu.c: the instructions that ins.def defines by an expression, as functions
 * over 32 lanes that the C compiler makes vector code of, and the table itself.
 *
 * All lanes are computed, also those that are not active: nothing here traps.
 * Only active ones are written. */
#include "cudasim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

__extension__ typedef unsigned __int128 Unsigned128;
__extension__ typedef __int128 Signed128;

typedef uint16_t C_u16, C_b16;
typedef uint32_t C_u32, C_b32;
typedef uint64_t C_u64, C_b64;
typedef int16_t C_s16;
typedef int32_t C_s32;
typedef int64_t C_s64;
typedef float C_f32;
typedef double C_f64;

/* Operand letters of InsRow, as text. */
#define L_u16 "h"
#define L_s16 "h"
#define L_b16 "h"
#define L_u32 "w"
#define L_s32 "w"
#define L_b32 "w"
#define L_f32 "w"
#define L_u64 "q"
#define L_s64 "q"
#define L_b64 "q"
#define L_f64 "q"

#define UNSIGNED(F, ...) F(u16, __VA_ARGS__) F(u32, __VA_ARGS__) \
  F(u64, __VA_ARGS__)
#define SIGNED(F, ...) F(s16, __VA_ARGS__) F(s32, __VA_ARGS__) \
  F(s64, __VA_ARGS__)
#define INTS(F, ...) UNSIGNED(F, __VA_ARGS__) SIGNED(F, __VA_ARGS__)
#define HALF_INTS(F, ...) F(u16, __VA_ARGS__) F(s16, __VA_ARGS__)
#define WORD_INTS(F, ...) F(u32, __VA_ARGS__) F(s32, __VA_ARGS__)
#define BITS(F, ...) F(b16, __VA_ARGS__) F(b32, __VA_ARGS__) \
  F(b64, __VA_ARGS__)
#define FLOATS(F, ...) F(f32, __VA_ARGS__) F(f64, __VA_ARGS__)

/* ---- helpers of expressions ---------------------------------------------- */

/* Byte i of the result is the byte that digit i of `how` chooses. */
static uint32_t permute(uint64_t bytes, uint32_t how) {
  uint32_t out = 0;
  for (int i = 0; i < 4; i++) {
    uint32_t digit = how >> 4 * i & 15;
    uint32_t byte = bytes >> 8 * (digit & 7) & 255;
    if (digit & 8) byte = byte & 128 ? 255 : 0;
    out |= byte << 8 * i;
  }
  return out;
}

static uint64_t ones(uint32_t n) {
  return n > 63 ? UINT64_MAX : (UINT64_C(1) << n) - 1;
}

static uint64_t field(uint64_t x, uint32_t at, uint32_t n, uint32_t bits) {
  at &= 255;
  return at >= bits ? 0 : x >> at & ones(n & 255);
}

/* Bits beyond the top repeat the sign. */
static int64_t signed_field(int64_t x, uint32_t at, uint32_t n,
                            uint32_t bits) {
  at &= 255;
  n &= 255;
  if (!n) return 0;
  int64_t shifted = x >> (at >= bits ? bits - 1 : at);
  if (n >= 64) return shifted;
  uint64_t sign = UINT64_C(1) << (n - 1);
  return (int64_t)((((uint64_t)shifted & ones(n)) ^ sign) - sign);
}

static uint64_t insert(uint64_t x, uint64_t into, uint32_t at, uint32_t n,
                       uint32_t bits) {
  at &= 255;
  if (at >= bits) return into;
  uint64_t mask = ones(n & 255) << at;
  return (into & ~mask) | (x << at & mask);
}

/* Any function of three bits, by its truth table. */
static uint32_t lookup3(uint32_t x, uint32_t y, uint32_t z, uint32_t table) {
  uint32_t out = 0;
  for (uint32_t k = 0; k < 8; k++)
    if (table >> k & 1)
      out |= (k & 4 ? x : ~x) & (k & 2 ? y : ~y) & (k & 1 ? z : ~z);
  return out;
}

static uint64_t reverse(uint64_t x) {
  uint64_t out = 0;
  for (int i = 0; i < 64; i++)
    out |= (x >> i & 1) << (63 - i);
  return out;
}

/* -0 is smaller than 0; of a number and a NaN it is the number. */
static double smaller(double x, double y) {
  if (x != x) return y != y ? (double)NAN : y;
  if (y != y) return x;
  if (x == y) return signbit(x) ? x : y;
  return x < y ? x : y;
}

/* ---- the functions ------------------------------------------------------- */

#define PUT(type)                                              \
  do {                                                         \
    C_##type *d = dst(w, i, 0);                                \
    if (w->active == UINT32_MAX) {                             \
      memcpy(d, v, sizeof v);                                  \
    } else {                                                   \
      for (int l = 0; l < LANES; l++)                          \
        if (w->active >> l & 1) d[l] = v[l];                   \
    }                                                          \
  } while (0)

#define PUT_PRED(truth)                                        \
  do {                                                         \
    uint32_t *d = dst(w, i, 0);                                \
    *d = (*d & ~w->active) | ((truth) & w->active);            \
  } while (0)

#define S1(id, name, types, ...) types(S1_FN, id, __VA_ARGS__)
#define S1_FN(t, id, ...) M1(id##_##t, "", t, t, __VA_ARGS__)
#define S2(id, name, types, ...) types(S2_FN, id, __VA_ARGS__)
#define S2_FN(t, id, ...) M2(id##_##t, "", t, t, t, __VA_ARGS__)
#define S3(id, name, types, ...) types(S3_FN, id, __VA_ARGS__)
#define S3_FN(t, id, ...) M3(id##_##t, "", t, t, t, t, __VA_ARGS__)

#define M1(id, name, t, tx, ...)                               \
  static void ins_##id(Warp *w, const Ins *i) {                \
    typedef C_##t T;                                           \
    const C_##tx *a = src(w, i, 1);                            \
    T v[LANES];                                                \
    for (int l = 0; l < LANES; l++) {                          \
      const C_##tx x = a[l];                                   \
      v[l] = (T)(__VA_ARGS__);                                 \
    }                                                          \
    PUT(t);                                                    \
  }
#define M2(id, name, t, tx, ty, ...)                           \
  static void ins_##id(Warp *w, const Ins *i) {                \
    typedef C_##t T;                                           \
    const C_##tx *a = src(w, i, 1);                            \
    const C_##ty *b = src(w, i, 2);                            \
    T v[LANES];                                                \
    for (int l = 0; l < LANES; l++) {                          \
      const C_##tx x = a[l];                                   \
      const C_##ty y = b[l];                                   \
      v[l] = (T)(__VA_ARGS__);                                 \
    }                                                          \
    PUT(t);                                                    \
  }
#define M3(id, name, t, tx, ty, tz, ...)                       \
  static void ins_##id(Warp *w, const Ins *i) {                \
    typedef C_##t T;                                           \
    const C_##tx *a = src(w, i, 1);                            \
    const C_##ty *b = src(w, i, 2);                            \
    const C_##tz *c = src(w, i, 3);                            \
    T v[LANES];                                                \
    for (int l = 0; l < LANES; l++) {                          \
      const C_##tx x = a[l];                                   \
      const C_##ty y = b[l];                                   \
      const C_##tz z = c[l];                                   \
      v[l] = (T)(__VA_ARGS__);                                 \
    }                                                          \
    PUT(t);                                                    \
  }
#define M4(id, name, t, tx, ty, tz, tu, ...)                   \
  static void ins_##id(Warp *w, const Ins *i) {                \
    typedef C_##t T;                                           \
    const C_##tx *a = src(w, i, 1);                            \
    const C_##ty *b = src(w, i, 2);                            \
    const C_##tz *c = src(w, i, 3);                            \
    const C_##tu *e = src(w, i, 4);                            \
    T v[LANES];                                                \
    for (int l = 0; l < LANES; l++) {                          \
      const C_##tx x = a[l];                                   \
      const C_##ty y = b[l];                                   \
      const C_##tz z = c[l];                                   \
      const C_##tu u = e[l];                                   \
      v[l] = (T)(__VA_ARGS__);                                 \
    }                                                          \
    PUT(t);                                                    \
  }
#define CMP(id, name, types, ...) types(CMP_FN, id, __VA_ARGS__)
#define CMP_FN(t, id, ...)                                     \
  static void setp_##id##_##t(Warp *w, const Ins *i) {         \
    const C_##t *a = src(w, i, 1), *b = src(w, i, 2);          \
    uint32_t truth = 0;                                        \
    for (int l = 0; l < LANES; l++) {                          \
      const C_##t x = a[l], y = b[l];                          \
      truth |= (uint32_t)(__VA_ARGS__) << l;                   \
    }                                                          \
    PUT_PRED(truth);                                           \
  }
#define SEL(name, types) types(SEL_FN, 0)
#define SEL_FN(t, unused)                                      \
  static void selp_##t(Warp *w, const Ins *i) {                \
    const C_##t *a = src(w, i, 1), *b = src(w, i, 2);          \
    const uint32_t p = *(const uint32_t *)src(w, i, 3);        \
    C_##t v[LANES];                                            \
    for (int l = 0; l < LANES; l++)                            \
      v[l] = p >> l & 1 ? a[l] : b[l];                         \
    PUT(t);                                                    \
  }
#define PRED(id, name, operands, ...)                          \
  static void ins_##id(Warp *w, const Ins *i) {                \
    const uint32_t x = *(const uint32_t *)src(w, i, 1);        \
    const uint32_t y = *(const uint32_t *)src(w, i, i->n - 1); \
    (void)y;                                                   \
    PUT_PRED(__VA_ARGS__);                                     \
  }
#define FAMILY(name)
#include "ins.def"
#include "ins_undef.h"

/* ---- the table ----------------------------------------------------------- */

static InsRow rows[] = {
#define ROW_S1(t, id, name) {name "." #t, L_##t L_##t, ins_##id##_##t, NULL},
#define ROW_S2(t, id, name) \
  {name "." #t, L_##t L_##t L_##t, ins_##id##_##t, NULL},
#define ROW_S3(t, id, name) \
  {name "." #t, L_##t L_##t L_##t L_##t, ins_##id##_##t, NULL},
#define ROW_CMP(t, id, name) \
  {name "." #t, "p" L_##t L_##t, setp_##id##_##t, NULL},
#define ROW_SEL(t, name) {name "." #t, L_##t L_##t L_##t "p", selp_##t, NULL},
#define S1(id, name, types, ...) types(ROW_S1, id, name)
#define S2(id, name, types, ...) types(ROW_S2, id, name)
#define S3(id, name, types, ...) types(ROW_S3, id, name)
#define M1(id, name, t, tx, ...) {name, L_##t L_##tx, ins_##id, NULL},
#define M2(id, name, t, tx, ty, ...) \
  {name, L_##t L_##tx L_##ty, ins_##id, NULL},
#define M3(id, name, t, tx, ty, tz, ...) \
  {name, L_##t L_##tx L_##ty L_##tz, ins_##id, NULL},
#define M4(id, name, t, tx, ty, tz, tu, ...) \
  {name, L_##t L_##tx L_##ty L_##tz L_##tu, ins_##id, NULL},
#define CMP(id, name, types, ...) types(ROW_CMP, id, name)
#define SEL(name, types) types(ROW_SEL, name)
#define PRED(id, name, operands, ...) {name, operands, ins_##id, NULL},
#define FAMILY(name) {#name, NULL, NULL, decode_##name},
#include "ins.def"
};

enum { ROWS = sizeof rows / sizeof *rows };

static int by_name(const void *a, const void *b) {
  return strcmp(((const InsRow *)a)->name, ((const InsRow *)b)->name);
}

static const InsRow *row_named(Str name) {
  char text[64];
  if (name.n >= (int)sizeof text) return NULL;
  memcpy(text, name.at, (size_t)name.n);
  text[name.n] = 0;
  InsRow key = {.name = text};
  return bsearch(&key, rows, ROWS, sizeof *rows, by_name);
}

const InsRow *ins_row(Str name) {
  static bool sorted;
  if (!sorted) qsort(rows, ROWS, sizeof *rows, by_name);
  sorted = true;
  const InsRow *exact = row_named(name);
  if (exact) return exact;
  for (int n = 0; n < name.n; n++)
    if (name.at[n] == '.') return row_named((Str){name.at, n});
  return NULL;
}
