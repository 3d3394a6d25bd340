"""Writes the package's safetensors files from the training checkpoints, and reads them back.

    python3 export.py            # whatever is there: tokenizer.safetensors, par-1/-4/-16, recipe/judge

All weights are stored in bfloat16, rounded to six significant bits of its eight: so the package stays small when it is
packed. Everything measured elsewhere in this folder is measured on the stored weights.
"""
import json
import os
import sys

import shared
import torch

import clips
import tensors
from par import Par
from run import work
from vtok import Tokenizer

GRID, PAIRS, LEVELS, FPS = (5, 8, 8), (8, 12, 12), (8, 6, 5), 8
SHAPE = dict(dim=128, layers=4, heads=2, vocabulary=240, classes=10, grid=GRID, pairs=PAIRS)
SAMPLING = {n: {'guidanceScale': 2.0, 'temperature': 1.0, 'topK': 0, 'topP': 0.95} for n in (1, 4, 16)}


def rounded(state):
    def six(v):
        fraction, exponent = torch.frexp(v.float())
        return torch.ldexp((fraction * 64).round() / 64, exponent).bfloat16()
    return {k: six(v) for k, v in state.items()}


def write_tokenizer():
    state = dict(torch.load(work('tokenizer.pt'))['model'])
    for name in ('decoder_layers.11.conv.weight', 'decoder_layers.11.conv.bias'):   # equal but for rounding
        state[name] = state[name].mean(0, keepdim=True).expand_as(state[name])
    tensors.write(shared.file('tokenizer.safetensors'), rounded(state), {'format': 'pt', 'parvis': json.dumps(
        {'kind': 'tokenizer', 'name': 'parvis-moving tokenizer', 'levels': LEVELS})})


def write_transformer(n):
    state = torch.load(work(f'par-{n}.pt'))['average']
    tensors.write(shared.file(f'par-{n}.safetensors'), rounded(state), {'format': 'pt', 'parvis': json.dumps({
        'kind': 'transformer', 'layers': SHAPE['layers'], 'dim': SHAPE['dim'], 'heads': SHAPE['heads'],
        'vocabularySize': SHAPE['vocabulary'], 'classes': SHAPE['classes'], 'n': n, 'grid': GRID,
        'rotationPairs': PAIRS, 'labels': clips.LABELS, 'sampling': SAMPLING[n], 'name': f'parvis-moving n={n}'})})


def write_judge():
    tensors.write(shared.file('recipe/judge.safetensors'), rounded(torch.load(work('judge.pt'))['model']),
                  {'format': 'pt', 'parvis': json.dumps({'kind': 'judge', 'labels': clips.LABELS})})


def load_tokenizer():
    model = Tokenizer(LEVELS)
    model.load_state_dict({k: v.float() for k, v in tensors.read(shared.file('tokenizer.safetensors'))[0].items()})
    return model.eval()


def load_transformer(n):
    model = Par(n=n, **SHAPE)
    model.load_state_dict({k: v.float() for k, v in tensors.read(shared.file(f'par-{n}.safetensors'))[0].items()})
    return model.eval()


def main():
    if os.path.exists(work('tokenizer.pt')):
        write_tokenizer()
    for n in SAMPLING:
        if os.path.exists(work(f'par-{n}.pt')):
            write_transformer(n)
    if os.path.exists(work('judge.pt')):
        write_judge()


if __name__ == '__main__':
    sys.exit(main())
