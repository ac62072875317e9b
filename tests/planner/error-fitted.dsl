# test: %s --mesh dev=4 --plan-only -D B=6 --topology tests/planner/round.topo
# What -D says of a batch stays.
mesh dev
const B = 8
entry score(x: i32[B @dev] from tokens) { report y = sum(f32(x)) }

# >>> err
# tests/planner/error-fitted.dsl:5:20: error: input 'x': a dim of 6 does not divide by the 4 devices of @dev; next to it 4 and 8 would
#     5 | entry score(x: i32[B @dev] from tokens) { report y = sum(f32(x)) }
#       |                    ^~~~~~
# <<<
# >>> exit 1
