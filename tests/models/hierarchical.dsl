# Appendix B of Shazeer et al. 2017: k of `a` groups, in each k of its `b` experts.
import "../../models/lib/nn.dsl"
import "../../models/lib/moe.dsl"
import "../../models/lib/optim.dsl"

const V = 11
option lr = 1e-2

fn two_levels(a, b, k)(x: f32[n, t, d], experts) {
  require(a * b == experts, "groups times their size", a, b, experts)
  param w1: f32[d, a] = normal_init(0.5)
  param w2: f32[a, d, b] = normal_init(0.5)
  let z1[.., i] = x[.., d] * w1[d, i]
  let z2[.., i, j] = x[.., d] * w2[i, d, j]
  let top, groups = top_k(z1, k)
  let best, inner = top_k(z2, k)                 # of every group
  let chosen = put(softmax(top), groups, a)      # zero for the others
  let both = reshape(expand(chosen) * softmax(best), n, t, a * k)
  let gates, at = top_k(both, k * k)
  let ids = reshape(inner + b * iota(inner, dim = 2), n, t, a * k)
  return gates, take(ids, at), 0.0
}

entry train(x: i32[2 @dev, 3] from text(below = V), y: i32[2 @dev, 3] from text(shift = 1)) {
  let e = embed(x, V, 4)
  let m, _ = moe(e, experts = 12, hidden = 3, gate = two_levels(a = 4, b = 3, k = 2))
  minimize cross_entropy(linear(e + m, V), y) with { "*": adam(lr) }
}
