# Many experts with few rows each: the products that make their gradients are
# computed twice, once for the norm and once for the update.
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
  let e = embed(x, V, 32)
  let m, _ = moe(e, experts = 64, hidden = 128, gate = top_gate(k = 2))
  minimize cross_entropy(linear(e + m, V), y) with { "moe/*/w2": sgd(lr), "*": adam(lr) }
}
