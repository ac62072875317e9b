# LSTM language model with a mixture-of-experts layer: MoE-32 of Shazeer et al.
# 2017, Appendix C.1, over bytes.
import "lib/nn.dsl"
import "lib/lstm.dsl"
import "lib/moe.dsl"
import "lib/optim.dsl"

const V = 256     # vocabulary (bytes)
const D = 512     # model width
const N = 32      # experts
const K = 4       # experts per token
const H = 1024    # hidden width of an expert
const T = 32      # time steps per batch
const B = 64      # sequences per batch, over the whole mesh
const P = 0.1     # dropout
const W_IMPORTANCE = 0.1
const W_LOAD = 0.1
const WARMUP = 1000
option lr = 1e-3
mesh dev          # size from --mesh dev=8, default 1

# Each layer: sigmoid (MoE only), dropout, then the residual.
fn body(x: i32[b, t]) {
  let e      = dropout(embed(x, V, D) as "embed", P)
  let a      = e + dropout(lstm(e, D) as "lstm1", P)
  let m, aux = moe(a, experts = N, hidden = H,
                   gate = noisy_top_k(k = K, w_importance = W_IMPORTANCE, w_load = W_LOAD)) as "moe"
  let q      = a + dropout(sigmoid(m), P)
  let c      = q + dropout(lstm(q, D) as "lstm2", P)
  return linear(c, V) as "softmax", aux
}

entry train(x: i32[B @dev, T] from text, y: i32[B @dev, T] from text(shift = 1)) {
  let logits, aux = body(x) as "lm"
  let nll = cross_entropy(logits, y)
  let rate = warmup_rsqrt(lr, WARMUP)
  minimize nll + aux with { "*": adam(rate) }
  report loss = nll
  report perplexity = exp(nll)
  report lr = rate
}

# Every token of a file: sums, so that the masked end of it does not count.
entry eval(x: i32[B @dev, T] from text, y: i32[B @dev, T] from text(shift = 1),
           counts: f32[B @dev, T] from text(mask, shift = 1)) {
  let logits, aux = body(x) as "lm"
  report nll = sum(cross_entropy_each(logits, y) * counts)
  report tokens = sum(counts)
}

# One token in, the distribution of the next one out.
entry decode(x: i32[1, 1] from tokens) {
  let logits, aux = body(x) as "lm"
  report logits = logits[0, 0, :]
}
