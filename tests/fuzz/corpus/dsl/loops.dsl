const L = 2
const WIDE = 1

fn cell(x: f32[b, t, d]) {
  param u: f32[d, d] = 0.1
  state h0: f32[b, d] = 0.0
  let ys, hn = scan xt in x along 1 with h = h0 {
    let z[b, n] = h[b, m] * u[m, n]
    let h1 = tanh(z + xt) if WIDE == 1 else z
    next h = h1
    yield h1
  }
  set h0 = hn
  return ys
}

entry run(x: f32[2, 3, 4] from text) {
  for i in 0..L {
    let y = cell(x) as "cell"
    report m = sum(y)
  }
  let v, ids = top_k(x, 2)
  let d = dispatch(x, ids, 4)
  report c = sum(combine(d, ids, v)), last = x[.., 1:3]
}
