# test: %s --stop-after=frontend
const HALF = floor(7 / 2)
entry eval(x: f32[2, 3] from text, ids: i32[2, 2] from text, table: f32[5, 4] from text) {
  report sums = sum(x), means = mean(x, dim = 0, keep = true), largest = max(x, dim = -1)
  report two = max(x, 0.0), three = min(HALF, size(x, 1) + rank(x)), c = cumsum(x, reverse = true)
  let v, i = top_k(x, 2)
  let s, order = sort(x)
  report v = v, i = i, s = s, order = order
  report iota = iota(x, dim = 1), more = iota_like(ids, 3), row = expand(x)
  report zeros = zeros(f32[2, HALF]), ones = ones_like(x), full = full(i32[2], 7)
  report reshaped = reshape(x, 3, -1), typed = reshape(x, f32[6])
  report turned = transpose(x, 1, 0), joined = concat(x, x, dim = -1), padded = pad(x, 0, hi = 1)
  report rows = gather(table, ids), back = scatter_add(gather(table, ids), ids, 5)
  report taken = take(x, ids), put_back = put(take(x, ids), ids, 3)
  let y = dispatch(x, ids, 4)
  report sent = combine(y, ids), weighted = combine(y, ids, ones(f32[2, 2]))
  report chosen = select(x > 0.0, x, 0.0), cast = i32(x), bits = xor(ids, 1)
  report stopped = stop_gradient(x), finite = is_finite(x)
  report slices = x[-1, 1:], corner = x[.., 0], one = x[0, 0]
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
#     %ids: i32[2, 2] = input "text",
#     %table: f32[5, 4] = input "text") {
#   %0 = reduce_sum %x {map="ab->"} : f32[]
#   %1 = reduce_sum %x {map="ab->b"} : f32[3]
#   %2 = reshape %1 : f32[1, 3]
#   %3 = const {value=2} : f32[1, 3]
#   %4 = div %2, %3 : f32[1, 3]
#   %5 = reduce_max %x {map="ab->a"} : f32[2]
#   %6 = const {value=0} : f32[2, 3]
#   %7 = max %x, %6 : f32[2, 3]
#   %8 = const {value=3} : f32[]
#   %9 = cumsum %x {exclusive=false, reverse=true} : f32[2, 3]
#   %v, %i = top_k %x {k=2} : f32[2, 2], i32[2, 2]
#   %s, %order = sort %x : f32[2, 3], i32[2, 3]
#   %10 = iota {dim=1} : i32[2, 3]
#   %11 = iota {dim=2} : i32[2, 2, 3]
#   %12 = reshape %x : f32[2, 3, 1]
#   %13 = const {value=0} : f32[2, 3]
#   %14 = const {value=1} : f32[2, 3]
#   %15 = const {value=7} : i32[2]
#   %16 = reshape %x : f32[3, 2]
#   %17 = reshape %x : f32[6]
#   %18 = transpose %x {map="ab->ba"} : f32[3, 2]
#   %19 = concat %x, %x {dim=1} : f32[2, 6]
#   %20 = pad %x {dim=0, lo=0, hi=1} : f32[3, 3]
#   %21 = gather %table, %ids : f32[2, 2, 4]
#   %22 = gather %table, %ids : f32[2, 2, 4]
#   %23 = scatter_add %ids, %22 {rows=5} : f32[5, 4]
#   %24 = take %x, %ids : f32[2, 2]
#   %25 = take %x, %ids : f32[2, 2]
#   %26 = put %25, %ids {size=3} : f32[2, 3]
#   %y = dispatch %x, %ids {experts=4} : f32[4, r<=4, 3]
#   %27 = combine %y, %ids : f32[2, 3]
#   %28 = const {value=1} : f32[2, 2]
#   %29 = combine %y, %ids, %28 : f32[2, 3]
#   %30 = const {value=0} : f32[2, 3]
#   %31 = lt %30, %x : bool[2, 3]
#   %32 = const {value=0} : f32[2, 3]
#   %33 = select %31, %x, %32 : f32[2, 3]
#   %34 = cast %x : i32[2, 3]
#   %35 = const {value=1} : i32[2, 2]
#   %36 = xor %ids, %35 : i32[2, 2]
#   %37 = stop_gradient %x : f32[2, 3]
#   %38 = is_finite %x : bool[2, 3]
#   %39 = slice %x {dim=0, start=1, size=1} : f32[1, 3]
#   %40 = slice %39 {dim=1, start=1, size=2} : f32[1, 2]
#   %41 = reshape %40 : f32[2]
#   %42 = slice %x {dim=1, start=0, size=1} : f32[2, 1]
#   %43 = reshape %42 : f32[2]
#   %44 = slice %x {dim=0, start=0, size=1} : f32[1, 3]
#   %45 = slice %44 {dim=1, start=0, size=1} : f32[1, 1]
#   %46 = reshape %45 : f32[]
#   return
#       report "sums" = %0,
#       report "means" = %4,
#       report "largest" = %5,
#       report "two" = %7,
#       report "three" = %8,
#       report "c" = %9,
#       report "v" = %v,
#       report "i" = %i,
#       report "s" = %s,
#       report "order" = %order,
#       report "iota" = %10,
#       report "more" = %11,
#       report "row" = %12,
#       report "zeros" = %13,
#       report "ones" = %14,
#       report "full" = %15,
#       report "reshaped" = %16,
#       report "typed" = %17,
#       report "turned" = %18,
#       report "joined" = %19,
#       report "padded" = %20,
#       report "rows" = %21,
#       report "back" = %23,
#       report "taken" = %24,
#       report "put_back" = %26,
#       report "sent" = %27,
#       report "weighted" = %29,
#       report "chosen" = %33,
#       report "cast" = %34,
#       report "bits" = %36,
#       report "stopped" = %37,
#       report "finite" = %38,
#       report "slices" = %41,
#       report "corner" = %43,
#       report "one" = %46
# }
# <<<
