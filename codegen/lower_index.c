/* lower_index.c: indices within vector loops.
 *
 * An index is uniform over the lanes, regular (base + stride * lane) or any i32
 * lanes. Arithmetic keeps it as regular as it can: what a vector load may read
 * at once is decided here. */
#include "codegen.h"

Ix lw_ix(KVal *base) {
  return (Ix){.base = base};
}
Ix lw_ix_c(Lower *l, int64_t number) {
  return lw_ix(kb_index(l->b, number));
}
Ix lw_ix_lanes(KVal *base) {
  return (Ix){.base = base, .stride = 1};
}

static bool is_uniform(Ix x) {
  return x.stride == 0 && !x.vec;
}

bool lw_uniform(const Ix *at, int n) {
  for (int i = 0; i < n; i++)
    if (!is_uniform(at[i])) return false;
  return true;
}

bool lw_same(const Ix *x, const Ix *y, int n) {
  for (int i = 0; i < n; i++)
    if (x[i].base != y[i].base || x[i].stride != y[i].stride ||
        x[i].vec != y[i].vec)
      return false;
  return true;
}

int lw_level(const Ix *at, int n) {
  int level = 0;
  for (int i = 0; i < n; i++) {
    const KVal *v = at[i].vec ? at[i].vec : at[i].base;
    if (v->scope && v->level > level) level = v->level;
  }
  return level;
}

bool lw_is_once(const KVal *lo, const KVal *hi, int64_t step) {
  return lo->kind == K_INDEX && hi->kind == K_INDEX &&
         hi->number - lo->number == step;
}

/* ---- what is known of an index ------------------------------------------- */

typedef struct Range {
  int64_t lo, hi;
  bool known;
} Range;

static Range range_of(const Lower *l, const KVal *v);

static Range iv_range(const Lower *l, const KVal *v) {
  if (!v->loop) return (Range){0, v->number - 1, true};
  Range lo = range_of(l, v->loop->a[0]), hi = range_of(l, v->loop->a[1]);
  if (!lo.known || !hi.known || hi.hi <= lo.lo) return (Range){0};
  Range r = {lo.lo, hi.hi - 1, true};
  if (lo.lo == lo.hi) {
    int64_t step = v->loop->number;
    r.hi = lo.lo + (hi.hi - 1 - lo.lo) / step * step;
  }
  return r;
}

static Range range_of(const Lower *l, const KVal *v) {
  if (v->kind == K_INDEX) return (Range){v->number, v->number, true};
  if (v->kind == K_IV) return iv_range(l, v);
  if (v->kind != K_ALU) return (Range){0};
  Range x = range_of(l, v->a[0]), y = range_of(l, v->a[1]);
  if (v->alu == A_REM && y.known && y.lo == y.hi && y.lo > 0)
    return (Range){0, y.lo - 1, true}; /* indices are not negative */
  if (!x.known || !y.known) return (Range){0};
  if (v->alu == A_ADD) return (Range){x.lo + y.lo, x.hi + y.hi, true};
  if (v->alu == A_SUB) return (Range){x.lo - y.hi, x.hi - y.lo, true};
  if (v->alu == A_MUL && x.lo >= 0 && y.lo >= 0)
    return (Range){x.lo * y.lo, x.hi * y.hi, true};
  if (v->alu == A_DIV && x.lo >= 0 && y.lo > 0)
    return (Range){x.lo / y.hi, x.hi / y.lo, true};
  return (Range){0};
}

bool lw_range(const Lower *l, Ix x, int64_t *lo, int64_t *hi) {
  if (x.vec) return false;
  Range r = range_of(l, x.base);
  *lo = r.lo;
  *hi = r.hi + x.stride * (l->lanes - 1);
  return r.known;
}

/* ---- arithmetic ---------------------------------------------------------- */

KVal *lw_i32(Lower *l, Ix x) {
  if (x.vec) return x.vec;
  KVal *base = kb_to_i32(l->b, x.base);
  if (x.stride == 0) return base;
  if (x.stride == 1) return kb_lanes(l->b, base, l->lanes);
  KVal *lanes = kb_lanes(l->b, kb_const(l->b, DT_i32, 0), l->lanes);
  KVal *step = kb_const(l->b, DT_i32, (double)x.stride);
  return kb_op2(l->b, OP_add, base, kb_op2(l->b, OP_mul, lanes, step));
}

