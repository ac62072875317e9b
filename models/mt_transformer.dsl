# Translation: a transformer's encoder and decoder, in both of which every other
# feed-forward layer is a mixture of experts (GShard, Lepikhin et al. 2020): two
# experts a token, the second one at random by its gate, a capacity in groups of
# tokens. Both languages and the softmax share one table of words. 2 x 6 layers,
# 512 wide: 31.6 million parameters without the table and experts, and 67.1
# million a layer of experts. Trained and used like mt_moe.dsl.
import "lib/attention.dsl"
import "lib/transformer.dsl"
import "lib/softmax.dsl"
import "lib/optim.dsl"

const V = 10000   # vocabulary
const D = 512     # model width
const L = 6       # layers of the encoder, and of the decoder
const HEADS = 8
const F = 2048    # hidden width of dense layers
const EVERY = 2   # of as many layers the last has experts; 0: none has
const N = 32      # experts
const K = 2       # experts per token, of gates that leave it open
const H = 2048    # hidden width of an expert
const P = 0.1     # dropout
const GATE = "gshard"
const CAPACITY = 1.0
const GROUPS = 4
const SHORT = 16  # tokens of a sentence, its end included: pairs go to the
const MIDDLE = 32 # smallest of three sizes that holds both sentences
const LONG = 48
const W = 4800    # positions of a batch, padding included: a multiple of each
const WARMUP = 2000     # steps of linear warm-up
const BEAM = 4          # translations followed at once
const SENTENCES = 16    # searched for at once
option lr = 1e-3

# Words at their places.
fn start(x: i32[b, t], table: f32[v, d]) {
  return dropout(gather(table, x) * sqrt(d), P)
}

fn encoder(x: i32[b, s], there: f32[b, s], table: f32[v, d]) {
  let h, aux = for i in 0..L with h = start(x, table), aux = 0.0 {
    let a = self_attention(rms_norm(h) as "norm1", HEADS, causal = false, rotary = true, mask = there > 0.0) as "attention"
    let y, more = feed_forward(i, h + dropout(a, P), x, there) as ""
    next h = y, aux = aux + more
  }
  return rms_norm(h) as "norm", aux
}

# What the words behind y follow from, f32[b, t, d], and the gates' losses. In a search b are BEAM rows for each
# sentence of the memory: they ask it side by side, like positions, and `past`
# says which rows they go on from.
fn decoder(y: i32[b, t], y_there: f32[b, t], memory: f32[n, s, d], there: f32[n, s], table: f32[v, d], past = unchanged) {
  let h, aux = for i in 0..L with h = start(y, table), aux = 0.0 {
    let a = self_attention(rms_norm(h) as "norm1", HEADS, rotary = true, context = 2 * s, past = past) as "attention"
    let m = h + dropout(a, P)
    let asked = reshape(rms_norm(m) as "norm", n, -1, d)
    let c = cross_attention(asked, memory, HEADS, mask = there > 0.0) as "cross"
    let r, more = feed_forward(i, m + dropout(reshape(c, f32[b, t, d]), P), y, y_there) as ""
    next h = r, aux = aux + more
  }
  return rms_norm(h) as "norm", aux
}

# Negative log likelihood of each token of a translation, and the gates' losses.
fn translation(x: i32[b, s], there: f32[b, s], y: i32[b, t], labels: i32[b, t], y_there: f32[b, t]) {
  let table = embedding(V, D) as "embed"
  let memory, aux = encoder(x, there, table) as "encoder"
  let h, aux2 = decoder(y, y_there, memory, there, table) as "decoder"
  let each = losses(h, table, zeros(f32[V]), labels) as "softmax"
  return each * y_there, aux + aux2
}

# ---- entries -------------------------------------------------------------------

entry train for S in {SHORT, MIDDLE, LONG} (
    x: i32[W / S @data @dev @expert, S] from pairs.source(below = V),
    there: f32[W / S @data @dev @expert, S] from pairs.source(mask),
    y: i32[W / S @data @dev @expert, S] from pairs.target,
    labels: i32[W / S @data @dev @expert, S] from pairs.target(shift = 1),
    y_there: f32[W / S @data @dev @expert, S] from pairs.target(mask)) {
  let each, aux = translation(x, there, y, labels, y_there) as ""
  let nll = sum(each) / sum(y_there)
  let rate = warmup_rsqrt(lr, WARMUP)
  minimize nll + aux with { "*": clip(adam(rate, b2 = 0.98), 1.0) }
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
  let each, aux = translation(x, there, y, labels, y_there) as ""
  report nll = sum(each)
  report tokens = sum(y_there)
}

# What all steps of a search need of its sentences.
entry encode for S in {SHORT, MIDDLE, LONG} (
    x: i32[SENTENCES, S] from pairs.source(below = V),
    there: f32[SENTENCES, S] from pairs.source(mask)) {
  let table = embedding(V, D) as "embed"
  let memory, aux = encoder(x, there, table) as "encoder"
  report memory = memory
  report there = there
}

# The next word of each row, BEAM rows a sentence: row r goes on from what row
# parents[r] was before, with its last word tokens[r].
entry decode for S in {SHORT, MIDDLE, LONG} (
    tokens: i32[SENTENCES * BEAM] from beam.tokens,
    parents: i32[SENTENCES * BEAM] from beam.parents,
    memory: f32[SENTENCES, S, D] from encode.memory,
    there: f32[SENTENCES, S] from encode.there) {
  let table = embedding(V, D) as "embed"
  let y = reshape(tokens, -1, 1)
  let h, aux = decoder(y, ones(f32[SENTENCES * BEAM, 1]), memory, there, table, rows(parents)) as "decoder"
  let z = logits(h, table, zeros(f32[V])) as "softmax"
  let scores, words = top_k(log_softmax(z[:, 0, :]), 2 * BEAM)
  report scores = scores, words = words
}
fn rows(ids: i32[r])(x) { return gather(x, ids) }
