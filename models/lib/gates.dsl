# Gates in which each token chooses its experts by itself. Like noisy_top_k of
# moe.dsl they are functions from tokens f32[.., d] and a number of experts to
#   gates f32[.., k], ids i32[.., k], an auxiliary loss f32[]
# and go to moe(..., gate = ...), with a capacity or without. A choice that a gate
# leaves empty has the gate 0; moe(..., skip = true) then saves its row. Letters:
# d model, n experts, k choices.
import "init.dsl"
import "nn.dsl"
import "moe.dsl"

# ---- what gates share ------------------------------------------------------

# Logits of a linear router without a bias, from small weights (Fedus et al. 2021).
fn router(x: f32[.., d], experts) {
  param w: f32[d, experts] = truncated_normal(0.1)
  let z[.., n] = x[.., d] * w[d, n]
  return z
}

# f32[.., n] -> f32[g, s, n], groups of tokens in order.
fn by_group(z: f32[.., n], groups) {
  require(groups >= 1 and count_tokens(z) % groups == 0,
          "tokens must divide by the groups", count_tokens(z), groups)
  return reshape(z, groups, -1, n)
}

# How many tokens f32[.., n] has.
fn count_tokens(x: f32[.., n]) { return size(reshape(x, -1, n), 0) }

# 1 for the experts that are chosen, f32[.., n]; an empty choice, of gate 0, is
# none. Ids of a token differ.
fn chosen_of(gates: f32[.., k], ids: i32[.., k], experts) {
  return put(f32(gates > 0.0), ids, experts)
}

# Shares of the sum; zeros where all are 0.
fn shares_of(x: f32[.., n]) { return x / (sum(x, dim = -1, keep = true) + 1e-20) }

# Fedus et al. 2021, and 1 / n^2 of it GShard: n times the sum over experts of the
# share of choices and the mean probability. 1 where both are even; only the
# probabilities have a gradient.
fn share_loss(p: f32[.., n], chosen: f32[.., n]) {
  let rows = sum_rows(chosen)
  report_rows(rows) as ""
  let shares = rows / (sum(rows) + 1e-10)
  return n * sum(shares * sum_rows(p)) / count_tokens(p)
}

# Router z-loss (Zoph et al. 2022): keeps logits small.
fn z_loss(logits: f32[.., n]) {
  let z = log_sum_exp(logits)
  return mean(z * z)
}

# Any gate, and no expert for tokens that `there`, as in noisy_top_k, says are
# none; in what the gate itself sums up they count.
fn only(gate, there)(x: f32[.., d], experts) {
  let gates, ids, aux = gate(x, experts) as ""
  return gates * there, ids, aux
}

# Any gate, in training by tokens each of whose elements is multiplied by a
# number from 1 - by to 1 + by (Fedus et al. 2021); experts get what they were.
fn jittered(gate, by)(x: f32[.., d], experts) {
  require(by >= 0.0 and by < 1.0, "jitter must be from 0 to below 1", by)
  let noise = 2.0 * uniform(random_bits(x)) - 1.0
  let gates, ids, aux = gate(x * (1.0 + by * noise) if training and by > 0.0 else x, experts) as ""
  return gates, ids, aux
}

# ---- Switch (Fedus et al. 2021) ---------------------------------------------

# One expert a token; its gate is the probability itself, so that a gradient gets
# to the router.
fn switch_gate(w_balance = 1e-2, w_z = 0.0)(x: f32[.., d], experts) {
  let z = router(x, experts) as ""
  let p = softmax(z)
  let gates, ids = top_k(p, 1)
  let aux = w_balance * share_loss(p, chosen_of(gates, ids, experts)) as ""
  return gates, ids, aux + w_z * z_loss(z)
}

# ---- GShard (Lepikhin et al. 2020) ------------------------------------------

# Two experts a token, gates that add up to 1; the second one is used with twice
# its gate for a probability, in training. The loss is that of each of `groups`
# of tokens, as moe cuts them, over first choices, times n^2 (as Mesh-TensorFlow).
# By Algorithm 1 a second choice that is not used counts for the capacity all the
# same; with moe(..., skip = true) it does not, as in the code of Lingvo. `there`
# is that of noisy_top_k.
fn gshard_gate(w_balance = 1e-2, w_z = 0.0, groups = 1, there = 1.0)(x: f32[.., d], experts) {
  require(experts >= 2, "two experts a token need two experts", experts)
  let z = router(x, experts) as ""
  let p = softmax(z)
  let draw = uniform(random_bits(z[.., 0])) if training else zeros_like(z[.., 0])
  let open, ids = gshard_choices(p, draw)
  let gates = open * there
  let first = put(ones_like(gates[.., 0:1]), ids[.., 0:1], experts) * there
  report_rows(sum_rows(chosen_of(gates, ids, experts))) as ""
  return gates, ids, w_balance * gshard_loss(p * there, first, groups if training else 1) + w_z * z_loss(z)
}

