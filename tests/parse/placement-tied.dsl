# test: %s --mesh data=2,model=2 --stop-after=frontend
# One parameter in two entries, and in two places of one.
mesh data, model
fn table(x: f32[4, 4 @model]) { return sum(x) }
entry one(x: f32[2] from text) {
  param w: f32[4 @model, 4] = 0.0
  report a = table(w)
}
entry two(x: f32[2] from text) {
  param w: f32[4, 4 @model] = 0.0
  report a = sum(w) + sum(x)
}

# >>> err
# tests/parse/placement-tied.dsl:4:13: error: one tensor is placed in two ways: f32[4, 4 @model]
#     4 | fn table(x: f32[4, 4 @model]) { return sum(x) }
#       |             ^~~~~~~~~~~~~~~~
# tests/parse/placement-tied.dsl:6:12: note: it is f32[4 @model, 4] here
#     6 |   param w: f32[4 @model, 4] = 0.0
#       |            ^~~~~~~~~~~~~~~~
# tests/parse/placement-tied.dsl:7:14: note: in 'table', called here
#     7 |   report a = table(w)
#       |              ^~~~~~~~
# tests/parse/placement-tied.dsl:10:12: error: one tensor is placed in two ways: f32[4, 4 @model]
#    10 |   param w: f32[4, 4 @model] = 0.0
#       |            ^~~~~~~~~~~~~~~~
# tests/parse/placement-tied.dsl:6:3: note: it is f32[4 @model, 4] here
#     6 |   param w: f32[4 @model, 4] = 0.0
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# <<<
# >>> exit 1
