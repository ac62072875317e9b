# test: %s
# Each mistake is told once, and parsing goes on behind it.
const A =
const B = 3 4
fn f(x y) {
  return x
}
fn g(x: f32[.., d]) {
  let a = foo(1, 2
  let b = 3 +
  let c = $ 4
  if a > 3 2 {
    return )
  } else {
    return x
  }
  let s = "abc
  let q = scan t x { yield t }
}
entry t(x: i32[B, T from text) {
  minimize x with { "a" b }
}
const C = 99999999999999999999
fn h(x) { return x

# >>> err
# tests/parse/syntax-errors.dsl:3:10: error: expected an expression, found end of line
#     3 | const A =
#       |          ^
# tests/parse/syntax-errors.dsl:4:13: error: expected end of line, found '4'
#     4 | const B = 3 4
#       |             ^
# tests/parse/syntax-errors.dsl:5:8: error: expected '=', ')', ',' or ':', found 'y'
#     5 | fn f(x y) {
#       |        ^
# tests/parse/syntax-errors.dsl:9:19: error: expected ')' or ',', found end of line
#     9 |   let a = foo(1, 2
#       |                   ^
# tests/parse/syntax-errors.dsl:10:14: error: expected an expression, found end of line
#    10 |   let b = 3 +
#       |              ^
# tests/parse/syntax-errors.dsl:11:11: error: unexpected character '$'
#    11 |   let c = $ 4
#       |           ^
# tests/parse/syntax-errors.dsl:12:12: error: expected '{', found '2'
#    12 |   if a > 3 2 {
#       |            ^
# tests/parse/syntax-errors.dsl:17:11: error: this string has no closing quote
#    17 |   let s = "abc
#       |           ^~~~
# tests/parse/syntax-errors.dsl:18:18: error: expected 'in', found 'x'
#    18 |   let q = scan t x { yield t }
#       |                  ^
# tests/parse/syntax-errors.dsl:20:21: error: expected ',', ']' or '@', found 'from'
#    20 | entry t(x: i32[B, T from text) {
#       |                     ^~~~
# tests/parse/syntax-errors.dsl:21:25: error: expected ':', found 'b'
#    21 |   minimize x with { "a" b }
#       |                         ^
# tests/parse/syntax-errors.dsl:23:11: error: this integer is too large
#    23 | const C = 99999999999999999999
#       |           ^~~~~~~~~~~~~~~~~~~~
# tests/parse/syntax-errors.dsl:24:9: error: '{' is never closed
#    24 | fn h(x) { return x
#       |         ^
# <<<
# >>> exit 1