# From probabilities and a draw in [0, 1) a token.
fn gshard_choices(p: f32[.., n], draw: f32[..]) {
  let top, ids = top_k(p, 2)
  let pair = top / sum(top, dim = -1, keep = true)
  let second = pair[.., 1:2]
  return concat(pair[.., 0:1], select(2.0 * second > expand(draw), second, 0.0), dim = -1), ids
}

# Tokens are counted by their first choices.
fn gshard_loss(p: f32[.., n], first: f32[.., n], groups) {
  let by_p = by_group(p, groups)
  let by_first = by_group(first, groups)
  let sum_p[g, n] = by_p[g, s, n]
  let rows[g, n] = by_first[g, s, n]
  let tokens = sum(rows, dim = -1, keep = true) + 1e-10
  return n * n * mean(sum_p / tokens * rows / tokens)
}

# ---- DeepSeekMoE (Dai et al. 2024) ------------------------------------------

# k of the routed experts by their score, `softmax` or `sigmoid` of the logits;
# gates are the scores, or with normalise = true (DeepSeek-V3) their shares. Losses
# over experts, and over `devices` of equally many experts. Experts that are always
# on are a layer of their own beside: ffn(x, hidden = how many * H).
fn deepseek_gate(k, score = softmax, normalise = false, w_balance = 1e-3, w_device = 0.0,
                 devices = 1)(x: f32[.., d], experts) {
  require(k >= 1 and k <= experts,
          "experts per token must be 1 to the number of experts", k, experts)
  let s = score(router(x, experts) as "")
  let top, ids = top_k(s, k)
  let gates = shares_of(top) if normalise else top
  let aux = deepseek_loss(s, chosen_of(gates, ids, experts), w_balance, w_device, devices) as ""
  return gates, ids, aux
}

fn deepseek_loss(s: f32[.., n], chosen: f32[.., n], w_balance, w_device, devices) {
  let rows = sum_rows(chosen)
  report_rows(rows) as ""
  let f = n * rows / (sum(rows) + 1e-10)
  let p = sum_rows(s) / count_tokens(s)
  let by_expert = w_balance * sum(f * p)
  if w_device == 0.0 { return by_expert } else {
    require(n % devices == 0, "experts must divide by devices", n, devices)
    let fd = mean(reshape(f, devices, -1), dim = -1)
    return by_expert + w_device * sum(fd * sum(reshape(p, devices, -1), dim = -1))
  }
}

# ---- balance without a loss (Wang et al. 2024) --------------------------------

# A bias an expert goes into the choice alone, not into the gates. After each step
# it moves by `rate`, up where an expert got fewer rows than the mean.
fn loss_free_gate(k, score = sigmoid, normalise = false, rate = 1e-3)(x: f32[.., d], experts) {
  require(k >= 1 and k <= experts,
          "experts per token must be 1 to the number of experts", k, experts)
  param bias: f32[experts] = 0.0
  let s = score(router(x, experts) as "")
  let _, ids = top_k(stop_gradient(s + bias), k)
  let top = take(s, ids)
  let gates = shares_of(top) if normalise else top
  let rows = sum_rows(put(ones_like(gates), ids, experts))
  report_rows(rows) as ""
  if training { set bias = next_bias(bias, rows, rate) }
  return gates, ids, 0.0
}

fn next_bias(bias: f32[n], rows: f32[n], rate) { return bias + rate * sign(mean(rows) - rows) }

# ---- hash (Roller et al. 2021) ------------------------------------------------

# Experts by the token itself, i32[..] shaped like x's leading dims: no weights, no
# loss. Several hashes may pick one expert twice.
fn hash_gate(tokens: i32[..], k = 1)(x: f32[.., d], experts) {
  require(k >= 1, "at least one expert a token", k)
  let gates, ids, aux = fixed_choices(hashes(tokens, k, experts), experts, 1.0 / k) as ""
  return gates, ids, aux
}

