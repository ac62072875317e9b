# test: %s --stop-after=frontend
# The same site for the same path in any entry, another for another draw; the
# turn of the scan counts.
fn noise(x: f32[..]) { return uniform(random_bits(x)) + normal(random_bits(x)) }
entry eval(x: f32[2, 3] from text) {
  let a = noise(x) as "n"
  let b = scan row in x { yield noise(row) as "s" }
  report a = a, b = b
}
entry other(x: f32[2, 3] from text) {
  let a = noise(x) as "n"
  report a = a
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
#     %x: f32[2, 3] = input "text",
#     %step: i32[] = step,
#     %seed: u32[] = seed) {
#   %0 = cast %step : u32[] layer("n")
#   %1 = broadcast %seed {map="->ab"} : u32[2, 3] layer("n")
#   %2 = iota {dim=0} : u32[2, 3] layer("n")
#   %3 = const {value=3} : u32[2, 3] layer("n")
#   %4 = mul %2, %3 : u32[2, 3] layer("n")
#   %5 = iota {dim=1} : u32[2, 3] layer("n")
#   %6 = add %4, %5 : u32[2, 3] layer("n")
#   %7 = const {value=0} : u32[] layer("n")
#   %8 = broadcast %7 {map="->ab"} : u32[2, 3] layer("n")
#   %9 = broadcast %0 {map="->ab"} : u32[2, 3] layer("n")
#   %10 = threefry %1, %6, %8, %9 {site=1668353329} : u32[2, 3] layer("n")
#   %11 = uniform %10 : f32[2, 3] layer("n")
#   %12 = cast %step : u32[] layer("n")
#   %13 = broadcast %seed {map="->ab"} : u32[2, 3] layer("n")
#   %14 = iota {dim=0} : u32[2, 3] layer("n")
#   %15 = const {value=3} : u32[2, 3] layer("n")
#   %16 = mul %14, %15 : u32[2, 3] layer("n")
#   %17 = iota {dim=1} : u32[2, 3] layer("n")
#   %18 = add %16, %17 : u32[2, 3] layer("n")
#   %19 = const {value=0} : u32[] layer("n")
#   %20 = broadcast %19 {map="->ab"} : u32[2, 3] layer("n")
#   %21 = broadcast %12 {map="->ab"} : u32[2, 3] layer("n")
#   %22 = threefry %13, %18, %20, %21 {site=1926848402} : u32[2, 3] layer("n")
#   %23 = normal %22 : f32[2, 3] layer("n")
#   %a = add %11, %23 : f32[2, 3] layer("n")
#   %b = scan %x, %seed, %step {carries=0, scanned=1, length=2, reverse=false} (
#       %24: i32[],
#       %row: f32[3],
#       %seed.1: u32[],
#       %step.1: i32[]) {
#     %25 = cast %step.1 : u32[] layer("s")
#     %26 = broadcast %seed.1 {map="->a"} : u32[3] layer("s")
#     %27 = iota {dim=0} : u32[3] layer("s")
#     %28 = cast %24 : u32[] layer("s")
#     %29 = broadcast %28 {map="->a"} : u32[3] layer("s")
#     %30 = broadcast %25 {map="->a"} : u32[3] layer("s")
#     %31 = threefry %26, %27, %29, %30 {site=149029811} : u32[3] layer("s")
#     %32 = uniform %31 : f32[3] layer("s")
#     %33 = cast %step.1 : u32[] layer("s")
#     %34 = broadcast %seed.1 {map="->a"} : u32[3] layer("s")
#     %35 = iota {dim=0} : u32[3] layer("s")
#     %36 = cast %24 : u32[] layer("s")
#     %37 = broadcast %36 {map="->a"} : u32[3] layer("s")
#     %38 = broadcast %33 {map="->a"} : u32[3] layer("s")
#     %39 = threefry %34, %35, %37, %38 {site=684805811} : u32[3] layer("s")
#     %40 = normal %39 : f32[3] layer("s")
#     %41 = add %32, %40 : f32[3] layer("s")
#     yield %41
#   } : f32[2, 3]
#   return report "a" = %a, report "b" = %b
# }
#
# entry @other(
#     %x: f32[2, 3] = input "text",
#     %step: i32[] = step,
#     %seed: u32[] = seed) {
#   %0 = cast %step : u32[] layer("n")
#   %1 = broadcast %seed {map="->ab"} : u32[2, 3] layer("n")
#   %2 = iota {dim=0} : u32[2, 3] layer("n")
#   %3 = const {value=3} : u32[2, 3] layer("n")
#   %4 = mul %2, %3 : u32[2, 3] layer("n")
#   %5 = iota {dim=1} : u32[2, 3] layer("n")
#   %6 = add %4, %5 : u32[2, 3] layer("n")
#   %7 = const {value=0} : u32[] layer("n")
#   %8 = broadcast %7 {map="->ab"} : u32[2, 3] layer("n")
#   %9 = broadcast %0 {map="->ab"} : u32[2, 3] layer("n")
#   %10 = threefry %1, %6, %8, %9 {site=1668353329} : u32[2, 3] layer("n")
#   %11 = uniform %10 : f32[2, 3] layer("n")
#   %12 = cast %step : u32[] layer("n")
#   %13 = broadcast %seed {map="->ab"} : u32[2, 3] layer("n")
#   %14 = iota {dim=0} : u32[2, 3] layer("n")
#   %15 = const {value=3} : u32[2, 3] layer("n")
#   %16 = mul %14, %15 : u32[2, 3] layer("n")
#   %17 = iota {dim=1} : u32[2, 3] layer("n")
#   %18 = add %16, %17 : u32[2, 3] layer("n")
#   %19 = const {value=0} : u32[] layer("n")
#   %20 = broadcast %19 {map="->ab"} : u32[2, 3] layer("n")
#   %21 = broadcast %12 {map="->ab"} : u32[2, 3] layer("n")
#   %22 = threefry %13, %18, %20, %21 {site=1926848402} : u32[2, 3] layer("n")
#   %23 = normal %22 : f32[2, 3] layer("n")
#   %a = add %11, %23 : f32[2, 3] layer("n")
#   return report "a" = %a
# }
# <<<
