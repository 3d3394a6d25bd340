"""Trains the tokenizer on clips drawn from the training pictures.

    python3 train_tokenizer.py [--steps 3000]

Batches of 4 clips; L1 + 2 x mean square + 0.1 x L1 of the differences of neighbouring frames. Saves every 100 steps and
resumes from there.
"""
import argparse
import os

import shared  # noqa: F401
import numpy as np
import torch
import torch.nn.functional as F

import clips
from run import Log, learning_rate, save, set_rate, work
from vtok import Tokenizer

BATCH, PEAK = 4, 2e-3
# Products in bfloat16 where the processor has them.
LOW = os.environ.get('FASHION_PRECISION', 'bfloat16') == 'bfloat16'


def psnr(model, some):
    """Decibels over the bytes of clips, and the share of the codes in use."""
    wrong, used = 0.0, torch.zeros(int(model.fsq.levels.prod()))
    with torch.no_grad():
        for part in np.array_split(some, len(some) // 8):
            codes = model.encode(clips.to_float(part))
            used += torch.bincount(codes.flatten(), minlength=len(used))
            out = clips.to_bytes(model.decode(codes, (5, 8, 8))).astype(np.float64)
            wrong += ((out - part[..., None]) ** 2).mean((1, 2, 3, 4)).sum()
    return 10 * np.log10(255 ** 2 / (wrong / len(some))), float((used > 0).float().mean())


def main():
    options = argparse.ArgumentParser()
    options.add_argument('--steps', type=int, default=3000)
    steps = options.parse_args().steps
    torch.manual_seed(1)
    source, check = clips.Clips('train'), clips.Clips('test').draw(64, 1)[0]
    model = Tokenizer()
    last = model.decoder_layers[-1].conv
    with torch.no_grad():   # equal rows receive equal gradients: clips stay grey
        last.weight.copy_(last.weight[:1].expand(3, -1, -1, -1, -1))
        last.bias.zero_()
    optimizer = torch.optim.AdamW(model.parameters(), PEAK, betas=(0.9, 0.95), weight_decay=1e-4)
    path, start, busy, total = work('tokenizer.pt'), 0, 0.0, torch.zeros(2)
    if os.path.exists(path):
        state = torch.load(path)
        model.load_state_dict(state['model'])
        optimizer.load_state_dict(state['optimizer'])
        start, busy = state['step'], state['busy']
    log = Log('tokenizer.log', busy)
    log(f'steps {start} to {steps}, {sum(p.numel() for p in model.parameters())} parameters')
    for step in range(start, steps):
        set_rate(optimizer, learning_rate(step, steps, PEAK, 100))
        x = clips.to_float(source.draw(BATCH, 1_000_000 + step)[0])
        with torch.autocast('cpu', torch.bfloat16, enabled=LOW):
            y, _ = model(x)
        y = y.float()
        mse = F.mse_loss(y, x)
        loss = F.l1_loss(y, x) + 2 * mse + 0.1 * F.l1_loss(y.diff(dim=2), x.diff(dim=2))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += torch.stack([mse.detach(), loss.detach()])
        if (step + 1) % 100 == 0 or step + 1 == steps:
            text = ' '.join(f'{value / 100:.4f}' for value in total.tolist())
            quality = ''
            if (step + 1) % 500 == 0 or step + 1 == steps:
                model.eval()
                quality = ' | test PSNR %.2f dB, %.2f of the codes in use' % psnr(model, check)
                model.train()
            log(f'step {step + 1} of {steps}: mse, loss {text}{quality}')
            total = torch.zeros(2)
            save(path, model=model.state_dict(), optimizer=optimizer.state_dict(), step=step + 1, busy=log.busy)


if __name__ == '__main__':
    main()
