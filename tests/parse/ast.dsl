# test: %s --emit=ast
import "lib/nn.dsl"
const N = 2 * 3 + 4 % 5 - -1
const BIG = N > 3 and not N == 4 or false
option lr = 1e-3
mesh dev, model

fn f(a, b: f32[.., N @dev], c = 1.5)(x: f32[like a]) -> (f32[], i32[2, N]) {
  let y, z: f32[N] = g(a, b = b,
                       reverse = true) as "g"
  let w[.., n] = x[.., d] * y[d, n] +
      z[n]; let q = x[:, 0, 1:-1, ..]
  if N > 3 { return y, z } else if N > 2 {
    return
  }
  else { set h = y, c = z }
  recompute { let r = y if N > 2 else z }
  where y > 2 { set h = y }
  let ys, hn = scan t in x, i in 0..4 along 1 reverse with h = y { next h = h; yield t }
  let l = for i in 0..N with h = y { next h = f(h) }
  probe y, name = z
  return (a + b) * c
}

entry train for S in {16, 32} (x: i32[N @dev, S] from pairs.source(mask, shift = 1)) {
  param w: f32[N, 3] = glorot()
  state h: f32[N]
  minimize sum(w) with {
    "a/*": adam(lr),
    "*": freeze
  }
  report loss = w, other = -w[0, 1]
}

# >>> out
# import "lib/nn.dsl"
# const N = (((2 * 3) + (4 % 5)) - (-1))
# const BIG = (((N > 3) and (not (N == 4))) or false)
# option lr = 0.001
# mesh dev
# mesh model
# fn f(a, b: f32[.., N @dev], c = 1.5)(x: f32[like a]) -> (f32[], i32[2, N]) {
#   let y, z: f32[N] = g(a, b = b, reverse = true) as "g"
#   let w[.., n] = ((x[.., d] * y[d, n]) + z[n])
#   let q = x[:, 0, 1:(-1), ..]
#   if (N > 3) {
#     return y, z
#   } else {
#     if (N > 2) {
#       return
#     } else {
#       set h = y, c = z
#     }
#   }
#   recompute {
#     let r = (y if (N > 2) else z)
#   }
#   where (y > 2) {
#     set h = y
#   }
#   let ys, hn = (scan t in x, i in 0 .. 4 along 1 reverse with h = y {
#     next h = h
#     yield t
#   })
#   let l = (for i in 0 .. N with h = y {
#     next h = f(h)
#   })
#   probe y = y, name = z
#   return ((a + b) * c)
# }
# entry train for S in {16, 32} (x: i32[N @dev, S] from pairs.source(mask, shift = 1)) {
#   param w: f32[N, 3] = glorot()
#   state h: f32[N]
#   minimize sum(w) with { "a/*": adam(lr), "*": freeze }
#   report loss = w, other = (-w[0, 1])
# }
# <<<
