"""Writes the numbers that the package's tests compare the exported files with (float32 on the stored weights).

    python3 expected.py FILE
"""
import sys

import torch

import data
import tensors
from export import load_arpg, load_tokenizer, load_transformer
from par import greedy
from train_arpg import orders

# Chosen so that no compared choice is a near tie: the best and second best code of every cell of these pictures differ by at
# least 5e-4 in cosine, the best and second best logit of every greedy step by at least 5e-3.
PICTURES, CLASS, GUIDANCE = (157, 321), 5, 2.0


def main():
    torch.set_num_threads(1)
    pictures, classes = data.load('test')
    tokenizer = load_tokenizer()
    x = data.to_float(pictures[list(PICTURES)]).contiguous()
    with torch.no_grad():
        codes = tokenizer.encode(x)
        out = {'encode.input': x, 'encode.codes': codes, 'codes': codes, 'decoded': tokenizer.decode(codes, (16, 16))}
    meta = {'testPictures': ','.join(map(str, PICTURES)), 'testClasses': ','.join(str(classes[i]) for i in PICTURES),
            'classId': str(CLASS), 'greedyGuidanceScale': str(GUIDANCE), 'grid': '16'}
    for n in (1, 4, 16):
        try:
            model, _ = load_transformer(n)
        except FileNotFoundError:
            continue
        with torch.no_grad():
            first = codes[:1, model.cells]
            out[f'n{n}.tokens'] = first
            out[f'n{n}.logprobs'] = model.score(torch.tensor([CLASS]), first)
            _, out[f'n{n}.greedy'] = model.generate(torch.tensor([CLASS]), GUIDANCE, greedy)
    try:
        model, _ = load_arpg()
    except FileNotFoundError:
        pass
    else:
        order = orders(codes[:1], torch.Generator().manual_seed(20))[0]
        with torch.no_grad():
            out['arpg.order'] = order
            out['arpg.logprobs'] = model.score(torch.tensor([CLASS]), codes[:1, order], order[None])
    tensors.write(sys.argv[1], {k: v.int() if v.dtype == torch.int64 else v for k, v in out.items()}, meta)


if __name__ == '__main__':
    main()
