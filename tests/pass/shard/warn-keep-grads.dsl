# test: %s --mesh dev=2 --reshard-limit 0.00001 --keep-grads --stop-after=shard -o /dev/null
# Who wants gradients as results asks for wholes of them, not of anything else.
mesh dev
fn sgd(p: f32[..], g: f32[..]) { return p - 0.1 * g }
entry train(x: f32[4, 8] from text) {
  param w: f32[8 @dev, 4] = 0.0
  let v: f32[8 @dev, 4] = exp(w)
  probe v = v
  minimize sum(v * v) with { "*": sgd }
}

# >>> err
# tests/pass/shard/warn-keep-grads.dsl:7:10: warning: each device sends 64 B a step to gather f32[8 @dev, 4] as f32[8, 4] for report; a let with the first type where it is read keeps it split, one with the second says that it is meant so
#     7 |   let v: f32[8 @dev, 4] = exp(w)
#       |          ^~~~~~~~~~~~~~
# <<<
