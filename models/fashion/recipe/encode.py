"""Encodes all 70,000 pictures once, with the tokenizer as it is exported, in float32: codes uint8 [count, 256], raster order."""
import numpy as np
import torch

import data
from export import load_tokenizer
from run import Log, work


def main():
    model, log = load_tokenizer(), Log('encode.log')
    for split in ('train', 'test'):
        pictures, classes = data.load(split)
        parts = []
        with torch.no_grad():
            for part in np.array_split(pictures, len(pictures) // 50):
                parts.append(model.encode(data.to_float(part)).to(torch.uint8))
        codes = torch.cat(parts)
        torch.save({'codes': codes, 'classes': torch.from_numpy(classes)}, work(f'codes-{split}.pt'))
        share = torch.bincount(codes.flatten().long()).float() / codes.numel()
        bits = -(share * share.clamp_min(1e-9).log2()).sum()
        log(f'{split}: {len(codes)} pictures, {int((share > 0).sum())} codes in use, entropy {bits:.2f} bits a token')


if __name__ == '__main__':
    main()
