# test: %s --stop-after=frontend
# The place of a row is that of its choice, wherever the row stands.
entry eval(x: f32[3, 4] from text, i: i32[3, 2] from text) {
  let ids = i % 5
  let rows = dispatch(x, ids, 5)
  report a = combine(uniform(random_bits(rows)), ids)
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
# entry @eval(
#     %x: f32[3, 4] = input "text",
#     %i: i32[3, 2] = input "text",
#     %step: i32[] = step,
#     %seed: u32[] = seed) {
#   %0 = const {value=5} : i32[3, 2]
#   %ids = rem %i, %0 : i32[3, 2]
#   %rows = dispatch %x, %ids {experts=5} : f32[5, r<=6, 4]
#   %1 = cast %step : u32[]
#   %2 = broadcast %seed {map="->abc"} : u32[5, r<=6, 4]
#   %3 = const {value=1} : u32[3, 1]
#   %4 = iota {dim=0} : u32[3, 2]
#   %5 = const {value=2} : u32[3, 2]
#   %6 = mul %4, %5 : u32[3, 2]
#   %7 = iota {dim=1} : u32[3, 2]
#   %8 = add %6, %7 : u32[3, 2]
#   %9 = dispatch %3, %ids, %8 {experts=5} : u32[5, r<=6, 1]
#   %10 = reshape %9 : u32[5, r<=6]
#   %11 = broadcast %10 {map="ab->abc"} : u32[5, r<=6, 4]
#   %12 = const {value=4} : u32[5, r<=6, 4]
#   %13 = mul %11, %12 : u32[5, r<=6, 4]
#   %14 = iota {dim=2} : u32[5, r<=6, 4]
#   %15 = add %13, %14 : u32[5, r<=6, 4]
#   %16 = const {value=0} : u32[]
#   %17 = broadcast %16 {map="->abc"} : u32[5, r<=6, 4]
#   %18 = broadcast %1 {map="->abc"} : u32[5, r<=6, 4]
#   %19 = threefry %2, %15, %17, %18 {site=262871797} : u32[5, r<=6, 4]
#   %20 = uniform %19 : f32[5, r<=6, 4]
#   %21 = combine %20, %ids : f32[3, 4]
#   return report "a" = %21
# }
# <<<
