"""Training throughput, `galip train` against the released code's order: `python -m studies.throughput`.

Measures steps of both by turns, so that a shared machine's drift affects both alike. They start from the same
weights and get the same pictures, captions and noise. If their losses differ, there is no result.

Found: `galip train` is faster at both sizes: see the README's table, from `training_default.json` and
`training_released.json`.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from galip_bench.machine import describe_machine
from galip_bench.markdown import markdown_table
from galip_bench.released_order import release_generator, released_step
from galip_bench.statistics import median_interval
from galip_runtime import console
from galip_runtime.errors import GalipError, QualityGateFailed
from PIL import Image
from torch import Tensor

from galip.data.sampler import generator_for
from galip.model import Galip
from galip.presets import preset
from galip.train.augment import to_float
from galip.train.config import GanConfig
from galip.train.fabric import make_fabric
from galip.train.gan import make_loader
from galip.train.trainer import Trainer

__all__ = ["SCHEMA", "ThroughputConfig", "main", "measure", "table"]

SCHEMA = 1
TOLERANCE = 1e-3
"""How far the losses of the first step may be apart, relative to the larger or to 1."""


@dataclass(frozen=True)
class ThroughputConfig:
    """What is measured: adversarial steps in fp32, weights random by `seed`."""

    model: str = "default"
    """A preset's name."""
    batch_size: int = 16
    rounds: int = 15
    """Timed steps of each."""
    warmup: int = 2
    """Steps of each before those."""
    device: str = "auto"
    threads: int = 0
    """PyTorch's threads; 0: as many as it chooses."""
    compile: bool = False
    """`galip train --compile`."""
    seed: int = 0


def measure(config: ThroughputConfig) -> dict[str, Any]:
    """Time both; the result file's content, with every round's seconds in it.

    Raises `QualityGateFailed` when the two compute different losses, `ProviderUnavailable` without `device`.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    machine = asdict(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        steps = _contestants(config, Path(folder))
        losses: dict[str, dict[str, float]] = {}
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for number in range(config.warmup + config.rounds):
            for name, step in steps.items():
                began = time.perf_counter()
                terms = step(number)
                scalars = {key: float(value) for key, value in terms.items()}  # waits for the device
                if number >= config.warmup:
                    seconds[name].append(time.perf_counter() - began)
                losses.setdefault(name, scalars)
    difference = _difference(losses["galip"], losses["released_order"])
    if not difference <= TOLERANCE:
        raise QualityGateFailed(f"the losses are {difference:.2g} apart, so the times can't be compared")
    ratios = np.array(seconds["released_order"]) / np.array(seconds["galip"])
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    return {
        "schema": SCHEMA,
        "benchmark": "training_throughput",
        "config": {**asdict(config), "threads": torch.get_num_threads()},
        "machine": machine,
        "losses_of_the_first_step": losses,
        "largest_difference": difference,
        "pictures_per_second": {name: config.batch_size / median for name, median in medians.items()},
        "speedup": {
            "median": float(np.median(ratios)),
            "interval_95": median_interval(ratios, seed=config.seed),
        },
        "seconds": seconds,
    }


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table of result files, a row a result."""
    columns = ["model", "batch", "`galip train`, pictures/s", "released order", "times as fast (95 %)"]
    rows = []
    for result in results:
        config, rates, speedup = result["config"], result["pictures_per_second"], result["speedup"]
        low, high = speedup["interval_95"]
        speeds = [f"{rates[name]:.3g}" for name in ("galip", "released_order")]
        times = f"{speedup['median']:.2f} ({low:.2f} to {high:.2f})"
        rows.append([f"`{config['model']}`", str(config["batch_size"]), *speeds, times])
    return markdown_table(columns, rows, right_align=False)


def _contestants(config: ThroughputConfig, folder: Path) -> dict[str, Callable[[int], dict[str, Tensor]]]:
    shape = preset(config.model)
    size, noise_dim = shape.generator.image_size, shape.generator.noise_dim
    _write_pictures(folder, 4 * config.batch_size, size, config.seed)
    gan = GanConfig(
        data=str(folder), clip="", out="", model=config.model, batch_size=config.batch_size, flip=False,
        device=config.device, precision="fp32", compile=config.compile, seed=config.seed,
    )  # fmt: skip
    fabric = make_fabric(gan.device, gan.precision)
    torch.manual_seed(config.seed)
    ours = Galip(shape)
    released = copy.deepcopy(ours).to(fabric.device)
    release_generator(released.generator)
    trainer = Trainer(gan, ours, make_loader(gan, ours, fabric), fabric)
    loader = make_loader(gan, released, fabric)
    betas = (gan.beta1, gan.beta2)
    learned = [p for p in released.generator.parameters() if p.requires_grad]
    adam_g = torch.optim.Adam(learned, lr=gan.lr_g, betas=betas)
    adam_d = torch.optim.Adam(released.discriminator.parameters(), lr=gan.lr_d, betas=betas)

    def as_released(step: int) -> dict[str, Tensor]:
        batch = loader.batch(step)
        noise = torch.randn(config.batch_size, noise_dim, generator=generator_for(gan.seed, "gan", step))
        real = to_float(batch.pictures.to(fabric.device))
        tokens = F.pad(batch.tokens, (0, shape.clip.text.context_length - batch.tokens.shape[1]))
        tokens, noise = tokens.to(fabric.device), noise.to(fabric.device)
        return released_step(released, adam_g, adam_d, real, tokens, noise, gan.similarity_weight)

    return {"galip": trainer.step, "released_order": as_released}


def _write_pictures(folder: Path, count: int, size: int, seed: int) -> None:
    """A folder of pictures to train on; what is on them doesn't matter here."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{number:03}.png")
        (folder / f"{number:03}.txt").write_text(f"picture number {number}\n")


def _difference(ours: dict[str, float], theirs: dict[str, float]) -> float:
    if ours.keys() != theirs.keys():
        raise QualityGateFailed(f"the losses are {sorted(ours)} and {sorted(theirs)}")
    return max(abs(ours[name] - theirs[name]) / max(1.0, abs(theirs[name])) for name in ours)


def main(arguments: list[str] | None = None) -> None:
    """The command: progress and the figures on stderr and stdout, the result in `--out`."""
    parser = argparse.ArgumentParser(prog="python -m studies.throughput", description=__doc__)
    defaults = ThroughputConfig()
    parser.add_argument("--model", default=defaults.model)
    for name in ("batch-size", "rounds", "warmup", "threads", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(defaults, name.replace("-", "_")))
    parser.add_argument("--device", default=defaults.device, choices=("auto", "cpu", "cuda"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path, help="where the result goes, as JSON")
    options = vars(parser.parse_args(arguments))
    out = options.pop("out")
    try:
        result = measure(ThroughputConfig(**options))
    except GalipError as error:
        console.failure("error", error)
        sys.exit(error.exit_code)
    if out:
        out.write_text(json.dumps(result, indent=1) + "\n")
    rates, speedup = result["pictures_per_second"], result["speedup"]
    console.report(
        f"{rates['galip']:.3g} pictures/s, {rates['released_order']:.3g} in the released order: "
        f"{speedup['median']:.2f} times as fast (95 %: {speedup['interval_95'][0]:.2f} to "
        f"{speedup['interval_95'][1]:.2f})"
    )


if __name__ == "__main__":
    main()
