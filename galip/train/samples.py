"""What a run of `galip train` shows of itself: grids of generated pictures, and real ones beside them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from galip_runtime.arrays import to_uint8
from galip_runtime.errors import GalipError, UsageError
from galip_runtime.image import save_picture
from galip_runtime.noise import noise as noise_of_seeds
from numpy.typing import NDArray

from galip.clip import clip_tokenizer
from galip.sheets import labelled_sheet
from galip.train.run import Run
from galip.train.run_folder import SAMPLES
from galip.train.trainer import Trainer

__all__ = ["SampleGrids"]

SEEDS = (0, 1, 2, 3)
"""Columns of a grid."""
MOST_CAPTIONS = 8
"""Captions of the data that are the prompts if the config has none,"""
AMONG = 200
"""and the pictures that they are sought among: they are to differ."""


class SampleGrids:
    """The grids of a run: a row for each prompt, a column for each seed. The first process makes them."""

    def __init__(self, trainer: Trainer, run: Run) -> None:
        self.trainer, self.run = trainer, run
        self.prompts = [*trainer.config.sample_prompts]
        """The config's, or, after `begin`, the first captions of the data that differ."""

    def begin(self, step: int) -> None:
        """Choose the prompts and put them into TensorBoard; in a fresh run, which has done no `step`, also
        real pictures that have them as captions.
        """
        self._try("the data shows no prompts for samples", lambda: self._begin(step))

    def save(self, step: int) -> None:
        """Write the grid of the averaged generator after `step` steps to `samples/`, and into TensorBoard."""
        self._try(f"step {step}: no samples were generated", lambda: self._save(step))

    def _try(self, failure: str, show: Callable[[], None]) -> None:
        """Call `show`; nothing depends on it, so that it fails is said but doesn't end the run."""
        try:
            show()
        except (GalipError, OSError, RuntimeError) as error:  # RuntimeError: torch's, such as out of memory
            self.run.echo(f"{failure} ({error}); the training goes on")

    def _begin(self, step: int) -> None:
        loader = self.trainer.loader
        self.prompts = self.prompts or [*dict.fromkeys(loader.sample_captions(AMONG))][:MOST_CAPTIONS]
        self.run.log.log_lines("prompts", self.prompts, step)
        if step == 0 and (real := loader.real_pictures(self.prompts)):
            sheet = labelled_sheet(np.stack([*real.values()]), [*real], ["real"])
            self.run.log.log_picture("samples/real", sheet, step)

    def _save(self, step: int) -> None:
        if not self.prompts:
            raise UsageError("the data has no caption that can be a prompt; give --sample-prompts")
        with self.trainer.ema.applied(self.trainer.model.generator):
            rows = [self._generate(prompt) for prompt in self.prompts]
        sheet = labelled_sheet(np.concatenate(rows), self.prompts, [f"seed {seed}" for seed in SEEDS])
        path = self.run.out / SAMPLES / f"{step:07}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_picture(sheet, path)
        self.run.log.log_picture("samples/generated", sheet, step)

    @torch.no_grad()
    def _generate(self, prompt: str) -> NDArray[np.uint8]:
        """Generate pictures uint8 (N, H, W, 3) of all seeds, with the generator's present weights."""
        model, device = self.trainer.model, self.trainer.fabric.device
        text = model.config.clip.text
        prompts = [prompt] * len(SEEDS)
        tokens = torch.from_numpy(clip_tokenizer(text.merges, text.context_length).encode(prompts))
        noise = torch.from_numpy(noise_of_seeds(SEEDS, model.config.generator.noise_dim))
        with self.trainer.fabric.autocast():
            sentence = model.text(tokens.to(device)).float()
            pictures = model.generator(noise.to(device), sentence).float()
        return to_uint8(pictures.cpu().numpy())
