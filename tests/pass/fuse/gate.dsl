# test: --stop-after=fuse -I models %s
# The gate of the 2017 paper with both losses, forward: one contraction, one
# launch over rows, one over columns (two stages): three in all. The third
# launch here sets the weights in @init.
# count: contract 1, fused 3, top_k 1
import "lib/moe.dsl"

entry eval(x: f32[16, 32, 64] from text, noise: f32[16, 32, 32] from text) {
  param w: f32[64, 2, 32] = 0.0
  let z[b, t, j, n] = x[b, t, d] * w[d, j, n]
  let gates, ids, dense, load = noisy_top_k_gates(z[:, :, 0, :], z[:, :, 1, :], noise, 4, noisy = true)
  let importance = sum_rows(dense)
  let loads = sum_rows(load)
  let rows = sum_rows(f32(dense > 0.0))
  report cv_importance = sqrt(cv_squared(importance))
  report cv_load = sqrt(cv_squared(rows))
  report max_over_mean_load = max(rows) / (mean(rows) + 1e-10)
  report aux = 0.1 * cv_squared(importance) + 0.1 * cv_squared(loads)
  probe gates
  probe ids
}
