"""The models of tests/bench/cpu.sh in JAX, as fast as its public interface makes
them: the same models, requests and answers as in lm_torch.py.

A step is one jitted function that owns its parameters (donated). Experts
multiply in one batched product, their rows padded to a capacity that none of
them exceeds: the smallest of a few sizes that fits (lax.switch). Where none does,
lax.ragged_dot, which on CPUs multiplies every row with every expert. bf16:
operands of products in bf16, sums in f32; gate and losses in f32.
"""
import argparse
import functools
import json
import math
import os
import sys
import time

WARM_UP = 2
CAPACITIES = (1.125, 1.5, 2.5)  # times the mean


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--model", choices=("moe", "lstm", "wide"), required=True)
    for name, value in (("vocabulary", 10000), ("width", 512), ("hidden", 1024),
                        ("experts", 32), ("k", 4), ("time", 32), ("batch", 64),
                        ("layers", 4), ("threads", 0)):
        p.add_argument("--" + name, type=int, default=value)
    p.add_argument("--dropout", type=float, default=0.1)
    a = p.parse_args()
    if a.threads:  # XLA takes as many threads as it may use cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:a.threads])
    return a


A = arguments()

import jax  # noqa: E402: after the affinity is set
import jax.numpy as jnp  # noqa: E402

jax.config.update("jax_default_prng_impl", "unsafe_rbg")  # the fastest


def product(x, w, dtype):
    return jnp.matmul(x.astype(dtype), w.astype(dtype),
                      preferred_element_type=jnp.float32)


def cv_squared(v):
    return jnp.var(v) / (jnp.mean(v) ** 2 + 1e-10)


def dropout(x, key):
    keep = jax.random.bernoulli(key, 1 - A.dropout, x.shape)
    return jnp.where(keep, x / (1 - A.dropout), 0.0)


