# test: %s --mesh dev=4 --plan-only --topology tests/planner/pair.topo
# More devices than the links join.
mesh dev
entry train(x: i32[4 @dev] from tokens) { report y = sum(f32(x)) }

# >>> err
# tests/planner/pair.topo:5:6: error: the topology joins 2 devices, and the mesh has 4
#     5 | link pair    2 1 GB/s 1 us
#       |      ^~~~
# <<<
# >>> exit 1
