"""What runs on the machines of a Ray cluster: a worker that extracts features of parts of the pictures."""

from __future__ import annotations

import hashlib
import pickle
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from galip_runtime.errors import FileRefused, GalipError
from galip_runtime.files import sha256_file

from galip.metrics.config import EvaluationConfig
from galip.metrics.features import MAX_FEATURES_KEPT, PictureFeatures, extract_share
from galip.metrics.pictures import Pictures, StoredPictures
from galip.metrics.reference import Reference

if TYPE_CHECKING:
    from galip_runtime.text_to_image import TextToImage

    from galip.metrics.clip_encoder import ClipEncoder
    from galip.metrics.inception import Inception

__all__ = ["Opened", "Part", "Task", "Worker", "facts_of"]

_KEPT_PICTURES = int(1.05 * MAX_FEATURES_KEPT)
"""Features are kept of parts that begin below; some of their pictures may be broken."""


class Opened(Protocol):
    """An evaluation with its files opened. Its class opens another from its config, on any machine."""

    config: EvaluationConfig
    model: TextToImage | None
    subject: Pictures
    reference: Reference
    inception: Inception | None
    clip: ClipEncoder | None

    def __init__(self, config: EvaluationConfig) -> None: ...


@dataclass
class Part:
    """What a worker found in its part of the pictures, or why it could not."""

    machine: str
    runs_on: str = ""
    """Device and precision of the model, in words."""
    features: PictureFeatures | None = None
    examples: tuple[str, ...] = ()
    """What is wrong with the first few pictures that were left out."""
    error: GalipError | None = None


@dataclass(frozen=True)
class Task:
    """A worker's instructions."""

    open: Callable[[EvaluationConfig], Opened]
    config: EvaluationConfig
    facts: dict[str, str]
    """`facts_of` the evaluation, as the machine that asks found them."""
    which: str
    """Whose pictures: `subject` or `reference`."""
    inception: bool
    clip: bool
    keep: bool


def facts_of(evaluation: Opened) -> dict[str, str]:
    """Return what decides the features: versions, and digests of files and of lists, by what they are."""
    facts = {f"version of {name}": version(name) for name in ("galip", "torch", "numpy", "pillow")}
    if evaluation.model is not None:
        facts["model"] = evaluation.model.digest or sha256_file(evaluation.config.subject)
    sets: dict[str, tuple[Pictures | None, str]] = {
        "subject's": (evaluation.subject, evaluation.config.subject),
        "reference's": (evaluation.reference.pictures, evaluation.config.against),
    }
    for name, (pictures, path) in sets.items():
        if pictures is not None:
            names = pictures.names if isinstance(pictures, StoredPictures) else ()
            within = [each.removeprefix(path) for each in names]  # the path may be relative on one machine
            facts[f"list of the {name} pictures and captions"] = _digest(within, pictures.captions)
    if evaluation.inception:
        facts["Inception"] = evaluation.inception.sha256
    if evaluation.clip:
        facts["CLIP"] = evaluation.clip.sha256()
    return facts


def _digest(*texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for line in (line for lines in texts for line in lines):
        digest.update(line.encode(errors="surrogatepass") + b"\0")
    return digest.hexdigest()


class Worker:
    """Runs in a process of the cluster: opens the evaluation once, and extracts the features of parts."""

    def __init__(self, task: Task) -> None:
        self.task, self.machine = task, socket.gethostname()
        self.error: GalipError | None = None
        try:
            self._open()
        except GalipError as error:  # the process that asked raises it; Ray would start the worker again
            self.error = error

    def _open(self) -> None:
        task = self.task
        evaluation = task.open(task.config)
        facts = facts_of(evaluation)
        if different := sorted(name for name in facts if facts[name] != task.facts.get(name)):
            raise FileRefused(
                f"there is another {', another '.join(different)} than on the machine that asks; give all "
                "machines the same files under the same paths, and the same packages"
            )
        is_subject = task.which == "subject"
        pictures = evaluation.subject if is_subject else evaluation.reference.pictures
        assert pictures is not None
        self.pictures: Pictures = pictures
        self.inception = evaluation.inception if task.inception else None
        self.clip = evaluation.clip if task.clip else None
        info = evaluation.model.info() if evaluation.model and is_subject else {}
        self.runs_on = f"{info['device']}, {info['precision']['generator']}" if info else ""

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Map rows of `first` and `last`, one a part, to rows of `part`: pickled `Part`."""
        ends = zip(rows["first"].tolist(), rows["last"].tolist(), strict=True)
        parts = [pickle.dumps(self._extract(range(*each))) for each in ends]
        return {"part": np.array(parts, dtype=object)}

    def _extract(self, numbers: range) -> Part:
        if self.error:
            return Part(self.machine, error=self.error)
        examples = self.pictures.examples if isinstance(self.pictures, StoredPictures) else []
        examples.clear()
        keep = self.task.keep and numbers.start < _KEPT_PICTURES
        try:
            _, features = extract_share(
                self.pictures,
                numbers,
                inception=self.inception,
                clip=self.clip,
                most_kept=len(numbers) if keep else 0,
                batch_size=self.task.config.batch_size,
            )
        except GalipError as error:
            return Part(self.machine, error=error)
        return Part(self.machine, self.runs_on, features, tuple(examples))
