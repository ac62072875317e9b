# test: %s -I models
# What goes with no gate: each call below is one mistake.
import "lib/sparse.dsl"

const N = 4
const K = 2
const H = 2
const GATE = "none"
const CAPACITY = 0.0
const GROUPS = 1

fn layer(x, gate, capacity = 0.0, groups = 1) {
  let y, aux = moe(x, experts = 4, hidden = 2, gate = gate, capacity = capacity, groups = groups)
  return sum(y) + aux
}
fn down(p: f32[..], g: f32[..]) { return p - g }
entry train(x: f32[2, 3, 2] from text) {
  let a = layer(x, noisy_top_k(k = 5))
  let b = layer(x, deepseek_gate(k = 5))
  let c = layer(x, hierarchical(groups = 3, k = 1))
  let d = layer(x, hierarchical(groups = 2, k = 3))
  let e = layer(x, switch_gate(), capacity = -1.0)
  let f = layer(x, switch_gate(), capacity = 1.0, groups = 4)
  let g = layer(x, gshard_gate(groups = 5))
  let h = layer(x, balanced_gate(k = 1, most = 4))
  let i = layer(x, base_gate())
  let j = layer(x, expert_choice_gate(most = 4, c = 5.0))
  let l, _ = sparse(x, i32(x[.., 0]))
  let m = layer(x, jittered(switch_gate(), 1.0))
  let n = layer(x, multi_hash_gate(i32(x[.., 0]), k = 3))
  let o = layer(x, balanced_levels(groups = 4, k = 1, most = 4))
  let p = layer(x, balanced_levels(groups = 2, k = 1, most = 5))
  minimize a + b + c + d + e + f + g + h + i + j + sum(l) + m + n + o + p with { "*": down }
}

