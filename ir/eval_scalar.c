/* eval_scalar.c: the interpreter's elementwise ops.
 *
 * Results are rounded by eval.c: here is what an op means on doubles. Integers
 * are exact in a double, so add and sub need no care; products do. Functions
 * that `expand` replaces come from libm in double. */
#include "ir.h"

#include <math.h>

/* Defines eval_<name>: `expr` over operands a, b, c, elementwise. `integer`
 * tells whether the result is one, `in` and `to` are the dtypes around. */
#define SCALAR(name, expr)                                           \
  void eval_##name(EvalCall *call) {                                 \
    uint32_t n_ins = call->n->ins.len;                               \
    const double *as = call->ins[0]->data;                           \
    const double *bs = n_ins > 1 ? call->ins[1]->data : as;          \
    const double *cs = n_ins > 2 ? call->ins[2]->data : as;          \
    Tensor *out = call->outs[0];                                     \
    const Dtype in = call->ins[0]->type.dtype, to = out->type.dtype; \
    const bool typed = call->ev->mode == EVAL_TYPED;                 \
    const bool integer = dtype_info[to].kind != DK_FLOAT;            \
    for (int64_t i = 0, n = type_elements(&out->type); i < n; i++) { \
      const double a = as[i], b = bs[i], c = cs[i];                  \
      (void)a, (void)b, (void)c;                                     \
      out->data[i] = (expr);                                         \
    }                                                                \
    (void)in, (void)typed, (void)integer;                            \
  }

/* ---- integers ------------------------------------------------------------ */

static uint32_t bits(double x) {
  return (uint32_t)(int64_t)x;
}

/* The product modulo 2^32: the same for signed and unsigned. */
static double int_mul(double a, double b) {
  return (double)(uint32_t)((uint64_t)bits(a) * bits(b));
}

static double int_div(double a, double b) {
  return b == 0 ? 0 : trunc(a / b); /* exact enough: 32 bits within 53 */
}

static double int_rem(double a, double b) {
  return b == 0 ? 0 : (double)((int64_t)a % (int64_t)b);
}

static double shift_left(double a, double b) {
  return bits(b) < 32 ? (double)(bits(a) << bits(b)) : 0;
}

static double shift_right(double a, double b, Dtype dtype) {
  uint32_t by = bits(b);
  if (dtype_info[dtype].kind == DK_UINT)
    return by < 32 ? (double)(bits(a) >> by) : 0;
  return floor(ldexp(a, -(int)(by < 31 ? by : 31)));
}

static double mul_high(double a, double b) {
  return (double)(((uint64_t)bits(a) * bits(b)) >> 32);
}

static double bit_not(double a, Dtype dtype) {
  return dtype == DT_bool ? a == 0 : (double)~bits(a);
}

/* ---- arithmetic ---------------------------------------------------------- */

static double fused(double a, double b, double c, bool single) {
  return single ? (double)fmaf((float)a, (float)b, (float)c) : fma(a, b, c);
}

static double cast(double x, Dtype from, Dtype to) {
  if (dtype_info[to].kind == DK_BOOL) return x != 0;
  if (dtype_info[to].kind == DK_FLOAT) return x;
  if (dtype_info[from].kind != DK_FLOAT) return x;
  if (isnan(x)) return 0;
  double lowest = dtype_info[to].kind == DK_INT ? -0x1p31 : 0;
  double highest = dtype_info[to].kind == DK_INT ? 0x1p31 - 1 : 0x1p32 - 1;
  x = trunc(x);
  return x < lowest ? lowest : x > highest ? highest : x;
}

SCALAR(add, a + b)
SCALAR(sub, a - b)
SCALAR(mul, integer ? int_mul(a, b) : a *b)
SCALAR(div, integer ? int_div(a, b) : a / b)
SCALAR(rem, int_rem(a, b))
SCALAR(max, a > b ? a : b)
SCALAR(min, a < b ? a : b)
SCALAR(fma, integer ? int_mul(a, b) + c : fused(a, b, c, typed &&to != DT_f64))
SCALAR(neg, -a)
SCALAR(abs, fabs(a))
SCALAR(sqrt, sqrt(a))
SCALAR(floor, floor(a))
SCALAR(exp, exp(a))
SCALAR(log, log(a))
SCALAR(log1p, log1p(a))
SCALAR(tanh, tanh(a))
SCALAR(erf, erf(a))
SCALAR(sigmoid, 1 / (1 + exp(-a)))
SCALAR(lt, a < b)
SCALAR(le, a <= b)
SCALAR(eq, a == b)
SCALAR(ne, a != b)
SCALAR(and, bits(a) & bits(b))
SCALAR(or, bits(a) | bits(b))
SCALAR(xor, bits(a) ^ bits(b))
SCALAR(not, bit_not(a, in))
SCALAR(shl, shift_left(a, b))
SCALAR(shr, shift_right(a, b, in))
SCALAR(mulhi, mul_high(a, b))
SCALAR(is_finite, isfinite(a))
SCALAR(select, a != 0 ? b : c)
SCALAR(cast, cast(a, in, to))
SCALAR(bitcast, dtype_bitcast(a, in, to))

