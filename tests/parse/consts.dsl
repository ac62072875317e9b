# test: %s
const A = B + 1
const B = A
const C = 1 / 0
const D = 9223372036854775807 + 1
const E = "a" + 1
const F = lr * 2
const G = f
const H = log(0.0)
const I = 7 % 2.5
const J = 1 and true
const K = zeros(f32[2])
option lr = 0.1
fn f(x) { return x }
entry eval(x: f32[2] from text) { report a = x }

# >>> err
# tests/parse/consts.dsl:3:11: error: 'A' depends on itself
#     3 | const B = A
#       |           ^
# tests/parse/consts.dsl:4:11: error: division by zero
#     4 | const C = 1 / 0
#       |           ^~~~~
# tests/parse/consts.dsl:5:11: error: integer overflow
#     5 | const D = 9223372036854775807 + 1
#       |           ^~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/consts.dsl:6:11: error: '+' does not apply to the string "a" and the integer 1
#     6 | const E = "a" + 1
#       |           ^~~~~~~
# tests/parse/consts.dsl:7:11: error: 'lr' is an option: its value is known when a step runs
#     7 | const F = lr * 2
#       |           ^~
# tests/parse/consts.dsl:8:11: error: a const is a number, a string, true or false, but this is a function
#     8 | const G = f
#       |           ^
# tests/parse/consts.dsl:9:11: error: log of the number 0 is not finite
#     9 | const H = log(0.0)
#       |           ^~~~~~~~
# tests/parse/consts.dsl:10:11: error: '%' takes integers
#    10 | const I = 7 % 2.5
#       |           ^~~~~~~
# tests/parse/consts.dsl:11:11: error: 'and' does not apply to the integer 1 and true
#    11 | const J = 1 and true
#       |           ^~~~~~~~~~
# tests/parse/consts.dsl:12:11: error: there are no tensors outside of entries
#    12 | const K = zeros(f32[2])
#       |           ^~~~~~~~~~~~~
# <<<
# >>> exit 1
