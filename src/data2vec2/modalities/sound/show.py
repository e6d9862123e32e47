"""What a report shows of sounds: as of recordings, but masks of patches."""

from __future__ import annotations

from typing import Any

from data2vec2.modalities.audio.show import AudioShow, spectrogram
from data2vec2.modalities.show import Arrays


class SoundShow(AudioShow):
    """Spectrograms with masks of their patches, colours, and sounds to listen to."""

    def masks(self, arrays: Arrays) -> dict[str, Any]:
        """Sounds with their spectrogram and, by mask, which of its pixels the student hears."""
        grid, samples = tuple(arrays["grid"].tolist()), []
        seen_NMT, counts = self.seen(arrays["keep_ids"], int(arrays["num_tokens"]))
        for name, clip, spectrum_FE, seen_MT in zip(
            arrays["names"], arrays["waveforms"], arrays["spectra"], seen_NMT, strict=True
        ):
            side = len(spectrum_FE) // grid[0]
            patches = seen_MT.reshape(-1, *grid).transpose(0, 2, 1)[:, ::-1]  # time to the right, low pitches below
            seen = patches.repeat(side, axis=1).repeat(side, axis=2)
            halves_TE = spectrum_FE.reshape(len(spectrum_FE) // 2, -1)
            samples.append({"name": name, "clip": clip, "picture": spectrogram(halves_TE), "seen": seen})
        seconds = arrays["waveforms"].shape[1] / int(arrays["sample_rate"])
        return {"samples": samples, "sample_rate": int(arrays["sample_rate"]), "seconds": seconds, **counts}
