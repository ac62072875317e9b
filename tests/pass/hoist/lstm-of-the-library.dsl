# test: %s --stop-after=hoist.2
# count: scan 2, contract 6
# models/lib/lstm.dsl: x . w and its two cotangents, and the gradient of u, are
# one contraction each outside of the loops; inside there is one forward, h . u,
# and one backward, dz . u.
import "../../../models/lib/lstm.dsl"

fn sgd(p: f32[..], g: f32[..]) { return p - 0.1 * g }

entry train(x: f32[5, 7, 8] from text) {
  param k: f32[8] = 1.0
  let a[b, t, d] = x[b, t, d] * k[d]
  let y = lstm(a, 6)
  minimize mean(y * y) with { "*": sgd }
}
