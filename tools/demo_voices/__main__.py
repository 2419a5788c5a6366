"""Make the demonstration model set: `python -m tools.demo_voices`. See README.md beside this file.

Every stage goes on where it was stopped; a stage that is done costs nothing. Nothing but flite is needed beyond the
project's own requirements.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import platformdirs
import torch

from rvc_batch.engine.torch_nets.hubert import Hubert
from rvc_batch.engine.torch_nets.rmvpe import Rmvpe
from tools.demo_voices import export
from tools.demo_voices.content import ContentTrainer, phone_accuracy, train_content
from tools.demo_voices.corpus import Corpus, Utterance, build_corpus
from tools.demo_voices.crops import Crops, Material
from tools.demo_voices.discriminators import Discriminators
from tools.demo_voices.envelopes import extract_envelopes
from tools.demo_voices.features import extract
from tools.demo_voices.given import Given
from tools.demo_voices.hearing import Hearing
from tools.demo_voices.loop import Stage
from tools.demo_voices.pitch import label_corpus, train_pitch
from tools.demo_voices.sentences import HELD_OUT, compose
from tools.demo_voices.settings import FULL, TINY, Recipe
from tools.demo_voices.speech import Style, speak
from tools.demo_voices.voices import (
    TUNE_RATE,
    WAVE_RATE,
    VoiceTrainer,
    context_frames,
    fit_reader,
    new_trainer,
    synthesizer_config,
    train_acoustic,
    train_waves,
)

STATE_VARIABLE = "RVC_BATCH_DEMO_STATE"
SCALES = {"full": FULL, "tiny": TINY}
LAST = ("corpus", "content", "pitch", "features", "acoustic", "base", "voices")

logger = logging.getLogger("demo_voices")


def main(argv: list[str] | None = None) -> None:
    """Run the recipe as far as asked."""
    default = os.environ.get(STATE_VARIABLE) or platformdirs.user_cache_dir("rvc-batch-demo-voices")
    parser = argparse.ArgumentParser(prog="python -m tools.demo_voices", description=__doc__)
    parser.add_argument("--state", type=Path, default=Path(default), help=f"kept between runs (or {STATE_VARIABLE})")
    parser.add_argument("--out", type=Path, help="where the model files go (default: STATE/models)")
    parser.add_argument("--given", type=Path, help="model files of an earlier run to go on from")
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--until", choices=LAST, default=LAST[-1], help="the last stage to run")
    parser.add_argument("--only", nargs="+", help="tune only these targets, such as one per process")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    chosen = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    recipe = SCALES[chosen.scale]
    torch.set_num_threads(chosen.threads or recipe.threads)
    torch.set_flush_denormal(True)  # vanishing gradients are zero, not slow
    if chosen.device != "cpu":
        torch.set_default_device(chosen.device)
    given = Given(chosen.given) if chosen.given else None
    if unknown := set(chosen.only or ()) - set(recipe.targets):
        parser.error(f"--only names {', '.join(sorted(unknown))}; the targets are {', '.join(recipe.targets)}")
    make(recipe, chosen.state, chosen.out or chosen.state / "models", until=chosen.until, given=given, only=chosen.only)


def make(
    recipe: Recipe,
    state: Path,
    out: Path,
    *,
    until: str = LAST[-1],
    given: Given | None = None,
    only: Sequence[str] | None = None,
) -> None:
    """Run every stage up to `until` and write what is trained by then into `out`; `only`: the targets to tune."""
    stages = LAST[: LAST.index(until) + 1]
    state.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    with _Timed(state, "corpus"):
        corpus = build_corpus(recipe, state)
    if "content" not in stages:
        return
    content = (given and given.content(recipe)) or _train_content(recipe, state, corpus)
    export.write_hubert(content, recipe.hubert, out / "hubert_base.pt")
    if "pitch" not in stages:
        return
    pitch = (given and given.pitch(recipe)) or _train_pitch(recipe, state, corpus)
    export.write_rmvpe(pitch, recipe.rmvpe, out / "rmvpe.pt")
    if "features" not in stages:
        return
    with _Timed(state, "features"):
        features = extract(corpus, content, pitch, recipe.rmvpe.frame_multiple, state)
    targets = only or recipe.targets
    needed = targets if given is not None and given.has_voices(recipe) else recipe.targets
    sentences = compose(max(recipe.sentences.values()), recipe.seed)
    with _Timed(state, "envelopes"):
        material = Material(corpus, features, extract_envelopes(corpus, features, needed, sentences, state))
    _make_voices(recipe, state, out, material, Hearing(content), stages, given, targets)


def _train_content(recipe: Recipe, state: Path, corpus: Corpus) -> Hubert:
    with _Timed(state, "content"):
        trainer = train_content(recipe, corpus, _stage(recipe, state, "content", recipe.content_steps))
    _report_accuracy(trainer, recipe)
    return trainer.network


def _train_pitch(recipe: Recipe, state: Path, corpus: Corpus) -> Rmvpe:
    with _Timed(state, "labels"):
        labels = label_corpus(corpus, state)
    with _Timed(state, "pitch"):
        return train_pitch(recipe, corpus, labels, _stage(recipe, state, "pitch", recipe.pitch_steps))


def _make_voices(
    recipe: Recipe,
    state: Path,
    out: Path,
    material: Material,
    hearing: Hearing,
    stages: tuple[str, ...],
    given: Given | None,
    targets: Sequence[str],
) -> None:
    if given is not None and given.has_voices(recipe):
        if "voices" in stages:
            for voice in targets:
                trainer = _go_on(recipe, state, material, hearing, given, voice)
                _write_voice(recipe, out, voice, trainer, material)
        return
    numbers = _numbers(recipe)
    if "acoustic" not in stages:
        return
    trainer, opponents = new_trainer(recipe), Discriminators()
    with _Timed(state, "acoustic"):
        crops = Crops(material, numbers, recipe.acoustic_frames)
        train_acoustic(recipe, crops, _stage(recipe, state, "acoustic", recipe.acoustic_steps), trainer)
    if "base" not in stages:
        return
    with _Timed(state, "base"):
        crops = Crops(material, numbers, context_frames(recipe))
        stage = _stage(recipe, state, "base", recipe.vocoder_steps + recipe.gan_steps)
        quiet = recipe.vocoder_steps
        train_waves(recipe, crops, stage, trainer, opponents, hearing, quiet_steps=quiet, peak=WAVE_RATE)
    for voice in targets:
        own, own_opponents = trainer, opponents
        if "voices" in stages:
            own, own_opponents = copy.deepcopy(trainer), copy.deepcopy(opponents)
            with _Timed(state, voice):
                crops = Crops(material, {voice: numbers[voice]}, context_frames(recipe))
                stage = _stage(recipe, state, voice, recipe.tune_steps)
                train_waves(recipe, crops, stage, own, own_opponents, hearing, quiet_steps=0, peak=TUNE_RATE)
        _write_voice(recipe, out, voice, own, material)


def _go_on(
    recipe: Recipe,
    state: Path,
    material: Material,
    hearing: Hearing,
    given: Given,
    voice: str,
) -> VoiceTrainer:
    """Return a given voice, trained further by itself."""
    trainer, opponents = new_trainer(recipe), Discriminators()
    given.fill_voice(trainer.network, recipe, voice)
    number = {voice: _numbers(recipe)[voice]}
    with _Timed(state, voice):
        crops = Crops(material, number, recipe.acoustic_frames)
        stage = _stage(recipe, state, f"{voice}.acoustic", recipe.more_acoustic_steps)
        if not stage.checkpoint.is_file():  # else the reader is in it
            fit_reader(recipe, crops, trainer)
        trainer.reader.requires_grad_(False)
        train_acoustic(recipe, crops, stage, trainer)
        trainer.reader.requires_grad_(True)
        crops, quiet = Crops(material, number, context_frames(recipe)), recipe.more_quiet_steps
        stage = _stage(recipe, state, voice, quiet + recipe.more_gan_steps)
        train_waves(recipe, crops, stage, trainer, opponents, hearing, quiet_steps=quiet, peak=TUNE_RATE)
    return trainer


def _numbers(recipe: Recipe) -> dict[str, int]:
    """Return the number of each target's speaker embedding."""
    return {voice: i for i, voice in enumerate(recipe.targets)}


