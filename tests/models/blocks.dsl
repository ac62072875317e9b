# Layers made by `for`, a function as an argument, one table for both ends, and a
# parameter that stays as it is.
import "../../models/lib/nn.dsl"
import "../../models/lib/optim.dsl"

const V = 11
const L = 3
option lr = 1e-2
option scale = 1.5

fn block(x: f32[.., d], activation) {
  return x + activation(linear(x, d) as "first") * (linear(x, d) as "second")
}
fn twice(f, x) { return f(f(x) as "one") as "two" }
fn half(x: f32[.., d]) { return 0.5 * tanh(linear(x, d)) }

entry train(x: i32[2, 3] from text(below = V), y: i32[2, 3] from text(shift = 1)) {
  param table: f32[V, 5] = normal_init(0.1)
  let e = gather(table, x)
  let h = for i in 0..L with h = e {
    let act = tanh if i == 0 else relu
    next h = block(h, act)
  }
  let out = twice(half, h) * scale
  let logits[b, t, v] = out[b, t, d] * table[v, d]
  probe out
  probe squares = out * out
  if L > 2 { report size = mean(abs(out)) }
  minimize cross_entropy(logits, y) with {
    "*first/bias": freeze,
    "*/second/*": adam(lr),
    "*": sgd(10.0 * lr)
  }
}
