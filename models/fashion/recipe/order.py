"""Which token comes when, and what every slot of the sequence holds and may see.

Terms as in the paper: the grid is cut into n = s*s regions; sequence index q of the token at region (a, b), place
(i, j) is (i*w + j)*n + a*s + b. Everything here is small integer arithmetic; nothing is learnt.
"""
import math

import torch

CLASS = -1   # what a slot reads: a sequence index, or the class (-1), or transition token M_k (-1 - k)


def sequence_cells(grid, n):
    """-> int64 [N]: the raster cell of every sequence index (n = 1: raster order itself)."""
    height, width = grid
    s = math.isqrt(n)
    if s * s != n or height % s or width % s:
        raise ValueError(f'n = {n} does not fit a {height} x {width} grid')
    h, w = height // s, width // s
    return torch.tensor([(a * h + i) * width + b * w + j
                         for i in range(h) for j in range(w) for a in range(s) for b in range(s)])


class Arrangement:
    """The order of the tokens, what each slot reads and sees, and the steps. The choices are the paper's ablations:
    order 'distant' or 'raster' (table 4d), initial 'sequential' or 'none' (4a), attention inside a group 'full' or
    'causal' (4c), group: tokens of a step (4d, `one`; n where it is not given).

    cells [N]: raster cell of a sequence index; reads [N]: what slot x, which predicts token x, reads; end [N]: slots
    that it sees; steps: [(from, to)] slots of each step; transitions: transition tokens in use.
    """

    def __init__(self, grid, n, order='distant', initial='sequential', attention='full', group=None):
        count, g = grid[0] * grid[1], group or n
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


def rotation(cells, grid, head):
    """-> cos, sin [len(cells), head/2]; both zero where the cell is -1."""
    half = head // 2
    speed = 10000.0 ** (-torch.arange(0, half, 2)[:half // 2].double() / half)
    row, column = cells.div(grid[1], rounding_mode='floor').double(), (cells % grid[1]).double()
    angle = torch.cat([row[:, None] * speed, column[:, None] * speed], 1)
    there = (cells >= 0)[:, None].double()
    return (angle.cos() * there).float(), (angle.sin() * there).float()
