"""Draw the figures of how-it-works.md with the package's masks, schedules and models: `python docs/make_figures.py`.

Their ground is light and opaque, so that they can be read on a dark page too.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from data2vec2.config.model import MaskConfig
from data2vec2.method.masking import draw_keep_ids
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities import get_recipe
from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.audio.phones import log_mel
from data2vec2.modalities.audio.show import spectrogram
from data2vec2.modalities.audio.waveform import read_audio
from data2vec2.modalities.tools import tools_of
from data2vec2.reporting.charts import COLOURS
from data2vec2.training.optim import Ema

FIGURES = Path(__file__).with_name("figures")
PHOTO = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"  # public domain; comes with Matplotlib
PROMPT = english_prompts() / "train" / "prompts"
GROUND = "#fafafa"
HIDDEN = 0.12
"""How much is left of what a mask removes."""
STYLE = {
    "font.size": 10,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "data2vec2",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
SHOWN = 4
"""Masks shown."""
PASSES = {"student": 3, "decoder": 3, "teacher": 1}
"""Forward passes that a step of each part costs; the teacher has no backward one."""

Pixels = NDArray[np.uint8]


def draw_image_masks(folder: Path) -> None:
    """A photograph, some of a recipe's masks of it, and what the student gets of one."""
    config = get_recipe("image_base").model
    rows, columns = config.modality.grid
    side = 10  # pixels of a drawn patch, of 16 that the model sees
    photo = Image.open(PHOTO).convert("RGB").crop((20, 0, 500, 480)).resize((columns * side, rows * side))
    picture = np.asarray(photo)
    zero = np.zeros(1, dtype=np.int64)
    keep_ids_MK = draw_keep_ids(config.masks, (rows, columns), 0, zero, zero)
    figure = new_figure(9, 2.7)
    grid = figure.add_gridspec(2, SHOWN + 1, height_ratios=(6, 1))
    show(figure.add_subplot(grid[0, 0]), picture, "the teacher sees all")
    for number, ids in enumerate(keep_ids_MK[:SHOWN]):
        seen = np.zeros(rows * columns, dtype=bool)
        seen[ids] = True
        shares = seen.reshape(rows, columns).repeat(side, 0).repeat(side, 1)
        show(figure.add_subplot(grid[0, number + 1]), faded(picture, shares), f"mask {number + 1}")
    patches = picture.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)[keep_ids_MK[0]]
    strip = np.concatenate(list(np.pad(patches, ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=250)), axis=1)
    counts = f"{len(patches)} of {rows * columns} patches"
    show(figure.add_subplot(grid[1, :]), strip, f"mask 1 as the student gets it: {counts}")
    save(figure, folder / "image-masks.png")


def draw_audio_masks(folder: Path) -> None:
    """The spectrogram of a recording, and some of a recipe's masks of it."""
    config = get_recipe("audio_base").model
    path = sorted(PROMPT.glob("*.ogg"), key=lambda path: path.stat().st_size)[-40]
    with path.open("rb") as file:
        spectrum_TE = log_mel(read_audio(file, 16_000, seconds=3.0)[None], 16_000)[0]
    picture, num_tokens = spectrogram(spectrum_TE), len(spectrum_TE)
    zero = np.zeros(1, dtype=np.int64)
    keep_ids_MK = draw_keep_ids(config.masks, (num_tokens,), 0, zero, zero)
    figure = new_figure(9, 4.2)
    axes = figure.subplots(SHOWN, 1)
    show(axes[0], picture, f"{num_tokens} tokens of 20 ms", aspect="auto")
    for number, ids in enumerate(keep_ids_MK[: SHOWN - 1]):
        seen = np.zeros(num_tokens, dtype=bool)
        seen[ids] = True
        shares = np.broadcast_to(seen.repeat(2), picture.shape[:2])
        show(axes[number + 1], faded(picture, shares), f"mask {number + 1}", aspect="auto")
    save(figure, folder / "audio-masks.png")