def lstm(p, state, x, dtype):  # x: [t, b, d]
    z = product(x, p["w"], dtype) + p["bias"]
    u = p["u"].astype(dtype)

    def cell(carry, zt):
        h, c = carry
        i, f, g, o = jnp.split(zt + product(h, u, dtype), 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    state, y = jax.lax.scan(cell, state, z)
    return jax.lax.stop_gradient(state), y


def gate(w, x, key):
    clean, raw = jnp.split(x @ w, 2, axis=1)
    std = jax.nn.softplus(raw)
    h = clean + jax.random.normal(key, clean.shape) * std
    top, ids = jax.lax.top_k(h, A.k + 1)
    gates, ids = jax.nn.softmax(top[:, :A.k]), ids[:, :A.k]
    dense = jnp.zeros_like(h).at[jnp.arange(len(h))[:, None], ids].set(gates)
    edge = jnp.where(h > top[:, A.k:], top[:, A.k:], top[:, A.k - 1:A.k])
    load = jax.scipy.stats.norm.cdf((clean - edge) / std)
    aux = 0.1 * cv_squared(dense.sum(0)) + 0.1 * cv_squared(load.sum(0))
    return gates, ids, aux


def ragged(p, x, counts, dtype):
    def multiply(x, w):
        return jax.lax.ragged_dot(x.astype(dtype), w.astype(dtype), counts,
                                  preferred_element_type=jnp.float32)
    return multiply(jax.nn.relu(multiply(x, p["w1"])), p["w2"])


def padded(size, p, x, counts, dtype):
    start = jnp.cumsum(counts) - counts
    expert = jnp.repeat(jnp.arange(A.experts), counts,
                        total_repeat_length=len(x))
    at = expert * size + jnp.arange(len(x)) - start[expert]
    rows = jnp.zeros((A.experts * size, x.shape[1]), dtype)
    rows = rows.at[at].set(x.astype(dtype), unique_indices=True)
    h = jax.nn.relu(product(rows.reshape(A.experts, size, -1), p["w1"], dtype))
    y = product(h, p["w2"], dtype)
    return y.reshape(A.experts * size, -1)[at]


def batched(p, x, counts, dtype):
    mean = len(x) / A.experts
    sizes = [math.ceil(mean * c / 16) * 16 for c in CAPACITIES]
    ways = [functools.partial(padded, size) for size in sizes] + [ragged]
    which = jnp.sum(jnp.max(counts) > jnp.array(sizes))
    return jax.lax.switch(which, [lambda p, x, c, w=w: w(p, x, c, dtype)
                                  for w in ways], p, x, counts)


def moe(p, x, key, dtype):
    rows = x.reshape(-1, x.shape[-1])
    gates, ids, aux = gate(p["gate"], rows, key)
    flat = ids.reshape(-1)
    order = jnp.argsort(flat)
    counts = jnp.bincount(flat, length=A.experts).astype(jnp.int32)
    y = batched(p, rows[order // A.k], counts, dtype)
    back = jnp.zeros_like(order).at[order].set(
        jnp.arange(len(order), dtype=order.dtype), unique_indices=True)
    y = y[back].reshape(len(rows), A.k, -1)
    return jnp.sum(y * gates[:, :, None], 1).reshape(x.shape), aux


def forward(p, states, x, y, key, dtype):
    keys = iter(jax.random.split(key, 16))
    h, aux = dropout(p["embed"][x], next(keys)), 0.0
    after = []
    for i, (layer, state) in enumerate(zip(p["lstm"], states)):
        if i == 1 and A.model != "lstm":
            if A.model == "moe":
                m, aux = moe(p["moe"], h, next(keys), dtype)
            else:
                m = product(jax.nn.relu(product(h, p["w1"], dtype)), p["w2"],
                            dtype)
            h = h + dropout(jax.nn.sigmoid(m), next(keys))
        state, out = lstm(layer, state, h, dtype)
        after.append(state)
        h = h + dropout(out, next(keys))
    logits = product(h, p["softmax"], dtype) + p["bias"]
    top = jax.nn.logsumexp(logits, axis=-1)
    nll = jnp.mean(top - jnp.take_along_axis(logits, y[..., None], -1)[..., 0])
    return nll + aux, (nll, after)


def adam(p, m, v, g, t, ok):
    """Linear warm-up, then 1 / sqrt(step); the old values where not ok."""
    rate = 1e-3 * jnp.minimum(t / 1000, jnp.sqrt(1000 / t))
    m1, v1 = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    p1 = p - rate * (m1 / (1 - 0.9 ** t)) / (jnp.sqrt(v1 / (1 - 0.999 ** t))
                                             + 1e-8)
    return tuple(jnp.where(ok, a, b) for a, b in ((p1, p), (m1, m), (v1, v)))


def train(dtype):
    @functools.partial(jax.jit, donate_argnums=(0, 1, 2, 3))
    def step(p, m, v, states, x, y, t, key):
        (_, (nll, states)), g = jax.value_and_grad(forward, has_aux=True)(
            p, states, x, y, key, dtype)
        norm = jnp.sqrt(sum(jnp.sum(a * a) for a in jax.tree.leaves(g)))
        ok = jnp.isfinite(norm) & jnp.isfinite(nll)
        new = jax.tree.map(lambda *a: adam(*a, t, ok), p, m, v, g)
        p, m, v = jax.tree.transpose(jax.tree.structure(p),
                                     jax.tree.structure((0, 0, 0)), new)
        return p, m, v, states, nll, norm
    return step


def parameters():
    d, v, keys = A.width, A.vocabulary, iter(jax.random.split(
        jax.random.key(1), 64))

    def uniform(*shape):
        return jax.random.uniform(next(keys), shape, minval=-1) * d ** -0.5

    layers = A.layers if A.model == "lstm" else 2
    p = {"embed": uniform(v, d), "softmax": uniform(d, v), "bias": jnp.zeros(v),
         "lstm": [{"w": uniform(d, 4 * d), "u": uniform(d, 4 * d),
                   "bias": uniform(4 * d)} for _ in range(layers)]}
    if A.model == "moe":
        p["moe"] = {"gate": jnp.zeros((d, 2 * A.experts)),
                    "w1": uniform(A.experts, d, A.hidden),
                    "w2": uniform(A.experts, A.hidden, d)}
    elif A.model == "wide":
        p["w1"], p["w2"] = uniform(d, A.hidden), uniform(A.hidden, d)
    return p


VARIANTS = {"jit-f32": jnp.float32, "jit-bf16": jnp.bfloat16}
STEPS = {}  # compiled, by variant


def measure(name, steps):
    if name not in STEPS:
        STEPS[name] = train(VARIANTS[name])
    p = parameters()
    m, v = (jax.tree.map(jnp.zeros_like, p) for _ in range(2))
    states = [(jnp.zeros((A.batch, A.width)), jnp.zeros((A.batch, A.width)))
              for _ in p["lstm"]]
    seconds = []
    for i in range(WARM_UP + steps):
        key = jax.random.key(i)
        t = jax.random.randint(key, (A.time + 1, A.batch), 0, 256)
        t.block_until_ready()
        start = time.perf_counter()
        p, m, v, states, nll, norm = STEPS[name](p, m, v, states, t[:-1], t[1:],
                                                 float(i + 1), key)
        norm.block_until_ready()
        if i >= WARM_UP:
            seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "loss": float(nll)}


def answer(request):
    if request == "list":
        return {"engine": f"JAX {jax.__version__}", "variants": list(VARIANTS)}
    name, steps = request.split()
    try:
        return measure(name, int(steps))
    except Exception as e:  # what a version lacks is told, not fatal
        return {"error": f"{type(e).__name__}: {e}".split("\n")[0][:200]}


for line in sys.stdin:
    print(json.dumps(answer(line.strip())), flush=True)
