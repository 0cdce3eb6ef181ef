"""The weights of U²-Net in a published ONNX file, under the names of the original state dict.

Reads the three message types of ONNX it needs from the Protobuf wire format (varints and
length-prefixed fields), without the ONNX package. Knows the network only as the order of its
convolutions, which is the order in which an exporter meets them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER = 1, 5
NODE_INPUT, NODE_OUTPUT, NODE_OP = 1, 2, 4
TENSOR_DIMS, TENSOR_TYPE, TENSOR_FLOATS, TENSOR_NAME, TENSOR_RAW = 1, 2, 4, 8, 9
"""Field numbers in onnx.proto."""
TYPES = {1: "<f4", 10: "<f2", 11: "<f8"}
"""Element types by their number in `TensorProto.DataType`."""
_VARINT, _EIGHT, _SIZED, _FOUR = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Node:
    """One operation of a graph."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_state(path: Path) -> dict[str, Tensor]:
    """State dict of the network in an ONNX file, float32; `ValueError` where it holds another.

    Where the exporter has folded a batch norm into its convolution, the batch norm is the identity.
    """
    from pipeline.saliency.u2net import build

    nodes, tensors = read_graph(path.read_bytes())
    convolutions = [node for node in nodes if node.op == "Conv"]
    norms = {node.inputs[0]: node for node in nodes if node.op == "BatchNormalization"}
    if len(convolutions) < 2:
        raise ValueError("it holds no network of convolutions.")
    narrow = _tensor(tensors, convolutions[1].inputs[1]).shape[0] == 16
    network = build("u2netp" if narrow else "u2net")
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    if len(layers) != len(convolutions):
        raise ValueError(f"it has {len(convolutions)} convolutions, not {len(layers)}.")
    state: dict[str, Tensor] = {}
    for (name, layer), node in zip(layers, convolutions, strict=True):
        parts = [_tensor(tensors, part) for part in node.inputs[1:]]
        if parts[0].shape != layer.weight.shape:
            raise ValueError(f"{name} has another shape in it.")
        state[f"{name}.weight"] = parts[0]
        state[f"{name}.bias"] = parts[1] if len(parts) > 1 else torch.zeros(len(parts[0]))
        if name.endswith(".conv_s1"):
            norm = norms.get(node.outputs[0])
            given = [_tensor(tensors, part) for part in norm.inputs[1:5]] if norm else None
            state |= _norm(name.replace("conv_s1", "bn_s1"), given, len(parts[0]))
    return state


def read_graph(message: bytes) -> tuple[list[Node], dict[str, Tensor]]:
    """Nodes in their order and float tensors by name, from the bytes of a `ModelProto`."""
    nodes: list[Node] = []
    tensors: dict[str, Tensor] = {}
    for field, value in fields(message):
        if field != MODEL_GRAPH:
            continue
        for part, content in fields(_bytes(value)):
            if part == GRAPH_NODE:
                nodes.append(_node(_bytes(content)))
            elif part == GRAPH_INITIALIZER:
                name, tensor = _initializer(_bytes(content))
                if tensor is not None:
                    tensors[name] = tensor
    return nodes, tensors


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a message: whole numbers as they are, all else as bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == _SIZED:
            length, at = _varint(message, at)
        elif kind in (_EIGHT, _FOUR):
            length = 8 if kind == _EIGHT else 4
        else:
            raise ValueError("it is no ONNX file.")
        if at + length > len(message):
            raise ValueError("it is cut short, or no ONNX file.")
        yield key >> 3, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The whole number that begins at a byte, seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte, at = message[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("it is cut short, or no ONNX file.")


def _node(message: bytes) -> Node:
    found: dict[int, list[str]] = {NODE_INPUT: [], NODE_OUTPUT: [], NODE_OP: []}
    for field, value in fields(message):
        if field in found:
            found[field].append(_bytes(value).decode())
    return Node("".join(found[NODE_OP]), tuple(found[NODE_INPUT]), tuple(found[NODE_OUTPUT]))


def _initializer(message: bytes) -> tuple[str, Tensor | None]:
    """Name and values of a `TensorProto`, float32; None for whole numbers."""
    dims: list[int] = []
    kind, name, raw = 0, "", b""
    for field, value in fields(message):
        if field == TENSOR_DIMS:
            dims += [value] if isinstance(value, int) else _packed(value)
        elif field == TENSOR_TYPE and isinstance(value, int):
            kind = value
        elif field == TENSOR_NAME:
            name = _bytes(value).decode()
        elif field in (TENSOR_RAW, TENSOR_FLOATS):
            raw += _bytes(value)
    if kind not in TYPES:
        return name, None
    values = np.frombuffer(raw, TYPES[kind]).astype(np.float32)
    if len(values) != math.prod(dims):
        raise ValueError(f"its tensor {name} is incomplete.")
    return name, torch.from_numpy(values.reshape(dims))


def _packed(message: bytes) -> list[int]:
    values, at = [], 0
    while at < len(message):
        value, at = _varint(message, at)
        values.append(value)
    return values


def _norm(name: str, given: list[Tensor] | None, channels: int) -> dict[str, Tensor]:
    """A batch norm's scale, shift, mean and variance; those of the identity where it is folded."""
    if given is None:
        zeros, ones = torch.zeros(channels), torch.ones(channels)
        given = [ones, zeros, zeros, ones - nn.BatchNorm2d(1).eps]
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": tensor for part, tensor in zip(names, given, strict=True)}


def _tensor(tensors: dict[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise ValueError(f"it has no values for {name}.")
    return tensors[name]


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("it is no ONNX file.")
    return value
