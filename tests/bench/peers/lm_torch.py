"""The models of tests/bench/cpu.sh in PyTorch, as fast as its public interface
makes them: lm_moe, lm_4lstm and lm_wide of models/, trained on random bytes, on
PyTorch's default device (tests/gpu/peers.py sets another one).

Reads requests from standard input, one a line, and answers each with one JSON
object a line:

    list            {"engine": "...", "variants": ["eager-separate-f32", ...]}
    NAME STEPS      {"seconds": [one a step], "loss": of the last}, or
                    {"error": "..."}; NAME is one of the variants

A variant is: eager or compiled (torch.compile on all between the LSTMs and the
experts' loop, which do not compile well), how experts multiply, and a dtype.
  separate   a tensor an expert, a product each on its rows
  batched    one tensor, rows padded to those of the fullest expert, bmm
  grouped    one tensor, torch.nn.functional.grouped_mm
bf16 is autocast, with the gate and the losses in f32. Nothing is dropped.
"""
import argparse
import ctypes
import gc
import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

from lm_moe_torch import cv_squared

WARM_UP = 2


class Routing:
    """Rows of the chosen experts, sorted by expert."""

    def __init__(self, ids, n):
        self.k = ids.shape[1]
        self.order = ids.flatten().argsort(stable=True)
        self.back = torch.empty_like(self.order)
        self.back[self.order] = torch.arange(len(self.order))
        self.counts = torch.bincount(ids.flatten(), minlength=n)
        self.source = self.order // self.k


class Dispatch(torch.autograd.Function):
    """Row i of the result is x[source[i]]; back, each token sums its k rows."""

    @staticmethod
    def forward(ctx, x, source, back, k):
        ctx.save_for_backward(back)
        ctx.k = k
        return x[source]

    @staticmethod
    def backward(ctx, g):
        (back,) = ctx.saved_tensors
        return g[back].view(-1, ctx.k, g.shape[1]).sum(1), None, None, None


class Permute(torch.autograd.Function):
    """The rows in another order; back by the order's inverse."""

    @staticmethod
    def forward(ctx, x, order, back):
        ctx.save_for_backward(back)
        return x[order]

    @staticmethod
    def backward(ctx, g):
        (back,) = ctx.saved_tensors
        return g[back], None, None


@torch.compiler.disable
def dispatch(x, r):
    return Dispatch.apply(x, r.source, r.back, r.k)


@torch.compiler.disable
def undo(y, r):
    return Permute.apply(y, r.back, r.order)


class Experts(nn.Module):
    def __init__(self, how, n, d, h):
        super().__init__()
        self.how, self.n = how, n
        shapes = ((n, d, h), (n, h, d))
        w = [torch.empty(s).uniform_(-1, 1).mul_(math.sqrt(6 / (d + h)))
             for s in shapes]
        if how == "separate":
            self.w1, self.w2 = (nn.ParameterList([p.clone() for p in x])
                                for x in w)
        else:
            self.w1, self.w2 = (nn.Parameter(x) for x in w)

    def separate(self, x, r):
        parts = x.split(r.counts.tolist())
        return torch.cat([torch.relu(p @ a) @ b
                          for p, a, b in zip(parts, self.w1, self.w2)])

    def grouped(self, x, r):
        offs = r.counts.cumsum(0).to(torch.int32)
        h = F.grouped_mm(x, self.w1.to(x.dtype), offs=offs)
        return F.grouped_mm(torch.relu(h), self.w2.to(x.dtype), offs=offs)

    def batched(self, x, r):
        size = int(r.counts.max())
        start = r.counts.cumsum(0) - r.counts
        expert = torch.repeat_interleave(r.counts)
        at = expert * size + torch.arange(len(x)) - start[expert]
        padded = x.new_zeros(self.n * size, x.shape[1])
        padded = padded.index_copy(0, at, x).view(self.n, size, -1)
        y = torch.bmm(torch.relu(torch.bmm(padded, self.w1)), self.w2)
        return y.view(self.n * size, -1)[at]

    @torch.compiler.disable
    def forward(self, x, r):
        return getattr(self, self.how)(x, r)


class Moe(nn.Module):
    def __init__(self, a, how):
        super().__init__()
        self.k, self.n = a.k, a.experts
        self.gate_w = nn.Parameter(torch.zeros(a.width, 2 * a.experts))
        self.experts = Experts(how, a.experts, a.width, a.hidden)

    def gate(self, x):
        with torch.autocast(x.device.type, enabled=False):
            clean, raw = (x @ self.gate_w).chunk(2, dim=1)
            std = F.softplus(raw)
            h = clean + torch.randn_like(clean) * std
            top, ids = h.topk(self.k + 1, dim=1)
            gates = torch.softmax(top[:, :self.k], dim=1)
            dense = torch.zeros_like(h).scatter(1, ids[:, :self.k], gates)
            edge = torch.where(h > top[:, self.k:], top[:, self.k:],
                               top[:, self.k - 1:self.k])
            load = 0.5 * (1 + torch.erf((clean - edge) / std / math.sqrt(2)))
            aux = (0.1 * cv_squared(dense.sum(0))
                   + 0.1 * cv_squared(load.sum(0)))
        return gates, ids[:, :self.k], aux

    def forward(self, x, dtype):
        rows = x.view(-1, x.shape[-1])
        gates, ids, aux = self.gate(rows)
        r = Routing(ids, self.n)
        y = undo(self.experts(dispatch(rows.to(dtype), r), r), r)
        y = y.view(len(rows), self.k, -1) * gates.unsqueeze(2)
        return y.sum(1).view(x.shape), aux


