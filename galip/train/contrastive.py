"""Small CLIP towers from scratch (`galip train-clip`): open_clip's contrastive loss on augmented pictures."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from galip_runtime.errors import UsageError
from torch import Tensor, nn

from galip.checkpoint import save_clip
from galip.clip import ImageTower, TextTower, build_clip, clip_tokenizer, import_open_clip, run_block
from galip.data.sampler import BatchSampler, generator_for
from galip.data.sources import list_splits
from galip.presets import preset
from galip.towers import load_towers
from galip.train.augment import POSE_DIMS, pose, to_float
from galip.train.commands import after_train_clip
from galip.train.config import ContrastiveConfig
from galip.train.fabric import describe_device, make_fabric
from galip.train.in_memory import InMemoryPictures
from galip.train.run import Run
from galip.train.sentence_teacher import SentenceTeacher
from galip.train.whitening import MAX_LOGIT_SCALE, refit_image_head, turn_sentences, whiten_sentences

__all__ = ["ContrastiveTrainer", "retrieval", "train_clip"]


def train_clip(
    config: ContrastiveConfig, *, resume: bool = False, echo: Callable[[str], None] = print
) -> Path:
    """Train CLIP's two towers; returns the path of `clip.safetensors`.

    Raises `TrainingStopped` after a stop signal (the state is saved), `QualityGateFailed` if the loss
    becomes NaN or too many pictures are broken, `UsageError` or `FileRefused` for data that doesn't fit.
    """
    echo(f"reading the pictures of {config.data} into memory")
    trainer = ContrastiveTrainer(config)
    with Run(
        Path(config.out), config, trainer.fabric, resume=resume, log_every=config.log_every, echo=echo
    ) as run:
        parameters = sum(p.numel() for p in trainer.clip.parameters() if p.requires_grad) / 1e6
        for line in (f"data: {trainer.data.describe()}", *trainer.data.source.left_out.lines()):
            run.echo(line)
        run.echo(f"training {parameters:.2f} M parameters of the towers")
        if trainer.teacher is not None:
            run.echo(f"teacher: {len(trainer.teacher):,} texts of {config.teacher}")
        run.echo(f"device: {describe_device(trainer.fabric)}")
        start = run.restore(trainer.restore)
        run.loop(
            start,
            config.steps,
            config.batch_size,
            config.save_every,
            trainer.step,
            lambda done, saving, stopping: run.save_state(trainer.state(done)) if saving else None,
            trainer.learning_rates,
        )
    if config.whiten:
        turning = " and turning them back to those of --init" if config.init else ""
        run.echo(f"whitening sentence vectors{turning}, training the image tower's head again")
        trainer.whiten()
    accuracy = trainer.held_out()
    run.echo(_in_words(accuracy))
    path = Path(config.out) / "clip.safetensors"
    note = {"train_clip": asdict(config), "held_out": accuracy}
    save_clip(path, trainer.clip, trainer.clip_config, note=note)
    run.echo(f"finished after step {max(start, config.steps)}; the towers are in {path}")
    for line in after_train_clip(config, path):
        run.echo(line)
    return path


def _in_words(accuracy: Mapping[str, float]) -> str:
    """Return the figures of `retrieval`, or that there are none, as a sentence for the log."""
    if not accuracy:
        return "no pictures are held out (split val) to evaluate the towers on"
    pictures, group = (f"{accuracy[name]:.0f}" for name in ("pictures", "of"))
    right, found = (f"{accuracy[name]:.1%}" for name in ("caption_of_picture", "picture_of_caption"))
    return (
        f"held out: {pictures} pictures; among {group} at a time {right} of the pictures find their caption "
        f"and {found} of the captions their picture ({1 / accuracy['of']:.1%} by chance)"
    )


class ContrastiveTrainer:
    """CLIP, its optimizer and data, the training step, and the state for resume."""

    def __init__(self, config: ContrastiveConfig) -> None:
        self.config, self.clip_config = config, preset(config.model).clip
        self.fabric = make_fabric(config.device, config.precision)
        self.device = self.fabric.device
        torch.manual_seed(config.seed)
        self.clip = build_clip(self.clip_config)
        self.image = ImageTower(self.clip.visual, self.clip_config, "clip")
        self.text = TextTower(self.clip)
        if config.init:
            self._begin_with(config.init)
        self.initial_text = copy.deepcopy(self.text) if config.init else None
        self.image.requires_grad_(not config.lock_image)
        for module in (self.clip, self.image, self.text, self.initial_text):
            if module is not None:
                module.to(self.device)
        self.teacher = self._load_teacher()
        self.data = self._load("train", config.crop)
        self.val = self._load("val") if "val" in list_splits(Path(config.data), config.layout) else None
        self.batches = BatchSampler(len(self.data), config.batch_size, config.seed)
        self.trained = nn.ModuleDict({"clip": self.clip})
        if self.teacher is not None:
            self.trained["teacher"] = self.teacher
        self.optimizer = torch.optim.AdamW(
            _groups(self.trained, config.weight_decay), lr=config.lr, betas=(0.9, 0.98), eps=1e-6
        )
        self.contrastive = import_open_clip().ClipLoss()

    def _load(self, split: str, crop: str = "exact") -> InMemoryPictures:
        config, text = self.config, self.clip_config.text
        return InMemoryPictures(
            Path(config.data),
            split,
            self.clip_config.image.image_size,
            clip_tokenizer(text.merges, text.context_length),
            config.exclude,
            layout=config.layout,
            crop=crop,
            max_broken=config.max_broken,
        )

    def _begin_with(self, source: str) -> None:
        """Load both towers of `source`. Raises as `load_towers`, and `UsageError` for another pixel range."""
        towers = load_towers(source, self.clip_config)
        if towers.image.pixel_range != self.image.pixel_range:
            raise UsageError(
                f"{source} has an image tower of the {towers.image.pixel_range} pixel range, which a file of "
                "CLIP can't record; give the CLIP that it was made from"
            )
        self.text.load_state_dict(towers.text.state_dict())
        self.image.load_state_dict(towers.image.state_dict())
        if towers.logit_scale is not None:
            self.clip.logit_scale.data.copy_(towers.logit_scale)

    def _load_teacher(self) -> SentenceTeacher | None:
        """Read the teacher's file, if there is one."""
        if not self.config.teacher:
            return None
        text = self.clip_config.text
        tokenizer = clip_tokenizer(text.merges, text.context_length)
        teacher = SentenceTeacher(Path(self.config.teacher), tokenizer, self.clip_config.embed_dim)
        return teacher.to(self.device)

    def step(self, step: int) -> dict[str, Tensor]:
        """Update both towers; returns the scalars to log."""
        config, clip = self.config, self.clip
        rng = generator_for(config.seed, "clip", step)
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * _schedule(step, config.steps)
        indices = self.batches[step]
        uniform = torch.rand(len(indices), POSE_DIMS, generator=rng).to(self.device)
        views = self.data.views(indices, generator_for(config.seed, "crop", step))
        pictures = pose(to_float(views.to(self.device)), uniform)  # (N, 3, S, S)
        tokens = self.data.tokens(indices, rng).to(self.device)  # (N, L)
        drops = step < config.steps * 3 / 4 and not config.lock_image
        dropped = config.patch_dropout if drops else 0.0
        with self.fabric.autocast():
            with torch.set_grad_enabled(not config.lock_image):
                image_embedding = _embed_pictures(self.image, pictures, dropped, rng)  # (N, D)
            sentence = self.text(tokens)  # (N, D)
        loss = self.contrastive(
            F.normalize(image_embedding.float(), dim=1),
            F.normalize(sentence.float(), dim=1),
            clip.logit_scale.exp(),
        )
        scalars = {"loss": loss}
        if self.teacher is not None:
            scalars["teacher"] = self._teacher_loss(self.teacher, step)
            loss = loss + config.teacher_weight * scalars["teacher"]
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            clip.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        return {**scalars, "logit_scale": clip.logit_scale.exp()}

    def _teacher_loss(self, teacher: SentenceTeacher, step: int) -> Tensor:
        """Return the teacher's loss, on other texts in every step."""
        config = self.config
        tokens, vectors = teacher.sample(config.batch_size, generator_for(config.seed, "teacher", step))
        with self.fabric.autocast():
            sentences = self.text(tokens.to(self.device))  # (N, D)
        return teacher.loss(sentences, vectors)

    def learning_rates(self) -> dict[str, float]:
        """Return the learning rate of the last step."""
        return {"towers": float(self.optimizer.param_groups[0]["lr"])}

    def whiten(self) -> None:
        """Whiten the text tower's sentence vectors, turn them towards those it began with, and fit the image
        tower's head to them.
        """
        whiten_sentences(self.text, self.data, self.config.seed)
        if self.initial_text is not None:
            turn_sentences(self.text, self.initial_text, self.data, self.config.seed)
        refit_image_head(
            self.image, self.text, self.clip.logit_scale, self.data, self.config.seed, self.contrastive
        )

    def held_out(self) -> dict[str, float]:
        """Return `retrieval` on the val split; nothing if the data has none."""
        if self.val is None:
            return {}
        return retrieval(self.image, self.text, self.val, device=self.device)

    def state(self, step: int) -> dict[str, Any]:
        """Return everything needed to continue exactly after `step` steps."""
        return {
            "step": step,
            "clip": self.clip.state_dict(),
            "teacher": {} if self.teacher is None else self.teacher.state_dict(),
            "texts": self._texts(),
            "initial_text": {} if self.initial_text is None else self.initial_text.state_dict(),
            "lock_image": self.config.lock_image,
            "optimizer": self.optimizer.state_dict(),
            "pictures": len(self.data),
        }

    def _texts(self) -> int:
        """Return how many texts the teacher has; 0 without one."""
        return 0 if self.teacher is None else len(self.teacher)

    def restore(self, state: dict[str, Any]) -> int:
        """Restore a saved state; returns the number of steps done.

        Raises `UsageError` if it was saved with another number of pictures or of a teacher's texts, since the
        steps' batches would differ, and if the image tower was locked and is not now, or the reverse.
        """
        before = state.get("pictures", len(self.data))  # older states lack it
        if before != len(self.data):
            raise UsageError(
                f"the run began with {before} pictures, and now {self.config.data} has {len(self.data)}; go "
                "on with the same data, or begin a new run"
            )
        before, now = state.get("texts", 0), self._texts()
        if before != now:
            raise UsageError(
                f"the run began with {before} texts of a teacher, and now there are {now}; go on with the "
                "same --teacher, or begin a new run"
            )
        if state.get("lock_image", False) != self.config.lock_image:
            raise UsageError("--lock-image can't be changed in a run; resume without it, or begin a new run")
        self.clip.load_state_dict(state["clip"])
        if self.initial_text is not None:
            self.initial_text.load_state_dict(state["initial_text"])
        if self.teacher is not None:
            self.teacher.load_state_dict(state["teacher"])
        self.optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])


