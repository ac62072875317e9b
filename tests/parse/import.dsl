# test: %s
import "missing.dsl"
import "../../models/lib/nn.dsl"
import "../parse/../../models/lib/nn.dsl"
fn relu(x) { return x }
entry eval(x: f32[2] from text) { report a = relu(x) }

# >>> err
# tests/parse/import.dsl:2:8: error: cannot find 'missing.dsl'
#     2 | import "missing.dsl"
#       |        ^~~~~~~~~~~~~
# note: looked for 'tests/parse/missing.dsl'
# note: looked for 'tests/parse/models/missing.dsl'
# tests/parse/import.dsl:5:4: error: 'relu' is declared already
#     5 | fn relu(x) { return x }
#       |    ^~~~
# tests/parse/../../models/lib/nn.dsl:7:4: note: it is declared here
#     7 | fn relu(x: f32[..]) { return select(x > 0.0, x, 0.0) }
#       |    ^~~~
# <<<
# >>> exit 1
