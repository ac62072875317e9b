# A recurrent cell that routes each token, with a gate of its own.
import "../../models/lib/nn.dsl"
import "../../models/lib/moe.dsl"
import "../../models/lib/optim.dsl"

const V = 11
option lr = 1e-2

fn top_gate(k)(x: f32[.., d], experts) {
  param w: f32[d, experts] = normal_init(0.5)
  let z[.., n] = x[.., d] * w[d, n]
  let top, ids = top_k(z, k)
  return softmax(top), ids, 0.0
}

entry train(x: i32[2 @dev, 3] from text(below = V), y: i32[2 @dev, 3] from text(shift = 1)) {
  let e = embed(x, V, 4)
  state h0: f32[2, 4] = 0.0
  let ys, hn = scan xt in e along 1 with h = h0 {
    let m, _ = moe(xt + h, experts = 3, hidden = 5, gate = top_gate(k = 2))
    next h = tanh(xt + m)
    yield m
  }
  set h0 = hn
  minimize cross_entropy(linear(ys + e, V), y) with { "*": adam(lr) }
}
