# test: %s --plan-only --topology tests/planner/empty.topo
# What a topology must say.
entry train(x: i32[4] from tokens) { report y = sum(f32(x)) }

# >>> err
# tests/planner/empty.topo:1:1: error: the topology lacks 'memory'
#     1 | product bf16 1 GFLOP/s   # that is all
#       | ^
# tests/planner/empty.topo:1:1: error: the topology lacks 'bandwidth'
#     1 | product bf16 1 GFLOP/s   # that is all
#       | ^
# tests/planner/empty.topo:1:1: error: the topology lacks 'elementwise'
#     1 | product bf16 1 GFLOP/s   # that is all
#       | ^
# tests/planner/empty.topo:1:1: error: the topology lacks 'product f32'
#     1 | product bf16 1 GFLOP/s   # that is all
#       | ^
# <<<
# >>> exit 1
