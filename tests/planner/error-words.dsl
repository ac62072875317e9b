# test: %s --plan-only --topology tests/planner/bad.topo
# Each wrong line of a topology is told of.
entry train(x: i32[4] from tokens) { report y = sum(f32(x)) }

# >>> err
# tests/planner/bad.topo:1:1: error: a device without a name
#     1 | device
#       | ^~~~~~
# tests/planner/bad.topo:2:1: error: a topology has no 'memroy'; did you mean 'memory'?
#     2 | memroy       1 GB
#       | ^~~~~~
# tests/planner/bad.topo:3:14: error: a size in MB, GB, TB, MiB, GiB or TiB should stand here
#     3 | memory       lots
#       |              ^~~~
# tests/planner/bad.topo:4:16: error: 'GFLOP/s' is no unit here: MB/s, GB/s or TB/s
#     4 | bandwidth    1 GFLOP/s
#       |                ^~~~~~~
# tests/planner/bad.topo:5:14: error: '-1' is not above 0 and at most 1e+09
#     5 | bandwidth    -1 GB/s
#       |              ^~
# tests/planner/bad.topo:6:14: error: a dtype of floats should stand here, as in 'product f32 20 TFLOP/s'
#     6 | product      4 GFLOP/s
#       |              ^
# tests/planner/bad.topo:7:15: error: a unit is missing: GFLOP/s, TFLOP/s or PFLOP/s
#     7 | product f32  1
#       |               ^
# tests/planner/bad.topo:8:24: error: 'more' is too much here
#     8 | product f32  1 GFLOP/s more
#       |                        ^~~~
# tests/planner/bad.topo:9:9: error: products in f32 are given twice
#     9 | product f32  2 GFLOP/s
#       |         ^~~
# tests/planner/bad.topo:10:12: error: a rate in GFLOP/s, TFLOP/s or PFLOP/s should stand here
#    10 | elementwise
#       |            ^
# tests/planner/bad.topo:11:5: error: a link without a name
#    11 | link
#       |     ^
# tests/planner/bad.topo:12:8: error: how many devices it joins should stand here, or 'any'
#    12 | link a x 1 GB/s 1 us
#       |        ^
# tests/planner/bad.topo:14:8: error: a link joins whole groups of the link before it, of 4 devices
#    14 | link c 6 1 GB/s 1 us
#       |        ^
# tests/planner/bad.topo:16:1: error: no link can follow one that joins any number
#    16 | link e 16 1 GB/s 1 us
#       | ^~~~
# tests/planner/bad.topo:15:6: note: it is here
#    15 | link d any 1 GB/s 1 us
#       |      ^
# tests/planner/bad.topo:17:10: error: 'parsec' is no unit here: ns, us or ms
#    17 | launch 1 parsec
#       |          ^~~~~~
# <<<
# >>> exit 1
