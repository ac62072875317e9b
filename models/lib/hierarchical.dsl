# Gating at two levels (Shazeer et al. 2017, Appendix B): experts are in groups of
# equal size, in order. One gate picks k groups, and in each of them a gate of the
# group's own picks k experts, so that a gate's work grows with the groups and the
# experts of one, not with all. Letters: a groups, b experts of one, k choices.
import "mesh.dsl"
import "moe.dsl"
import "gates.dsl"
import "balanced.dsl"

# Noisy top-k at both levels (Eq. 12), with the importance and load losses over
# all experts together (Eq. 13 and 14). `there` is that of noisy_top_k.
fn hierarchical(groups, k, w_importance = 0.1, w_load = 0.1, there = 1.0)(x: f32[.., d], experts) {
  let b = group_size(experts, groups, k)
  let gates, ids, aux = noisy_levels(x, groups, b, k, w_importance, w_load, there) as ""
  return gates, ids, aux
}

fn noisy_levels(x: f32[.., d], groups, b, k, w_importance, w_load, there) {
  let shares, which, first, first_load = noisy_level(x, groups, k) as "primary"
  let counts = there * ones_like(shares)
  let p = shares * counts
  let g, inner, second, load = secondary(x, which, groups, b, k) as "secondary"

  let importance = scatter_add(expand(p) * second, which, groups)
  let loads = two_level_load(sum_rows(first_load * there), sum_rows(f32(first > 0.0) * there),
                             scatter_add(load * expand(counts), which, groups))
  let rows = scatter_add(f32(second > 0.0) * expand(counts), which, groups)
  let aux = balance(reshape(importance, -1), reshape(loads, -1), reshape(rows, -1),
                    w_importance, w_load) as ""
  let ids = expand(which) * b + inner
  return reshape(expand(p) * g, f32[.., k * k]), reshape(ids, i32[.., k * k]), aux
}

# How many experts a group has.
fn group_size(experts, groups, k) {
  require(groups >= 1 and experts % groups == 0,
          "the number of experts must be a multiple of the groups", experts, groups)
  let b = experts / groups
  require(k >= 1 and k <= min(groups, b),
          "choices of a level must be 1 to the groups and to the experts of a group",
          k, groups, b)
  return b
}

# The gates of the chosen groups, i32[.., k] -> values with dims [.., k].
fn secondary(x: f32[.., d], which: i32[.., c], groups, b, k) {
  param w: f32[groups @dev @expert, d, 2 * b] = 0.0
  return noisy_draw(reshape(by_their_groups(x, which, w), f32[.., c, 2, b]), k) as ""
}

# x . w by the weight of each chosen group: f32[.., c, m]. A group's weight is where
# its experts are: tokens go there, and their logits come back.
fn by_their_groups(x: f32[.., d], which: i32[.., c], w: f32[a, d, m]) {
  let copies = full(f32[.., c, d], reshape(x, f32[.., 1, d]))
  let ids = expand(which)
  let rows = dispatch(copies, ids, a)
  let z[a, r, m] = rows[a, r, d] * w[a, d, m]
  return combine(z, ids)
}

# Eq. 14 from Load_prim [a], the numbers of tokens that chose each group [a], and
# Load of each group's own gate [a, b]; 0 for a group that nobody chose.
fn two_level_load(primary: f32[a], tokens: f32[a], own: f32[a, b]) {
  return expand(primary / (tokens + 1e-10)) * own
}

# ---- strictly balanced at both levels (Appendices B and F) ---------------------

# In training each group takes its k / a of the tokens, and each expert k / b of its
# group's; elsewhere both take what is above their thresholds. So a token has k
# groups and k experts of each in the mean; `most` bounds its experts.
fn balanced_levels(groups, k, most, w_threshold = 1.0, there = 1.0)(x: f32[.., d], experts) {
  let b = group_size(experts, groups, k)
  require(most >= 1 and most <= experts,
          "experts per token must be 1 to the number of experts", most, experts)
  param threshold: f32[groups] = 1.0 / groups
  param own_threshold: f32[groups, b] = 1.0 / b
  let p = softmax(router(x, groups) as "primary") * there
  let kept = largest_in_batch(p, k, 1, there) if training else f32(p > threshold)
  let first, which = top_k(shares_of(p * kept), min(most, groups))
  let open = expand(f32(first > 0.0))
  let q = softmax(own_router(x, which, groups, b) as "secondary") * open
  let limits = gather(own_threshold, which)
  let own = largest_in_group(q, which, groups, k, k * count_tokens(x) / groups) if training else f32(q > limits)
  let second = shares_of(q * own)

  report_rows(reshape(scatter_add(f32(second > 0.0), which, groups), -1)) as ""
  let c = size(which, -1) * b
  let gates, at = top_k(reshape(expand(first) * second, f32[.., c]), most)
  let ids = reshape(expand(which) * b + iota(second, dim = -1), i32[.., c])
  if training {
    let over = stop_gradient(q) - limits
    let own_loss = sum((f32(over > 0.0) - own) * over * open)
    return gates, take(ids, at), w_threshold * (threshold_loss(p, threshold, kept, there) + own_loss)
  } else {
    return gates, take(ids, at), 0.0
  }
}

fn own_router(x: f32[.., d], which: i32[.., c], groups, b) {
  param w: f32[groups @dev @expert, d, b] = truncated_normal(0.1)
  return by_their_groups(x, which, w)
}

# Of each group's m tokens the k * m / b with the largest q for each of its b
# experts: 1 for those, else 0. A choice whose q are 0 is none; a group that has
# fewer tokens gives its experts fewer.
fn largest_in_group(q: f32[.., b], which: i32[..], groups, k, m) {
  require(k * m % b == 0,
          "choices of a group's tokens must divide by its experts", k * m, b)
  let all = reshape(q, -1, b)
  let open = max(all, dim = -1) > 0.0
  let of = f32(expand(reshape(which, -1)) == iota_like(open, groups)) * expand(f32(open))
  let there, rows = top_k(transpose(of, 1, 0), m)               # [groups, m]
  let mine = gather(all, rows) * expand(there)                  # [groups, m, b]
  let mask = largest_with_room(mine, k * m / b, sum(there, dim = -1) * k / b) * expand(there)
  return reshape(scatter_add(mask, rows, size(all, 0)), f32[.., b])
}