/* ---- random numbers ------------------------------------------------------ */

/* Threefry2x32 of Salmon et al. 2011, "Parallel random numbers: as easy as 1,
 * 2, 3", with the 13 rounds that they found to be enough: x under a key. */
static void threefry(uint32_t k0, uint32_t k1, uint32_t x[2]) {
  static const int turns[8] = {13, 15, 26, 6, 17, 29, 16, 24};
  const uint32_t key[3] = {k0, k1, 0x1bd11bdau ^ k0 ^ k1};
  x[0] += k0;
  x[1] += k1;
  for (uint32_t round = 0; round < 13; round++) {
    int turn = turns[round % 8];
    x[0] += x[1];
    x[1] = (x[1] << turn | x[1] >> (32 - turn)) ^ x[0];
    if (round % 4 != 3) continue;
    uint32_t nth = round / 4 + 1;
    x[0] += key[nth % 3];
    x[1] += key[(nth + 1) % 3] + nth;
  }
}

void eval_threefry(EvalCall *c) {
  uint32_t site = (uint32_t)attr_int(c->n, "site");
  Tensor *out = c->outs[0];
  for (int64_t i = 0, n = type_elements(&out->type); i < n; i++) {
    uint32_t in[4];
    for (int k = 0; k < 4; k++)
      in[k] = bits(c->ins[k]->data[i]);
    uint32_t key[2] = {in[2], in[3]}, x[2] = {in[1], 0};
    threefry(in[0], in[0] ^ site, key);
    threefry(key[0], key[1], x);
    out->data[i] = x[0];
  }
}

static double polynomial(const double *p, int degree, double x) {
  double y = p[degree];
  while (degree--)
    y = y * x + p[degree];
  return y;
}

/* The normal quantile of p in [2^-25, 1 - 2^-25]: algorithm AS 241 of Wichura
 * 1988, PPND16, of which the last branch is never reached here. `q` is p - 1/2,
 * `tail` the smaller of p and 1 - p, which a caller has without rounding. */
static double normal_quantile(double q, double tail) {
  static const double a[] = {
      3.3871328727963666080e0,  1.3314166789178437745e+2,
      1.9715909503065514427e+3, 1.3731693765509461125e+4,
      4.5921953931549871457e+4, 6.7265770927008700853e+4,
      3.3430575583588128105e+4, 2.5090809287301226727e+3};
  static const double b[] = {1,
                             4.2313330701600911252e+1,
                             6.8718700749205790830e+2,
                             5.3941960214247511077e+3,
                             2.1213794301586595867e+4,
                             3.9307895800092710610e+4,
                             2.8729085735721942674e+4,
                             5.2264952788528545610e+3};
  static const double c[] = {
      1.42343711074968357734e0,  4.63033784615654529590e0,
      5.76949722146069140550e0,  3.64784832476320460504e0,
      1.27045825245236838258e0,  2.41780725177450611770e-1,
      2.27238449892691845833e-2, 7.74545014278341407640e-4};
  static const double d[] = {1,
                             2.05319162663775882187e0,
                             1.67638483018380384940e0,
                             6.89767334985100004550e-1,
                             1.48103976427480074590e-1,
                             1.51986665636164571966e-2,
                             5.47593808499534494600e-4,
                             1.05075007164441684324e-9};
  if (fabs(q) <= 0.425) {
    double r = 0.180625 - q * q;
    return q * polynomial(a, 7, r) / polynomial(b, 7, r);
  }
  double r = sqrt(-log(tail)) - 1.6;
  return copysign(polynomial(c, 7, r) / polynomial(d, 7, r), q);
}

static double normal(double x) {
  double k = bits(x) >> 8; /* p = (k + 1/2) / 2^24 */
  double p = ldexp(k + 0.5, -24);
  return normal_quantile(p - 0.5, p < 0.5 ? p : 1 - p);
}

SCALAR(normal, normal(a))
SCALAR(uniform, ldexp(bits(a) >> 8, -24))
