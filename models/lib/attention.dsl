# Multi-head attention (Vaswani et al. 2017). Letters: b sequences, t positions
# of queries, u of keys, d model, h heads, e width of a head. Nothing of the size
# [t, u] is stored; weights of projections are split by heads over `model`.
import "init.dsl"
import "mesh.dsl"
import "nn.dsl"

# Of a sequence to itself. Causal: no position sees one behind it. `kv_heads`
# heads of keys and values, each read by heads / kv_heads of queries (Ainslie et
# al. 2023). With `rotary`, queries and keys are turned by their positions.
# mask: bool[b, t], true where there is something to attend to.
#
# One position at a time, outside of training, the layer remembers: the keys and
# values of the last `context` positions are state, as in sampling. `past` makes
# of those [b, context, ..] what x goes on from, as in a search for translations.
fn self_attention(x: f32[b, t, d], heads, kv_heads = heads, width = d / heads, causal = true,
                  rotary = false, context = 1024, mask = ones(bool[b, t]), past = unchanged) {
  require(heads * width > 0 and heads % kv_heads == 0,
          "heads of queries must be a multiple of those of keys", heads, kv_heads)
  let q = by_heads(x, heads, width) as "q"
  let k = by_heads(x, kv_heads, width) as "k"
  let v = by_heads(x, kv_heads, width) as "v"
  let attend = attend_to_past(rotary, context, past) if causal and t == 1 and not training
               else attend_within(causal, rotary)
  return from_heads(attend(q, k, v, mask), d) as "out"
}

# Of the positions of x to those of `memory`, say of a decoder to what an encoder
# made: f32[b, u, m]. mask: bool[b, u].
fn cross_attention(x: f32[b, t, d], memory: f32[b, u, m], heads, kv_heads = heads,
                   width = d / heads, mask = ones(bool[b, u])) {
  let q = by_heads(x, heads, width) as "q"
  let k = by_heads(memory, kv_heads, width) as "k"
  let v = by_heads(memory, kv_heads, width) as "v"
  return from_heads(attention(q, k, v, mask = mask), d) as "out"
}

# x . w, cut into heads: f32[.., d] -> f32[.., h, e].
fn by_heads(x: f32[.., d], heads, width) {
  param w: f32[d, heads @model, width] = glorot_fans(d, heads * width)
  let y[.., h, e] = x[.., d] * w[d, h, e]
  return y
}

# And back: f32[.., h, e] -> f32[.., d].
fn from_heads(x: f32[.., h, e], d) {
  param w: f32[h @model, e, d] = glorot_fans(h * e, d)
  let y[.., d] = x[.., h, e] * w[h, e, d]
  return y
}

# ---- who sees whom -------------------------------------------------------------

fn attend_within(causal, rotary)(q: f32[b, t, h, e], k: f32[b, t, g, e], v, mask) {
  let at = f32(iota(zeros(f32[t]), dim = 0))
  let turn = turned(at) if rotary else unturned
  return attention(turn(q), turn(k), v, causal = causal, mask = mask)
}

# Position number `place` of a sequence, in a ring of `context` of them.
fn attend_to_past(rotary, context, past)(q: f32[b, 1, h, e], k: f32[b, 1, g, e], v: f32[b, 1, g, e], mask) {
  state place: i32[] = 0
  state keys: f32[b, context, g, e]
  state values: f32[b, context, g, e]
  let at = f32(place) + zeros(f32[1])
  let turn = turned(at) if rotary else unturned
  let here = iota(keys, dim = 1) == place % context
  let all_keys = select(here, turn(k), past(keys))
  let all_values = select(here, v, past(values))
  set place = place + 1
  set keys = all_keys
  set values = all_values
  let known = iota(zeros(f32[b, context]), dim = 1) <= place
  return attention(turn(q), all_keys, all_values, mask = known)
}

# ---- positions -----------------------------------------------------------------

# A trained vector for each of the first `context` positions, to be added to what
# is at them (Vaswani et al. 2017); the last one serves all beyond.
fn positions(x: f32[b, t, d], context = 1024) {
  param table: f32[context, d] = normal_init(1.0 / sqrt(d))
  let at = places(x)
  return x + gather(table, min(at, context - 1))
}

# The numbers i32[t] of the positions of x. One at a time, outside of training,
# they are counted from step to step.
fn places(x: f32[b, t, d]) {
  if t == 1 and not training {
    state place: i32[] = 0
    set place = place + 1
    return place + zeros(i32[1])
  } else {
    return iota(zeros(f32[t]), dim = 0)
  }
}

# Turns pairs of a head's elements, i and i + e / 2, by angles that grow with
# their position `at` (Su et al. 2021): a score then depends on the distance.
fn turned(at: f32[t])(x: f32[b, t, h, e]) {
  require(e % 2 == 0, "heads that are turned must have an even width", e)
  let i = f32(iota(zeros(f32[e / 2]), dim = 0))
  let speed = exp(i * (-2.0 * log(10000.0) / e))
  let angle[t, i] = at[t] * speed[i]
  let c = reshape(cosine(angle), t, 1, -1)
  let s = reshape(sine(angle), t, 1, -1)
  let first = x[.., 0:e / 2]
  let second = x[.., e / 2:e]
  return concat(first * c - second * s, second * c + first * s, dim = -1)
}
fn unturned(x) { return x }
