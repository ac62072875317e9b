# test: %s
option lr = 0.1
fn sgd(rate)(p: f32[..], g: f32[..]) { return p - rate * g }
fn sum_only(p: f32[..], g: f32[..]) { return sum(p) }
fn body(x: f32[n]) {
  param w: f32[n] = 1.0
  param v: f32[n] = 1.0
  return x * w
}
entry train(x: f32[3] from text) {
  let y = body(x) as "m"
  minimize y with { "*": sgd(lr) }
}
entry other(x: f32[3] from text) {
  let y = body(x) as "m"
  minimize sum(y) with { "m/x": sgd(lr), "m/*": 3, "w": sgd(lr) }
}
entry third(x: f32[3] from text) {
  let y = body(x) as "m"
  minimize sum(y) with { "w": sum_only }
  minimize sum(y) with { "*": sum_only }
}

# >>> err
# tests/parse/minimize.dsl:7:3: warning: parameter 'm/v' is not trained: the loss does not depend on it
#     7 |   param v: f32[n] = 1.0
#       |   ^~~~~~~~~~~~~~~~~~~~~
# tests/parse/minimize.dsl:12:12: error: the loss must be f32[], but is f32[3]
#    12 |   minimize y with { "*": sgd(lr) }
#       |            ^
# tests/parse/minimize.dsl:16:26: error: no parameter matches "m/x"
#    16 |   minimize sum(y) with { "m/x": sgd(lr), "m/*": 3, "w": sgd(lr) }
#       |                          ^~~~~
# note: the parameters are m/w, m/v
# tests/parse/minimize.dsl:16:49: error: an optimiser is a function or freeze, but this is the integer 3
#    16 |   minimize sum(y) with { "m/x": sgd(lr), "m/*": 3, "w": sgd(lr) }
#       |                                                 ^
# tests/parse/minimize.dsl:16:52: error: every parameter that "w" matches is taken by a pattern before it
#    16 |   minimize sum(y) with { "m/x": sgd(lr), "m/*": 3, "w": sgd(lr) }
#       |                                                    ^~~
# tests/parse/minimize.dsl:20:3: error: no pattern matches parameter 'm/v'
#    20 |   minimize sum(y) with { "w": sum_only }
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/minimize.dsl:7:3: note: it is declared here
#     7 |   param v: f32[n] = 1.0
#       |   ^~~~~~~~~~~~~~~~~~~~~
# tests/parse/minimize.dsl:21:3: error: an entry minimizes once
#    21 |   minimize sum(y) with { "*": sum_only }
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/minimize.dsl:20:3: note: it does so here
#    20 |   minimize sum(y) with { "w": sum_only }
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# <<<
# >>> exit 1
