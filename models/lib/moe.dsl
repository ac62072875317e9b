# The sparsely-gated mixture-of-experts layer of Shazeer et al. 2017. Letters:
# d model, n experts, k choices a token. Any number of leading dims.
import "init.dsl"
import "mesh.dsl"
import "nn.dsl"

# Runs each token through the k experts that `gate` picks and sums their outputs
# by gate value (Eq. 1). An expert is Linear, ReLU, dropout of p, Linear.
# gate: (x, experts) -> gates f32[.., k], ids i32[.., k], auxiliary loss f32[].
# With a capacity factor, an expert takes in training at most that many times
# the mean number of rows from each group of tokens; what is more is dropped.
# skip: a choice whose gate is 0 takes no row of its expert, and none of its
# capacity. It changes no result: it is for gates that leave choices empty.
# again: hidden activations of experts are computed again for the backward pass
# (Appendix D), which takes a product more and less memory.
# Outside of training it reports who goes where, for `moerun experts`.
fn moe(x: f32[.., d], experts, hidden, gate, capacity = 0.0, groups = 1, p = 0.0, skip = false, again = false) {
  require(capacity >= 0.0, "a capacity is above 0, or 0 for none", capacity)
  let gates, chosen, aux = gate(x, experts) as "gate"
  let bounded = capacity > 0.0 and training
  let ids = select(gates > 0.0, chosen, experts) if skip else chosen
  let kept = within_capacity(ids, experts, capacity, groups) if bounded else ids
  if bounded { report dropped = mean(f32(kept == experts)) }
  if not training { report gates = gates; report chosen = kept }
  let most = most_rows(kept, experts, capacity if bounded else 0.0, groups)
  let rows = dispatch(x, kept, experts, drops = bounded or skip, most = most)
  return combine(expert_ffn(rows, hidden, p, again) as "experts", kept, gates), aux
}

# Choices i32[.., k] with `experts`, which is none, in place of those beyond what
# an expert takes (GShard, Algorithm 1): tokens are cut into `groups` in order,
# and of each group an expert takes `factor` times the mean, rounded up, first
# choices before second ones, tokens in order. No mesh changes what is kept.
fn within_capacity(ids: i32[.., k], experts, factor, groups) {
  let tokens = size(reshape(ids, -1, k), 0)
  require(groups >= 1 and tokens % groups == 0,
          "tokens must divide by the groups that have a capacity", tokens, groups)
  let line = reshape(transpose(reshape(ids, groups, -1, k), 0, 2, 1), groups, -1)
  let most = factor * size(line, 1) / experts
  let chosen = f32(expand(line) == iota_like(line, experts))
  let before = cumsum(transpose(chosen, 0, 2, 1), exclusive = true)
  let place[g, c] = chosen[g, c, n] * before[g, n, c]
  let kept = select(place < most, line, experts)
  return reshape(transpose(reshape(kept, groups, k, -1), 0, 2, 1), i32[.., k])
}

# What within_capacity leaves an expert at most, or a little more; without a
# factor all choices.
fn most_rows(ids: i32[.., k], experts, factor, groups) {
  let all = size(reshape(ids, -1), 0)
  return factor * all / experts + groups if factor > 0.0 else all
}

# The experts' networks on their own rows, without biases: f32[n, r, d] -> same.
fn expert_ffn(x: f32[n, r, d], hidden, p = 0.0, again = false) {
  param w1: f32[n @dev @expert, d, hidden @model] = glorot()
  param w2: f32[n @dev @expert, hidden @model, d] = glorot()
  let hidden_of = expert_hidden_again if again else expert_hidden
  let a = hidden_of(x, w1, p) as ""
  let y[n, r, d] = a[n, r, h] * w2[n, h, d]
  return y
}
fn expert_hidden(x: f32[n, r, d], w1: f32[n, d, m], p) {
  let h[n, r, h] = x[n, r, d] * w1[n, d, h]
  let a = dropout(relu(h), p)
  return a
}
fn expert_hidden_again(x: f32[n, r, d], w1: f32[n, d, m], p) {
  recompute { let a = expert_hidden(x, w1, p) as "" }
  return a
}

