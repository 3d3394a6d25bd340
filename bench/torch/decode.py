"""The peer: a plain PyTorch decode loop and VQ-16 decoder of the same shapes, random weights.

Commands (peer.py): "step DTYPE SLOT", "static DTYPE SLOT", "vq GRID", so that the caller can interleave it with the
engine under test. Usage: decode.py MODEL N THREADS
"""
import sys
import time

import torch
import torch.nn.functional as F

import peer

SHAPES = {"B": (12, 768, 12), "L": (24, 1024, 16), "XL": (36, 1280, 20), "XXL": (48, 1536, 24), "3B": (24, 3200, 32)}


class Loop:
    """Guided decoding at batch 1: two rows of the batch, n tokens a step, a static key/value cache."""

    def __init__(self, model, n, dtype, slots=576):
        layers, dim, heads = SHAPES[model]
        self.n, self.heads, self.dtype = n, heads, dtype
        hidden = -(-(2 * 4 * dim // 3) // 256) * 256

        def matrix(rows, columns):
            return (torch.rand(rows, columns) * 0.06 - 0.03).to(dtype)

        self.layers = [
            dict(qkv=matrix(3 * dim, dim), wo=matrix(dim, dim), w1=matrix(hidden, dim), w3=matrix(hidden, dim), w2=matrix(dim, hidden),
                 n1=torch.ones(dim, dtype=dtype), n2=torch.ones(dim, dtype=dtype),
                 k=torch.zeros(2, heads, slots, dim // heads, dtype=dtype), v=torch.zeros(2, heads, slots, dim // heads, dtype=dtype))
            for _ in range(layers)
        ]
        self.norm, self.output, self.tokens = torch.ones(dim, dtype=dtype), matrix(16384, dim), matrix(16384, dim)
        angle = torch.rand(slots + n, dim // heads // 2) * 24
        self.cosine, self.sine = angle.cos(), angle.sin()

    @staticmethod
    def rms(x, weight):
        f = x.float()
        return (f * torch.rsqrt(f.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype) * weight

    def rotate(self, x, at):
        f = x.float().reshape(*x.shape[:-1], -1, 2)
        c, s = self.cosine[at : at + self.n, None], self.sine[at : at + self.n, None]
        return torch.stack((f[..., 0] * c - f[..., 1] * s, f[..., 1] * c + f[..., 0] * s), -1).flatten(3).to(x.dtype)

    def step(self, ids, at, whole=False):
        """One step. `whole`: attend over all slots under a mask, as loops with a static cache do that are to be
        compiled; else over the filled part only, which is the faster of the two without a compiler."""
        x = self.tokens[ids]  # [2, n, dim]
        rows, n, dim = x.shape
        for l in self.layers:
            q, k, v = F.linear(self.rms(x, l["n1"]), l["qkv"]).view(rows, n, 3, self.heads, -1).unbind(2)
            l["k"][:, :, at : at + n] = self.rotate(k, at).transpose(1, 2)
            l["v"][:, :, at : at + n] = v.transpose(1, 2)
            q = self.rotate(q, at).transpose(1, 2)
            end = l["k"].shape[2] if whole else at + n
            keys, values = l["k"][:, :, :end], l["v"][:, :, :end]
            scores = q @ keys.transpose(2, 3) * (q.shape[-1] ** -0.5)
            if whole:
                scores = scores.masked_fill(torch.arange(end) >= at + n, float("-inf"))
            p = torch.softmax(scores, -1)
            x = x + F.linear((p @ values).transpose(1, 2).reshape(rows, n, dim), l["wo"])
            h = self.rms(x, l["n2"])
            x = x + F.linear(F.silu(F.linear(h, l["w1"])) * F.linear(h, l["w3"]), l["w2"])
        logits = F.linear(self.rms(x, self.norm), self.output).float()
        logits = logits[1] + 1.5 * (logits[0] - logits[1])
        token = torch.multinomial(torch.softmax(logits, -1), 1)[:, 0]
        return torch.stack((token, token))


class Residual(torch.nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.norm1, self.conv1 = torch.nn.GroupNorm(32, a, 1e-6), torch.nn.Conv2d(a, b, 3, padding=1)
        self.norm2, self.conv2 = torch.nn.GroupNorm(32, b, 1e-6), torch.nn.Conv2d(b, b, 3, padding=1)
        self.short = torch.nn.Conv2d(a, b, 1) if a != b else torch.nn.Identity()

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        return self.short(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm = torch.nn.GroupNorm(32, c, 1e-6)
        self.q, self.k, self.v, self.out = (torch.nn.Conv2d(c, c, 1) for _ in range(4))

    def forward(self, x):
        h = self.norm(x)
        q, k, v = (f(h).flatten(2) for f in (self.q, self.k, self.v))
        p = torch.softmax(q.transpose(1, 2) @ k * (x.shape[1] ** -0.5), -1)
        return x + self.out((v @ p.transpose(1, 2)).view_as(x))


class Up(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = torch.nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


def decoder(base=128, multipliers=(1, 1, 2, 2, 4), z=256, code=8):
    widths = [base * m for m in reversed(multipliers)]
    c = widths[0]
    parts = [torch.nn.Conv2d(code, z, 1), torch.nn.Conv2d(z, c, 3, padding=1), Residual(c, c), Attention(c), Residual(c, c)]
    for level, width in enumerate(widths):
        for _ in range(3):
            parts.append(Residual(c, width))
            c = width
            if level == 0:
                parts.append(Attention(c))
        if level < len(widths) - 1:
            parts.append(Up(c))
    return torch.nn.Sequential(*parts, torch.nn.GroupNorm(32, c, 1e-6), torch.nn.SiLU(), torch.nn.Conv2d(c, 3, 3, padding=1)).eval()


def main():
    model, n, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if threads > 0:  # 0: as PyTorch chooses
        torch.set_num_threads(threads)
    loops, ids, made = {}, {}, {}

    def step(name, at, whole=False):
        if name not in loops:
            loops[name] = Loop(model, n, getattr(torch, name))
            ids[name] = torch.zeros(2, n, dtype=torch.long)
        start = time.perf_counter()
        ids[name] = loops[name].step(ids[name], int(at), whole)
        return (time.perf_counter() - start) * 1000

    def vq(grid):
        if "vq" not in made:
            made["vq"] = decoder()
        x = torch.randn(1, 8, int(grid), int(grid))
        start = time.perf_counter()
        made["vq"](x)
        return (time.perf_counter() - start) * 1000

    with torch.no_grad():
        peer.serve(peer.Answers(), {"step": step, "static": lambda name, at: step(name, at, True), "vq": vq})


if __name__ == "__main__":
    main()
