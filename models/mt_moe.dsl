# Translation: LSTM encoder and decoder with attention between them and a
# mixture of experts in each (Shazeer et al. 2017, Appendices E and G), over a
# vocabulary that both languages share. The encoder's first layer reads both ways
# (Wu et al. 2016). `moerun train --target` trains it on pairs of sentences,
# `moerun translate` searches for translations.
import "lib/lstm.dsl"
import "lib/moe.dsl"
import "lib/hierarchical.dsl"
import "lib/balanced.dsl"
import "lib/nn.dsl"
import "lib/optim.dsl"

const V = 10000   # vocabulary
const D = 512     # model width
const U = 2048    # LSTM units, projected to D
const N = 32      # experts; 0: none
const A = 0       # groups of experts, for a gate of two levels; 0: one level
const K = 4       # experts per token, with two levels groups and experts of each
const GATE = "noisy_top_k"  # or "balanced", strictly (Appendix F)
const MOST = min(8, N)      # experts of a token that balanced may give it
const H = 2048    # hidden width of an expert
const P = 0.4     # dropout
const SHORT = 16  # tokens of a sentence, its end included: pairs go to the
const MIDDLE = 32 # smallest of three sizes that holds both sentences
const LONG = 48
const W = 4800    # positions of a batch, padding included: a multiple of each
const WARMUP = 2000     # steps of linear warm-up
const FLAT = 8000       # and of a constant rate behind; then as 1 / sqrt(step)
const STEPS = 0         # above 0: half a cosine in the place of both, to this step
const SMOOTH = 0.0      # part of each label that is spread over the vocabulary
const BEAM = 4          # translations followed at once
const SENTENCES = 16    # searched for at once
const W_IMPORTANCE = 0.01
const W_LOAD = 0.01
option lr = 1e-3

# The loss that teaches thresholds is a sum over tokens: as it is, it would be
# most of the norm that gradients are clipped by. Adam learns as fast from a mean.
fn gate(there) {
  require(GATE == "noisy_top_k" or GATE == "balanced",
          "there is no gate of this name for translation", GATE)
  if GATE == "balanced" and A > 0 {
    return balanced_levels(groups = A, k = K, most = MOST, w_threshold = 1.0 / W, there = there)
  }
  else if GATE == "balanced" { return balanced_gate(k = K, most = MOST, w_threshold = 1.0 / W, there = there) }
  else if A > 0 { return hierarchical(groups = A, k = K, w_importance = W_IMPORTANCE, w_load = W_LOAD, there = there) }
  else { return noisy_top_k(k = K, w_importance = W_IMPORTANCE, w_load = W_LOAD, there = there) }
}

# ---- layers: each with dropout and a residual ----------------------------------

# Padding reaches no expert.
fn experts(x: f32[b, t, d], there: f32[b, t]) {
  if N == 0 {
    return x, 0.0
  } else {
    let m, aux = moe(x, experts = N, hidden = H, gate = gate(expand(there)), skip = true) as "moe"
    return x + dropout(sigmoid(m), P), aux
  }
}

fn recurrent(x: f32[b, t, d]) {
  let zero = zeros(f32[b, d])
  let y, h, c = lstm_from(x, zero, zeros(f32[b, U])) as ""
  return x + dropout(y, P)
}

# ---- encoder -------------------------------------------------------------------

fn encoder(x: i32[b, s], there: f32[b, s]) {
  let e      = dropout(sqrt(D) * embed(x, V, D) as "", P)
  let a      = e + dropout(lstm_both(e, there, U, D) as "lstm1", P)
  let q      = recurrent(a) as "lstm2"
  let m, aux = experts(q, there) as ""
  let memory = recurrent(m) as "lstm3"
  return memory, aux
}

# ---- attention: Appendix G, Eq. 22 ----------------------------------------------

# What is asked of each position of the memory, [b, s, d].
fn attention_keys(memory: f32[b, s, d]) {
  param u: f32[d, d] = glorot()
  param v: f32[d] = 1.0 / sqrt(d)
  let keys[b, s, n] = memory[b, s, d] * u[d, n]
  return tanh(keys) * v
}

# The memory where it answers to a query, [b, d].
fn attend(query: f32[b, d], keys: f32[b, s, d], memory: f32[b, s, d], there: f32[b, s]) {
  let scores[b, s] = keys[b, s, n] * query[b, n]
  let weights = softmax(select(there > 0.0, scores, -1e9))
  let context[b, d] = weights[b, s] * memory[b, s, d]
  return context
}

# ---- decoder -------------------------------------------------------------------

# An LSTM that at each step also takes what it attends to, by its output before
# and the step's word: outputs and contexts, then its output and cell after the
# last step.
fn attentive(x: f32[b, t, d], keys: f32[b, s, d], memory: f32[b, s, d], there: f32[b, s], h0: f32[b, d], c0: f32[b, n]) {
  param w: f32[d, 4, n] = uniform_init(1.0 / sqrt(n))
  param a: f32[d, 4, n] = uniform_init(1.0 / sqrt(n))
  param u: f32[d, 4, n] = uniform_init(1.0 / sqrt(n))
  param bias: f32[4, n] = forget_bias
  param word: f32[d, d] = glorot()
  param past: f32[d, d] = glorot()
  let output = projection(n, d) as "out"
  let ys, contexts, hn, cn = scan xt in x along 1 with h = h0, c = c0 {
    let qx[b, n] = xt[b, d] * word[d, n]
    let qh[b, n] = h[b, d] * past[d, n]
    let context = attend(tanh(qx + qh), keys, memory, there)
    let zx[b, g, n] = xt[b, d] * w[d, g, n]
    let za[b, g, n] = context[b, d] * a[d, g, n]
    let zh[b, g, n] = h[b, d] * u[d, g, n]
    let y, c1 = lstm_cell(zx + za + zh + bias, c)
    let h1 = output(y)
    next h = h1, c = c1
    yield h1, context
  }
  return ys, contexts, hn, cn
}

