"""Trains the tokenizer on the 60,000 training pictures.

    python3 train_tokenizer.py [--steps 1800]

The first WARM steps train a plain autoencoder (vectors on the unit sphere, not quantised); then k-means over encoded
pictures makes the codebook, which from there on follows a moving average of its vectors. Most of a picture is black
background, so both k-means and the replacement of unused codes draw new rows in proportion to the squared error,
not uniformly: otherwise half of the codebook would describe the same black cell.
"""
import argparse
import os

import numpy as np
import torch
import torch.nn.functional as F

import data
from run import Log, learning_rate, save, set_rate, work
from vq import Tokenizer

BATCH, PEAK, WARM = 32, 2e-3, 120
DECAY, COMMITMENT = 0.98, 0.1


def psnr(model, pictures):
    """Mean squared error of the bytes over a whole set -> decibels; also the share of the codebook in use."""
    wrong, used = 0.0, torch.zeros(model.quantize.embedding.num_embeddings)
    with torch.no_grad():
        for part in np.array_split(pictures, max(1, len(pictures) // 64)):
            codes = model.encode(data.to_float(part))
            used += torch.bincount(codes.flatten(), minlength=len(used))
            out = data.to_bytes(model.decode(codes, (16, 16))).astype(np.float64)
            wrong += ((out - part[..., None]) ** 2).mean((1, 2, 3)).sum()
    return 10 * np.log10(255 ** 2 / (wrong / len(pictures))), used


def draw_far(vectors, rows, count, generator):
    """`count` of the vectors, likelier the farther they lie from the nearest of `rows`."""
    far = (2 - 2 * (vectors @ rows.t()).amax(1)).clamp_min(1e-6)
    return vectors[torch.multinomial(far, count, generator=generator)]


def first_codebook(vectors, size, generator):
    rows = vectors[torch.randint(len(vectors), (1,), generator=generator)]
    while len(rows) < size:
        rows = torch.cat([rows, draw_far(vectors, rows, min(len(rows), size - len(rows)), generator)])
    for _ in range(10):
        codes = (vectors @ rows.t()).argmax(1)
        sums = torch.zeros_like(rows).index_add_(0, codes, vectors)
        empty = sums.norm(dim=1) < 1e-6
        sums[empty] = draw_far(vectors, rows, int(empty.sum()), generator) if empty.any() else sums[empty]
        rows = F.normalize(sums, dim=1)
    return rows


def main():
    options = argparse.ArgumentParser()
    options.add_argument('--steps', type=int, default=1800)
    options.add_argument('--codes', type=int, default=128)
    options.add_argument('--seed', type=int, default=1)
    options = options.parse_args()

    torch.manual_seed(options.seed)
    pictures, _ = data.load('train')
    check = data.load('test')[0][:256]
    model = Tokenizer(codes=options.codes)
    with torch.no_grad():   # equal rows receive equal gradients: the picture stays grey
        model.decoder.conv_out.weight.copy_(model.decoder.conv_out.weight[:1].expand(3, -1, -1, -1))
        model.decoder.conv_out.bias.zero_()
    rows = model.quantize.embedding.weight
    rows.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], PEAK, betas=(0.9, 0.95),
                                  weight_decay=1e-4)
    sums, counts = rows.clone(), torch.ones(len(rows))
    path, start, busy = work('tokenizer.pt'), 0, 0.0
    if os.path.exists(path):
        state = torch.load(path)
        model.load_state_dict(state['model'])
        optimizer.load_state_dict(state['optimizer'])
        sums, counts, start, busy = state['sums'], state['counts'], state['step'], state['busy']
    log = Log('tokenizer.log', busy)
    generator = torch.Generator().manual_seed(options.seed + start)
    total, seen = torch.zeros(3), 0

    for step in range(start, options.steps):
        set_rate(optimizer, learning_rate(step, options.steps, PEAK, 60))
        pick = torch.randint(len(pictures), (BATCH,), generator=generator).numpy()
        x = data.to_float(pictures[pick])
        with torch.autocast('cpu', torch.bfloat16):
            y, vectors, codes = model(x, step >= WARM)
        y = y.float()
        mse = F.mse_loss(y, x)
        loss = F.l1_loss(y, x) + 2 * mse
        if codes is not None:
            near = model.quantize.rows()[codes]
            commitment = (vectors - near).square().sum(-1).mean()
            loss = loss + COMMITMENT * commitment
            total += torch.stack([mse.detach(), commitment.detach(), loss.detach()])
            seen += 1
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

        with torch.no_grad():
            flat = vectors.detach().flatten(0, 2)
            if step == WARM - 1:
                more = [model.vectors(data.to_float(pictures[i:i + 64])).flatten(0, 2) for i in range(0, 512, 64)]
                rows.copy_(first_codebook(torch.cat(more)[::4], len(rows), generator))
                sums, counts = rows.clone(), torch.ones(len(rows))
                log(f'codebook placed, mse {mse:.4f}')
            elif codes is not None:
                flat_codes = codes.flatten()
                sums.mul_(DECAY).index_add_(0, flat_codes, flat, alpha=1 - DECAY)
                counts.mul_(DECAY).add_(torch.bincount(flat_codes, minlength=len(rows)).float(), alpha=1 - DECAY)
                if step % 20 == 0 and step < options.steps * 0.7:
                    dead = counts < 0.5
                    if dead.any():
                        fresh = draw_far(flat, model.quantize.rows(), int(dead.sum()), generator)
                        sums[dead], counts[dead] = fresh, 1.0
                rows.copy_(F.normalize(sums, dim=1))

        if (step + 1) % 100 == 0 or step + 1 == options.steps:
            model.eval()
            text = ' '.join(f'{v:.4f}' for v in (total / max(seen, 1)).tolist())
            quality, used = psnr(model, check) if step >= WARM else (0, counts)
            log(f'step {step + 1} mse, commitment, loss {text} | test PSNR {quality:.2f} dB, '
                f'{int((used > 0).sum())} codes in use')
            model.train()
            total, seen = torch.zeros(3), 0
            save(path, model=model.state_dict(), optimizer=optimizer.state_dict(), sums=sums, counts=counts,
                 step=step + 1, busy=log.busy)


if __name__ == '__main__':
    main()
