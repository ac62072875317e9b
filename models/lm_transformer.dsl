# Decoder-only transformer language model; every other feed-forward layer is a
# mixture of experts (as in GShard, Lepikhin et al. 2020), before it the sum is
# normalised (pre-norm). Embedding and softmax share one table. 6 layers, 512
# wide: 12.7 million parameters without the table and experts, and 33.6 million a
# layer of experts. README.md has the consts of Switch and DeepSeekMoE,
# lib/sparse.dsl those of the layer of experts.
import "lib/lm.dsl"
import "lib/attention.dsl"
import "lib/transformer.dsl"

const D = 512     # model width
const L = 6       # layers
const HEADS = 8
const F = 2048    # hidden width of dense layers
const EVERY = 2   # of as many layers the last has experts; 0: none has
const N = 32      # experts
const K = 2       # experts per token
const H = 1024    # hidden width of an expert
const P = 0.1     # dropout
const GATE = "noisy_top_k"
const CAPACITY = 0.0
const GROUPS = 1
const ROTARY = 1  # 0: trained positions
const CONTEXT = 1024  # positions that sampling remembers, and that are trained

fn body(x: i32[b, t]) -> (f32[b, t, D], f32[V, D], f32[V], f32[]) {
  let table = embedding(V, D) as "embed"
  let e = gather(table, x) * sqrt(D)
  let start = e if ROTARY > 0 else positions(e, CONTEXT)
  let h, aux = for i in 0..L with h = dropout(start, P), aux = 0.0 {
    let a = self_attention(rms_norm(h) as "norm1", HEADS, rotary = ROTARY > 0, context = CONTEXT) as "attention"
    let y, more = feed_forward(i, h + dropout(a, P), x) as ""
    next h = y, aux = aux + more
  }
  let last = rms_norm(h) as "norm"
  return last, table, zeros(f32[V]), aux
}
