# The smallest mixture of experts: the next byte from this one, through two of
# four experts. The README follows it through the compiler.
import "lib/nn.dsl"
import "lib/moe.dsl"
import "lib/optim.dsl"

option lr = 1e-2

entry train(x: i32[8, 16] from text, y: i32[8, 16] from text(shift = 1)) {
  let e      = embed(x, 256, 32)
  let m, aux = moe(e, experts = 4, hidden = 64, gate = noisy_top_k(k = 2))
  let loss   = cross_entropy(linear(e + m, 256), y)
  minimize loss + aux with { "*": adam(lr) }
  report loss = loss
}
