# Dropout inside of experts: the same units of a choice are left out wherever its
# row stands. One layer drops choices, one is in a loop.
import "../../models/lib/nn.dsl"
import "../../models/lib/moe.dsl"
import "../../models/lib/optim.dsl"

const V = 11
const N = 3
const B = 4
const T = 3
option lr = 0.5

fn top_gate(k)(x: f32[.., d], experts) {
  param w: f32[d, experts] = normal_init(0.5)
  let z[.., n] = x[.., d] * w[d, n]
  let top, ids = top_k(z, k)
  return softmax(top), ids
}

fn layer(x: f32[.., d], hidden, capacity) {
  param w1: f32[N @dev @expert, d, hidden @model] = glorot()
  param w2: f32[N @dev @expert, hidden @model, d] = glorot()
  let gates, chosen = top_gate(2)(x, N) as "gate"
  let bounded = capacity > 0.0
  let ids = within_capacity(chosen, N, capacity, 1) if bounded else chosen
  let rows = dispatch(x, ids, N, drops = bounded)
  let h[n, r, h] = rows[n, r, d] * w1[n, d, h]
  let a = dropout(tanh(h), 0.3)
  let y[n, r, d] = a[n, r, h] * w2[n, h, d]
  return combine(dropout(y, 0.2), ids, gates)
}

entry train(x: i32[B @data @dev @expert, T] from text(below = V),
            y: i32[B @data @dev @expert, T] from text(below = V, shift = 1)) {
  let e = embed(x, V, 4)
  let a = e + layer(e, 6, 0.0) as "open"
  let b = a + layer(a, 6, 0.8) as "bounded"
  let ys, _ = scan xt in b along 1 with h = zeros_like(b[:, 0, :]) {
    let m = layer(xt + h, 5, 0.0) as "turn"
    next h = tanh(xt + m)
    yield m
  }
  let nll = cross_entropy(linear(ys + b, V), y)
  minimize nll with { "*": sgd(lr) }
  report loss = nll
}
