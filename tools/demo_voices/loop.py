"""The training loop of every stage: resumable, pausable, seeded, with its losses in a file.

A stage is a step function and the things whose state must survive (networks, optimisers). Step n always draws from
the same random numbers, so an interrupted stage goes on as if nothing had happened. A file named PAUSE in the state
folder makes every stage wait between two steps until it is gone.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from tqdm import tqdm

__all__ = ["Stage", "Stateful", "rate_at", "run_stage", "set_rate"]

logger = logging.getLogger(__name__)

PAUSE = "PAUSE"
PAUSE_LOOK_S = 2.0
WARM_UP_SHARE = 0.05
LAST_RATE_SHARE = 0.05


class Stateful(Protocol):
    """What can be saved and brought back: a network or an optimiser."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


@dataclass(frozen=True)
class Stage:
    """Where a stage keeps itself and how long it runs. name: also that of its files."""

    name: str
    folder: Path
    steps: int
    seed: int
    log_every: int = 20
    save_every_s: float = 120.0

    @property
    def checkpoint(self) -> Path:
        """Its state after the last saved step."""
        return self.folder / f"{self.name}.pt"

    @property
    def is_done(self) -> bool:
        """Whether all of its steps are behind it."""
        return (
            self.checkpoint.is_file()
            and int(torch.load(self.checkpoint, map_location="cpu", weights_only=True)["step"]) >= self.steps
        )


Step = Callable[[int, np.random.Generator], Mapping[str, float]]


def run_stage(stage: Stage, parts: Mapping[str, Stateful], step: Step) -> None:
    """Bring a stage from where it stands to its end; `parts` hold the result.

    step: called with the number of the step and its random numbers; returns losses by name.
    """
    stage.folder.mkdir(parents=True, exist_ok=True)
    done = _restore(stage, parts)
    if done >= stage.steps:
        return
    saved_at, sums, counted = time.monotonic(), dict[str, float](), 0
    with (stage.folder / f"{stage.name}.losses.jsonl").open("a", encoding="utf-8") as log:
        for number in tqdm(range(done, stage.steps), desc=stage.name, initial=done, total=stage.steps, mininterval=5):
            _wait_while_paused(stage.folder)
            torch.manual_seed(stage.seed * 1_000_003 + number)
            losses = step(number, np.random.default_rng((stage.seed, number)))
            if not all(math.isfinite(value) for value in losses.values()):
                raise FloatingPointError(f"{stage.name}: losses at step {number} are {dict(losses)}")
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
            counted += 1
            if (number + 1) % stage.log_every == 0 or number + 1 == stage.steps:
                means = {name: round(value / counted, 5) for name, value in sums.items()}
                log.write(json.dumps({"step": number + 1, "time": round(time.time(), 1), **means}) + "\n")
                log.flush()
                sums, counted = {}, 0
            if time.monotonic() - saved_at > stage.save_every_s or number + 1 == stage.steps:
                _save(stage, parts, number + 1)
                saved_at = time.monotonic()


def rate_at(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of a step: a linear rise, then half a cosine."""
    warm_up = max(1, round(WARM_UP_SHARE * steps))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    falling = 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
    return peak * (LAST_RATE_SHARE + (1 - LAST_RATE_SHARE) * falling)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of an optimiser this learning rate, or the share of it that the group names."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("share", 1.0)


def _restore(stage: Stage, parts: Mapping[str, Stateful]) -> int:
    if not stage.checkpoint.is_file():
        return 0
    saved = _read(stage.checkpoint)
    for name, part in parts.items():
        part.load_state_dict(saved["parts"][name])
    return int(saved["step"])


def _read(checkpoint: Path) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return saved


def _save(stage: Stage, parts: Mapping[str, Stateful], step: int) -> None:
    unfinished = stage.checkpoint.with_suffix(".part")
    torch.save({"step": step, "parts": {name: part.state_dict() for name, part in parts.items()}}, unfinished)
    unfinished.replace(stage.checkpoint)


def _wait_while_paused(folder: Path) -> None:
    if (folder / PAUSE).exists():
        logger.info("paused by %s", folder / PAUSE)
    while (folder / PAUSE).exists():
        time.sleep(PAUSE_LOOK_S)
