"""Blind judgement of pictures by people or vision models: pages to look at, a key kept apart, and scores.

    PYTHONPATH=recipes python -m icons.judging pairs OLD NEW --data data/icons128 --out FOLDER --key KEY.json
    PYTHONPATH=recipes python -m icons.judging naming MODEL --data data/icons128 --out FOLDER --key KEY.json
    PYTHONPATH=recipes python -m icons.judging score FOLDER --key KEY.json ANSWERS.json … --out RESULT.json

OLD, NEW and MODEL are checkpoints, or `default`. A judge gets the FOLDER: pages of numbered pictures or pairs
in random order, the question, and a form for the answers. FOLDER also has the key's sha256, so that a key
changed afterwards is refused. What is shown is set by a rule: the card's 40 things, each in all styles
(naming) or the n-th in the n-th style (pairs), with the card's seed.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from galip_runtime import console
from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.files import sha256_file, write_atomically
from galip_runtime.image import save_picture
from galip_runtime.text_to_image import TextToImage
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from galip.assets import STYLES, checkpoint_path
from galip.data.texts import read_json
from galip.eager import load_eager
from icons.colours import ASKED, COLOURED_THINGS
from icons.commands import exit_on_error
from icons.commonness import commonest_things
from icons.model_card import SEED
from icons.naming import ENOUGH_STYLES, named_things

__all__ = ["naming_pages", "pair_pages", "score"]

CELL = 256
"""Side of a picture on a page, pixels: smaller ones are enlarged."""
GAP = 24
NUMBER = 22
"""Height of a number, pixels."""
PAGE = {"pairs": (2, 4), "naming": (5, 4)}
"""Columns and rows of a page."""
KEY_SUM = "key.sha256"

QUESTIONS = {
    "pairs": "Each number has two pictures of the same thing, left and right. Which is the better picture, "
    "one that you would rather put on a slide? Look at all pages in full size. Fill in form.json for every "
    'number: "left", "right", or "equal" if you cannot say.\n',
    "naming": "Each number is a picture of one thing. What is it? Look at all pages in full size. Fill in "
    'form.json for every number: the name in one to three words, or "unclear".\n',
}
PREFERENCES = ("left", "right", "equal")

Pictures = NDArray[np.uint8]


def pair_pages(
    old: TextToImage,
    new: TextToImage,
    things: Sequence[str],
    folder: Path,
    key: Path,
    *,
    styles_per_thing: int = 1,
    with_prompts: bool = False,
    order: int | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write pages of pairs by an `old` and a `new` model to `folder`, and which is which to `key`.

    The n-th of `things`, prompts without style, is shown in the n-th style, counted round, and those after.
    `with_prompts` writes the prompt beside the number; `order` seeds the order and the sides, drawn if None;
    `facts` are stored in the key. Raises UsageError for a `folder` or `key` that cannot be used.
    """
    prompts = [
        f"{thing}, {STYLES[(i + j) % len(STYLES)]}"
        for i, thing in enumerate(things)
        for j in range(styles_per_thing)
    ]
    order, shuffled = _shuffled(prompts, order)
    sides = random.Random(order)
    items = []
    for prompt in shuffled:
        left = sides.choice(("old", "new"))
        items.append({"prompt": prompt, "left": left, "right": "new" if left == "old" else "old"})
    made = {"old": old.generate(shuffled, seeds=SEED), "new": new.generate(shuffled, seeds=SEED)}
    rows = [[made[item[side]][i] for side in ("left", "right")] for i, item in enumerate(items)]
    labels = shuffled if with_prompts else None
    about = {"order": order, **(facts or {}), "asked": prompts}
    _write("pairs", rows, items, folder, key, labels=labels, about=about)


