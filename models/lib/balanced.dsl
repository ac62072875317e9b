# Gates that look at a whole batch of tokens, so that experts get as many rows
# each: with the signature of those in gates.dsl. Tokens are cut in order into
# `groups` that are balanced on their own in training, whatever the mesh. Where a token may
# have any number of experts, `most` bounds it; choices beyond, those of the
# smallest gates, are left out, and so are empty ones with moe(..., skip = true).
# Letters: d model, g groups, s tokens of one, n experts.
import "gates.dsl"

# ---- what they share -------------------------------------------------------

# Of each column the m largest: 1 for those, else 0, with ties to the first token;
# and the m-th itself, f32[g, 1, n].
fn largest_of_columns(z: f32[g, s, n], m) {
  let top, tokens = top_k(transpose(z, 0, 2, 1), m)
  let chosen = transpose(put(ones_like(top), tokens, s), 0, 2, 1)
  return chosen, reshape(top[:, :, -1:m], g, 1, n)
}

# Of each column at most the m largest, and no more than there is room for.
fn largest_with_room(z: f32[g, s, n], m, room: f32[g]) {
  let top, tokens = top_k(transpose(z, 0, 2, 1), m)
  let kept = f32(f32(iota(top, dim = 2) + 1) <= reshape(room, g, 1, 1))
  return transpose(put(kept, tokens, s), 0, 2, 1)
}

# What is not 0 of f32[.., n] as choices: the `most` largest.
fn as_choices(dense: f32[.., n], most) {
  report_rows(sum_rows(f32(dense > 0.0))) as ""
  return top_k(dense, most)
}

# ---- expert choice (Zhou et al. 2022) -----------------------------------------

# Each expert takes the c * s / n tokens of a group with the highest probability
# for it; a token may get any number of experts. Not causal.
fn expert_choice_gate(most, c = 2.0, groups = 1)(x: f32[.., d], experts) {
  require(most >= 1 and most <= experts,
          "experts per token must be 1 to the number of experts", most, experts)
  require(c > 0.0 and c <= experts, "c is above 0 and at most the number of experts", c, experts)
  let p = softmax(router(x, experts) as "")
  let s = by_group(p, groups if training else 1)
  let mask, _ = largest_of_columns(s, max(1, floor(c * size(s, 1) / experts)))
  let gates, ids = as_choices(reshape(s * mask, f32[.., experts]), most) as ""
  return gates, ids, 0.0
}

# ---- strictly balanced (Shazeer et al. 2017, Appendix F) ----------------------

# In training the k * s / n largest gates of each expert (Eq. 18), elsewhere those
# above its threshold (Eq. 19), which a loss of weight `w_threshold` learns
# (Eq. 20; its gradient goes to thresholds alone). Gates are shares of those
# that are kept (Eq. 16). Tokens that `there`, as in noisy_top_k, says are none
# have no expert and do not count: an expert takes k / n of the others.
fn balanced_gate(k, most, w_threshold = 1.0, groups = 1, there = 1.0)(x: f32[.., d], experts) {
  require(k >= 1 and k <= experts,
          "experts per token must be 1 to the number of experts", k, experts)
  require(most >= 1 and most <= experts,
          "experts per token must be 1 to the number of experts", most, experts)
  param threshold: f32[experts] = 1.0 / experts
  let p = softmax(router(x, experts) as "") * there
  if training {
    let kept = largest_in_batch(p, k, groups, there) as ""
    let gates, ids = as_choices(shares_of(p * kept), most) as ""
    return gates, ids, w_threshold * threshold_loss(p, threshold, kept, there)
  } else {
    let above = select(p > threshold, p, 0.0) * there
    let gates, ids = as_choices(shares_of(above), most) as ""
    return gates, ids, 0.0
  }
}

# Where all tokens are there, the m-th largest of a column is the last one kept;
# else fewer are.
fn largest_in_batch(p: f32[.., n], k, groups, there = 1.0) {
  let s = by_group(p, groups)
  let choices = k * size(s, 1)
  require(choices % n == 0, "choices of a group must divide by the experts", choices, n)
  let tokens[g] = by_group(there * ones_like(p[.., 0:1]), groups)[g, s, c]
  return reshape(largest_with_room(s, choices / n, tokens * k / n), f32[.., n])
}

fn threshold_loss(p: f32[.., n], threshold: f32[n], batchwise: f32[.., n], there = 1.0) {
  let fixed = stop_gradient(p)
  return sum((f32(fixed > threshold) - batchwise) * (fixed - threshold) * there)
}

