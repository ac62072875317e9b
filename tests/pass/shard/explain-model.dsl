# test: %s -I models --mesh data=2,model=2 --explain=shard
# Weights in parts, and the vocabulary with them.
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
# 4 devices: data=2 model=2
#
#   memory           a device       in all      share
#   parameters        5.0 KiB      9.6 KiB       53 %
#   inputs              128 B        256 B       50 %
#   together          5.2 KiB      9.8 KiB       53 %
#
#   in train           a step         sent
#   all_reduce             22      8.3 KiB
#   together               22      8.3 KiB
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
# all_reduce @data                              2.0 KiB
#     %d_w1 at models/lib/moe.dsl:64:20 in m/moe/experts
#     f32[8, 8, 16 @model; sum @data]  to  f32[8, 8, 16 @model]
#     for mul at tests/pass/shard/explain-model.dsl:12:3 and 2 more, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @data on dim 0: 1.0 KiB
# all_reduce @data                              2.0 KiB
#     %d_w2 at models/lib/moe.dsl:60:20 in m/moe/experts
#     f32[8, 16 @model, 8; sum @data]  to  f32[8, 16 @model, 8]
#     for mul at tests/pass/shard/explain-model.dsl:12:3 and 2 more, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @data on dim 0: 1.0 KiB
# all_reduce @model                             1.0 KiB
#     %y at models/lib/moe.dsl:60:20 in m/moe/experts
#     f32[8, r<=64 @data, 8; sum @model]  to  f32[8, r<=64 @data, 8]
#     for combine at models/lib/moe.dsl:27:10 and 1 more, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @model on dim 0: 512 B
# all_reduce @model                             1.0 KiB
#     contract (gradient) at models/lib/moe.dsl:64:20 in m/moe/experts
#     f32[8, r<=64 @data, 8; sum @model]  to  f32[8, r<=64 @data, 8]
#     for combine (gradient) at models/lib/moe.dsl:26:14, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @model on dim 0: 512 B
# all_reduce @model                               512 B
#     %e at models/lib/nn.dsl:51:10 in e/embed
#     f32[8 @data, 4, 8; sum @model]  to  f32[8 @data, 4, 8]
#     for contract at models/lib/moe.dsl:93:21 and 3 more, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @model on dim 1: 256 B
# all_reduce @model                               512 B
#     contract (gradient) at models/lib/nn.dsl:64:18 in loss/linear
#     f32[8 @data, 4, 8; sum @model]  to  f32[8 @data, 4, 8]
#     for dispatch (gradient) at models/lib/moe.dsl:27:10 and 2 more, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @model on dim 1: 256 B
# all_reduce @data                                512 B
#     %d_w at models/lib/moe.dsl:93:21 in m/moe/gate
#     f32[8, 2, 8; sum @data]  to  f32[8, 2, 8]
#     for mul at tests/pass/shard/explain-model.dsl:12:3 and 2 more, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @data on dim 0: 256 B
# all_reduce @data                                256 B
#     %d_table at models/lib/nn.dsl:51:10 in e/embed
#     f32[16 @model, 8; sum @data]  to  f32[16 @model, 8]
#     for mul at tests/pass/shard/explain-model.dsl:12:3 and 2 more, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @data on dim 1: 128 B
# all_reduce @data                                256 B
#     %d_w at models/lib/nn.dsl:64:18 in loss/linear
#     f32[8, 16 @model; sum @data]  to  f32[8, 16 @model]
#     for mul at tests/pass/shard/explain-model.dsl:12:3 and 2 more, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @data on dim 0: 128 B
# all_reduce @model                                64 B
#     reduce_max at models/lib/nn.dsl:104:27 in loss/cross_entropy/cross_entropy_each
#     f32[8 @data, 4; max @model]  to  f32[8 @data, 4]
#     for broadcast at models/lib/nn.dsl:105:17, which has @model on letter c: alike
#     other ways: reduce_scatter for a reader split over @model on dim 1: 32 B
# all_reduce @model                                64 B
#     reduce_sum at models/lib/nn.dsl:106:21 in loss/cross_entropy/cross_entropy_each
#     f32[8 @data, 4; sum @model]  to  f32[8 @data, 4]
#     for log at models/lib/nn.dsl:106:17 and 1 more, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @model on dim 1: 32 B
# all_reduce @model                                64 B
#     %own at models/lib/nn.dsl:108:13 in loss/cross_entropy/cross_entropy_each
#     f32[8 @data, 4; sum @model]  to  f32[8 @data, 4]
#     for sub at models/lib/nn.dsl:110:12, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @model on dim 1: 32 B
# all_reduce @data                                 32 B
#     %s at models/lib/moe.dsl:147:14 in m/moe/gate/aux/sum_rows
#     f32[8; sum @data]  to  f32[8]
#     for reduce_sum at models/lib/moe.dsl:153:11 and 1 more, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @data on dim 0: 16 B
# all_reduce @data                                 32 B
#     %s at models/lib/moe.dsl:147:14 in m/moe/gate/rows/sum_rows
#     f32[8; sum @data]  to  f32[8]
#     for reduce_sum at models/lib/moe.dsl:153:11 and 2 more, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @data on dim 0: 16 B
# all_reduce @data                                 32 B
#     %s at models/lib/moe.dsl:147:14 in m/moe/gate/aux/sum_rows
#     f32[8; sum @data]  to  f32[8]
#     for reduce_sum at models/lib/moe.dsl:153:11 and 1 more, which needs the finished sum
#     other ways: reduce_scatter for a reader split over @data on dim 0: 16 B
# all_reduce @data                                 32 B
#     %d_bias at models/lib/nn.dsl:65:10 in loss/linear
#     f32[16 @model; sum @data]  to  f32[16 @model]
#     for mul at tests/pass/shard/explain-model.dsl:12:3 and 2 more, which needs the finished sum
# all_reduce @data                                  4 B
#     reduce_sum at models/lib/nn.dsl:118:10 in loss/cross_entropy
#     f32[; sum @data]  to  f32[]
#     for div at models/lib/nn.dsl:118:10, which needs the finished sum
# all_reduce @model                                 4 B
#     reduce_sum at tests/pass/shard/explain-model.dsl:12:3
#     f32[; sum @model]  to  f32[]
#     for add at tests/pass/shard/explain-model.dsl:12:3, which needs the finished sum
# all_reduce @model                                 4 B
#     reduce_sum at tests/pass/shard/explain-model.dsl:12:3
#     f32[; sum @model]  to  f32[]
#     for add at tests/pass/shard/explain-model.dsl:12:3, which needs the finished sum
# all_reduce @model                                 4 B
#     reduce_sum at tests/pass/shard/explain-model.dsl:12:3
#     f32[; sum @model]  to  f32[]
#     for add at tests/pass/shard/explain-model.dsl:12:3, which needs the finished sum
# all_reduce @model                                 4 B
#     reduce_sum at tests/pass/shard/explain-model.dsl:12:3
#     f32[; sum @model]  to  f32[]
#     for add at tests/pass/shard/explain-model.dsl:12:3, which needs the finished sum
# all_reduce @model                                 4 B
#     reduce_sum at tests/pass/shard/explain-model.dsl:12:3
#     f32[; sum @model]  to  f32[]
#     for add at tests/pass/shard/explain-model.dsl:12:3, which needs the finished sum
#
# Parameters, and bytes a device
# ------------------------------
# e/embed/table                              f32[16 @model, 8]                                 256 B
#     each has f32[8, 8]
#     @model dim 0: said at models/lib/nn.dsl:56:3
# m/moe/gate/w                               f32[8, 2, 8]                                      512 B
# m/moe/experts/w1                           f32[8, 8, 16 @model]                            2.0 KiB
#     each has f32[8, 8, 8]
#     @model dim 2: said at models/lib/moe.dsl:56:3
# m/moe/experts/w2                           f32[8, 16 @model, 8]                            2.0 KiB
#     each has f32[8, 8, 8]
#     @model dim 1: said at models/lib/moe.dsl:57:3
# loss/linear/w                              f32[8, 16 @model]                                 256 B
#     each has f32[8, 8]
#     @model dim 1: said at models/lib/nn.dsl:62:3
# loss/linear/bias                           f32[16 @model]                                     32 B
#     each has f32[8]
#     @model dim 0: said at models/lib/nn.dsl:63:3
#
# Inputs, and bytes a device
# --------------------------
# x                                          i32[8 @data, 4]                                    64 B
#     each has i32[4, 4]
#     @data dim 0: said at tests/pass/shard/explain-model.dsl:7:16
# y                                          i32[8 @data, 4]                                    64 B
#     each has i32[4, 4]
#     @data dim 0: said at tests/pass/shard/explain-model.dsl:8:16
#
# Values of train, and bytes a device
# -----------------------------------
# in e/embed
#   %e                                       f32[8 @data, 4, 8; sum @model]                    512 B
#     each has f32[4, 4, 8]
#     @data dim 0: kept letter a, from %x, said at tests/pass/shard/explain-model.dsl:7:16
#     @model sum: summed letter v, from %table, said at models/lib/nn.dsl:56:3
# in m/moe/gate
#   %z                                       f32[8 @data, 4, 2, 8]                           1.0 KiB
#     each has f32[4, 4, 2, 8]
#     @data dim 0: kept letter a, from %e, said at tests/pass/shard/explain-model.dsl:7:16
#   %clean                                   f32[8 @data, 4, 8]                                512 B
#     each has f32[4, 4, 8]
#     @data dim 0: alike, from slice at models/lib/moe.dsl:99:15,
#         said at tests/pass/shard/explain-model.dsl:7:16
#   %noise                                   f32[8 @data, 4, 8]                                512 B
#     each has f32[4, 4, 8]
#     @data dim 0: alike, for mul at models/lib/moe.dsl:126:19,
#         said at tests/pass/shard/explain-model.dsl:7:16
# in m/moe/gate/noisy_top_k_gates/std/softplus
#   %std                                     f32[8 @data, 4, 8]                                512 B
#     each has f32[4, 4, 8]
#     @data dim 0: alike, from max at models/lib/nn.dsl:5:34,
#         said at tests/pass/shard/explain-model.dsl:7:16
# in m/moe/gate/noisy_top_k_gates
#   %h                                       f32[8 @data, 4, 8]                                512 B
#     each has f32[4, 4, 8]
#     @data dim 0: alike, from %clean, said at tests/pass/shard/explain-model.dsl:7:16
#   %top                                     f32[8 @data, 4, 3]                                192 B
#     each has f32[4, 4, 3]
#     @data dim 0: alike, from %h, said at tests/pass/shard/explain-model.dsl:7:16
#   %all_ids                                 i32[8 @data, 4, 3]                                192 B
#     each has i32[4, 4, 3]
#     @data dim 0: alike, from %h, said at tests/pass/shard/explain-model.dsl:7:16
#   %ids                                     i32[8 @data, 4, 2]                                128 B
#     each has i32[4, 4, 2]
#     @data dim 0: alike, from %all_ids, said at tests/pass/shard/explain-model.dsl:7:16
# in m/moe/gate/noisy_top_k_gates/gates/softmax
#   %e                                       f32[8 @data, 4, 2]                                128 B
#     each has f32[4, 4, 2]
#     @data dim 0: alike, from sub at models/lib/nn.dsl:30:15,
#         said at tests/pass/shard/explain-model.dsl:7:16
#   %gates                                   f32[8 @data, 4, 2]                                128 B
#     each has f32[4, 4, 2]
#     @data dim 0: alike, from %e, said at tests/pass/shard/explain-model.dsl:7:16
# in m/moe/gate/noisy_top_k_gates
#   %dense                                   f32[8 @data, 4, 8]                                512 B
#     each has f32[4, 4, 8]
#     @data dim 0: alike, from %gates, said at tests/pass/shard/explain-model.dsl:7:16
#   %inside                                  bool[8 @data, 4, 8]                               128 B
#     each has bool[4, 4, 8]
#     @data dim 0: alike, from %h, said at tests/pass/shard/explain-model.dsl:7:16
#   %threshold                               f32[8 @data, 4, 8]                                512 B
#     each has f32[4, 4, 8]
#     @data dim 0: alike, from %inside, said at tests/pass/shard/explain-model.dsl:7:16
# in m/moe/gate/noisy_top_k_gates/load/normal_cdf
#   %load                                    f32[8 @data, 4, 8]                                512 B
#     each has f32[4, 4, 8]
#     @data dim 0: alike, from add at models/lib/moe.dsl:143:43,
#         said at tests/pass/shard/explain-model.dsl:7:16
# in m/moe/gate/rows/sum_rows
#   %s                                       f32[8; sum @data]                                  32 B
#     each has f32[8]
#     @data sum: summed letter a, from cast at models/lib/moe.dsl:83:23,
#         said at tests/pass/shard/explain-model.dsl:7:16
# in m/moe/gate/aux/sum_rows
#   %s                                       f32[8; sum @data]                                  32 B
#     each has f32[8]
#     @data sum: summed letter a, from %dense, said at tests/pass/shard/explain-model.dsl:7:16
#   %s                                       f32[8; sum @data]                                  32 B
#     each has f32[8]
#     @data sum: summed letter a, from %load, said at tests/pass/shard/explain-model.dsl:7:16
# in m/moe
#   %rows                                    f32[8, r<=64 @data, 8]                          1.0 KiB
#     each has f32[8, r<=32, 8]
#     @data dim 1: batch letter s, from %e, said at tests/pass/shard/explain-model.dsl:7:16
# in m/moe/experts
#   %h                                       f32[8, r<=64 @data, 16 @model]                  1.0 KiB
#     each has f32[8, r<=32, 8]
#     @data dim 1: kept letter r, from %rows, said at tests/pass/shard/explain-model.dsl:7:16
#     @model dim 2: kept letter h, from %w1, said at models/lib/moe.dsl:56:3
# in m/moe/experts/a/relu
#   %a                                       f32[8, r<=64 @data, 16 @model]                  1.0 KiB
#     each has f32[8, r<=32, 8]
#     @data dim 1: alike, from lt at models/lib/nn.dsl:7:37,
#         said at tests/pass/shard/explain-model.dsl:7:16
#     @model dim 2: alike, from lt at models/lib/nn.dsl:7:37, said at models/lib/moe.dsl:56:3
# in m/moe/experts
#   %y                                       f32[8, r<=64 @data, 8; sum @model]              1.0 KiB
#     each has f32[8, r<=32, 8]
#     @data dim 1: kept letter r, from %a, said at tests/pass/shard/explain-model.dsl:7:16
#     @model sum: summed letter h, from %a, said at models/lib/moe.dsl:56:3
# in m/moe
#   %m                                       f32[8 @data, 4, 8]                                512 B
#     each has f32[4, 4, 8]
#     @data dim 0: batch letter s, from %y, said at tests/pass/shard/explain-model.dsl:7:16
# in loss/linear
#   %y                                       f32[8 @data, 4, 16 @model]                        512 B
#     each has f32[4, 4, 8]
#     @data dim 0: kept letter a, from add at tests/pass/shard/explain-model.dsl:11:37,
#         said at tests/pass/shard/explain-model.dsl:7:16
#     @model dim 2: kept letter o, from %w, said at models/lib/nn.dsl:62:3
# in loss/cross_entropy/cross_entropy_each
#   %shifted                                 f32[8 @data, 4, 16 @model]                        512 B
#     each has f32[4, 4, 8]
#     @data dim 0: alike, from add at models/lib/nn.dsl:65:10,
#         said at tests/pass/shard/explain-model.dsl:7:16
#     @model dim 2: alike, from add at models/lib/nn.dsl:65:10, said at models/lib/nn.dsl:62:3
#   %log_sum                                 f32[8 @data, 4]                                    64 B
#     each has f32[4, 4]
#     @data dim 0: alike, from reduce_sum at models/lib/nn.dsl:106:21,
#         said at tests/pass/shard/explain-model.dsl:7:16
#   %hit                                     bool[8 @data, 4, 16 @model]                       128 B
#     each has bool[4, 4, 8]
#     @data dim 0: alike, for select at models/lib/nn.dsl:108:17,
#         said at tests/pass/shard/explain-model.dsl:7:16
#     @model dim 2: alike, for select at models/lib/nn.dsl:108:17, said at models/lib/nn.dsl:62:3
#   %own                                     f32[8 @data, 4; sum @model]                        64 B
#     each has f32[4, 4]
#     @data dim 0: kept letter a, from select at models/lib/nn.dsl:108:17,
#         said at tests/pass/shard/explain-model.dsl:7:16
#     @model sum: summed letter c, from select at models/lib/nn.dsl:108:17,
#         said at models/lib/nn.dsl:62:3
# <<<
