# test: %s --stop-after=frontend
entry eval(x: f32[2] from text) {
  recompute { let a = exp(x) }
  recompute {
    let b = tanh(a)
    probe b
  }
  report c = a + b
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
# entry @eval(%x: f32[2] = input "text") {
#   %a = exp %x : f32[2] remat(1)
#   %b = tanh %a : f32[2] remat(2)
#   %0 = add %a, %b : f32[2]
#   return report "c" = %0, probe "b" = %b
# }
# <<<
