"""A causal tokenizer of videos with finite scalar quantisation, in plain PyTorch: the form of Next Block Prediction's
(Ren et al. 2025, 2502.07737) at small widths. Module names give the tensor names of the published files.

Edges are replicated; a group norm sees one frame; so a frame depends on earlier frames only.
"""
import torch
import torch.nn.functional as F
from torch import nn


class Conv(nn.Module):
    def __init__(self, inner, outer, stride=(1, 1, 1), kernel=3):
        super().__init__()
        self.conv = nn.Conv3d(inner, outer, kernel, stride)
        self.edge = (1, 1, 1, 1, 2, 0) if kernel == 3 else None

    def forward(self, x):
        return self.conv(F.pad(x, self.edge, mode='replicate') if self.edge else x)


class FrameNorm(nn.GroupNorm):
    """Float32 also inside bfloat16 autocast."""

    def __init__(self, width):
        super().__init__(32, width, eps=1e-5)

    def forward(self, x):
        b, c, t, h, w = x.shape
        with torch.autocast('cpu', enabled=False):
            y = super().forward(x.float().transpose(1, 2).reshape(b * t, c, h, w))
        return y.view(b, t, c, h, w).transpose(1, 2)


class Swish(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.beta = nn.Parameter(torch.ones(1, width, 1, 1, 1))

    def forward(self, x):
        return x * torch.sigmoid(self.beta * x)


class Residual(nn.Module):
    def __init__(self, inner, outer):
        super().__init__()
        self.fn = nn.Sequential(FrameNorm(inner), Swish(inner), Conv(inner, outer), FrameNorm(outer), Swish(outer),
                                Conv(outer, outer))
        self.residual_fn = nn.Sequential(Conv(inner, outer, kernel=1)) if inner != outer else None

    def forward(self, x):
        return self.fn(x) + (x if self.residual_fn is None else self.residual_fn(x))


class DepthToSpace(nn.Module):
    """The block is the outer part of a channel; of the first frame the earlier half is dropped."""

    def __init__(self, time):
        super().__init__()
        self.time = time

    def forward(self, x):
        b, c, t, h, w = x.shape
        n, k = c // (4 * self.time), self.time
        x = x.view(b, k, 2, 2, n, t, h, w).permute(0, 4, 5, 1, 6, 2, 7, 3).reshape(b, n, t * k, 2 * h, 2 * w)
        return x[:, :, k - 1:]


class Fsq:
    """Finite scalar quantisation (Mentzer et al. 2023, 2309.15505), as NBP trains it: the shift by a tangent."""

    def __init__(self, levels):
        self.levels = torch.tensor(levels)
        self.half = (self.levels - 1) * 0.999 / 2
        self.offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        self.shift = (self.offset / self.half).tan()
        self.basis = torch.cat([torch.ones(1, dtype=torch.long), self.levels.cumprod(0)[:-1]])

    def quantise(self, z):
        """[..., channels] -> values in -1..1 with a straight-through gradient, codes int64 [...]."""
        bounded = (z.float() + self.shift).tanh() * self.half - self.offset
        whole = bounded + (bounded.round() - bounded).detach()
        width = self.levels // 2
        codes = ((whole.detach() + width).long() * self.basis).sum(-1)
        return whole / width, codes

    def values(self, codes):
        digits = codes[..., None].div(self.basis, rounding_mode='floor') % self.levels
        return (digits - self.levels // 2) / (self.levels // 2)


class Tokenizer(nn.Module):
    """17 x 32 x 32 pixels to 5 x 8 x 8 tokens: two levels of 2 x 2 x 2."""

    def __init__(self, levels=(8, 6, 5)):
        super().__init__()
        self.fsq = Fsq(list(levels))
        channels = len(levels)
        half = (2, 2, 2)
        self.encoder_layers = nn.ModuleList([
            Conv(3, 32), Residual(32, 32), Conv(32, 32, half), Residual(32, 64), Conv(64, 64, half), Residual(64, 64),
            FrameNorm(64), Swish(64), nn.Conv3d(64, channels, 1)])
        self.decoder_layers = nn.ModuleList([
            Conv(channels, 64), Residual(64, 64), Conv(64, 256), DepthToSpace(2), Residual(32, 32), Residual(32, 32),
            Conv(32, 256), DepthToSpace(2), Residual(32, 32), FrameNorm(32), Swish(32), Conv(32, 3)])

    def latent(self, x):
        for layer in self.encoder_layers:
            x = layer(x)
        return x.permute(0, 2, 3, 4, 1)

    def pixels(self, values):
        x = values.permute(0, 4, 1, 2, 3)
        for layer in self.decoder_layers:
            x = layer(x)
        return x

    def encode(self, x):
        """float [b, 3, T, H, W] in 0..1 -> codes int64 [b, t*h*w], raster order, frame after frame."""
        return self.fsq.quantise(self.latent(x))[1].flatten(1)

    def decode(self, codes, grid):
        return self.pixels(self.fsq.values(codes.view(codes.shape[0], *grid)))

    def forward(self, x):
        """Training path -> (pixels, codes)."""
        values, codes = self.fsq.quantise(self.latent(x))
        return self.pixels(values), codes


def check(folder):
    """Against the golden fixture of the authors' modules, whose widths are others: python3 vtok.py FOLDER"""
    import os
    import shared  # noqa: F401
    import tensors
    state = torch.load(os.path.join(folder, 'video-tokenizer.pt'))['model_state_dict']
    expected, meta = tensors.read(os.path.join(folder, 'expected.safetensors'))
    model = Tokenizer([int(level) for level in meta['levels'].split(',')])
    model.encoder_layers = nn.ModuleList([
        Conv(3, 32), Residual(32, 32), Conv(32, 32, (1, 2, 2)), Residual(32, 32), Residual(32, 32), Conv(32, 32, (2, 2, 2)),
        Residual(32, 32), Conv(32, 32, (2, 2, 2)), Residual(32, 64), Residual(64, 64), FrameNorm(64), Swish(64),
        nn.Conv3d(64, 6, 1)])
    model.decoder_layers = nn.ModuleList([
        Conv(6, 64), Residual(64, 64), Conv(64, 512), DepthToSpace(2), Residual(64, 32), Residual(32, 32), Conv(32, 256),
        DepthToSpace(2), Residual(32, 32), Conv(32, 128), DepthToSpace(1), Residual(32, 32), FrameNorm(32), Swish(32),
        Conv(32, 3)])
    model.load_state_dict({k.replace('module.', ''): v.float() for k, v in state.items()})
    with torch.no_grad():
        codes = model.encode(expected['encode.input'])
        pixels = model.decode(expected['encode.indices'].long().flatten(1), (3, 4, 4))
    print('codes equal:', bool((codes == expected['encode.indices'].flatten(1)).all()),
          ' pixels:', (pixels - expected['decoded']).abs().max().item())


if __name__ == '__main__':
    import sys
    check(sys.argv[1])
