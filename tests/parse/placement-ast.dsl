# test: %s --emit=ast
mesh data, model
fn f(x: f32[.., n @data @model]) {
  let y[.., n @data @_] = x[.., n]
  return y
}

# >>> out
# mesh data
# mesh model
# fn f(x: f32[.., n @data @model]) {
#   let y[.., n @data @_] = x[.., n]
#   return y
# }
# <<<
