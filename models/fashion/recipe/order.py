"""Which token comes when, and what every slot of the sequence holds and may see.

Terms as in the paper: the grid is cut into n = s*s regions; sequence index q of the token at region (a, b), place
(i, j) is (i*w + j)*n + a*s + b. Everything here is small integer arithmetic; nothing is learnt.
"""
import math

import torch

CLASS = -1   # what a slot reads: a sequence index, or the class (-1), or transition token M_k (-1 - k)


def sequence_cells(grid, n):
    """-> int64 [N]: the raster cell of every sequence index (n = 1: raster order itself). A grid of three axes is that of
    a video: its frames follow one another, each in the order of a picture."""
    frames, (height, width) = math.prod(grid[:-2]), grid[-2:]
    s = math.isqrt(n)
    if s * s != n or height % s or width % s:
        raise ValueError(f'n = {n} does not fit a {height} x {width} grid')
    h, w = height // s, width // s
    return torch.tensor([(f * height + a * h + i) * width + b * w + j for f in range(frames)
                         for i in range(h) for j in range(w) for a in range(s) for b in range(s)])


class Arrangement:
    """The order of the tokens, what each slot reads and sees, and the steps. The choices are the paper's ablations:
    order 'distant' or 'raster' (table 4d), initial 'sequential' or 'none' (4a), attention inside a group 'full' or
    'causal' (4c), group: tokens of a step (4d, `one`; n where it is not given).

    cells [N]: raster cell of a sequence index; reads [N]: what slot x, which predicts token x, reads; end [N]: slots
    that it sees; steps: [(from, to)] slots of each step; transitions: transition tokens in use.
    """

    def __init__(self, grid, n, order='distant', initial='sequential', attention='full', group=None):
        count, g = math.prod(grid), group or n
        self.grid, self.n, self.count = tuple(grid), n, count
        self.cells = torch.arange(count) if order == 'raster' else sequence_cells(grid, n)
        stage = g if initial == 'sequential' else 0              # tokens that are drawn one by one
        self.steps = ([(slot, slot + 1) for slot in range(stage)]
                      + [(slot, slot + g) for slot in range(stage, count, g)])
        reads, end = [], []
        for begin, after in self.steps:
            for slot in range(begin, after):
                end.append(slot + 1 if attention == 'causal' else after)
                if begin < stage:
                    reads.append(slot - 1 if slot else CLASS)    # token by token
                elif begin == stage:                             # the first step of a whole group
                    place = slot - begin
                    reads.append(-1 - place if place else stage - 1 if stage else CLASS)
                else:
                    reads.append(slot - g)                       # the token a group before
        self.reads, self.end = torch.tensor(reads), torch.tensor(end)
        self.transitions = g - 1
        self.slots = torch.where(self.reads < 0, -1, self.cells[self.reads.clamp_min(0)])   # cells that rotate

    def mask(self):
        """-> bool [N, N]: row slot sees column slot."""
        return torch.arange(self.count)[None, :] < self.end[:, None]


def to_raster(sequence, cells):
    """tokens [b, N] in sequence order -> raster order."""
    out = torch.empty_like(sequence)
    out[:, cells] = sequence
    return out


def rotation(cells, grid, head, pairs=None):
    """-> cos, sin [len(cells), head/2]; both zero where the cell is -1. pairs: of a head, by frame, row and column, each
    axis with frequencies of its own; half each by row and column where nothing is said, which is the images' formula."""
    height, width = grid[-2:]
    pairs = pairs or (0, head // 4, head // 4)
    places = (cells.div(height * width, rounding_mode='floor'),
              cells.div(width, rounding_mode='floor') % height, cells % width)
    angle = torch.cat([place.double()[:, None] * 10000.0 ** (-torch.arange(count).double() / max(count, 1))
                       for place, count in zip(places, pairs)], 1)
    there = (cells >= 0)[:, None].double()
    return (angle.cos() * there).float(), (angle.sin() * there).float()
