# test: %s
const D = 4
fn linear(x: f32[.., d], w: f32[d, n]) {
  let y[.., n] = x[.., d] * w[d, n]
  return y
}
entry eval(x: f32[2, 3, D] from text, w: f32[5, 6] from text, i: i32[2] from text) {
  report a = linear(x, w)
  report b = x + w
  report c = x + iota(x, dim = 0)
  report d = i + 1.5
  report e = x[0, 3, :]
  report f = x[0, 1]
  report g = x[.., 3:2]
  report h = reshape(x, 5, 5)
  report i = transpose(x, 0, 1, 1)
  report j = top_k(x, 5)
  let y: f32[2, 3, 5] = x
  let z: f32[b, b] = w
  report k = exp(i)
  report l = sum(x, dim = 3)
}

# >>> err
# tests/parse/shapes.dsl:8:24: error: 'w' must be f32[d, n], but is f32[5, 6]: dim 0 is 5, not 4
#     8 |   report a = linear(x, w)
#       |                        ^
# tests/parse/shapes.dsl:3:29: note: the type is written here
#     3 | fn linear(x: f32[.., d], w: f32[d, n]) {
#       |                             ^~~~~~~~~
# tests/parse/shapes.dsl:3:22: note: 'd' is 4 from here on
#     3 | fn linear(x: f32[.., d], w: f32[d, n]) {
#       |                      ^
# tests/parse/shapes.dsl:9:14: error: shapes do not fit together: f32[2, 3, 4] and f32[5, 6]
#     9 |   report b = x + w
#       |              ^~~~~
# tests/parse/shapes.dsl:9:14: note: f32[2, 3, 4] here
#     9 |   report b = x + w
#       |              ^
# tests/parse/shapes.dsl:9:18: note: f32[5, 6] here
#     9 |   report b = x + w
#       |                  ^
# tests/parse/shapes.dsl:10:14: error: add: operands are f32[2, 3, 4] and i32[2, 3, 4]; cast one, as in f32(...)
#    10 |   report c = x + iota(x, dim = 0)
#       |              ^~~~~~~~~~~~~~~~~~~~
# tests/parse/shapes.dsl:11:18: error: the number 1.5 is no element of i32[2]
#    11 |   report d = i + 1.5
#       |                  ^~~
# tests/parse/shapes.dsl:12:19: error: 3 is outside of a dim of size 3
#    12 |   report e = x[0, 3, :]
#       |                   ^
# tests/parse/shapes.dsl:13:14: error: 2 subscripts for f32[2, 3, 4]
#    13 |   report f = x[0, 1]
#       |              ^~~~~~~
# tests/parse/shapes.dsl:14:20: error: the range 3:2 is empty
#    14 |   report g = x[.., 3:2]
#       |                    ^~~
# tests/parse/shapes.dsl:15:28: error: reshape: size 5 does not fit 24 elements
#    15 |   report h = reshape(x, 5, 5)
#       |                            ^
# tests/parse/shapes.dsl:16:33: error: transpose: each dim of f32[2, 3, 4] must be named once
#    16 |   report i = transpose(x, 0, 1, 1)
#       |                                 ^
# tests/parse/shapes.dsl:17:23: error: top_k: k is 5, but there are 4 to choose from
#    17 |   report j = top_k(x, 5)
#       |                       ^
# tests/parse/shapes.dsl:17:20: note: f32[2, 3, 4] here
#    17 |   report j = top_k(x, 5)
#       |                    ^
# tests/parse/shapes.dsl:18:25: error: 'y' must be f32[2, 3, 5], but is f32[2, 3, 4]: dim 2 is 4, not 5
#    18 |   let y: f32[2, 3, 5] = x
#       |                         ^
# tests/parse/shapes.dsl:18:10: note: the type is written here
#    18 |   let y: f32[2, 3, 5] = x
#       |          ^~~~~~~~~~~~
# tests/parse/shapes.dsl:19:22: error: 'z' must be f32[b, b], but is f32[5, 6]: dim 1 is 6, not 5
#    19 |   let z: f32[b, b] = w
#       |                      ^
# tests/parse/shapes.dsl:19:10: note: the type is written here
#    19 |   let z: f32[b, b] = w
#       |          ^~~~~~~~~
# tests/parse/shapes.dsl:19:14: note: 'b' is 5 from here on
#    19 |   let z: f32[b, b] = w
#       |              ^
# tests/parse/shapes.dsl:20:14: error: exp: operand 0 must be a float, but is i32[2]
#    20 |   report k = exp(i)
#       |              ^~~~~~
# tests/parse/shapes.dsl:21:27: error: sum: no dim 3 in 3 dims
#    21 |   report l = sum(x, dim = 3)
#       |                           ^
# <<<
# >>> exit 1
