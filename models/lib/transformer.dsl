# What a transformer's layers have behind their attention. A model brings
#   F      hidden width of dense layers
#   EVERY  of as many layers the last has experts; 0: none has
#   P      dropout
# and what sparse.dsl asks for.
import "nn.dsl"
import "sparse.dsl"

# Of layer i: x and what it makes of normalised x (pre-norm), and a loss of the
# gate's. tokens, there: as of `sparse`.
fn feed_forward(i, x: f32[b, t, d], tokens: i32[b, t], there = ones(f32[])) {
  let y, aux = layer_number(i)(rms_norm(x) as "norm2", tokens, there) as ""
  return x + dropout(y, P), aux
}

fn layer_number(i) {
  require(EVERY >= 0, "layers from one with experts to the next are 1 or more, or 0", EVERY)
  return sparse_layer if EVERY > 0 and (i + 1) % max(EVERY, 1) == 0 else dense_layer
}
fn sparse_layer(x: f32[b, t, d], tokens: i32[b, t], there) {
  let y, aux = sparse(x, tokens, there) as "moe"
  return y, aux
}
fn dense_layer(x: f32[b, t, d], tokens: i32[b, t], there) { return ffn(x, F) as "ffn", 0.0 }
