"""What Transformers' `Trainer` needs for pre-training.

It stands alone because registering the models must not import it: it imports PEFT, if that is installed, and PEFT's own
import is what may have them registered.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from data2vec2.errors import UserError
from data2vec2.modalities.transformers.pretraining import Data2Vec2ForPreTraining


class TeacherUpdate(TrainerCallback):
    """Has the teacher follow the student after each step of the `Trainer`'s optimiser."""

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Update the teacher; `UserError` for a model that has none."""
        model = kwargs["model"]
        if not isinstance(model, Data2Vec2ForPreTraining):
            raise UserError(f"TeacherUpdate is for models of data2vec2 ForPreTraining, not for {type(model).__name__}")
        model.update_teacher()
