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
#   %10 = const {value=0} : u32[2, 3] layer("n")
#   %11 = philox %1, %6, %8, %9, %10 {site=1668353329} : u32[2, 3] layer("n")
#   %12 = uniform %11 : f32[2, 3] layer("n")
#   %13 = cast %step : u32[] layer("n")
#   %14 = broadcast %seed {map="->ab"} : u32[2, 3] layer("n")
#   %15 = iota {dim=0} : u32[2, 3] layer("n")
#   %16 = const {value=3} : u32[2, 3] layer("n")
#   %17 = mul %15, %16 : u32[2, 3] layer("n")
#   %18 = iota {dim=1} : u32[2, 3] layer("n")
#   %19 = add %17, %18 : u32[2, 3] layer("n")
#   %20 = const {value=0} : u32[] layer("n")
#   %21 = broadcast %20 {map="->ab"} : u32[2, 3] layer("n")
#   %22 = broadcast %13 {map="->ab"} : u32[2, 3] layer("n")
#   %23 = const {value=0} : u32[2, 3] layer("n")
#   %24 = philox %14, %19, %21, %22, %23 {site=1926848402} : u32[2, 3] layer("n")
#   %25 = normal %24 : f32[2, 3] layer("n")
#   %a = add %12, %25 : f32[2, 3] layer("n")
#   %b = scan %x, %seed, %step {carries=0, scanned=1, length=2, reverse=false} (
#       %26: i32[],
#       %row: f32[3],
#       %seed.1: u32[],
#       %step.1: i32[]) {
#     %27 = cast %step.1 : u32[] layer("s")
#     %28 = broadcast %seed.1 {map="->a"} : u32[3] layer("s")
#     %29 = iota {dim=0} : u32[3] layer("s")
#     %30 = cast %26 : u32[] layer("s")
#     %31 = broadcast %30 {map="->a"} : u32[3] layer("s")
#     %32 = broadcast %27 {map="->a"} : u32[3] layer("s")
#     %33 = const {value=0} : u32[3] layer("s")
#     %34 = philox %28, %29, %31, %32, %33 {site=149029811} : u32[3] layer("s")
#     %35 = uniform %34 : f32[3] layer("s")
#     %36 = cast %step.1 : u32[] layer("s")
#     %37 = broadcast %seed.1 {map="->a"} : u32[3] layer("s")
#     %38 = iota {dim=0} : u32[3] layer("s")
#     %39 = cast %26 : u32[] layer("s")
#     %40 = broadcast %39 {map="->a"} : u32[3] layer("s")
#     %41 = broadcast %36 {map="->a"} : u32[3] layer("s")
#     %42 = const {value=0} : u32[3] layer("s")
#     %43 = philox %37, %38, %40, %41, %42 {site=684805811} : u32[3] layer("s")
#     %44 = normal %43 : f32[3] layer("s")
#     %45 = add %35, %44 : f32[3] layer("s")
#     yield %45
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
#   %10 = const {value=0} : u32[2, 3] layer("n")
#   %11 = philox %1, %6, %8, %9, %10 {site=1668353329} : u32[2, 3] layer("n")
#   %12 = uniform %11 : f32[2, 3] layer("n")
#   %13 = cast %step : u32[] layer("n")
#   %14 = broadcast %seed {map="->ab"} : u32[2, 3] layer("n")
#   %15 = iota {dim=0} : u32[2, 3] layer("n")
#   %16 = const {value=3} : u32[2, 3] layer("n")
#   %17 = mul %15, %16 : u32[2, 3] layer("n")
#   %18 = iota {dim=1} : u32[2, 3] layer("n")
#   %19 = add %17, %18 : u32[2, 3] layer("n")
#   %20 = const {value=0} : u32[] layer("n")
#   %21 = broadcast %20 {map="->ab"} : u32[2, 3] layer("n")
#   %22 = broadcast %13 {map="->ab"} : u32[2, 3] layer("n")
#   %23 = const {value=0} : u32[2, 3] layer("n")
#   %24 = philox %14, %19, %21, %22, %23 {site=1926848402} : u32[2, 3] layer("n")
#   %25 = normal %24 : f32[2, 3] layer("n")
#   %a = add %12, %25 : f32[2, 3] layer("n")
#   return report "a" = %a
# }
# <<<
