# test: %s --mesh dev=1 --stop-after=frontend
# An axis of one device splits nothing.
mesh dev, model
entry eval(x: f32[7 @dev @model, 2 @_] from text) {
  let y: f32[7 @model, 2] = x * 2.0
  report a = y
}

# >>> out
# moec-ir 1
#
# entry @init() {
#   return
# }
#
# entry @reset() {
#   return
# }
#
# entry @eval(%x: f32[7, 2] = input "text") {
#   %0 = const {value=2} : f32[7, 2]
#   %y = mul %x, %0 : f32[7, 2]
#   return report "a" = %y
# }
# <<<
