# LSTM language model with a mixture-of-experts layer: MoE-32 of Shazeer et al.
# 2017, Appendix C.1, over bytes. 37.8 million parameters without embedding,
# softmax and biases. README.md has the consts of the paper's other models.
import "lib/lm.dsl"
import "lib/lstm.dsl"
import "lib/moe.dsl"
import "lib/hierarchical.dsl"

const D = 512     # model width
const U = D       # units of an LSTM; other than D, projected to it
const N = 32      # experts
const A = 0       # groups of experts, for a gate of two levels; 0: one level
const K = 4       # experts per token, with two levels groups and experts of each
const H = 1024    # hidden width of an expert
const P = 0.1     # dropout
const CAPACITY = 0.0  # rows an expert takes, times the mean; 0: as many as come
const GROUPS = 1      # of tokens that have a capacity of their own
const W_IMPORTANCE = 0.1
const W_LOAD = 0.1

# One level of gates or two.
fn gate() {
  let two_levels = hierarchical(groups = A, k = K, w_importance = W_IMPORTANCE, w_load = W_LOAD)
  let one_level = noisy_top_k(k = K, w_importance = W_IMPORTANCE, w_load = W_LOAD)
  return two_levels if A > 0 else one_level
}

# Each layer: sigmoid (MoE only), dropout, then the residual.
fn body(x: i32[b, t]) -> (f32[b, t, V], f32[]) {
  let e      = dropout(embed(x, V, D) as "embed", P)
  let a      = e + dropout(lstm(e, U, D) as "lstm1", P)
  let m, aux = moe(a, experts = N, hidden = H, gate = gate(),
                   capacity = CAPACITY, groups = GROUPS) as "moe"
  let q      = a + dropout(sigmoid(m), P)
  let c      = q + dropout(lstm(q, U, D) as "lstm2", P)
  return linear(c, V) as "softmax", aux
}
