"""Moving Fashion-MNIST: clips of 17 frames of 32 x 32 grey pixels. The class decides the item and how it moves.

A picture of the class, 18 pixels high and wide, moves over black with sub-pixel (bilinear) placement. Drawn for each clip: the
picture, the start, the speed (20% up or down), the phase. The same seed makes the same clips.
"""
import math

import numpy as np
import torch
import torch.nn.functional as F

import shared  # noqa: F401
import data

FRAMES, SIDE, ITEM = 17, 32, 18
MOTIONS = ['sways', 'walks right', 'rises', 'circles', 'falls', 'hops left', 'goes diagonally', 'runs right', 'swings',
           'hops right']
LABELS = [f'{label}, {motion}' for label, motion in zip(data.LABELS, MOTIONS)]
ROOM = SIDE - ITEM   # pixels that an item can move


def _bounce(x):
    """Back and forth in 0..1."""
    x = x % 2
    return torch.minimum(x, 2 - x)


def paths(motions, generator):
    """int64 [count] -> x, y of the top left corner in pixels and the angle in radians, each [count, FRAMES]."""
    count = len(motions)
    draw = lambda: torch.rand(count, 1, generator=generator)
    speed, phase, x0, y0 = 0.8 + 0.4 * draw(), draw(), draw(), draw()
    t = torch.arange(FRAMES)[None] / (FRAMES - 1)
    turn = 2 * math.pi * (1.5 * speed * t + phase)
    still_x, still_y = x0.expand(-1, FRAMES), y0.expand(-1, FRAMES)
    hop = 1 - 0.7 * turn.sin().abs()
    zero = torch.zeros(count, FRAMES)
    swing = 0.5 * turn.sin()
    choices = torch.stack([torch.stack(choice) for choice in (
        (0.5 + 0.5 * turn.sin(), still_y, zero),                          # sways
        (_bounce(x0 + speed * t), still_y, zero),                         # walks right, turns at the edge
        (still_x, _bounce(1 - y0 - speed * t + 2), zero),                 # rises
        (0.5 + 0.5 * turn.cos(), 0.5 + 0.5 * turn.sin(), zero),           # circles
        (still_x, _bounce(y0 + speed * t), zero),                         # falls
        (_bounce(1 - x0 - speed * t + 2), hop, zero),                     # hops left
        (_bounce(x0 + speed * t), _bounce(y0 + speed * t), zero),         # goes diagonally
        (_bounce(x0 + 2.5 * speed * t), still_y, zero),                   # runs right
        (0.5 + 0.35 * turn.sin(), 0.2 + 0.3 * turn.cos().square(), swing),  # swings
        (_bounce(x0 + speed * t), hop, zero))])                           # hops right
    chosen = choices[motions, :, torch.arange(count)]                     # [count, 3, FRAMES]
    return chosen[:, 0] * ROOM, chosen[:, 1] * ROOM, chosen[:, 2]


def render(pictures, motions, generator):
    """bytes [count, 32, 32] (data.load), motions int64 [count] -> bytes [count, FRAMES, 32, 32]."""
    x, y, angle = paths(motions, generator)
    count = len(pictures)
    items = torch.from_numpy(np.ascontiguousarray(pictures)).float()[:, None]
    # Where a pixel of the frame lies in the picture, both in -1..1 of the picture.
    places = (torch.arange(SIDE).float() + 0.5)
    u = (places[None, None, None, :] - x[..., None, None] - ITEM / 2) / (ITEM / 2)
    v = (places[None, None, :, None] - y[..., None, None] - ITEM / 2) / (ITEM / 2)
    u, v = u.expand(-1, -1, SIDE, -1), v.expand(-1, -1, -1, SIDE)
    cos, sin = angle.cos()[..., None, None], angle.sin()[..., None, None]
    grid = torch.stack([cos * u + sin * v, cos * v - sin * u], -1)       # [count, FRAMES, SIDE, SIDE, 2]
    smaller = F.interpolate(items, (ITEM, ITEM), mode='bilinear', align_corners=False, antialias=True)
    frames = F.grid_sample(smaller[:, None].expand(-1, FRAMES, -1, -1, -1).reshape(-1, 1, ITEM, ITEM),
                           grid.reshape(-1, SIDE, SIDE, 2), mode='bilinear', padding_mode='zeros', align_corners=False)
    return frames.view(count, FRAMES, SIDE, SIDE).round().clamp(0, 255).to(torch.uint8).numpy()


class Clips:
    """Clips of one split, drawn by seed."""

    def __init__(self, split):
        self.pictures, self.classes = data.load(split)

    def draw(self, count, seed, mixed=False):
        """-> bytes [count, FRAMES, 32, 32], items and motions int64 [count]; mixed: item and motion have nothing to do with
        each other, for the judge."""
        generator = torch.Generator().manual_seed(seed)
        pick = torch.randint(len(self.pictures), (count,), generator=generator)
        items = torch.from_numpy(self.classes[pick.numpy()])
        motions = torch.randint(data.CLASSES, (count,), generator=generator) if mixed else items
        return render(self.pictures[pick.numpy()], motions, generator), items, motions


def to_float(clips):
    """bytes [count, T, H, W] -> float [count, 3, T, H, W] in 0..1: the tokenizer's input."""
    x = torch.from_numpy(np.ascontiguousarray(clips)).float().div(255)
    return x[:, None].expand(-1, 3, -1, -1, -1)


def to_bytes(x):
    """float [count, 3, T, H, W] -> bytes [count, T, H, W, 3], as the package rounds."""
    return (255 * x.clamp(0, 1)).floor().to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous().numpy()


def sheet(clips, path, zoom=2):
    """A row for each clip, a column for each frame."""
    from PIL import Image
    clips = clips[..., 0] if clips.ndim == 5 else clips
    rows = [np.concatenate([np.pad(frame, 1, constant_values=60) for frame in clip], 1) for clip in clips]
    image = Image.fromarray(np.concatenate(rows))
    image.resize((image.width * zoom, image.height * zoom), Image.NEAREST).save(path)
