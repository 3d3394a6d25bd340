"""Trains the transformer for one n on the encoded clips: all as the recipe of the pictures has it, on three axes.

    python3 train_videos.py --n 4 --steps 3000
    python3 train_videos.py --n 16 --steps 2000 --start 4       # from the trained n = 4
"""
import argparse

import shared  # noqa: F401
import torch

from export import SHAPE
from train_transformer import new_model, train


def main():
    options = argparse.ArgumentParser()
    options.add_argument('--n', type=int, required=True)
    options.add_argument('--steps', type=int, required=True)
    options.add_argument('--start', type=int)
    options = options.parse_args()
    torch.manual_seed(options.n)
    train(f'par-{options.n}', new_model(options.n, options.start, **SHAPE), options.steps, seed=100 * options.n)


if __name__ == '__main__':
    main()
