# test: %s --stop-after=frontend
# A scan along dim 1 with tensors from outside, one inside of another, over a
# range, and backwards.
entry eval(x: f32[2, 3, 4] from text, w: f32[4, 4] from text) {
  let ys, last = scan t in x along 1 with h = x[:, 0, :] {
    let z[b, n] = h[b, d] * w[d, n]
    next h = z + t
    yield h
  }
  let powers = scan i in 1..4 with p = w {
    let q, total = scan row in p reverse with s = w[0, :] {
      next s = s + row
      yield s * f32(i)
    }
    next p = q
  }
  report ys = ys, last = last, powers = powers
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
# entry @eval(%x: f32[2, 3, 4] = input "text", %w: f32[4, 4] = input "text") {
#   %0 = slice %x {dim=1, start=0, size=1} : f32[2, 1, 4]
#   %1 = reshape %0 : f32[2, 4]
#   %2 = transpose %x {map="abc->bac"} : f32[3, 2, 4]
#   %last, %3 = scan %1, %2, %w {carries=1, scanned=1, length=3, reverse=false} (
#       %4: i32[],
#       %h: f32[2, 4],
#       %t: f32[2, 4],
#       %w.1: f32[4, 4]) {
#     %z = contract %h, %w.1 {map="bd,dn->bn"} : f32[2, 4]
#     %5 = add %z, %t : f32[2, 4]
#     yield %5, %h
#   } : f32[2, 4], f32[3, 2, 4]
#   %ys = transpose %3 {map="abc->bac"} : f32[2, 3, 4]
#   %powers = scan %w, %w {carries=1, scanned=0, length=3, reverse=false} (
#       %6: i32[],
#       %p: f32[4, 4],
#       %w.2: f32[4, 4]) {
#     %7 = const {value=1} : i32[]
#     %8 = add %6, %7 : i32[]
#     %9 = slice %w.2 {dim=0, start=0, size=1} : f32[1, 4]
#     %10 = reshape %9 : f32[4]
#     %total, %q = scan %10, %p, %8 {carries=1, scanned=1, length=4, reverse=true} (
#         %11: i32[],
#         %s: f32[4],
#         %row: f32[4],
#         %12: i32[]) {
#       %13 = add %s, %row : f32[4]
#       %14 = cast %12 : f32[]
#       %15 = broadcast %14 {map="->a"} : f32[4]
#       %16 = mul %s, %15 : f32[4]
#       yield %13, %16
#     } : f32[4], f32[4, 4]
#     yield %q
#   } : f32[4, 4]
#   return report "ys" = %ys, report "last" = %last, report "powers" = %powers
# }
# <<<
