# test: %s --stop-after=frontend
# Mistakes in calls of attention.
entry eval(q: f32[2, 5, 4, 8] from text, k: f32[2, 6, 2, 8] from text, n: f32[] from text) {
  report a = attention(q, k)
  report b = attention(q, k, k, scale = n)
  report c = attention(q, k, k, causal = 1)
  report d = attention(q, k, k, mask = k)
  report e = attention(q, k[:, :, :, 0:7], k)
}

# >>> err
# tests/parse/error-attention.dsl:4:14: error: attention lacks an argument for 'v'
#     4 |   report a = attention(q, k)
#       |              ^~~~~~~~~~~~~~~
# tests/parse/error-attention.dsl:5:41: error: attention: a number known when compiling is needed here, not f32[]
#     5 |   report b = attention(q, k, k, scale = n)
#       |                                         ^
# tests/parse/error-attention.dsl:6:42: error: attention: true or false is needed here, not the integer 1
#     6 |   report c = attention(q, k, k, causal = 1)
#       |                                          ^
# tests/parse/error-attention.dsl:7:14: error: attention: the mask of keys must be bool[2, 6], but is f32[2, 6, 2, 8]
#     7 |   report d = attention(q, k, k, mask = k)
#       |              ^~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/error-attention.dsl:8:14: error: attention: queries and keys differ in dim 3: f32[2, 5, 4, 8] vs f32[2, 6, 2, 7]
#     8 |   report e = attention(q, k[:, :, :, 0:7], k)
#       |              ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# <<<
# >>> exit 1
