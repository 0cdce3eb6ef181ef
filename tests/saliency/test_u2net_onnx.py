"""Laws of reading ONNX: the same network comes out, whether its batch norms were folded or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ModelError

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from pipeline.saliency.u2net import U2Net, build, load  # noqa: E402
from pipeline.saliency.u2net_onnx import fields  # noqa: E402


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: int | bytes | str) -> bytes:
    """A whole number, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def node(op: str, inputs: list[str], output: str) -> bytes:
    parts = [field(1, name) for name in inputs]
    return field(1, b"".join([*parts, field(2, output), field(4, op)]))


def tensor(name: str, array: np.ndarray, *, raw: bool = True) -> bytes:
    """An initialiser; its dimensions and values in one or the other way that Protobuf allows."""
    kind = {"float32": 1, "float16": 10, "int64": 7}[array.dtype.name]
    dims = [field(1, d) for d in array.shape]
    if not raw:
        dims = [field(1, b"".join(varint(d) for d in array.shape))]
    return field(5, b"".join([*dims, field(2, kind), field(8, name),
                              field(9 if raw else 4, array.tobytes())]))  # fmt: skip


def exported(network: U2Net, *, fold: bool, half: bool = False) -> bytes:
    """What an exporter writes: the convolutions in the order in which they run."""
    ran: list[str] = []
    names = {layer: name for name, layer in network.named_modules()}
    hooks = [
        layer.register_forward_hook(lambda layer, *_: ran.append(names[layer]))
        for layer in names
        if isinstance(layer, torch.nn.Conv2d)
    ]
    with torch.inference_mode():
        network(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    graph = [tensor("shape", np.arange(4))]
    for number, name in enumerate(ran):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        norm = name.replace("conv_s1", "bn_s1")
        if fold and norm != name:
            gain = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + 1e-5)
            weight = weight * gain[:, None, None, None]
            bias = (bias - state[f"{norm}.running_mean"]) * gain + state[f"{norm}.bias"]
        graph.append(node("Conv", [f"x{number}", f"w{number}", f"b{number}"], f"y{number}"))
        kind = np.float16 if half else np.float32
        graph.append(tensor(f"w{number}", weight.astype(kind), raw=number % 2 == 0 or half))
        graph.append(tensor(f"b{number}", bias.astype(kind), raw=number % 3 == 0 or half))
        if not fold and norm != name:
            own = [f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
            graph.append(node("BatchNormalization", [f"y{number}", *own], f"z{number}"))
            graph += [tensor(part, state[part]) for part in own]
        graph.append(node("Relu", [f"y{number}"], f"r{number}"))
    return b"".join([field(1, 8), field(2, "a writer"), field(7, b"".join(graph))])


@pytest.fixture(scope="module")
def network() -> U2Net:
    torch.manual_seed(5)
    network = build("u2netp").eval()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(layer.weight, 0.7, 1.3)
            torch.nn.init.uniform_(layer.bias, -0.1, 0.1)
    return network


@pytest.mark.parametrize("fold", [True, False])
def test_an_onnx_file_is_the_network_it_was_made_from(
    network: U2Net, tmp_path: Path, fold: bool
) -> None:
    path = tmp_path / "u2netp.onnx"
    path.write_bytes(exported(network, fold=fold))
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        pairs = zip(load(path)(pixels), network(pixels), strict=True)
        for found, true in pairs:
            torch.testing.assert_close(found, true, rtol=0, atol=1e-5)


def test_half_precision_values_are_read(network: U2Net, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    path.write_bytes(exported(network, fold=True, half=True))
    assert torch.equal(load(path).outconv.weight, network.outconv.weight.half().float())


def test_a_file_that_is_cut_or_holds_another_network_is_refused(
    network: U2Net, tmp_path: Path
) -> None:
    whole = exported(network, fold=True)
    other = field(7, node("Conv", ["x", "w", "b"], "y") + tensor("w", np.ones((2, 2), np.float32)))
    lost = whole.replace(b"\x02w7", b"\x02v7", 1)
    for content in (whole[: len(whole) // 2], other, lost, b"\xff" * 40, whole[:1]):
        path = tmp_path / "broken.onnx"
        path.write_bytes(content)
        with pytest.raises(ModelError, match="cannot be read"):
            load(path)


def test_fields_come_back_as_they_were_written() -> None:
    message = field(1, 300) + field(2, b"abc") + b"\x1d1234" + b"\x2112345678" + field(15, 2**63)
    assert list(fields(message)) == [
        (1, 300), (2, b"abc"), (3, b"1234"), (4, b"12345678"), (15, 2**63),
    ]  # fmt: skip
