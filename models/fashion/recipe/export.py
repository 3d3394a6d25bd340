"""Writes the package's safetensors files from the training checkpoints, and reads them back.

    python3 export.py     # whatever is there: tokenizer.safetensors, par-1/-4/-16, recipe/classifier

Transformers are stored in bfloat16, the tokenizer in float32. Everything measured elsewhere in this folder is
measured on the stored weights.
"""
import json
import os
import sys

import torch

import data
import tensors
from arpg import Arpg
from par import Par
from run import work
from vq import Tokenizer

FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SAMPLING = {   # found by tune.py
    1: {'guidanceScale': 2.0, 'temperature': 1.0, 'topK': 0, 'topP': 0.95},
    4: {'guidanceScale': 2.0, 'temperature': 1.0, 'topK': 0, 'topP': 0.95},
    16: {'guidanceScale': 2.0, 'temperature': 1.0, 'topK': 0, 'topP': 0.95},
}
FIRST_CELL = 136   # of every order of ARPG: row 8, column 8 of 16 x 16 (train_arpg.py)
ARPG_SAMPLING = {'guidanceScale': 9.0, 'temperature': 1.0, 'topK': 0, 'topP': 0.85}


def file(name):
    return os.path.join(FOLDER, name)


def write_tokenizer():
    state = dict(torch.load(work('tokenizer.pt'))['model'])
    for name in ('decoder.conv_out.weight', 'decoder.conv_out.bias'):   # equal but for rounding: make the grey exact
        state[name] = state[name].mean(0, keepdim=True).expand_as(state[name])
    tensors.write(file('tokenizer.safetensors'), state, {'format': 'pt', 'parvis': json.dumps(
        {'kind': 'tokenizer', 'name': 'parvis-fashion tokenizer', 'imageSize': [32, 32]})})


def write_transformer(n):
    state = torch.load(work(f'par-{n}.pt'))['average']
    table, vocabulary = state['cls_embedding.embedding_table.weight'], state['output.weight'].shape[0]
    tensors.write(file(f'par-{n}.safetensors'), {k: v.bfloat16() for k, v in state.items()},
                  {'format': 'pt', 'parvis': json.dumps({
                      'kind': 'transformer', 'layers': 1 + max(int(k.split('.')[1]) for k in state if k.startswith('layers.')),
                      'dim': table.shape[1], 'heads': table.shape[1] // 64, 'vocabularySize': vocabulary,
                      'classes': table.shape[0] - 1, 'n': n, 'grid': [16, 16], 'labels': data.LABELS,
                      'sampling': SAMPLING[n], 'name': f'parvis-fashion n={n}'})})


def write_arpg():
    state = torch.load(work('arpg.pt'))['average']
    vocabulary, dim = state['head.weight'].shape
    layers = sum(k.endswith('.attn_norm.weight') for k in state)
    tensors.write(file('arpg.safetensors'), {k: v.bfloat16() for k, v in state.items()},
                  {'format': 'pt', 'parvis': json.dumps({
                      'kind': 'transformer', 'layers': layers, 'dim': dim, 'heads': dim // 64,
                      'vocabularySize': vocabulary, 'classes': state['embeddings.weight'].shape[0] - vocabulary - 3,
                      'grid': [16, 16], 'labels': data.LABELS, 'firstCell': FIRST_CELL, 'sampling': ARPG_SAMPLING,
                      'name': 'parvis-fashion ARPG'})})


def write_classifier():
    state = torch.load(work('classifier.pt'))['model']
    tensors.write(file('recipe/classifier.safetensors'), {k: v.bfloat16() for k, v in state.items()},
                  {'format': 'pt', 'parvis': json.dumps({'kind': 'classifier', 'labels': data.LABELS})})


def load_tokenizer():
    state, _ = tensors.read(file('tokenizer.safetensors'))
    model = Tokenizer(codes=state['quantize.embedding.weight'].shape[0])
    model.load_state_dict({k: v.float() for k, v in state.items()})
    return model.eval()


def load_transformer(n):
    """-> (model in float32 with the stored values, the description stored with it)."""
    state, meta = tensors.read(file(f'par-{n}.safetensors'))
    meta = json.loads(meta['parvis'])
    model = Par(meta['dim'], meta['layers'], meta['heads'], meta['vocabularySize'], meta['classes'], meta['n'], meta['grid'])
    model.load_state_dict({k: v.float() for k, v in state.items()})
    return model.eval(), meta


def load_arpg():
    """-> (model in float32 with the stored values, the description stored with it)."""
    state, meta = tensors.read(file('arpg.safetensors'))
    meta = json.loads(meta['parvis'])
    model = Arpg(meta['dim'], meta['layers'], meta['heads'], meta['vocabularySize'], meta['classes'], meta['grid'])
    model.load_state_dict({k: v.float() for k, v in state.items()})
    return model.eval(), meta


def main():
    if os.path.exists(work('tokenizer.pt')):
        write_tokenizer()
    for n in SAMPLING:
        if os.path.exists(work(f'par-{n}.pt')):
            write_transformer(n)
    if os.path.exists(work('arpg.pt')):
        write_arpg()
    if os.path.exists(work('classifier.pt')):
        write_classifier()


if __name__ == '__main__':
    sys.exit(main())
