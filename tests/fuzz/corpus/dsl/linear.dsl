const D = 3
const T = 2
option lr = 1e-1
mesh dev

fn sgd(rate)(p: f32[..], g: f32[..]) { return p - rate * g }
fn half_init()(w: f32[..]) { return uniform(random_bits(w)) * 0.5 }

fn layer(x: f32[.., d], width, act) {
  param w: f32[d, width] = half_init()
  param bias: f32[width] = 0.0
  let y[.., o] = x[.., d] * w[d, o]
  return act(y + bias)
}

fn relu(x: f32[..]) { return max(x, 0.0) }

entry train(x: i32[4 @dev, T] from text, y: i32[4 @dev, T] from text(shift = 1)) {
  param table: f32[16, D] = half_init()
  let e = gather(table, x)
  let h = layer(e, 5, act = relu) as "a"
  let s = layer(h, act = relu, width = 16) as "b"
  let loss = mean(s * s)
  minimize loss with { "b/*": sgd(lr), "*": sgd(0.5) }
  report loss = loss
  probe h = h
}
