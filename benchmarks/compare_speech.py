"""Pre-trained beside random initialisation on little transcribed speech: `compare_speech.py RUN FOLDER --out OUT`.

FOLDER holds data of the names --parts, and val and test. For each part and seed, RUN is fine-tuned, and a model of its
shape is trained from scratch; val chooses the update, and what test says is printed as a Markdown table: character
error rate, mean over the seeds and, of several, half of its 95 % interval.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from data2vec2 import evaluate_recognizer, finetune
from data2vec2.errors import UserError
from data2vec2.evaluation.probes import interval
from data2vec2.modalities import get_finetune_recipe


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a pre-trained run of audio")
    parser.add_argument("folder", type=Path, help="folder with the parts, val and test")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs; finished ones are kept")
    parser.add_argument("--parts", default="train1,train5,train15")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe", default="ctc_tiny")
    parser.add_argument("--updates", type=int, help="none: the recipe's")
    args = parser.parse_args()
    recipe = get_finetune_recipe(args.recipe)
    lines = ["| | pre-trained | from scratch |", "|---|---|---|"]
    for part in args.parts.split(","):
        cells = []
        for from_scratch in (False, True):
            rates = []
            for seed in range(args.seeds):
                run = args.out / f"{part}-{'scratch' if from_scratch else 'pretrained'}-{seed}"
                updates = args.updates or recipe.train.updates
                config = replace(recipe, train=replace(recipe.train, seed=seed, updates=updates))
                if not (run / "exported").is_dir():
                    outcome = finetune(
                        args.run,
                        args.folder / part,
                        run,
                        task="ctc",
                        config=config,
                        val=args.folder / "val",
                        from_scratch=from_scratch,
                        overwrite=run.exists(),
                    )
                    if outcome.state != "finished":
                        raise UserError(f"{run} {outcome.state}: {outcome.message}")
                rates.append(evaluate_recognizer(run, args.folder / "test")["cer"])
                print(f"{run}: {rates[-1]:.4f}", file=sys.stderr)
            mean, low, high = interval(rates)
            cells.append(f"{100 * mean:.1f} ± {50 * (high - low):.1f}" if len(rates) > 1 else f"{100 * mean:.1f}")
        lines.append(f"| {part} | {' | '.join(cells)} |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
