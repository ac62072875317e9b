# test: %s --mesh data=2,model=4 --emit=ir
mesh data, model
entry eval(x: f32[8 @data, 4] from text, w: f32[4, 8] from text) {
  let y[b, n @modl] = x[b, d] * w[d, n]
  let z[b @data, n @data] = x[b, d] * w[d, n]
  let s[b @model, d] = x[b, d]
  report y = y, z = z, s = s
}

# >>> err
# tests/parse/placement-index-errors.dsl:4:15: error: unknown mesh axis 'modl'; did you mean 'model'?
#     4 |   let y[b, n @modl] = x[b, d] * w[d, n]
#       |               ^~~~
# tests/parse/placement-index-errors.dsl:5:21: error: mesh axis 'data' is used twice in one tensor
#     5 |   let z[b @data, n @data] = x[b, d] * w[d, n]
#       |                     ^~~~
# tests/parse/placement-index-errors.dsl:5:12: note: it is used here
#     5 |   let z[b @data, n @data] = x[b, d] * w[d, n]
#       |            ^~~~
# tests/parse/placement-index-errors.dsl:6:7: error: one tensor is placed in two ways: f32[8 @model, 4]
#     6 |   let s[b @model, d] = x[b, d]
#       |       ^~~~~~~~~~~~~
# tests/parse/placement-index-errors.dsl:3:15: note: it is f32[8 @data, 4] here
#     3 | entry eval(x: f32[8 @data, 4] from text, w: f32[4, 8] from text) {
#       |               ^~~~~~~~~~~~~~~
# <<<
# >>> exit 1
