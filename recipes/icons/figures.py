"""The figures of the model card: measured by `judge`, stored as JSON, shown as Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from galip_bench.markdown import markdown_table

from galip.assets import default_checkpoint
from galip.metrics import EvaluationConfig, evaluate
from icons import CARD
from icons.colours import ASKED, COLOURED_THINGS
from icons.measure import measure
from icons.selection import JUDGED_SEEN, JUDGED_UNSEEN
from icons.spectrum import PERIODS, plot_spectra
from icons.variety import PAIRS

__all__ = [
    "RIVALS",
    "colours_table",
    "evaluation_table",
    "judge",
    "judge_rivals",
    "rivals_table",
    "spectrum_table",
    "things_coloured_table",
    "variety_table",
]

RIVALS = {
    "own-losses": "GALIP's own losses alone",
    "paired": "paired warm-up, annealed away",
    "galip-64": "the same, with all its time: the shipped model's first stage",
}
"""Runs compared at 64 pixels, and their names in the card."""
CARD_METRICS = ("fid", "fid_real", "kid", "precision_recall", "clip_score", "retrieval", "seed_psnr")
"""What the card has rows for, in `_ROWS`."""
RIVAL_METRICS = ("fid", "precision_recall", "clip_score", "retrieval", "seed_psnr")
MANY = 1_287
"""Pictures of seen things: as many as there are real ones."""
FEWER = 500
"""Pictures of unseen things, pictures by each rival, and real pictures that rivals are compared with."""
CHOICES = {
    "seen": "things it was trained on",
    "former": "these by the former model",
    "unseen": "things of the test split",
}
"""What is judged, and its name in the card. `former`: what was `seen` before the model was replaced."""

_ROWS = {
    "fid": ("FID, all of both", 1),
    "fid_half": ("FID, of half as many made as there are real, against half of the real", 1),
    "fid_real": ("FID, of the other half of the real against it", 1),
    "kid": ("KID", 4),
    "precision": ("precision", 3),
    "recall": ("recall", 3),
    "clip_score": ("CLIP score", 3),
    "retrieval": ("right caption among 100", 3),
    "retrieval_real": ("the same for the real pictures", 3),
    "seed_psnr": ("PSNR between two seeds, dB", 1),
}
"""Figures of a report in the card's order, with their names there and decimals."""


def judge(data: Path, perceptual: Path) -> None:
    """Evaluate the shipped checkpoint on things that it was trained on and on unseen ones.

    `perceptual` is the file of LPIPS's weights. Writes `evaluation.json`, `measures.json` and `spectrum.png`
    in `card`.
    """
    checkpoint = default_checkpoint()
    seen = EvaluationConfig(str(checkpoint), str(data), CARD_METRICS, count=MANY, exclude=JUDGED_SEEN)
    unseen = replace(seen, split="test", exclude=JUDGED_UNSEEN, count=FEWER)
    reports = {"seen": _report(seen), "unseen": _report(unseen)}
    _store(_former() | reports, CARD / "evaluation.json")
    measures = measure(checkpoint, data, perceptual)
    _store(measures, CARD / "measures.json")
    plot_spectra(measures["spectrum"], CARD / "spectrum.png")


def _former() -> dict[str, Any]:
    """Return what `evaluation.json` has of the former model, so that it stays there."""
    reports = json.loads((CARD / "evaluation.json").read_text())
    return {"former": reports["former"]} if "former" in reports else {}


def judge_rivals(data: Path, runs: Path) -> None:
    """Evaluate the rivals in `runs` on things that they were trained on; writes `rivals.json` in `card`."""
    checkpoint = str(default_checkpoint())
    reports = {}
    for name in RIVALS:
        config = EvaluationConfig(
            str(runs / name / "model.safetensors"),
            str(data),
            RIVAL_METRICS,
            count=FEWER,
            reference_count=FEWER,
            exclude=JUDGED_SEEN,
            clip=checkpoint,
            size=64,
        )
        reports[name] = _report(config) | {"training": _training(runs / name)}
    _store(reports, CARD / "rivals.json")


def _report(config: EvaluationConfig) -> dict[str, Any]:
    report = asdict(evaluate(config))
    del report["subject"]["model"]
    return report


