# test: %s
fn even(n, x) { return odd(n - 1, x) }
fn odd(n, x) { return even(n - 1, x) }
fn twice(n, x) { return twice(n - 1, x) + twice(n - 1, x) if n > 0 else x }
entry eval(x: f32[2] from text) {
  report a = even(3, x)
  report b = twice(40, x)
}

# >>> err
# tests/parse/recursion.dsl:3:23: error: calls are nested more than 64 deep: does 'even' call itself?
#     3 | fn odd(n, x) { return even(n - 1, x) }
#       |                       ^~~~~~~~~~~~~~
# tests/parse/recursion.dsl:2:24: note: in 'odd', called here
#     2 | fn even(n, x) { return odd(n - 1, x) }
#       |                        ^~~~~~~~~~~~~
# tests/parse/recursion.dsl:6:14: note: in 'even', called here
#     6 |   report a = even(3, x)
#       |              ^~~~~~~~~~
# tests/parse/recursion.dsl:4:25: error: the model takes more than 1000000 steps to work out
#     4 | fn twice(n, x) { return twice(n - 1, x) + twice(n - 1, x) if n > 0 else x }
#       |                         ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/recursion.dsl:4:25: note: in 'twice', called here
#     4 | fn twice(n, x) { return twice(n - 1, x) + twice(n - 1, x) if n > 0 else x }
#       |                         ^~~~~~~~~~~~~~~
# tests/parse/recursion.dsl:4:43: note: in 'twice', called here
#     4 | fn twice(n, x) { return twice(n - 1, x) + twice(n - 1, x) if n > 0 else x }
#       |                                           ^~~~~~~~~~~~~~~
# tests/parse/recursion.dsl:7:14: note: in 'twice', called here
#     7 |   report b = twice(40, x)
#       |              ^~~~~~~~~~~~
# <<<
# >>> exit 1
