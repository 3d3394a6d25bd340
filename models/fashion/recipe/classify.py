"""Judges pictures with the exported classifier.

    python3 classify.py IMAGES.npy LABELS

IMAGES.npy: uint8 [count, 32, 32] or [count, 32, 32, 3]. LABELS: the class each picture should show, as .npy or as text
(integers between any separators, JSON included). Prints JSON: accuracy, and accuracy and count for every class.
"""
import json
import re
import sys

import numpy as np

import classifier


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    images = np.load(sys.argv[1])
    if sys.argv[2].endswith('.npy'):
        expected = np.load(sys.argv[2])
    else:
        with open(sys.argv[2]) as file:
            expected = np.array([int(word) for word in re.findall(r'-?\d+', file.read())])
    if images.dtype != np.uint8 or images.shape[1:3] != (32, 32) or len(images) != len(expected):
        sys.exit(f'expected uint8 [count, 32, 32(, 3)] and as many labels, found {images.dtype} {list(images.shape)} '
                 f'and {len(expected)} labels')
    model, labels = classifier.load()
    found = classifier.classify(model, images).numpy()
    print(json.dumps({
        'count': len(images), 'accuracy': float((found == expected).mean()),
        'classes': [{'classId': c, 'label': labels[c], 'count': int((expected == c).sum()),
                     'accuracy': float((found[expected == c] == c).mean())} for c in sorted(set(expected.tolist()))],
        'found': found.tolist()}))


if __name__ == '__main__':
    main()
