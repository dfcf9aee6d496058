"""A loaded bundle: `Model`."""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import galip_runtime
from galip_runtime.backends.devices import Settings, backend_versions
from galip_runtime.backends.gpu_runner import GpuRunner
from galip_runtime.backends.runner import Runner
from galip_runtime.bundle.manifest import CONDITION, GRAPHS, Manifest
from galip_runtime.errors import FileRefused
from galip_runtime.sentence_cache import SentenceCache
from galip_runtime.text_to_image import CAPTIONS_AT_ONCE, TextToImage
from galip_runtime.tokenizer import Tokenizer

__all__ = ["Model"]

_CACHED_CONDITIONS = 64  # of up to 0.1 MB each
_CONDITIONS_AT_ONCE = 8


class Model(TextToImage):
    """A loaded bundle; `galip_runtime.load` makes one. May be shared by threads.

    May be pickled and copied: the copy loads the same bundle from its folder. A forked process opens it anew
    when it first draws, except on a GPU, where it has to call `load` itself (ProviderUnavailable).

    On `cpu` and `openvino` a picture is the same bit for bit whatever it is batched with, and however many
    threads draw at once.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        tokenizer: Tokenizer,
        graphs: Mapping[str, Runner],
        settings: Settings,
        requested: dict[str, Any],
        passed_over: Sequence[str] = (),
        folder: Path | None = None,
    ) -> None:
        """`folder`: the bundle's absolute path, which a copy is loaded from; None for `path`."""
        # on OpenVINO a caption's vector depends on how long the longest caption beside it is, by rounding
        captions_at_once = 1 if settings.device == "openvino" else CAPTIONS_AT_ONCE
        super().__init__(tokenizer, manifest.dimensions, captions_at_once)
        self.path = path
        self.manifest = manifest
        self.settings = settings
        self._folder = path if folder is None else folder
        self._graphs = graphs
        self._requested = requested
        self._passed_over = list(passed_over)
        self._conditions = SentenceCache(_CACHED_CONDITIONS, _CONDITIONS_AT_ONCE)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, or what is pickled and read in another process, is loaded from the bundle's folder.

        It is loaded for the device, in the precision and with the threads that were asked for; raises as
        `load`, and FileRefused where the folder holds another bundle by then.
        """
        return _load_again, (os.fspath(self._folder), self.manifest.to_json(), self._requested)

    @property
    def rounds_on_device(self) -> bool:
        """Whether `draw` gives pictures as the device has rounded them: a GPU does."""
        return isinstance(self._graphs["generator"], GpuRunner)

    def _run_text(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return self._graphs["text_encoder"].run({"tokens": tokens})

    def _run_generator(
        self, noise: npt.NDArray[np.float32], sentence: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        return self._graphs["generator"].run(self._inputs(noise, sentence))

    def _run_pictures(
        self, noise: npt.NDArray[np.float32], sentence: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.uint8]:
        return self._graphs["generator"].draw(self._inputs(noise, sentence))

    def _inputs(
        self, noise: npt.NDArray[np.float32], sentence: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[np.float32]]:
        """What the generator takes."""
        if CONDITION not in self._graphs:
            return {"noise": noise, "sentence": sentence}
        return {"noise": noise, CONDITION: self._conditions(sentence, self._run_condition)}

    def _run_condition(self, sentence: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Sentence float32 (N, D) to what the generator computes of it alone, float32 (N, K)."""
        return self._graphs[CONDITION].run({"sentence": sentence})

    def info(self) -> dict[str, Any]:
        """What is loaded and how it runs, fit for JSON: asked for and used device, hashes, versions.

        `digest` is the manifest's own; None for a bundle from before manifests had one.
        """
        return {
            "path": str(self.path),
            "format_version": self.manifest.format_version,
            "digest": self.manifest.digest,
            "requested": self._requested,
            "device": self.settings.device,
            "passed_over": self._passed_over,
            "providers": {graph: self._graphs[graph].providers for graph in GRAPHS},
            "precision": {graph: self._graphs[graph].file.precision for graph in GRAPHS},
            "precisions": sorted(self.manifest.graphs["generator"]),
            "opset": self._graphs["generator"].file.spec.opset,
            "threads": self.settings.threads,
            "dimensions": vars(self.manifest.dimensions),
            "model": self.manifest.model,
            "noise": self.manifest.noise["name"],
            "source": vars(self.manifest.source),
            "files": {name: vars(entry) for name, entry in self.manifest.files.items()},
            "made_with": dict(self.manifest.versions),
            "versions": {
                "galip-runtime": galip_runtime.__version__,
                **backend_versions(),
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }


def _load_again(folder: str, manifest: str, requested: Mapping[str, Any]) -> Model:
    from galip_runtime.loading import load  # which imports this module

    model = load(folder, **requested)
    if model.manifest.to_json() != manifest:
        raise FileRefused(f"{folder} holds another bundle than the model was loaded from: load it anew")
    return model
