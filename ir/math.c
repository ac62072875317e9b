/* math.c: functions of floats as fma, bit operations and selects.
 *
 * Each function comes for f32 and f64; bf16 goes through f32. Approximations
 * are minimax fits made for the intervals named; their error, and that of the
 * whole function against libm, is what tests/unit/expand.c pins. Infinities and
 * NaN come out as from libm. In f32, results below 2^-126 are 0. Op counts are
 * those of the f32 versions: they run a million times a step.
 *
 * There is no 64-bit integer, so f64 takes powers of two from f32 bits.
 *
 * max(k, x) and min(k, x) with the constant first keep a NaN in x. */
#include "ir.h"

#include <math.h>

/* ---- shorthand ----------------------------------------------------------- */

static Value *number(Builder *b, Value *like, double v) {
  return ir_const_like(b, like, v);
}
static Value *with(Builder *b, OpKind op, Value *x, double v) {
  return ir_binary(b, op, x, number(b, x, v));
}
static Value *from(Builder *b, OpKind op, double v, Value *x) {
  return ir_binary(b, op, number(b, x, v), x);
}
static Value *add(Builder *b, Value *x, Value *y) {
  return ir_binary(b, OP_add, x, y);
}
static Value *sub(Builder *b, Value *x, Value *y) {
  return ir_binary(b, OP_sub, x, y);
}
static Value *mul(Builder *b, Value *x, Value *y) {
  return ir_binary(b, OP_mul, x, y);
}
static Value *divide(Builder *b, Value *x, Value *y) {
  return ir_binary(b, OP_div, x, y);
}
/* x * v + w */
static Value *scaled(Builder *b, Value *x, double v, Value *w) {
  return ir_fma(b, x, number(b, x, v), w);
}

/* p[0] + p[1] x + ... + p[n - 1] x^(n - 1) by Horner's rule, n > 1. */
static Value *polynomial(Builder *b, Value *x, const double *p, int n) {
  Value *y = number(b, x, p[n - 1]);
  for (int k = n - 2; k >= 0; k--)
    y = ir_fma(b, y, x, number(b, x, p[k]));
  return y;
}
#define POLYNOMIAL(b, x, p) polynomial(b, x, p, COUNT_OF(p))

/* 2^k as f32 from the integer k in i32, -126 <= k <= 127. */
static Value *power_of_two(Builder *b, Value *k) {
  Value *bits = with(b, OP_shl, with(b, OP_add, k, 127), 23);
  return ir_bitcast(b, bits, DT_f32);
}

typedef Value *MathFn(Builder *b, Value *x);

/* One operand, the result of its dtype. */
static Value *by_dtype(Builder *b, Value *x, MathFn *single, MathFn *twice) {
  Dtype dtype = x->type.dtype;
  if (dtype == DT_f64) return twice(b, x);
  if (dtype == DT_f32) return single(b, x);
  return ir_cast(b, single(b, ir_cast(b, x, DT_f32)), dtype);
}

/* ---- exp ----------------------------------------------------------------- */

#define LOG2_E 1.4426950408889634
#define LN_2   0.69314718055994531
/* ln 2 in two parts, the upper one short enough for exact products. */
#define LN_2_HI_F32 0.693145751953125
#define LN_2_LO_F32 1.42860682030941723e-6
#define LN_2_HI_F64 6.93147180369123816490e-1
#define LN_2_LO_F64 1.90821492927058770002e-10

/* exp of x in [-87.3365, 88.7228]; anything elsewhere. x = t ln 2 + r, and 2^t
 * goes into the exponent: with 1.5 * 2^23 added, t stands in the lowest bits of
 * the sum. 12 ops; a relative error of 6e-8 before rounding. */
static Value *exp_core(Builder *b, Value *x) {
  static const double p[] = {1,
                             1,
                             0.49999994f,
                             0.166665211f,
                             0.0416684188f,
                             0.00836873241f,
                             0.00138127024f};
  const double magic = 12582912;
  Value *z = scaled(b, x, (float)LOG2_E, number(b, x, magic));
  Value *t = with(b, OP_sub, z, magic);
  Value *r = scaled(b, t, -LN_2_HI_F32, x);
  r = scaled(b, t, (float)-LN_2_LO_F32, r);
  Value *y = ir_bitcast(b, POLYNOMIAL(b, r, p), DT_i32);
  Value *power = with(b, OP_shl, ir_bitcast(b, z, DT_i32), 23);
  return ir_bitcast(b, add(b, y, power), DT_f32);
}

