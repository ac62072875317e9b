/* convert.c: mov and cvt.
 *
 * A conversion reads each lane as a 64-bit integer or a double, which hold
 * every value of the narrower types, rounds once and writes. */
#include "cudasim.h"

#include <math.h>
#include <string.h>

/* ---- mov ----------------------------------------------------------------- */

static void ins_mov(Warp *w, const Ins *i) {
  uint8_t *d = dst(w, i, 0);
  const uint8_t *a = src(w, i, 1);
  size_t bytes = i->o[0].bytes;
  if (w->active == UINT32_MAX) {
    memmove(d, a, LANES * bytes);
    return;
  }
  for (uint32_t left = w->active; left; left &= left - 1) {
    size_t at = (size_t)__builtin_ctz(left) * bytes;
    memmove(d + at, a + at, bytes);
  }
}

static void ins_mov_pred(Warp *w, const Ins *i) {
  uint32_t *d = dst(w, i, 0);
  uint32_t a = *(const uint32_t *)src(w, i, 1);
  *d = (*d & ~w->active) | (a & w->active);
}

/* d = {a, b, ...}, the first in the lowest bits. */
static void ins_pack(Warp *w, const Ins *i) {
  uint64_t v[LANES] = {0}, part[LANES];
  int bits = 8 * i->o[0].bytes / (i->n - 1);
  for (int k = 1; k < i->n; k++) {
    get_wide(w, i, k, false, part);
    for (int l = 0; l < LANES; l++)
      v[l] |= (part[l] & (UINT64_MAX >> (64 - bits))) << bits * (k - 1);
  }
  put_wide(w, i, 0, v);
}

/* {a, b, ...} = s, which is the last operand. */
static void ins_unpack(Warp *w, const Ins *i) {
  uint64_t v[LANES];
  int n = i->n - 1, bits = i->vec;
  get_wide(w, i, n, false, v);
  for (int k = 0; k < n; k++) {
    put_wide(w, i, k, v);
    for (int l = 0; l < LANES; l++)
      v[l] = bits < 64 ? v[l] >> bits : 0;
  }
}

bool decode_mov(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  Type t = type_named(rest);
  int bytes = type_info[t].bytes;
  if (!t || bytes == 1 || type_info[t].kind == 'h')
    return unknown_modifier(d, s, rest);
  if (s->n_op != 2) return decode_error(d, s, "2 operands are needed");
  const Operand *to = &s->op[0], *from = &s->op[1];
  const Operand *vec = to->kind == OPD_VEC ? to : from;
  i->run = bytes ? ins_mov : ins_mov_pred;
  int sizes[2] = {bytes, bytes};
  if (vec->kind == OPD_VEC) {
    if (vec->n < 2 || bytes / vec->n < 2 || vec->n * (bytes / vec->n) != bytes)
      return decode_error(d, s, "no such vector");
    sizes[vec == to ? 0 : 1] = bytes / vec->n;
    i->run = vec == to ? ins_unpack : ins_pack;
    i->vec = (uint8_t)(8 * (bytes / vec->n));
  }
  if (to->kind != OPD_NAME && to->kind != OPD_VEC)
    return decode_error(d, s, "the result is no register");
  i->moves = i->run == ins_mov;
  return operand_add(d, i, s, to, sizes[0]) &&
         operand_add(d, i, s, from, sizes[1]);
}

/* ---- floats of 16 bits, and tf32 ----------------------------------------- */

static uint32_t bits_of(float x) {
  uint32_t b;
  memcpy(&b, &x, 4);
  return b;
}
static float float_of(uint32_t b) {
  float x;
  memcpy(&x, &b, 4);
  return x;
}

/* The upper bits of a float, `drop` bits less: to nearest even, to nearest
 * away from zero, or to zero. NaNs become `nan`. */
static uint32_t shorten(float x, int drop, Rounding how, uint32_t nan) {
  uint32_t b = bits_of(x), half = UINT32_C(1) << (drop - 1);
  if (x != x) return nan;
  if (how == RN) b += half - 1 + (b >> drop & 1);
  if (how == RNA) b += half;
  return b >> drop;
}

float bf16_to_float(uint16_t h) {
  return float_of((uint32_t)h << 16);
}

