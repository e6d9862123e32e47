"""Make the bundled model of texts: `python benchmarks/make_longer_glosses.py RUN OUT`.

RUN is a run of `text_tiny` on the bundled glosses, six times as long as the demo's:

    data2vec2 pretrain text_tiny src/data2vec2/data/bundled/wordnet_glosses --out RUN --train.updates 3600

OUT gets its exported model in half precision, with the glosses' licence. The demo scores it.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from data2vec2.interop.folder import export_model, load_encoder
from data2vec2.modalities.text import wordnet_glosses


def main() -> None:
    """Write the model and say what it takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the finished run")
    parser.add_argument("out", type=Path, help="folder to make")
    args = parser.parse_args()
    encoder, info = load_encoder(args.run / "exported")
    card = (args.run / "exported" / "README.md").read_text("utf-8")
    made = (
        "Made by `python benchmarks/make_longer_glosses.py RUN OUT` of WordNet 3.0's glosses; their licence: `LICENSE`."
    )
    export_model(encoder.half(), info, args.out, f"{card}\n{made}\n")
    shutil.copy(wordnet_glosses() / "LICENSE", args.out)
    print(f"{sum(path.stat().st_size for path in args.out.iterdir()) / 1e6:.1f} MB in {args.out}")


if __name__ == "__main__":
    main()
