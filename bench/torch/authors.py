"""The authors' own code as a peer: a checkout of their repository (Epiphqny/PAR), which is not part of this one.

    authors.py FOLDER MODEL N [--threads 2] [--device cpu]

Their model class in the same shape with random weights, and their functions around it, called as their sampling script
calls them (without its --compile), with the guidance and sampling of the other peers. Commands (peer.py):

    step DTYPE SLOT    their decode of the group that begins at SLOT (of one token, at n = 1)
    picture DTYPE      their generate for one class; each makes its cache and its masks anew, as theirs does
    vq GRID            their VQ-16's decode_code, float32

float32 is PyTorch's default, without TF32. At n = 1 their generate needs at least 2 tokens one by one before the groups,
which then are of one token: the same 576 steps.

Their code is written for PyTorch 2.1 and later. On an older one two names are put where they look for them, and the report
says so: empty modules for the compiler's settings, which they import and do not use, and PyTorch's own attention under the
name that it has in 1.13. Where that is not enough, the answer is why not.
"""
import argparse
import contextlib
import importlib
import importlib.util
import os
import sys
import time
import types

import torch
import torch.nn.functional as F

import peer

GRID, CLASSES, GUIDANCE = 24, 1000, 1.5
SAMPLING = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
ATTENTION = "scaled_dot_product_attention"


def prepare(answers):
    """What their imports need of an older PyTorch."""
    missing = []
    for name in ("torch._dynamo", "torch._inductor"):
        if importlib.util.find_spec(name) is None:
            for whole in (name, name + ".config"):
                sys.modules[whole] = types.ModuleType(whole)
            setattr(torch, name.split(".")[1], sys.modules[name])
            sys.modules[name].config = sys.modules[name + ".config"]
            missing.append(f"an empty {name}")
    if not hasattr(F, ATTENTION):
        own = getattr(F, "_" + ATTENTION, None)
        if own is None:
            raise peer.Cannot(f"The authors' code needs PyTorch 2.1 or later, and PyTorch {torch.__version__} has no {ATTENTION}.")

        def attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False):
            return own(query, key, value, attn_mask, dropout_p, False, is_causal)[0]

        setattr(F, ATTENTION, attention)
        missing.append(f"PyTorch's own _{ATTENTION} for {ATTENTION}")
    if missing:
        answers.note(f"written for PyTorch 2.1 and later, run on {torch.__version__}: " + ", ".join(missing))
    return True


def theirs(folder, name):
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise peer.Cannot(f"{name} of {folder} cannot be imported: {type(error).__name__}: {error}.") from error


def fill(module):
    """Matrices as those of the other peers, norms of ones: theirs begins with a head of zeros."""
    for p in module.parameters():
        p.data.uniform_(-0.03, 0.03) if p.dim() > 1 else p.data.fill_(1)


class Model:
    """Their transformer, with its cache as after the first tokens. Raises what their code raises."""

    def __init__(self, folder, name, n, device, dtype):
        gpt = theirs(folder, "autoregressive.models.gpt")
        self.code = theirs(folder, "autoregressive.models.generate")
        self.n, self.device, self.dtype = n, device, dtype
        # Weights are filled below: no minutes for their own first values. A device in `with` is of PyTorch 2.
        gpt.Transformer.initialize_weights = lambda model: None
        for kind in (torch.nn.Linear, torch.nn.Embedding):
            kind.reset_parameters = lambda module: None
        with self.on_device():
            model = gpt.GPT_models["GPT-" + name](
                vocab_size=16384, block_size=GRID * GRID, num_classes=CLASSES, cls_token_num=1, model_type="c2i", spe_token_num=n - 1, ar_token_num=n
            )
        self.model = model.to(device=device, dtype=dtype).eval()
        fill(self.model)
        self.ready = False

    def on_device(self):
        return torch.device(self.device) if hasattr(torch.device, "__enter__") else contextlib.nullcontext()

    def settle(self):
        """Both rows of the guidance see the class; then the first group, which their model treats by itself."""
        with self.on_device():
            self.model.setup_caches(max_batch_size=2, max_seq_length=GRID * GRID + 1, dtype=self.dtype)
        classes = torch.tensor([207, CLASSES], device=self.device)
        self.code.prefill(self.model, classes, torch.arange(1, device=self.device), GUIDANCE, **SAMPLING)
        self.ids = torch.zeros(1, self.n, dtype=torch.long, device=self.device)
        self.ready = True
        if self.n > 1:
            self.step(self.n)

    def step(self, at):
        """The slots from `at` on. A group of theirs begins at a multiple of n, as ours do."""
        slots = torch.arange(at, at + self.n, device=self.device)
        if self.n == 1:
            self.ids, _ = self.code.decode_one_token(self.model, self.ids, slots, GUIDANCE, True, **SAMPLING)
        else:
            self.ids, _ = self.code.decode_one_token_multi(self.model, self.ids, slots, GUIDANCE, True, spe_token_num=self.n, **SAMPLING)

    def picture(self):
        classes = torch.tensor([207], device=self.device)
        one_by_one, together = (self.n, self.n - 1) if self.n > 1 else (2, 0)
        tokens = self.code.generate(self.model, classes, GRID * GRID, cfg_scale=GUIDANCE, cfg_interval=-1, ar_token_num=one_by_one, spe_token_num=together, sample_logits=True, **SAMPLING)
        return tokens.cpu()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("model")
    parser.add_argument("n", type=int)
    parser.add_argument("--threads", type=int, default=0, help="0: as PyTorch chooses")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.threads > 0:
        torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    sys.dont_write_bytecode = True  # nothing is left in their folder
    folder = os.path.abspath(options.folder)
    sys.path.insert(0, folder)
    answers = peer.Answers()
    cuda = options.device.startswith("cuda")
    models, made = {}, {}

    def timed(work):
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) * 1000

    def device():
        if cuda and not torch.cuda.is_available():
            raise peer.Cannot(f"PyTorch {torch.__version__} finds no CUDA device.")
        if cuda:
            torch.cuda.set_device(torch.device(options.device).index or 0)
        return options.device

    def model(dtype):
        made["prepared"] = made.get("prepared") or prepare(answers)
        if dtype not in models:
            models[dtype] = Model(folder, options.model, options.n, device(), getattr(torch, dtype))
        return models[dtype]

    def step(dtype, slot):
        own = model(dtype)
        if not own.ready:
            own.settle()
        return timed(lambda: own.step(max(int(slot), options.n)))  # before that theirs are single tokens too

    def picture(dtype):
        own = model(dtype)
        if not hasattr(torch.device, "__enter__") or not hasattr(torch.backends.cuda, "sdp_kernel"):
            raise peer.Cannot(f"Their generate needs PyTorch 2.1 or later, and this is {torch.__version__}.")
        return timed(own.picture)

    def vq(grid):
        grid = int(grid)
        if "vq" not in made:
            vq_model = theirs(folder, "tokenizer.tokenizer_image.vq_model")
            made["vq"] = vq_model.VQ_models["VQ-16"](codebook_size=16384, codebook_embed_dim=8).to(device()).eval()
        codes = torch.randint(0, 16384, (1, grid * grid), device=options.device)
        return timed(lambda: made["vq"].decode_code(codes, [1, 8, grid, grid]))

    with torch.no_grad():
        peer.serve(answers, {"step": step, "picture": picture, "vq": vq})


if __name__ == "__main__":
    main()
