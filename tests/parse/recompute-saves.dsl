# test: %s --report=memory | sed -n '/^marked/,$p'
# What it saves that values are marked.
fn descend(p: f32[..], g: f32[..]) { return p - 0.1 * g }
fn layer(x: f32[n, d]) {
  param w: f32[d, 8 * d] = 0.5
  param v: f32[8 * d, d] = 0.5
  recompute {
    let h[n, m] = x[n, d] * w[d, m]
    let a = exp(h)
  }
  let y[n, d] = a[n, m] * v[m, d]
  return x + y
}
entry train(x: f32[64, 8] from text) {
  let y = for i in 0..6 with y = x { next y = layer(y) }
  minimize sum(y) with { "*": descend }
}

# >>> out
# marked by `recompute`, so not kept for the backward pass
#   arena of train, if all is kept             133120    130.0 KiB
#   saved                                       75776     74.0 KiB
# <<<
