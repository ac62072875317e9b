# test: %s
# Parameters that the model sets: where it trains, once, outside of loops.
fn layer(x: f32[n, d]) {
  param mean: f32[d] = 0.0
  set mean = sum(x, dim = 0)
  return x - mean
}
fn down(p: f32[..], g: f32[..]) { return p - g }
entry train(x: f32[2, 3] from text) {
  param w: f32[3] = 1.0
  param a: f32[] = 0.0
  let y = layer(x) as "l"
  let z = scan t in x { set a = 1.0; yield t }
  set a = y
  minimize sum(y * w) + a with { "*": down }
  set w = w
}
entry eval(x: f32[2, 3] from text) {
  let y = layer(x) as "l"
  report y = y
}

# >>> err
# tests/parse/set-parameter.dsl:5:7: error: a parameter is set where the model trains; write: if training { set mean = ... }
#     5 |   set mean = sum(x, dim = 0)
#       |       ^~~~
# tests/parse/set-parameter.dsl:18:1: note: this entry does not minimize
#    18 | entry eval(x: f32[2, 3] from text) {
#       | ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/set-parameter.dsl:19:11: note: in 'layer', called here
#    19 |   let y = layer(x) as "l"
#       |           ^~~~~~~~
# tests/parse/set-parameter.dsl:13:29: error: a parameter cannot be set inside of a scan; carry 'a' and set it after
#    13 |   let z = scan t in x { set a = 1.0; yield t }
#       |                             ^
# tests/parse/set-parameter.dsl:14:11: error: 'a' is f32[], but is set to f32[2, 3]
#    14 |   set a = y
#       |           ^
# tests/parse/set-parameter.dsl:11:3: note: it is declared here
#    11 |   param a: f32[] = 0.0
#       |   ^~~~~~~~~~~~~~~~~~~~
# tests/parse/set-parameter.dsl:16:7: error: 'w' is set already
#    16 |   set w = w
#       |       ^
# tests/parse/set-parameter.dsl:15:39: note: it is set here
#    15 |   minimize sum(y * w) + a with { "*": down }
#       |                                       ^~~~
# <<<
# >>> exit 1
