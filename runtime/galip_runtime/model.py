"""A loaded bundle: `Model`."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import galip_runtime
from galip_runtime.backends.libraries import backend_versions
from galip_runtime.backends.runner import Runner, Settings
from galip_runtime.bundle.manifest import CONDITION, GRAPHS, Manifest
from galip_runtime.errors import UsageError
from galip_runtime.sentence_cache import SentenceCache
from galip_runtime.text_to_image import TextToImage
from galip_runtime.tokenizer import Tokenizer

__all__ = ["Model"]

_CACHED_CONDITIONS = 64  # of up to 0.1 MB each
_CONDITIONS_AT_ONCE = 8


class _ClosedRunners(dict[str, Runner]):
    """The runners of a closed model."""

    def __missing__(self, graph: str) -> Runner:
        raise UsageError("the model is closed: load the bundle again")


class Model(TextToImage):
    """A loaded bundle, as `galip_runtime.load` returns it. Threads may share it.

    It can be pickled and copied: the copy loads the same bundle from its folder. A forked process opens it
    again for its first picture, except on a GPU, where the process has to call `load` (ProviderUnavailable).

    On `cpu` and `openvino` a picture is bit for bit the same whatever else is in its batch and however many
    threads run the model at once.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        tokenizer: Tokenizer,
        runners: Mapping[str, Runner],
        settings: Settings,
        requested: dict[str, Any],
        reload: Callable[[str, str, Mapping[str, Any]], "Model"],
        passed_over: Sequence[str] = (),
    ) -> None:
        """Hold what `galip_runtime.load` has loaded.

        `requested`: the arguments of `load`. `reload(folder, manifest, requested)` loads the bundle again for
        a copy. `passed_over`: why device `auto` did not take a better device.
        """
        super().__init__(tokenizer, manifest.dimensions, runners["text_encoder"].captions_at_once)
        self.path = path
        self.manifest = manifest
        self.settings = settings
        self._folder = path.absolute()  # another process, which loads a copy, may be in another folder
        self._runners = runners
        self._requested = requested
        self._reload = reload
        self._passed_over = list(passed_over)
        self._conditions = SentenceCache(_CACHED_CONDITIONS, _CONDITIONS_AT_ONCE)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by loading the bundle from its folder again, with the same arguments.

        Loading the copy raises as `load`, and FileRefused where the folder holds another bundle by then.
        """
        return self._reload, (os.fspath(self._folder), self.manifest.to_json(), self._requested)

    def __repr__(self) -> str:
        """Describe the model as `TextToImage` does, or as closed."""
        if isinstance(self._runners, _ClosedRunners):
            return f"<{type(self).__name__}: closed, from {str(self.path)!r}>"
        return super().__repr__()

    def close(self) -> None:
        """Free the graphs' memory, on a GPU too, once running calls have ended. Later calls are errors.

        What `generate_async` has not drawn yet ends with ServiceUnavailable.
        """
        super().close()
        self._runners = _ClosedRunners()

    @property
    def digest(self) -> str | None:
        """The manifest's digest of itself; None for a bundle from before manifests had one."""
        return self.manifest.digest

    @property
    def rounds_on_device(self) -> bool:
        """Whether `decode_pictures` returns what the device has rounded, as a GPU or galip-kernels does."""
        return self._runners["generator"].rounds_on_device

    def _run_text(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return self._runners["text_encoder"].run({"tokens": tokens})

    def _run_generator(
        self, noise: npt.NDArray[np.float32], sentence: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        return self._runners["generator"].run(self._inputs(noise, sentence))

    def _run_pictures(
        self, noise: npt.NDArray[np.float32], sentence: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.uint8]:
        return self._runners["generator"].run_pixels(self._inputs(noise, sentence))

    def _inputs(
        self, noise: npt.NDArray[np.float32], sentence: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Return the inputs of the generator's runner."""
        if CONDITION not in self._runners:
            return {"noise": noise, "sentence": sentence}
        return {"noise": noise, CONDITION: self._conditions(sentence, self._run_condition)}

    def _run_condition(self, sentence: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map sentences, float32 (N, D), to what the generator computes from them alone, float32 (N, K)."""
        return self._runners[CONDITION].run({"sentence": sentence})

    def info(self) -> dict[str, Any]:
        """Return what is loaded and how it runs, fit for JSON: requested and actual device, hashes, versions.

        `digest` is the manifest's own; None for a bundle from before manifests had one. With `fallback=True`
        there is `nodes_on_cpu`, the nodes of each graph that the CPU runs instead of the device. `kernels`
        has the instructions that galip-kernels uses, `target`; None where it is not used, and `why`.
        """
        fallback = {name: list(runner.nodes_on_cpu) for name, runner in self._runners.items()}
        return {
            "path": str(self.path),
            "format_version": self.manifest.format_version,
            "digest": self.manifest.digest,
            "requested": self._requested,
            "device": self.settings.device,
            "passed_over": self._passed_over,
            "providers": {graph: self._runners[graph].providers for graph in GRAPHS},
            **({"nodes_on_cpu": fallback} if self.settings.fallback else {}),
            "kernels": dict(self._runners["generator"].kernels),
            "precision": {graph: self._runners[graph].file.precision for graph in GRAPHS},
            "precisions": sorted(self.manifest.graphs["generator"]),
            "opset": self._runners["generator"].file.spec.opset,
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