def _training(run: Path) -> dict[str, Any] | None:
    """Return steps and seconds of a run from its log; None if the log is missing."""
    if not (log := run / "log.jsonl").exists():
        return None
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    config = json.loads((run / "config.json").read_text())
    pictures = config["batch_size"] * config["log_every"]
    return {
        "steps": lines[-1]["step"],
        "seconds": sum(pictures / rate for line in lines if (rate := line.get("pictures_per_second"))),
    }


def _store(reports: Mapping[str, Any], file: Path) -> None:
    text = json.dumps(reports, indent=1).replace(str(default_checkpoint().parent), "galip/assets")
    file.write_text(text + "\n")


def evaluation_table(reports: Mapping[str, Any]) -> str:
    """Return `card/evaluation.json` as a Markdown table, with a column for each choice of things."""
    choices = [choice for choice in CHOICES if choice in reports]
    columns = [reports[choice] for choice in choices]
    rows = [["", *(CHOICES[choice] for choice in choices)]]
    rows.append(["pictures made", *(f"{report['subject']['pictures']:,}" for report in columns)])
    rows.append(["real pictures", *(f"{report['reference']['pictures']:,}" for report in columns)])
    for key, (name, decimals) in _ROWS.items():
        rows.append([name, *(f"{report['figures'][key]:.{decimals}f}" for report in columns)])
    return markdown_table(rows[0], rows[1:], right_align=False)


def rivals_table(reports: Mapping[str, Any]) -> str:
    """Return `card/rivals.json` as a Markdown table, a row per rival."""
    keys = [key for key in _ROWS if key in reports["paired"]["figures"]]
    keys.remove("retrieval_real")
    rows = [["64 pixels", "steps", "minutes", *(_ROWS[key][0] for key in keys)]]
    for rival, name in RIVALS.items():
        training, figures = reports[rival]["training"], reports[rival]["figures"]
        spent = [f"{training['steps']:,}", f"{training['seconds'] / 60:.0f}"] if training else ["", ""]
        rows.append([name, *spent, *(f"{figures[key]:.{_ROWS[key][1]}f}" for key in keys)])
    return markdown_table(rows[0], rows[1:], right_align=False)


def colours_table(colours: Mapping[str, Any]) -> str:
    """Return `colours` of `card/measures.json` as a Markdown table: colours asked for, and those found.

    The last column is the share of the real icons named with the colour in which it is found.
    """
    found = {asked: colours["found"][asked] for asked in ASKED}
    names = list(dict.fromkeys([*ASKED, *(name for counts in found.values() for name in counts)]))
    rows = []
    for asked, counts in found.items():
        shares = (f"{counts.get(name, 0) / sum(counts.values()):.0%}" for name in names)
        rows.append([asked, *shares, f"{colours['real']['shares'].get(asked, 0):.0%}"])
    return markdown_table(["asked for", *names, "real ones recognised"], rows)


def things_coloured_table(colours: Mapping[str, Any]) -> str:
    """Return `colours` of `card/measures.json` as a Markdown table: the share that is right, by thing."""
    shares = colours["shares"]["thing"]
    return markdown_table(
        ["", *COLOURED_THINGS, "all"],
        [["right colour", *(f"{shares[thing]:.0%}" for thing in COLOURED_THINGS), f"{colours['share']:.0%}"]],
    )


def variety_table(variety: Mapping[str, Any]) -> str:
    """Return `variety` of `card/measures.json` as a Markdown table, a row per kind of pair."""
    rows = [
        [name, f"{variety['pairs'][kind]}", f"{variety['lpips'][kind]:.3f}"] for kind, name in PAIRS.items()
    ]
    return markdown_table(["", "pairs", "LPIPS"], rows)


def spectrum_table(spectrum: Mapping[str, Any]) -> str:
    """Return `spectrum` of `card/measures.json` as a Markdown table, a row for power, one each for peaks."""
    octaves = list(spectrum["octaves"])
    power = markdown_table(
        ["periods, pixels", *(f"{shortest} to {2 * int(shortest)}" for shortest in octaves)],
        [["made by real", *(f"{spectrum['octaves'][shortest]:.2f}" for shortest in octaves)]],
    )
    periods = [str(period) for period in PERIODS]
    peaks = markdown_table(
        ["peaks at a period of", *periods],
        [
            [name, *(f"{ratios[period]:.2f}" for period in periods)]
            for name, ratios in spectrum["peaks"].items()
        ],
    )
    return f"{power}\n\n{peaks}"