def draw_averages(folder: Path) -> None:
    """How long the teacher's memory is in the course of training."""
    figure = new_figure(7, 3.4)
    axes = figure.add_subplot()
    places = np.arange(1_000, 160_001, 1_000)
    for colour, dashes, name in zip(COLOURS, ("-", "--", ":"), ("image_base", "audio_base", "text_base"), strict=False):
        schedule = get_recipe(name).ema
        ema = Ema(nn.Linear(1, 1), nn.Linear(1, 1), **asdict(schedule))
        memory = [1 / (1 - ema.decay(int(update))) for update in places]
        axes.plot(places / 1_000, memory, dashes, color=colour, linewidth=2, label=name)
    axes.set(yscale="log", xlabel="update, in thousands", ylabel="updates averaged, 1 / (1 - decay)")
    axes.legend(frameon=False)
    save(figure, folder / "teacher-average.svg")


def draw_cost(folder: Path) -> None:
    """What one student row of `image_base` costs, by the number of masks that share a teacher."""
    config = get_recipe("image_base").model
    with torch.device("meta"):
        model = Data2Vec2(config, tools_of("image").build(config))
    counts = (1, 2, 4, 8, 16)
    costs = [row_cost(model, replace(config.masks, num_masks=count)) for count in counts]
    figure = new_figure(7, 3.4)
    axes = figure.add_subplot()
    bottom = np.zeros(len(counts))
    for colour, part in zip(COLOURS, PASSES, strict=False):
        heights = np.array([cost[part] for cost in costs]) / 1e9
        axes.bar([str(count) for count in counts], heights, bottom=bottom, color=colour, label=part, width=0.6)
        bottom += heights
    for place, total in enumerate(bottom):
        axes.text(place, total + 0.8, f"{total:.1f}", ha="center")
    axes.set(xlabel="masks of a picture", ylabel="GFLOP for each mask")
    axes.legend(frameon=False)
    save(figure, folder / "step-cost.svg")


def row_cost(model: Data2Vec2, masks: MaskConfig) -> dict[str, float]:
    """Floating-point operations of each part of a step, for one mask of one picture.

    Counted by PyTorch on tensors without memory; 1 MAC = 2 FLOP, a backward pass is two forward ones.
    """
    modality, zero = model.config.modality, np.zeros(1, dtype=np.int64)
    keep_ids = torch.from_numpy(draw_keep_ids(masks, modality.grid, 0, zero, zero)).to("meta")
    picture = torch.zeros(1, modality.channels, modality.image_size, modality.image_size, device="meta")
    with FlopCounterMode(display=False) as counter:
        model(picture, keep_ids)
    found = counter.get_flop_counts()
    return {part: times * sum(found[f"Data2Vec2.{part}"].values()) / masks.num_masks for part, times in PASSES.items()}


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches."""
    return Figure((width, height), facecolor=GROUND, layout="constrained")


def show(axes: Any, picture: Pixels, title: str, aspect: str = "equal") -> None:
    """A picture without frame."""
    axes.imshow(picture, aspect=aspect, interpolation="nearest")
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()


def faded(picture: Pixels, seen: NDArray[np.bool_]) -> Pixels:
    """The picture, of which little is left where `seen` is false."""
    shares = np.where(seen, 1.0, HIDDEN)[..., None]
    mixed: Pixels = np.rint(picture * shares + 235 * (1 - shares)).astype(np.uint8)
    return mixed


def save(figure: Figure, path: Path) -> None:
    """Write a figure; the same bytes every time, but for other versions of Matplotlib."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Date": None} if path.suffix == ".svg" else {})


def main(folder: Path) -> None:
    """Draw all figures."""
    with matplotlib.rc_context(STYLE):
        for draw in (draw_image_masks, draw_audio_masks, draw_averages, draw_cost):
            draw(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FIGURES)
