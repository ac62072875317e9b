# test: models/lm_moe.dsl -D N=2 -D K=4
# Fewer experts than are to be chosen.

# >>> err
# models/lib/moe.dsl:48:3: error: experts per token must be 1 to the number of experts: 4, 2
#    48 |   require(k >= 1 and k <= experts,
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/moe.dsl:13:25: note: in 'noisy_top_k', called here
#    13 |   let gates, ids, aux = gate(x, experts) as "gate"
#       |                         ^~~~~~~~~~~~~~~~
# models/lm_moe.dsl:32:16: note: in 'moe', called here
#    32 |   let m, aux = moe(a, experts = N, hidden = H, gate = gate(),
#       |                ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/lm.dsl:15:21: note: in 'body', called here
#    15 |   let logits, aux = body(x) as "lm"
#       |                     ^~~~~~~
# <<<
# >>> exit 1