# >>> err
# models/lib/sparse.dsl:61:10: error: there is no gate of this name: none
#    61 |   else { require(false, "there is no gate of this name", name) }
#       |          ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/sparse.dsl:28:20: note: in 'gate_named', called here
#    28 |   let gate, open = gate_named(GATE, tokens, expand(there) if padded else 1.0)
#       |                    ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:28:14: note: in 'sparse', called here
#    28 |   let l, _ = sparse(x, i32(x[.., 0]))
#       |              ^~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/moe.dsl:18:3: error: a capacity is above 0, or 0 for none: -1
#    18 |   require(capacity >= 0.0, "a capacity is above 0, or 0 for none", capacity)
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:13:16: note: in 'moe', called here
#    13 |   let y, aux = moe(x, experts = 4, hidden = 2, gate = gate, capacity = capacity, groups = groups)
#       |                ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:22:11: note: in 'layer', called here
#    22 |   let e = layer(x, switch_gate(), capacity = -1.0)
#       |           ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/moe.dsl:36:3: error: tokens must divide by the groups that have a capacity: 6, 4
#    36 |   require(groups >= 1 and tokens % groups == 0,
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/moe.dsl:22:14: note: in 'within_capacity', called here
#    22 |   let kept = within_capacity(ids, experts, capacity, groups) if bounded else ids
#       |              ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:13:16: note: in 'moe', called here
#    13 |   let y, aux = moe(x, experts = 4, hidden = 2, gate = gate, capacity = capacity, groups = groups)
#       |                ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:23:11: note: in 'layer', called here
#    23 |   let f = layer(x, switch_gate(), capacity = 1.0, groups = 4)
#       |           ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/moe.dsl:79:3: error: experts per token must be 1 to the number of experts: 5, 4
#    79 |   require(k >= 1 and k <= experts,
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/moe.dsl:19:28: note: in 'noisy_top_k', called here
#    19 |   let gates, chosen, aux = gate(x, experts) as "gate"
#       |                            ^~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:13:16: note: in 'moe', called here
#    13 |   let y, aux = moe(x, experts = 4, hidden = 2, gate = gate, capacity = capacity, groups = groups)
#       |                ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:18:11: note: in 'layer', called here
#    18 |   let a = layer(x, noisy_top_k(k = 5))
#       |           ^~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/hierarchical.dsl:36:3: error: the number of experts must be a multiple of the groups: 4, 3
#    36 |   require(groups >= 1 and experts % groups == 0,
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/hierarchical.dsl:13:11: note: in 'group_size', called here
#    13 |   let b = group_size(experts, groups, k)
#       |           ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/moe.dsl:19:28: note: in 'hierarchical', called here
#    19 |   let gates, chosen, aux = gate(x, experts) as "gate"
#       |                            ^~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:13:16: note: in 'moe', called here
#    13 |   let y, aux = moe(x, experts = 4, hidden = 2, gate = gate, capacity = capacity, groups = groups)
#       |                ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/hierarchical.dsl:39:3: error: choices of a level must be 1 to the groups and to the experts of a group: 3, 2, 2
#    39 |   require(k >= 1 and k <= min(groups, b),
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/hierarchical.dsl:13:11: note: in 'group_size', called here
#    13 |   let b = group_size(experts, groups, k)
#       |           ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/moe.dsl:19:28: note: in 'hierarchical', called here
#    19 |   let gates, chosen, aux = gate(x, experts) as "gate"
#       |                            ^~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:13:16: note: in 'moe', called here
#    13 |   let y, aux = moe(x, experts = 4, hidden = 2, gate = gate, capacity = capacity, groups = groups)
#       |                ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/hierarchical.dsl:74:3: error: experts per token must be 1 to the number of experts: 5, 4
#    74 |   require(most >= 1 and most <= experts,
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/moe.dsl:19:28: note: in 'balanced_levels', called here
#    19 |   let gates, chosen, aux = gate(x, experts) as "gate"
#       |                            ^~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:13:16: note: in 'moe', called here
#    13 |   let y, aux = moe(x, experts = 4, hidden = 2, gate = gate, capacity = capacity, groups = groups)
#       |                ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:32:11: note: in 'layer', called here
#    32 |   let p = layer(x, balanced_levels(groups = 2, k = 1, most = 5))
#       |           ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/gates.dsl:22:3: error: tokens must divide by the groups: 6, 5
#    22 |   require(groups >= 1 and count_tokens(z) % groups == 0,
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/gates.dsl:113:14: note: in 'by_group', called here
#   113 |   let by_p = by_group(p, groups)
#       |              ^~~~~~~~~~~~~~~~~~~
# models/lib/gates.dsl:100:34: note: in 'gshard_loss', called here
#   100 |   return gates, ids, w_balance * gshard_loss(p * there, first, groups if training else 1) + w_z * z_loss(z)
#       |                                  ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/moe.dsl:19:28: note: in 'gshard_gate', called here
#    19 |   let gates, chosen, aux = gate(x, experts) as "gate"
#       |                            ^~~~~~~~~~~~~~~~
# models/lib/gates.dsl:65:3: error: jitter must be from 0 to below 1: 1
#    65 |   require(by >= 0.0 and by < 1.0, "jitter must be from 0 to below 1", by)
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/moe.dsl:19:28: note: in 'jittered', called here
#    19 |   let gates, chosen, aux = gate(x, experts) as "gate"
#       |                            ^~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:13:16: note: in 'moe', called here
#    13 |   let y, aux = moe(x, experts = 4, hidden = 2, gate = gate, capacity = capacity, groups = groups)
#       |                ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:29:11: note: in 'layer', called here
#    29 |   let m = layer(x, jittered(switch_gate(), 1.0))
#       |           ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/gates.dsl:129:3: error: experts per token must be 1 to the number of experts: 5, 4
#   129 |   require(k >= 1 and k <= experts,
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/moe.dsl:19:28: note: in 'deepseek_gate', called here
#    19 |   let gates, chosen, aux = gate(x, experts) as "gate"
#       |                            ^~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:13:16: note: in 'moe', called here
#    13 |   let y, aux = moe(x, experts = 4, hidden = 2, gate = gate, capacity = capacity, groups = groups)
#       |                ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:19:11: note: in 'layer', called here
#    19 |   let b = layer(x, deepseek_gate(k = 5))
#       |           ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/gates.dsl:185:3: error: the number of experts must be a multiple of the hashes: 4, 3
#   185 |   require(k >= 1 and experts % k == 0,
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/moe.dsl:19:28: note: in 'multi_hash_gate', called here
#    19 |   let gates, chosen, aux = gate(x, experts) as "gate"
#       |                            ^~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:13:16: note: in 'moe', called here
#    13 |   let y, aux = moe(x, experts = 4, hidden = 2, gate = gate, capacity = capacity, groups = groups)
#       |                ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:30:11: note: in 'layer', called here
#    30 |   let n = layer(x, multi_hash_gate(i32(x[.., 0]), k = 3))
#       |           ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/balanced.dsl:39:3: error: c is above 0 and at most the number of experts: 5, 4
#    39 |   require(c > 0.0 and c <= experts, "c is above 0 and at most the number of experts", c, experts)
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/moe.dsl:19:28: note: in 'expert_choice_gate', called here
#    19 |   let gates, chosen, aux = gate(x, experts) as "gate"
#       |                            ^~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:13:16: note: in 'moe', called here
#    13 |   let y, aux = moe(x, experts = 4, hidden = 2, gate = gate, capacity = capacity, groups = groups)
#       |                ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:27:11: note: in 'layer', called here
#    27 |   let j = layer(x, expert_choice_gate(most = 4, c = 5.0))
#       |           ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/balanced.dsl:77:3: error: choices of a group must divide by the experts: 6, 4
#    77 |   require(choices % n == 0, "choices of a group must divide by the experts", choices, n)
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/balanced.dsl:62:16: note: in 'largest_in_batch', called here
#    62 |     let kept = largest_in_batch(p, k, groups, there) as ""
#       |                ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/moe.dsl:19:28: note: in 'balanced_gate', called here
#    19 |   let gates, chosen, aux = gate(x, experts) as "gate"
#       |                            ^~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:13:16: note: in 'moe', called here
#    13 |   let y, aux = moe(x, experts = 4, hidden = 2, gate = gate, capacity = capacity, groups = groups)
#       |                ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/balanced.dsl:141:3: error: tokens of a group must divide by the experts: 6, 4
#   141 |   require(size(s, 1) % n == 0,
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/balanced.dsl:128:13: note: in 'assigned', called here
#   128 |   let ids = assigned(stop_gradient(z), rounds, groups) if training else first_of(stop_gradient(z))
#       |             ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# models/lib/moe.dsl:19:28: note: in 'base_gate', called here
#    19 |   let gates, chosen, aux = gate(x, experts) as "gate"
#       |                            ^~~~~~~~~~~~~~~~
# tests/parse/gate-errors.dsl:13:16: note: in 'moe', called here
#    13 |   let y, aux = moe(x, experts = 4, hidden = 2, gate = gate, capacity = capacity, groups = groups)
#       |                ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# <<<
# >>> exit 1
