# An LSTM alone, forward and backward, from an input that is a parameter. See
# run.sh.
import "../../models/lib/lstm.dsl"
import "../../models/lib/optim.dsl"

const T = 1024    # time steps
const B = 16      # sequences
const D = 768     # width

entry train(tokens: i32[1, T] from text) {
  param x: f32[B, T, D] = normal_init(1.0)
  param d: f32[B, T, D] = normal_init(1.0)
  minimize sum(lstm(x, D) * stop_gradient(d)) with { "d": freeze, "*": sgd(1e-6) }
  report first = f32(tokens[0, 0])
}
