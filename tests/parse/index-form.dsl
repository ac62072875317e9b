# test: %s --stop-after=frontend
# Sums, products, functions, divisors and missing letters in index form.
fn relu(x: f32[..]) { return max(x, 0.0) }
entry eval(x: f32[2, 3, 4] from text, w: f32[4, 5] from text, v: f32[5, 6] from text,
           b: f32[5] from text, s: f32[] from text) {
  let linear[.., n] = x[.., d] * w[d, n] + b[n]
  let chain[b, t, m] = x[b, t, d] * w[d, n] * v[n, m]
  let total[] = x[b, t, d]
  let rows[d] = 2.0 * x[.., d] / 6.0
  let activated[d, t] = relu(x[b, t, d] - s)
  let normal[b, n] = -x[b, t, d] * w[d, n] / b[n]
  let early[b] = x[b, t, d] / b[t2] * w[d, t2]
  let wide[n, b] = b[n] + x[b, t, d]
  report linear = linear, chain = chain, total = total, rows = rows
  report activated = activated, normal = normal, early = early, wide = wide
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
#     %x: f32[2, 3, 4] = input "text",
#     %w: f32[4, 5] = input "text",
#     %v: f32[5, 6] = input "text",
#     %b: f32[5] = input "text",
#     %s: f32[] = input "text") {
#   %0 = contract %x, %w {map="abd,dn->abn"} : f32[2, 3, 5]
#   %1 = broadcast %b {map="n->abn"} : f32[2, 3, 5]
#   %linear = add %0, %1 : f32[2, 3, 5]
#   %2 = contract %x, %w {map="btd,dn->btn"} : f32[2, 3, 5]
#   %chain = contract %2, %v {map="btn,nm->btm"} : f32[2, 3, 6]
#   %total = reduce_sum %x {map="btd->"} : f32[]
#   %3 = reduce_sum %x {map="abd->d"} : f32[4]
#   %4 = const {value=2} : f32[4]
#   %5 = mul %3, %4 : f32[4]
#   %6 = const {value=6} : f32[4]
#   %rows = div %5, %6 : f32[4]
#   %7 = broadcast %s {map="->btd"} : f32[2, 3, 4]
#   %8 = sub %x, %7 : f32[2, 3, 4]
#   %9 = const {value=0} : f32[2, 3, 4] layer("activated/relu")
#   %10 = max %8, %9 : f32[2, 3, 4] layer("activated/relu")
#   %11 = reduce_sum %10 {map="btd->td"} : f32[3, 4]
#   %activated = transpose %11 {map="td->dt"} : f32[4, 3]
#   %12 = reduce_sum %x {map="btd->bd"} : f32[2, 4]
#   %13 = contract %12, %w {map="bd,dn->bn"} : f32[2, 5]
#   %14 = broadcast %b {map="n->bn"} : f32[2, 5]
#   %15 = div %13, %14 : f32[2, 5]
#   %normal = neg %15 : f32[2, 5]
#   %16 = broadcast %b {map="a->da"} : f32[4, 5]
#   %17 = div %w, %16 : f32[4, 5]
#   %18 = reduce_sum %x {map="btd->bd"} : f32[2, 4]
#   %19 = reduce_sum %17 {map="da->d"} : f32[4]
#   %early = contract %18, %19 {map="bd,d->b"} : f32[2]
#   %20 = reduce_sum %x {map="btd->b"} : f32[2]
#   %21 = broadcast %b {map="n->nb"} : f32[5, 2]
#   %22 = broadcast %20 {map="b->nb"} : f32[5, 2]
#   %wide = add %21, %22 : f32[5, 2]
#   return
#       report "linear" = %linear,
#       report "chain" = %chain,
#       report "total" = %total,
#       report "rows" = %rows,
#       report "activated" = %activated,
#       report "normal" = %normal,
#       report "early" = %early,
#       report "wide" = %wide
# }
# <<<
