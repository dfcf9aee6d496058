"""Killed and resumed trainings have the weights and the log of one that was not killed."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz.harness import Trial
from fuzz.killing import Work, in_child, killed
from fuzz.mutation import pick
from safetensors.torch import load_file

SECONDS, MEGABYTES = 180, None

_TIMINGS = ("time", "pictures_per_second")

Train = Callable[..., Path]


def start(home: Path) -> Trial:
    from tiny import boxes

    from galip.checkpoint import save_clip
    from galip.clip import build_clip
    from galip.data.shards import write_shards
    from galip.presets import preset
    from galip.train.config import ContrastiveConfig, GanConfig
    from galip.train.contrastive import train_clip
    from galip.train.gan import train

    torch.set_num_threads(1)  # a forked child has no other threads
    data, clip, facts = home / "data", home / "clip.safetensors", home / "work.json"
    options: dict[str, Any] = {
        "model": "tiny",
        "steps": 6,
        "save_every": 2,
        "log_every": 1,
        "precision": "fp32",
    }
    options |= {"device": "cpu", "seed": 7, "data": str(data)}

    def gan(out: Path) -> tuple[Train, Any]:
        return train, GanConfig(clip=str(clip), batch_size=5, out=str(out), **options)

    def towers(out: Path) -> tuple[Train, Any]:
        return train_clip, ContrastiveConfig(batch_size=10, out=str(out), **options)

    kinds = {"train": gan, "train-clip": towers}
    if not facts.exists():
        data.mkdir()
        write_shards(data, "train", boxes(24, seed=0), per_shard=10)
        write_shards(data, "val", boxes(9, seed=1))
        torch.manual_seed(0)
        save_clip(clip, build_clip(preset("tiny").clip), preset("tiny").clip)
        measured = {}
        for name, kind in kinds.items():
            run, config = kind(home / name)
            measured[name] = vars(in_child(partial(run, config), home / "log"))
        facts.write_text(json.dumps(measured))
    works = {name: Work(**measured) for name, measured in json.loads(facts.read_text()).items()}

    def trial(rng: np.random.Generator, folder: Path) -> str:
        name = str(pick(rng, kinds))
        out, log = folder / "run", folder / "log"
        run, config = kinds[name](out)
        work = partial(run, config, resume=True)
        times = int(pick(rng, (1, 1, 2, 3)))
        when = ", ".join(killed(work, works[name], rng, log) for _ in range(times))
        (folder / "killed.txt").write_text(when)
        in_child(work, log)
        model = "model.safetensors" if name == "train" else "clip.safetensors"
        _check_equal(load_file(home / name / model), load_file(out / model))
        expected, actual = (_log(run_folder / "log.jsonl") for run_folder in (home / name, out))
        assert actual == expected, f"another log, killed {when}: steps {[line['step'] for line in actual]}"
        leftovers = [
            path.name for path in out.rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"
        ]
        assert not leftovers, f"left over, killed {when}: {leftovers}"
        return f"{name}: the same"

    return trial


def _check_equal(expected: dict[str, torch.Tensor], actual: dict[str, torch.Tensor]) -> None:
    assert expected.keys() == actual.keys()
    different = [name for name, tensor in expected.items() if not torch.equal(tensor, actual[name])]
    assert not different, f"other weights: {different[:5]}"


def _log(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in _TIMINGS} for line in lines]
