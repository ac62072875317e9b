# test: %s
entry eval(x: f32[2, 3] from text, y: f32[4, 3] from text, s: f32[] from text) {
  let a[b, n] = x[b, d] * y[d, n]
  let b[q] = x[b, d]
  let c[b] = x[b, b]
  let d[b, d] = x[b, d] + y
  let e[b, b] = x[b, d]
  let f[b] = x[b]
  let g[b] = x[b, 0]
  let h[..] = x[.., d] * y[d, ..]
  let i[b] = max(x[b, d])
  let j, k[b] = x[b, d]
}

# >>> err
# tests/parse/index-errors.dsl:3:27: error: 'd' is 4 here, but 3 before
#     3 |   let a[b, n] = x[b, d] * y[d, n]
#       |                           ^~~~~~~
# tests/parse/index-errors.dsl:3:17: note: it got its size here
#     3 |   let a[b, n] = x[b, d] * y[d, n]
#       |                 ^~~~~~~
# tests/parse/index-errors.dsl:4:9: error: 'q' stands on the left only
#     4 |   let b[q] = x[b, d]
#       |         ^
# tests/parse/index-errors.dsl:5:19: error: 'b' stands twice in one tensor
#     5 |   let c[b] = x[b, b]
#       |                   ^
# tests/parse/index-errors.dsl:6:27: error: in index form this needs subscripts: it is f32[4, 3]
#     6 |   let d[b, d] = x[b, d] + y
#       |                           ^
# tests/parse/index-errors.dsl:7:12: error: 'b' stands twice on the left
#     7 |   let e[b, b] = x[b, d]
#       |            ^
# tests/parse/index-errors.dsl:8:14: error: 1 subscript for a tensor of 2 dims
#     8 |   let f[b] = x[b]
#       |              ^~~~
# tests/parse/index-errors.dsl:9:19: error: in index form subscripts are letters
#     9 |   let g[b] = x[b, 0]
#       |                   ^
# tests/parse/index-errors.dsl:10:26: error: 'd' is 4 here, but 3 before
#    10 |   let h[..] = x[.., d] * y[d, ..]
#       |                          ^~~~~~~~
# tests/parse/index-errors.dsl:10:15: note: it got its size here
#    10 |   let h[..] = x[.., d] * y[d, ..]
#       |               ^~~~~~~~
# tests/parse/index-errors.dsl:11:14: error: in index form a function must keep dims: f32[2, 3] became f32[]
#    11 |   let i[b] = max(x[b, d])
#       |              ^~~~~~~~~~~~
# tests/parse/index-errors.dsl:12:3: error: index form gives one tensor, here are 2 names
#    12 |   let j, k[b] = x[b, d]
#       |   ^~~~~~~~~~~~~~~~~~~~~
# <<<
# >>> exit 1
