"""A plain convolutional classifier, the judge of generated pictures. Trained on real pictures only.

    python3 classifier.py [--steps 2800]
"""
import argparse
import json
import os

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import data
import tensors
from run import Log, learning_rate, save, set_rate, work


class Classifier(nn.Module):
    """[b, 1, 32, 32] in -1..1 -> [b, 10]."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 24, 3, padding=1), nn.Conv2d(24, 48, 3, padding=1)
        self.conv3 = nn.Conv2d(48, 64, 3, padding=1)
        self.hidden, self.output = nn.Linear(64 * 16, 96), nn.Linear(96, data.CLASSES)

    def forward(self, x):
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.max_pool2d(F.relu(conv(x)), 2)
        x = F.relu(self.hidden(F.dropout(x.flatten(1), 0.25, self.training)))
        return self.output(x)


def grey(pictures):
    """bytes [count, 32, 32] or [count, 32, 32, 3] -> [count, 1, 32, 32]."""
    x = torch.from_numpy(np.ascontiguousarray(pictures)).float()
    return (x if x.dim() == 3 else x.mean(-1))[:, None].div(127.5).sub(1)


def classify(model, pictures):
    with torch.no_grad():
        return torch.cat([model(grey(part)).argmax(1) for part in np.array_split(pictures, -(-len(pictures) // 250))])


def load(path=os.path.join(os.path.dirname(os.path.abspath(__file__)), 'classifier.safetensors')):
    state, meta = tensors.read(path)
    model = Classifier()
    model.load_state_dict({k: v.float() for k, v in state.items()})
    return model.eval(), json.loads(meta['parvis']).get('labels')


def main():
    options = argparse.ArgumentParser()
    options.add_argument('--steps', type=int, default=2800)
    steps = options.parse_args().steps
    torch.manual_seed(7)
    pictures, classes = data.load('train')
    classes, path = torch.from_numpy(classes), work('classifier.pt')
    model, log, start = Classifier(), Log('classifier.log'), 0
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    if os.path.exists(path):
        state = torch.load(path)
        model.load_state_dict(state['model'])
        optimizer.load_state_dict(state['optimizer'])
        start = state['step']
    generator, total = torch.Generator().manual_seed(7 + start), 0.0
    for step in range(start, steps):
        set_rate(optimizer, learning_rate(step, steps, 2e-3, 100))
        pick = torch.randint(len(pictures), (64,), generator=generator)
        loss = F.cross_entropy(model(grey(pictures[pick.numpy()])), classes[pick])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.item()
        if (step + 1) % 400 == 0 or step + 1 == steps:
            log(f'step {step + 1} of {steps}: loss {total / 400:.4f}')
            total = 0.0
            save(path, model=model.state_dict(), optimizer=optimizer.state_dict(), step=step + 1)
    model.load_state_dict({k: v.bfloat16().float() for k, v in model.state_dict().items()})   # as exported
    test, truth = data.load('test')
    log(f'test accuracy {(classify(model.eval(), test).numpy() == truth).mean():.4f}')


if __name__ == '__main__':
    main()