def _groups(trained: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    parameters = [p for p in trained.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.ndim >= 2]
    rest = [p for p in parameters if p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def _schedule(step: int, steps: int) -> float:
    warm = max(steps // 20, 1)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


def _embed_pictures(tower: ImageTower, pictures: Tensor, dropped: float, rng: torch.Generator) -> Tensor:
    """Return image embeddings (N, D) of pictures (N, 3, S, S) with a share of the patches dropped."""
    if dropped == 0:
        return tower(pictures, ())[1]
    patches = (
        tower.conv1(pictures * tower.pixel_scale + tower.pixel_shift).flatten(2).transpose(1, 2)
    )  # (N, G², C)
    n, count, width = patches.shape
    indices = (
        torch.rand(n, count, generator=rng)
        .topk(round(count * (1 - dropped)), dim=1)
        .indices[:, :, None]
        .to(patches.device)
    )  # (N, K, 1)
    patches = (patches + tower.positional_embedding[1:]).gather(1, indices.expand(-1, -1, width))  # (N, K, C)
    first = (tower.class_embedding + tower.positional_embedding[0]).to(patches.dtype).expand(n, 1, width)
    x = tower.ln_pre(torch.cat([first, patches], dim=1))  # (N, 1+K, C)
    for block in tower.transformer.resblocks:
        x = run_block(block, x)
    return tower.ln_post(x[:, 0]) @ tower.proj  # (N, D)


@torch.no_grad()
def retrieval(
    image: ImageTower,
    text: TextTower,
    data: InMemoryPictures,
    of: int = 256,
    device: torch.device | None = None,
) -> dict[str, float]:
    """Return the top-1 accuracy both ways among groups of `of` pictures and their first captions."""
    right_text = right_image = counted = 0
    order = torch.randperm(len(data), generator=generator_for(0, "retrieval", 0))
    for indices in order.split(of):
        if len(indices) < min(of, len(data)):
            break
        pictures = F.normalize(image(to_float(data.pictures[indices].to(device)), ())[1], dim=1)
        sentences = F.normalize(text(data.tokens(indices, None).to(device)), dim=1)
        similarity = pictures @ sentences.T
        labels = torch.arange(len(indices), device=device)
        right_text += int((similarity.argmax(1) == labels).sum())
        right_image += int((similarity.argmax(0) == labels).sum())
        counted += len(indices)
    return {
        "caption_of_picture": right_text / counted,
        "picture_of_caption": right_image / counted,
        "pictures": float(counted),
        "of": float(min(of, len(data))),
    }
