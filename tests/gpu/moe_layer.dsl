# A mixture-of-experts layer alone, forward and backward: a router, the k best
# experts by its softmax, SwiGLU experts, their outputs summed by probability.
# Its input is a parameter, so that it has a gradient as in a network, and `d` is
# what comes back to its output. See speed.sh.
import "../../models/lib/nn.dsl"
import "../../models/lib/optim.dsl"

const T = 32768   # tokens
const D = 4096    # width
const H = 1024    # hidden width of an expert
const E = 64      # experts
const K = 4       # experts of a token
option skew = 0   # 0: as the router says; 1: by Zipf's law, exponent 1.2; 2: all to one

# Experts drawn with a chance of 1 / number^1.2.
fn by_zipf(ids: i32[t, k], experts) {
  let n = f32(iota(zeros(f32[experts]), dim = 0) + 1)
  let chance = exp(-1.2 * log(n))
  let below = cumsum(chance / sum(chance))
  let drawn = expand(uniform(random_bits(f32(ids))))
  return min(i32(sum(f32(drawn >= below), dim = -1)), experts - 1)
}

fn router(x: f32[t, d]) {
  param w: f32[d, E] = normal_init(1.0 / sqrt(d))
  let z[t, e] = x[t, d] * w[d, e]
  return softmax(z)
}

fn swiglu(x: f32[e, r, d]) {
  param gate: f32[e, d, H] = glorot()
  param up: f32[e, d, H] = glorot()
  param down: f32[e, H, d] = glorot()
  let g[e, r, h] = x[e, r, d] * gate[e, d, h]
  let u[e, r, h] = x[e, r, d] * up[e, d, h]
  let a = g * sigmoid(g) * u
  let y[e, r, d] = a[e, r, h] * down[e, h, d]
  return y
}

fn layer(x: f32[t, d]) {
  let p = router(x) as "router"
  let best, chosen = top_k(p, K)
  let ids = select(skew == 0.0, chosen, select(skew == 1.0, by_zipf(chosen, E), 0))
  return combine(swiglu(dispatch(x, ids, E)) as "experts", ids, take(p, ids))
}

entry train(tokens: i32[1, T] from text) {
  param x: f32[T, D] = normal_init(1.0)
  param d: f32[T, D] = normal_init(1.0)
  minimize sum(layer(x) * stop_gradient(d)) with { "d": freeze, "*": sgd(1e-6) }
  report first = f32(tokens[0, 0])
}
