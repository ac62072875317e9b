# Optimisers: from a parameter p and its gradient g to its next value. Learning
# rates come from schedules; `step` counts the steps completed so far.

# Kingma and Ba 2015, with bias correction.
fn adam(rate, b1 = 0.9, b2 = 0.999, eps = 1e-8)(p: f32[..], g: f32[..]) {
  state m: f32[like p] = 0.0
  state v: f32[like p] = 0.0
  let t = f32(step) + 1.0
  let m1 = b1 * m + (1.0 - b1) * g
  let v1 = b2 * v + (1.0 - b2) * g * g
  set m = m1
  set v = v1
  # Corrections of the step, as factors: one division an element is enough.
  let m_scale = rate / (1.0 - exp(t * log(b1)))
  let v_scale = 1.0 / (1.0 - exp(t * log(b2)))
  return p - m_scale * m1 / (sqrt(v_scale * v1) + eps)
}

# Plain gradient descent.
fn sgd(rate)(p: f32[..], g: f32[..]) { return p - rate * g }

# Linear warm-up over `warmup` steps, then proportional to 1 / sqrt(step):
# rate * min(t / warmup, sqrt(warmup / t)) with t from 1.
fn warmup_rsqrt(rate, warmup) {
  let t = f32(step) + 1.0
  return rate * min(t / warmup, sqrt(warmup / t))
}
