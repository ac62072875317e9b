# test: %s --stop-after=frontend
# A mask that is true throughout is checked like any other, and left out.
entry eval(x: f32[2, 4, 1, 3] from text) {
  report a = attention(x, x, x, mask = ones(bool[2, 4]))
  report b = attention(x, x, x, mask = ones(bool[2, 5]))
}

# >>> err
# tests/parse/attention-mask.dsl:5:14: error: attention: the mask of keys must be bool[2, 4], but is bool[2, 5]
#     5 |   report b = attention(x, x, x, mask = ones(bool[2, 5]))
#       |              ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# <<<
# >>> exit 1