def _write_voice(
    recipe: Recipe,
    out: Path,
    voice: str,
    trainer: VoiceTrainer,
    material: Material,
) -> None:
    folder = out / "voices" / voice
    folder.mkdir(parents=True, exist_ok=True)
    config = synthesizer_config(recipe, len(recipe.targets))
    about = f"trained on speech of flite's voice {voice}"
    number = recipe.targets.index(voice)
    export.write_voice(trainer.network, config, number, about, folder / f"{voice}.pth")
    for old in folder.glob("*.index"):
        old.unlink()
    spoken, features = material.corpus.by_voice[voice], material.features[voice]
    export.write_index(voice, spoken, features, recipe.index_vectors, recipe.seed, folder)


def _stage(recipe: Recipe, state: Path, name: str, steps: int) -> Stage:
    return Stage(name, state, steps, recipe.seed, recipe.log_every, recipe.save_every_s)


def _report_accuracy(content: ContentTrainer, recipe: Recipe) -> None:
    for voice in recipe.sentences:
        read = [Utterance(voice, 0, Style(), speak(voice, text, Style())) for text in HELD_OUT]
        share = sum(phone_accuracy(content, utterance) for utterance in read) / len(read)
        logger.info(
            "content: %.1f %% of the speech frames of unheard sentences of %s named rightly", 100 * share, voice
        )


class _Timed:
    """Add the wall time of a stage to `times.json` in the state folder."""

    def __init__(self, state: Path, name: str) -> None:
        self.path, self.name = state / "times.json", name

    def __enter__(self) -> None:
        self.started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        times = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}
        times[self.name] = round(times.get(self.name, 0.0) + time.monotonic() - self.started, 1)
        unfinished = self.path.with_suffix(f".{self.name}.part")  # another process may tune another target
        unfinished.write_text(json.dumps(times, indent=1), encoding="utf-8")
        unfinished.replace(self.path)


if __name__ == "__main__":
    main()
