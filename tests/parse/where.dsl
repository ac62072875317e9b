# test: %s --stop-after=frontend
entry eval(x: f32[2] from text) {
  state seen: i32[] = 0
  state sum: f32[2]
  state last: f32[2]
  let even = seen % 2 == 0
  set seen = seen + 1
  where even {
    set sum = sum + x
    where x[0] > 0.0 { set last = x }
  }
  report sum = sum
}

# >>> out
# moec-ir 1
# slot "eval/seen" state i32[]
# slot "eval/sum" state f32[2]
# slot "eval/last" state f32[2]
#
# entry @init() {
#   %0 = const {value=0} : i32[]
#   %1 = const {value=0} : f32[2]
#   %2 = const {value=0} : f32[2]
#   return slot "eval/seen" = %0, slot "eval/sum" = %1, slot "eval/last" = %2
# }
#
# entry @reset() {
#   %0 = const {value=0} : i32[]
#   %1 = const {value=0} : f32[2]
#   %2 = const {value=0} : f32[2]
#   return slot "eval/seen" = %0, slot "eval/sum" = %1, slot "eval/last" = %2
# }
#
# entry @eval(
#     %seen: i32[] = slot "eval/seen",
#     %sum: f32[2] = slot "eval/sum",
#     %last: f32[2] = slot "eval/last",
#     %x: f32[2] = input "text") {
#   %0 = stop_gradient %seen : i32[]
#   %1 = stop_gradient %sum : f32[2]
#   %2 = stop_gradient %last : f32[2]
#   %3 = const {value=2} : i32[]
#   %4 = rem %0, %3 : i32[]
#   %5 = const {value=0} : i32[]
#   %even = eq %4, %5 : bool[]
#   %6 = const {value=1} : i32[]
#   %7 = add %0, %6 : i32[]
#   %8 = add %1, %x : f32[2]
#   %9 = broadcast %even {map="->a"} : bool[2]
#   %10 = select %9, %8, %sum : f32[2]
#   %11 = slice %x {dim=0, start=0, size=1} : f32[1]
#   %12 = reshape %11 : f32[]
#   %13 = const {value=0} : f32[]
#   %14 = lt %13, %12 : bool[]
#   %15 = and %even, %14 : bool[]
#   %16 = broadcast %15 {map="->a"} : bool[2]
#   %17 = select %16, %x, %last : f32[2]
#   return
#       slot "eval/seen" = %7,
#       slot "eval/sum" = %10,
#       slot "eval/last" = %17,
#       report "sum" = %1
# }
# <<<
