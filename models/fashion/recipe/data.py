"""Fashion-MNIST as the recipe uses it: 32 x 32 grey pictures and their class numbers.

The files come from the Debian package dataset-fashion-mnist (MIT licence). The 28 x 28 originals get a black
border of two pixels, so that the grid of a factor-two tokenizer is 16 x 16 and every region shape divides it.
"""
import gzip
import os

import numpy as np
import torch

FOLDER = os.environ.get('FASHION_DATA', '/usr/share/datasets/fashion-mnist')
LABELS = ['T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot']
CLASSES = len(LABELS)


def _idx(name, header):
    with gzip.open(os.path.join(FOLDER, name)) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)


def load(split):
    """split 'train' (60,000) or 'test' (10,000) -> bytes [count, 32, 32], classes int64 [count]."""
    prefix = {'train': 'train', 'test': 't10k'}[split]
    pictures = _idx(prefix + '-images-idx3-ubyte.gz', 16).reshape(-1, 28, 28)
    classes = _idx(prefix + '-labels-idx1-ubyte.gz', 8).astype(np.int64)
    return np.pad(pictures, ((0, 0), (2, 2), (2, 2))), classes


def to_float(pictures):
    """bytes [count, 32, 32] -> float [count, 3, 32, 32] in -1..1: the tokenizer's input."""
    x = torch.from_numpy(np.ascontiguousarray(pictures)).float().div(127.5).sub(1)
    return x[:, None].expand(-1, 3, -1, -1)


def to_bytes(x):
    """float [count, 3, H, W] -> bytes [count, H, W, 3], the rounding every part of the package uses."""
    return (127.5 * x + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