# ---- Sinkhorn (as in Megatron-LM) --------------------------------------------

# In training the k largest of a matrix with equal sums of rows and of columns,
# elsewhere of the activations: sigmoid of logits for k = 1, else softmax. Gates
# are activations either way.
fn sinkhorn_gate(k, rounds = 8, groups = 1)(x: f32[.., d], experts) {
  require(k >= 1 and k <= experts,
          "experts per token must be 1 to the number of experts", k, experts)
  let z = router(x, experts) as ""
  let activations = sigmoid(z) if k == 1 else softmax(z)
  let by = sinkhorn(by_group(stop_gradient(z), groups), rounds) if training else activations
  let _, ids = top_k(reshape(stop_gradient(by), f32[.., experts]), k)
  let gates = take(activations, ids)
  report_rows(sum_rows(put(ones_like(gates), ids, experts))) as ""
  return gates, ids, 0.0
}

# exp(z), with rows and columns scaled by turns so that columns add up to 1 / n and
# rows, nearly, to 1 / s.
fn sinkhorn(z: f32[g, s, n], rounds) {
  require(rounds >= 1, "at least one round", rounds)
  let cost = exp(z - max(z, dim = -1, keep = true))
  let start: f32[g, n] = 1.0
  let columns, rows = for i in 0..rounds with d1 = start, d0 = zeros(f32[g, s]) {
    let across[g, s] = cost[g, s, n] * d1[g, n]
    let r = 1.0 / s / (across + 1e-8)
    let down[g, n] = cost[g, s, n] * r[g, s]
    next d1 = 1.0 / n / (down + 1e-8), d0 = r
  }
  return expand(rows) * cost * reshape(columns, g, 1, n)
}

# ---- BASE (Lewis et al. 2021) --------------------------------------------------

# One expert a token and s / n tokens an expert, so that the sum of scores is about
# the largest, by an auction of `rounds`; elsewhere than in training the expert of
# the highest score. The gate is the sigmoid of the score, and the output is to be
# added to x: x + gate * expert(x). No gradient through the choice, no loss.
fn base_gate(rounds = 20, groups = 1)(x: f32[.., d], experts) {
  param w: f32[d, experts] = normal_init(0.1 / sqrt(d))
  let z[.., n] = x[.., d] * w[d, n]
  let ids = assigned(stop_gradient(z), rounds, groups) if training else first_of(stop_gradient(z))
  let gates = sigmoid(take(z, ids))
  report_rows(sum_rows(put(ones_like(gates), ids, experts))) as ""
  return gates, ids, 0.0
}

fn first_of(z: f32[.., n]) {
  let _, ids = top_k(z, 1)
  return ids
}

fn assigned(z: f32[.., n], rounds, groups) {
  let s = by_group(z, groups)
  require(size(s, 1) % n == 0,
          "tokens of a group must divide by the experts", size(s, 1), n)
  return reshape(assign(s, rounds), i32[.., 1])
}

# An auction (Bertsekas 1992): tokens without an expert bid for the one that is
# worth most to them after its price, by as much as makes the next best as good; an
# expert keeps its s / n highest bids, and its price is the lowest of them once it
# has so many. Tokens that have none in the end get the places that are left, in
# order. Each expert gets s / n tokens: i32[g, s].
fn assign(z: f32[g, s, n], rounds) {
  let m = s / n
  let spread = max(z, dim = -1, keep = true) - min(z, dim = -1, keep = true)
  let step = max(1e-3 * max(spread, dim = 1, keep = true), 1e-6)
  # What is bid: above 0 for the expert of a token, else 0.
  let bids, _ = scan i in 0..rounds with held = zeros_like(z), asked = zeros(f32[g, 1, n]) {
    let price = full(f32[g, s, n], asked)
    let top, which = top_k(z - price, min(2, n))
    let best = which[:, :, 0:1]
    let margin = top[:, :, 0:1] - top[:, :, -1:size(top, 2)]
    let free = f32(max(held, dim = -1, keep = true) == 0.0)
    let bid = held + put(free * (take(price, best) + margin + step), best, n)
    let kept, lowest = largest_of_columns(bid, m)
    next held = bid * kept, asked = lowest
  }
  let most, which = top_k(bids, 1)
  let free = f32(most[:, :, 0] == 0.0)
  let places = cumsum(m - sum(f32(bids > 0.0), dim = 1))
  let rest = expand(cumsum(free, exclusive = true)) >= reshape(places, g, 1, n)
  return select(free > 0.0, i32(sum(f32(rest), dim = -1)), which[:, :, 0])
}
