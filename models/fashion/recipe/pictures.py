"""Generating with the exported files, and contact sheets of the result."""
import torch
from PIL import Image
import numpy as np

import data
from export import load_tokenizer, load_transformer
from par import sampler


def generate(n, per_class, seed=0, model=None, tokenizer=None, **sampling):
    """-> bytes [10*per_class, 32, 32, 3], classes int64; `sampling` overrides the stored defaults."""
    if model is None:
        model, meta = load_transformer(n)
        sampling = {**meta['sampling'], **sampling}
    tokenizer = tokenizer or load_tokenizer()
    classes = torch.arange(data.CLASSES).repeat_interleave(per_class)
    generator = torch.Generator().manual_seed(seed)
    _, raster = model.generate(classes, sampling['guidanceScale'], sampler(
        sampling['temperature'], sampling['topK'], sampling['topP'], generator))
    with torch.no_grad():
        out = torch.cat([tokenizer.decode(part, (16, 16)) for part in raster.split(50)])
    return data.to_bytes(out), classes


def sheet(pictures, columns, path, zoom=2):
    """One row of the sheet per `columns` pictures."""
    rows = -(-len(pictures) // columns)
    if pictures.ndim == 3:
        pictures = np.repeat(pictures[..., None], 3, -1)
    canvas = np.full((rows * 34, columns * 34, 3), 60, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = divmod(i, columns)
        canvas[y * 34 + 1:y * 34 + 33, x * 34 + 1:x * 34 + 33] = picture
    image = Image.fromarray(canvas)
    image.resize((image.width * zoom, image.height * zoom), Image.NEAREST).save(path)
