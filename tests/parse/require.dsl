# test: models/lm_moe.dsl -D N=2 -D K=4
# Fewer experts than are to be chosen.

# >>> err
# models/lib/moe.dsl:79:3: error: experts per token must be 1 to the number of experts: 4, 2
#    79 |   require(k >= 1 and k <= experts,
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/gates.dsl:67:25: note: in 'noisy_top_k', called here
#    67 |   let gates, ids, aux = gate(x * (1.0 + by * noise) if training and by > 0.0 else x, experts) as ""
#       |                         ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/moe.dsl:19:28: note: in 'jittered', called here
#    19 |   let gates, chosen, aux = gate(x, experts) as "gate"
#       |                            ^~~~~~~~~~~~~~~~
# models/lib/sparse.dsl:30:16: note: in 'moe', called here
#    30 |   let y, aux = moe(x, experts = N, hidden = H, gate = jittered(named, JITTER), skip = open or padded,
#       |                ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# <<<
# >>> exit 1
