# test: %s
# Rows go back by the ids that they came by, the very same value.
entry eval(x: f32[4, 2] from text, ids: i32[4, 1] from text, others: i32[4, 1] from text) {
  let rows = dispatch(x, ids, 3)
  let a = combine(rows * 2.0, others)
  let b = row_dot(rows, x, others + 0)
  report a = a, b = b
}

# >>> err
# tests/parse/rows-of-other-ids.dsl:5:31: error: combine: the rows came by other ids than these
#     5 |   let a = combine(rows * 2.0, others)
#       |                               ^~~~~~
# tests/parse/rows-of-other-ids.dsl:4:14: note: they came from here
#     4 |   let rows = dispatch(x, ids, 3)
#       |              ^~~~~~~~~~~~~~~~~~~
# tests/parse/rows-of-other-ids.dsl:6:28: error: row_dot: the rows came by other ids than these
#     6 |   let b = row_dot(rows, x, others + 0)
#       |                            ^~~~~~~~~~
# tests/parse/rows-of-other-ids.dsl:4:14: note: they came from here
#     4 |   let rows = dispatch(x, ids, 3)
#       |              ^~~~~~~~~~~~~~~~~~~
# <<<
# >>> exit 1
