"""Trains ARPG on the encoded pictures: every picture in an order of its own, which the training draws, but for its first
cell.

A query of ARPG knows its place only relative to the tokens that are known, and the class has no place. So the first token of
an order would be drawn without any place, and what follows fits to it: pieces of clothing lie anywhere, cut at the edges.
Here every order begins with the cell in the middle, from which the model can tell all other places.

    python3 train_arpg.py --steps 10000 [--start 4]     # from the layers of the exported PAR model of n = 4

Everything else is as train_transformer.py has it.
"""
import argparse

import torch

import fast_arpg
from arpg import Arpg
from export import FIRST_CELL, load_transformer
from train_transformer import SHAPE, train


def orders(codes, generator):
    """An order for each row of codes [b, N]: the first cell, then the others at random."""
    keys = torch.rand(codes.shape, generator=generator)
    keys[:, FIRST_CELL] = -1
    return keys.argsort(1)


class Method:
    @staticmethod
    def step(model, classes, codes, generator):
        order = orders(codes, generator)
        return fast_arpg.step(model, classes, codes.gather(1, order), order)

    @staticmethod
    def held_out(model, classes, codes):
        """The mean over four orders of each picture, always the same ones."""
        generator = torch.Generator().manual_seed(1)
        drawn = [orders(codes, generator) for _ in range(4)]
        return sum(-model.score(classes, codes.gather(1, order), order).mean().item() for order in drawn) / len(drawn)


def new_model():
    model = Arpg(**SHAPE)
    for name, p in model.named_parameters():
        if p.dim() == 2:
            torch.nn.init.normal_(p, 0, 0.02 / (8 ** 0.5 if name.endswith(('proj.weight', 'w2.weight')) else 1))
    return model


def from_par(model, n):
    """The token and class vectors and the layers of a PAR model, which are of the same sizes: its first half becomes the
    self layers, its second half the cross layers, whose first layer gives the shared keys and values."""
    par = load_transformer(n)[0]
    half = len(model.layers.self_dec)
    parts = lambda block: block.attention.wqkv.weight.chunk(3)
    with torch.no_grad():
        tokens = par.tok_embeddings.weight
        model.embeddings.weight[:len(tokens)] = tokens
        classes = par.cls_embedding.embedding_table.weight
        model.embeddings.weight[len(tokens) + 1:len(tokens) + 1 + len(classes)] = classes
        for i, block in enumerate([*model.layers.self_dec, *model.layers.cross_dec]):
            source = par.layers[i]
            for name, weight in zip(('to_q', 'to_k', 'to_v'), parts(source)):
                if hasattr(block.attn, name):
                    getattr(block.attn, name).weight.copy_(weight)
            block.attn.proj.weight.copy_(source.attention.wo.weight)
            block.ffn.load_state_dict(source.feed_forward.state_dict())
            block.attn_norm.load_state_dict(source.attention_norm.state_dict())
            block.ffn_norm.load_state_dict(source.ffn_norm.state_dict())
        _, k, v = parts(par.layers[half])
        model.layers.to_k.weight.copy_(k)
        model.layers.to_v.weight.copy_(v)
        model.layers.norm.load_state_dict(par.layers[half].attention_norm.state_dict())
        model.norm.load_state_dict(par.norm.state_dict())
        model.head.load_state_dict(par.output.state_dict())
    return model


def main():
    options = argparse.ArgumentParser()
    options.add_argument('--steps', type=int, required=True)
    options.add_argument('--start', type=int)
    options.add_argument('--peak', type=float, default=2e-3)
    options = options.parse_args()
    torch.manual_seed(32)
    model = from_par(new_model(), options.start) if options.start else new_model()
    train('arpg', model, options.steps, options.peak, 3200, Method)


if __name__ == '__main__':
    main()
