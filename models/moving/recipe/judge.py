"""The judge of generated clips: a small convolutional network with two heads, item and motion. It is trained on clips in
which the two are paired at random, so that it tells a right item from a right motion.

    python3 judge.py [--steps 6000]            # trains
    python3 judge.py --judge CLIPS.npy --classes 0,1,...   # uint8 [N x 17, 32, 32, 3]; prints JSON
    python3 judge.py --test FEATURES.npz       # features of 2,000 test clips, for the Frechet distance
"""
import argparse
import json
import os

import shared
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import clips
import data
import tensors
from run import Log, learning_rate, save, set_rate, work


class Judge(nn.Module):
    """[b, 1, 17, 32, 32] in 0..1 -> items [b, 10], motions [b, 10]; `features` [b, 96]."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv3d(1, 16, 3, (1, 2, 2), 1)
        self.conv2 = nn.Conv3d(16, 32, 3, (2, 2, 2), 1)
        self.conv3 = nn.Conv3d(32, 48, 3, (1, 2, 2), 1)
        self.frames = nn.Conv1d(48 * 16, 96, 3, padding=1)
        self.hidden = nn.Linear(96 * 9, 96)
        self.item, self.motion = nn.Linear(96, data.CLASSES), nn.Linear(96, data.CLASSES)

    def features(self, x):
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu(conv(x))
        x = F.relu(self.frames(x.transpose(1, 2).flatten(2).transpose(1, 2)))
        return F.relu(self.hidden(F.dropout(x.flatten(1), 0.2, self.training)))

    def forward(self, x):
        x = self.features(x)
        return self.item(x), self.motion(x)


def grey(some):
    """bytes [count, 17, 32, 32] or with 3 channels behind -> [count, 1, 17, 32, 32]."""
    x = torch.from_numpy(np.ascontiguousarray(some)).float()
    return (x if x.dim() == 4 else x.mean(-1))[:, None] / 255


def load():
    model = Judge()
    model.load_state_dict({k: v.float() for k, v in tensors.read(shared.file('recipe/judge.safetensors'))[0].items()})
    return model.eval()


def shares(model, some, items, motions):
    """Share of right items, of right motions, and features [count, 96]."""
    right, found = torch.zeros(2), []
    with torch.no_grad():
        parts = -(-len(some) // 100)
        for part, i, m in zip(np.array_split(some, parts), torch.tensor_split(items, parts),
                              torch.tensor_split(motions, parts)):
            features = model.features(grey(part))
            right += torch.stack([(model.item(features).argmax(1) == i).sum(),
                                  (model.motion(features).argmax(1) == m).sum()]).float()
            found.append(features)
    return *(right / len(some)).tolist(), torch.cat(found)


def main():
    options = argparse.ArgumentParser()
    options.add_argument('--steps', type=int, default=6000)
    options.add_argument('--judge')
    options.add_argument('--classes')
    options.add_argument('--test')
    options.add_argument('--features')
    options = options.parse_args()
    if options.test:
        some, items, motions = clips.Clips('test').draw(2000, 3)
        item, motion, found = shares(load(), some, items, motions)
        np.savez(options.test, features=found.numpy())
        print(json.dumps({'clips': len(some), 'item': item, 'motion': motion}))
        return
    if options.judge:
        some = np.load(options.judge).reshape(-1, clips.FRAMES, clips.SIDE, clips.SIDE, 3)
        classes = torch.tensor([int(c) for c in options.classes.split(',')])
        item, motion, found = shares(load(), some, classes, classes)
        if options.features:
            np.savez(options.features, features=found.numpy())
        print(json.dumps({'clips': len(some), 'item': item, 'motion': motion}))
        return
    torch.manual_seed(7)
    source, path, start, total = clips.Clips('train'), work('judge.pt'), 0, 0.0
    model, log = Judge(), Log('judge.log')
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    if os.path.exists(path):
        state = torch.load(path)
        model.load_state_dict(state['model'])
        optimizer.load_state_dict(state['optimizer'])
        start = state['step']
    for step in range(start, options.steps):
        set_rate(optimizer, learning_rate(step, options.steps, 2e-3, 100))
        some, items, motions = source.draw(32, 3_000_000 + step, mixed=True)
        item, motion = model(grey(some))
        loss = F.cross_entropy(item, items) + F.cross_entropy(motion, motions)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.item()
        if (step + 1) % 100 == 0 or step + 1 == options.steps:
            log(f'step {step + 1} of {options.steps}: loss {total / 100:.4f}')
            total = 0.0
            save(path, model=model.state_dict(), optimizer=optimizer.state_dict(), step=step + 1)
    model.load_state_dict({k: v.bfloat16().float() for k, v in model.state_dict().items()})   # as exported
    item, motion, _ = shares(model.eval(), *clips.Clips('test').draw(2000, 2, mixed=True))
    log(f'2,000 test clips, mixed: {item:.4f} of the items, {motion:.4f} of the motions')


if __name__ == '__main__':
    main()
