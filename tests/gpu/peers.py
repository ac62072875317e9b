"""The layers of tests/gpu/*.dsl in PyTorch, forward and backward, as fast as its
public interface makes them, and whole steps of lm_moe by lm_torch.py: the other
side of tests/gpu/speed.sh.

    peers.py moe --tokens T --width D --hidden H --experts E --k K --routing R
    peers.py lstm --batch B --tokens T --width D
    peers.py attention --batch B --heads H --tokens T --width E --causal 0|1
    peers.py lm --experts E --k K --width D --hidden H --batch B --tokens T

Prints a line of JSON for each variant, {"who": ..., "ms": ...} or {"who": ...,
"error": ...}, the most telling ones first, as whoever asks may run out of time.
`ms` is the median of the times of a step.

Weights are bf16. What "+update" is in the name of does what moec's step does,
too: gradient descent on f32 weights, of which the layer's are copies.
"""
import argparse
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RATE = 1e-6


def wait():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def tell(who, **what):
    print(json.dumps({"who": "PyTorch " + who, **what}), flush=True)


def timed(who, step, a):
    """Some steps to warm up, then the median of some more."""
    try:
        for _ in range(a.warm_up):
            step()
        times = []
        for _ in range(a.steps):
            wait()
            start = time.perf_counter()
            step()
            wait()
            times.append(1e3 * (time.perf_counter() - start))
        tell(who, ms=statistics.median(times))
    except Exception as e:  # what a version or a card lacks is told, not fatal
        tell(who, error=f"{type(e).__name__}: {e}".split("\n")[0][:200])
    if DEVICE == "cuda":
        torch.cuda.empty_cache()


def draw(*shape, scale=1.0):
    return (torch.randn(*shape) * scale).to(torch.bfloat16).requires_grad_()


def forget(tensors):
    for t in tensors:
        t.grad = None


# ---- a mixture of experts ---------------------------------------------------------

def multiply_grouped(rows, counts, gate, up, down):
    ends = counts.cumsum(0).to(torch.int32)
    mm = getattr(F, "grouped_mm", None) or torch._grouped_mm
    h = F.silu(mm(rows, gate, offs=ends)) * mm(rows, up, offs=ends)
    return mm(h, down, offs=ends)


def multiply_each(rows, counts, gate, up, down):
    parts = rows.split(counts.tolist())
    return torch.cat([(F.silu(x @ g) * (x @ u)) @ d for x, g, u, d in
                      zip(parts, gate.unbind(), up.unbind(), down.unbind())])


