# test: %s --dump=frontend
# How many rows an expert has at most is a number, at least 1.
entry f(ids: i32[4, 2] from text) {
  let x = gather(zeros(f32[256, 6]), ids[:, 0])
  report a = combine(dispatch(x, ids, 3, most = 0), ids)
  report b = combine(dispatch(x, ids, 3, most = ids), ids)
  report c = combine(dispatch(x, ids, 3, most = 2.5), ids)
  report d = combine(dispatch(x, ids, 3, most = 1e12), ids)
}

# >>> err
# tests/parse/error-most.dsl:5:49: error: dispatch: a number of rows, at least 1 and known when compiling, is needed here, not the integer 0
#     5 |   report a = combine(dispatch(x, ids, 3, most = 0), ids)
#       |                                                 ^
# tests/parse/error-most.dsl:6:49: error: dispatch: a number of rows, at least 1 and known when compiling, is needed here, not i32[4, 2]
#     6 |   report b = combine(dispatch(x, ids, 3, most = ids), ids)
#       |                                                 ^~~
# <<<
# >>> exit 1
