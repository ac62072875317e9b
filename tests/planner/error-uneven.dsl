# test: %s --mesh dev=2,data=2 --plan-only=2,5 --topology tests/planner/pair.topo
# A number of devices that the other axes do not divide.
mesh dev, data
entry train(x: i32[8 @dev @data] from tokens) { report y = sum(f32(x)) }

# >>> err
# error: 5 devices are not a multiple of 2, those of the axes but 'dev'
# <<<
# >>> exit 1
