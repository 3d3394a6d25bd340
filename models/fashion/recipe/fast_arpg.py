"""One training step of ARPG, arranged for a CPU as fast.py arranges PAR's: forward and backward by hand."""
import torch

from fast import ELEMENT, call, low


def operands(model):
    """Per self block [wqkv, wo, w13, w2], the shared [wkv], per cross block [wq, wo, w13, w2], the head; as elements,
    norms and the attention scale folded in, still attached to the parameters."""
    dim, heads = model.head.in_features, model.heads
    head = dim // heads
    pairs = torch.cat([torch.arange(0, head, 2), torch.arange(1, head, 2)])
    rows = torch.cat([pairs + h * head for h in range(heads)])
    scale = head ** -0.5

    def common(block):
        f = block.ffn
        return [block.attn.proj.weight.to(ELEMENT),
                (torch.cat([f.w1.weight, f.w3.weight]) * block.ffn_norm.weight).to(ELEMENT), f.w2.weight.to(ELEMENT)]

    out = []
    for block in model.layers.self_dec:
        a = block.attn
        qkv = torch.cat([a.to_q.weight[rows] * scale, a.to_k.weight[rows], a.to_v.weight])
        out += [(qkv * block.attn_norm.weight).to(ELEMENT), *common(block)]
    kv = torch.cat([model.layers.to_k.weight[rows], model.layers.to_v.weight])
    out += [(kv * model.layers.norm.weight).to(ELEMENT)]
    for block in model.layers.cross_dec:
        out += [(block.attn.to_q.weight[rows] * scale * block.attn_norm.weight).to(ELEMENT), *common(block)]
    return out + [(model.head.weight * model.norm.weight).to(ELEMENT)]


