"""Compares sampling settings for one n: share recognised and spread (see measure.py), over 20 pictures a class.

    python3 tune.py 4 "1.5 1 0 1" "2 1 0 1" "3 1 0 0.95"      # guidance, temperature, top-k, top-p
"""
import sys

import numpy as np

import classifier
import data
from export import load_tokenizer, load_transformer
from measure import spread
from pictures import generate


def main():
    n, settings = int(sys.argv[1]), sys.argv[2:]
    (model, _), tokenizer, (judge, _), test = load_transformer(n), load_tokenizer(), classifier.load(), data.load('test')
    real = None
    for setting in settings:
        guidance, temperature, k, p = setting.split()
        made, classes = generate(n, 20, 11, model, tokenizer, guidanceScale=float(guidance),
                                 temperature=float(temperature), topK=int(k), topP=float(p))
        if real is None:
            real = spread(test[0][np.concatenate([np.flatnonzero(test[1] == c)[:20] for c in range(10)])], classes)
        share = (classifier.classify(judge, made) == classes).float().mean().item()
        print(f'n = {n}  guidance, temperature, top-k, top-p {setting:18}  recognised {share:.3f}  '
              f'spread {spread(made, classes) / real:.3f}', flush=True)


if __name__ == '__main__':
    main()
