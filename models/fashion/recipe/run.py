"""What every training script shares: one thread, a learning-rate curve, logs, and checkpoints to resume from."""
import math
import os
import time

import torch

WORK = os.environ.get('FASHION_WORK', '/tmp/fashion')
os.makedirs(WORK, exist_ok=True)
torch.set_num_threads(int(os.environ.get('FASHION_THREADS', '1')))


def work(name):
    return os.path.join(WORK, name)


def learning_rate(step, steps, peak, warmup):
    """Linear warm-up, then a cosine to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def set_rate(optimizer, rate):
    for group in optimizer.param_groups:
        group['lr'] = rate


def save(path, **state):
    torch.save(state, path + '.part')
    os.replace(path + '.part', path)


class Log:
    """Prints, and appends to a file; `busy` is the processor time spent, which a paused process does not count."""

    def __init__(self, name, busy=0.0):
        self.path, self.before, self.start = work(name), busy, time.process_time()

    @property
    def busy(self):
        return self.before + time.process_time() - self.start

    def __call__(self, text):
        line = f'{time.strftime("%H:%M:%S")} cpu {self.busy:6.0f}s  {text}'
        print(line, flush=True)
        with open(self.path, 'a') as file:
            file.write(line + '\n')
