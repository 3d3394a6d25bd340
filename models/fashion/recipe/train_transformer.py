"""Trains the transformer for one n on the encoded pictures.

    python3 train_transformer.py --n 4 --steps 5600
    python3 train_transformer.py --n 16 --steps 3000 --start 4      # from the trained n = 4

The class is replaced by the null class for a tenth of the pictures, which is what guidance needs. Training saves every
200 steps and resumes from there, with the draws that an uninterrupted run would make. Exported weights are a moving
average of the trained ones.
"""
import argparse
import os

import torch

import fast
from par import Par
from run import Log, learning_rate, save, set_rate, work

BATCH, WARMUP, DROP, AVERAGE = 32, 150, 0.1, 0.998
SHAPE = dict(dim=128, layers=4, heads=2, vocabulary=128, classes=10, grid=(16, 16))


def new_model(n, start=None, **changes):
    """`changes` of the shape, or an `arrangement`."""
    model = Par(n=n, **{**SHAPE, **changes})
    for name, p in model.named_parameters():
        if p.dim() == 2:
            torch.nn.init.normal_(p, 0, 0.02 / (8 ** 0.5 if name.endswith(('wo.weight', 'w2.weight')) else 1))
    if start:
        state = torch.load(work(f'par-{start}.pt'))['average']
        special = 'spe_tok_embeddings.special_embeddings.weight'
        if special in state and n > 1:   # as many transition tokens as both have, the rest repeated
            state[special] = state[special].repeat(n, 1)[:n - 1]
        elif special in state:
            del state[special]
        model.load_state_dict(state, strict=False)
    return model


class Method:
    """What training does with a batch of codes [b, N] in raster order; here PAR's. `generator`: for further draws."""

    @staticmethod
    def step(model, classes, codes, generator):
        return fast.step(model, classes, codes[:, model.cells])

    @staticmethod
    def held_out(model, classes, codes):
        return -model.score(classes, codes[:, model.cells]).mean().item()


def train(name, model, steps, peak=2e-3, seed=0, method=Method):
    """Trains `model` in place and keeps its state in the work file `name`.pt; -> the averaged weights."""
    train, test = torch.load(work('codes-train.pt')), torch.load(work('codes-test.pt'))
    path, start, busy = work(f'{name}.pt'), 0, 0.0
    matrices = [p for k, p in model.named_parameters() if p.dim() == 2 and 'embedding' not in k]
    others = [p for k, p in model.named_parameters() if p.dim() != 2 or 'embedding' in k]
    optimizer = torch.optim.AdamW([{'params': matrices, 'weight_decay': 0.05}, {'params': others, 'weight_decay': 0.0}],
                                  lr=peak, betas=(0.9, 0.95))
    average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    generator, order, total = torch.Generator().manual_seed(seed), torch.empty(0, dtype=torch.long), 0.0
    if os.path.exists(path):
        resume = torch.load(path)
        model.load_state_dict(resume['model'])
        optimizer.load_state_dict(resume['optimizer'])
        generator.set_state(resume['generator'])
        average, start, busy, order = resume['average'], resume['step'], resume['busy'], resume['order']
    log = Log(f'{name}.log', busy)
    if start < steps:
        log(f'{name}: steps {start} to {steps}, {sum(p.numel() for p in model.parameters())} parameters')

    for step in range(start, steps):
        set_rate(optimizer, learning_rate(step, steps, peak, WARMUP))
        if len(order) < BATCH:
            order = torch.randperm(len(train['codes']), generator=generator)
        pick, order = order[:BATCH], order[BATCH:]
        codes = train['codes'][pick].long()
        drop = torch.rand(BATCH, generator=generator) < DROP
        classes = train['classes'][pick].masked_fill(drop, model.classes)
        optimizer.zero_grad(set_to_none=True)
        total += method.step(model, classes, codes, generator).mean().item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        keep = min(AVERAGE, (step + 1) / (step + 20))
        with torch.no_grad():
            for key, p in model.named_parameters():
                average[key].lerp_(p, 1 - keep)
        if (step + 1) % 100 == 0:
            log(f'step {step + 1} of {steps}: loss {total / 100:.4f}')
            total = 0.0
        if (step + 1) % 200 == 0 or step + 1 == steps:
            save(path, model=model.state_dict(), average=average, optimizer=optimizer.state_dict(), step=step + 1,
                 busy=log.busy, generator=generator.get_state(), order=order.clone())
        if (step + 1) % 500 == 0 or step + 1 == steps:
            trained = {k: v.clone() for k, v in model.state_dict().items()}
            model.load_state_dict(average)
            with torch.no_grad():
                loss = method.held_out(model, test['classes'][:200], test['codes'][:200].long())
            log(f'step {step + 1}: held-out loss {loss:.4f}')
            model.load_state_dict(trained)
    return average


def main():
    options = argparse.ArgumentParser()
    options.add_argument('--n', type=int, required=True)
    options.add_argument('--steps', type=int, required=True)
    options.add_argument('--start', type=int)
    options.add_argument('--peak', type=float, default=2e-3)
    options = options.parse_args()
    torch.manual_seed(options.n)
    train(f'par-{options.n}', new_model(options.n, options.start), options.steps, options.peak, 100 * options.n)


if __name__ == '__main__':
    main()
