# 4xLSTM-512 of Shazeer et al. 2017, Appendix C.1: a control for lm_moe.dsl with
# two more LSTM layers in the place of the experts. 8.4 million parameters
# without embedding, softmax and biases. LSTM-2048-512, one layer that is
# projected to the model's width: -D L=1 -D U=2048.
import "lib/lm.dsl"
import "lib/lstm.dsl"

const D = 512     # model width
const L = 4       # LSTM layers
const U = D       # units of a layer; other than D, projected to it
const P = 0.1     # dropout

# Each layer: dropout, then the residual.
fn body(x: i32[b, t]) -> (f32[b, t, D], f32[V, D], f32[V], f32[]) {
  let e = dropout(embed(x, V, D) as "embed", P)
  let c = for i in 0..L with h = e {
    next h = h + dropout(lstm(h, U, D) as "lstm", P)
  }
  let w, bias = classes(V, D) as "softmax"
  return c, w, bias, 0.0
}
