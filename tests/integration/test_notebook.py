"""A notebook as Jupyter runs it: what training shows while it runs, and what results look like."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat

from tests.integration.helpers import PRETRAINED, jpeg_folder

CELLS = (
    """
import data2vec2

seen = []
outcome = data2vec2.pretrain({recipe!r}, {data!r}, {run!r}, flags={flags!r}, callback=seen.append)
""",
    "outcome",
    "data2vec2.evaluate(outcome.run, {data!r}, probes=('knn',))",
    "data2vec2.load({tuned!r}).predict({pictures!r}, top=2)",
    "[line['step'] for line in seen if 'loss' in line]",
)


def test_a_notebook(small: Path, tuned: Path, tmp_path: Path) -> None:
    pictures = jpeg_folder(tmp_path / "pictures", 3)
    values = {
        "recipe": "image_tiny",
        "data": str(small),
        "run": str(tmp_path / "run"),
        "flags": PRETRAINED,
        "tuned": str(tuned),
        "pictures": str(pictures),
    }
    cells = [nbformat.v4.new_code_cell(cell.format(**values)) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    training, outcome, scores, predictions, steps = (cell.outputs for cell in notebook.cells)
    said = "".join(output["data"]["text/plain"] for output in training if output.output_type == "display_data")
    assert "finished at update 12" in said and "update 12/12" not in said  # a bar in place of lines
    assert any("application/vnd.jupyter.widget-view+json" in output.get("data", ()) for output in training)
    shown = outcome[0]["data"]["text/html"]
    assert "finished" in shown and "exported" in shown and "report.html" in shown
    assert "random initialisation" in scores[-1]["data"]["text/html"]
    assert predictions[-1]["data"]["text/html"].count("<tr>") == 4
    assert steps[0]["data"]["text/plain"] == str(list(range(1, 13)))
