# test: %s --mesh dev=8
mesh dev
entry eval(x: f32[2 @dev] from text) { report a = x }

# >>> err
# tests/parse/mesh.dsl:2:6: error: axis 'dev' has 8 devices, but this version compiles for one
#     2 | mesh dev
#       |      ^~~
# <<<
# >>> exit 1
