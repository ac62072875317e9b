# test: %s
fn check(x) {
  require(size(x, 0) == 2, "not shown", x)
  require(size(x, 1) > 3, "too few columns", size(x, 1), 0.5, "text")
  return x + zzz
}
entry eval(x: f32[2, 3] from text) {
  let y = check(x)
  report y = y
  require(x > 0.0, "must be known")
  require(false, 3)
}

# >>> err
# tests/parse/require-uses.dsl:4:3: error: too few columns: 3, 0.5, text
#     4 |   require(size(x, 1) > 3, "too few columns", size(x, 1), 0.5, "text")
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/require-uses.dsl:8:11: note: in 'check', called here
#     8 |   let y = check(x)
#       |           ^~~~~~~~
# tests/parse/require-uses.dsl:10:11: error: require: true or false is needed here, not bool[2, 3]
#    10 |   require(x > 0.0, "must be known")
#       |           ^~~~~~~
# tests/parse/require-uses.dsl:11:18: error: require: a message is needed here, not the integer 3
#    11 |   require(false, 3)
#       |                  ^
# <<<
# >>> exit 1
