# Arithmetic in bf16 that the model asks for: element by element, along rows,
# through experts, and of a single one.
import "../../models/lib/nn.dsl"
import "../../models/lib/optim.dsl"

const V = 11
option lr = 1e-2

entry train(x: i32[3, 4] from text(below = V),
            y: i32[3, 4] from text(shift = 1)) {
  param w: f32[5, 5] = glorot()
  param route: f32[5, 3] = normal_init(0.5)
  let e = bf16(embed(x, V, 5))
  let g = tanh(e) * e + e / 2.0
  let z[b, t, n] = g[b, t, d] * bf16(w[d, n])
  let score[b, t, n] = f32(g[b, t, d]) * route[d, n]
  let top, ids = top_k(score, 2)
  let rows = combine(abs(dispatch(g, ids, 3)), ids, bf16(softmax(top)))
  let one = -bf16(sum(z))
  let h = max(g, rows) + one
  minimize cross_entropy(linear(f32(h) + z, V), y) with { "*": adam(lr) }
}
