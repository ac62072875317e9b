# The end of a model that tells how likely each of n classes is: logits
# x . w + bias, where w has a row for each class. Letters: d model, n classes,
# s samples.
import "init.dsl"
import "mesh.dsl"
import "nn.dsl"

# The weights w: f32[n, d] and biases f32[n].
fn classes(n, d) {
  param w: f32[n @model, d] = glorot()
  param bias: f32[n @model] = 0.0
  return w, bias
}

fn logits(x: f32[.., d], w: f32[n, d], bias: f32[n]) {
  let z[.., n] = x[.., d] * w[n, d]
  return z + bias
}

# Negative log likelihoods of classes y. With `samples`, those in training are
# sampled ones.
fn losses(x: f32[.., d], w: f32[n, d], bias: f32[n], y: i32[..], samples = 0) {
  if samples != 0 and training { return sampled_losses(x, w, bias, y, samples) }
  else { return cross_entropy_each(logits(x, w, bias), y) }
}

# ---- sampled (Jean et al. 2015) -------------------------------------------------
#
# A class against some others instead of all, which the whole batch shares. They
# are drawn by a distribution that falls like that of words, so that classes must
# be in order of falling frequency, as `moerun vocab` writes them. One that is
# drawn again counts once, one that is the class itself not at all. Each logit is
# less the logarithm of how often its class is expected among the samples.

fn sampled_losses(x: f32[.., d], w: f32[n, d], bias: f32[n], y: i32[..], samples) {
  require(samples >= 1 and samples <= n,
          "samples are 1 to the number of classes", samples, n)
  return losses_among(log_uniform(random_bits(zeros(f32[samples])), n), x, w, bias, y)
}

# The same for classes that are drawn already.
fn losses_among(drawn: i32[s], x: f32[.., d], w: f32[n, d], bias: f32[n], y: i32[..]) {
  let others, again = in_order(drawn)
  let mine = gather(w, y)
  let rows = gather(w, others)
  let own[..] = x[.., d] * mine[.., d]
  let z[.., s] = x[.., d] * rows[s, d]
  let own_z = own + gather(bias, y) - log_expected(y, n, s)
  let other_z = z + (gather(bias, others) - log_expected(others, n, s))
  let none = expand(y) == others or again
  return softplus(log_sum_exp(select(none, -1e9, other_z)) - own_z)
}

# Sorted, and whether each is the one before once more.
fn in_order(drawn: i32[s]) {
  let sorted, _ = sort(drawn)
  let before = concat(sorted[0:1] + 1, sorted[0:s - 1], dim = 0) if s > 1 else sorted + 1
  return sorted, sorted == before
}

# Class c with the probability log((c + 2) / (c + 1)) / log(n + 1).
fn log_uniform(bits: u32[..], n) {
  let c = i32(exp(uniform(bits) * log(n + 1.0))) - 1
  return min(max(c, 0), n - 1)
}

# The logarithm of how likely class c is among s draws, log(1 - (1 - p)^s); for
# small p, too.
fn log_expected(c: i32[..], n, s) {
  let p = log1p(1.0 / (f32(c) + 1.0)) / log(n + 1.0)
  let a = -s * log1p(-p)
  return log(tanh(0.5 * a)) + log1p(exp(-a))
}
