# test: %s --mesh data=2,model=4 --stop-after=frontend
# Axes on the left of an index form, which places its result.
mesh data, model
entry eval(x: f32[8 @data, 3, 4] from text, w: f32[4, 8] from text) {
  let y[.., n @model] = x[.., d] * w[d, n]
  let z[b @data, n @_] = y[b, t, n]
  let t[n, b @data] = z[b, n]
  report y = y, t = t
}

# >>> out
# moec-ir 1
# mesh {data=2, model=4}
#
# entry @init() {
#   return
# }
#
# entry @reset() {
#   return
# }
#
# entry @eval(
#     %x: f32[8 @data, 3, 4] = input "text",
#     %w: f32[4, 8] = input "text") {
#   %0 = contract %x, %w {map="abd,dn->abn"} : f32[8, 3, 8]
#   %y = annotate %0 : f32[8, 3, 8 @model]
#   %1 = reduce_sum %y {map="btn->bn"} : f32[8, 8]
#   %z = annotate %1 : f32[8 @data, 8 @_]
#   %2 = transpose %z {map="bn->nb"} : f32[8, 8]
#   %t = annotate %2 : f32[8, 8 @data]
#   return report "y" = %y, report "t" = %t
# }
# <<<
