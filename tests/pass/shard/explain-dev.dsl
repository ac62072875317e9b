# test: %s -I models --mesh dev=4 --explain=shard
# The layout of 2017: batch and experts over the same devices.
import "lib/nn.dsl"
import "lib/moe.dsl"
import "lib/optim.dsl"

entry train(x: i32[8 @dev @data @expert, 4] from text,
            y: i32[8 @dev @data @expert, 4] from text(shift = 1)) {
  let e      = embed(x, 16, 8)
  let m, aux = moe(e, experts = 8, hidden = 16, gate = noisy_top_k(k = 2))
  let loss   = cross_entropy(linear(e + m, 16), y)
  minimize loss + aux with { "*": sgd(0.1) }
  report loss = loss
}

# >>> out
# 4 devices: dev=4
#
#   memory           a device       in all      share
#   parameters        3.6 KiB      9.6 KiB       37 %
#   inputs               64 B        256 B       25 %
#   together          3.6 KiB      9.8 KiB       37 %
#
#   in train           a step         sent
#   all_to_all              4      1.5 KiB
#   all_reduce             10      2.5 KiB
#   together               14      4.0 KiB
#
# Sent: bytes that each device sends; rows of experts as if each had as many. A tensor has an axis of
# the mesh on a dim for a reason, the first of these that holds:
#   said            the model says so, at that place
#   alike           an operand or user has it there, element by element, loops and slots included
#   batch letter    ... on a letter of all operands and the result, or on the tokens
#   kept letter     ... on a letter that the result keeps
#   summed letter   ... on a letter that is summed over: the result is a part of the sum
#   what is left    ... on the experts of a dispatch, on a small tensor that is repeated
#   cheapest letter of all letters that could have it, at the end
# Of kept and summed letters that could have the same axis, the one gets it that moves fewer bytes.
#
# What moves in train, most first
# -------------------------------
# all_reduce @dev                                 768 B
#     %d_table at models/lib/nn.dsl:51:10 in e/embed
#     f32[16, 8; sum @dev]  to  f32[16, 8]
#     for mul at tests/pass/shard/explain-dev.dsl:12:3 and 2 more, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @dev on dim 0: 384 B
# all_reduce @dev                                 768 B
#     %d_w at models/lib/moe.dsl:93:21 in m/moe/gate
#     f32[8, 2, 8; sum @dev]  to  f32[8, 2, 8]
#     for mul at tests/pass/shard/explain-dev.dsl:12:3 and 2 more, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @dev on dim 0: 384 B
# all_reduce @dev                                 768 B
#     %d_w at models/lib/nn.dsl:64:18 in loss/linear
#     f32[8, 16; sum @dev]  to  f32[8, 16]
#     for mul at tests/pass/shard/explain-dev.dsl:12:3 and 2 more, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @dev on dim 0: 384 B
# all_to_all @dev                                 384 B
#     %rows at models/lib/moe.dsl:26:14 in m/moe
#     f32[8, r<=64 @dev, 8]  to  f32[8 @dev, r<=64, 8]
#     for contract at models/lib/moe.dsl:64:20 and 1 more, which has @dev on letter n: batch letter
#     other ways: by way of the whole value: 1.5 KiB
# all_to_all @dev                                 384 B
#     %y at models/lib/moe.dsl:60:20 in m/moe/experts
#     f32[8 @dev, r<=64, 8]  to  f32[8, r<=64 @dev, 8]
#     for combine at models/lib/moe.dsl:27:10 and 1 more, which has @dev on letter s: batch letter
#     other ways: by way of the whole value: 1.5 KiB
# all_to_all @dev                                 384 B
#     dispatch (gradient) at models/lib/moe.dsl:27:10 in m/moe
#     f32[8, r<=64 @dev, 8]  to  f32[8 @dev, r<=64, 8]
#     for contract (gradient) at models/lib/moe.dsl:60:20 and 1 more, which has @dev on letter n: batch letter
#     other ways: by way of the whole value: 1.5 KiB
# all_to_all @dev                                 384 B
#     contract (gradient) at models/lib/moe.dsl:64:20 in m/moe/experts
#     f32[8 @dev, r<=64, 8]  to  f32[8, r<=64 @dev, 8]
#     for combine (gradient) at models/lib/moe.dsl:26:14, which has @dev on letter s: batch letter
#     other ways: by way of the whole value: 1.5 KiB
# all_reduce @dev                                  96 B
#     %d_bias at models/lib/nn.dsl:65:10 in loss/linear
#     f32[16; sum @dev]  to  f32[16]
#     for mul at tests/pass/shard/explain-dev.dsl:12:3 and 2 more, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @dev on dim 0: 48 B
# all_reduce @dev                                  48 B
#     %s at models/lib/moe.dsl:147:14 in m/moe/gate/aux/sum_rows
#     f32[8; sum @dev]  to  f32[8]
#     for reduce_sum at models/lib/moe.dsl:153:11 and 1 more, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @dev on dim 0: 24 B
# all_reduce @dev                                  48 B
#     %s at models/lib/moe.dsl:147:14 in m/moe/gate/rows/sum_rows
#     f32[8; sum @dev]  to  f32[8]
#     for reduce_sum at models/lib/moe.dsl:153:11 and 2 more, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @dev on dim 0: 24 B
# all_reduce @dev                                  48 B
#     %s at models/lib/moe.dsl:147:14 in m/moe/gate/aux/sum_rows
#     f32[8; sum @dev]  to  f32[8]
#     for reduce_sum at models/lib/moe.dsl:153:11 and 1 more, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @dev on dim 0: 24 B
# all_reduce @dev                                   6 B
#     reduce_sum at models/lib/nn.dsl:118:10 in loss/cross_entropy
#     f32[; sum @dev]  to  f32[]
#     for div at models/lib/nn.dsl:118:10, which needs the finished sum
# all_reduce @dev                                   6 B
#     reduce_sum at tests/pass/shard/explain-dev.dsl:12:3
#     f32[; sum @dev]  to  f32[]
#     for add at tests/pass/shard/explain-dev.dsl:12:3, which needs the finished sum
# all_reduce @dev                                   6 B
#     reduce_sum at tests/pass/shard/explain-dev.dsl:12:3
#     f32[; sum @dev]  to  f32[]
#     for add at tests/pass/shard/explain-dev.dsl:12:3, which needs the finished sum
#
# Parameters, and bytes a device
# ------------------------------
# e/embed/table                              f32[16, 8]                                        512 B
# m/moe/gate/w                               f32[8, 2, 8]                                      512 B
# m/moe/experts/w1                           f32[8 @dev, 8, 16]                              1.0 KiB
#     each has f32[2, 8, 16]
#     @dev dim 0: said at models/lib/moe.dsl:56:3
# m/moe/experts/w2                           f32[8 @dev, 16, 8]                              1.0 KiB
#     each has f32[2, 16, 8]
#     @dev dim 0: said at models/lib/moe.dsl:57:3
# loss/linear/w                              f32[8, 16]                                        512 B
# loss/linear/bias                           f32[16]                                            64 B
#
# Inputs, and bytes a device
# --------------------------
# x                                          i32[8 @dev, 4]                                     32 B
#     each has i32[2, 4]
#     @dev dim 0: said at tests/pass/shard/explain-dev.dsl:7:16
# y                                          i32[8 @dev, 4]                                     32 B
#     each has i32[2, 4]
#     @dev dim 0: said at tests/pass/shard/explain-dev.dsl:8:16
#
# Values of train, and bytes a device
# -----------------------------------
# in e/embed
#   %e                                       f32[8 @dev, 4, 8]                                 256 B
#     each has f32[2, 4, 8]
#     @dev dim 0: kept letter a, from %x, said at tests/pass/shard/explain-dev.dsl:7:16
# in m/moe/gate
#   %z                                       f32[8 @dev, 4, 2, 8]                              512 B
#     each has f32[2, 4, 2, 8]
#     @dev dim 0: kept letter a, from %e, said at tests/pass/shard/explain-dev.dsl:7:16
#   %clean                                   f32[8 @dev, 4, 8]                                 256 B
#     each has f32[2, 4, 8]
#     @dev dim 0: alike, from slice at models/lib/moe.dsl:99:15,
#         said at tests/pass/shard/explain-dev.dsl:7:16
#   %noise                                   f32[8 @dev, 4, 8]                                 256 B
#     each has f32[2, 4, 8]
#     @dev dim 0: alike, for mul at models/lib/moe.dsl:126:19,
#         said at tests/pass/shard/explain-dev.dsl:7:16
# in m/moe/gate/noisy_top_k_gates/std/softplus
#   %std                                     f32[8 @dev, 4, 8]                                 256 B
#     each has f32[2, 4, 8]
#     @dev dim 0: alike, from max at models/lib/nn.dsl:5:34,
#         said at tests/pass/shard/explain-dev.dsl:7:16
# in m/moe/gate/noisy_top_k_gates
#   %h                                       f32[8 @dev, 4, 8]                                 256 B
#     each has f32[2, 4, 8]
#     @dev dim 0: alike, from %clean, said at tests/pass/shard/explain-dev.dsl:7:16
#   %top                                     f32[8 @dev, 4, 3]                                  96 B
#     each has f32[2, 4, 3]
#     @dev dim 0: alike, from %h, said at tests/pass/shard/explain-dev.dsl:7:16
#   %all_ids                                 i32[8 @dev, 4, 3]                                  96 B
#     each has i32[2, 4, 3]
#     @dev dim 0: alike, from %h, said at tests/pass/shard/explain-dev.dsl:7:16
#   %ids                                     i32[8 @dev, 4, 2]                                  64 B
#     each has i32[2, 4, 2]
#     @dev dim 0: alike, from %all_ids, said at tests/pass/shard/explain-dev.dsl:7:16
# in m/moe/gate/noisy_top_k_gates/gates/softmax
#   %e                                       f32[8 @dev, 4, 2]                                  64 B
#     each has f32[2, 4, 2]
#     @dev dim 0: alike, from sub at models/lib/nn.dsl:30:15,
#         said at tests/pass/shard/explain-dev.dsl:7:16
#   %gates                                   f32[8 @dev, 4, 2]                                  64 B
#     each has f32[2, 4, 2]
#     @dev dim 0: alike, from %e, said at tests/pass/shard/explain-dev.dsl:7:16
# in m/moe/gate/noisy_top_k_gates
#   %dense                                   f32[8 @dev, 4, 8]                                 256 B
#     each has f32[2, 4, 8]
#     @dev dim 0: alike, from %gates, said at tests/pass/shard/explain-dev.dsl:7:16
#   %inside                                  bool[8 @dev, 4, 8]                                 64 B
#     each has bool[2, 4, 8]
#     @dev dim 0: alike, from %h, said at tests/pass/shard/explain-dev.dsl:7:16
#   %threshold                               f32[8 @dev, 4, 8]                                 256 B
#     each has f32[2, 4, 8]
#     @dev dim 0: alike, from %inside, said at tests/pass/shard/explain-dev.dsl:7:16
# in m/moe/gate/noisy_top_k_gates/load/normal_cdf
#   %load                                    f32[8 @dev, 4, 8]                                 256 B
#     each has f32[2, 4, 8]
#     @dev dim 0: alike, from add at models/lib/moe.dsl:143:43,
#         said at tests/pass/shard/explain-dev.dsl:7:16
# in m/moe/gate/rows/sum_rows
#   %s                                       f32[8; sum @dev]                                   32 B
#     each has f32[8]
#     @dev sum: summed letter a, from cast at models/lib/moe.dsl:83:23,
#         said at tests/pass/shard/explain-dev.dsl:7:16
# in m/moe/gate/aux/sum_rows
#   %s                                       f32[8; sum @dev]                                   32 B
#     each has f32[8]
#     @dev sum: summed letter a, from %dense, said at tests/pass/shard/explain-dev.dsl:7:16
#   %s                                       f32[8; sum @dev]                                   32 B
#     each has f32[8]
#     @dev sum: summed letter a, from %load, said at tests/pass/shard/explain-dev.dsl:7:16
# in m/moe
#   %rows                                    f32[8, r<=64 @dev, 8]                             512 B
#     each has f32[8, r<=16, 8]
#     @dev dim 1: batch letter s, from %e (384 B; beat letter n: 0 B),
#         said at tests/pass/shard/explain-dev.dsl:7:16
# in m/moe/experts
#   %h                                       f32[8 @dev, r<=64, 16]                          1.0 KiB
#     each has f32[2, r<=16, 16]
#     @dev dim 0: batch letter n, from %w1, said at models/lib/moe.dsl:56:3
# in m/moe/experts/a/relu
#   %a                                       f32[8 @dev, r<=64, 16]                          1.0 KiB
#     each has f32[2, r<=16, 16]
#     @dev dim 0: alike, from lt at models/lib/nn.dsl:7:37, said at models/lib/moe.dsl:56:3
# in m/moe/experts
#   %y                                       f32[8 @dev, r<=64, 8]                             512 B
#     each has f32[2, r<=16, 8]
#     @dev dim 0: batch letter n, from %a, said at models/lib/moe.dsl:56:3
# in m/moe
#   %m                                       f32[8 @dev, 4, 8]                                 256 B
#     each has f32[2, 4, 8]
#     @dev dim 0: batch letter s, from %ids (384 B; beat letter n: 1.5 KiB),
#         said at tests/pass/shard/explain-dev.dsl:7:16
# in loss/linear
#   %y                                       f32[8 @dev, 4, 16]                                512 B
#     each has f32[2, 4, 16]
#     @dev dim 0: kept letter a, from add at tests/pass/shard/explain-dev.dsl:11:37,
#         said at tests/pass/shard/explain-dev.dsl:7:16
# in loss/cross_entropy/cross_entropy_each
#   %shifted                                 f32[8 @dev, 4, 16]                                512 B
#     each has f32[2, 4, 16]
#     @dev dim 0: alike, from add at models/lib/nn.dsl:65:10,
#         said at tests/pass/shard/explain-dev.dsl:7:16
#   %log_sum                                 f32[8 @dev, 4]                                     32 B
#     each has f32[2, 4]
#     @dev dim 0: alike, from reduce_sum at models/lib/nn.dsl:106:21,
#         said at tests/pass/shard/explain-dev.dsl:7:16
#   %hit                                     bool[8 @dev, 4, 16]                               128 B
#     each has bool[2, 4, 16]
#     @dev dim 0: alike, for select at models/lib/nn.dsl:108:17,
#         said at tests/pass/shard/explain-dev.dsl:7:16
#   %own                                     f32[8 @dev, 4]                                     32 B
#     each has f32[2, 4]
#     @dev dim 0: kept letter a, from select at models/lib/nn.dsl:108:17,
#         said at tests/pass/shard/explain-dev.dsl:7:16
# <<<
