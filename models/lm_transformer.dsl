# Decoder-only transformer language model; every other feed-forward layer is a
# mixture of experts (as in GShard, Lepikhin et al. 2020), before it the sum is
# normalised (pre-norm). Embedding and softmax share one table. 6 layers, 512
# wide: 12.7 million parameters without the table and experts, and 33.6 million a
# layer of experts. README.md has the consts of Switch and DeepSeekMoE,
# lib/sparse.dsl those of the layer of experts.
import "lib/lm.dsl"
import "lib/attention.dsl"
import "lib/sparse.dsl"

const D = 512     # model width
const L = 6       # layers
const HEADS = 8
const F = 2048    # hidden width of dense layers
const EVERY = 2   # of as many layers the last has experts; 0: none has
const N = 32      # experts
const K = 2       # experts per token
const H = 1024    # hidden width of an expert
const P = 0.1     # dropout
const ROTARY = 1  # 0: trained positions
const CONTEXT = 1024  # positions that sampling remembers, and that are trained

# Of layer i, normalised tokens to what is added to them, and a loss.
fn forward(i, x: f32[b, t, d], tokens: i32[b, t]) {
  if EVERY > 0 and i % max(EVERY, 1) == EVERY - 1 {
    let y, aux = sparse(x, tokens) as "moe"
    return y, aux
  } else {
    return ffn(x, F) as "ffn", 0.0
  }
}

fn body(x: i32[b, t]) -> (f32[b, t, D], f32[V, D], f32[V], f32[]) {
  let table = embedding(V, D) as "embed"
  let e = gather(table, x) * sqrt(D)
  let start = e if ROTARY > 0 else positions(e, CONTEXT)
  let h, aux = for i in 0..L with h = dropout(start, P), aux = 0.0 {
    let a = self_attention(rms_norm(h) as "norm1", HEADS, rotary = ROTARY > 0, context = CONTEXT) as "attention"
    let m = h + dropout(a, P)
    let y, more = forward(i, rms_norm(m) as "norm2", x) as ""
    next h = m + dropout(y, P), aux = aux + more
  }
  let last = rms_norm(h) as "norm"
  return last, table, zeros(f32[V]), aux
}
