"""GALIP's training (`galip train`): the paper's losses with Adam and an EMA of the generator."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lightning_fabric import Fabric

from galip.clip import clip_tokenizer
from galip.data.loader import LoaderConfig, TrainingLoader
from galip.early_checks import check_batch_size, check_prompts
from galip.model import Galip
from galip.train.checkpointing import MODEL, load_state, save, state_of
from galip.train.commands import after_train
from galip.train.config import GanConfig
from galip.train.expectations import expectations
from galip.train.fabric import describe_device, make_fabric
from galip.train.initialization import create_model
from galip.train.left_out_log import LeftOutLog
from galip.train.run import Run
from galip.train.samples import SampleGrids
from galip.train.trainer import Trainer
from galip.train.validation import BEST, Validation

__all__ = ["make_loader", "train"]


def train(config: GanConfig, *, resume: bool = False, echo: Callable[[str], None] = print) -> Path:
    """Train GALIP; returns the path of `model.safetensors` (EMA generator, towers, discriminator).

    Started by `torchrun`, all its processes call this and share every batch. Raises `TrainingStopped` after
    a stop signal (the state is saved), `QualityGateFailed` if a loss becomes NaN or collapses or too
    many pictures are broken (the last good state is kept), `UsageError` or `FileRefused` for data or a CLIP
    that doesn't fit.
    """
    check_batch_size(config.batch_size, config.accumulate)
    check_prompts(config.sample_prompts)  # refused now, not after the first steps
    fabric = make_fabric(config.device, config.precision)
    model = create_model(config)
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
        samples = SampleGrids(trainer, run)
        for line in (f"data: {loader.describe()}", *_describe(trainer)):
            run.echo(line)
        left_out = LeftOutLog(loader, fabric, run.echo)
        left_out.report()
        validation = Validation(config, trainer, run) if config.evaluate_every else None
        start = run.restore(partial(load_state, trainer))
        if not start:
            for line in expectations(config):
                run.echo(line)

        def validate(done: int, saved: bool) -> None:
            if validation and (done % config.evaluate_every == 0 or done == config.steps):
                validation.run_at(done)
                if saved:  # once more: the state on disk is from before, so that a stop can't lose it
                    run.save_state(state_of(trainer, done))

        def after(done: int, saving: bool, stopping: bool) -> None:
            if saving:
                save(run, trainer, samples, done, stopping)
                left_out.report()
            if not stopping:  # otherwise the resumed run makes up for it
                validate(done, saving)

        if fabric.is_global_zero:
            samples.begin(start)
        if start and trainer.validated_step < start:
            validate(start, saved=True)
        run.loop(
            start,
            config.steps,
            config.batch_size,
            config.save_every,
            trainer.step,
            after,
            trainer.learning_rates,
        )
        _report_end(run, trainer, samples, max(start, config.steps))
    return run.out / MODEL


def make_loader(config: GanConfig, model: Galip, fabric: Fabric) -> TrainingLoader:
    """Create the loader of this process's share of `config`'s batches, for `model`."""
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


def _describe(trainer: Trainer) -> list[str]:
    """Return lines for a log: the networks' sizes, the devices and the precision."""
    sizes = [
        sum(p.numel() for p in network.parameters() if p.requires_grad) / 1e6
        for network in (trainer.model.generator, trainer.model.discriminator)
    ]
    teacher = trainer.config.perceptual
    return [
        f"training {sizes[0]:.2f} M parameters of the generator and {sizes[1]:.2f} M of the discriminator",
        *([f"perceptual teacher: {teacher}"] if teacher else []),
        f"device: {describe_device(trainer.fabric)}",
    ]


def _report_end(run: Run, trainer: Trainer, samples: SampleGrids, steps: int) -> None:
    """Say where the model is after `steps` steps, and what to do with it."""
    path = run.out / MODEL
    run.echo(f"finished after step {steps}; the model is {path}")
    if best := trainer.best:
        run.echo(f"the best by FID, {best['fid']:.4g} after step {best['step']}, is {run.out / BEST}")
    for line in after_train(trainer.config, path, samples.prompts):
        run.echo(line)