# From the states h1, h2 f32[b, D] and c1, c2 f32[b, U] to logits f32[b, t, V]
# and the next states.
fn decoder(y: i32[b, t], y_there: f32[b, t], memory: f32[b, s, d], keys: f32[b, s, d], there: f32[b, s],
           h1: f32[b, d], c1: f32[b, n], h2: f32[b, d], c2: f32[b, n]) {
  let e = dropout(sqrt(D) * embed(y, V, D) as "", P)
  let o, context, h1n, c1n = attentive(e, keys, memory, there, h1, c1) as "lstm1"
  let q = e + dropout(o + context, P)
  let m, aux = experts(q, y_there) as ""
  let r, h2n, c2n = lstm_from(m, h2, c2) as "lstm2"
  let logits = linear(m + dropout(r, P), V) as "softmax"
  return logits, aux, h1n, c1n, h2n, c2n
}

# Negative log likelihood of each token of a translation, what is minimized of it,
# and the gates' losses.
fn translation(x: i32[b, s], there: f32[b, s], y: i32[b, t], labels: i32[b, t], y_there: f32[b, t]) {
  let memory, aux = encoder(x, there) as "encoder"
  let keys = attention_keys(memory) as "attention"
  let h = zeros(f32[b, D])
  let c = zeros(f32[b, U])
  let logits, aux2, _, _, _, _ = decoder(y, y_there, memory, keys, there, h, c, h, c) as "decoder"
  let nll = cross_entropy_each(logits, labels) * y_there
  let smoothed = cross_entropy_each(logits, labels, SMOOTH) * y_there
  return nll, smoothed, aux + aux2
}

# ---- entries -------------------------------------------------------------------

entry train for S in {SHORT, MIDDLE, LONG} (
    x: i32[W / S @data @dev @expert, S] from pairs.source(below = V),
    there: f32[W / S @data @dev @expert, S] from pairs.source(mask),
    y: i32[W / S @data @dev @expert, S] from pairs.target,
    labels: i32[W / S @data @dev @expert, S] from pairs.target(shift = 1),
    y_there: f32[W / S @data @dev @expert, S] from pairs.target(mask)) {
  let each, smoothed, aux = translation(x, there, y, labels, y_there) as ""
  let nll = sum(each) / sum(y_there)
  let rate = warmup_cosine(lr, WARMUP, STEPS, floor = 0.0) if STEPS > 0 else warmup_flat_rsqrt(lr, WARMUP, FLAT)
  minimize sum(smoothed) / sum(y_there) + aux with { "*": clip(adam(rate), 5.0) }
  report loss = nll
  report perplexity = exp(nll)
  report lr = rate
}

entry eval for S in {SHORT, MIDDLE, LONG} (
    x: i32[W / S @data @dev @expert, S] from pairs.source(below = V),
    there: f32[W / S @data @dev @expert, S] from pairs.source(mask),
    y: i32[W / S @data @dev @expert, S] from pairs.target,
    labels: i32[W / S @data @dev @expert, S] from pairs.target(shift = 1),
    y_there: f32[W / S @data @dev @expert, S] from pairs.target(mask)) {
  let each, _, _ = translation(x, there, y, labels, y_there) as ""
  report nll = sum(each)
  report tokens = sum(y_there)
}

# What all steps of a search need of its sentences.
entry encode for S in {SHORT, MIDDLE, LONG} (
    x: i32[SENTENCES, S] from pairs.source(below = V),
    there: f32[SENTENCES, S] from pairs.source(mask)) {
  let memory, aux = encoder(x, there) as "encoder"
  report memory = memory
  report keys = attention_keys(memory) as "attention"
  report there = there
}

# The next word of each row, BEAM rows a sentence: row r goes on from what row
# parents[r] was before, with its last word tokens[r].
entry decode for S in {SHORT, MIDDLE, LONG} (
    tokens: i32[SENTENCES * BEAM] from beam.tokens,
    parents: i32[SENTENCES * BEAM] from beam.parents,
    memory: f32[SENTENCES, S, D] from encode.memory,
    keys: f32[SENTENCES, S, D] from encode.keys,
    there: f32[SENTENCES, S] from encode.there) {
  state h1: f32[SENTENCES * BEAM, D]
  state c1: f32[SENTENCES * BEAM, U]
  state h2: f32[SENTENCES * BEAM, D]
  state c2: f32[SENTENCES * BEAM, U]
  let all = ones(f32[SENTENCES * BEAM, 1])
  let logits, aux, h1n, c1n, h2n, c2n = decoder(
      reshape(tokens, -1, 1), all,
      rows_of(memory, tokens), rows_of(keys, tokens), rows_of(there, tokens),
      gather(h1, parents), gather(c1, parents), gather(h2, parents), gather(c2, parents)) as "decoder"
  set h1 = h1n, c1 = c1n, h2 = h2n, c2 = c2n
  let scores, words = top_k(log_softmax(logits[:, 0, :]), 2 * BEAM)
  report scores = scores, words = words
}

# Each sentence's part for all its rows.
fn rows_of(x: f32[n, ..], rows: i32[r]) { return gather(x, iota(rows, dim = 0) / (r / n)) }
