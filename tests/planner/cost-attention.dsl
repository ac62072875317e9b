# test: %s --report=cost
# Attention counts the pairs that are seen: of 2 sequences, 3 heads and 4
# queries of 6 keys, 24 over all and 3 + 4 + 5 + 6 = 18 of the past, for each
# 5 multiply-adds of a score and 7 of its weight: a token has 3 * 24 / 4 * 12 and
# 3 * 18 / 4 * 12.
entry eval(x: i32[2, 4] from text, q: f32[2, 4, 3, 5] from text, k: f32[2, 6, 3, 5] from text,
           v: f32[2, 6, 3, 7] from text) {
  report all = attention(q, k, v)
  report past = attention(q, k, v, causal = true)
}

# >>> out
# cost of eval: forward, 8 tokens a step; operations are multiply-adds a token;
# moved are the bytes that products read and write in one step
#
# layer                              parameters    operations  their bytes        moved
# (no layer)                                  0           378          0 B      5.8 KiB
# all layers                                  0           378          0 B      5.8 KiB
# without embedding and softmax               0           378          0 B      5.8 KiB
# biases, in no product                       0
# <<<
