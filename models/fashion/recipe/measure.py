"""Measures the exported files and writes measured.json: tokenizer, classifier, and generated pictures for every n.

    python3 measure.py [--sheets FOLDER]

`recognised` is the share of generated pictures that the classifier gives the class they were asked for. `spread` is the
mean distance between two pictures of a class, divided by the same for real test pictures: far below 1 means that
the pictures repeat.
"""
import argparse
import json
import os
import time

import numpy as np
import torch

import classifier
import data
from export import SAMPLING, file, load_tokenizer, load_transformer
from pictures import generate, sheet
from run import work
from train_tokenizer import psnr

PER_CLASS = 20


def spread(pictures, classes):
    """Mean root-mean-square difference, in byte steps, between two pictures of a class; the mean over classes."""
    grey = torch.from_numpy(pictures if pictures.ndim == 3 else pictures[..., 0]).float().flatten(1)
    return float(np.mean([torch.pdist(grey[classes == c]).mean().item() / 32 for c in range(data.CLASSES)]))


def transformer(n, judge, test, sheets):
    model, meta = load_transformer(n)
    codes = torch.load(work('codes-test.pt'))
    with torch.no_grad():
        loss = -torch.cat([model.score(codes['classes'][i:i + 100], codes['codes'][i:i + 100].long()[:, model.cells])
                           for i in range(0, 1000, 100)]).mean().item()
    begin, results, pictures = time.time(), [], []
    for seed in (1, 2, 3):
        made, classes = generate(n, PER_CLASS, seed)
        right = classifier.classify(judge, made) == classes
        results.append(round(right.float().mean().item(), 4))
        pictures.append(made)
        if seed == 1:
            by_class = {label: round(right[classes == c].float().mean().item(), 3) for c, label in enumerate(data.LABELS)}
    if sheets:
        sheet(pictures[0], PER_CLASS, os.path.join(sheets, f'n{n}.png'))
    real = test[0][np.concatenate([np.flatnonzero(test[1] == c)[:PER_CLASS] for c in range(data.CLASSES)])]
    return {'sampling': meta['sampling'], 'heldOutLoss': round(loss, 4), 'recognised': results[0],
            'recognisedSeeds1to3': results, 'recognisedByClass': by_class,
            'spread': round(spread(pictures[0], classes) / spread(real, classes), 3),
            'secondsForAllSeeds': round(time.time() - begin, 1)}


def main():
    options = argparse.ArgumentParser()
    options.add_argument('--sheets')
    sheets = options.parse_args().sheets
    if sheets:
        os.makedirs(sheets, exist_ok=True)
    torch.manual_seed(0)
    test, tokenizer, (judge, _) = data.load('test'), load_tokenizer(), classifier.load()
    quality, used = psnr(tokenizer, test[0][:2000])
    with torch.no_grad():
        back = torch.cat([tokenizer.decode(tokenizer.encode(data.to_float(part)), (16, 16))
                          for part in np.array_split(test[0][:2000], 40)])
    found = {
        'tokenizer': {'psnr': round(float(quality), 2), 'codesInUse': int((used > 0).sum()),
                      'recognisedAfterRoundTrip': round((classifier.classify(judge, data.to_bytes(back)).numpy()
                                                         == test[1][:2000]).mean().item(), 4), 'pictures': 2000},
        'classifier': {'testAccuracy': round((classifier.classify(judge, test[0]).numpy() == test[1]).mean().item(), 4)},
        'perClass': PER_CLASS,
        'transformers': {n: transformer(n, judge, test, sheets) for n in SAMPLING
                         if os.path.exists(file(f'par-{n}.safetensors'))},
    }
    with open(file('recipe/measured.json'), 'w') as out:
        out.write(json.dumps(found, indent=2) + '\n')
    print(json.dumps(found, indent=2))


if __name__ == '__main__':
    main()
