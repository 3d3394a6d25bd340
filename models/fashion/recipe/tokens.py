"""Writes tokens of test pictures for the package's tests: the first pictures of each class, one class after another.

    python3 tokens.py FILE.npy [PER_CLASS]      # uint8 [10 * PER_CLASS, 256], raster order; encode.py runs before
"""
import sys

import numpy as np
import torch

import data
from run import work


def main():
    per_class = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    test = torch.load(work('codes-test.pt'))
    codes, classes = test['codes'].numpy(), test['classes'].numpy()
    np.save(sys.argv[1], np.concatenate([codes[np.flatnonzero(classes == c)[:per_class]] for c in range(data.CLASSES)]))


if __name__ == '__main__':
    main()
