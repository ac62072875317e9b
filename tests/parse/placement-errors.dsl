# test: %s --mesh data=4,model=4 --stop-after=frontend
mesh data, model, one
entry unknown(x: f32[8 @dta] from text, y: f32[8 @rows] from text) { report a = x }
entry twice(x: f32[8 @data, 8 @data] from text, y: f32[8 @one @one] from text) { report a = x }
entry both(x: f32[8 @data @_] from text) { report a = x }
entry divides(x: f32[10 @data, 4] from text, y: f32[3 @data @model] from text) {
  state s: f32[7 @model] = 0.0
  param odd: f32[7 @model] = 0.0
  report a = x
}
entry contradicts(x: f32[8 @data, 8] from text) {
  let y: f32[8 @model, 8] = x
  let z: f32[8, 8 @data] = x
  let more: f32[8, 8 @model] = x
  let open: f32[8 @_, 8] = more
  let shut: f32[8 @data, 8] = open
  report y = y, z = z, s = shut
}

# >>> err
# tests/parse/placement-errors.dsl:3:25: error: unknown mesh axis 'dta'; did you mean 'data'?
#     3 | entry unknown(x: f32[8 @dta] from text, y: f32[8 @rows] from text) { report a = x }
#       |                         ^~~
# tests/parse/placement-errors.dsl:3:51: error: unknown mesh axis 'rows'; declare it: mesh rows
#     3 | entry unknown(x: f32[8 @dta] from text, y: f32[8 @rows] from text) { report a = x }
#       |                                                   ^~~~
# tests/parse/placement-errors.dsl:4:32: error: mesh axis 'data' is used twice in one tensor
#     4 | entry twice(x: f32[8 @data, 8 @data] from text, y: f32[8 @one @one] from text) { report a = x }
#       |                                ^~~~
# tests/parse/placement-errors.dsl:4:23: note: it is used here
#     4 | entry twice(x: f32[8 @data, 8 @data] from text, y: f32[8 @one @one] from text) { report a = x }
#       |                       ^~~~
# tests/parse/placement-errors.dsl:4:64: error: mesh axis 'one' is used twice in one tensor
#     4 | entry twice(x: f32[8 @data, 8 @data] from text, y: f32[8 @one @one] from text) { report a = x }
#       |                                                                ^~~
# tests/parse/placement-errors.dsl:4:59: note: it is used here
#     4 | entry twice(x: f32[8 @data, 8 @data] from text, y: f32[8 @one @one] from text) { report a = x }
#       |                                                           ^~~
# tests/parse/placement-errors.dsl:5:19: error: '@_' says that a dim is not split, and another axis splits it
#     5 | entry both(x: f32[8 @data @_] from text) { report a = x }
#       |                   ^~~~~~~~~~
# tests/parse/placement-errors.dsl:6:22: error: input 'x': a dim of 10 does not divide by the 4 devices of @data; next to it 8 and 12 would
#     6 | entry divides(x: f32[10 @data, 4] from text, y: f32[3 @data @model] from text) {
#       |                      ^~~~~~~~
# tests/parse/placement-errors.dsl:6:53: error: input 'y': a dim of 3 does not divide by the 16 devices of @data @model; next to it 16 would
#     6 | entry divides(x: f32[10 @data, 4] from text, y: f32[3 @data @model] from text) {
#       |                                                     ^~~~~~~~~~~~~~
# tests/parse/placement-errors.dsl:7:16: error: state 's': a dim of 7 does not divide by the 4 devices of @model; next to it 4 and 8 would
#     7 |   state s: f32[7 @model] = 0.0
#       |                ^~~~~~~~
# tests/parse/placement-errors.dsl:12:10: error: one tensor is placed in two ways: f32[8 @model, 8]
#    12 |   let y: f32[8 @model, 8] = x
#       |          ^~~~~~~~~~~~~~~~
# tests/parse/placement-errors.dsl:11:22: note: it is f32[8 @data, 8] here
#    11 | entry contradicts(x: f32[8 @data, 8] from text) {
#       |                      ^~~~~~~~~~~~~~~
# tests/parse/placement-errors.dsl:13:10: error: one tensor is placed in two ways: f32[8, 8 @data]
#    13 |   let z: f32[8, 8 @data] = x
#       |          ^~~~~~~~~~~~~~~
# tests/parse/placement-errors.dsl:11:22: note: it is f32[8 @data, 8] here
#    11 | entry contradicts(x: f32[8 @data, 8] from text) {
#       |                      ^~~~~~~~~~~~~~~
# tests/parse/placement-errors.dsl:16:13: error: one tensor is placed in two ways: f32[8 @data, 8]
#    16 |   let shut: f32[8 @data, 8] = open
#       |             ^~~~~~~~~~~~~~~
# tests/parse/placement-errors.dsl:15:13: note: it is f32[8 @_, 8] here
#    15 |   let open: f32[8 @_, 8] = more
#       |             ^~~~~~~~~~~~
# <<<
# >>> exit 1
