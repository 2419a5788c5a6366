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

from rvc_batch.engine.torch_nets.rmvpe import Rmvpe
from tools.demo_voices import export
from tools.demo_voices.acoustic import fit_reader, train_acoustic
from tools.demo_voices.content import ContentTrainer, phone_accuracy, train_content
from tools.demo_voices.corpus import Corpus, Utterance, build_corpus
from tools.demo_voices.crops import Crops, Material
from tools.demo_voices.discriminators import Discriminators
from tools.demo_voices.envelopes import extract_envelopes
from tools.demo_voices.features import extract_content, extract_f0
from tools.demo_voices.given import Given
from tools.demo_voices.hearing import Hearing
from tools.demo_voices.loop import Stage
from tools.demo_voices.pitch import label_corpus, train_pitch
from tools.demo_voices.sentences import HELD_OUT, compose
from tools.demo_voices.settings import FULL, TINY, Recipe
from tools.demo_voices.speech import Style, speak
from tools.demo_voices.stretches import Stretches
from tools.demo_voices.voices import (
    TUNE_RATE,
    WAVE_RATE,
    VoiceTrainer,
    context_frames,
    new_trainer,
    synthesizer_config,
    train_waves,
)

STATE_VARIABLE = "RVC_BATCH_DEMO_STATE"
SCALES = {"full": FULL, "tiny": TINY}
LAST = ("corpus", "content", "pitch", "envelopes", "acoustic", "features", "base", "voices")

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
    content = _content(recipe, state, corpus, given)
    export.write_hubert(content.network, recipe.hubert, out / "hubert_base.pt")
    if "pitch" not in stages:
        return
    pitch = (given and given.pitch(recipe)) or _train_pitch(recipe, state, corpus)
    export.write_rmvpe(pitch, recipe.rmvpe, out / "rmvpe.pt")
    if "envelopes" not in stages:
        return
    with _Timed(state, "envelopes"):
        f0 = extract_f0(corpus, pitch, recipe.rmvpe.frame_multiple, recipe.targets, state)
        sentences = compose(max(recipe.sentences.values()), recipe.seed)
        material = Material(corpus, f0, extract_envelopes(corpus, f0, sentences, state))
    if "acoustic" not in stages:
        return
    own = given if given is not None and given.has_voices(recipe) else None
    with _Timed(state, "acoustic"):
        voices = _train_acoustic(recipe, state, material, content, own)
    _report_accuracy(content, recipe)
    export.write_hubert(content.network, recipe.hubert, out / "hubert_base.pt")
    if "features" not in stages:
        return
    with _Timed(state, "features"):
        material.content = extract_content(corpus, content.network, state)
    _train_waves(recipe, state, out, material, Hearing(content.network), voices, stages, only or recipe.targets)


def _content(recipe: Recipe, state: Path, corpus: Corpus, given: Given | None) -> ContentTrainer:
    if given is not None and (network := given.content(recipe)) is not None:
        torch.manual_seed(recipe.seed)
        return ContentTrainer(recipe.hubert, network)
    with _Timed(state, "content"):
        return train_content(recipe, corpus, _stage(recipe, state, "content", recipe.content_steps))


def _train_pitch(recipe: Recipe, state: Path, corpus: Corpus) -> Rmvpe:
    with _Timed(state, "labels"):
        labels = label_corpus(corpus, state)
    with _Timed(state, "pitch"):
        return train_pitch(recipe, corpus, labels, _stage(recipe, state, "pitch", recipe.pitch_steps))


def _train_acoustic(
    recipe: Recipe, state: Path, material: Material, content: ContentTrainer, given: Given | None
) -> dict[str, VoiceTrainer]:
    """Return what makes the voice of each target: one of its own if it is given, else one of all."""
    stretches = Stretches(material, recipe.targets, recipe.acoustic_frames)
    if given is None:
        voices = dict.fromkeys(recipe.targets, new_trainer(recipe))
        train_acoustic(recipe, stretches, _stage(recipe, state, "acoustic", recipe.acoustic_steps), content, voices)
        return voices
    voices = {target: new_trainer(recipe) for target in recipe.targets}
    stage = _stage(recipe, state, "acoustic", recipe.more_acoustic_steps)
    for target, voice in voices.items():
        given.fill_voice(voice.network, recipe, target)
        if not stage.checkpoint.is_file():  # else the reader is in it
            fit_reader(recipe, stretches, content, voice, target)
        voice.reader.requires_grad_(False)
    train_acoustic(recipe, stretches, stage, content, voices)
    for voice in voices.values():
        voice.reader.requires_grad_(True)
    return voices


def _train_waves(
    recipe: Recipe,
    state: Path,
    out: Path,
    material: Material,
    hearing: Hearing,
    voices: dict[str, VoiceTrainer],
    stages: tuple[str, ...],
    targets: Sequence[str],
) -> None:
    """Train the voices end to end: all targets together first, if they share one, then each by itself."""
    if "base" not in stages:
        return
    torch.manual_seed(recipe.seed)  # the same opponents, whether the stage before was trained or read
    numbers, opponents = {voice: i for i, voice in enumerate(recipe.targets)}, Discriminators()
    is_shared, quiet, steps = len({id(v) for v in voices.values()}) == 1, recipe.more_quiet_steps, recipe.more_gan_steps
    if is_shared:
        with _Timed(state, "base"):
            crops = Crops(material, numbers, context_frames(recipe))
            stage = _stage(recipe, state, "base", recipe.vocoder_steps + recipe.gan_steps)
            base, base_quiet = voices[recipe.targets[0]], recipe.vocoder_steps
            train_waves(recipe, crops, stage, base, opponents, hearing, quiet_steps=base_quiet, peak=WAVE_RATE)
        quiet, steps = 0, recipe.tune_steps
    for target in targets:
        trainer, own_opponents = copy.deepcopy(voices[target]), copy.deepcopy(opponents)
        if "voices" in stages:
            with _Timed(state, target):
                crops = Crops(material, {target: numbers[target]}, context_frames(recipe))
                stage = _stage(recipe, state, target, quiet + steps)
                train_waves(recipe, crops, stage, trainer, own_opponents, hearing, quiet_steps=quiet, peak=TUNE_RATE)
        _write_voice(recipe, out, target, trainer, material)


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
    spoken, content = material.corpus.by_voice[voice], material.content[voice]
    export.write_index(voice, spoken, content, recipe.index_vectors, recipe.seed, folder)


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
