# Attention alone, forward and backward, fused or written out: see attention.sh.
import "../../models/lib/nn.dsl"
import "../../models/lib/optim.dsl"
const B = 8
const T = 512
const H = 8
const E = 64
const CAUSAL = 1
const FUSED = 1

fn written_out(q: f32[b, t, h, e], k: f32[b, t, h, e], v: f32[b, t, h, e]) {
  let s[b, h, i, j] = q[b, i, h, e] * k[b, j, h, e]
  let z = s * (1.0 / sqrt(e))
  let seen = iota(z, dim = 3) <= iota(z, dim = 2)
  let p = softmax(select(seen, z, -1e30)) if CAUSAL > 0 else softmax(z)
  let y[b, i, h, e] = p[b, h, i, j] * v[b, j, h, e]
  return y
}

entry train(x: i32[B, T] from text) {
  param q: f32[B, T, H, E] = normal_init(1.0)
  param k: f32[B, T, H, E] = normal_init(1.0)
  param v: f32[B, T, H, E] = normal_init(1.0)
  param d: f32[B, T, H, E] = normal_init(1.0)
  let y = attention(q, k, v, causal = CAUSAL > 0) if FUSED > 0 else written_out(q, k, v)
  minimize sum(y * d) with { "*": sgd(1e-3) }
  report tokens = f32(x[0, 0])
}
