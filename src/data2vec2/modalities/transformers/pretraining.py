"""Pre-training under Transformers' `Trainer`.

The model draws its masks itself, from a seed and the number of passes, which is saved with it. Its teacher follows the
student by `TeacherUpdate` (in `trainer`), a callback that the `Trainer` must be given.

Shapes: `B` samples, `N` student rows, `K` kept tokens.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from data2vec2.config.model import ArchitectureConfig, ModelConfig
from data2vec2.errors import UserError
from data2vec2.method.masking import draw_keep_ids
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities.transformers.models import Data2Vec2PreTrainedModel, refuse, sparing_loaded
from data2vec2.training.optim import Ema

MAX_UNANSWERED = 2
"""So often the student may be changed without its teacher."""
EVALUATION = 0
"""The pass whose masks evaluation has; training counts from 1."""


@dataclass
class Data2Vec2PreTrainingOutput(ModelOutput):
    """What a pass of pre-training gives."""

    loss: Tensor | None = None
    """The objective, a mean over student rows."""
    regression_loss: Tensor | None = None
    """Its part of masked places, without gradient."""
    cls_loss: Tensor | None = None
    """The CLS token's, without weight and gradient; 0 where there is none."""


class Data2Vec2ForPreTraining(Data2Vec2PreTrainedModel):  # type: ignore[no-untyped-call]
    """`data2vec2.method.pretraining.Data2Vec2`: student (`encoder`), decoder and teacher."""

    passes: Tensor
    teacher_updates: Tensor

    def _build(self, config: ArchitectureConfig) -> None:
        config = self.config.to_model_config()
        if not isinstance(config, ModelConfig):
            raise ValueError(
                "the configuration says nothing of pre-training; give one that "
                f"{type(self.config).__name__}.from_run_config makes of a recipe"
            )
        model = Data2Vec2(config, self._modality(config))
        self._whole = (model,)  # in a tuple, out of the module tree, which holds its parts
        self.encoder, self.decoder, self.teacher = model.student, model.decoder, model.teacher
        self.register_buffer("passes", torch.zeros((), dtype=torch.long))
        self.register_buffer("teacher_updates", torch.zeros((), dtype=torch.long))
        self._seen: Tensor | None = None
        self._unanswered = 0

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As others, and last the whole: what no checkpoint gave the teacher is the student's, counters start at 0."""
        if module is not self:
            super()._init_weights(module)
            return
        sparing_loaded(self.decoder, lambda _: self.decoder.reset_parameters())
        student = dict(self.encoder.named_parameters())
        own = [(parameter, student[name]) for name, parameter in self.teacher.named_parameters()]
        for tensor, value in (*own, (self.passes, torch.tensor(0)), (self.teacher_updates, torch.tensor(0))):
            if not getattr(tensor, "_is_hf_initialized", False):
                tensor.copy_(value)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of student and decoder; the teacher always stays in eval mode and without gradients."""
        super().train(mode)
        self.teacher.eval().requires_grad_(False)  # which loading forgets
        return self

    @torch.no_grad()
    def update_teacher(self) -> None:
        """Move the teacher to the student, once after each step of the optimiser; `ValueError` if it is not float32."""
        self.teacher_updates += 1
        average = Ema(self.teacher, self.encoder, **asdict(self.config.ema))  # anew, because the model may have moved
        average.update(int(self.teacher_updates))
        self._seen, self._unanswered = self._sample_of_student(), 0

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        return_dict: bool | None = None,
        return_loss: bool = True,
        **others: Any,
    ) -> Data2Vec2PreTrainingOutput | tuple[Any, ...]:
        """The loss on samples `(B, length, ...)`, normalised as for the encoder and all of one length.

        `attention_mask`, which feature extractors give, may have no 0 (`ValueError`). `return_loss` changes nothing; it
        lets the `Trainer` know that there is a loss without labels. `others` may be none (`UsageError`). `UserError`
        where nobody updates the teacher.
        """
        refuse(others)
        if attention_mask is not None and not attention_mask.all():
            raise ValueError("inputs with padding; pre-training takes crops or blocks of one length")
        if self.training:
            self._check_teacher()
            self.passes += 1
        inputs = self._typed(input_values)
        found = self._whole[0](inputs, self._keep_ids(inputs))
        output = Data2Vec2PreTrainingOutput(found.loss / found.num_rows, found.regression, found.cls)
        return self._given(output, return_dict)  # type: ignore[no-any-return]

    def _grid(self, inputs: Tensor) -> tuple[int, ...]:
        return (self._whole[0].config.modality.num_tokens(inputs.shape[1]),)

    def _keep_ids(self, inputs: Tensor) -> Tensor:
        """Masks `NK`, which depend on the seed, the pass and a sample's place in the batch of all processes."""
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        places_B = rank * 2**32 + np.arange(len(inputs))
        passes_B = np.full(len(inputs), int(self.passes) if self.training else EVALUATION)
        masks, seed = self._whole[0].config.masks, (self.config.pretraining or {}).get("seed", 0)
        keep_ids = draw_keep_ids(masks, self._grid(inputs), seed, passes_B, places_B)
        return torch.from_numpy(keep_ids).to(inputs.device)

    def _check_teacher(self) -> None:
        """Refuse to go on if the student was changed twice (not only accumulated gradients) and its teacher was not."""
        now = self._sample_of_student()
        self._unanswered += self._seen is not None and not torch.equal(self._seen.to(now.device), now)
        self._seen = now
        if self._unanswered >= MAX_UNANSWERED:
            raise UserError(
                f"the student was trained for {self._unanswered} steps, its teacher for none, so nothing would "
                "be learned; give the Trainer callbacks=[TeacherUpdate()], or call update_teacher() after each step"
            )

    def _sample_of_student(self) -> Tensor:
        """Some of its weights, which each step of training changes."""
        return self.encoder.blocks[-1].norm2.bias.detach().clone()  # type: ignore[union-attr, operator]
