# A loop in a loop, one that runs backwards, and one over numbers.
import "../../models/lib/nn.dsl"
import "../../models/lib/optim.dsl"

const V = 11
option lr = 1e-2

entry train(x: i32[3, 4] from text(below = V), y: i32[3, 4] from text(shift = 1)) {
  param w: f32[5, 5] = glorot()
  let e = embed(x, V, 5)
  let ys, _ = scan xt in e along 1 with h = zeros(f32[3, 5]) {
    let us, g = scan i in 0..3 with g = h {
      let z[b, n] = g[b, d] * w[d, n]
      next g = tanh(z + xt + 0.1 * f32(i))
      yield g * g
    }
    next h = g
    yield g + sum(us, dim = 0)
  }
  let zs, _ = scan a in ys, b in e along 1 reverse with s = zeros(f32[3, 5]) {
    next s = 0.5 * s + a * b
    yield s
  }
  minimize cross_entropy(linear(zs, V), y) with { "*": adam(lr) }
}