class Wide(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.w1 = nn.Linear(a.width, a.hidden, bias=False)
        self.w2 = nn.Linear(a.hidden, a.width, bias=False)

    def forward(self, x, dtype):
        return self.w2(torch.relu(self.w1(x))).float(), x.new_zeros(())


class Lm(nn.Module):
    """Rows are time-major: [t, b, d]. State is carried."""

    def __init__(self, a, how):
        super().__init__()
        self.embed = nn.Embedding(a.vocabulary, a.width)
        layers = a.layers if a.model == "lstm" else 2
        self.lstms = nn.ModuleList(
            nn.LSTM(a.width, a.width) for _ in range(layers))
        self.middle = {"moe": lambda: Moe(a, how), "wide": lambda: Wide(a),
                       "lstm": lambda: None}[a.model]()
        self.softmax = nn.Linear(a.width, a.vocabulary)
        self.states = [None] * layers
        self.drop = a.dropout

    @torch.compiler.disable
    def lstm(self, i, x):
        y, state = self.lstms[i](x, self.states[i])
        self.states[i] = tuple(s.detach() for s in state)
        return y

    def dropout(self, x):
        return F.dropout(x.float(), self.drop)

    def forward(self, x, y, dtype):
        h, aux = self.dropout(self.embed(x)), 0.0
        for i in range(len(self.lstms)):
            if i == 1 and self.middle:
                m, aux = self.middle(h, dtype)
                h = h + self.dropout(torch.sigmoid(m))
            h = h + self.dropout(self.lstm(i, h))
        logits = self.softmax(h).view(-1, self.softmax.out_features)
        nll = F.cross_entropy(logits.float(), y.view(-1))
        return nll + aux, nll


class Trainer:
    """Adam, linear warm-up, then 1 / sqrt(step); the update only where the
    gradient's norm is finite."""

    def __init__(self, a, compiled, how, dtype):
        self.a, self.dtype = a, dtype
        self.model = Lm(a, how)
        self.forward = (torch.compile(self.model, dynamic=False) if compiled
                        else self.model)
        self.adam = torch.optim.Adam(self.model.parameters(), lr=1e-3,
                                     fused=True)
        self.t = 0

    def step(self):
        a = self.a
        self.t += 1
        for group in self.adam.param_groups:
            group["lr"] = 1e-3 * min(self.t / 1000, math.sqrt(1000 / self.t))
        tokens = torch.randint(256, (a.time + 1, a.batch))
        with torch.autocast(tokens.device.type, torch.bfloat16,
                            enabled=self.dtype is torch.bfloat16):
            loss, nll = self.forward(tokens[:-1], tokens[1:], self.dtype)
        loss.backward()
        norm = torch.nn.utils.get_total_norm(
            [p.grad for p in self.model.parameters()])
        self.loss = nll.item()
        if math.isfinite(norm.item()) and math.isfinite(self.loss):
            self.adam.step()
        self.adam.zero_grad(set_to_none=True)


def variants(a):
    hows = ("separate", "batched", "grouped") if a.model == "moe" else ("-",)
    return [(mode, how, dtype) for dtype in ("f32", "bf16")
            for mode in ("eager", "compiled") for how in hows]


def label(variant):
    return "-".join(word for word in variant if word != "-")


def measure(a, variant, steps):
    mode, how, dtype = variant
    trainer = Trainer(a, mode == "compiled", how,
                      {"f32": torch.float32, "bf16": torch.bfloat16}[dtype])
    seconds = []
    for i in range(WARM_UP + steps):
        start = time.perf_counter()
        trainer.step()
        if i >= WARM_UP:
            seconds.append(time.perf_counter() - start)
    loss = trainer.loss
    del trainer
    gc.collect()
    try:  # freed memory back to the system: other engines want it
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:
        pass
    return {"seconds": seconds, "loss": loss}


def answer(a, request):
    known = {label(v): v for v in variants(a)}
    if request == "list":
        return {"engine": f"PyTorch {torch.__version__}",
                "variants": list(known)}
    name, steps = request.split()
    try:
        return measure(a, known[name], int(steps))
    except Exception as e:  # what a version lacks is told, not fatal
        return {"error": f"{type(e).__name__}: {e}".split("\n")[0][:200]}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model", choices=("moe", "lstm", "wide"), required=True)
    for name, value in (("vocabulary", 10000), ("width", 512), ("hidden", 1024),
                        ("experts", 32), ("k", 4), ("time", 32), ("batch", 64),
                        ("layers", 4), ("threads", 0)):
        p.add_argument("--" + name, type=int, default=value)
    p.add_argument("--dropout", type=float, default=0.1)
    a = p.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    for line in sys.stdin:
        print(json.dumps(answer(a, line.strip())), flush=True)


if __name__ == "__main__":
    main()
