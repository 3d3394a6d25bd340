"""Which token comes when, and what every slot of the sequence holds and may see.

Terms as in the paper: the grid is cut into n = s*s regions; sequence index q of the token at region (a, b), place
(i, j) is (i*w + j)*n + a*s + b. Everything here is small integer arithmetic; nothing is learnt.
"""
import math

import torch


def sequence_cells(grid, n):
    """-> int64 [N]: the raster cell of every sequence index (n = 1: raster order itself)."""
    height, width = grid
    s = math.isqrt(n)
    if s * s != n or height % s or width % s:
        raise ValueError(f'n = {n} does not fit a {height} x {width} grid')
    h, w = height // s, width // s
    return torch.tensor([(a * h + i) * width + b * w + j
                         for i in range(h) for j in range(w) for a in range(s) for b in range(s)])


def to_raster(sequence, cells):
    """tokens [b, N] in sequence order -> raster order."""
    out = torch.empty_like(sequence)
    out[:, cells] = sequence
    return out


def slot_cells(grid, n):
    """-> int64 [N]: the cell of the *input* of every slot; -1 for the class and the transition tokens."""
    cells = sequence_cells(grid, n)
    none = torch.full((1,), -1)
    return torch.cat([none, cells[:n], none.repeat(n - 1), cells[n:len(cells) - n]])


def visible(count, n):
    """-> bool [N, N]: row slot sees column slot. One by one before slot n, then whole groups."""
    slot = torch.arange(count)
    end = torch.where(slot < n, slot + 1, (slot // n + 1) * n)
    return slot[None, :] < end[:, None]


def rotation(cells, grid, head):
    """-> cos, sin [len(cells), head/2]; both zero where the cell is -1."""
    half = head // 2
    speed = 10000.0 ** (-torch.arange(0, half, 2)[:half // 2].double() / half)
    row, column = cells.div(grid[1], rounding_mode='floor').double(), (cells % grid[1]).double()
    angle = torch.cat([row[:, None] * speed, column[:, None] * speed], 1)
    there = (cells >= 0)[:, None].double()
    return (angle.cos() * there).float(), (angle.sin() * there).float()