def step(model, classes, tokens, order):
    """Adds the gradients of the mean cross-entropy to the parameters; -> losses [b, N] in float32. tokens [b, N] in
    generation order, order [b, N]: the raster cells, an order for each picture."""
    batch, slots = tokens.shape
    heads, dim = model.heads, model.head.in_features
    head, rows, count = dim // heads, batch * slots, len(model.layers.self_dec)
    end = torch.arange(1, slots + 1, dtype=torch.int32)
    (cos, sin), (query_cos, query_sin) = model.tables(order)
    content = model.content(classes, tokens)
    query = model.embeddings.weight[model.vocabulary]
    attached = operands(model)
    weights = [w.detach() for w in attached]
    grads = [None] * len(weights)
    cross = 4 * count + 1                                       # where the operands of the cross blocks begin

    def norm(x, add):
        y, inv = low(rows, dim), torch.empty(rows)
        call('norm_forward', x, add, y, inv, rows, dim)
        return y, inv

    def split(joined, parts, back):
        """Rows of the content into queries, keys and values, the last of which does not rotate."""
        for i, part in enumerate(parts):
            turn = (None, None) if part is parts[-1] else (cos, sin)
            call('split_part', joined, part, *turn, batch, slots, heads, head, len(parts) * dim, i * dim, back)

    def attend(q, k, v, wo):
        p = torch.bmm(q, k.transpose(1, 2))
        call('softmax_forward', p, end, batch * heads, slots)
        joined = low(rows, dim)
        call('merge_heads', joined, torch.bmm(p, v), batch, slots, heads, head, 0)
        return p, joined, joined @ wo.t()

    def feed_forward(x, add, w13, w2):
        b, inv = norm(x, add)
        h = b @ w13.t()
        y = low(rows, h.shape[1] // 2)
        call('swiglu_forward', h, y, rows, y.shape[1])
        return (b, inv, h, y), y @ w2.t()

    # ---- forward
    x, add, kept = content.detach().clone().view(rows, dim), None, []
    for i in range(count):
        wqkv, wo, w13, w2 = weights[4 * i:4 * i + 4]
        a, inv = norm(x, add)
        q, k, v = (low(batch * heads, slots, head) for _ in range(3))
        split(a @ wqkv.t(), (q, k, v), 0)
        p, joined, add = attend(q, k, v, wo)
        own, add = feed_forward(x, add, w13, w2)
        kept.append((a, inv, q, k, v, p, joined, own))
    shared, shared_inv = norm(x, add)
    joined_kv = shared @ weights[cross - 1].t()
    k, v = (low(batch * heads, slots, head) for _ in range(2))
    split(joined_kv, (k, v), 0)
    z, add, kept_cross = query.detach().expand(rows, dim).clone(), None, []
    for i in range(count):
        wq, wo, w13, w2 = weights[cross + 4 * i:cross + 4 * i + 4]
        a, inv = norm(z, add)
        q = low(batch * heads, slots, head)
        call('split_part', a @ wq.t(), q, query_cos, query_sin, batch, slots, heads, head, dim, 0, 0)
        p, joined, add = attend(q, k, v, wo)
        own, add = feed_forward(z, add, w13, w2)
        kept_cross.append((a, inv, q, p, joined, own))
    f, inv = norm(z, add)
    logits, losses = f @ weights[-1].t(), torch.empty(rows)
    call('cross_entropy', logits, tokens.contiguous(), losses, rows, logits.shape[1])

    # ---- backward
    def back_feed_forward(at, d, dx, own):
        b, inv, h, y = own
        grads[at + 3] = d.t() @ y
        call('swiglu_backward', d @ weights[at + 3], h, rows, y.shape[1])
        grads[at + 2] = h.t() @ b
        call('norm_backward', h @ weights[at + 2], b, inv, dx, d, rows, dim)

    def back_attend(at, d, q, k, v, p, joined):
        """-> gradients of q, k, v."""
        grads[at + 1] = d.t() @ joined
        g = low(batch * heads, slots, head)
        call('merge_heads', d @ weights[at + 1], g, batch, slots, heads, head, 1)
        dp = torch.bmm(g, v.transpose(1, 2))
        dv = torch.bmm(p.transpose(1, 2), g)
        call('softmax_backward', p, dp, end, batch * heads, slots)
        return torch.bmm(dp, k), torch.bmm(dp.transpose(1, 2), q), dv

    grads[-1] = logits.t() @ f
    dz, d = torch.zeros(rows, dim), low(rows, dim)
    call('norm_backward', logits @ weights[-1], f, inv, dz, d, rows, dim)
    dk_shared, dv_shared = torch.zeros_like(k), torch.zeros_like(v)
    for i in reversed(range(count)):
        at = cross + 4 * i
        a, inv, q, p, joined, own = kept_cross.pop()
        back_feed_forward(at, d, dz, own)
        dq, dk, dv = back_attend(at, d, q, k, v, p, joined)
        dk_shared += dk
        dv_shared += dv
        dq_joined = low(rows, dim)
        call('split_part', dq_joined, dq, query_cos, query_sin, batch, slots, heads, head, dim, 0, 1)
        grads[at] = dq_joined.t() @ a
        call('norm_backward', dq_joined @ weights[at], a, inv, dz, d, rows, dim)

    dkv = low(rows, 2 * dim)
    split(dkv, (dk_shared, dv_shared), 1)
    grads[cross - 1] = dkv.t() @ shared
    dx = torch.zeros(rows, dim)
    call('norm_backward', dkv @ weights[cross - 1], shared, shared_inv, dx, d, rows, dim)
    for i in reversed(range(count)):
        at = 4 * i
        a, inv, q, k, v, p, joined, own = kept.pop()
        back_feed_forward(at, d, dx, own)
        dq, dk, dv = back_attend(at, d, q, k, v, p, joined)
        dqkv = low(rows, 3 * dim)
        split(dqkv, (dq, dk, dv), 1)
        grads[at] = dqkv.t() @ a
        call('norm_backward', dqkv @ weights[at], a, inv, dx, d, rows, dim)
    torch.autograd.backward([content, query, *attached], [dx.view_as(content), dz.sum(0), *grads])
    return losses.view(batch, slots)


def check():
    """The hand-written gradients against autograd through arpg.py."""
    from arpg import Arpg
    torch.manual_seed(1)
    model = Arpg()
    for block in [*model.layers.self_dec, *model.layers.cross_dec]:
        torch.nn.init.normal_(block.attn_norm.weight, 1, 0.1)
    classes, tokens, order = torch.randint(0, 11, (4,)), torch.randint(0, 128, (4, 256)), torch.rand(4, 256).argsort(1)
    loss = step(model, classes, tokens, order).mean().item()
    mine = {k: p.grad.clone() for k, p in model.named_parameters()}
    model.zero_grad()
    right = -model.score(classes, tokens, order).mean()
    right.backward()
    worst = max((((mine[k] - p.grad).norm() / p.grad.norm()).item(), k) for k, p in model.named_parameters())
    print(f'loss {loss:.4f} against {right.item():.4f}, worst relative gradient error {worst}')


if __name__ == '__main__':
    check()
