# test: %s
const N = 2
const N = 3
mesh dev, dev
fn f(x) { return x }
option f = 3
entry init(x: f32[2] from text) { report a = x }
entry eval(x: f32[2] from text) { report a = x }
entry eval(x: f32[2] from text) { report a = x }

# >>> err
# tests/parse/entries.dsl:3:7: error: 'N' is declared already
#     3 | const N = 3
#       |       ^
# tests/parse/entries.dsl:2:7: note: it is declared here
#     2 | const N = 2
#       |       ^
# tests/parse/entries.dsl:4:11: error: mesh axis 'dev' is declared already
#     4 | mesh dev, dev
#       |           ^~~
# tests/parse/entries.dsl:4:6: note: it is declared here
#     4 | mesh dev, dev
#       |      ^~~
# tests/parse/entries.dsl:6:8: error: 'f' is declared already
#     6 | option f = 3
#       |        ^
# tests/parse/entries.dsl:5:4: note: it is declared here
#     5 | fn f(x) { return x }
#       |    ^
# tests/parse/entries.dsl:7:7: error: every model has an entry 'init' of itself
#     7 | entry init(x: f32[2] from text) { report a = x }
#       |       ^~~~
# tests/parse/entries.dsl:9:7: error: entry 'eval' is declared already
#     9 | entry eval(x: f32[2] from text) { report a = x }
#       |       ^~~~
# tests/parse/entries.dsl:8:7: note: it is declared here
#     8 | entry eval(x: f32[2] from text) { report a = x }
#       |       ^~~~
# <<<
# >>> exit 1
