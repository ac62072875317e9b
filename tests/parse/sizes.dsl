# test: %s --stop-after=frontend
# One entry a size; parameters and the optimiser's states are shared.
fn momentum(rate)(p: f32[..], g: f32[..]) {
  state m: f32[like p]
  let m1 = 0.9 * m + g
  set m = m1
  return p - rate * m1
}
entry train for S in {2, 3} (x: f32[S, 4] from text(below = 2 * S)) {
  param w: f32[4] = 1.0
  state seen: i32[] = 0
  set seen = seen + S
  minimize sum(x * w) with { "*": momentum(0.1) }
}

# >>> out
# moec-ir 1
# slot "w" param f32[4]
# slot "train/w/momentum/m" optim f32[4]
# slot "train.S2/seen" state i32[]
# slot "train.S3/seen" state i32[]
#
# entry @init() {
#   %0 = const {value=1} : f32[4]
#   %1 = const {value=0} : i32[]
#   %2 = const {value=0} : f32[4] layer("w/momentum")
#   %3 = const {value=0} : i32[]
#   return
#       slot "w" = %0,
#       slot "train/w/momentum/m" = %2,
#       slot "train.S2/seen" = %1,
#       slot "train.S3/seen" = %3
# }
#
# entry @reset() {
#   %0 = const {value=0} : i32[]
#   %1 = const {value=0} : i32[]
#   return slot "train.S2/seen" = %0, slot "train.S3/seen" = %1
# }
#
# entry @train.S2(
#     %w: f32[4] = slot "w",
#     %m: f32[4] = slot "train/w/momentum/m",
#     %seen: i32[] = slot "train.S2/seen",
#     %x: f32[2, 4] = input "text(below=4)") {
#   %0 = stop_gradient %seen : i32[]
#   %1 = const {value=2} : i32[]
#   %2 = add %0, %1 : i32[]
#   %3 = broadcast %w {map="b->ab"} : f32[2, 4]
#   %4 = mul %x, %3 : f32[2, 4]
#   %5 = reduce_sum %4 {map="ab->"} : f32[]
#   %d_w = grad %5, %w : f32[4]
#   %6 = mul %d_w, %d_w : f32[4]
#   %7 = reduce_sum %6 {map="a->"} : f32[]
#   %8 = sqrt %7 : f32[]
#   %9 = is_finite %5 : bool[]
#   %10 = is_finite %8 : bool[]
#   %11 = and %9, %10 : bool[]
#   %12 = const {value=0.9} : f32[4] layer("w/momentum")
#   %13 = mul %12, %m : f32[4] layer("w/momentum")
#   %m1 = add %13, %d_w : f32[4] layer("w/momentum")
#   %14 = const {value=0.1} : f32[4] layer("w/momentum")
#   %15 = mul %14, %m1 : f32[4] layer("w/momentum")
#   %16 = sub %w, %15 : f32[4] layer("w/momentum")
#   %17 = cast %11 : f32[]
#   %18 = broadcast %11 {map="->a"} : bool[4] layer("w/momentum")
#   %19 = select %18, %16, %w : f32[4] layer("w/momentum")
#   %20 = select %11, %2, %seen : i32[]
#   %21 = broadcast %11 {map="->a"} : bool[4] layer("w/momentum")
#   %22 = select %21, %m1, %m : f32[4] layer("w/momentum")
#   return
#       slot "w" = %19,
#       slot "train/w/momentum/m" = %22,
#       slot "train.S2/seen" = %20,
#       report "loss" = %5,
#       report "grad_norm" = %8,
#       report "ok" = %17
# }
#
# entry @train.S3(
#     %w: f32[4] = slot "w",
#     %m: f32[4] = slot "train/w/momentum/m",
#     %seen: i32[] = slot "train.S3/seen",
#     %x: f32[3, 4] = input "text(below=6)") {
#   %0 = stop_gradient %seen : i32[]
#   %1 = const {value=3} : i32[]
#   %2 = add %0, %1 : i32[]
#   %3 = broadcast %w {map="b->ab"} : f32[3, 4]
#   %4 = mul %x, %3 : f32[3, 4]
#   %5 = reduce_sum %4 {map="ab->"} : f32[]
#   %d_w = grad %5, %w : f32[4]
#   %6 = mul %d_w, %d_w : f32[4]
#   %7 = reduce_sum %6 {map="a->"} : f32[]
#   %8 = sqrt %7 : f32[]
#   %9 = is_finite %5 : bool[]
#   %10 = is_finite %8 : bool[]
#   %11 = and %9, %10 : bool[]
#   %12 = const {value=0.9} : f32[4] layer("w/momentum")
#   %13 = mul %12, %m : f32[4] layer("w/momentum")
#   %m1 = add %13, %d_w : f32[4] layer("w/momentum")
#   %14 = const {value=0.1} : f32[4] layer("w/momentum")
#   %15 = mul %14, %m1 : f32[4] layer("w/momentum")
#   %16 = sub %w, %15 : f32[4] layer("w/momentum")
#   %17 = cast %11 : f32[]
#   %18 = broadcast %11 {map="->a"} : bool[4] layer("w/momentum")
#   %19 = select %18, %16, %w : f32[4] layer("w/momentum")
#   %20 = select %11, %2, %seen : i32[]
#   %21 = broadcast %11 {map="->a"} : bool[4] layer("w/momentum")
#   %22 = select %21, %m1, %m : f32[4] layer("w/momentum")
#   return
#       slot "w" = %19,
#       slot "train/w/momentum/m" = %22,
#       slot "train.S3/seen" = %20,
#       report "loss" = %5,
#       report "grad_norm" = %8,
#       report "ok" = %17
# }
# <<<