/* 17 ops. x * 3.4e38 is inf above, and a NaN for one. */
static Value *exp_f32(Builder *b, Value *x) {
  Value *y = exp_core(b, x);
  y = ir_select(b, with(b, OP_le, x, 88.72283f), y,
                with(b, OP_mul, x, 3.4e38f));
  return ir_select(b, with(b, OP_lt, x, -87.33654f), number(b, x, 0), y);
}

Value *ir_exp_below(Builder *b, Value *x) {
  return exp_core(b, with(b, OP_max, x, -87.3365f));
}

/* m * 2^k for i32 k in [-1200, 1200], rounded once: k = 16 q + r. */
static Value *scale_f64(Builder *b, Value *m, Value *k) {
  Value *q = with(b, OP_shr, k, 4), *r = with(b, OP_and, k, 15);
  Value *s = ir_cast(b, power_of_two(b, q), DT_f64);
  for (int i = 0; i < 3; i++)
    s = mul(b, s, s); /* 2^(8 q) */
  m = mul(b, m, ir_cast(b, power_of_two(b, r), DT_f64));
  return mul(b, mul(b, m, s), s);
}

static Value *exp_f64(Builder *b, Value *x) {
  enum { TERMS = 14 };
  double p[TERMS] = {1};
  for (int i = 1; i < TERMS; i++)
    p[i] = p[i - 1] / i;
  x = from(b, OP_max, -800, from(b, OP_min, 800, x));
  Value *t = ir_unary(b, OP_floor, scaled(b, x, LOG2_E, number(b, x, 0.5)));
  Value *r = scaled(b, t, -LN_2_HI_F64, x);
  r = scaled(b, t, -LN_2_LO_F64, r);
  return scale_f64(b, polynomial(b, r, p, TERMS), ir_cast(b, t, DT_i32));
}

Value *ir_exp(Builder *b, Value *x) {
  return by_dtype(b, x, exp_f32, exp_f64);
}

/* ---- log ----------------------------------------------------------------- */

enum {
  TWO_THIRDS = 0x3f2aaaab, /* bits of f32 numbers */
  ONE = 0x3f800000,
  FOUR = 0x40800000,
  EXPONENT = -0x800000 /* mask of sign and exponent */
};

/* The bits of 2^e in the place of the exponent, e the integer for which
 * x / 2^e is in [2/3, 4/3); x is a positive normal f32. 2 ops. */
static Value *exponent_bits(Builder *b, Value *x) {
  Value *bits = ir_bitcast(b, x, DT_i32);
  return with(b, OP_and, with(b, OP_sub, bits, TWO_THIRDS), EXPONENT);
}

/* x / 2^e for e's bits. */
static Value *divide_bits(Builder *b, Value *x, Value *e) {
  return ir_bitcast(b, sub(b, ir_bitcast(b, x, DT_i32), e), DT_f32);
}

/* log(1 + m) for m in [-1/3, 1/3]; relative error 3e-8 + rounding. 9 ops. */
static Value *log1p_core(Builder *b, Value *m) {
  static const double p[] = {-0.499999374f, 0.333332032f,  -0.250078171f,
                             0.200109512f,  -0.164160907f, 0.139990821f,
                             -0.153875947f, 0.140112728f};
  Value *square = mul(b, m, m);
  return ir_fma(b, POLYNOMIAL(b, m, p), square, m);
}

/* What log has for x that is not positive and finite, else y. 6 ops. */
static Value *log_specials(Builder *b, Value *x, Value *y) {
  y = ir_select(b, with(b, OP_lt, x, INFINITY), y, x);
  Value *low = ir_select(b, with(b, OP_eq, x, 0), number(b, x, -INFINITY),
                         number(b, x, NAN));
  return ir_select(b, from(b, OP_lt, 0, x), y, low);
}

/* log of a positive normal number; `extra` is added to the exponent, NULL for
 * 0. 16 ops. */
static Value *log_core(Builder *b, Value *x, Value *extra) {
  Value *e = exponent_bits(b, x);
  Value *m = with(b, OP_sub, divide_bits(b, x, e), 1);
  Value *k = ir_cast(b, e, DT_f32);
  k = extra ? scaled(b, k, 0x1p-23, extra) : with(b, OP_mul, k, 0x1p-23);
  return scaled(b, k, (float)LN_2, log1p_core(b, m));
}

/* 26 ops. Numbers below 2^-126 are scaled up first. */
static Value *log_f32(Builder *b, Value *x) {
  Value *small = with(b, OP_lt, x, 0x1p-126);
  Value *normal = ir_select(b, small, with(b, OP_mul, x, 0x1p24), x);
  Value *extra = ir_select(b, small, number(b, x, -24), number(b, x, 0));
  return log_specials(b, x, log_core(b, normal, extra));
}

