# test: %s --mesh data=2,model=4 --stop-after=frontend
# Axes on inputs, parameters, states, lets, and on what functions take and give.
mesh data, model
fn layer(x: f32[.., d], w: f32[d, h @model]) -> f32[.., h @model] {
  let y[.., h] = x[.., d] * w[d, h]
  return y
}
fn tail(x: f32[8 @data, n @_, d]) { return x + 1.0 }
entry eval(x: f32[8 @data @model, 3, 4] from text) {
  param w: f32[4, 6 @model] = 0.0
  state s: f32[4 @data, 2 @_] = 0.0
  let half: f32[8 @data, 3, 4] = x * 0.5
  let again: f32[8 @data, 3, 4] = half
  report y = tail(layer(half, w)), z = again, s = s
}

# >>> out
# moec-ir 1
# mesh {data=2, model=4}
# slot "w" param f32[4, 6 @model]
# slot "eval/s" state f32[4 @data, 2 @_]
#
# entry @init() {
#   %0 = const {value=0} : f32[4, 6]
#   %1 = const {value=0} : f32[4, 2]
#   return slot "w" = %0, slot "eval/s" = %1
# }
#
# entry @reset() {
#   %0 = const {value=0} : f32[4, 2]
#   return slot "eval/s" = %0
# }
#
# entry @eval(
#     %w: f32[4, 6 @model] = slot "w",
#     %s: f32[4 @data, 2 @_] = slot "eval/s",
#     %x: f32[8 @data @model, 3, 4] = input "text") {
#   %0 = stop_gradient %s : f32[4, 2]
#   %1 = const {value=0.5} : f32[8, 3, 4]
#   %2 = mul %x, %1 : f32[8, 3, 4]
#   %half = annotate %2 : f32[8 @data, 3, 4]
#   %y = contract %half, %w {map="abd,dh->abh"} : f32[8, 3, 6] layer("layer")
#   %3 = annotate %y : f32[8, 3, 6 @model]
#   %4 = annotate %3 : f32[8 @data, 3 @_, 6]
#   %5 = const {value=1} : f32[8, 3, 6] layer("tail")
#   %6 = add %4, %5 : f32[8, 3, 6] layer("tail")
#   return report "y" = %6, report "z" = %half, report "s" = %0
# }
# <<<
