# test: %s -I models -D B=8 --grow=B --mesh dev=2,model=2 --plan-only=4..16 --topology tests/planner/round.topo
# The first axis grows and the batch with it; the second stays.
import "lib/nn.dsl"

const B = 2

entry score(x: i32[B @dev, 4] from tokens) {
  let e = embed(x, 16, 8)
  report y = sum(ffn(e, 64))
}

# >>> out
# tests/planner/table.dsl; tests/planner/round.topo: a device of round numbers
#
#  devices    tokens      parameters      memory        sent  computing  exchanges  ms a step     tokens/s  a dev.
#        4        32            1152     5.0 KiB     1.0 KiB       0.03       0.03       0.05       615811   100 %
#        8        64            1152     5.1 KiB     1.0 KiB       0.03       0.07       0.09       694806    56 %
#       16       128            1152     5.4 KiB     1.0 KiB       0.03       0.15       0.17       742554    30 %
#
# Memory, sent bytes and times are those of each device, and a step overlaps exchanges as
# the program does; a dev.: tokens/s of a device against the first row. Memory of a device: 953.7 MiB.
# <<<