def naming_pages(
    model: TextToImage,
    things: Sequence[str],
    folder: Path,
    key: Path,
    *,
    order: int | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write pages of the `model`'s pictures of `things` in all styles to `folder`, their names to `key`.

    Arguments and errors as for `pair_pages`.
    """
    items = [{"thing": thing, "style": style} for thing in things for style in STYLES]
    order, items = _shuffled(items, order)
    pictures = model.generate([f"{item['thing']}, {item['style']}" for item in items], seeds=SEED)
    rows = [[picture] for picture in pictures]
    about = {"order": order, **(facts or {}), "asked": list(things)}
    _write("naming", rows, items, folder, key, labels=None, about=about)


def _shuffled(items: Sequence[Any], order: int | None) -> tuple[int, list[Any]]:
    order = secrets.randbits(63) if order is None else order
    shuffled = list(items)
    random.Random(order).shuffle(shuffled)
    return order, shuffled


def _write(
    kind: str,
    rows: Sequence[Sequence[Pictures]],
    items: Sequence[Mapping[str, str]],
    folder: Path,
    key: Path,
    *,
    labels: Sequence[str] | None,
    about: Mapping[str, Any],
) -> None:
    """Write the pages, question, form and the key's sum to `folder`; the key, with `about`, to `key`."""
    if folder.resolve() in (key.resolve(), *key.resolve().parents):
        raise UsageError(f"the key {key} would lie in {folder}, which the judges see; keep it elsewhere")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as error:
        raise UsageError(f"cannot write in {folder}: {error.strerror}; choose another folder") from error
    if taken or key.exists():
        raise UsageError(f"{folder if taken else key} is there already; choose another, or remove it")
    columns, page_rows = PAGE[kind]
    per_page = columns * page_rows
    sums = {}
    for number, first in enumerate(range(0, len(rows), per_page), 1):
        numbers = range(first, min(first + per_page, len(rows)))
        captions = [f"{i + 1}" if labels is None else f"{i + 1}: {labels[i]}" for i in numbers]
        file = folder / f"page_{number:02d}.png"
        save_picture(_page([rows[i] for i in numbers], captions, columns), file)
        sums[file.name] = sha256_file(file)
    numbered = {str(number): item for number, item in enumerate(items, 1)}
    document = {"kind": kind, **about, "pages": sums, "items": numbered}
    write_atomically(key, _encoded(document))
    write_atomically(folder / KEY_SUM, f"{sha256_file(key)}\n".encode())
    write_atomically(folder / "question.txt", QUESTIONS[kind].encode())
    write_atomically(folder / "form.json", _encoded(dict.fromkeys(numbered, "")))


def _page(rows: Sequence[Sequence[Pictures]], captions: Sequence[str], columns: int) -> Pictures:
    """Lay out rows of one or two pictures (S, S, 3) under captions, `columns` side by side, on light grey."""
    cell = max(CELL, *(len(picture) for row in rows for picture in row))
    width, height = len(rows[0]) * (cell + 4) + GAP, cell + NUMBER + GAP
    sheet = Image.new("RGB", (GAP + columns * width, GAP + -(-len(rows) // columns) * height), "#ddd")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(NUMBER - 4)
    for index, (row, caption) in enumerate(zip(rows, captions, strict=True)):
        x, y = GAP + index % columns * width, GAP + index // columns * height
        draw.text((x, y), caption, "black", font)
        for picture in row:
            enlarged = Image.fromarray(picture).resize((cell, cell), Image.Resampling.BICUBIC)
            sheet.paste(enlarged, (x, y + NUMBER))
            x += cell + 4
    return np.asarray(sheet)


def score(folder: Path, key: Path, answers: Sequence[Path]) -> dict[str, Any]:
    """Return what judges answered, by the key, and how often they are for the new model or right.

    Pairs: `judges` has a count of new, old and equal each, and the `share_new` of all pairs; `answers` each
    judge's choice by prompt. Naming: `judges` has the number of things named right in at least three styles
    and the names of the others; `answers` is `card/judged.json`.

    Raises FileRefused for a key that the folder wasn't made with, pages that were changed, and answers that
    are missing or not on the form.
    """
    known = _checked_key(folder, key)
    items: dict[str, dict[str, str]] = known["items"]
    given = [_checked_answers(file, items, known["kind"]) for file in answers]
    facts = {name: value for name, value in known.items() if name not in ("asked", "pages", "items")}
    judges = range(len(given))
    if known["kind"] == "pairs":
        chosen = {
            item["prompt"]: [item.get(answer[number], "equal") for answer in given]
            for number, item in items.items()
        }
        chosen = {prompt: chosen[prompt] for prompt in known["asked"]}
        return {**facts, "judges": [_preferences(chosen, judge) for judge in judges], "answers": chosen}
    numbers = {(item["thing"], item["style"]): number for number, item in items.items()}
    judged = {
        thing: {
            style.removesuffix(" style"): [answer[numbers[thing, style]] for answer in given]
            for style in STYLES
        }
        for thing in known["asked"]
    }
    return {**facts, "judges": [_named(judged, judge) for judge in judges], "answers": judged}


def _preferences(chosen: Mapping[str, Sequence[str]], judge: int) -> dict[str, Any]:
    counts = Counter(choices[judge] for choices in chosen.values())
    return {name: counts[name] for name in ("new", "old", "equal")} | {
        "share_new": counts["new"] / len(chosen)
    }


def _named(judged: Mapping[str, Mapping[str, Sequence[str]]], judge: int) -> dict[str, Any]:
    named = named_things(judged, judge)
    return {"named": len(named), "of": len(judged), "others": [name for name in judged if name not in named]}


def _checked_key(folder: Path, key: Path) -> dict[str, Any]:
    """Return the key's content if it and the pages are as they were written."""
    sum_file = folder / KEY_SUM
    if not sum_file.is_file():
        raise FileRefused(f"{folder} has no {KEY_SUM}: it is no folder of pages to judge; name one")
    known = _read(key)
    if sha256_file(key) != sum_file.read_text().strip():
        raise FileRefused(f"{key} is not the key that {folder} was made with; name that one, unchanged")
    for name, expected in known["pages"].items():
        page = folder / name
        if not page.is_file() or sha256_file(page) != expected:
            raise FileRefused(f"{page} is missing or was changed; have the pages judged as they were made")
    return known


def _checked_answers(file: Path, items: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Return a judge's answers by number, in lower case."""
    answers = _read(file)
    if missing := [number for number in items if not str(answers.get(number, "")).strip()]:
        raise FileRefused(f"{file} has no answer for number {missing[0]} ({len(missing)} are missing)")
    if unknown := [number for number in answers if number not in items]:
        raise FileRefused(f"{file} answers number {unknown[0]!r}, which no page has")
    cleaned = {number: str(answers[number]).strip().lower() for number in items}
    for number, answer in cleaned.items():
        if kind == "pairs" and answer not in PREFERENCES:
            raise FileRefused(f"{file}: number {number} has {answer!r}; answers are {', '.join(PREFERENCES)}")
    return cleaned


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileRefused(f"{file} is not there; name a JSON file")
    try:
        document = read_json(file)
    except ValueError as error:
        raise FileRefused(f"{file} is not readable as JSON: {error}") from error
    if not isinstance(document, dict):
        raise FileRefused(f"{file} does not hold one JSON object")
    return document


def _encoded(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


@exit_on_error("icons.judging")
def main(arguments: Sequence[str] | None = None) -> None:
    """Run `pairs`, `naming` or `score`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    pairs = commands.add_parser("pairs", help="make pages of pairs by an old and a new model")
    pairs.add_argument("old")
    pairs.add_argument("new")
    pairs.add_argument("--styles-per-thing", type=int, default=1, choices=range(1, len(STYLES) + 1))
    pairs.add_argument("--with-prompts", action="store_true", help="show what was asked for")
    naming = commands.add_parser("naming", help="make pages of a model's pictures to be named")
    naming.add_argument("model")
    naming.add_argument(
        "--coloured", action="store_true", help="the things in colours of `icons.colours`, not the card's"
    )
    for command in (pairs, naming):
        command.add_argument("--data", type=Path, required=True, help="folder of the icon pictures")
        command.add_argument("--out", type=Path, required=True, help="folder for the judges")
        command.add_argument("--key", type=Path, required=True, help="the JSON file that they must not see")
        command.add_argument("--order", type=int, help="seed of the order and the sides; drawn if not given")
    scores = commands.add_parser("score", help="score the judges' answers")
    scores.add_argument("folder", type=Path)
    scores.add_argument("answers", type=Path, nargs="+", help="a filled form.json of each judge")
    scores.add_argument("--key", type=Path, required=True)
    scores.add_argument(
        "--out", type=Path, required=True, help="the JSON file for the result (of naming: the answers)"
    )
    _run(parser.parse_args(arguments))


def _run(options: argparse.Namespace) -> None:
    if options.command == "score":
        result = score(options.folder, options.key, options.answers)
        stored = result["answers"] if result["kind"] == "naming" else result
        write_atomically(options.out, _encoded(stored))
        for number, judge in enumerate(result["judges"], 1):
            console.message(f"judge {number}: {_summary(judge)}")
        return
    things = [thing.prompt for thing in commonest_things(options.data)]
    if options.command == "naming":
        if options.coloured:
            things = [f"a {colour} {thing}" for thing in COLOURED_THINGS for colour in ASKED]
        model, digest = _loaded(options.model)
        facts: dict[str, Any] = {"model": digest}
        naming_pages(model, things, options.out, options.key, order=options.order, facts=facts)
        return
    (old, old_digest), (new, new_digest) = _loaded(options.old), _loaded(options.new)
    pair_pages(
        old,
        new,
        things,
        options.out,
        options.key,
        styles_per_thing=options.styles_per_thing,
        with_prompts=options.with_prompts,
        order=options.order,
        facts={"models": {"old": old_digest, "new": new_digest}},
    )


def _loaded(source: str) -> tuple[TextToImage, str]:
    """Return the model of a checkpoint, or `default`, and the checkpoint's sha256."""
    path = checkpoint_path(source)
    return load_eager(path), sha256_file(path)


def _summary(judge: Mapping[str, Any]) -> str:
    if "named" in judge:
        return f"names {judge['named']} of {judge['of']} things in at least {ENOUGH_STYLES} styles"
    return f"prefers the new picture in {judge['share_new']:.0%} of the pairs, the old in {judge['old']}"


if __name__ == "__main__":
    main()