# Noisy top-k gating (Eq. 3 to 5) with the importance and load losses (Eq. 6 to
# 11). Noise is drawn in training only; `floor` is added to its standard deviation
# (1e-2 in tensor2tensor, 0 in the paper). there: f32[.., 1], 1 for tokens that are
# there and 0 for padding, which counts nowhere and, by moe(.., skip = true),
# reaches no expert.
fn noisy_top_k(k, w_importance = 0.1, w_load = 0.1, floor = 0.0, there = 1.0)(x: f32[.., d], experts) {
  require(k >= 1 and k <= experts,
          "experts per token must be 1 to the number of experts", k, experts)
  let gates, ids, all, load = noisy_level(x, experts, k, floor) as ""
  let dense = all * there
  let rows = sum_rows(f32(dense > 0.0))
  let aux = balance(sum_rows(dense), sum_rows(load * there), rows, w_importance, w_load) as ""
  return gates * there, ids, aux
}

# Noisy top-k over logits of its own. One weight holds W_g in [:, 0, :] and
# W_noise in [:, 1, :], so that the gate is a single contraction; both start at
# zero, as in the paper.
fn noisy_level(x: f32[.., d], experts, k, floor = 0.0) {
  param w: f32[d, 2, experts] = 0.0
  let z[.., j, n] = x[.., d] * w[d, j, n]
  return noisy_draw(z, k, floor) as ""
}

# The same from both logits, f32[.., 2, n].
fn noisy_draw(z: f32[.., n], k, floor = 0.0) {
  let clean = z[.., 0, :]
  let noise = normal(random_bits(clean)) if training else zeros_like(clean)
  return noisy_top_k_gates(clean, z[.., 1, :], noise, k, noisy = training, floor = floor)
}

# Both losses from f32[n] sums over a batch (Eq. 7 and 11).
fn balance(importance: f32[n], load: f32[n], rows: f32[n], w_importance, w_load) {
  report cv_importance = sqrt(cv_squared(importance))
  report_rows(rows) as ""
  return w_importance * cv_squared(importance) + w_load * cv_squared(load)
}

# How even the experts' numbers of rows f32[n] are; the second is 1 more than
# MaxVio of Wang et al. 2024.
fn report_rows(rows: f32[n]) {
  report cv_load = sqrt(cv_squared(rows))
  report max_over_mean_load = max(rows) / (mean(rows) + 1e-10)
}

# The gate from its two logits and a noise sample, all f32[.., n]:
#   gates f32[.., k], ids i32[.., k]   the k kept, by descending noisy logit
#   dense f32[.., n]                   G(x), zero outside of the kept
#   load  f32[.., n]                   P(x, i), Eq. 9
# Not noisy, or with every expert kept, P is the 0/1 indicator of being kept.
fn noisy_top_k_gates(clean: f32[.., n], raw: f32[.., n], noise: f32[.., n], k, noisy,
                     floor = 0.0) {
  let std = softplus(raw) + floor if floor > 0.0 else softplus(raw)
  let h = clean + noise * std if noisy else clean
  let top, all_ids = top_k(h, min(k + 1, n))
  let ids = all_ids[.., 0:k]
  let gates = softmax(top[.., 0:k])
  let dense = put(gates, ids, n)
  if noisy and k < n {
    # kth_excluding: the (k+1)-th largest for a kept expert, else the k-th.
    let inside = h > top[.., k:k+1]
    let threshold = select(inside, top[.., k:k+1], top[.., k-1:k])
    let load = normal_cdf((clean - threshold) / std)
    return gates, ids, dense, load
  } else {
    return gates, ids, dense, f32(dense > 0.0)
  }
}

# Distribution function of the standard normal.
fn normal_cdf(x: f32[..]) { return 0.5 * (1.0 + erf(x / sqrt(2.0))) }

# Sums all dims but the last.
fn sum_rows(x: f32[.., n]) {
  let s[n] = x[.., n]
  return s
}

# Squared coefficient of variation, population variance; 0 for all zeros.
fn cv_squared(v: f32[n]) {
  let m = mean(v)
  return mean((v - m) * (v - m)) / (m * m + 1e-10)
}