/* log of f64 x in f32's normal range, plus k ln 2, k NULL for 0. By the series
 * of 2 atanh(s), s = f / (2 + f), for 1 + f = x / 2^e. */
static Value *log_f64_core(Builder *b, Value *x, Value *k) {
  enum { TERMS = 12 };
  double p[TERMS];
  for (int i = 0; i < TERMS; i++)
    p[i] = 2.0 / (2 * i + 3);
  Value *e = exponent_bits(b, ir_cast(b, x, DT_f32));
  Value *one = ir_bitcast(b, from(b, OP_sub, ONE, e), DT_f32);
  Value *f = with(b, OP_sub, mul(b, x, ir_cast(b, one, DT_f64)), 1);
  Value *exponent = with(b, OP_mul, ir_cast(b, e, DT_f64), 0x1p-23);
  k = k ? add(b, k, exponent) : exponent;
  Value *s = divide(b, f, with(b, OP_add, f, 2));
  Value *z = mul(b, s, s);
  Value *tail = mul(b, mul(b, s, z), polynomial(b, z, p, TERMS));
  tail = scaled(b, k, LN_2_LO_F64, tail);
  return scaled(b, k, LN_2_HI_F64, scaled(b, s, 2, tail));
}

static Value *log_f64(Builder *b, Value *x) {
  /* Where x < or >= bound, multiply by 2^by. */
  static const struct {
    double bound;
    int by;
  } down[] = {{0x1p512, -512}, {0x1p256, -256}, {0x1p126, -130}},
    up[] = {{0x1p-512, 512}, {0x1p-256, 306}, {0x1p-120, 136}};
  Value *y = x, *k = number(b, x, 0);
  for (int i = 0; i < 6; i++) {
    double bound = i < 3 ? down[i].bound : up[i - 3].bound;
    int by = i < 3 ? down[i].by : up[i - 3].by;
    Value *out = i < 3 ? from(b, OP_le, bound, y) : with(b, OP_lt, y, bound);
    Value *factor =
        ir_select(b, out, number(b, x, ldexp(1, by)), number(b, x, 1));
    y = mul(b, y, factor);
    k = ir_select(b, out, with(b, OP_sub, k, by), k);
  }
  return log_specials(b, x, log_f64_core(b, y, k));
}

Value *ir_log(Builder *b, Value *x) {
  return by_dtype(b, x, log_f32, log_f64);
}

/* (1 + x) / 2^e - 1 is found as x / 2^e + (1 / 2^e - 1), with no rounding of
 * 1 + x that matters. 25 ops. */
static Value *log1p_f32(Builder *b, Value *x) {
  Value *u = with(b, OP_add, x, 1);
  Value *e = exponent_bits(b, u);
  Value *four = ir_bitcast(b, from(b, OP_sub, FOUR, e), DT_f32);
  Value *m =
      add(b, divide_bits(b, x, e), scaled(b, four, 0.25, number(b, x, -1)));
  Value *k = with(b, OP_mul, ir_cast(b, e, DT_f32), 0x1p-23);
  Value *y = scaled(b, k, (float)LN_2, log1p_core(b, m));
  return log_specials(b, u, y);
}

/* log of the rounded u = 1 + x, plus what rounding lost relative to it. */
static Value *log1p_f64(Builder *b, Value *x) {
  Value *u = with(b, OP_add, x, 1), *y = log_f64(b, u);
  Value *lost = divide(b, sub(b, x, with(b, OP_sub, u, 1)), u);
  Value *positive = from(b, OP_lt, 0, u);
  Value *finite = with(b, OP_lt, u, INFINITY);
  return ir_select(b, ir_binary(b, OP_and, positive, finite), add(b, y, lost),
                   y);
}

Value *ir_log1p(Builder *b, Value *x) {
  return by_dtype(b, x, log1p_f32, log1p_f64);
}

/* ---- tanh, erf, sigmoid -------------------------------------------------- */

/* An odd function that ends at 1: x p(s) / q(s) for s = min(x^2, `s_max`), held
 * within [-1, 1]. */
static Value *odd_rational(Builder *b, Value *x, double s_max, const double *p,
                           const double *q, int n) {
  Value *s = from(b, OP_min, s_max, mul(b, x, x));
  Value *y =
      divide(b, mul(b, x, polynomial(b, s, p, n)), polynomial(b, s, q, n));
  return from(b, OP_max, -1, from(b, OP_min, 1, y));
}

