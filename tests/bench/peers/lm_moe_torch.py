"""The model of models/lm_moe.dsl in PyTorch, written from the paper's formulas
(Shazeer et al. 2017: Eq. 1 to 11, Appendix A and C.1), nothing shared with moec:
the other side of tests/bench/agree.sh.

Dropout is 0 and the gate's noise sample is 0 with its standard deviation kept,
so that both engines compute the same function.

    lm_moe_torch.py weights FILE ...    writes the weights that both start from
    lm_moe_torch.py compare ...         gradients and losses against moerun's
"""
import argparse
import json
import math
import struct
import sys

import torch

# A ReLU's input this near 0 may have either sign in two engines that sum in another
# order; with 8 million of them in a step, one or two do.
KINK = 1e-6

DTYPES = {"F32": torch.float32, "F64": torch.float64, "I32": torch.int32}


def load_safetensors(path):
    with open(path, "rb") as f:
        (n,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(n))
        data = f.read()
    out = {}
    for name, t in header.items():
        if name == "__metadata__" or t["dtype"] not in DTYPES:
            continue
        lo, hi = t["data_offsets"]
        flat = torch.frombuffer(bytearray(data[lo:hi]), dtype=DTYPES[t["dtype"]])
        out[name] = flat.reshape(t["shape"]).clone()
    return out


def save_safetensors(path, tensors):
    header, blobs, at = {}, [], 0
    for name in sorted(tensors):
        blob = tensors[name].contiguous().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensors[name].shape),
                        "data_offsets": [at, at + len(blob)]}
        at += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def cv_squared(v):
    return v.var(unbiased=False) / (v.mean() ** 2 + 1e-10)


class LstmMoe:
    """Parameters by their paths in the checkpoint; state is carried."""

    def __init__(self, params, k, w_importance, w_load):
        self.p = {n: t.requires_grad_() for n, t in params.items()}
        self.k, self.w_importance, self.w_load = k, w_importance, w_load
        self.state = {}
        self.kinks = None  # [n, hidden]: units with an input near 0 in this step

    def lstm(self, name, x):  # x: [b, t, d]
        w, u, bias = (self.p[f"{name}/{s}"] for s in ("w", "u", "bias"))
        units = u.shape[0]
        zeros = torch.zeros(x.shape[0], units, dtype=x.dtype)
        h, c = self.state.get(name, (zeros, zeros))
        out = []
        for t in range(x.shape[1]):
            z = (x[:, t] @ w.reshape(w.shape[0], -1)
                 + h @ u.reshape(units, -1) + bias.reshape(-1))
            i, f, g, o = z.chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            out.append(h)
        self.state[name] = (h.detach(), c.detach())
        return torch.stack(out, dim=1)

    def gate(self, x):  # x: [rows, d] -> gates [rows, n], loss
        w = self.p["lm/moe/gate/w"]
        n, k = w.shape[2], self.k
        clean, std = x @ w[:, 0], torch.nn.functional.softplus(x @ w[:, 1])
        h = clean  # + 0 * std
        kept = torch.zeros_like(h, dtype=torch.bool)
        kept.scatter_(1, h.topk(k, dim=1).indices, True)
        gates = torch.softmax(h.masked_fill(~kept, -math.inf), dim=1)
        if k < n:
            # Row i of `others` is h without component i.
            others = h.unsqueeze(1).expand(-1, n, -1).masked_fill(
                torch.eye(n, dtype=torch.bool), -math.inf)
            threshold = others.topk(k, dim=2).values[:, :, -1]
            load = 0.5 * (1 + torch.erf((clean - threshold) / std
                                        / math.sqrt(2)))
        else:
            load = (gates > 0).to(h.dtype)
        loss = (self.w_importance * cv_squared(gates.sum(0))
                + self.w_load * cv_squared(load.sum(0)))
        return gates, loss

    def moe(self, x):
        rows = x.reshape(-1, x.shape[-1])
        gates, loss = self.gate(rows)
        w1 = self.p["lm/moe/experts/w1"].unbind(0)
        w2 = self.p["lm/moe/experts/w2"].unbind(0)
        y = torch.zeros_like(rows)
        kinks = []
        for i in range(len(w1)):
            at = (gates[:, i] > 0).nonzero().squeeze(1)
            h = rows[at] @ w1[i]
            kinks.append((h.detach().abs() < KINK).any(0))
            out = torch.relu(h) @ w2[i]
            y = y.index_add(0, at, gates[at, i:i + 1] * out)
        self.kinks = torch.stack(kinks)
        return y.reshape(x.shape), loss

    def loss(self, x, y):  # i64[b, t] each -> mean nll, auxiliary loss
        out = self.p["lm/embed/table"][x]
        out = out + self.lstm("lm/lstm1", out)
        m, aux = self.moe(out)
        out = out + torch.sigmoid(m)
        out = out + self.lstm("lm/lstm2", out)
        logits = out @ self.p["lm/softmax/w"] + self.p["lm/softmax/bias"]
        nll = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), y.reshape(-1))
        return nll, aux


