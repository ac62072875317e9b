# test: %s -I models --plan-only --topology tests/planner/small.topo
# What would fit is suggested.
import "lib/nn.dsl"

entry score(x: i32[8 @dev, 4] from tokens) {
  report y = sum(ffn(embed(x, 16, 64), 64))
}

# >>> err
# tests/planner/small.topo:1:1: error: too little memory: a step needs 52.2 KiB a device, and each has 29.3 KiB
#     1 | # Round numbers.
#       | ^
# note: parameters and optimiser 36.0 KiB, gradients 0 B, activations and all else of a step 16.0 KiB
# note: the model has sizes that --mesh dev=16 does not divide
# note: --mesh model=4 needs 19.2 KiB a device
# <<<
# >>> exit 1
