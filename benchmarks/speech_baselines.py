"""Baselines on the bundled English prompts: `python benchmarks/speech_baselines.py`.

Logistic regression (standardised, regularisation as in scikit-learn) on log-mel energies, trained on the training part
and tested on the test part: the phone of every 20 ms from its two 10 ms frames, and the category of every prompt from
means and standard deviations over its frames.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data2vec2.data.phones import frame_labels, read_phones, read_splits
from data2vec2.data.samples import english_prompts

RATE, HOP, WINDOW, SIZE, BINS = 16_000, 160, 400, 512, 40
CENTRE_S = (WINDOW + HOP) / 2 / RATE  # of two frames
CATEGORIES = ("digits", "letters", "phonetic")


def main() -> None:
    folder = english_prompts()
    splits = read_splits(folder)
    mels = {name: log_mel(folder / name) for name in splits}
    x, y, part = [], [], []
    for alignment in read_phones(folder):
        mel = mels[alignment.name]
        tokens = mel[: len(mel) // 2 * 2].reshape(-1, 2 * BINS)
        labels = frame_labels(alignment, len(tokens), offset_s=CENTRE_S)
        x.append(tokens[labels >= 0])
        y.append(labels[labels >= 0])
        part += [splits[alignment.name]] * len(y[-1])
    compare("phones of 20 ms", np.concatenate(x), np.concatenate(y), np.array(part))
    statistics = np.stack([np.concatenate((mel.mean(0), mel.std(0))) for mel in mels.values()])
    category = np.array([top if (top := name.split("/")[0]) in CATEGORIES else "prompt" for name in mels])
    compare("categories of prompts", statistics, category, np.array([splits[name] for name in mels]))


def log_mel(path: Path) -> NDArray[np.float64]:
    """Frames of 25 ms every 10 ms: the logarithm of 40 mel bands, of shape frames x 40."""
    wave, _ = soundfile.read(path)
    frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP] * np.hanning(WINDOW)
    return np.log(np.abs(np.fft.rfft(frames, SIZE)) ** 2 @ mel_filters().T + 1e-6)


def mel_filters() -> NDArray[np.float64]:
    """Triangles, evenly spaced in mel from 0 Hz to half the rate: 40 x frequencies."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BINS + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(SIZE, 1 / RATE)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    return np.clip(np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)), 0, None)


def compare(what: str, x: NDArray[np.float64], y: NDArray[np.generic], part: NDArray[np.str_]) -> None:
    """Print the test accuracy of logistic regression and of the most frequent class of the training part."""
    train, test = part == "train", part == "test"
    kinds, counts = np.unique(y[train], return_counts=True)
    majority = (y[test] == kinds[counts.argmax()]).mean()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(x[train], y[train])
    score = model.score(x[test], y[test])
    print(f"{what}: {score:.3f}, majority {majority:.3f} ({train.sum():,} to train, {test.sum():,} to test)")


if __name__ == "__main__":
    main()
