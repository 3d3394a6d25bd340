"""The VQ tokenizer: a convolutional encoder, a codebook on the unit sphere, and the mirrored decoder.

Module names give the tensor names of the published files (encoder.conv_blocks.{i}.res.{j}..., quant_conv, ...).
The quantiser has two faces: `encode`/`decode` are what the package does; `forward` is the training path with the
straight-through gradient. Codebook rows are not trained by gradient but follow a moving average of the vectors
assigned to them (see train_tokenizer.py), which needs no tuning of a second loss.
"""
import torch
import torch.nn.functional as F
from torch import nn


class _GroupNorm(nn.GroupNorm):
    """Float32 also inside bfloat16 autocast: this PyTorch's CPU kernel refuses mixed types."""

    def forward(self, x):
        with torch.autocast('cpu', enabled=False):
            return super().forward(x.float())


def _norm(width):
    return _GroupNorm(32, width, eps=1e-6)


class ResBlock(nn.Module):
    def __init__(self, inner, outer):
        super().__init__()
        self.norm1, self.conv1 = _norm(inner), nn.Conv2d(inner, outer, 3, padding=1)
        self.norm2, self.conv2 = _norm(outer), nn.Conv2d(outer, outer, 3, padding=1)
        if inner != outer:
            self.nin_shortcut = nn.Conv2d(inner, outer, 1)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, 'nin_shortcut') else x)


class AttnBlock(nn.Module):
    """One head over all cells of the map."""

    def __init__(self, width):
        super().__init__()
        self.norm = _norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x):
        b, c, h, w = x.shape
        y = self.norm(x)
        q, k, v = (f(y).flatten(2) for f in (self.q, self.k, self.v))       # [b, c, cells]
        weights = torch.softmax(q.transpose(1, 2) @ k * c ** -0.5, dim=-1)  # [b, cells, cells]
        return x + self.proj_out((v @ weights.transpose(1, 2)).view(b, c, h, w))


class Resample(nn.Module):
    def __init__(self, width, down):
        super().__init__()
        self.down = down
        self.conv = nn.Conv2d(width, width, 3, stride=2 if down else 1, padding=0 if down else 1)

    def forward(self, x):
        if self.down:
            return self.conv(F.pad(x, (0, 1, 0, 1)))
        return self.conv(F.interpolate(x, scale_factor=2.0, mode='nearest'))


class Level(nn.Module):
    def __init__(self, inner, outer, blocks, attention, resample):
        super().__init__()
        self.res = nn.ModuleList(ResBlock(inner if i == 0 else outer, outer) for i in range(blocks))
        self.attn = nn.ModuleList(AttnBlock(outer) for _ in range(blocks if attention else 0))
        if resample:
            setattr(self, resample, Resample(outer, resample == 'downsample'))
        self.resample = resample

    def forward(self, x):
        for i, block in enumerate(self.res):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        return getattr(self, self.resample)(x) if self.resample else x


def _mid(width):
    return nn.ModuleList([ResBlock(width, width), AttnBlock(width), ResBlock(width, width)])


class Encoder(nn.Module):
    def __init__(self, base, multipliers, z):
        super().__init__()
        widths = [base * m for m in multipliers]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(3, base, 3, padding=1)
        self.conv_blocks = nn.ModuleList(
            Level(widths[max(i - 1, 0)] if i else base, width, 2, i == last, 'downsample' if i < last else None)
            for i, width in enumerate(widths))
        self.mid = _mid(widths[-1])
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], z, 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for block in [*self.conv_blocks, *self.mid]:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Decoder(nn.Module):
    def __init__(self, base, multipliers, z):
        super().__init__()
        widths = [base * m for m in reversed(multipliers)]   # coarsest first
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(z, widths[0], 3, padding=1)
        self.mid = _mid(widths[0])
        self.conv_blocks = nn.ModuleList(
            Level(widths[max(i - 1, 0)], width, 3, i == 0, 'upsample' if i < last else None)
            for i, width in enumerate(widths))
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for block in [*self.mid, *self.conv_blocks]:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Codebook(nn.Module):
    def __init__(self, size, width):
        super().__init__()
        self.embedding = nn.Embedding(size, width)

    def rows(self):
        return F.normalize(self.embedding.weight.float(), dim=-1)


class Tokenizer(nn.Module):
    def __init__(self, base=32, multipliers=(1, 1), z=32, codes=128, width=8):
        super().__init__()
        self.encoder = Encoder(base, multipliers, z)
        self.decoder = Decoder(base, multipliers, z)
        self.quantize = Codebook(codes, width)
        self.quant_conv = nn.Conv2d(z, width, 1)
        self.post_quant_conv = nn.Conv2d(width, z, 1)

    def vectors(self, x):
        """pictures [b, 3, H, W] -> unit vectors [b, h, w, width] before quantisation."""
        return F.normalize(self.quant_conv(self.encoder(x)).float().permute(0, 2, 3, 1), dim=-1)

    def nearest(self, vectors):
        return (vectors @ self.quantize.rows().t()).argmax(-1)

    def encode(self, x):
        """pictures -> codes int64 [b, h*w], raster order."""
        return self.nearest(self.vectors(x)).flatten(1)

    def decode(self, codes, grid):
        """codes [b, h*w] -> pictures [b, 3, H, W], nominally -1..1."""
        z = self.quantize.rows()[codes].view(codes.shape[0], *grid, -1).permute(0, 3, 1, 2)
        return self.decoder(self.post_quant_conv(z))

    def forward(self, x, quantise=True):
        """Training path -> (picture, vectors, codes); without quantisation a plain autoencoder, codes None."""
        vectors = self.vectors(x)
        if not quantise:
            return self.decoder(self.post_quant_conv(vectors.permute(0, 3, 1, 2))), vectors, None
        codes = self.nearest(vectors.detach())
        quantised = self.quantize.rows().detach()[codes]
        straight = vectors + (quantised - vectors).detach()
        return self.decoder(self.post_quant_conv(straight.permute(0, 3, 1, 2))), vectors, codes
