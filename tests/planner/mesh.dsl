# test: %s -I models --mesh dev=4,model=2 --plan-only --topology tests/planner/round.topo
# What each of eight devices has, sends and computes.
import "lib/nn.dsl"

entry score(x: i32[8 @dev, 4] from tokens) {
  let e = embed(x, 16, 8)
  report y = sum(ffn(e, 64))
}

# >>> out
# tests/planner/mesh.dsl on 8 devices, dev=4,model=2; tests/planner/round.topo: a device of round numbers
# 1152 parameters and 0 biases, 1024 multiply-adds a token forward;
# without embedding and softmax 1024 and 1024; 32 tokens a step
#
#   memory                                    a device
#   parameters                                 2.2 KiB
#   activations and all else of a step         1.2 KiB
#   inputs and reports                           256 B
#   together                                   3.8 KiB
#   of                                       953.7 MiB   0 %
#
#   exchanges       over                  a step        sent  by                    ms
#   all_reduce      @model                     2       512 B  inner              0.005
#   all_reduce      @dev                       1         6 B  outer              0.060
#   together                                           518 B                     0.065
#
#   computing                                   a step          ms
#   GFLOP of products in f32                 8.192e-06
#   10^9 elementwise operations               6.17e-07
#   GB read and written                      7.564e-06
#   launches bound by products                               0.008
#   launches bound by elementwise work                       0.000
#   launches bound by memory                                 0.003
#   what each launch takes besides                   5       0.005
#   together                                                 0.016
#
#   computing, by layer                          GFLOP          GB          ms
#   ffn                                      8.192e-06   4.608e-06       0.010
#   ffn/a/relu                                       0   2.048e-06       0.003
#   e/embed                                          0    6.48e-07       0.002
#   (no layer)                                       0     2.6e-07       0.001
#
#   a step                                          ms    tokens/s
#   if exchanges overlap with nothing            0.081      396432
#   as the program overlaps them                 0.081      396432
#   if all overlap with all launches             0.065      495571
# <<<