/* 14 ops, relative error 3e-7. tanh(9.02) rounds to 1. */
static Value *tanh_f32(Builder *b, Value *x) {
  static const double p[] = {1, 0.133792311f, 0.00349346898f, 2.05746965e-5f,
                             1.33079459e-8f};
  static const double q[] = {1, 0.467125446f, 0.0258688889f, 0.000328219059f,
                             7.7572281e-7f};
  return odd_rational(b, x, 9.02f * 9.02f, p, q, COUNT_OF(p));
}

/* 16 ops, relative error 3.2e-7. erf(3.93) rounds to 1. */
static Value *erf_f32(Builder *b, Value *x) {
  static const double p[] = {1.12837911f,    0.19078809f,     0.0527903885f,
                             0.00377964112f, 0.000284783979f, 2.04161734e-6f};
  static const double q[] = {1,
                             0.502414286f,
                             0.114258856f,
                             0.0149975512f,
                             0.00116517162f,
                             3.7999107e-5f};
  return odd_rational(b, x, 3.93f * 3.93f, p, q, COUNT_OF(p));
}

/* `near` where |x| < bound, else `far` (of |x|) with the sign of x. */
static Value *near_or_far(Builder *b, Value *x, Value *abs, double bound,
                          Value *near, Value *far) {
  Value *back = ir_unary(b, OP_neg, far);
  far = ir_select(b, with(b, OP_lt, x, 0), back, far);
  return ir_select(b, with(b, OP_lt, abs, bound), near, far);
}

static Value *tanh_f64(Builder *b, Value *x) {
  /* (tanh(x) / x - 1) / x^2 in x^2, |x| <= 0.55 */
  static const double p[] = {-0.333333333333333312, -0.020500371328286167,
                             -0.00019924771645746937};
  static const double q[] = {1, 0.46150111398485421, 0.0232934268386463866,
                             0.000206608364464627715};
  Value *s = mul(b, x, x), *abs = ir_unary(b, OP_abs, x);
  Value *ratio = divide(b, POLYNOMIAL(b, s, p), POLYNOMIAL(b, s, q));
  Value *near = ir_fma(b, mul(b, x, s), ratio, x);
  Value *grown = with(b, OP_add, exp_f64(b, with(b, OP_mul, abs, 2)), 1);
  Value *far = from(b, OP_sub, 1, from(b, OP_div, 2, grown));
  return near_or_far(b, x, abs, 0.55, near, far);
}

static Value *erf_f64(Builder *b, Value *x) {
  /* erf(x) / x in x^2, |x| <= 1 */
  static const double p[] = {1.12837916709551257,     0.143516935027871604,
                             0.0454849597999946757,   0.00187778908555702526,
                             0.000196898928644114078, 7.8305241898540692e-8};
  static const double q[] = {1,
                             0.460521905413487397,
                             0.0938172978823797602,
                             0.0106939131437023563,
                             0.000692582699542577551,
                             0.0000208140738589339863};
  /* erfc(x) exp(x^2) in x, 1 <= x <= 6 */
  static const double far_p[] = {0.999999887407217737,  1.39048866816377589,
                                 0.949410558184370435,  0.37353349141693404,
                                 0.0843279497869135161, 0.00892717340815961565};
  static const double far_q[] = {1,
                                 2.51886664876059943,
                                 2.79165317157795516,
                                 1.75694380987430491,
                                 0.670041959340292702,
                                 0.149463488927759727,
                                 0.0158231255401655029};
  Value *s = mul(b, x, x), *abs = ir_unary(b, OP_abs, x);
  Value *near = mul(b, x, divide(b, POLYNOMIAL(b, s, p), POLYNOMIAL(b, s, q)));
  Value *t = from(b, OP_min, 6, abs);
  Value *decay = exp_f64(b, ir_unary(b, OP_neg, mul(b, t, t)));
  Value *tail = divide(b, mul(b, decay, POLYNOMIAL(b, t, far_p)),
                       POLYNOMIAL(b, t, far_q));
  return near_or_far(b, x, abs, 1, near, from(b, OP_sub, 1, tail));
}

/* 19 ops. Below -88 it is 0. */
static Value *sigmoid_f32(Builder *b, Value *x) {
  Value *grown = exp_core(b, from(b, OP_max, -87, ir_unary(b, OP_neg, x)));
  Value *y = from(b, OP_div, 1, with(b, OP_add, grown, 1));
  return ir_select(b, from(b, OP_lt, -88, x), y, from(b, OP_max, 0, x));
}

static Value *sigmoid_f64(Builder *b, Value *x) {
  Value *grown = exp_f64(b, ir_unary(b, OP_neg, x));
  return from(b, OP_div, 1, with(b, OP_add, grown, 1));
}

