"""Damaged and forged checkpoints are loaded completely or refused, and none of their code runs."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz.fixtures import galip, small_checkpoint
from fuzz.harness import Trial, out_of_memory
from fuzz.mutation import altered, as_json, change_file, mutated, odd_value, pick
from galip_runtime import GalipError

SECONDS, MEGABYTES = 20, 1000

Rng = np.random.Generator


def start(home: Path) -> Trial:
    from galip.checkpoint import load_clip, load_galip, read_info, save_clip
    from galip.clip import build_clip
    from galip.convert import read_state_dict
    from galip.presets import preset

    torch.set_num_threads(1)
    whole, clip = small_checkpoint(home), home / "clip.safetensors"
    if not clip.exists():
        torch.manual_seed(0)
        save_clip(clip, build_clip(preset("tiny").clip), preset("tiny").clip)

    def safetensors(path: Path, rng: Rng) -> str:
        path = path.with_suffix(".safetensors")
        path.write_bytes(pick(rng, (whole, clip)).read_bytes())
        change = change_file(path, rng, pick(rng, (mutated, _header, _header, _config, _config)))
        code, _ = galip("info", path)
        load = load_galip if code != 0 or read_info(path).kind == "galip" else load_clip
        load(path)
        assert code == 0, f"galip info refuses what can be loaded ({change}): exit code {code}"
        return "loaded"

    def pickled(path: Path, rng: Rng) -> str:
        path = path.with_suffix(".pth")
        bomb = path.with_name("boom")
        options = {"_use_new_zipfile_serialization": rng.random() < 0.7}
        torch.save(_odd_state(rng, bomb), path, **options)
        if rng.random() < 0.6:
            change_file(path, rng)
        try:
            with np.errstate(all="ignore"):
                read_state_dict(path)
            galip("convert", path, "--allow-missing-text", "--out", path.with_name("out.safetensors"))
        finally:
            assert not bomb.exists(), "a pickle was run"
        return "read"

    def trial(rng: Rng, folder: Path) -> str:
        kind: Callable[[Path, Rng], str] = pick(rng, (safetensors, safetensors, pickled))
        try:
            outcome = kind(folder / "model", rng)
        except GalipError as error:
            if out_of_memory(error):
                raise MemoryError("the trial reached its limit") from error
            outcome = type(error).__name__
        return f"{kind.__name__}: {outcome}"

    return trial


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the data of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _joined(header: object, numbers: bytes) -> bytes:
    text = as_json(header)
    return len(text).to_bytes(8, "little") + text + numbers


def _header(data: bytes, rng: Rng) -> bytes:
    """Change names, dtypes, shapes and offsets of tensors, and fields of the metadata."""
    header, numbers = _split(data)
    for _ in range(pick(rng, (1, 1, 3))):
        name = pick(rng, header)
        kind = rng.integers(5)
        if kind == 0:
            header[name] = altered(header[name], rng)
        elif kind == 1:
            header[pick(rng, (f"{name}.more", "text", "generator.", ""))] = header.pop(name)
        elif not isinstance(header[name], dict):  # an earlier change replaced it
            continue
        elif name == "__metadata__":
            header[name][pick(rng, header[name] or ["config"])] = pick(
                rng, ("", "1", "{}", "[]", "galip", "clip", "null")
            )
        elif kind == 2:
            header[name]["dtype"] = pick(
                rng, ("BOOL", "U8", "I64", "F16", "BF16", "F64", "F8_E4M3", "C64", "X", "F32")
            )
        elif kind == 3:
            shape = header[name].get("shape")
            reversed_shape = shape[::-1] if isinstance(shape, list) else []
            header[name]["shape"] = pick(rng, (reversed_shape, [], [0], [2**62, 4], [1, -1]))
        else:
            header[name]["data_offsets"] = pick(rng, ([0, 0], [4, 0], [0, 2**63], [0, len(numbers)]))
    return _joined(header, numbers)


def _config(data: bytes, rng: Rng) -> bytes:
    """Change the description of the model in the metadata: JSON within JSON."""
    header, numbers = _split(data)
    field = pick(rng, ("config", "config", "config", "parts", "aliases", "note"))
    document = json.loads(header["__metadata__"][field])
    for _ in range(pick(rng, (1, 1, 2))):
        document = _with_another_number(document, rng) if rng.random() < 0.5 else altered(document, rng)
    header["__metadata__"][field] = as_json(document).decode("utf-8", "replace")
    return _joined(header, numbers)


def _with_another_number(document: Any, rng: Rng) -> Any:
    """Change a number that determines the model's size."""
    numbers: list[tuple[Any, Any]] = []
    containers = [document] if isinstance(document, dict | list) else []
    while containers:
        container = containers.pop()
        for key, value in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(value, int):
                numbers.append((container, key))
            elif isinstance(value, dict | list):
                containers.append(value)
    if not numbers:
        return odd_value(rng)
    container, key = pick(rng, numbers)
    container[key] = pick(
        rng, (0, -1, 1, 2, 3, 7, 63, 10**3, 10**5, 10**8, 10**9, 2**31, 2**63, 1.5, "8", None)
    )
    return document


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def _odd_state(rng: Rng, bomb: Path) -> Any:
    """Return what a .pth file might hold, with tensors of every kind."""
    plain = torch.arange(12.0).reshape(3, 4)
    tensors: list[Any] = [
        plain,
        plain.half(),
        plain.to(torch.complex64),
        plain.to_sparse(),
        plain.to_sparse_csr(),
        plain.to("meta"),
        torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8),
        plain[:, ::2],
        plain[:0],
        plain.bool(),
        torch.nn.Parameter(plain),
        torch.tensor(float("nan")),
        torch.zeros(1).expand(2**40),
        plain.to(torch.float8_e4m3fn),
        torch.nested.nested_tensor([plain, plain[:2]]),
        _Bomb(bomb),
        pickle.dumps(_Bomb(bomb)),
        None,
        3,
        "text",
        {},
        [],
    ]
    names = ("fc_code.weight", "to_rgb.1.bias", "visual.proj", "x", 3, None, "module.x", "")
    modules = {
        module: {pick(rng, names): pick(rng, tensors) for _ in range(3)}
        for module in ("netG", "netD", "netC")
    }
    whole = {"model": modules, "epoch": pick(rng, tensors), "optimizers": {"optimizer_G": pick(rng, tensors)}}
    return pick(
        rng, (whole, whole, modules, modules["netG"], pick(rng, tensors), {"state_dict": modules["netG"]})
    )
