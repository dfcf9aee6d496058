"""Building the icon data set: about 19,000 captioned pictures in seven styles, as WebDataset shards."""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from galip_runtime.bundle.manifest import sha256_file
from galip_runtime.errors import FileRefused, GalipError, UsageError
from galip_runtime.files import lock_folder, remove_leftovers, staging_folder

from galip.data.shard_folder import DATASET_FILE, PARTIAL_FILE, check_sums, check_whole, tars_in
from galip.data.shards import write_shards
from galip.data.texts import read_json
from galip.progress import Progress, no_progress
from icons.names import Names
from icons.phrases import load_inflect
from icons.plan import Plan, by_hash, plan_icons
from icons.render import MARGIN, load_renderer, render_all
from icons.sources import EMOJIBASE, ICON_SETS, Package, find_or_fetch
from icons.variants import Variants, plan_variants

__all__ = ["IconsSummary", "build_icons"]

REVISION = 4
"""Raised with every change of names, captions, splits, meta or pictures: older builds are then redone."""
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class IconsSummary:
    """Counts of a build."""

    pictures: int
    things: int
    per_style: dict[str, int]
    per_split: dict[str, int]
    matched: dict[str, float]
    """Share of each set's icons that are in the emoji table."""
    size: int
    built: bool
    """False if the folder already held exactly this build."""


def build_icons(
    out: Path,
    *,
    size: int = 64,
    source: Path | None = None,
    skin_tones: bool = True,
    exclude_groups: Sequence[str] = (),
    progress: Progress = no_progress,
    icon_sets: Sequence[Package] = ICON_SETS,
    emojibase: Package = EMOJIBASE,
    variants: Variants | None = None,
    processes: int = 2,
) -> IconsSummary:
    """Build shards of `size`-pixel pictures in `out` from packages in `source`, or fetched with npm.

    Fetched archives stay in `out/packages`. Shards are written to a staging folder and moved in at the end,
    `dataset.json` last: an interrupted build is never mistaken for a complete one, and the next build starts
    over. A folder that already holds exactly this build is left alone. `variants`: also pictures with other
    colours, backgrounds, counts, sizes and neighbours, which have "variant" in their meta.

    Raises UsageError (bad arguments, npm missing, unwritable or foreign `out`, another build running),
    FileRefused (an archive other than the recorded one), ProviderUnavailable (no renderer installed).
    """
    if not 8 <= size <= 1024:
        raise UsageError(f"size {size} is out of range: it must be 8 to 1024 pixels.")
    if source is not None and not source.is_dir():
        raise UsageError(f"{source} is not a folder; give --from a folder of packages fetched by npm pack.")
    packages = (*icon_sets, emojibase)
    recipe = {
        "revision": REVISION,
        "size": size,
        "margin": MARGIN,
        "skin_tones": skin_tones,
        "exclude_groups": sorted(exclude_groups),
        "packages": {package.spec: package.sha512 for package in packages},
    }
    if variants is not None:
        recipe["variants"] = variants.record()
    _refuse_foreign(out)
    with _locked_staging(out) as staging:
        if (summary := _already_built(out, recipe)) is not None:
            return summary
        load_renderer()  # these fail before anything is fetched if they are not installed
        if variants:
            load_inflect()
        *archives, emoji_archive = _archives(packages, out / "packages", source, progress)
        planned, matched = plan_icons(icon_sets, archives, Names(emoji_archive), progress)
        planned = _chosen(planned, skin_tones, exclude_groups)
        if variants is not None:
            planned = by_hash([*planned, *plan_variants(planned, variants, processes, progress)])
        summary = _summary(planned, matched, size)
        licences = {package.spec: package.licence for package in icon_sets}
        record = {"recipe": recipe, "summary": asdict(summary), "licences": licences}
        try:
            _move_in(out, _write(planned, staging, size, processes, progress), record)
        except OSError as error:
            raise GalipError(
                f"cannot write the shards in {out}: {error}. Make room and run again."
            ) from error
    return summary


def _chosen(planned: Sequence[Plan], skin_tones: bool, exclude_groups: Sequence[str]) -> list[Plan]:
    groups = sorted({plan.meta["group"] for plan in planned})
    if unknown := sorted(set(exclude_groups) - set(groups)):
        raise UsageError(f"no group {unknown[0]!r} to exclude; groups are {', '.join(groups)}.")
    chosen = [
        plan
        for plan in planned
        if plan.meta["group"] not in exclude_groups and (skin_tones or not plan.meta["skin_tone"])
    ]
    if not chosen:
        raise UsageError("no pictures are left; exclude fewer groups.")
    return chosen


