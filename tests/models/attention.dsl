# Attention in all its forms: causal with rotary positions and few heads of keys,
# over all with a mask, and from one sequence to another, behind trained
# positions. `whole` sees at once what `decode` is given token by token.
import "../../models/lib/attention.dsl"
import "../../models/lib/lm.dsl"

const D = 8
const HEADS = 4
const P = 0.25

fn decoder(x: i32[b, t]) {
  let e = dropout(embed(x, V, D), P)
  let a = e + self_attention(layer_norm(e), HEADS, kv_heads = 2, width = 6, rotary = true, context = 5)
  let p = positions(a, 4)
  let c = p + self_attention(rms_norm(p), HEADS, width = 3, context = 8)
  return c
}

fn body(x: i32[b, t]) -> (f32[b, t, D], f32[V, D], f32[V], f32[]) {
  let c = decoder(x) as "decoder"
  let m = c + self_attention(c, HEADS, width = 2, causal = false, mask = x % 3 > 0)
  let r = m + cross_attention(m, e_of(x), HEADS, width = 3)
  let w, bias = classes(V, D)
  return r, w, bias, mean(r)
}
fn e_of(x: i32[b, t]) { return embed(x, V, D) }

entry whole(x: i32[1, 5] from tokens) {
  report last = decoder(x) as "lm/decoder"
}
entry steps(x: i32[1, 1] from tokens) {
  report last = decoder(x) as "lm/decoder"
}
