"""The peer on a GPU: the same transformer in PyTorch as it is made fast there, for ratios taken in one run.

What a user who knows PyTorch well would write: bfloat16, a static key/value cache (heads padded to 8 elements, where that is
missing), layers compiled by torch.compile, one CUDA graph a step, embeddings, guidance and draws inside it, so that the host
only replays graphs. Random weights of the paper's shapes; a picture is all the steps of PAR at 24 x 24 tokens, batch 1 with
guidance.

    gpu.py --serve eager|compiled --models L --n 4 [--seconds 200] [--device cuda:0] [--check]

It measures nothing by itself: it answers the commands "picture bfloat16" and "picture float32" with milliseconds (peer.py),
so that `parvis bench` and scripts/device.js alternate its pictures with those of parvis.

`compiled` is the fastest of three: the compiler as it comes (`reduce-overhead`); `max-autotune`, which has it time alternatives
of every product; and that with PyTorch's own attention (`sdpa`; `plain` attention is left to the compiler). The second and the
third are begun where a third of --seconds has not gone by. One layer is compiled and used for all. The graphs are recorded here,
around whole steps: the compiler makes none of functions that write to their arguments, as these do to the cache. `eager` is the
same functions on the same static cache without compiler and graphs, with PyTorch's own attention where there is one.
"""
import argparse
import time

import torch
import torch.nn.functional as F

import peer

SHAPES = {"B": (12, 768, 12), "L": (24, 1024, 16), "XL": (36, 1280, 20), "XXL": (48, 1536, 24), "3B": (24, 3200, 32)}
GRID, VOCABULARY, CLASSES = 24, 16384, 1000
SLOTS = GRID * GRID
# The compiler's modes without graphs of its own: they are recorded around the compiled functions.
MODES = {"reduce-overhead": "default", "max-autotune": "max-autotune-no-cudagraphs"}


# ---- what a step computes: plain functions, so that one compilation serves all layers ----------------------------


def rms(x, weight):
    f = x.float()
    return (f * torch.rsqrt(f.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype) * weight


def rotate(x, angle):  # x [2, rows, heads, head], angle [rows, head / 2, 2]
    f = x.float().unflatten(-1, (-1, 2))
    c, s = angle[:, None, :, 0], angle[:, None, :, 1]
    return torch.stack((f[..., 0] * c - f[..., 1] * s, f[..., 1] * c + f[..., 0] * s), -1).flatten(3).to(x.dtype)


def attend(q, keys, values, mask, scale, kind):  # q [2, heads, rows, padded head]
    if kind == "sdpa":
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, scale=scale)
    scores = (q @ keys.transpose(2, 3)).float() * scale
    return torch.softmax(scores.masked_fill(~mask, float("-inf")), -1).to(q.dtype) @ values


def padded(x, width):
    return x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1]))


def layer(x, at, mask, angle, weights, kind):
    qkv, wo, w13, w2, n1, n2, keys, values = weights
    rows, heads, width = x.shape[1], keys.shape[1], keys.shape[3]
    head = wo.shape[1] // heads
    q, k, v = F.linear(rms(x, n1), qkv).view(2, rows, 3, heads, head).unbind(2)
    keys[:, :, at] = padded(rotate(k, angle), width).transpose(1, 2)
    values[:, :, at] = padded(v, width).transpose(1, 2)
    o = attend(padded(rotate(q, angle), width).transpose(1, 2), keys, values, mask, head**-0.5, kind)
    x = x + F.linear(o[..., :head].transpose(1, 2).reshape(2, rows, heads * head), wo)
    gate, up = F.linear(rms(x, n2), w13).chunk(2, -1)
    return x + F.linear(F.silu(gate) * up, w2)


def begin(step, at, reads, angle, constant, sees, columns, tokens, embeddings):
    """What the step of that number reads: its slots, mask and angles, and the embeddings of its rows."""
    at, reads, angle = at[step][0], reads[step][0], angle[step][0]
    ids = torch.where(reads >= 0, tokens[reads.clamp(min=0)], constant[step][0])  # [2, rows]
    mask = (columns < sees[step]).expand(reads.shape[0], columns.shape[0])
    return embeddings[ids], at, mask, angle


def draw(x, norm, output, noise):
    logits = F.linear(rms(x, norm), output).float()
    logits = logits[1] + 1.5 * (logits[0] - logits[1])
    return torch.argmax(torch.softmax(logits, -1) / noise, -1)  # the race of exponentials


