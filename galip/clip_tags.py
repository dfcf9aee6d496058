"""What `--clip` may name: a path, or an open_clip `MODEL:TAG` and where its weights are.

PyTorch is not imported here, and open_clip, which imports it, is read and not run: a typo should not wait for
them.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from galip_runtime.errors import FileRefused, UsageError

__all__ = ["DEFAULT_MODEL", "PretrainedClip", "find_pretrained", "is_clip_path"]

DEFAULT_MODEL = "ViT-B-32-quickgelu"
"""The open_clip model of a bare tag: OpenAI's and GALIP's."""
OPENAI_FILE = "ViT-B-32.pt"
PATIENCE = 10.0
"""Seconds to wait for the host that has the weights."""

_ENDINGS = (".pt", ".pth", ".safetensors", ".bin")


@dataclass(frozen=True)
class PretrainedClip:
    """Weights that open_clip knows."""

    model: str
    tag: str
    url: str = ""
    hub: str = ""
    """Repository and file on the model hub; the file may be empty."""

    @property
    def file(self) -> Path:
        """Where open_clip and OpenAI's code keep their download, and a file may be put by hand."""
        is_openai = (self.model, self.tag) in (("ViT-B-32", "openai"), (DEFAULT_MODEL, "openai"))
        name = OPENAI_FILE if is_openai else Path(self.url).name or f"{self.model}-{self.tag}.pt"
        return Path("~/.cache/clip").expanduser() / name

    def local_file(self) -> Path | None:
        """Return the file of the weights if this machine has it; None otherwise."""
        return self.file if self.file.is_file() else self._in_hub_cache()

    def check_reachable(self) -> None:
        """Raise `FileRefused` if the weights are neither here nor, at one attempt, within reach."""
        from huggingface_hub import constants

        if self.local_file() is not None:
            return
        if self.hub and constants.HF_HUB_OFFLINE:
            raise FileRefused(f"{self._unavailable()} and HF_HUB_OFFLINE is set; {self.advice()}")
        try:
            request = urllib.request.Request(constants.ENDPOINT if self.hub else self.url, method="HEAD")
            urllib.request.urlopen(request, timeout=PATIENCE).close()
        except urllib.error.HTTPError as error:  # the host answers
            error.close()
        except (OSError, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            if not isinstance(reason, ssl.SSLCertVerificationError):  # open_clip may know other certificates
                raise FileRefused(
                    f"{self._unavailable()} and there is no network ({reason}); {self.advice()}"
                ) from error

    def advice(self) -> str:
        """Return what to download by hand, and where to put it."""
        name = self.file.name
        what = f"OpenAI's {name}" if name == OPENAI_FILE else name
        return f"download {what} elsewhere and put it at {self.file}, or give its path with --clip"

    def _unavailable(self) -> str:
        return f"the weights {self.tag!r} of {self.model!r} are not on this machine"

    def _in_hub_cache(self) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        repository, _, name = self.hub.rpartition("/")
        if not repository:
            return None
        pickled = name or "open_clip_pytorch_model.bin"
        safe = "open_clip_model.safetensors" if not name else f"{Path(name).stem}.safetensors"
        for file in (safe, pickled):
            found = try_to_load_from_cache(repository, file)
            if isinstance(found, str):
                return Path(found)
        return None


def is_clip_path(clip: str) -> bool:
    """Return whether `clip` names a file or folder, not an open_clip tag."""
    return os.path.exists(clip) or len(Path(clip).parts) > 1 or Path(clip).suffix in _ENDINGS


def find_pretrained(clip: str) -> PretrainedClip:
    """Return the weights of the open_clip `MODEL:TAG`, or of a bare tag of `DEFAULT_MODEL`.

    Raises `UsageError` listing the known tags if open_clip has no such weights.
    """
    name, _, tag = clip.rpartition(":")
    model, known = name or DEFAULT_MODEL, _known_weights()
    found = known.get(model, {}).get(tag)
    if found is None:
        raise UsageError(
            f"{clip!r:.200} is neither a file or folder nor weights of open_clip, which has no {tag!r:.80} "
            f"for {model!r:.80}; it has {sorted(known.get(model, {})) or 'no such model'}. Give a file or "
            f"folder with CLIP's weights, MODEL:TAG such as {DEFAULT_MODEL}:openai, or default for the "
            "shipped model's towers"
        )
    return found


@functools.cache
def _known_weights() -> dict[str, dict[str, PretrainedClip]]:
    """Return open_clip's table of weights by model and tag, read from its source."""
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None, "open_clip_torch is a dependency"
    assert spec.origin is not None, "open_clip is a package with a file"
    tree = ast.parse((Path(spec.origin).parent / "pretrained.py").read_text("utf-8"))
    assigned = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    table = assigned["_PRETRAINED"]
    assert isinstance(table, ast.Dict), "open_clip's table of weights is a dict"
    weights: dict[str, dict[str, PretrainedClip]] = {}
    for key, value in zip(table.keys, table.values, strict=True):
        model = ast.literal_eval(key) if key is not None else ""
        entries = assigned[value.id] if isinstance(value, ast.Name) else value
        for tag, call in _entries(entries):
            facts = {name: value.value for name, value in _entries(call) if isinstance(value, ast.Constant)}
            for name in (model, f"{model}-quickgelu") if facts.get("quick_gelu") else (model,):
                places = str(facts.get("url", "")), str(facts.get("hf_hub", ""))
                weights.setdefault(name, {})[tag] = PretrainedClip(name, tag, *places)
    return weights


def _entries(node: ast.expr) -> list[tuple[str, ast.expr]]:
    """Return the names and values of `dict(name=value, …)` or `{"name": value, …}`."""
    if isinstance(node, ast.Call):
        return [(keyword.arg, keyword.value) for keyword in node.keywords if keyword.arg]
    if isinstance(node, ast.Dict):
        return [
            (ast.literal_eval(key), value)
            for key, value in zip(node.keys, node.values, strict=True)
            if key is not None
        ]
    return []
