# test: %s -D WIDTH=5 -D P=1 -D ON=false -D NAME=b --stop-after=frontend
const WIDTH = 2
const DOUBLE = WIDTH * 2
const P = 0.5
const ON = true
const NAME = "a"
entry eval(x: f32[DOUBLE] from text) {
  report a = x * P if not ON and NAME == "b" else x
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
# entry @eval(%x: f32[10] = input "text") {
#   %0 = const {value=1} : f32[10]
#   %1 = mul %x, %0 : f32[10]
#   return report "a" = %1
# }
# <<<
