"""What the judge sees in pictures: its last hidden layer and its probabilities, for `parvis eval`.

    python3 features.py SAMPLES.npz OUT.npz     # arr_0 uint8 [N, 32, 32, 3], arr_1 the classes, as `parvis sample` writes
    python3 features.py --test OUT.npz          # the 10,000 real test pictures

Writes features float32 [N, 96] and probabilities float32 [N, 10]. Prints JSON: the share of pictures that the judge
recognises as their class, in all and of each class.
"""
import json
import sys

import numpy as np
import torch
import torch.nn.functional as F

import classifier
import data


def features(model, x):
    for conv in (model.conv1, model.conv2, model.conv3):
        x = F.max_pool2d(F.relu(conv(x)), 2)
    return F.relu(model.hidden(x.flatten(1)))


def main():
    source, out = sys.argv[1:]
    if source == '--test':
        pictures, classes = data.load('test')
    else:
        with np.load(source) as arrays:
            pictures, classes = arrays['arr_0'], arrays['arr_1']
    (model, _), found, probabilities = classifier.load(), [], []
    with torch.no_grad():
        for part in np.array_split(pictures, -(-len(pictures) // 250)):
            found.append(features(model, classifier.grey(part)))
            probabilities.append(model.output(found[-1]).softmax(1))
    found, probabilities = torch.cat(found).numpy(), torch.cat(probabilities).numpy()
    np.savez(out, features=found, probabilities=probabilities)
    right = probabilities.argmax(1) == classes
    print(json.dumps({'pictures': len(right), 'recognised': float(right.mean()),
                      'byClass': [float(right[classes == c].mean()) for c in range(data.CLASSES)]}))


if __name__ == '__main__':
    main()
