# test: %s
const WIDTH = 4
option rate = 0.1
mesh dev
fn dense(x: f32[.., d], width) { return x }
entry eval(x: f32[WIDHT @dev, 3] from text, y: f32[2 @def] from text, z: g32[2] from text) {
  report a = dens(x)
  report b = sqrtt(3.0)
  report c = dense(y, widht = 3)
  report d = y + ratee
  report e = zzzzzz
}

# >>> err
# tests/parse/names.dsl:6:19: error: unknown name 'WIDHT'; did you mean 'WIDTH'?
#     6 | entry eval(x: f32[WIDHT @dev, 3] from text, y: f32[2 @def] from text, z: g32[2] from text) {
#       |                   ^~~~~
# tests/parse/names.dsl:6:55: error: unknown mesh axis 'def'; did you mean 'dev'?
#     6 | entry eval(x: f32[WIDHT @dev, 3] from text, y: f32[2 @def] from text, z: g32[2] from text) {
#       |                                                       ^~~
# tests/parse/names.dsl:6:74: error: unknown type 'g32'; did you mean 'i32'?
#     6 | entry eval(x: f32[WIDHT @dev, 3] from text, y: f32[2 @def] from text, z: g32[2] from text) {
#       |                                                                          ^~~
# tests/parse/names.dsl:7:14: error: unknown name 'dens'; did you mean 'dense'?
#     7 |   report a = dens(x)
#       |              ^~~~
# tests/parse/names.dsl:8:14: error: unknown name 'sqrtt'; did you mean 'sqrt'?
#     8 |   report b = sqrtt(3.0)
#       |              ^~~~~
# tests/parse/names.dsl:9:23: error: 'dense' has no parameter 'widht'; did you mean 'width'?
#     9 |   report c = dense(y, widht = 3)
#       |                       ^~~~~
# tests/parse/names.dsl:5:1: note: 'dense' is declared here
#     5 | fn dense(x: f32[.., d], width) { return x }
#       | ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/names.dsl:10:18: error: unknown name 'ratee'; did you mean 'rate'?
#    10 |   report d = y + ratee
#       |                  ^~~~~
# tests/parse/names.dsl:11:14: error: unknown name 'zzzzzz'
#    11 |   report e = zzzzzz
#       |              ^~~~~~
# <<<
# >>> exit 1
