# Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of
# Gers et al. 2000, no peepholes), over the time dim of x: f32[b, t, d].
import "init.dsl"
import "mesh.dsl"
import "nn.dsl"

# State is carried from batch to batch, as for text read in order; its gradient
# stops at the batch's start. Gates in the order input, forget, cell, output;
# forget bias 1. With a width that differs from the units, outputs are projected
# to it, and the recurrent input is what was projected.
fn lstm(x: f32[b, t, d], units, width = units) {
  state h0: f32[b, width] = 0.0
  state c0: f32[b, units] = 0.0
  let ys, hn, cn = lstm_from(x, h0, c0) as ""
  set h0 = hn
  set c0 = cn
  return ys
}

# The same from a given output and cell, and what these are after the last step.
fn lstm_from(x: f32[b, t, d], h0: f32[b, width], c0: f32[b, units]) {
  let turn = lstm_turn(d, units, width) as ""
  let ys, hn, cn = scan xt in x along 1 with h = h0, c = c0 {
    let h1, c1 = turn(xt, h, c)
    next h = h1, c = c1
    yield h1
  }
  return ys, hn, cn
}

# From the last position of a sentence to its first: f32[b, t, width]. Behind the
# sentence, where `there` is 0, it has not begun yet, so that padding changes
# nothing in front of it.
fn lstm_back(x: f32[b, t, d], there: f32[b, t], units, width) {
  let turn = lstm_turn(d, units, width) as ""
  let ys, _, _ = scan xt in x, on in there along 1 reverse with h = zeros(f32[b, width]), c = zeros(f32[b, units]) {
    let h1, c1 = turn(xt, h, c)
    let h2 = h1 * expand(on)
    next h = h2, c = c1 * expand(on)
    yield h2
  }
  return ys
}

# Both ways, with half of the units and of the width each: f32[b, t, width].
fn lstm_both(x: f32[b, t, d], there: f32[b, t], units, width) {
  require(units % 2 == 0 and width % 2 == 0,
          "an LSTM of two ways has an even number of units and an even width", units, width)
  let on, _, _ = lstm_from(x, zeros(f32[b, width / 2]), zeros(f32[b, units / 2])) as "on"
  let back = lstm_back(x, there, units / 2, width / 2) as "back"
  return concat(on, back, dim = 2)
}

# A step: from x f32[b, d], the output and the cell before to those behind.
fn lstm_turn(d, units, width) {
  param w: f32[d, 4, units @model] = uniform_init(1.0 / sqrt(units))
  param u: f32[width, 4, units @model] = uniform_init(1.0 / sqrt(units))
  param bias: f32[4, units @model] = forget_bias
  let output = unchanged if width == units else projection(units, width) as "out"
  return gates_and_cell(w, u, bias, output)
}
fn gates_and_cell(w: f32[d, 4, n], u: f32[m, 4, n], bias: f32[4, n], output)(x: f32[b, d], h: f32[b, m], c: f32[b, n]) {
  let zx[b, g, n] = x[b, d] * w[d, g, n]
  let zh[b, g, n] = h[b, m] * u[m, g, n]
  let y, c1 = lstm_cell(zx + zh + bias, c)
  return output(y), c1
}

# Output and next cell from the gates' sums and the cell.
fn lstm_cell(z: f32[b, 4, n], c: f32[b, n]) {
  let i = sigmoid(z[:, 0, :])
  let f = sigmoid(z[:, 1, :])
  let g = tanh(z[:, 2, :])
  let o = sigmoid(z[:, 3, :])
  let c1 = f * c + i * g
  return o * tanh(c1), c1
}

# A product with a weight of its own, without a bias, as a function.
fn projection(units, width) {
  param w: f32[units @model, width] = uniform_init(1.0 / sqrt(units))
  return times(w)
}
fn times(w: f32[n, o])(x: f32[.., n]) {
  let y[.., o] = x[.., n] * w[n, o]
  return y
}

# 1 for the forget gate, 0 for the others: f32[4, units].
fn forget_bias(w: f32[4, n]) {
  return select(iota(w, dim = 0) == 1, 1.0, 0.0)
}