uint16_t float_to_bf16(float x) {
  return (uint16_t)shorten(x, 16, RN, 0x7fff);
}

float float_to_tf32(float x) {
  return float_of(shorten(x, 13, RNA, 0x3ffff) << 13);
}

float f16_to_float(uint16_t h) {
  int exponent = h >> 10 & 31, fraction = h & 1023;
  float x = exponent == 31 ? (fraction ? NAN : INFINITY)
            : exponent     ? ldexpf((float)(fraction + 1024), exponent - 25)
                           : ldexpf((float)fraction, -24);
  return h & 0x8000 ? -x : x;
}

/* To nearest even; what is rounded is counted in units of the result. */
static uint16_t float_to_f16(float x) {
  uint16_t sign = bits_of(x) >> 31 ? 0x8000 : 0;
  float a = fabsf(x);
  int e;
  if (x != x) return 0x7fff;
  if (a >= 65520) return sign | 0x7c00;
  frexpf(a, &e);
  if (a == 0 || e < -13) return sign | (uint16_t)nearbyintf(ldexpf(a, 24));
  int units = (int)nearbyintf(ldexpf(a, 11 - e)); /* 1024 ... 2048 */
  return sign | (uint16_t)(((e + 14) << 10) + units - 1024);
}

/* ---- reading and rounding ------------------------------------------------ */

static double to_double(Type t, uint64_t v) {
  double x;
  switch (t) {
  case TY_f32: return float_of((uint32_t)v);
  case TY_bf16: return bf16_to_float((uint16_t)v);
  case TY_f16: return f16_to_float((uint16_t)v);
  default: memcpy(&x, &v, 8); return x;
  }
}

static double to_whole(double x, Rounding how) {
  switch (how) {
  case RNI: return nearbyint(x);
  case RZI: return trunc(x);
  case RMI: return floor(x);
  case RPI: return ceil(x);
  default: return x;
  }
}

/* Values beyond the type become its ends, NaN becomes 0. */
static uint64_t float_to_int(double x, Type t) {
  int bits = 8 * type_info[t].bytes;
  double top = ldexp(1, type_info[t].kind == 's' ? bits - 1 : bits);
  if (x != x) return 0;
  if (type_info[t].kind == 's') {
    if (x >= top) return (UINT64_C(1) << (bits - 1)) - 1;
    if (x < -top) return 0 - (UINT64_C(1) << (bits - 1));
    return (uint64_t)(int64_t)x;
  }
  if (x >= top) return UINT64_MAX >> (64 - bits);
  return x <= -1 ? 0 : (uint64_t)x;
}

static uint64_t double_to(Type t, double x, Rounding how) {
  uint64_t out = 0;
  float f = (float)x; /* to nearest even */
  if (how == RZ && fabs((double)f) > fabs(x)) f = nextafterf(f, 0);
  switch (t) {
  case TY_f32: return bits_of(f);
  case TY_bf16: return shorten((float)x, 16, how, 0x7fff);
  case TY_f16: return float_to_f16((float)x);
  case TY_tf32: return (uint64_t)shorten((float)x, 13, how, 0x3ffff) << 13;
  default: memcpy(&out, &x, 8); return out;
  }
}

/* ---- cvt ----------------------------------------------------------------- */

static bool is_int(Type t) {
  return type_info[t].kind == 'u' || type_info[t].kind == 's';
}

/* Extended already by get_wide where the register has the type's size. */
static uint64_t cut(uint64_t v, Type t) {
  int unused = 64 - 8 * type_info[t].bytes;
  if (type_info[t].kind == 's')
    return (uint64_t)((int64_t)(v << unused) >> unused);
  return v << unused >> unused;
}

static uint64_t saturate_int(uint64_t v, Type from, Type to) {
  bool negative = type_info[from].kind == 's' && (int64_t)v < 0;
  int bits = 8 * type_info[to].bytes;
  if (type_info[to].kind == 'u') {
    uint64_t top = UINT64_MAX >> (64 - bits);
    return negative ? 0 : v > top ? top : v;
  }
  uint64_t top = (UINT64_C(1) << (bits - 1)) - 1;
  if (!negative) return v > top ? top : v;
  return (int64_t)v < -(int64_t)top - 1 ? ~top : v;
}

