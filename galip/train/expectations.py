"""What a run will show and when: the phases of its schedule, said before it begins."""

from __future__ import annotations

from galip.train.config import GanConfig

__all__ = ["expectations"]

COLOUR_PICTURES = 2_000
"""Pictures of the warm-up after which samples have the right colours, if it begins with the shipped model."""
OUTLINE_PICTURES = 8_000
"""The same for outlines that one recognises."""
FRESH_START = 5
"""How many times as long both take from random weights."""


def expectations(config: GanConfig) -> list[str]:
    """Return a line for each phase of the run: its steps, what it trains with, and what samples will show.

    What the warm-up shows was measured on 800 pictures of 64 pixels; more varied pictures take longer.
    """
    warm, paired, steps = (
        min(step, config.steps) for step in (config.warmup_steps, config.paired_steps, config.steps)
    )
    lines = []
    if warm:
        lines.append(
            f"to step {warm}: warm-up, the generator learns to redraw the real pictures from their captions; "
            f"{_sights(config, warm)}"
        )
    if paired > warm:
        lines.append(f"to step {paired}: GALIP's losses too, the paired ones fade out; edges become sharper")
    if steps > max(warm, paired):
        others = " and the projected heads'" if config.projected_weight else " alone"
        lines.append(f"to step {steps}: GALIP's losses{others}")
    return lines


def _sights(config: GanConfig, warm: int) -> str:
    """Return when a warm-up of `warm` steps shows what."""
    slower = 1 if config.init else FRESH_START
    colours, outlines = (
        -(-pictures * slower // config.batch_size) for pictures in (COLOUR_PICTURES, OUTLINE_PICTURES)
    )
    if outlines > warm:
        return f"too short for outlines, which take about {outlines} steps"
    return f"colours after about {colours} steps, outlines after about {outlines}"
