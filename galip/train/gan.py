"""GALIP's training (`galip train`): the paper's losses, Adam, an EMA of the generator, on Lightning Fabric.

One step makes the fakes once and runs CLIP once on them and once on the real pictures; both updates use
those features. What departs from GALIP (off by default): the paired warm-up, the range penalty, augmentation.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from galip_runtime.errors import GalipError, QualityGateFailed
from galip_runtime.noise import noise as noise_of_seeds
from galip_runtime.tokenizer import as_prompts
from lightning_fabric import Fabric
from torch import Tensor

from galip import losses
from galip.checkpoint import save_galip
from galip.clip import clip_tokenizer
from galip.data.loader import LoaderConfig, TrainingLoader
from galip.data.order import generator_for
from galip.model import Galip
from galip.train.augment import (
    AUGMENT_DIMS,
    diff_augment,
    pose,
    pose_from_noise,
    random_offset,
    shift,
    to_float,
)
from galip.train.begin import fresh_model
from galip.train.config import GanConfig
from galip.train.engine import LEAST_SCALE, check_batch, make_fabric, whole_batch
from galip.train.fast import memory_format, merge_doublings, split_sentence
from galip.train.objectives import DiscriminatorObjective, feature_distance, pixel_distance
from galip.train.run import EMA, SAMPLES, Run, save_grid

if TYPE_CHECKING:
    from galip.train.scoring import Scoring

__all__ = ["Trainer", "make_loader", "train"]

WARMUP_BETAS = (0.9, 0.99)
"""Adam's decays in the warm-up, a plain regression; the paper's (0, 0.9) are for the adversarial game."""


def train(config: GanConfig, *, resume: bool = False, echo: Callable[[str], None] = print) -> Path:
    """Train GALIP; returns the path of `model.safetensors` (EMA generator, towers, discriminator).

    Started by `torchrun`, all its processes call this and share every batch. Raises `TrainingStopped` after
    a stop signal (the state is saved), `QualityGateFailed` when a loss becomes NaN or collapses or too
    many pictures are broken (the last good state is kept), `UsageError` or `FileRefused` for data or a CLIP
    that doesn't fit.
    """
    check_batch(config.batch_size, config.accumulate)
    as_prompts(config.sample_prompts)  # refused now, not after the first steps
    fabric = make_fabric(config.device, config.precision)
    model = fresh_model(config)
    loader = make_loader(config, model, fabric)
    with (
        contextlib.closing(loader),
        Run(
            Path(config.out),
            config,
            fabric,
            resume=resume,
            log_every=config.log_every,
            echo=echo,
            keep=config.keep,
        ) as run,
    ):
        trainer = Trainer(config, model, loader, fabric)
        run.echo(f"{loader.describe()}, {trainer.describe()}")
        scoring = _scoring(config, trainer, run)
        start = run.restore(trainer.restore)

        def judge(done: int, saved: bool) -> None:
            if scoring and (done % config.evaluate_every == 0 or done == config.steps):
                scoring.score(done)
                if saved:  # once more: the state on disk is from before, so that a stop can't lose it
                    run.save_state(trainer.state(done))

        def after(done: int, saving: bool, stopping: bool) -> None:
            if saving:
                _save(run, trainer, done, stopping)
            if not stopping:  # else the run that goes on makes up for it
                judge(done, saving)

        if start and trainer.judged < start:
            judge(start, saved=True)
        run.loop(start, config.steps, config.batch_size, config.save_every, trainer.step, after)
    return Path(config.out) / "model.safetensors"


def make_loader(config: GanConfig, model: Galip, fabric: Fabric) -> TrainingLoader:
    """What `config` wants this process fed, for `model`."""
    text = model.config.clip.text
    return TrainingLoader(
        LoaderConfig(
            data=config.data,
            layout=config.layout,
            batch_size=config.batch_size,
            seed=config.seed,
            workers=config.workers,
            exclude=config.exclude,
            crop=config.crop,
            flip=config.flip and not config.pose,
            caption_dropout=config.caption_dropout,
            max_broken=config.max_broken,
            stream=config.stream,
        ),
        size=model.config.generator.image_size,
        tokenizer=clip_tokenizer(text.merges, text.context_length),
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )


def _scoring(config: GanConfig, trainer: Trainer, run: Run) -> Scoring | None:
    if not config.evaluate_every:
        return None
    from galip.train.scoring import Scoring

    return Scoring(config, trainer, run)


def _save(run: Run, trainer: Trainer, step: int, stopping: bool) -> None:
    """The model and a grid of samples, both with the averaged generator, and the state for resume.

    The grid is an ornament: it comes after both, and its failure is reported but ends nothing. The state
    comes after the model: a save that is cut short is done again when the run is resumed. But it comes first
    where the run is `stopping`, as whoever stops it may not wait.
    """
    trainer.check_health()
    if stopping:
        run.save_state(trainer.state(step))
    else:
        run.check_finite(trainer.state(step))
    if trainer.fabric.is_global_zero:
        _save_model(run, trainer, step)
    if not stopping:
        run.save_state(trainer.state(step))
    if trainer.fabric.is_global_zero:
        try:
            _save_samples(run, trainer, step)
        except (GalipError, OSError, RuntimeError) as error:  # RuntimeError: torch's, such as out of memory
            run.echo(f"step {step}: no samples were drawn ({error}); the training goes on")


def _save_model(run: Run, trainer: Trainer, step: int) -> None:
    with trainer.ema.applied(trainer.model.generator):
        save_galip(run.out / "model.safetensors", trainer.model, note=trainer.note(step))


def _save_samples(run: Run, trainer: Trainer, step: int) -> None:
    with trainer.ema.applied(trainer.model.generator):
        samples = save_grid(
            trainer.samples(), run.out / SAMPLES / f"{step:07}.png", columns=Trainer.SAMPLE_SEEDS
        )
    run.show("samples", samples, step)


@dataclass
class _Part:
    """What one process works off at once. N pictures."""

    offset: tuple[int, int]  # pixels
    real: Tensor  # (N, 3, H, W)
    noise: Tensor  # (N, Z)
    sentence: Tensor  # (N, D)
    mismatched: Tensor  # (N, D), the next picture's sentence in the whole batch
    augment: Tensor  # (N, AUGMENT_DIMS) in [0, 1]


@dataclass
class _View:
    """A part's made pictures and what CLIP sees in both kinds."""

    fake: Tensor  # (N, 3, H, W)
    real_maps: list[Tensor]  # each (N, C, G, G)
    fake_maps: list[Tensor]  # each (N, C, G, G)
    embedding: Tensor  # (N, D), of the made pictures


