# MoE-1-Wide of Shazeer et al. 2017, Appendix C.1: a control for lm_moe.dsl with
# the same operations per token in one expert that is always on. 8.4 million
# parameters without embedding, softmax and biases. MoE-1-Deep, with four hidden
# layers of 1024: -D LAYERS=4 -D H=1024.
import "lib/lm.dsl"
import "lib/lstm.dsl"

const D = 512     # model width
const H = 4096    # hidden width of the expert
const LAYERS = 1  # hidden layers of the expert
const P = 0.1     # dropout

# Each layer: sigmoid (the expert only), dropout, then the residual.
fn body(x: i32[b, t]) -> (f32[b, t, D], f32[V, D], f32[V], f32[]) {
  let e = dropout(embed(x, V, D) as "embed", P)
  let a = e + dropout(lstm(e, D) as "lstm1", P)
  let m = ffn(a, hidden = H, layers = LAYERS) as "expert"
  let q = a + dropout(sigmoid(m), P)
  let c = q + dropout(lstm(q, D) as "lstm2", P)
  let w, bias = classes(V, D) as "softmax"
  return c, w, bias, 0.0
}
