"""One training step of the transformer, arranged for a CPU: the arithmetic of par.py, forward and backward by hand.

Weights stay float32 parameters. Each step derives bfloat16 operands from them - the norm's weight folded into the
columns of the matrix behind it, the attention scale and the order of rotated pairs into the rows of wqkv - and lets
autograd carry their gradients back through that derivation; everything in between is bfloat16 matrix products and the
passes of kernels.c, with a float32 residual stream. FASHION_PRECISION=float32 makes them float32, which is faster on a
processor without bfloat16 instructions.
"""
import ctypes
import os
import subprocess

import torch

from run import work

ELEMENT = getattr(torch, os.environ.get('FASHION_PRECISION', 'bfloat16'))
_SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'kernels.c')


def _library():
    path = work(f'kernels-{str(ELEMENT)[6:]}.so')
    if not os.path.exists(path) or os.path.getmtime(path) < os.path.getmtime(_SOURCE):
        part = f'{path}.{os.getpid()}'   # several trainings may start at once
        subprocess.run(['gcc', '-O3', '-march=native', '-mprefer-vector-width=512', '-ffast-math', '-shared', '-fPIC',
                        *(['-DFLOAT32'] if ELEMENT == torch.float32 else []), _SOURCE, '-o', part, '-lmvec', '-lm'],
                       check=True)
        os.replace(part, path)
    return ctypes.CDLL(path)


_kernels = _library()


def call(name, *arguments):
    def convert(a):
        if isinstance(a, torch.Tensor):
            assert a.is_contiguous()
            return ctypes.c_void_p(a.data_ptr())
        return ctypes.c_void_p(None) if a is None else ctypes.c_long(a)
    getattr(_kernels, name)(*map(convert, arguments))


def low(*shape):
    return torch.empty(*shape, dtype=ELEMENT)


def operands(model):
    """Per layer [wqkv, wo, w13, w2], then the output head; as elements, still attached to the parameters."""
    dim, heads = model.output.in_features, model.heads
    head = dim // heads
    pairs = torch.cat([torch.arange(0, head, 2), torch.arange(1, head, 2)])
    rows = torch.cat([torch.cat([pairs + (part * heads + h) * head for h in range(heads)]) for part in (0, 1)]
                     + [torch.arange(2 * dim, 3 * dim)])
    scale = torch.ones(3 * dim, 1)
    scale[:dim] = head ** -0.5
    out = []
    for block in model.layers:
        a, f = block.attention, block.feed_forward
        out += [(a.wqkv.weight[rows] * scale * block.attention_norm.weight).to(ELEMENT), a.wo.weight.to(ELEMENT),
                (torch.cat([f.w1.weight, f.w3.weight]) * block.ffn_norm.weight).to(ELEMENT), f.w2.weight.to(ELEMENT)]
    return out + [(model.output.weight * model.norm.weight).to(ELEMENT)]


def step(model, classes, tokens):
    """Adds the gradients of the mean cross-entropy to the parameters; -> losses [b, N] in float32."""
    batch, slots = tokens.shape
    heads, dim = model.heads, model.output.in_features
    head, rows = dim // heads, batch * slots
    end = model.end.int()
    start = model.inputs(classes, tokens)
    attached = operands(model)
    weights = [w.detach() for w in attached]
    grads = [None] * len(weights)
    x, add, kept = start.detach().clone().view(rows, dim), None, []

    def norm(add):
        y, inv = low(rows, dim), torch.empty(rows)
        call('norm_forward', x, add, y, inv, rows, dim)
        return y, inv

    for i in range(len(model.layers)):
        wqkv, wo, w13, w2 = weights[4 * i:4 * i + 4]
        a, inv1 = norm(add)
        q, k, v = (low(batch * heads, slots, head) for _ in range(3))
        call('split_heads', a @ wqkv.t(), q, k, v, model.cos, model.sin, batch, slots, heads, head, 0)
        p = torch.bmm(q, k.transpose(1, 2))
        call('softmax_forward', p, end, batch * heads, slots)
        joined = low(rows, dim)
        call('merge_heads', joined, torch.bmm(p, v), batch, slots, heads, head, 0)
        b, inv2 = norm(joined @ wo.t())
        h = b @ w13.t()
        y = low(rows, h.shape[1] // 2)
        call('swiglu_forward', h, y, rows, y.shape[1])
        add = y @ w2.t()
        kept.append((a, inv1, q, k, v, p, joined, b, inv2, h, y))

    f, inv = norm(add)
    logits, losses = f @ weights[-1].t(), torch.empty(rows)
    call('cross_entropy', logits, tokens.contiguous(), losses, rows, logits.shape[1])

    grads[-1] = logits.t() @ f
    dx, d = torch.zeros(rows, dim), low(rows, dim)
    call('norm_backward', logits @ weights[-1], f, inv, dx, d, rows, dim)
    for i in reversed(range(len(model.layers))):
        wqkv, wo, w13, w2 = weights[4 * i:4 * i + 4]
        a, inv1, q, k, v, p, joined, b, inv2, h, y = kept.pop()
        grads[4 * i + 3] = d.t() @ y
        call('swiglu_backward', d @ w2, h, rows, y.shape[1])
        grads[4 * i + 2] = h.t() @ b
        call('norm_backward', h @ w13, b, inv2, dx, d, rows, dim)
        grads[4 * i + 1] = d.t() @ joined
        g = low(batch * heads, slots, head)
        call('merge_heads', d @ wo, g, batch, slots, heads, head, 1)
        dp = torch.bmm(g, v.transpose(1, 2))
        dv = torch.bmm(p.transpose(1, 2), g)
        call('softmax_backward', p, dp, end, batch * heads, slots)
        dq, dk = torch.bmm(dp, k), torch.bmm(dp.transpose(1, 2), q)
        dqkv = low(rows, 3 * dim)
        call('split_heads', dqkv, dq, dk, dv, model.cos, model.sin, batch, slots, heads, head, 1)
        grads[4 * i] = dqkv.t() @ a
        call('norm_backward', dqkv @ wqkv, a, inv1, dx, d, rows, dim)
    torch.autograd.backward([start, *attached], [dx.view_as(start), *grads])
    return losses.view(batch, slots)


def check():
    """The hand-written gradients against autograd through par.py, for every n and every ablation."""
    from order import Arrangement
    from par import Par
    for choices in ({'n': 1}, {'n': 4}, {'n': 16}, {'n': 4, 'order': 'raster'}, {'n': 4, 'initial': 'none'},
                    {'n': 16, 'attention': 'causal'}, {'n': 4, 'group': 1}):
        torch.manual_seed(choices['n'])
        model = Par(arrangement=Arrangement((16, 16), **choices))
        for block in model.layers:
            torch.nn.init.normal_(block.attention_norm.weight, 1, 0.1)
        classes, tokens = torch.randint(0, 11, (4,)), torch.randint(0, 128, (4, 256))
        loss = step(model, classes, tokens).mean().item()
        mine = {k: p.grad.clone() for k, p in model.named_parameters()}
        model.zero_grad()
        right = -model.score(classes, tokens).mean()
        right.backward()
        worst = max((((mine[k] - p.grad).norm() / p.grad.norm()).item(), k) for k, p in model.named_parameters())
        print(f'{choices}: loss {loss:.4f} against {right.item():.4f}, worst relative gradient error {worst}')


if __name__ == '__main__':
    check()
