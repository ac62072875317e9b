# Small layers that most models share.
import "init.dsl"
import "mesh.dsl"

fn softplus(x: f32[..]) { return max(x, 0.0) + log1p(exp(-abs(x))) }
# Its slope at 0 is 0, so that where x > 0 is all that its gradient needs.
fn relu(x: f32[..]) { return select(x > 0.0, x, 0.0) }

fn unchanged(x) { return x }
# -1, 0 or 1.
fn sign(x: f32[..]) { return f32(x > 0.0) - f32(x < 0.0) }

# sin x: of x less whole multiples of pi, by its series; 1e-7 for |x| < 10^4.
fn sine(x: f32[..]) {
  let n = floor(x * (1.0 / PI) + 0.5)
  let odd = n - 2.0 * floor(0.5 * n)
  let r = fma(n, -PI_LOW, fma(n, -PI_HIGH, x))
  let s = r * r
  let p = fma(s, fma(s, fma(s, fma(s, fma(s, -1.0 / 39916800.0, 1.0 / 362880.0), -1.0 / 5040.0),
                            1.0 / 120.0), -1.0 / 6.0), 1.0)
  return (1.0 - 2.0 * odd) * r * p
}
fn cosine(x: f32[..]) { return sine(x + 0.5 * PI) }
const PI = 3.14159265358979
const PI_HIGH = 3.140625             # few bits, so that n times it is exact
const PI_LOW = 0.000967653589793

# Softmax over the last dim.
fn softmax(x: f32[.., n]) {
  let e = exp(x - stop_gradient(max(x, dim = -1, keep = true)))
  return e / sum(e, dim = -1, keep = true)
}

# Logarithm of the sum of exponentials over the last dim.
fn log_sum_exp(x: f32[.., n]) {
  let top = stop_gradient(max(x, dim = -1))
  return top + log(sum(exp(x - expand(top)), dim = -1))
}

fn log_softmax(x: f32[.., n]) { return x - expand(log_sum_exp(x)) }

# 32 bits that all depend on all 32 of h (the last steps of MurmurHash3).
fn mix_bits(h: u32[..]) {
  let a = xor(h, shr(h, 16)) * 2246822507
  let b = xor(a, shr(a, 13)) * 3266489909
  return xor(b, shr(b, 16))
}

# Rows of a trained table: ids i32[..] -> f32[.., width].
fn embed(ids: i32[..], vocabulary, width) {
  return gather(embedding(vocabulary, width) as "", ids)
}

# The table itself, for models that need it twice.
fn embedding(vocabulary, width) {
  param table: f32[vocabulary @model, width] = normal_init(1.0 / sqrt(width))
  return table
}

# x . w + bias over the last dim.
fn linear(x: f32[.., d], width) {
  param w: f32[d, width @model] = glorot()
  param bias: f32[width @model] = 0.0
  let y[.., o] = x[.., d] * w[d, o]
  return y + bias
}

# Linear, ReLU, Linear without biases; more layers are of the hidden width.
fn ffn(x: f32[.., d], hidden, layers = 1) {
  param w1: f32[d, hidden @model] = glorot()
  param w2: f32[hidden @model, d] = glorot()
  let h[.., h] = x[.., d] * w1[d, h]
  let a = for i in 1..layers with a = relu(h) {
    next a = relu(product(a, hidden) as "middle")
  }
  let y[.., d] = a[.., h] * w2[h, d]
  return y
}

# x . w over the last dim.
fn product(x: f32[.., d], width) {
  param w: f32[d, width @model] = glorot()
  let y[.., o] = x[.., d] * w[d, o]
  return y
}

# Zero with probability p, else x / (1 - p). The mask is drawn again in the
# backward pass, not kept.
fn dropout(x: f32[..], p) {
  require(p >= 0.0 and p < 1.0, "dropout must be from 0 to below 1", p)
  if training and p > 0.0 {
    let keep = uniform(random_bits(x)) >= p
    return select(keep, x / (1.0 - p), 0.0)
  } else {
    return x
  }
}

# Negative log likelihood of class y under logits: f32[.., n], i32[..] -> f32[..].
# With `smooth`, that part of the label is spread evenly over all classes
# (Szegedy et al. 2016).
fn cross_entropy_each(logits: f32[.., n], y: i32[..], smooth = 0.0) {
  require(smooth >= 0.0 and smooth < 1.0, "smoothing must be from 0 to below 1", smooth)
  let top = stop_gradient(max(logits, dim = -1, keep = true))
  let shifted = logits - top
  let log_sum = log(sum(exp(shifted), dim = -1))
  let hit = iota_like(y, n) == expand(y)      # [.., n], one true a row
  let own = sum(select(hit, shifted, 0.0), dim = -1)
  if smooth == 0.0 {
    return log_sum - own
  } else {
    return log_sum - (1.0 - smooth) * own - smooth * mean(shifted, dim = -1)
  }
}

# Mean negative log likelihood.
fn cross_entropy(logits: f32[.., n], y: i32[..]) {
  return mean(cross_entropy_each(logits, y))
}

# Over the last dim: to mean 0 and variance 1, then trained ones (Ba et al. 2016).
fn layer_norm(x: f32[.., d], eps = 1e-5) {
  param gain: f32[d] = 1.0
  param bias: f32[d] = 0.0
  let c = x - mean(x, dim = -1, keep = true)
  return c / sqrt(mean(c * c, dim = -1, keep = true) + eps) * gain + bias
}

# To a mean square of 1 (Zhang and Sennrich 2019).
fn rms_norm(x: f32[.., d], eps = 1e-6) {
  param gain: f32[d] = 1.0
  return x / sqrt(mean(x * x, dim = -1, keep = true) + eps) * gain
}
