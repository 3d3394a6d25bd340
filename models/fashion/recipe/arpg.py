"""ARPG (Li et al. 2025, 2503.10568) in plain float32 PyTorch: the recipe's reference, for scoring.

Parameter names are those of the published checkpoints. A pass over a whole picture is causal, as in training: the k-th
token of an order is predicted from the class and the k tokens before it. Training uses the same parameters through
another arrangement of the same arithmetic (fast_arpg.py).
"""
import torch
from torch import nn

from order import rotation
from par import FeedForward, Norm, rotate


class _Attention(nn.Module):
    def __init__(self, dim, names):
        super().__init__()
        for name in names:
            setattr(self, name, nn.Linear(dim, dim, bias=False))


class _Block(nn.Module):
    def __init__(self, dim, names):
        super().__init__()
        self.attn, self.ffn = _Attention(dim, names), FeedForward(dim)
        self.attn_norm, self.ffn_norm = Norm(dim), Norm(dim)


class _Stacks(nn.Module):
    def __init__(self, dim, count):
        super().__init__()
        self.self_dec = nn.ModuleList(_Block(dim, ('to_q', 'to_k', 'to_v', 'proj')) for _ in range(count))
        self.cross_dec = nn.ModuleList(_Block(dim, ('to_q', 'proj')) for _ in range(count))
        self.norm = Norm(dim)
        self.to_k, self.to_v = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)


class Arpg(nn.Module):
    def __init__(self, dim=128, layers=4, heads=2, vocabulary=128, classes=10, grid=(16, 16)):
        """layers: of both stacks together."""
        super().__init__()
        self.heads, self.classes, self.vocabulary, self.grid = heads, classes, vocabulary, tuple(grid)
        self.embeddings = nn.Embedding(vocabulary + classes + 3, dim)   # tokens, the query, classes, no class, unused
        self.layers = _Stacks(dim, layers // 2)
        self.norm = Norm(dim)
        self.head = nn.Linear(dim, vocabulary, bias=False)

    def content(self, classes, tokens):
        """What the content rows read, for tokens [b, N] in generation order: class, then all tokens but the last."""
        ids = torch.cat([classes[:, None] + self.vocabulary + 1, tokens[:, :-1]], 1)
        return self.embeddings(ids)

    def tables(self, order):
        """-> rotations (cos, sin), each [b, N, head / 2], of the content rows and of the queries, for orders [b, N] of
        raster cells."""
        head = self.head.in_features // self.heads
        before = torch.cat([torch.full_like(order[:, :1], -1), order[:, :-1]], 1)
        turn = lambda cells: tuple(t.view(*order.shape, -1) for t in rotation(cells.flatten(), self.grid, head))
        return turn(before), turn(order)

    def forward(self, classes, tokens, order):
        """Logits of every token, [b, N, vocabulary]; tokens in generation order, order [b, N]: the raster cells."""
        (cos, sin), (query_cos, query_sin) = (tuple(t[:, None] for t in pair) for pair in self.tables(order))
        count = tokens.shape[1]
        mask = torch.ones(count, count, dtype=torch.bool).tril()
        split = lambda y: y.view(y.shape[0], count, self.heads, -1).transpose(1, 2)

        def attend(q, k, v):
            scores = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).masked_fill(~mask, float('-inf'))
            return (scores.softmax(-1) @ v).transpose(1, 2).reshape(q.shape[0], count, -1)

        x = self.content(classes, tokens)
        for block in self.layers.self_dec:
            y, a = block.attn_norm(x), block.attn
            x = x + a.proj(attend(rotate(split(a.to_q(y)), cos, sin), rotate(split(a.to_k(y)), cos, sin), split(a.to_v(y))))
            x = x + block.ffn(block.ffn_norm(x))
        y = self.layers.norm(x)
        k, v = rotate(split(self.layers.to_k(y)), cos, sin), split(self.layers.to_v(y))
        z = self.embeddings.weight[self.vocabulary].expand_as(x)
        for block in self.layers.cross_dec:
            q = rotate(split(block.attn.to_q(block.attn_norm(z))), query_cos, query_sin)
            z = z + block.attn.proj(attend(q, k, v))
            z = z + block.ffn(block.ffn_norm(z))
        return self.head(self.norm(z))

    def score(self, classes, tokens, order):
        """log p(token | class, the tokens before it in the order), [b, N]."""
        return self(classes, tokens, order).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
