"""Checks this folder's reference implementation against fixtures computed by the published code.

    python3 check_golden.py FOLDER      # holds par-4x, par-16x-hd100, llamagen, vq-f4
"""
import os
import sys

import torch

import tensors
from par import Par, greedy
from vq import Tokenizer


def weights(path):
    state = torch.load(path, map_location='cpu')
    for key in ('model', 'module', 'state_dict'):
        if key in state:
            state = state[key]
            break
    return {k: v.float() for k, v in state.items() if k != 'quantize.codebook_used'}


def transformer(folder):
    expected, meta = tensors.read(os.path.join(folder, 'expected.safetensors'))
    number = {k: int(meta[k]) for k in ('dim', 'layers', 'heads', 'vocab', 'grid', 'classes', 'n')}
    model = Par(number['dim'], number['layers'], number['heads'], number['vocab'], number['classes'], number['n'],
                (number['grid'],) * 2)
    model.load_state_dict(weights(os.path.join(folder, 'model.pt')))
    classes = torch.tensor([int(c) for c in meta['classIds'].split(',')])
    tokens = expected['score.tokens'].long()
    with torch.no_grad():
        logits = model(classes, tokens)
        positions = [int(p) for p in meta['scoreLogitPositions'].split(',')]
        yield 'logits', (logits[:, positions] - expected['score.logits']).abs().max().item()
        yield 'logprobs', (model.score(classes, tokens) - expected['score.logprobs']).abs().max().item()
    sequence, raster = model.generate(classes, float(meta['cfg']), greedy)
    yield 'greedy sequence tokens', (sequence != expected['greedy.sequence']).sum().item()
    yield 'greedy raster tokens', (raster != expected['greedy.raster']).sum().item()


def tokenizer(folder):
    expected, meta = tensors.read(os.path.join(folder, 'expected.safetensors'))
    model = Tokenizer(int(meta['ch']), [int(m) for m in meta['ch_mult'].split(',')], int(meta['z_channels']),
                      int(meta['codebook']), int(meta['embed_dim']))
    model.load_state_dict(weights(os.path.join(folder, 'vq.pt')))
    with torch.no_grad():
        out = model.decode(expected['codes'].long(), (int(meta['grid']),) * 2)
        yield 'decoded', (out - expected['decoded']).abs().max().item()
        full = (127.5 * out + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).int()
        yield 'bytes/1000', (full - expected['full_u8'].int()).abs().max().item() / 1000
        yield 'encoded codes', (model.encode(expected['encode.input']) != expected['encode.codes']).sum().item()


def main():
    root, good = sys.argv[1], True
    for name in ('par-4x', 'par-16x-hd100', 'llamagen', 'vq-f4'):
        if not os.path.isdir(os.path.join(root, name)):
            print(f'{name:16} not there, not checked')
            continue
        for what, error in (tokenizer if name == 'vq-f4' else transformer)(os.path.join(root, name)):
            good &= error <= 1e-3
            print(f'{name:16} {what:24} {error:.3g}')
    sys.exit(0 if good else 1)


if __name__ == '__main__':
    main()
