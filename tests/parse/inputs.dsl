# test: %s
fn f(x) { return x }
option text = "a"
entry eval(x: f32[2]) { report a = x }
entry sizes for S in {2, 2, 0} (x: f32[S] from text) { report a = x }
entry other(x: f32[b] from text, y: f32[2] from text(shift = f)) {
  report a = 1, a = 2
  report ok = f
}

# >>> err
# tests/parse/inputs.dsl:3:15: error: an option is a number, but this is the string "a"
#     3 | option text = "a"
#       |               ^~~
# tests/parse/inputs.dsl:4:12: error: nothing says where input 'x' comes from; add for example: from text
#     4 | entry eval(x: f32[2]) { report a = x }
#       |            ^
# tests/parse/inputs.dsl:5:26: error: size 2 is there twice
#     5 | entry sizes for S in {2, 2, 0} (x: f32[S] from text) { report a = x }
#       |                          ^
# tests/parse/inputs.dsl:5:29: error: a size must be 1 or more, but this is 0
#     5 | entry sizes for S in {2, 2, 0} (x: f32[S] from text) { report a = x }
#       |                             ^
# tests/parse/inputs.dsl:6:20: error: nothing gives the size of 'b'
#     6 | entry other(x: f32[b] from text, y: f32[2] from text(shift = f)) {
#       |                    ^
# tests/parse/inputs.dsl:6:62: error: an argument of a source cannot be a function
#     6 | entry other(x: f32[b] from text, y: f32[2] from text(shift = f)) {
#       |                                                              ^
# tests/parse/inputs.dsl:7:17: error: there is a report 'a' already
#     7 |   report a = 1, a = 2
#       |                 ^
# tests/parse/inputs.dsl:7:10: note: it is here
#     7 |   report a = 1, a = 2
#       |          ^
# tests/parse/inputs.dsl:8:15: error: a tensor is needed here, not a function
#     8 |   report ok = f
#       |               ^
# <<<
# >>> exit 1
