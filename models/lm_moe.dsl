# LSTM language model with a mixture-of-experts layer: MoE-32 of Shazeer et al.
# 2017, Appendix C.1, over bytes. 37.8 million parameters without embedding,
# softmax and biases. README.md has the consts of the paper's other models, and
# lib/sparse.dsl those of the layer of experts.
import "lib/lm.dsl"
import "lib/lstm.dsl"
import "lib/sparse.dsl"

const D = 512     # model width
const U = D       # units of an LSTM; other than D, projected to it
const N = 32      # experts
const K = 4       # experts per token, with two levels groups and experts of each
const H = 1024    # hidden width of an expert
const P = 0.1     # dropout
const GATE = "noisy_top_k"
const CAPACITY = 0.0
const GROUPS = 1

# Each layer: sigmoid (MoE only), dropout, then the residual.
fn body(x: i32[b, t]) -> (f32[b, t, D], f32[V, D], f32[V], f32[]) {
  let e      = dropout(embed(x, V, D) as "embed", P)
  let a      = e + dropout(lstm(e, U, D) as "lstm1", P)
  let m, aux = sparse(a, x) as "moe"
  let q      = a + dropout(sigmoid(m), P)
  let c      = q + dropout(lstm(q, U, D) as "lstm2", P)
  let w, bias = classes(V, D) as "softmax"
  return c, w, bias, aux
}