# MultiHash: k hashes, each of which picks from its own k-th part of the experts.
# What these make is added up, as of one expert whose hidden layer consists of k
# slices: each expert is to be as wide as a slice.
fn multi_hash_gate(tokens: i32[..], k = 2)(x: f32[.., d], experts) {
  require(k >= 1 and experts % k == 0,
          "the number of experts must be a multiple of the hashes", experts, k)
  let part = experts / k
  let ids = hashes(tokens, k, part) + part * iota_like(tokens, k)
  let gates, same, aux = fixed_choices(ids, experts, 1.0) as ""
  return gates, same, aux
}

# Balanced by frequency: each word of the vocabulary, from the most frequent to the
# rarest, has the expert that had the fewest tokens by then, where number i is as
# frequent as 1 / (i + 1), as in Zipf's law and in the order of `moerun vocab`.
fn even_hash_gate(tokens: i32[..], vocabulary)(x: f32[.., d], experts) {
  param table: i32[vocabulary] = dealt(experts)
  if training { set table = table }     # it is no optimiser's
  let gates, ids, aux = fixed_choices(expand(gather(table, tokens)), experts, 1.0) as ""
  return gates, ids, aux
}

fn dealt(experts)(table: i32[v]) {
  let experts_of, _ = scan i in 0..v with tokens = zeros(f32[experts]) {
    let _, least = top_k(-tokens, 1)
    next tokens = tokens + put(full(f32[1], 1.0 / (f32(i) + 1.0)), least, experts)
    yield least[0]
  }
  return experts_of
}

# k numbers below n for each token.
fn hashes(tokens: i32[..], k, n) {
  return i32(mulhi(mix_bits(mix_bits(expand(u32(tokens))) + u32(iota_like(tokens, k))), n))
}

fn fixed_choices(ids: i32[.., k], experts, gate) {
  let gates = full(f32[.., k], gate)
  report_rows(sum_rows(put(ones_like(gates), ids, experts))) as ""
  return gates, ids, 0.0
}

# ---- top-p (Huang et al. 2024) ------------------------------------------------

# The fewest experts whose probabilities reach p together, at most `most`. The
# entropy loss stops the router from making probabilities flat.
fn top_p_gate(p, most, w_balance = 1e-2, w_entropy = 1e-4)(x: f32[.., d], experts) {
  require(most >= 1 and most <= experts,
          "experts per token must be 1 to the number of experts", most, experts)
  require(p > 0.0 and p <= 1.0, "p must be above 0 and at most 1", p)
  let z = router(x, experts) as ""
  let probabilities = softmax(z)
  let top, ids = top_k(probabilities, most)
  let gates = select(cumsum(top, exclusive = true) < p, top, 0.0)
  let chosen = chosen_of(gates, ids, experts)
  report experts_per_token = sum(chosen) / count_tokens(chosen)
  let aux = w_balance * share_loss(probabilities, chosen) as ""
  return gates, ids, aux + w_entropy * entropy(z)
}

# Mean entropy of softmax(z).
fn entropy(z: f32[.., n]) {
  let log_p = log_softmax(z)
  return -sum(exp(log_p) * log_p) / count_tokens(z)
}

# ---- cosine (Chi et al. 2022) -------------------------------------------------

# Cosine of a token and of each expert's vector in `width` dims, over a learned
# temperature; the balance loss has the temperature it starts from.
fn cosine_gate(k, width, score = softmax, temperature = 0.3, w_balance = 1e-2)(x: f32[.., d], experts) {
  require(k >= 1 and k <= experts,
          "experts per token must be 1 to the number of experts", k, experts)
  param w: f32[d, width] = glorot()
  param vectors: f32[experts, width] = normal_init(1.0 / sqrt(width))
  param tau: f32[] = temperature
  let low[.., c] = x[.., d] * w[d, c]
  let u = unit(low)
  let v = unit(vectors)
  let s[.., n] = u[.., c] * v[n, c]
  let gates, ids = top_k(score(s / tau), k)
  let frozen = score(s / temperature)
  let aux = w_balance * share_loss(frozen, chosen_of(gates, ids, experts)) as ""
  return gates, ids, aux
}

# Length 1 along the last dim; zeros stay.
fn unit(x: f32[.., n]) { return x / sqrt(sum(x * x, dim = -1, keep = true) + 1e-20) }