class Trainer:
    """Model, optimizers and EMA, and one training step; everything that `state` saves."""

    SAMPLE_SEEDS = 4
    HISTORY = 200  # steps that the health check looks back

    def __init__(self, config: GanConfig, model: Galip, loader: TrainingLoader, fabric: Fabric) -> None:
        self.config, self.model, self.loader, self.fabric = config, model.train(), loader, fabric
        model.text.eval()
        model.image.eval()
        layout = memory_format(fabric.device, model.config.generator.image_size)
        model.to(fabric.device, memory_format=layout)  # type: ignore[call-overload]
        merge_doublings(model.generator)
        split_sentence(model.discriminator.assessor)
        self.trainable = [p for p in model.generator.parameters() if p.requires_grad]
        betas = (config.beta1, config.beta2)
        generator: Any = torch.compile(model.generator) if config.compile else model.generator
        self.collect = torch.compile(model.collect) if config.compile else model.collect
        self.draw, self.optimizer_g = fabric.setup(
            generator, torch.optim.Adam(self.trainable, lr=config.lr_g, betas=betas, fused=True)
        )
        objective = DiscriminatorObjective(model.discriminator, config.penalty_weight, config.penalty_power)
        judging = [p for p in model.discriminator.parameters() if p.requires_grad]
        self.judge, self.optimizer_d = fabric.setup(
            objective, torch.optim.Adam(judging, lr=config.lr_d, betas=betas, fused=True)
        )
        self.scaler = getattr(fabric.strategy.precision, "scaler", None)
        self.ema = EMA(model.generator, config.ema_decay)
        self.best: dict[str, float] = {}
        self.judged = 0  # the last step after which `Scoring` judged
        self._hinge: deque[Tensor] = deque(maxlen=self.HISTORY)
        self._spread: deque[Tensor] = deque(maxlen=self.HISTORY)

    def describe(self) -> str:
        """The networks' sizes and the engine's shape, for the log."""
        learned = [
            sum(p.numel() for p in part.parameters() if p.requires_grad) / 1e6
            for part in (self.model.generator, self.model.discriminator)
        ]
        where = f"{self.fabric.world_size} x {self.fabric.device.type}"
        return (
            f"{learned[0]:.2f} M learned in the generator, {learned[1]:.2f} M in the discriminator, on "
            f"{where}, "
            f"{self.fabric.strategy.precision.precision}"
        )

    def note(self, step: int) -> dict[str, Any]:
        """What a checkpoint says of its training."""
        return {"train": asdict(self.config), "step": step, "pictures_seen": step * self.config.batch_size}

    def step(self, step: int) -> dict[str, Tensor]:
        """One update of the discriminator and one of the generator; the scalars to log."""
        self._use_rates(step)
        parts = self._parts(step)
        scalars = self._warm_up(parts) if step < self.config.warmup_steps else self._play(step, parts)
        self.ema.update(self.model.generator, step)
        return scalars

    def _use_rates(self, step: int) -> None:
        """The config's learning rates and decays, which may be others than a resumed run's."""
        config = self.config
        lr, betas = config.lr_g, (config.beta1, config.beta2)
        if step < config.warmup_steps:  # half a cosine from the warm-up's rate down to the game's
            lr += (config.warmup_lr - lr) * 0.5 * (1 + math.cos(math.pi * step / config.warmup_steps))
            betas = WARMUP_BETAS
        for group in self.optimizer_g.param_groups:
            group.update(lr=lr, betas=betas)
        for group in self.optimizer_d.param_groups:
            group.update(lr=config.lr_d, betas=betas if step >= config.warmup_steps else group["betas"])

    def _parts(self, step: int) -> list[_Part]:
        """The step's rows of this process, in `accumulate` parts.

        Random numbers are drawn for the whole batch, so that they are a row's own however many processes
        share it.
        """
        config, device = self.config, self.fabric.device
        batch = self.loader.batch(step)
        rng = generator_for(config.seed, "gan", step)
        noise = torch.randn(config.batch_size, self.model.config.generator.noise_dim, generator=rng)
        augment = torch.rand(config.batch_size, AUGMENT_DIMS, generator=rng)
        offset = random_offset(config.clip_shift, rng)
        noise, augment = noise[batch.rows].to(device), augment[batch.rows].to(device)
        real = to_float(batch.pictures.to(device, non_blocking=True))  # (N, 3, H, W)
        if config.pose:
            real = pose(real, pose_from_noise(noise))
        with torch.no_grad(), self.fabric.autocast():
            sentence = self.model.text(batch.tokens.to(device, non_blocking=True)).float()  # (N, D)
        whole = whole_batch(self.fabric, sentence)  # (N·world, D)
        mismatched = whole.roll(-1, dims=0)[self.fabric.global_rank :: self.fabric.world_size]  # (N, D)
        columns = [each.chunk(config.accumulate) for each in (real, noise, sentence, mismatched, augment)]
        return [_Part(offset, *row) for row in zip(*columns, strict=True)]

    def _warm_up(self, parts: list[_Part]) -> dict[str, Tensor]:
        self.optimizer_g.zero_grad()
        means = _Means(len(parts))
        for part in parts:
            with self._accumulating(self.draw, part is not parts[-1]):
                fake = self.draw(part.noise, part.sentence)  # (N, 3, H, W)
                pixel = pixel_distance(fake, part.real)
                self.fabric.backward(self.config.paired_pixel_weight * pixel / len(parts))
            means.add({"pixel": pixel})
        self.optimizer_g.step()
        self._note_spread(fake)
        return means.values

    def _play(self, step: int, parts: list[_Part]) -> dict[str, Tensor]:
        """One round of the adversarial game.

        A batch in one part is drawn and looked at once for both updates; one in several is drawn anew for the
        generator's, which is what saves the memory.
        """
        once = len(parts) == 1
        means = _Means(len(parts))
        self.optimizer_d.zero_grad()
        for part in parts:
            view = self._look(part, learning=once)
            with self._accumulating(self.judge, part is not parts[-1]):
                means.add(self._judge(part, view, len(parts)))
        self.optimizer_d.step()
        self.optimizer_g.zero_grad()
        for part in parts:
            with self._accumulating(self.draw, part is not parts[-1]):
                if not once:
                    view = self._look(part, learning=True, real=step < self.config.paired_steps)
                means.add(self._please(step, part, view, len(parts)))
        self.optimizer_g.step()
        self._hinge.append((means.values["d_real"] + means.values["d_fake"]).detach())
        self._note_spread(view.fake)
        return means.values

    def _look(self, part: _Part, learning: bool, real: bool = True) -> _View:
        """Draw the part's pictures and let CLIP look at them and, where `real`, at the real ones, augmented
        alike.
        """
        with torch.set_grad_enabled(learning):
            fake = self.draw(part.noise, part.sentence)
            with self.fabric.autocast():
                with torch.no_grad():
                    real_maps = self.model.collect_maps(self._augmented(part.real, part)) if real else []
                fake_maps, embedding = self.collect(self._augmented(fake, part))
        return _View(fake, real_maps, fake_maps, embedding)

    def _augmented(self, pictures: Tensor, part: _Part) -> Tensor:
        if self.config.diff_augment:
            pictures = diff_augment(pictures, self.config.diff_augment, part.augment)
        return shift(pictures, part.offset)

    def _judge(self, part: _Part, view: _View, parts: int) -> dict[str, Tensor]:
        """The discriminator's gradients: L_D of equation 1."""
        scale = LEAST_SCALE if self.scaler else 1.0
        terms = self.judge(view.real_maps, view.fake_maps, part.sentence, part.mismatched, scale)
        self.fabric.backward(DiscriminatorObjective.total(terms) / parts)
        return dict(terms)

    def _please(self, step: int, part: _Part, view: _View, parts: int) -> dict[str, Tensor]:
        """The generator's gradients: L_G of equation 1, plus what the config adds to it."""
        config, discriminator = self.config, self.model.discriminator
        discriminator.requires_grad_(False)
        with self.fabric.autocast():
            adversarial = losses.generator_adversarial(discriminator(view.fake_maps, part.sentence))
        discriminator.requires_grad_(True)
        similarity = losses.clip_similarity(view.embedding, part.sentence)
        scalars = {"g_adv": adversarial, "clip_sim": similarity}
        loss = adversarial - config.similarity_weight * similarity
        if config.range_weight:
            excess = F.relu(view.fake.abs() - 1).square().mean()
            loss = loss + config.range_weight * excess
            scalars["excess"] = excess
        if step < config.paired_steps:
            fade = (config.paired_steps - step) / (config.paired_steps - config.warmup_steps)
            pixel = pixel_distance(view.fake, part.real)
            feature = feature_distance(view.fake_maps, view.real_maps)
            loss = loss + fade * (config.paired_pixel_weight * pixel + config.paired_feature_weight * feature)
            scalars |= {"pixel": pixel, "feature": feature}
        self.fabric.backward(loss / parts)
        return scalars

    def _accumulating(self, module: Any, more_to_come: bool) -> contextlib.AbstractContextManager[Any]:
        """Gradients of several processes are averaged with the last part's only."""
        if self.fabric.world_size == 1 or not more_to_come:
            return contextlib.nullcontext()
        return self.fabric.no_backward_sync(module)

    def _note_spread(self, fake: Tensor) -> None:
        if len(fake) > 1:  # a single picture has none
            self._spread.append(fake.detach().std(dim=0).mean())

    def check_health(self) -> None:
        """Raises `QualityGateFailed` when the losses have collapsed over the last `HISTORY` steps."""
        if len(self._hinge) == self.HISTORY and float(torch.stack([*self._hinge]).mean()) < 1e-3:
            raise QualityGateFailed(
                "the discriminator has won: its loss has been zero for "
                f"{self.HISTORY} steps and the generator learns nothing more. The last good state "
                "is kept; resume with a lower --lr-d"
            )
        if len(self._spread) == self.HISTORY and float(torch.stack([*self._spread]).mean()) < 1e-3:
            raise QualityGateFailed(
                "the generator has collapsed: all pictures of a batch are the same. The last good "
                "state is kept; resume with a lower --lr-g"
            )

    @torch.no_grad()
    def pictures(self, prompts: list[str], seeds: list[int]) -> Tensor:
        """Pictures float32 (N, 3, H, W) of N prompts and seeds, by the weights the generator has now."""
        text, device = self.model.config.clip.text, self.fabric.device
        tokens = torch.from_numpy(clip_tokenizer(text.merges, text.context_length).encode(prompts))
        noise = torch.from_numpy(noise_of_seeds(seeds, self.model.config.generator.noise_dim))
        with self.fabric.autocast():
            sentence = self.model.text(tokens.to(device)).float()
            return self.model.generator(noise.to(device), sentence).float()

    def samples(self) -> Tensor:
        """Pictures (prompts · SAMPLE_SEEDS, 3, H, W): a row a prompt, a column a seed."""
        prompts = list(self.config.sample_prompts) or self.loader.sample_captions(8)
        seeds = [*range(self.SAMPLE_SEEDS)]
        return torch.cat([self.pictures([prompt] * len(seeds), seeds) for prompt in prompts])

    def state(self, step: int) -> dict[str, Any]:
        """Everything needed to go on exactly after `step` steps.

        Random numbers need no place in it: they depend on seed and step alone. Every process calls this.
        """
        return {
            "step": step,
            "generator": _learned(self.model.generator),
            "discriminator": self.model.discriminator.state_dict(),
            "ema": self.ema.values,
            "optimizer_g": self.optimizer_g.state_dict(),
            "optimizer_d": self.optimizer_d.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else {},
            "best": self.best,
            "judged": self.judged,
            "loader": _of_all_processes(self.loader.state(), self.fabric),
            "hinge": [float(value) for value in self._hinge],
            "spread": [float(value) for value in self._spread],
        }

    def restore(self, state: dict[str, Any]) -> int:
        """Take up a saved state; returns the number of steps done."""
        learned = _learned(self.model.generator)
        if learned.keys() != state["generator"].keys():
            raise KeyError(f"generator has {sorted(learned.keys() ^ state['generator'].keys())[:3]} or not")
        self.model.generator.load_state_dict(state["generator"], strict=False)
        self.model.discriminator.load_state_dict(state["discriminator"])
        self.ema.values = {name: value.to(self.fabric.device) for name, value in state["ema"].items()}
        self.optimizer_g.load_state_dict(state["optimizer_g"])
        self.optimizer_d.load_state_dict(state["optimizer_d"])
        if self.scaler and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.best, self.judged = dict(state["best"]), int(state["judged"])
        places = state["loader"]
        self.loader.restore(places[self.fabric.global_rank % len(places)], int(state["step"]))
        for history, values in ((self._hinge, state["hinge"]), (self._spread, state["spread"])):
            history.clear()
            history.extend(torch.tensor(value, device=self.fabric.device) for value in values)
        return int(state["step"])


class _Means:
    """Means of scalars over the parts of a batch."""

    def __init__(self, parts: int) -> None:
        self.parts, self.values = parts, {}  # type: int, dict[str, Tensor]

    def add(self, scalars: dict[str, Tensor]) -> None:
        for name, value in scalars.items():
            share = value.detach() / self.parts
            self.values[name] = self.values[name] + share if name in self.values else share


def _learned(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}


def _of_all_processes(value: dict[str, Any], fabric: Fabric) -> list[dict[str, Any]]:
    if fabric.world_size == 1:
        return [value]
    everyone: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(everyone, value)
    return everyone
