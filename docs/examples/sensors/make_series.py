"""Real series to try the package on: how loud ten bands of pitch are in 24 minutes of speech, a step every 10 ms.

python make_series.py FOLDER [COUNT]: of every class COUNT series to train on and as many to test on; none: all.
"""

import sys
from pathlib import Path

import numpy as np
import soundfile

from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.audio.phones import log_mel

folder, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None
for kind in sorted(path for part in ("train", "test") for path in (english_prompts() / part).iterdir()):
    out = folder / kind.parent.name / kind.name
    out.mkdir(parents=True)
    for place, path in enumerate(sorted(kind.glob("*.ogg"))[:count]):
        wave, rate = soundfile.read(path, dtype="float32")
        bands = log_mel(wave[None], rate).reshape(-1, 10, 4).mean(axis=2)
        if place % 2:
            np.savez(out / f"{path.stem}.npz", low=bands[:, :5], high=bands[:, 5:])
        else:
            names = ",".join(f"band{band}" for band in range(10))
            np.savetxt(out / f"{path.stem}.csv", bands, fmt="%.4f", delimiter=",", header=names, comments="")
