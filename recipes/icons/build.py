"""Builds the icon data set: about 19,000 captioned pictures in seven styles, as WebDataset shards."""

import contextlib
import hashlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from galip_runtime.bundle.manifest import sha256_file
from galip_runtime.errors import FileRefused, GalipError, UsageError

from galip.data.shard_folder import DATASET_FILE, PARTIAL_FILE, check_sums, check_whole, tars_in
from galip.data.shards import write_shards
from galip.data.texts import read_json
from icons.captions import captions_of
from icons.commonness import Commonness
from icons.extra import BROKEN_ICONS
from icons.names import Names, Thing, split_of
from icons.render import MARGIN, load_renderer, render_all
from icons.sources import EMOJIBASE, ICON_SETS, Package, find_or_fetch, icons_of

__all__ = ["IconsSummary", "build_icons"]

REVISION = 4
"""Raised by whatever changes names, captions, splits, meta or pictures: older builds are then redone."""
SPLITS = ("train", "val", "test")
BUILDING = ".building"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class IconsSummary:
    """What a build holds."""

    pictures: int
    things: int
    per_style: dict[str, int]
    per_split: dict[str, int]
    matched: dict[str, float]
    """Share of a set's icons found in the emoji table, by set."""
    size: int
    built: bool
    """False where the folder already held exactly this build."""


@dataclass(frozen=True)
class _Planned:
    key: str
    split: str
    svg: str
    captions: list[str]
    meta: dict[str, Any]


def build_icons(
    out: Path,
    *,
    size: int = 64,
    source: Path | None = None,
    skin_tones: bool = True,
    exclude_groups: Sequence[str] = (),
    progress: Progress | None = None,
    icon_sets: Sequence[Package] = ICON_SETS,
    emojibase: Package = EMOJIBASE,
    processes: int = 2,
) -> IconsSummary:
    """Builds shards of `size`-pixel pictures in `out` from packages in `source`, or fetched with npm.

    Fetched archives stay in `out/packages`. Shards are made aside and moved in at the end, `dataset.json`
    last; a build that is cut short is never taken for a whole one and is redone by the next. A folder that
    already holds this very build is left as it is. `progress(step, done, total)` is called as it goes.
    Raises UsageError (arguments, npm missing, unwritable or foreign `out`, another build at work),
    FileRefused (an archive that is not the recorded one), ProviderUnavailable (no renderer installed).
    """
    if not 8 <= size <= 1024:
        raise UsageError(f"size {size} is out of range: pictures have 8 to 1024 pixels a side.")
    if source is not None and not source.is_dir():
        raise UsageError(f"{source} is not a folder; --from takes one with packages fetched by npm pack.")
    packages = (*icon_sets, emojibase)
    recipe = {
        "revision": REVISION,
        "size": size,
        "margin": MARGIN,
        "skin_tones": skin_tones,
        "exclude_groups": sorted(exclude_groups),
        "packages": {package.spec: package.sha512 for package in packages},
    }
    report = progress or (lambda step, done, total: None)
    _refuse_foreign(out)
    with _folder_to_ourselves(out):
        if (summary := _already_built(out, recipe)) is not None:
            return summary
        load_renderer()  # its absence is told before anything is fetched
        *archives, emoji_archive = _archives(packages, out / "packages", source, report)
        planned, matched = _plan(icon_sets, archives, Names(emoji_archive), report)
        planned = _chosen(planned, skin_tones, exclude_groups)
        summary = _summary(planned, matched, size)
        licences = {package.spec: package.licence for package in icon_sets}
        record = {"recipe": recipe, "summary": asdict(summary), "licences": licences}
        with _aside(out) as aside:
            _move_in(out, _write(planned, aside, size, processes, report), record)
    return summary


