"""The paper's ablations (table 4) in miniature: one transformer for each row, trained from the start with one budget.

    python3 ablations.py                 # trains the rows that are not there yet, one after another
    python3 ablations.py n4 n4-raster    # these rows only; a second process may train others meanwhile

A row takes about 35 minutes of one core (AVX2, FASHION_PRECISION=float32). Weights go to $FASHION_WORK/ablations,
never into the repository; ablations.js measures them with the package and keeps the results.
"""
import json
import os
import sys

import torch

import data
import tensors
from order import Arrangement
from run import WORK, work
from train_transformer import SHAPE, new_model, train

STEPS, SEED = 1875, 7   # 1,875 batches of 32: every training picture once
FOLDER = os.path.join(WORK, 'ablations')

# What differs from the method itself: n, how the tokens are arranged (order.py), or the size.
ROWS = {
    'n4': {'n': 4},
    'n4-raster': {'n': 4, 'order': 'raster'},
    'n1': {'n': 1},
    'n4-none': {'n': 4, 'initial': 'none'},
    'n4-causal': {'n': 4, 'attention': 'causal'},
    'n16': {'n': 16},
    'n16-none': {'n': 16, 'initial': 'none'},
    'n16-causal': {'n': 16, 'attention': 'causal'},
    'n4-one': {'n': 4, 'group': 1},
    'n4-narrow': {'n': 4, 'dim': 64, 'heads': 1},
    'n4-wide': {'n': 4, 'dim': 192, 'heads': 3},
}
OPTIONS = {'order': 'order', 'initial': 'initial', 'attention': 'groupAttention', 'group': 'tokensPerStep'}


def export(name, row, state):
    """bfloat16, as the package's models are stored; `decoding`: the options that the package runs it with."""
    shape = {**SHAPE, **{k: row[k] for k in ('dim', 'heads') if k in row}}
    meta = {'kind': 'transformer', 'layers': shape['layers'], 'dim': shape['dim'], 'heads': shape['heads'],
            'vocabularySize': shape['vocabulary'], 'classes': shape['classes'], 'n': row['n'], 'grid': [16, 16],
            'labels': data.LABELS, 'name': f'parvis-fashion ablation {name}'}
    decoding = {OPTIONS[k]: v for k, v in row.items() if k in OPTIONS}
    unused = 'spe_tok_embeddings.special_embeddings.weight'
    if row['n'] > 1 and unused not in state:   # the package tells n by them; a row of single tokens reads none
        state = {**state, unused: torch.zeros(row['n'] - 1, shape['dim'])}
    path = os.path.join(FOLDER, f'{name}.safetensors')
    tensors.write(path + '.part', {k: v.bfloat16() for k, v in state.items()},
                  {'format': 'pt', 'parvis': json.dumps(meta), 'decoding': json.dumps(decoding)})
    os.replace(path + '.part', path)


def main():
    os.makedirs(FOLDER, exist_ok=True)
    for name in sys.argv[1:] or ROWS:
        row = ROWS[name]
        if os.path.exists(os.path.join(FOLDER, f'{name}.safetensors')):
            continue
        torch.manual_seed(SEED)
        shape = {k: row[k] for k in ('dim', 'heads') if k in row}
        arrangement = Arrangement((16, 16), row['n'], **{k: v for k, v in row.items() if k in OPTIONS})
        model = new_model(row['n'], arrangement=arrangement, **shape)
        export(name, row, train(f'ablation-{name}', model, STEPS, seed=SEED))


if __name__ == '__main__':
    main()