class Adam:
    """Kingma and Ba 2015; linear warm-up, then 1 / sqrt(step)."""

    def __init__(self, params, rate, warmup):
        self.params, self.rate, self.warmup, self.t = params, rate, warmup, 0
        self.m = {n: torch.zeros_like(p) for n, p in params.items()}
        self.v = {n: torch.zeros_like(p) for n, p in params.items()}

    @torch.no_grad()
    def step(self, b1=0.9, b2=0.999, eps=1e-8):
        self.t += 1
        t, w = self.t, self.warmup
        rate = self.rate * min(t / w, math.sqrt(w / t))
        for n, p in self.params.items():
            m, v = self.m[n], self.v[n]
            m.mul_(b1).add_(p.grad, alpha=1 - b1)
            v.mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
            p -= rate * (m / (1 - b1 ** t)) / ((v / (1 - b2 ** t)).sqrt() + eps)
            p.grad = None


def batches(path, b, t):
    """The order of moerun: b streams of equal length side by side, t bytes of
    each a batch; the target is the byte after."""
    data = torch.frombuffer(bytearray(open(path, "rb").read()),
                            dtype=torch.uint8).long()
    stream = (len(data) - 1) // b
    for at in range(0, stream - t + 1, t):
        start = torch.arange(b).unsqueeze(1) * stream + at
        x = start + torch.arange(t)
        yield data[x], data[x + 1]


def compare_gradients(model, after, rate):
    """Gradients here against (p - p') / rate after one step there. Columns of w1
    that belong to a unit at its kink are left out."""
    worst = 0.0
    for name, p in sorted(model.p.items()):
        ours = p.grad.double()
        theirs = (p.detach().double() - after[name].double()) / rate
        note = ""
        if name == "lm/moe/experts/w1":
            theirs = torch.where(model.kinks[:, None, :], ours, theirs)
            note = (f"  without {int(model.kinks.sum())} of "
                    f"{model.kinks.numel()} columns")
        error = ((theirs - ours).norm() / ours.norm()).item()
        worst = max(worst, error)
        print(f"  {name:24} norm {ours.norm():.6e}  relative difference "
              f"{error:.2e}{note}")
    return worst


def compare(a):
    params = load_safetensors(a.weights)
    after = load_safetensors(a.after)
    model = LstmMoe(params, a.k, 0.1, 0.1)
    adam = Adam(model.p, a.rate, a.warmup)
    theirs = [json.loads(line)["loss"] for line in open(a.log)][:a.steps]
    print(f"PyTorch {torch.__version__}; gradients of the first step:")
    worst_loss = worst_gradient = 0.0
    for step, (x, y) in zip(range(a.steps), batches(a.data, a.batch, a.time)):
        nll, aux = model.loss(x, y)
        (nll + aux).backward()
        if step == 0:
            worst_gradient = compare_gradients(model, after, a.sgd_rate)
            print("losses, here and there:")
        error = abs(nll.item() - theirs[step]) / nll.item()
        worst_loss = max(worst_loss, error)
        print(f"  step {step + 1:2}  {nll.item():.7f}  {theirs[step]:.7f}  "
              f"relative difference {error:.1e}")
        adam.step()
    ok = worst_gradient <= 1e-4 and worst_loss <= 1e-4
    print(f"{'ok' if ok else 'not ok'} agree: gradients within "
          f"{worst_gradient:.1e}, losses within {worst_loss:.1e}; 1e-4 is allowed")
    return 0 if ok and len(theirs) == a.steps else 1


def write_weights(a):
    """Gate weights from N(0, 0.1), so that no two logits tie; the others of the
    size that models/lib draws them in."""
    g = torch.Generator().manual_seed(1)

    def uniform(*shape, size):
        return size * (2 * torch.rand(shape, generator=g) - 1)

    def normal(*shape, std):
        return std * torch.randn(shape, generator=g)

    d, n, hidden, v = a.width, a.experts, a.hidden, a.vocabulary
    glorot = math.sqrt(6 / (d + hidden))
    w = {"lm/embed/table": normal(v, d, std=d ** -0.5),
         "lm/moe/gate/w": normal(d, 2, n, std=0.1),
         "lm/moe/experts/w1": uniform(n, d, hidden, size=glorot),
         "lm/moe/experts/w2": uniform(n, hidden, d, size=glorot),
         "lm/softmax/w": uniform(d, v, size=math.sqrt(6 / (d + v))),
         "lm/softmax/bias": torch.zeros(v)}
    for name in ("lm/lstm1", "lm/lstm2"):
        w[name + "/w"] = uniform(d, 4, d, size=d ** -0.5)
        w[name + "/u"] = uniform(d, 4, d, size=d ** -0.5)
        w[name + "/bias"] = normal(4, d, std=0.1)
    save_safetensors(a.file, w)
    return 0


def main():
    top = argparse.ArgumentParser()
    sub = top.add_subparsers(required=True)
    p = sub.add_parser("weights")
    p.set_defaults(run=write_weights)
    p.add_argument("file")
    for name in ("width", "experts", "hidden", "vocabulary"):
        p.add_argument("--" + name, type=int, required=True)
    p = sub.add_parser("compare")
    p.set_defaults(run=compare)
    for name in ("weights", "after", "log", "data"):
        p.add_argument("--" + name, required=True)
    for name, value in (("k", 4), ("batch", 64), ("time", 32), ("steps", 20),
                        ("warmup", 1000)):
        p.add_argument("--" + name, type=int, default=value)
    p.add_argument("--rate", type=float, default=1e-3)
    p.add_argument("--sgd-rate", type=float, required=True)
    a = top.parse_args()
    return a.run(a)


if __name__ == "__main__":
    sys.exit(main())
