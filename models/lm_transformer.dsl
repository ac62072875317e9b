# Decoder-only transformer language model; every other feed-forward layer is a
# mixture of experts (as in GShard, Lepikhin et al. 2020), before it the sum is
# normalised (pre-norm). Embedding and softmax share one table. 6 layers, 512
# wide: 19 million parameters without embedding and experts, 16.8 million an MoE layer.
import "lib/lm.dsl"
import "lib/attention.dsl"
import "lib/moe.dsl"

const D = 512     # model width
const L = 6       # layers
const HEADS = 8
const F = 2048    # hidden width of dense layers
const N = 32      # experts
const K = 2       # experts per token
const H = 1024    # hidden width of an expert
const P = 0.1     # dropout
const ROTARY = 1  # 0: trained positions
const CONTEXT = 1024  # positions that sampling remembers, and that are trained
const W_IMPORTANCE = 0.1
const W_LOAD = 0.1

fn sparse(x: f32[.., d]) {
  let y, aux = moe(x, experts = N, hidden = H,
                   gate = noisy_top_k(k = K, w_importance = W_IMPORTANCE, w_load = W_LOAD)) as ""
  return y, aux
}
fn dense(x: f32[.., d]) {
  let y = ffn(x, F) as ""
  return y, 0.0
}

fn body(x: i32[b, t]) -> (f32[b, t, V], f32[]) {
  param table: f32[V @model, D] = normal_init(1.0 / sqrt(D))
  let e = gather(table, x) * sqrt(D)
  let start = e if ROTARY > 0 else positions(e, CONTEXT)
  let h, aux = for i in 0..L with h = dropout(start, P), aux = 0.0 {
    let a = self_attention(rms_norm(h) as "norm1", HEADS, rotary = ROTARY > 0, context = CONTEXT) as "attention"
    let m = h + dropout(a, P)
    let forward = sparse if i % 2 == 1 else dense
    let y, more = forward(rms_norm(m) as "norm2") as "moe"
    next h = m + dropout(y, P), aux = aux + more
  }
  let last = rms_norm(h) as "norm"
  let logits[b, t, v] = last[b, t, d] * table[v, d]
  return logits, aux
}