@contextlib.contextmanager
def _locked_staging(out: Path) -> Iterator[Path]:
    """Make the folder `out`, lock it and yield a staging folder in it. The lock ends with this process."""
    with contextlib.ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            if (lock := lock_folder(out)) is not None:
                stack.callback(os.close, lock)
            remove_leftovers(out)
            staging = stack.enter_context(staging_folder(out))
        except BlockingIOError as error:
            raise UsageError(
                f"another build is running in {out}; wait for it or choose another folder."
            ) from error
        except OSError as error:
            raise UsageError(
                f"cannot write in {out}: {error.strerror}. Choose another folder with --out."
            ) from error
        yield staging


def _refuse_foreign(out: Path) -> None:
    """Raise UsageError if the folder has shards or a record that no icon build wrote."""
    record = out / DATASET_FILE
    if record.is_file():
        if _record(out) is None:
            raise UsageError(
                f"{record} was not written by an icon build. Choose another folder, or remove it."
            )
    elif tars_in(out) and not (out / PARTIAL_FILE).exists():
        raise UsageError(f"{out} holds shards that no icon build wrote. Choose another folder.")


def _record(out: Path) -> dict[str, Any] | None:
    """Return the content of `dataset.json` if an icon build wrote it."""
    try:
        record = read_json(out / DATASET_FILE)
    except (ValueError, FileRefused):
        return None
    return record if isinstance(record, dict) and "recipe" in record else None


def _already_built(out: Path, recipe: dict[str, Any]) -> IconsSummary | None:
    """Return the summary of the build in `out` if it is complete and of this recipe."""
    record = _record(out)
    if record is None or record["recipe"] != recipe:
        return None
    try:
        check_sums(out, check_whole(out))
        summary = IconsSummary(**{**record["summary"], "built": False})
    except (FileRefused, KeyError, TypeError):
        return None  # interrupted, altered or of another version: build it again
    counts = (summary.per_style, summary.per_split, summary.matched)
    return summary if all(isinstance(count, dict) for count in counts) else None


def _archives(
    packages: Sequence[Package], cache: Path, source: Path | None, progress: Progress
) -> Iterator[Path]:
    for done, path in enumerate(find_or_fetch(packages, cache=cache, source=source), 1):
        progress("fetch packages", done, len(packages))
        yield path


def _summary(planned: Sequence[Plan], matched: dict[str, float], size: int) -> IconsSummary:
    return IconsSummary(
        pictures=len(planned),
        things=len({plan.meta["thing"] for plan in planned}),
        per_style=dict(sorted(Counter(plan.meta["style"] for plan in planned).items())),
        per_split={split: sum(plan.split == split for plan in planned) for split in SPLITS},
        matched=matched,
        size=size,
        built=True,
    )


def _write(
    planned: Sequence[Plan], folder: Path, size: int, processes: int, progress: Progress
) -> list[Path]:
    """Render and write all splits. Return the shards in order."""
    done = 0
    shards: list[Path] = []

    def rendered(plans: Sequence[Plan]) -> Iterator[tuple[str, bytes, str, dict[str, Any]]]:
        nonlocal done
        pictures = render_all(
            [(plan.key, plan.svg, plan.background) for plan in plans], size, processes=processes
        )
        for plan, png in zip(plans, pictures, strict=True):
            yield plan.key, png, plan.captions[0], plan.meta
            done += 1
            if done % 100 == 0 or done == len(planned):
                progress("render pictures", done, len(planned))

    for split in SPLITS:
        shards += write_shards(folder, split, rendered([plan for plan in planned if plan.split == split]))
    return shards


def _move_in(out: Path, shards: Sequence[Path], record: dict[str, Any]) -> None:
    """Move the finished shards into place. While that lasts, `.partial` forbids their use."""
    listed = [
        {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in shards
    ]
    document = json.dumps({"format": 1, **record, "shards": listed}, indent=1)
    staging = shards[0].parent
    (staging / DATASET_FILE).write_text(document, encoding="utf-8")
    (out / PARTIAL_FILE).touch()
    (out / DATASET_FILE).unlink(missing_ok=True)
    for old in (path for split in SPLITS for path in out.glob(f"{split}-?????.tar")):
        old.unlink()
    for path in shards:
        path.replace(out / path.name)
    (staging / DATASET_FILE).replace(out / DATASET_FILE)
    (out / PARTIAL_FILE).unlink()
