# A small language model with experts, by plain descent: on ranks its losses are
# those of one rank.
import "../../models/lib/lstm.dsl"
import "../../models/lib/moe.dsl"
import "../../models/lib/nn.dsl"
import "../../models/lib/optim.dsl"

const N = 6
const K = 2
const SKEW = 0   # 1: all rows go to the first expert
const B = 16
const T = 16
const CAPACITY = 0.0
const GROUPS = 1
const P = 0.0    # dropout inside of experts
option lr = 0.4

# A gate that tells of its choices: a number that differs where one does.
fn told(gate)(x: f32[.., d], experts) {
  let gates, chosen, aux = gate(x, experts) as "gate"
  let ids = chosen * (1 - SKEW)
  let place = iota(ids, dim = 0) * T + iota(ids, dim = 1)
  report routes = sum((ids + 1) * (place % 97 + 1))
  return gates, ids, aux
}

entry train(x: i32[B @data @dev @expert, T] from text,
            y: i32[B @data @dev @expert, T] from text(shift = 1)) {
  let e      = embed(x, 256, 32)
  let a      = e + lstm(e, 32)
  let m, aux = moe(a, experts = N, hidden = 48, gate = told(noisy_top_k(k = K)),
                   capacity = CAPACITY, groups = GROUPS, p = P)
  let nll    = cross_entropy(linear(a + dropout(sigmoid(m), 0.1), 256), y)
  minimize nll + aux with { "*": sgd(lr) }
  report loss = nll
  report aux = aux
}
