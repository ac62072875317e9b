# test: %s
fn layer(x: f32[b, d]) {
  param w: f32[d, d] = 0.0
  state h: f32[b, d] = x
  let y[b, n] = x[b, d] * w[d, n]
  set h = y
  set h = x
  set w = x
  set q = x
  return y
}
fn from_x(x)(w: f32[..]) { return w + sum(x) }
fn bad_init(w: f32[..]) { return 1 }
fn with_param(w: f32[..]) {
  param v: f32[2] = 0.0
  return w
}
entry train(x: f32[2, 3] from text) {
  let a = layer(x) + layer(x)
  param p: f32[3, 2] = x
  param q: f32[n, 2] = 0.0
  param r: f32[2] = from_x(x)
  param s: i32[2] = 0.5
  param t: f32[2] = with_param
  state h: f32[2, 3]
  let b = scan t in x { set h = x; yield t }
  set h = a[0, :]
  report a = sum(a)
}
entry eval(x: f32[2, 4] from text) {
  let a = layer(x)
  report a = a
}

# >>> err
# tests/parse/slots.dsl:3:3: error: 'a/layer/w' is f32[4, 4] here, but f32[3, 3] elsewhere
#     3 |   param w: f32[d, d] = 0.0
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/slots.dsl:19:11: note: it became f32[3, 3] here
#    19 |   let a = layer(x) + layer(x)
#       |           ^~~~~~~~
# tests/parse/slots.dsl:31:11: note: in 'layer', called here
#    31 |   let a = layer(x)
#       |           ^~~~~~~~
# tests/parse/slots.dsl:4:24: error: an initial value cannot depend on tensors of the entry
#     4 |   state h: f32[b, d] = x
#       |                        ^
# tests/parse/slots.dsl:19:11: note: in 'layer', called here
#    19 |   let a = layer(x) + layer(x)
#       |           ^~~~~~~~
# tests/parse/slots.dsl:7:7: error: 'h' is set already
#     7 |   set h = x
#       |       ^
# tests/parse/slots.dsl:6:3: note: it is set here
#     6 |   set h = y
#       |   ^~~~~~~~~
# tests/parse/slots.dsl:19:11: note: in 'layer', called here
#    19 |   let a = layer(x) + layer(x)
#       |           ^~~~~~~~
# tests/parse/slots.dsl:8:7: error: a parameter is set where the model trains; write: if training { set w = ... }
#     8 |   set w = x
#       |       ^
# tests/parse/slots.dsl:18:1: note: this entry does not minimize
#    18 | entry train(x: f32[2, 3] from text) {
#       | ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/slots.dsl:19:11: note: in 'layer', called here
#    19 |   let a = layer(x) + layer(x)
#       |           ^~~~~~~~
# tests/parse/slots.dsl:9:7: error: unknown state 'q'
#     9 |   set q = x
#       |       ^
# tests/parse/slots.dsl:19:11: note: in 'layer', called here
#    19 |   let a = layer(x) + layer(x)
#       |           ^~~~~~~~
# tests/parse/slots.dsl:15:3: error: an initial value cannot have parameters of its own
#    15 |   param v: f32[2] = 0.0
#       |   ^~~~~~~~~~~~~~~~~~~~~
# tests/parse/slots.dsl:24:21: note: in 'with_param', called here
#    24 |   param t: f32[2] = with_param
#       |                     ^~~~~~~~~~
# tests/parse/slots.dsl:19:22: error: 'a/layer/w' is declared twice in this entry; give one of the calls a name of its own: as "name"
#    19 |   let a = layer(x) + layer(x)
#       |                      ^~~~~~~~
# tests/parse/slots.dsl:19:11: note: the first comes from here
#    19 |   let a = layer(x) + layer(x)
#       |           ^~~~~~~~
# tests/parse/slots.dsl:3:3: note: it is declared here
#     3 |   param w: f32[d, d] = 0.0
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/slots.dsl:20:24: error: an initial value cannot depend on tensors of the entry
#    20 |   param p: f32[3, 2] = x
#       |                        ^
# tests/parse/slots.dsl:21:16: error: nothing gives the size of 'n'
#    21 |   param q: f32[n, 2] = 0.0
#       |                ^
# tests/parse/slots.dsl:22:28: error: an initial value cannot depend on tensors of the entry
#    22 |   param r: f32[2] = from_x(x)
#       |                            ^
# tests/parse/slots.dsl:23:21: error: the number 0.5 is no element of i32[2]
#    23 |   param s: i32[2] = 0.5
#       |                     ^~~
# tests/parse/slots.dsl:26:29: error: a state cannot be set inside of a scan; carry 'h' and set it after
#    26 |   let b = scan t in x { set h = x; yield t }
#       |                             ^
# <<<
# >>> exit 1
