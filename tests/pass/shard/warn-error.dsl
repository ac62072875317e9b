# test: %s --mesh dev=2,model=2 -Werror=reshard --reshard-limit 0.0001 --stop-after=shard -o /dev/null
# The same as errors.
mesh dev, model
fn sgd(p: f32[..], g: f32[..]) { return p - 0.1 * g }
entry train(x: f32[8 @dev, 4] from text) {
  param whole: f32[4, 8] = 0.0
  param meant: f32[4 @_, 8 @_] = 0.0
  param split: f32[8, 64 @model] = 0.0
  let h[b, n] = x[b, d] * whole[d, n] + x[b, d] * meant[d, n]
  let z[b, n] = h[b, d] * split[d, n]
  let s, order = sort(z)
  minimize sum(s) with { "*": sgd }
}

# >>> err
# tests/pass/shard/warn-error.dsl:6:3: error: parameter 'whole' of 128 B is on each of 4 devices; f32[4, 8 @dev] would split it, f32[4 @_, 8 @_] says that it is meant so
#     6 |   param whole: f32[4, 8] = 0.0
#       |   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/pass/shard/warn-error.dsl:10:17: error: each device sends 512 B a step to gather f32[8 @dev, 64 @model] as f32[8 @dev, 64] for sort; a let with the first type where it is read keeps it split, one with the second says that it is meant so
#    10 |   let z[b, n] = h[b, d] * split[d, n]
#       |                 ^~~~~~~~~~~~~~~~~~~~~
# <<<
# >>> exit 1
