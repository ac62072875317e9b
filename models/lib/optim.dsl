# Optimisers: from a parameter p and its gradient g to its next value. Learning
# rates come from schedules. `step` counts the steps completed so far; under
# `accumulate` there are fewer updates than steps, so functions of time take
# `updates`, how many there were before.
import "nn.dsl"

# Kingma and Ba 2015, with bias correction.
fn adam(rate, b1 = 0.9, b2 = 0.999, eps = 1e-8, updates = step)(p: f32[..], g: f32[..]) {
  state m: f32[like p] = 0.0
  state v: f32[like p] = 0.0
  let t = f32(updates) + 1.0
  let m1 = b1 * m + (1.0 - b1) * g
  let v1 = b2 * v + (1.0 - b2) * g * g
  set m = m1
  set v = v1
  # Corrections of the step, as factors: one division an element is enough.
  let m_scale = rate / (1.0 - exp(t * log(b1)))
  let v_scale = 1.0 / (1.0 - exp(t * log(b2)))
  return p - m_scale * m1 / (sqrt(v_scale * v1) + eps)
}

# Adam with weight decay beside the gradient: Loshchilov and Hutter 2019.
fn adamw(rate, decay = 0.01, b1 = 0.9, b2 = 0.999, eps = 1e-8, updates = step)(p: f32[..], g: f32[..]) {
  let p1 = adam(rate, b1, b2, eps, updates)(p, g) as ""
  return p1 - rate * decay * p
}

# Plain gradient descent.
fn sgd(rate)(p: f32[..], g: f32[..]) { return p - rate * g }

# Polyak's momentum: the velocity is the decayed sum of gradients. Nesterov's
# looks one step ahead.
fn momentum(rate, keep = 0.9, nesterov = false)(p: f32[..], g: f32[..]) {
  state velocity: f32[like p] = 0.0
  let v1 = keep * velocity + g
  set velocity = v1
  return p - rate * (g + keep * v1 if nesterov else v1)
}

# ---- second moments kept by rows and columns ---------------------------------
#
# Of a matrix the decayed means of squares over each row, r, and each column, c:
# V = outer(r, c) / mean(r) has these means again. Leading dims, as of experts,
# are matrices side by side.

fn factored_moment(square: f32[.., m, n], keep) {
  state rows: f32[.., m] = 0.0
  state columns: f32[.., n] = 0.0
  let r = keep * rows + (1.0 - keep) * mean(square, dim = -1)
  let c = keep * columns + (1.0 - keep) * mean(square, dim = -2)
  set rows = r
  set columns = c
  let share = r / mean(r, dim = -1, keep = true)
  let v[.., i, j] = share[.., i] * c[.., j]
  return v
}

fn full_moment(square: f32[..], keep) {
  state v: f32[like square] = 0.0
  let v1 = keep * v + (1.0 - keep) * square
  set v = v1
  return v1
}

fn second_moment(square: f32[..], keep) {
  return (factored_moment if rank(square) >= 2 else full_moment)(square, keep) as ""
}

# Adam without a first moment and with a factored second one, which is how
# Shazeer et al. 2017, Appendix D, keep the optimiser's state of experts small.
fn factored_adam(rate, b2 = 0.999, eps = 1e-8, updates = step)(p: f32[..], g: f32[..]) {
  let t = f32(updates) + 1.0
  let v = second_moment(g * g, b2) as ""
  let v_scale = 1.0 / (1.0 - exp(t * log(b2)))
  return p - rate * g / (sqrt(v_scale * v) + eps)
}

# Shazeer and Stern 2018: no first moment, a decay that nears 1, updates clipped
# by their root mean square, and steps relative to the parameter's size. `rate`
# is at most that part of it: warmup or a constant such as 1e-2.
fn adafactor(rate = 1e-2, decay = 0.8, clip = 1.0, eps = 1e-30, floor = 1e-3, updates = step)(p: f32[..], g: f32[..]) {
  let t = f32(updates) + 1.0
  let keep = 1.0 - exp(-decay * log(t))
  let v = second_moment(g * g + eps, keep) as ""
  let u = g / sqrt(v)
  let scale = max(root_mean_square(p), floor) * min(rate, 1.0 / sqrt(t))
  return p - scale * u / max(1.0, root_mean_square(u) / clip)
}

fn root_mean_square(x: f32[..]) { return sqrt(mean(x * x)) }

# ---- around optimisers -------------------------------------------------------

# Gradients whose norm, over all parameters, is above `norm` are scaled to it.
fn clip(optimiser, norm)(p: f32[..], g: f32[..]) {
  return optimiser(p, g * (norm / max(grad_norm, norm))) as ""
}

# One update for every `steps` steps, by the mean of their gradients. The inner
# optimiser is given updates = step / steps, as are its schedules.
fn accumulate(optimiser, steps)(p: f32[..], g: f32[..]) {
  state sum: f32[like p] = 0.0
  let all = sum + g
  let due = step % steps == steps - 1
  set sum = select(due, zeros_like(all), all)
  where due { let p1 = optimiser(p, all / f32(steps)) as "" }
  return select(due, p1, p)
}

# ---- schedules ---------------------------------------------------------------

# Linear warm-up over `warmup` steps, then proportional to 1 / sqrt(step):
# rate * min(t / warmup, sqrt(warmup / t)) with t from 1.
fn warmup_rsqrt(rate, warmup, updates = step) {
  let t = f32(updates) + 1.0
  return rate * min(t / warmup, sqrt(warmup / t))
}

# Linear warm-up, constant for `flat` steps, then proportional to 1 / sqrt(step).
fn warmup_flat_rsqrt(rate, warmup, flat, updates = step) {
  let t = f32(updates) + 1.0
  return rate * min(min(t / warmup, 1.0), sqrt((warmup + flat) / t))
}

# Linear warm-up, then constant.
fn warmup_constant(rate, warmup, updates = step) {
  let t = f32(updates) + 1.0
  return rate * min(t / warmup, 1.0)
}

# Linear warm-up, then half a cosine from `rate` to `rate * floor` at `total`.
fn warmup_cosine(rate, warmup, total, floor = 0.1, updates = step) {
  require(total > warmup, "a schedule must be longer than its warm-up", total, warmup)
  let t = f32(updates) + 1.0
  let part = min(max(t - warmup, 0.0) / (total - warmup), 1.0)
  let fall = floor + (1.0 - floor) * 0.5 * (1.0 + cosine(PI * part))
  return rate * min(t / warmup, fall)
}
