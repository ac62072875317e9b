# test: models/lm_moe.dsl -D N=2 -D K=4
# Fewer experts than are to be chosen.

# >>> err
# models/lib/moe.dsl:66:3: error: experts per token must be 1 to the number of experts: 4, 2
#    66 |   require(k >= 1 and k <= experts,
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/moe.dsl:16:28: note: in 'noisy_top_k', called here
#    16 |   let gates, chosen, aux = gate(x, experts) as "gate"
#       |                            ^~~~~~~~~~~~~~~~
# models/lm_moe.dsl:36:16: note: in 'moe', called here
#    36 |   let y, aux = moe(a, experts = N, hidden = H, gate = gate(x), skip = leaves_choices(GATE),
#       |                ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/lm.dsl:15:21: note: in 'body', called here
#    15 |   let logits, aux = body(x) as "lm"
#       |                     ^~~~~~~
# <<<
# >>> exit 1