class Moe:
    def __init__(self, a):
        e, d, h = a.experts, a.width, a.hidden
        self.a, self.k = a, a.k
        self.x = draw(a.tokens, d)
        self.back = draw(a.tokens, d).detach()
        self.router = draw(d, e, scale=d ** -0.5)
        self.experts = [draw(e, d, h, scale=0.02), draw(e, d, h, scale=0.02),
                        draw(e, h, d, scale=0.02)]
        self.weights = [self.router] + self.experts
        self.masters = None
        self.ids = self.chosen()

    def chosen(self):
        """Of no router, where it is said who is chosen."""
        a = self.a
        if a.routing == "one":
            return torch.zeros(a.tokens, a.k, dtype=torch.int64)
        if a.routing == "zipf":
            chance = torch.arange(1, a.experts + 1).float() ** -1.2
            flat = torch.multinomial(chance, a.tokens * a.k, replacement=True)
            return flat.view(a.tokens, a.k)
        return None

    def forward(self, multiply):
        p = torch.softmax((self.x @ self.router).float(), dim=1)
        best, ids = p.topk(self.k, dim=1)
        if self.ids is not None:
            ids = self.ids
            best = p.gather(1, ids)
        order = ids.flatten().argsort(stable=True)
        counts = torch.bincount(ids.flatten(), minlength=self.a.experts)
        y = multiply(self.x[order // self.k], counts, *self.experts)
        y = y * best.flatten()[order].unsqueeze(1).to(y.dtype)
        return torch.zeros_like(self.x).index_add(0, order // self.k, y)

    def step(self, multiply, update=False):
        forget(self.weights + [self.x])
        self.forward_by(multiply).backward(self.back)
        if not update:
            return
        if self.masters is None:
            self.masters = [w.detach().float() for w in self.weights]
        with torch.no_grad():
            for master, w in zip(self.masters, self.weights):
                master.add_(w.grad, alpha=-RATE)
                w.copy_(master)

    forward_by = forward


def moe(a):
    m = Moe(a)
    timed("grouped", lambda: m.step(multiply_grouped), a)
    timed("grouped+update", lambda: m.step(multiply_grouped, True), a)
    m.masters = None
    m.forward_by = torch.compile(m.forward, dynamic=False)
    timed("compiled grouped", lambda: m.step(multiply_grouped), a)
    m.forward_by = m.forward
    timed("eager, each expert", lambda: m.step(multiply_each), a)


# ---- recurrence, attention ----------------------------------------------------------

def lstm(a):
    for dtype, name in ((torch.bfloat16, "bf16"), (torch.float16, "f16")):
        layer = torch.nn.LSTM(a.width, a.width, batch_first=True).to(dtype)
        x = draw(a.batch, a.tokens, a.width).detach().to(dtype)
        x.requires_grad_()
        back = torch.randn_like(x)

        def step():
            forget(list(layer.parameters()) + [x])
            layer(x)[0].backward(back)

        timed(("cuDNN " if DEVICE == "cuda" else "LSTM ") + name, step, a)


def backends():
    """None is PyTorch's own choice."""
    if DEVICE == "cpu":
        return [(None, "SDPA")]
    from torch.nn.attention import SDPBackend as B
    return [(None, "SDPA"), (B.FLASH_ATTENTION, "SDPA flash"),
            (B.CUDNN_ATTENTION, "SDPA cuDNN")]


def attention(a):
    q, k, v = (draw(a.batch, a.heads, a.tokens, a.width) for _ in range(3))
    back = torch.randn_like(q)

    def step():
        forget((q, k, v))
        F.scaled_dot_product_attention(
            q, k, v, is_causal=a.causal > 0).backward(back)

    for backend, name in backends():
        if backend is None:
            timed(name, step, a)
            continue
        from torch.nn.attention import sdpa_kernel
        with sdpa_kernel([backend]):
            timed(name, step, a)


# ---- a language model, its update included ------------------------------------------

def lm(a):
    import lm_torch
    a.model, a.time, a.layers, a.dropout = "moe", a.tokens, 2, 0.1
    for mode, how in (("eager", "grouped"), ("compiled", "grouped"),
                      ("eager", "batched"), ("eager", "separate")):
        try:
            t = lm_torch.Trainer(a, mode == "compiled", how, torch.bfloat16)
        except Exception as e:
            tell(f"{mode} {how}", error=f"{type(e).__name__}: {e}"[:200])
            continue
        timed(f"{mode} {how}", t.step, a)
        del t


def main():
    p = argparse.ArgumentParser()
    p.add_argument("part", choices=("moe", "lstm", "attention", "lm"))
    for name, value in (("tokens", 32768), ("width", 4096), ("hidden", 1024),
                        ("experts", 64), ("k", 4), ("batch", 16),
                        ("heads", 16), ("causal", 1), ("vocabulary", 10000), ("steps", 10),
                        ("warm-up", 3)):
        p.add_argument("--" + name, type=int, default=value)
    p.add_argument("--routing", choices=("router", "zipf", "one"),
                   default="router")
    a = p.parse_args()
    torch.manual_seed(1)
    torch.set_default_device(DEVICE)
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "the CPU"
    print(f"PyTorch {torch.__version__} on {name}", file=sys.stderr)
    {"moe": moe, "lstm": lstm, "attention": attention, "lm": lm}[a.part](a)


main()
