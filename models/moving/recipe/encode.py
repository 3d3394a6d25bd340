"""Encodes clips once, with the tokenizer as it is exported, in float32: codes uint8 [count, 320], frame after frame.

    python3 encode.py [--train 30000] [--test 2000]
"""
import argparse

import shared  # noqa: F401
import torch

import clips
from export import load_tokenizer
from run import Log, work

BATCH = 20


def main():
    options = argparse.ArgumentParser()
    options.add_argument('--train', type=int, default=30000)
    options.add_argument('--test', type=int, default=2000)
    options = options.parse_args()
    model, log = load_tokenizer(), Log('encode.log')
    for split, count, first in (('train', options.train, 5_000_000), ('test', options.test, 9_000_000)):
        source, codes, classes = clips.Clips(split), [], []
        with torch.no_grad():
            for i in range(count // BATCH):
                some, items, _ = source.draw(BATCH, first + i)
                codes.append(model.encode(clips.to_float(some)).to(torch.uint8))
                classes.append(items)
        codes = torch.cat(codes)
        torch.save({'codes': codes, 'classes': torch.cat(classes)}, work(f'codes-{split}.pt'))
        share = torch.bincount(codes.flatten().long()).float() / codes.numel()
        bits = -(share * share.clamp_min(1e-9).log2()).sum()
        log(f'{split}: {len(codes)} clips, {int((share > 0).sum())} codes in use, entropy {bits:.2f} bits a token')


if __name__ == '__main__':
    main()
