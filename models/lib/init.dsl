# Initial values. An initialiser is a function of the parameter's shape: it is
# given zeros of that shape and returns the values. Draws follow the logical
# position, so every mesh starts from the same numbers.

# Uniform in [-range, range).
fn uniform_init(range)(w: f32[..]) {
  return (2.0 * uniform(random_bits(w)) - 1.0) * range
}

# Normal with standard deviation `std`.
fn normal_init(std)(w: f32[..]) {
  return normal(random_bits(w)) * std
}

# Glorot and Bengio 2010: uniform, variance 2 / (fan_in + fan_out). The last two
# dims are the matrix, dims before them count matrices.
fn glorot()(w: f32[.., i, o]) {
  return glorot_fans(i, o)(w)
}

# The same where several dims are the rows or the columns.
fn glorot_fans(i, o)(w: f32[..]) {
  return uniform_init(sqrt(6.0 / (i + o)))(w)
}

# Normal of variance scale / fan_in, drawn within two of its standard deviations:
# uniform bits between the quantiles of -2 and 2, which `normal` inverts.
fn truncated_normal(scale)(w: f32[.., i, o]) {
  return normal(97711073 + mulhi(random_bits(w), 4099545150)) * sqrt(scale / i)
}
