# test: %s --stop-after=frontend
# Paths of parameters, states, reports and layers.
fn leaf(x: f32[n]) {
  param w: f32[n] = 1.0
  report mean = mean(w)
  return x * w
}
fn pair(x, second = leaf) {
  let a = leaf(x)
  let b = second(a) as "own"
  return leaf(b)
}
entry eval(x: f32[2] from text) {
  let y = pair(x)
  let z = pair(y) as "top"
  let f = for i in 0..2 with h = z {
    let q = leaf(h)
    next h = leaf(q) as ""
  }
  report f = f
}

# >>> out
# moec-ir 1
# slot "y/pair/a/leaf/w" param f32[2]
# slot "y/pair/own/w" param f32[2]
# slot "y/pair/leaf/w" param f32[2]
# slot "top/a/leaf/w" param f32[2]
# slot "top/own/w" param f32[2]
# slot "top/leaf/w" param f32[2]
# slot "0/q/leaf/w" param f32[2]
# slot "0/w" param f32[2]
# slot "1/q/leaf/w" param f32[2]
# slot "1/w" param f32[2]
#
# entry @init() {
#   %0 = const {value=1} : f32[2] layer("y/pair/a/leaf")
#   %1 = const {value=1} : f32[2] layer("y/pair/own")
#   %2 = const {value=1} : f32[2] layer("y/pair/leaf")
#   %3 = const {value=1} : f32[2] layer("top/a/leaf")
#   %4 = const {value=1} : f32[2] layer("top/own")
#   %5 = const {value=1} : f32[2] layer("top/leaf")
#   %6 = const {value=1} : f32[2] layer("0/q/leaf")
#   %7 = const {value=1} : f32[2] layer("0")
#   %8 = const {value=1} : f32[2] layer("1/q/leaf")
#   %9 = const {value=1} : f32[2] layer("1")
#   return
#       slot "y/pair/a/leaf/w" = %0,
#       slot "y/pair/own/w" = %1,
#       slot "y/pair/leaf/w" = %2,
#       slot "top/a/leaf/w" = %3,
#       slot "top/own/w" = %4,
#       slot "top/leaf/w" = %5,
#       slot "0/q/leaf/w" = %6,
#       slot "0/w" = %7,
#       slot "1/q/leaf/w" = %8,
#       slot "1/w" = %9
# }
#
# entry @reset() {
#   return
# }
#
# entry @eval(
#     %w: f32[2] = slot "y/pair/a/leaf/w",
#     %w.1: f32[2] = slot "y/pair/own/w",
#     %w.2: f32[2] = slot "y/pair/leaf/w",
#     %w.3: f32[2] = slot "top/a/leaf/w",
#     %w.4: f32[2] = slot "top/own/w",
#     %w.5: f32[2] = slot "top/leaf/w",
#     %w.6: f32[2] = slot "0/q/leaf/w",
#     %w.7: f32[2] = slot "0/w",
#     %w.8: f32[2] = slot "1/q/leaf/w",
#     %w.9: f32[2] = slot "1/w",
#     %x: f32[2] = input "text") {
#   %0 = reduce_sum %w {map="a->"} : f32[] layer("y/pair/a/leaf")
#   %1 = const {value=2} : f32[] layer("y/pair/a/leaf")
#   %2 = div %0, %1 : f32[] layer("y/pair/a/leaf")
#   %a = mul %x, %w : f32[2] layer("y/pair/a/leaf")
#   %3 = reduce_sum %w.1 {map="a->"} : f32[] layer("y/pair/own")
#   %4 = const {value=2} : f32[] layer("y/pair/own")
#   %5 = div %3, %4 : f32[] layer("y/pair/own")
#   %b = mul %a, %w.1 : f32[2] layer("y/pair/own")
#   %6 = reduce_sum %w.2 {map="a->"} : f32[] layer("y/pair/leaf")
#   %7 = const {value=2} : f32[] layer("y/pair/leaf")
#   %8 = div %6, %7 : f32[] layer("y/pair/leaf")
#   %y = mul %b, %w.2 : f32[2] layer("y/pair/leaf")
#   %9 = reduce_sum %w.3 {map="a->"} : f32[] layer("top/a/leaf")
#   %10 = const {value=2} : f32[] layer("top/a/leaf")
#   %11 = div %9, %10 : f32[] layer("top/a/leaf")
#   %a.1 = mul %y, %w.3 : f32[2] layer("top/a/leaf")
#   %12 = reduce_sum %w.4 {map="a->"} : f32[] layer("top/own")
#   %13 = const {value=2} : f32[] layer("top/own")
#   %14 = div %12, %13 : f32[] layer("top/own")
#   %b.1 = mul %a.1, %w.4 : f32[2] layer("top/own")
#   %15 = reduce_sum %w.5 {map="a->"} : f32[] layer("top/leaf")
#   %16 = const {value=2} : f32[] layer("top/leaf")
#   %17 = div %15, %16 : f32[] layer("top/leaf")
#   %z = mul %b.1, %w.5 : f32[2] layer("top/leaf")
#   %18 = reduce_sum %w.6 {map="a->"} : f32[] layer("0/q/leaf")
#   %19 = const {value=2} : f32[] layer("0/q/leaf")
#   %20 = div %18, %19 : f32[] layer("0/q/leaf")
#   %q = mul %z, %w.6 : f32[2] layer("0/q/leaf")
#   %21 = reduce_sum %w.7 {map="a->"} : f32[] layer("0")
#   %22 = const {value=2} : f32[] layer("0")
#   %23 = div %21, %22 : f32[] layer("0")
#   %24 = mul %q, %w.7 : f32[2] layer("0")
#   %25 = reduce_sum %w.8 {map="a->"} : f32[] layer("1/q/leaf")
#   %26 = const {value=2} : f32[] layer("1/q/leaf")
#   %27 = div %25, %26 : f32[] layer("1/q/leaf")
#   %q.1 = mul %24, %w.8 : f32[2] layer("1/q/leaf")
#   %28 = reduce_sum %w.9 {map="a->"} : f32[] layer("1")
#   %29 = const {value=2} : f32[] layer("1")
#   %30 = div %28, %29 : f32[] layer("1")
#   %f = mul %q.1, %w.9 : f32[2] layer("1")
#   return
#       report "y/pair/a/leaf/mean" = %2,
#       report "y/pair/own/mean" = %5,
#       report "y/pair/leaf/mean" = %8,
#       report "top/a/leaf/mean" = %11,
#       report "top/own/mean" = %14,
#       report "top/leaf/mean" = %17,
#       report "0/q/leaf/mean" = %20,
#       report "0/mean" = %23,
#       report "1/q/leaf/mean" = %27,
#       report "1/mean" = %30,
#       report "f" = %f
# }
# <<<
