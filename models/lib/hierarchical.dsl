# Gating at two levels (Shazeer et al. 2017, Appendix B): experts are in groups of
# equal size, in order. One gate picks k groups, and in each of them a gate of the
# group's own picks k experts, so that a gate's work grows with the groups and the
# experts of one, not with all. Letters: a groups, b experts of one, k choices.
import "mesh.dsl"
import "moe.dsl"

# Noisy top-k at both levels (Eq. 12), with the importance and load losses over
# all experts together (Eq. 13 and 14). `there` is that of noisy_top_k.
fn hierarchical(groups, k, w_importance = 0.1, w_load = 0.1, there = 1.0)(x: f32[.., d], experts) {
  require(groups >= 1 and experts % groups == 0,
          "the number of experts must be a multiple of the groups", experts, groups)
  let b = experts / groups
  require(k >= 1 and k <= min(groups, b),
          "choices of a level must be 1 to the groups and to the experts of a group",
          k, groups, b)
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

# The gates of the chosen groups, i32[.., k] -> values with dims [.., k]. A group's
# weight is where its experts are: tokens go there, and their logits come back.
fn secondary(x: f32[.., d], which: i32[.., c], groups, b, k) {
  param w: f32[groups @dev @expert, d, 2 * b] = 0.0
  let copies = full(f32[.., c, d], reshape(x, f32[.., 1, d]))
  let ids = expand(which)
  let rows = dispatch(copies, ids, groups)
  let z[a, r, m] = rows[a, r, d] * w[a, d, m]
  return noisy_draw(reshape(combine(z, ids), f32[.., c, 2, b]), k) as ""
}

# Eq. 14 from Load_prim [a], the numbers of tokens that chose each group [a], and
# Load of each group's own gate [a, b]; 0 for a group that nobody chose.
fn two_level_load(primary: f32[a], tokens: f32[a], own: f32[a, b]) {
  return expand(primary / (tokens + 1e-10)) * own
}
