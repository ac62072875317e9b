# test: %s --mesh data=2 --emit=ir
mesh data
entry eval(x: f32[8, 4] from text) {
  report y = x[0 @data, :]
}

# >>> err
# tests/parse/placement-index-syntax.dsl:4:18: error: expected ',', ':' or ']', found '@'
#     4 |   report y = x[0 @data, :]
#       |                  ^
# <<<
# >>> exit 1
