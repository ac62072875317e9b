# LSTM language model with a mixture-of-experts layer: MoE-32 of Shazeer et al.
# 2017, Appendix C.1, over bytes. 37.8 million parameters without embedding,
# softmax and biases. README.md has the consts of the paper's other models.
import "lib/lm.dsl"
import "lib/lstm.dsl"
import "lib/moe.dsl"
import "lib/hierarchical.dsl"
import "lib/balanced.dsl"

const D = 512     # model width
const U = D       # units of an LSTM; other than D, projected to it
const N = 32      # experts
const A = 0       # groups of experts, for a gate of two levels; 0: one level
const K = 4       # experts per token, with two levels groups and experts of each
const H = 1024    # hidden width of an expert
const P = 0.1     # dropout
const CAPACITY = 0.0  # rows an expert takes, times the mean; 0: as many as come
const GROUPS = 1      # of tokens that have a capacity of their own
const W_IMPORTANCE = 0.1
const W_LOAD = 0.1
const GATE = "noisy_top_k"  # or one of README.md
const MOST = min(8, N)      # experts of a token, of a gate that leaves that open
const SHARED = 0            # experts that are always on, beside the others
const EXPERT_P = 0.0        # dropout within experts

fn gate(tokens) {
  if A > 0 { return hierarchical(groups = A, k = K, w_importance = W_IMPORTANCE, w_load = W_LOAD) }
  else if GATE == "noisy_top_k" { return noisy_top_k(k = K, w_importance = W_IMPORTANCE, w_load = W_LOAD) }
  else { return gate_named(GATE, k = K, most = MOST, groups = GROUPS, tokens = tokens) }
}

# Each layer: sigmoid (MoE only), dropout, then the residual.
fn body(x: i32[b, t]) -> (f32[b, t, V], f32[]) {
  let e      = dropout(embed(x, V, D) as "embed", P)
  let a      = e + dropout(lstm(e, U, D) as "lstm1", P)
  let y, aux = moe(a, experts = N, hidden = H, gate = gate(x), skip = leaves_choices(GATE),
                   capacity = CAPACITY, groups = GROUPS, p = EXPERT_P) as "moe"
  let m      = y + (ffn(a, hidden = SHARED * H) as "shared") if SHARED > 0 else y
  let q      = a + dropout(sigmoid(m), P)
  let c      = q + dropout(lstm(q, U, D) as "lstm2", P)
  return linear(c, V) as "softmax", aux
}