Value *ir_tanh(Builder *b, Value *x) {
  return by_dtype(b, x, tanh_f32, tanh_f64);
}
Value *ir_erf(Builder *b, Value *x) {
  return by_dtype(b, x, erf_f32, erf_f64);
}
Value *ir_sigmoid(Builder *b, Value *x) {
  return by_dtype(b, x, sigmoid_f32, sigmoid_f64);
}

/* ---- samples from random bits -------------------------------------------- */

/* The inverse normal distribution function after Wichura 1988, algorithm AS
 * 241, as two rational functions: one around the centre, one of the square root
 * of -log of the tail. (His third, for tails below 1e-11, is out of reach.) */
typedef struct Quantile {
  int n, n_d; /* coefficients of a, b, c; of d */
  double a[8], b[8], c[8], d[8];
  Value *(*log)(Builder *b, Value *x, Value *extra);
} Quantile;

static const Quantile ppnd7 = {
    4,
    3,
    {3.3871327179, 50.434271938, 159.29113202, 59.109374720},
    {1, 17.895169469, 78.757757664, 67.187563600},
    {1.4234372777, 2.7568153900, 1.3067284816, 0.17023821103},
    {1, 0.73700164250, 0.12021132975},
    log_core};

static const Quantile ppnd16 = {
    8,
    8,
    {3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427,
     13731.693765509461125, 45921.953931549871457, 67265.770927008700853,
     33430.575583588128105, 2509.0809287301226727},
    {1, 42.313330701600911252, 687.18700749205790830, 5394.1960214247511077,
     21213.794301586595867, 39307.895800092710610, 28729.085735721942674,
     5226.4952788528545610},
    {1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550,
     3.64784832476320460504, 1.27045825245236838258, 0.241780725177450611770,
     0.0227238449892691845833, 0.000774545014278341407640},
    {1, 2.05319162663775882187, 1.67638483018380384940, 0.689767334985100004550,
     0.148103976427480074590, 0.0151986665636164571966,
     0.000547593808499534494600, 1.05075007164441684324e-9},
    log_f64_core};

/* The sample at p = (k + 1/2) / 2^24 for the upper 24 bits k: q = p - 1/2 and
 * the tail are exact in f32. 47 ops. */
static Value *normal_sample(Builder *b, Value *bits, Dtype dtype,
                            const Quantile *t) {
  Value *odd = with(b, OP_or, with(b, OP_shr, bits, 7), 1); /* 2 k + 1 */
  odd = with(b, OP_sub, ir_bitcast(b, odd, DT_i32), 1 << 24);
  Value *q = with(b, OP_mul, ir_cast(b, odd, dtype), 0x1p-25);
  Value *abs = ir_unary(b, OP_abs, q);
  Value *r = ir_fma(b, ir_unary(b, OP_neg, q), q, number(b, q, 0.180625));
  Value *near_p = mul(b, q, polynomial(b, r, t->a, t->n));
  Value *near_q = polynomial(b, r, t->b, t->n);
  Value *log = t->log(b, from(b, OP_sub, 0.5, abs), NULL);
  r = ir_unary(b, OP_sqrt, ir_unary(b, OP_neg, log));
  r = with(b, OP_sub, r, 1.6);
  Value *far_p = polynomial(b, r, t->c, t->n);
  far_p = ir_select(b, with(b, OP_lt, q, 0), ir_unary(b, OP_neg, far_p), far_p);
  Value *far_q = polynomial(b, r, t->d, t->n_d);
  Value *near = with(b, OP_le, abs, 0.425);
  return divide(b, ir_select(b, near, near_p, far_p),
                ir_select(b, near, near_q, far_q));
}

/* The upper 24 bits times 2^-24, exact. 3 ops. */
static Value *uniform_sample(Builder *b, Value *bits, Dtype dtype) {
  Value *k = ir_bitcast(b, with(b, OP_shr, bits, 8), DT_i32);
  return with(b, OP_mul, ir_cast(b, k, dtype), 0x1p-24);
}

Value *ir_normal(Builder *b, Value *bits, Dtype dtype) {
  if (dtype == DT_f64) return normal_sample(b, bits, dtype, &ppnd16);
  return ir_cast_to(b, normal_sample(b, bits, DT_f32, &ppnd7), dtype);
}

Value *ir_uniform(Builder *b, Value *bits, Dtype dtype) {
  if (dtype == DT_f64) return uniform_sample(b, bits, dtype);
  return ir_cast_to(b, uniform_sample(b, bits, DT_f32), dtype);
}
