"""Encodes clips once, with the tokenizer as it is exported, in float32: codes uint8 [count, 320], frame after frame.

    python3 encode.py [--train 20000] [--test 1000]

The package's own encoder does it (encode.js), so the package must be built.
"""
import argparse
import os
import subprocess

import shared
import numpy as np
import torch

import clips
from run import Log, work

BATCH, TOKENS = 20, 320


def main():
    options = argparse.ArgumentParser()
    options.add_argument('--train', type=int, default=20000)
    options.add_argument('--test', type=int, default=1000)
    options = options.parse_args()
    log = Log('encode.log')
    encoder = subprocess.Popen([os.environ.get('NODE', 'node'), os.path.join(shared.HERE, 'encode.js')],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for split, count, first in (('train', options.train, 5_000_000), ('test', options.test, 9_000_000)):
        source, codes, classes = clips.Clips(split), [], []
        for i in range(count // BATCH):
            some, items, _ = source.draw(BATCH, first + i)
            encoder.stdin.write(some.tobytes())
            encoder.stdin.flush()
            tokens = encoder.stdout.read(BATCH * TOKENS)
            if len(tokens) < BATCH * TOKENS:
                raise SystemExit('encode.js ended early')
            codes.append(torch.from_numpy(np.frombuffer(tokens, np.uint8).reshape(BATCH, TOKENS).copy()))
            classes.append(items)
        codes = torch.cat(codes)
        torch.save({'codes': codes, 'classes': torch.cat(classes)}, work(f'codes-{split}.pt'))
        share = torch.bincount(codes.flatten().long()).float() / codes.numel()
        bits = -(share * share.clamp_min(1e-9).log2()).sum()
        log(f'{split}: {len(codes)} clips, {int((share > 0).sum())} codes in use, entropy {bits:.2f} bits a token')
    encoder.stdin.close()
    encoder.wait()


if __name__ == '__main__':
    main()
