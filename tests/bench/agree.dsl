# The model of models/lm_moe.dsl as tests/bench/agree.sh compares it with another
# engine: no dropout, and the gate's noise sample is 0 with its standard deviation
# kept. A step of `descend` is plain gradient descent, so (p - p') / RATE is the
# gradient; RATE is a large power of two, so that the subtraction costs no
# precision.
import "../../models/lib/nn.dsl"
import "../../models/lib/lstm.dsl"
import "../../models/lib/moe.dsl"
import "../../models/lib/optim.dsl"

const V = 256
const D = 512
const N = 32
const K = 4
const H = 1024
const T = 32
const B = 64
const WARMUP = 1000
const RATE = 4096
option lr = 1e-3

fn quiet_top_k(k)(x: f32[.., d], experts) {
  param w: f32[d, 2, experts] = 0.0
  let z[.., j, n] = x[.., d] * w[d, j, n]
  let clean = z[.., 0, :]
  let gates, ids, dense, load = noisy_top_k_gates(clean, z[.., 1, :], zeros_like(clean), k, noisy = true)
  return gates, ids, 0.1 * cv_squared(sum_rows(dense)) + 0.1 * cv_squared(sum_rows(load))
}

fn body(x: i32[b, t]) {
  let e      = embed(x, V, D) as "embed"
  let a      = e + lstm(e, D) as "lstm1"
  let m, aux = moe(a, experts = N, hidden = H, gate = quiet_top_k(K)) as "moe"
  let q      = a + sigmoid(m)
  let c      = q + lstm(q, D) as "lstm2"
  return linear(c, V) as "softmax", aux
}

entry train(x: i32[B, T] from text, y: i32[B, T] from text(shift = 1)) {
  let logits, aux = body(x) as "lm"
  let nll = cross_entropy(logits, y)
  minimize nll + aux with { "*": adam(warmup_rsqrt(lr, WARMUP)) }
  report loss = nll
}

entry descend(x: i32[B, T] from text, y: i32[B, T] from text(shift = 1)) {
  let logits, aux = body(x) as "lm"
  let nll = cross_entropy(logits, y)
  minimize nll + aux with { "*": sgd(RATE) }
}
