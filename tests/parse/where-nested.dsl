# test: %s --stop-after=frontend
# A where in a loop, or in an initial value, inside of another.
fn start(w: f32[n]) {
  where seed > 3 { let big = w + 1.0 }
  return big
}
entry eval(x: f32[2, 3] from text) {
  state sum: f32[3]
  where x[0, 0] > 0.0 {
    param w: f32[3] = start
    let y = scan r in x along 0 {
      where r[0] > 0.0 { let z = r * w }
      yield z
    }
    set sum = y[0, :]
  }
}

# >>> out
# moec-ir 1
# slot "w" param f32[3]
# slot "eval/sum" state f32[3]
#
# entry @init(%seed: u32[] = seed) {
#   %0 = const {value=0} : f32[3]
#   %1 = const {value=0} : f32[3]
#   %2 = const {value=3} : u32[] layer("w/start")
#   %3 = lt %2, %seed : bool[] layer("w/start")
#   %4 = const {value=1} : f32[3] layer("w/start")
#   %big = add %1, %4 : f32[3] layer("w/start")
#   return slot "w" = %big, slot "eval/sum" = %0
# }
#
# entry @reset() {
#   %0 = const {value=0} : f32[3]
#   return slot "eval/sum" = %0
# }
#
# entry @eval(
#     %w: f32[3] = slot "w",
#     %sum: f32[3] = slot "eval/sum",
#     %x: f32[2, 3] = input "text") {
#   %0 = stop_gradient %sum : f32[3]
#   %1 = slice %x {dim=0, start=0, size=1} : f32[1, 3]
#   %2 = slice %1 {dim=1, start=0, size=1} : f32[1, 1]
#   %3 = reshape %2 : f32[]
#   %4 = const {value=0} : f32[]
#   %5 = lt %4, %3 : bool[]
#   %y = scan %x, %5, %w {carries=0, scanned=1, length=2, reverse=false} (
#       %6: i32[],
#       %r: f32[3],
#       %7: bool[],
#       %w.1: f32[3]) {
#     %8 = slice %r {dim=0, start=0, size=1} : f32[1]
#     %9 = reshape %8 : f32[]
#     %10 = const {value=0} : f32[]
#     %11 = lt %10, %9 : bool[]
#     %12 = and %7, %11 : bool[]
#     %z = mul %r, %w.1 : f32[3]
#     yield %z
#   } : f32[2, 3]
#   %13 = slice %y {dim=0, start=0, size=1} : f32[1, 3]
#   %14 = reshape %13 : f32[3]
#   %15 = broadcast %5 {map="->a"} : bool[3]
#   %16 = select %15, %14, %sum : f32[3]
#   return slot "eval/sum" = %16
# }
# <<<
