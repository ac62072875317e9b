# test: %s -I models --mesh dev=2,data=2 --plan-only=4..8 --topology tests/planner/round.topo
# A batch that the devices do not divide is planned as the next that they do,
# what follows from it too, and each row tells so.
import "lib/nn.dsl"

const B = 6
const ROWS = B / 2

entry score(x: i32[B @dev @data, 4] from tokens) {
  let e = reshape(embed(x, 16, 8), ROWS, 64)
  report y = sum(e)
}

# >>> out
# tests/planner/fitted.dsl; tests/planner/round.topo: a device of round numbers
#
#  devices    tokens      parameters      memory        sent  computing  exchanges  ms a step     tokens/s  a dev.
#        4        32             128     1.2 KiB         6 B       0.00       0.02       0.02      1366354   100 %  with B=8
#        8        32             128     1.2 KiB       134 B       0.00       0.06       0.06       501253    18 %  with B=8
#
# Memory, sent bytes and times are those of each device, and a step overlaps exchanges as
# the program does; a dev.: tokens/s of a device against the first row. Memory of a device: 953.7 MiB.
# <<<
# >>> err
# tests/planner/fitted.dsl:6:7: warning: planned with B=8: 6 does not divide by 4 devices
#     6 | const B = 6
#       |       ^
# tests/planner/fitted.dsl:6:7: warning: planned with B=8: 6 does not divide by 8 devices
#     6 | const B = 6
#       |       ^
# <<<