# ---- a picture ---------------------------------------------------------------------------------------------------


class Model:
    """Random weights of a shape, and the cache. `most`: at most so many layers."""

    def __init__(self, name, device, dtype=torch.bfloat16, most=None):
        count, dim, heads = SHAPES[name]
        self.device = device
        hidden = -(-(2 * 4 * dim // 3) // 256) * 256
        self.head = dim // heads

        def matrix(rows, columns):
            return (torch.rand(rows, columns, device=device) * 0.06 - 0.03).to(dtype)

        def cache():
            return torch.zeros(2, heads, SLOTS, -(-self.head // 8) * 8, device=device, dtype=dtype)

        def ones():
            return torch.ones(dim, device=device, dtype=dtype)

        self.layers = [
            (matrix(3 * dim, dim), matrix(dim, dim), matrix(2 * hidden, dim), matrix(dim, hidden), ones(), ones(), cache(), cache())
            for _ in range(count if most is None else most)
        ]
        self.norm, self.output = ones(), matrix(VOCABULARY, dim)
        self.embeddings = matrix(VOCABULARY + CLASSES + 1 + 15, dim)  # tokens, classes, transition tokens


class Steps:
    """The steps that have the same number of rows. Their tables lie on the device, with the number of the step."""

    def __init__(self, model, n, slots, rows, tokens, compiled):
        self.model, self.rows, self.tokens, self.compiled = model, rows, tokens, compiled
        device = model.device
        at = torch.tensor([[s + i for i in range(rows)] for s in slots])
        # What each row reads: a token of the sequence, or (below zero) the class or a transition token.
        place = lambda slot: -1 if slot == 0 else slot - 1 if slot < n else slot - n if slot >= 2 * n else n - 1 if slot == n else -1 - slot % n
        reads = torch.tensor([[place(s) for s in row] for row in at.tolist()])
        constant = torch.where(reads == -1, VOCABULARY, VOCABULARY + CLASSES - 1 - reads)
        unconditional = torch.where(reads == -1, VOCABULARY + CLASSES, constant)
        side = int(n**0.5)
        inside, of, region = reads.clamp(min=0) // n, reads.clamp(min=0) % n, GRID // side
        row, column = of // side * region + inside // region, of % side * region + inside % region
        frequency = 10000.0 ** (-torch.arange(0, model.head // 2, 2).float() / (model.head // 2))
        turn = torch.cat((row[..., None] * frequency, column[..., None] * frequency), -1)
        angle = torch.stack((turn.cos(), turn.sin()), -1) * (reads >= 0)[..., None, None]
        self.at, self.reads, self.angle = at.to(device), reads.to(device), angle.to(device)
        self.constant = torch.stack((constant, unconditional), 1).to(device)  # [steps, 2, rows]
        self.sees = (at[:, -1:] + 1).to(device)
        self.columns = torch.arange(SLOTS, device=device)
        self.count = len(slots)
        self.step = torch.zeros(1, dtype=torch.long, device=device)
        self.graph = None

    def run(self):
        m = self.model
        x, at, mask, angle = self.compiled["begin"](self.step, self.at, self.reads, self.angle, self.constant, self.sees, self.columns, self.tokens, m.embeddings)
        x = self.compiled["layers"](x, at, mask, angle)
        noise = torch.empty(self.rows, VOCABULARY, device=m.device).exponential_(1)
        self.tokens[at] = self.compiled["draw"](x, m.norm, m.output, noise)
        self.step += 1

    def record(self):
        """Runs as often as compiling and warming up take, then records the graph."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.step.zero_()
                self.run()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        self.step.zero_()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=side):
            self.run()

    def all(self):
        self.step.zero_()
        for _ in range(self.count):
            self.graph.replay() if self.graph else self.run()


def functions(model, attention, mode):
    """What a step calls, compiled in that mode of the compiler; without one where there is no mode."""
    wrap = (lambda f: f) if mode is None else (lambda f: torch.compile(f, mode=mode, fullgraph=True, dynamic=False))
    one = wrap(layer)

    def run(x, at, mask, angle):
        for weights in model.layers:
            x = one(x, at, mask, angle, weights, attention)
        return x

    return {"begin": wrap(begin), "layers": run, "draw": wrap(draw)}


class Picture:
    """All the steps of a picture. `mode`: compiled so and recorded as graphs, which takes `compile_ms`; None: neither."""

    def __init__(self, model, n, attention, mode):
        if attention == "sdpa" and not hasattr(F, "scaled_dot_product_attention"):
            raise peer.Cannot(f"PyTorch {torch.__version__} has no scaled_dot_product_attention.")
        self.tokens = torch.zeros(SLOTS, dtype=torch.long, device=model.device)
        self.cuda = model.device.startswith("cuda")
        several = single = functions(model, attention, mode and MODES[mode])
        # Steps of one row are 4 of 147 at n = 4: tuning them would take as long as tuning the others. At n = 16 they count.
        if mode == "max-autotune" and n <= 4:
            single = functions(model, attention, "default")
        self.parts = [Steps(model, n, list(range(n)), 1, self.tokens, single), Steps(model, n, list(range(n, SLOTS, n)), n, self.tokens, several)]
        self.steps = sum(part.count for part in self.parts)
        self.compile_ms = self.timed(lambda: [part.record() for part in self.parts]) if mode else 0

    def timed(self, work):
        if self.cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if self.cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) * 1000

    def run(self):
        for part in self.parts:
            part.all()
        self.tokens.cpu()  # until the host has them

    def time(self):
        return self.timed(self.run)

    def check(self):
        """A first picture: are its tokens drawn as they should be?"""
        self.tokens.fill_(-1)
        self.run()
        tokens = self.tokens.tolist()
        if min(tokens) < 0 or max(tokens) >= VOCABULARY or len(set(tokens)) < SLOTS // 4:
            raise RuntimeError("the picture's tokens are not drawn as they should be")


# ---- answering -----------------------------------------------------------------------------------------------


def start(device):
    """Raises where the device is not there."""
    torch.manual_seed(1)
    if not device.startswith("cuda"):
        return
    if not torch.cuda.is_available():
        raise peer.Cannot(f"PyTorch {torch.__version__} finds no CUDA device.")
    torch.cuda.set_device(torch.device(device).index or 0)
    import torch._dynamo as dynamo

    for name in ("recompile_limit", "cache_size_limit"):  # its name in newer and in older versions
        if hasattr(dynamo.config, name):
            setattr(dynamo.config, name, 256)
            break


def serve(options, device):
    answers = peer.Answers()
    name, n = options.models, options.n
    made = {}

    def first(kind, dtype):
        start(device)
        model = Model(name, device, getattr(torch, dtype), 2 if options.check else None)
        if kind == "eager":
            picture = Picture(model, n, "sdpa" if hasattr(F, "scaled_dot_product_attention") else "plain", None)
            picture.check()
            return picture
        candidates, began, failure = [], time.perf_counter(), None
        for mode, attention in (("reduce-overhead", "plain"), ("max-autotune", "plain"), ("max-autotune", "sdpa")):
            what = f"{mode}, {attention} attention"
            if candidates and time.perf_counter() - began > options.seconds / 3:
                answers.note(f"there was no time to compile with {what}")
                break
            answers.doing(f"compiling, {what}")
            try:
                picture = Picture(model, n, attention, None if options.check else mode)
                picture.check()
            except Exception as error:  # the others may do
                failure = failure or error
                answers.note(f"{what} failed with {type(error).__name__}: {str(error)[:200]}")
                continue
            answers.doing(f"compiled, {what}")
            candidates.append((min(picture.time() for _ in range(1 if options.check else 2)), what, picture))
        if not candidates:
            raise failure
        _, what, picture = min(candidates, key=lambda one: one[0])
        answers.compiled((time.perf_counter() - began) * 1000)
        answers.note(f"each layer compiled with {what}" + (f", the fastest of {len(candidates)}" if len(candidates) > 1 else ""))
        return picture

    def picture(dtype):
        with torch.no_grad():
            if dtype not in made:
                made[dtype] = first(options.serve, dtype)
            return made[dtype].time()

    peer.serve(answers, {"picture": picture})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", choices=["eager", "compiled"], required=True, help="answer commands on standard input")
    parser.add_argument("--models", default="XXL", choices=sorted(SHAPES), help="one of them")
    parser.add_argument("--n", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=200)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--check", action="store_true", help="on the CPU, two layers, no compiler: is the program whole?")
    options = parser.parse_args()
    serve(options, "cpu" if options.check else options.device)


if __name__ == "__main__":
    main()
