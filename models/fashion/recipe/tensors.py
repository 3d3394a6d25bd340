"""Reading and writing the safetensors format: eight bytes of header length, a JSON header, raw tensors."""
import json
import struct

import numpy as np
import torch

_TYPES = {'F32': torch.float32, 'BF16': torch.bfloat16, 'F16': torch.float16, 'I32': torch.int32, 'U8': torch.uint8}
_NAMES = {v: k for k, v in _TYPES.items()}


def write(path, tensors, metadata):
    """Names sorted in the header; data in the same order, except that a tensor whose bytes are no multiple of eight
    (three biases) comes last, so that every other tensor starts at a multiple of eight. All metadata values are strings."""
    def size(name):
        return tensors[name].numel() * tensors[name].element_size()

    header, blobs, offset = {}, [], 0
    for name in sorted(tensors, key=lambda name: (size(name) % 8 > 0, name)):
        tensor = tensors[name].detach().contiguous()
        if offset % tensor.element_size():
            raise ValueError(f'{name} would start at byte {offset}, inside an element')
        flat = tensor.view(torch.int16) if tensor.element_size() == 2 else tensor
        header[name] = {'dtype': _NAMES[tensor.dtype], 'shape': list(tensor.shape),
                        'data_offsets': [offset, offset + size(name)]}
        blobs.append(flat.numpy().tobytes())
        offset += size(name)
    header = {'__metadata__': metadata, **{name: header[name] for name in sorted(header)}}
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as file:
        file.write(struct.pack('<Q', len(text)) + text + b''.join(blobs))


def read(path):
    """-> (tensors, metadata)."""
    with open(path, 'rb') as file:
        raw = file.read()
    start = 8 + struct.unpack('<Q', raw[:8])[0]
    header = json.loads(raw[8:start])
    metadata, tensors = header.pop('__metadata__', {}), {}
    for name, entry in header.items():
        dtype = _TYPES[entry['dtype']]
        begin, end = entry['data_offsets']
        plain = {torch.bfloat16: torch.int16, torch.float16: torch.int16}.get(dtype, dtype)
        kind = {torch.int16: np.int16, torch.float32: np.float32, torch.int32: np.int32, torch.uint8: np.uint8}[plain]
        array = torch.from_numpy(np.frombuffer(raw, kind, (end - begin) // np.dtype(kind).itemsize, start + begin).copy())
        tensors[name] = (array.view(dtype) if plain != dtype else array).view(entry['shape'])
    return tensors, metadata
