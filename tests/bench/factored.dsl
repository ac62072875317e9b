# lm_moe.dsl with a second way to train it: experts by factored Adam (Shazeer et
# al. 2017, Appendix D), all else by Adam. For tests/bench/papers.sh: moerun train
# --entry factored; the entry train has Adam for all.
import "../../models/lm_moe.dsl"

entry factored(x: i32[B @data @dev @expert, T] from text(below = V),
               y: i32[B @data @dev @expert, T] from text(shift = 1)) {
  let h, w, bias, aux = body(x) as "lm"
  let nll = mean(losses(h, w, bias, y, SAMPLES) as "lm/softmax")
  let rate = warmup_rsqrt(lr, WARMUP)
  minimize nll + aux with { "*/experts/*": factored_adam(rate), "*": adam(rate) }
  report loss = nll
  report lr = rate
}
