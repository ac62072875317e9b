# A mixture of experts that is not kept for the backward pass.
import "../../models/lib/nn.dsl"
import "../../models/lib/moe.dsl"
import "../../models/lib/optim.dsl"

const V = 11
option lr = 1e-2

entry train(x: i32[2 @dev, 3] from text(below = V), y: i32[2 @dev, 3] from text(shift = 1)) {
  let e = embed(x, V, 4)
  recompute {
    let m, aux = moe(e, experts = 3, hidden = 5, gate = noisy_top_k(k = 2))
    let q = e + dropout(m, 0.2)
  }
  let loss = cross_entropy(linear(q, V), y)
  minimize loss + aux with { "*": adam(lr) }
  report loss = loss
}
