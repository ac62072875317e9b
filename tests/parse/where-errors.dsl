# test: %s
fn sgd(p: f32[..], g: f32[..]) { return p - 0.1 * g }
entry eval(x: f32[2] from text) {
  state s: f32[2]
  where x > 0.0 { set s = x }
  where 3 { set s = x }
  let n = grad_norm
}
entry train(x: f32[2] from text) {
  param w: f32[2] = 1.0
  where x[0] > 0.0 { minimize sum(w * x) with { "*": sgd } }
}

# >>> err
# tests/parse/where-errors.dsl:5:9: error: the condition of 'where' must be bool[], but is bool[2]
#     5 |   where x > 0.0 { set s = x }
#       |         ^~~~~~~
# tests/parse/where-errors.dsl:6:9: error: the condition of 'where' must be bool[], but is i32[]
#     6 |   where 3 { set s = x }
#       |         ^
# tests/parse/where-errors.dsl:7:11: error: grad_norm is known in optimisers only
#     7 |   let n = grad_norm
#       |           ^~~~~~~~~
# tests/parse/where-errors.dsl:11:22: error: minimize stands in an entry, not in a loop, an optimiser or where
#    11 |   where x[0] > 0.0 { minimize sum(w * x) with { "*": sgd } }
#       |                      ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# <<<
# >>> exit 1