@contextlib.contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """A fresh folder for the shards in the making, gone afterwards however it ends."""
    aside = out / BUILDING
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        yield aside
    except OSError as error:
        raise GalipError(f"cannot write the shards in {out}: {error}. Make room, run again.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _chosen(planned: Sequence[_Planned], skin_tones: bool, exclude_groups: Sequence[str]) -> list[_Planned]:
    groups = sorted({plan.meta["group"] for plan in planned})
    if unknown := sorted(set(exclude_groups) - set(groups)):
        raise UsageError(f"no group {unknown[0]!r} to exclude; there are: {', '.join(groups)}.")
    chosen = [
        plan
        for plan in planned
        if plan.meta["group"] not in exclude_groups and (skin_tones or not plan.meta["skin_tone"])
    ]
    if not chosen:
        raise UsageError("no pictures are left after excluding groups; exclude fewer.")
    return chosen


@contextlib.contextmanager
def _folder_to_ourselves(out: Path) -> Iterator[None]:
    """Makes the folder and holds a lock in it that ends with this process."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("a")
    except OSError as error:
        raise UsageError(
            f"cannot write in {out}: {error.strerror}. Name another folder with --out."
        ) from error
    with lock:
        try:
            _lock(lock.fileno())
        except OSError as error:
            raise UsageError(
                f"another build is at work in {out}; wait for it or name another folder."
            ) from error
        yield


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _refuse_foreign(out: Path) -> None:
    """Raises UsageError for a folder with shards or a record that no icon build made."""
    record = out / DATASET_FILE
    if record.is_file():
        if _record(out) is None:
            raise UsageError(f"{record} is not that of an icon build. Name another folder, or remove it.")
    elif tars_in(out) and not (out / PARTIAL_FILE).exists():
        raise UsageError(f"{out} holds shards that no icon build made. Name another folder.")


def _record(out: Path) -> dict[str, Any] | None:
    """What `dataset.json` says, if an icon build wrote it."""
    try:
        record = read_json(out / DATASET_FILE)
    except (ValueError, FileRefused):
        return None
    return record if isinstance(record, dict) and "recipe" in record else None


def _already_built(out: Path, recipe: dict[str, Any]) -> IconsSummary | None:
    """The summary of the build that `out` holds, if it is whole and made by this recipe."""
    known = _record(out)
    if known is None or known["recipe"] != recipe:
        return None
    try:
        check_sums(out, check_whole(out))
        summary = IconsSummary(**{**known["summary"], "built": False})
    except (FileRefused, KeyError, TypeError):
        return None  # cut short, altered or of another version: built again
    counts = (summary.per_style, summary.per_split, summary.matched)
    return summary if all(isinstance(count, dict) for count in counts) else None


def _archives(
    packages: Sequence[Package], cache: Path, source: Path | None, report: Progress
) -> Iterator[Path]:
    for done, path in enumerate(find_or_fetch(packages, cache=cache, source=source), 1):
        report("fetch packages", done, len(packages))
        yield path


def _plan(
    icon_sets: Sequence[Package], archives: Sequence[Path], names: Names, report: Progress
) -> tuple[list[_Planned], dict[str, float]]:
    """Every picture to make, in an order that mixes sets and things; and each set's share of known names."""
    from galip.clip import clip_tokenizer  # imports torch, which the workers that render do without

    planned: list[_Planned] = []
    matched: dict[str, float] = {}
    commonness = Commonness(clip_tokenizer(48_894, 77).merges)
    for done, (package, archive) in enumerate(zip(icon_sets, archives, strict=True), 1):
        found: Counter[bool] = Counter()
        for icon in icons_of(archive):
            thing = names.thing(icon, package.short)
            key = f"{package.short}--{icon.name}"
            if key in BROKEN_ICONS:
                continue
            found[thing.matched] += 1
            captions = captions_of(thing, package.style, key)
            meta = _meta(thing, commonness, package, icon.name, captions)
            planned.append(_Planned(key, split_of(thing.base), icon.svg, captions, meta))
        report("read icons", done, len(icon_sets))
        matched[package.short] = round(found[True] / max(1, found.total()), 4)
    planned.sort(key=lambda plan: hashlib.sha256(plan.key.encode()).digest())
    return planned, matched


def _meta(
    thing: Thing, commonness: Commonness, package: Package, icon_name: str, captions: list[str]
) -> dict[str, Any]:
    rank, ranked_by = commonness.rank(thing)
    return {
        "thing": thing.name,
        "base": thing.base,
        "style": package.style,
        "skin_tone": thing.skin_tone,
        "group": thing.group,
        "subgroup": thing.subgroup,
        "order": thing.order,
        "rank": rank,
        "ranked_by": ranked_by,
        "tags": list(thing.tags),
        "aliases": list(thing.aliases),
        "captions": captions,
        "source": package.spec,
        "icon": icon_name,
        "licence": package.licence,
    }


def _summary(planned: Sequence[_Planned], matched: dict[str, float], size: int) -> IconsSummary:
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
    planned: Sequence[_Planned], folder: Path, size: int, processes: int, report: Progress
) -> list[Path]:
    """Renders and writes all splits; returns the shards in order."""
    done = 0
    shards: list[Path] = []

    def rendered(plans: Sequence[_Planned]) -> Iterator[tuple[str, bytes, str, dict[str, Any]]]:
        nonlocal done
        pictures = render_all([(plan.key, plan.svg) for plan in plans], size, processes=processes)
        for plan, png in zip(plans, pictures, strict=True):
            yield plan.key, png, plan.captions[0], plan.meta
            done += 1
            if done % 100 == 0 or done == len(planned):
                report("render pictures", done, len(planned))

    for split in SPLITS:
        shards += write_shards(folder, split, rendered([plan for plan in planned if plan.split == split]))
    return shards


def _move_in(out: Path, shards: Sequence[Path], record: dict[str, Any]) -> None:
    """Puts the finished shards into place; from the first to the last step `.partial` bars their use."""
    listed = [
        {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in shards
    ]
    document = json.dumps({"format": 1, **record, "shards": listed}, indent=1)
    aside = shards[0].parent
    (aside / DATASET_FILE).write_text(document, encoding="utf-8")
    (out / PARTIAL_FILE).touch()
    (out / DATASET_FILE).unlink(missing_ok=True)
    for old in (path for split in SPLITS for path in out.glob(f"{split}-?????.tar")):
        old.unlink()
    for path in shards:
        path.replace(out / path.name)
    (aside / DATASET_FILE).replace(out / DATASET_FILE)
    (out / PARTIAL_FILE).unlink()
