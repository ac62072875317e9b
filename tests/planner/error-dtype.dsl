# test: %s -I models --plan-only --precision=bf16 --topology k40
# A topology that does not know the products of the program.
import "lib/nn.dsl"
entry train(x: i32[8, 8] from tokens) { report y = sum(ffn(embed(x, 16, 64), 64)) }

# >>> err
# models/topologies/k40.topo:1:1: error: the topology lacks 'product bf16', which the program has
#     1 | # The clusters of Shazeer et al. 2017: 16 to 128 K40, synchronous. The paper
#       | ^
# <<<
# >>> exit 1
