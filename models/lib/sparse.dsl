# A layer of experts whose gate and settings are consts, for models that are
# compared by them: all may be set by -D. A model brings
#   N         experts
#   K         experts per token, with two levels groups and experts of each
#   H         hidden width of an expert
#   GATE      "noisy_top_k" or another one of models/README.md
#   CAPACITY  rows an expert takes, times the mean; 0: as many as come
#   V         words, for a gate that has a table of them
#   GROUPS    of tokens that are balanced, and have a capacity, by themselves
import "moe.dsl"
import "hierarchical.dsl"
import "gates.dsl"
import "balanced.dsl"

const A = 0           # groups of experts, for a gate of two levels; 0: one level
const MOST = min(8, N)      # experts of a token, of a gate that leaves that open
const SHARED = 0            # experts that are always on, beside the others
const JITTER = 0.0    # what tokens are multiplied by before the gate: 1 +- that
const EXPERT_P = 0.0  # dropout within experts
const AGAIN = 0       # 1: hidden activations of experts are not kept in training
const W_IMPORTANCE = 0.1
const W_LOAD = 0.1

# tokens: i32[..], the words behind x, for gates that choose by them. there: f32[..],
# 0 for tokens that are padding and get to no expert.
fn sparse(x: f32[.., d], tokens: i32[..], there = ones(f32[])) {
  let padded = rank(there) > 0
  let gate, open = gate_named(GATE, tokens, expand(there) if padded else 1.0)
  let named = only(gate, expand(there)) if padded else gate
  let y, aux = moe(x, experts = N, hidden = H, gate = jittered(named, JITTER), skip = open or padded,
                   capacity = CAPACITY, groups = GROUPS, p = EXPERT_P, again = AGAIN > 0) as ""
  return y + (ffn(x, hidden = SHARED * H) as "shared") if SHARED > 0 else y, aux
}

# A gate with the settings of its paper, and whether it leaves choices empty.
fn gate_named(name, tokens: i32[..], there) {
  if A > 0 and name == "balanced" {
    return balanced_levels(groups = A, k = K, most = MOST, there = there), true
  }
  else if A > 0 {
    require(name == "noisy_top_k", "a gate of this name has one level, A = 0", name)
    return hierarchical(groups = A, k = K, w_importance = W_IMPORTANCE, w_load = W_LOAD, there = there), false
  }
  else if name == "noisy_top_k" {
    return noisy_top_k(k = K, w_importance = W_IMPORTANCE, w_load = W_LOAD, there = there), false
  }
  else if name == "switch" { return switch_gate(), false }
  else if name == "gshard" { return gshard_gate(groups = GROUPS, there = there), true }
  else if name == "deepseek" { return deepseek_gate(K), false }
  else if name == "deepseek_sigmoid" { return deepseek_gate(K, score = sigmoid, normalise = true), false }
  else if name == "loss_free" { return loss_free_gate(K), false }
  else if name == "hash" { return hash_gate(tokens, K), false }
  else if name == "multi_hash" { return multi_hash_gate(tokens, K), false }
  else if name == "even_hash" { return even_hash_gate(tokens, V), false }
  else if name == "top_p" { return top_p_gate(0.4, MOST), true }
  else if name == "cosine" { return cosine_gate(K, width = 16), false }
  else if name == "expert_choice" { return expert_choice_gate(MOST, groups = GROUPS), true }
  else if name == "balanced" { return balanced_gate(K, MOST, groups = GROUPS, there = there), true }
  else if name == "sinkhorn" { return sinkhorn_gate(K, groups = GROUPS), false }
  else if name == "base" { return base_gate(groups = GROUPS), false }
  else { require(false, "there is no gate of this name", name) }
}
