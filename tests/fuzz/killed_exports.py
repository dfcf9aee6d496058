"""Killed exports leave the old bundle or the new one, and the next export tidies up."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import torch
from fuzz.fixtures import generate, small_bundle, small_checkpoint
from fuzz.harness import Trial
from fuzz.killing import Work, in_child, killed
from fuzz.mutation import pick
from galip_export import export_bundle

SECONDS, MEGABYTES = 180, None


def start(home: Path) -> Trial:
    torch.set_num_threads(1)  # a forked child has no other threads
    expected = home / "pictures.npz"
    old, new, facts = home / "exported0", small_checkpoint(home, 1), home / "work.json"
    if not facts.exists():
        in_child(lambda: [small_bundle(home, seed) for seed in (0, 1)], home / "log")
        in_child(
            lambda: np.savez(expected, *(generate(home / f"exported{i}", "cpu") for i in (0, 1))),
            home / "log",
        )
        work = in_child(partial(export_bundle, new, home / "again"), home / "log")
        facts.write_text(json.dumps(vars(work)))
    work = Work(**json.loads(facts.read_text()))
    pictures = list(np.load(expected).values())

    def trial(rng: np.random.Generator, folder: Path) -> str:
        out, log = folder / "place" / "bundle", folder / "log"
        out.parent.mkdir()
        overwrite = bool(rng.random() < 0.7)
        if overwrite:
            shutil.copytree(old, out)
        export = partial(export_bundle, new, out, overwrite=True)
        times = int(pick(rng, (1, 1, 2)))
        when = ", ".join(killed(export, work, rng, log) for _ in range(times))
        (folder / "killed.txt").write_text(when)

        def check(kinds: list[int], missing: bool) -> None:
            if missing and not out.exists():
                return
            generated = generate(out, "cpu")
            assert any(np.array_equal(generated, pictures[kind]) for kind in kinds), (
                f"another bundle, killed {when}"
            )

        in_child(partial(check, [0, 1] if overwrite else [1], not overwrite), log)
        outcome = "bundle in place" if out.exists() else "no bundle"
        in_child(export, log)
        files = sorted(os.listdir(out.parent))
        assert files == ["bundle"], f"left over, killed {when}: {files}"
        in_child(partial(check, [1], False), log)
        return outcome

    return trial
