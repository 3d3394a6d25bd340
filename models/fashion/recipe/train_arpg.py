"""Trains ARPG on the encoded pictures: every batch in an order of its own, which the training draws.

    python3 train_arpg.py --steps 6000

Everything else is as train_transformer.py has it.
"""
import argparse

import torch

import fast_arpg
from arpg import Arpg
from train_transformer import SHAPE, train


class Method:
    @staticmethod
    def step(model, classes, codes, generator):
        order = torch.randperm(codes.shape[1], generator=generator)
        return fast_arpg.step(model, classes, codes[:, order], order)

    @staticmethod
    def held_out(model, classes, codes):
        """The mean over four orders, always the same ones."""
        generator = torch.Generator().manual_seed(1)
        orders = [torch.randperm(codes.shape[1], generator=generator) for _ in range(4)]
        return sum(-model.score(classes, codes[:, order], order).mean().item() for order in orders) / len(orders)


def new_model():
    model = Arpg(**SHAPE)
    for name, p in model.named_parameters():
        if p.dim() == 2:
            torch.nn.init.normal_(p, 0, 0.02 / (8 ** 0.5 if name.endswith(('proj.weight', 'w2.weight')) else 1))
    return model


def main():
    options = argparse.ArgumentParser()
    options.add_argument('--steps', type=int, required=True)
    options.add_argument('--peak', type=float, default=2e-3)
    options = options.parse_args()
    torch.manual_seed(32)
    train('arpg', new_model(), options.steps, options.peak, 3200, Method)


if __name__ == '__main__':
    main()
