"""The PAR transformer in plain float32 PyTorch: the recipe's reference, for scoring and for generating.

Parameter names are those of the published checkpoints. Training uses the same parameters through another
arrangement of the same arithmetic (fast.py).
"""
import torch
import torch.nn.functional as F
from torch import nn

from order import Arrangement, rotation, to_raster


class _Table(nn.Module):
    def __init__(self, name, count, dim):
        super().__init__()
        setattr(self, name, nn.Embedding(count, dim))


class Norm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        y = x.float()
        return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-5)).type_as(x) * self.weight


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.wqkv = nn.Linear(dim, 3 * dim, bias=False)
        self.wo = nn.Linear(dim, dim, bias=False)

    def forward(self, x, cos, sin, mask, cache):
        b, t, dim = x.shape
        q, k, v = (y.transpose(1, 2) for y in self.wqkv(x).view(b, t, 3, self.heads, -1).unbind(2))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)      # [b, heads, t, head]
        if cache is not None:
            k, v = cache.append(k, v)
        scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float('-inf'))
        return self.wo((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, dim))


class FeedForward(nn.Module):
    def __init__(self, dim):
        super().__init__()
        hidden = -(-int(8 * dim / 3) // 256) * 256
        self.w1, self.w3 = nn.Linear(dim, hidden, bias=False), nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.attention, self.feed_forward = Attention(dim, heads), FeedForward(dim)
        self.attention_norm, self.ffn_norm = Norm(dim), Norm(dim)

    def forward(self, x, cos, sin, mask, cache):
        x = x + self.attention(self.attention_norm(x), cos, sin, mask, cache)
        return x + self.feed_forward(self.ffn_norm(x))


def rotate(x, cos, sin):
    """Turns the interleaved pairs (2p, 2p+1) of the last axis; cos, sin [t, head/2]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


class Cache:
    """Keys and values of one layer, [rows, heads, slots so far, head]."""

    def __init__(self, rows, heads, slots, head):
        self.k, self.v, self.length = torch.empty(rows, heads, slots, head), torch.empty(rows, heads, slots, head), 0

    def append(self, k, v):
        end = self.length + k.shape[2]
        self.k[:, :, self.length:end], self.v[:, :, self.length:end], self.length = k, v, end
        return self.k[:, :, :end], self.v[:, :, :end]


class Par(nn.Module):
    def __init__(self, dim=128, layers=4, heads=2, vocabulary=128, classes=10, n=4, grid=(16, 16), arrangement=None,
                 pairs=None):
        """pairs: of a head, by frame, row and column (order.py)."""
        super().__init__()
        order = arrangement or Arrangement(grid, n)
        self.n, self.classes, self.heads, self.order = order.n, classes, heads, order
        self.cls_embedding = _Table('embedding_table', classes + 1, dim)
        self.tok_embeddings = nn.Embedding(vocabulary, dim)
        if order.transitions:
            self.spe_tok_embeddings = _Table('special_embeddings', order.transitions, dim)
        self.layers = nn.ModuleList(Block(dim, heads) for _ in range(layers))
        self.norm = Norm(dim)
        self.output = nn.Linear(dim, vocabulary, bias=False)
        self.cells, self.end, self.visible = order.cells, order.end, order.mask()
        self.cos, self.sin = rotation(order.slots, order.grid, dim // heads, pairs)

    def inputs(self, classes, tokens, slots=slice(None)):
        """What these slots read: classes [b], tokens [b, N] in sequence order -> [b, slots, dim]."""
        reads = self.order.reads[slots]
        x = self.tok_embeddings(tokens[:, reads.clamp_min(0)])
        if (reads >= 0).all():
            return x
        special = self.cls_embedding.embedding_table(classes)[:, None]
        if self.order.transitions:
            table = self.spe_tok_embeddings.special_embeddings.weight[None].expand(len(tokens), -1, -1)
            special = torch.cat([special, table], 1)
        return torch.where((reads < 0)[:, None], special[:, (-1 - reads).clamp_min(0)], x)

    def run(self, x, slots=slice(None), mask=None, caches=None):
        cos, sin = self.cos[slots], self.sin[slots]
        for i, block in enumerate(self.layers):
            x = block(x, cos, sin, mask, caches[i] if caches else None)
        return self.output(self.norm(x))

    def forward(self, classes, tokens):
        """Logits of every sequence token in one pass, [b, N, vocabulary]."""
        return self.run(self.inputs(classes, tokens), mask=self.visible)

    def score(self, classes, tokens):
        """log p(token | class, what it may see), [b, N]."""
        return self(classes, tokens).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]

    @torch.no_grad()
    def generate(self, classes, guidance, choose):
        """KV-cached generation. choose(logits [b, m, vocabulary]) -> tokens [b, m]. -> sequence [b, N], raster [b, N]."""
        count, rows = len(self.cells), len(classes)
        guided = guidance > 1
        ids = torch.cat([classes, torch.full_like(classes, self.classes)]) if guided else classes
        dim = self.output.in_features
        caches = [Cache(len(ids), self.heads, count, dim // self.heads) for _ in self.layers]
        sequence = torch.zeros(rows, count, dtype=torch.long)
        twice = (lambda t: torch.cat([t, t])) if guided else (lambda t: t)
        for begin, end in self.order.steps:
            slots = slice(begin, end)
            mask = self.visible[slots, :end]
            logits = self.run(self.inputs(ids, twice(sequence), slots), slots, None if mask.all() else mask, caches)
            if guided:
                with_class, without = logits[:rows], logits[rows:]
                logits = without + guidance * (with_class - without)
            sequence[:, slots] = choose(logits)
        return sequence, to_raster(sequence, self.cells)


def greedy(logits):
    return logits.argmax(-1)


def sampler(temperature=1.0, top_k=0, top_p=1.0, generator=None):
    """The package's sampling rule: temperature, top-k with ties kept, top-p with the first token above p kept."""
    def choose(logits):
        logits = logits / max(temperature, 1e-5)
        if top_k:
            least = logits.topk(min(top_k, logits.shape[-1]), -1).values[..., -1:]
            logits = logits.masked_fill(logits < least, float('-inf'))
        if top_p < 1:
            ordered, index = logits.sort(-1, descending=True)
            p = ordered.softmax(-1)
            drop = p.cumsum(-1) - p > top_p
            logits = logits.masked_fill(torch.zeros_like(drop).scatter(-1, index, drop), float('-inf'))
        p = logits.softmax(-1)
        return torch.multinomial(p.flatten(0, -2), 1, generator=generator).view(p.shape[:-1])
    return choose
