# test: %s --stop-after=frontend
# A parameter that the loss does not see is kept, with a warning; a frozen one is
# kept without.
# count: grad 1, select 1
fn sgd(rate)(p: f32[..], g: f32[..]) { return p - rate * g }
entry train(x: f32[3] from text) {
  param w: f32[3] = 1.0
  param v: f32[3] = 1.0
  param u: f32[3] = 1.0
  minimize sum(x * w * u) with { "u": freeze, "*": sgd(0.1) }
  param late: f32[3] = 1.0
  report late = sum(late)
}

# >>> err
# tests/parse/unused-parameter.dsl:8:3: warning: parameter 'v' is not trained: the loss does not depend on it
#     8 |   param v: f32[3] = 1.0
#       |   ^~~~~~~~~~~~~~~~~~~~~
# tests/parse/unused-parameter.dsl:11:3: warning: parameter 'late' is not trained: it comes after minimize
#    11 |   param late: f32[3] = 1.0
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~
# <<<
