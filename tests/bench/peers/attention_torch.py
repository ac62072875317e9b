"""PyTorch's scaled_dot_product_attention, forward and backward: prints the
median of some times in milliseconds. See tests/bench/attention.sh."""
import argparse
import statistics
import time

import torch
import torch.nn.functional as F

p = argparse.ArgumentParser()
p.add_argument("--shape", type=int, nargs=4, metavar=("B", "H", "T", "E"))
p.add_argument("--causal", type=int)
p.add_argument("--precision", choices=["f32", "bf16"])
p.add_argument("--threads", type=int)
p.add_argument("--times", type=int, default=4)
a = p.parse_args()
torch.set_num_threads(a.threads)
dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[a.precision]
q, k, v, d = [torch.randn(a.shape).to(dtype) for _ in range(4)]
for x in (q, k, v):
    x.requires_grad_()


def step():
    for x in (q, k, v):
        x.grad = None
    start = time.perf_counter()
    F.scaled_dot_product_attention(q, k, v, is_causal=a.causal > 0).backward(d)
    return 1e3 * (time.perf_counter() - start)


step()
print("%.3f" % statistics.median(step() for _ in range(a.times)))
