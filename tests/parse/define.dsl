# test: %s -D WIDHT=3 -D N=x -D P=true -D ON=1 --mesh dve=2 --mesh dev=0
const WIDTH = 2
const N = 3
const P = 0.5
const ON = true
mesh dev
entry eval(x: f32[2] from text) { report a = x }

# >>> err
# error: -D WIDHT=3: the model has no const 'WIDHT'; did you mean 'WIDTH'?
# error: --mesh dve=2: the model has no axis 'dve'; did you mean 'dev'?
# error: --mesh dev=0: an axis has 1 to 2147483647 devices
# error: -D N=x: 'N' is an integer
# tests/parse/define.dsl:3:7: note: it is declared here
#     3 | const N = 3
#       |       ^
# error: -D P=true: 'P' is a number
# tests/parse/define.dsl:4:7: note: it is declared here
#     4 | const P = 0.5
#       |       ^
# error: -D ON=1: 'ON' is true or false
# tests/parse/define.dsl:5:7: note: it is declared here
#     5 | const ON = true
#       |       ^~
# <<<
# >>> exit 1