static uint64_t int_to_float(uint64_t v, const Ins *i) {
  bool is_signed = type_info[i->from].kind == 's';
  if (i->type == TY_f32)
    return bits_of(is_signed ? (float)(int64_t)v : (float)v);
  return double_to(TY_f64, is_signed ? (double)(int64_t)v : (double)v, RN);
}

static uint64_t convert(const Ins *i, uint64_t v) {
  Type from = (Type)i->from, to = (Type)i->type;
  if (is_int(from)) {
    v = cut(v, from);
    if (!is_int(to)) return int_to_float(v, i);
    return i->sat ? saturate_int(v, from, to) : cut(v, to);
  }
  double x = to_whole(to_double(from, v), (Rounding)i->mode);
  if (is_int(to)) return float_to_int(x, to);
  if (i->sat) x = x > 0 ? (x < 1 ? x : 1) : 0; /* NaN too */
  return double_to(to, x, (Rounding)i->mode);
}

static void ins_cvt(Warp *w, const Ins *i) {
  uint64_t v[LANES];
  get_wide(w, i, 1, false, v);
  for (uint32_t left = w->active; left; left &= left - 1) {
    int l = __builtin_ctz(left);
    v[l] = convert(i, v[l]);
  }
  put_wide(w, i, 0, v);
}

/* cvt.rn.bf16x2.f32 d, a, b: a in the upper half */
static void ins_cvt_pair(Warp *w, const Ins *i) {
  uint64_t a[LANES], b[LANES];
  Type half = i->type == TY_bf16x2 ? TY_bf16 : TY_f16;
  get_wide(w, i, 1, false, a);
  get_wide(w, i, 2, false, b);
  for (int l = 0; l < LANES; l++)
    a[l] = double_to(half, to_double(TY_f32, a[l]), (Rounding)i->mode) << 16 |
           double_to(half, to_double(TY_f32, b[l]), (Rounding)i->mode);
  put_wide(w, i, 0, a);
}

static const char *const rounding_names[] = {
    [R_NONE] = "",
    [RN] = "rn",   [RZ] = "rz",   [RNA] = "rna", [RNI] = "rni",
    [RZI] = "rzi", [RMI] = "rmi", [RPI] = "rpi"};

/* Whether PTX has this conversion, as far as it is known here. */
static bool cvt_fits(Rounding r, Type to, Type from, bool sat) {
  bool to_half = type_info[to].kind == 'h', from_float = !is_int(from);
  if (from == TY_tf32 || from == TY_bf16x2 || from == TY_f16x2) return false;
  if (type_info[from].kind == 'b' || type_info[to].kind == 'b') return false;
  if (!type_info[from].bytes || !type_info[to].bytes) return false;
  if (to == TY_tf32) return from == TY_f32 && (r == RNA || r == RN) && !sat;
  if (to_half)
    return from == TY_f32 && !sat &&
           (r == RN || (r == RZ && to != TY_f16 && to != TY_f16x2));
  if (is_int(to)) return from_float ? r >= RNI : r == R_NONE;
  if (!from_float) return r == RN && !sat;
  if (type_info[to].bytes < type_info[from].bytes) return r == RN || r == RZ;
  if (type_info[to].bytes > type_info[from].bytes)
    return r == R_NONE || (r == RN && sat);
  return r == R_NONE || r >= RNI;
}

bool decode_cvt(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  Str whole = rest;
  Rounding r = RPI;
  while (r && !take_modifier(&rest, rounding_names[r]))
    r--;
  i->mode = (uint8_t)r;
  i->sat = take_modifier(&rest, "sat");
  Type to = type_named(next_modifier(&rest)), from = type_named(rest);
  i->type = (uint8_t)to;
  i->from = (uint8_t)from;
  if (!cvt_fits(r, to, from, i->sat)) return unknown_modifier(d, s, whole);
  bool pair = to == TY_bf16x2 || to == TY_f16x2;
  i->run = pair ? ins_cvt_pair : ins_cvt;
  if (!operands_add(d, i, s, pair ? "www" : "**")) return false;
  if (d->refs[0].bytes < type_info[to].bytes ||
      d->refs[1].bytes < type_info[from].bytes)
    return decode_error(d, s, "a register is too narrow");
  return true;
}