Ix lw_ix_from(Lower *l, KVal *v) {
  if (v->lanes == 1) return lw_ix(kb_from_i32(l->b, v));
  if (v->dtype == DT_u32) v = kb_scalar(l->b, OP_bitcast, DT_i32, &v, 1);
  return (Ix){.vec = v};
}

static Ix by_lane(Lower *l, OpKind op, Ix x, KVal *y) {
  return (Ix){.vec = kb_op2(l->b, op, lw_i32(l, x), y)};
}

Ix lw_add(Lower *l, Ix x, Ix y) {
  if (x.vec || y.vec) return by_lane(l, OP_add, x, lw_i32(l, y));
  return (Ix){kb_alu(l->b, A_ADD, x.base, y.base), x.stride + y.stride, NULL};
}

Ix lw_mul_c(Lower *l, Ix x, int64_t c) {
  if (x.vec) return by_lane(l, OP_mul, x, kb_const(l->b, DT_i32, (double)c));
  return (Ix){kb_alu_c(l->b, A_MUL, x.base, c), x.stride * c, NULL};
}

/* Lanes of consecutive indices that never cross a multiple of c. */
static bool stays_within(const Lower *l, Ix x, int64_t c) {
  return x.stride == 1 && c % l->lanes == 0 &&
         kb_divisor(x.base) % l->lanes == 0;
}

Ix lw_div_c(Lower *l, Ix x, int64_t c) {
  if (c == 1) return x;
  if (!x.vec && (x.stride % c == 0 || stays_within(l, x, c)))
    return (Ix){kb_alu_c(l->b, A_DIV, x.base, c), x.stride / c, NULL};
  return by_lane(l, OP_div, x, kb_const(l->b, DT_i32, (double)c));
}

Ix lw_rem_c(Lower *l, Ix x, int64_t c) {
  if (c == 1) return lw_ix_c(l, 0);
  if (!x.vec && x.stride % c == 0)
    return lw_ix(kb_alu_c(l->b, A_REM, x.base, c));
  if (!x.vec && stays_within(l, x, c))
    return lw_ix_lanes(kb_alu_c(l->b, A_REM, x.base, c));
  return by_lane(l, OP_rem, x, kb_const(l->b, DT_i32, (double)c));
}

Ix lw_clamp(Lower *l, Ix x, int64_t lo, int64_t hi) {
  int64_t x_lo, x_hi;
  if (lw_range(l, x, &x_lo, &x_hi) && x_lo >= lo && x_hi <= hi) return x;
  if (is_uniform(x)) {
    KVal *v = kb_alu_c(l->b, A_MAX, x.base, lo);
    return lw_ix(kb_alu_c(l->b, A_MIN, v, hi));
  }
  Ix up = by_lane(l, OP_max, x, kb_const(l->b, DT_i32, (double)lo));
  return by_lane(l, OP_min, up, kb_const(l->b, DT_i32, (double)hi));
}

Ix lw_linear(Lower *l, const int64_t *dims, int n, const Ix *at) {
  Ix sum = lw_ix_c(l, 0);
  int64_t stride = 1;
  for (int i = n - 1; i >= 0; i--) {
    if (dims[i] != 1) sum = lw_add(l, lw_mul_c(l, at[i], stride), sum);
    stride *= dims[i];
  }
  return sum;
}

void lw_split(Lower *l, const int64_t *dims, int n, Ix linear, Ix *at) {
  for (int i = n - 1; i > 0; i--) {
    at[i] = lw_rem_c(l, linear, dims[i]);
    linear = lw_div_c(l, linear, dims[i]);
  }
  if (n > 0) at[0] = linear;
}

KVal *lw_load(Lower *l, KBase base, Ix at, int floor) {
  if (at.vec)
    return kb_load_from(l->b, base, kb_index(l->b, 0), at.vec, 0, floor);
  if (at.stride == 0) return kb_load_from(l->b, base, at.base, NULL, 1, floor);
  if (at.stride == 1)
    return kb_load_from(l->b, base, at.base, NULL, l->lanes, floor);
  Ix offsets = {kb_index(l->b, 0), at.stride, NULL};
  return kb_load_from(l->b, base, at.base, lw_i32(l, offsets), 0, floor);
}
