# test: %s --mesh dev=8 -o %t.so
# A program for several devices is never quietly one for a single device.
mesh dev
entry eval(x: f32[8 @dev] from text) { report a = x }

# >>> err
# tests/parse/mesh.dsl:3:6: error: this version cannot make a program for 8 devices yet
#     3 | mesh dev
#       |      ^~~
# note: --dump=shard shows where every tensor would live, --explain=shard says why
# <<<
# >>> exit 1
