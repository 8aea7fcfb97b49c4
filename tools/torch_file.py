"""Reads tensors from a file that PyTorch wrote before version 1.6, without PyTorch.

Such a file is five pickles in a row (magic number, protocol, system, state dict, keys of
the storages) and then, for every key, a 64-bit element count and the elements. The state
dict names storages by persistent identifiers. Only the few names that a state dict of
tensors needs are unpickled: a file cannot run code.
"""

import pickle
from collections import OrderedDict

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
TYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class Reader(pickle.Unpickler):
    """Unpickles a state dict; tensors become (storage key, offset, shape, strides)."""

    def __init__(self, file):
        super().__init__(file)
        self.storages = {}  # key -> element type

    def find_class(self, module, name):
        if module == "torch" and name in TYPES:
            return TYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda key, offset, shape, strides, *_: (key, offset, shape, strides)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a state dict")

    def persistent_load(self, identifier):
        _, kind, key, *_ = identifier
        self.storages[key] = kind
        return key


def read(path):
    """Name -> array, in the file's order."""
    with open(path, "rb") as file:
        if pickle.Unpickler(file).load() != MAGIC:
            raise ValueError(f"{path}: not a checkpoint in PyTorch's old format")
        for _ in ("protocol", "system"):
            Reader(file).load()
        reader = Reader(file)
        state = reader.load()
        elements = {}
        for key in Reader(file).load():
            count = int.from_bytes(file.read(8), "little")
            kind = reader.storages[key]
            elements[key] = np.frombuffer(file.read(count * kind.itemsize), kind)

    def array(key, offset, shape, strides):
        size = elements[key].itemsize
        view = np.lib.stride_tricks.as_strided(elements[key][offset:], shape, [s * size for s in strides])
        return view.copy()

    return {name: array(*tensor) for name, tensor in state.items()}
