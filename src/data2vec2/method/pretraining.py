"""data2vec 2.0: a student that sees parts predicts what a teacher makes of the whole (paper, figure 1).

Shapes: `B` samples, `M` masks, `N = B*M` student rows, `T` tokens, `K` kept tokens, `U = T - K` masked ones,
`D` width. Row `b * M + m` of the student belongs to sample `b`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data2vec2.config.model import ModelConfig
from data2vec2.method import losses
from data2vec2.method.decoder import Decoder
from data2vec2.method.encoder import Encoded, Encoder, Modality, Tokens, make_teacher
from data2vec2.method.losses import build_targets
from data2vec2.method.masking import complement, take


@dataclass(frozen=True)
class Pretrained:
    """One step's results; losses are sums, so that a mean over the global batch is exact."""

    loss: Tensor
    """What to minimise, summed over student rows: a mean over N of this is the objective."""
    num_rows: int
    """N."""
    regression: Tensor
    """Regression loss, mean over masked places."""
    cls: Tensor
    """CLS loss, mean over student rows (0 where the modality has no CLS token)."""
    predictions_NUD: Tensor
    """The decoder's output at the masked places."""
    targets_BTD: Tensor
    """What the teacher makes of the whole samples."""
    student: Encoded
    """The student's encoding of what it sees."""


class Data2Vec2(nn.Module):
    """Student, teacher and decoder."""

    def __init__(self, config: ModelConfig, modality: Modality) -> None:
        """`modality` is the network's part that differs between images, speech and text."""
        super().__init__()
        self.config = config
        self.student = Encoder(config.encoder, modality)
        self.decoder = Decoder(config.decoder, config.encoder.embed_dim, modality.num_axes)
        self.teacher = make_teacher(self.student)
        self.loss_scale = config.loss.scale or 1 / math.sqrt(config.encoder.embed_dim)

    def train(self, mode: bool = True) -> Data2Vec2:
        """Set the mode of student and decoder; the teacher always stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, inputs: Tensor, keep_ids_NK: Tensor) -> Pretrained:
        """Loss of predicting the teacher's view of B samples from N masked views of them."""
        student = self.student(inputs, keep_ids_NK=keep_ids_NK)
        targets_BTD = self.targets(inputs, student.tokens)
        masked_ids_NU = complement(keep_ids_NK, targets_BTD.shape[1])
        predictions_NUD = self.decode(student, keep_ids_NK, masked_ids_NU)
        return self.loss(student, predictions_NUD, targets_BTD, masked_ids_NU)

    @torch.no_grad()
    def targets(self, inputs: Tensor, student_tokens: Tokens) -> Tensor:
        """Targets `BTD`: the teacher sees every sample whole, once."""
        own_stem = "stem" in self.teacher.modality.teacher_owns
        teacher = self.teacher(inputs) if own_stem else self.teacher(tokens=student_tokens)
        return build_targets(self.config.targets, self.teacher.trunk_outputs(teacher), teacher.tokens.padding_BT)

    def decode(self, student: Encoded, keep_ids_NK: Tensor, places_NU: Tensor | None = None) -> Tensor:
        """Predictions `NUD` at the given places (or `NTD` at all), from the student's outputs and noise elsewhere."""
        num_tokens = student.tokens.tokens_BTD.shape[1]
        full_NTD = self.decoder.restore(student.features_NTD, keep_ids_NK, num_tokens)
        return self.decoder(full_NTD, student.tokens.grid, places_NU)  # type: ignore[no-any-return]

    def loss(self, student: Encoded, predictions_NUD: Tensor, targets_BTD: Tensor, masked_ids_NU: Tensor) -> Pretrained:
        """Regression at masked places, and of the sample's mean target from the mean of the extra tokens, if any."""
        N, U = masked_ids_NU.shape
        B, _, D = targets_BTD.shape
        scale, beta = self.loss_scale, self.config.loss.beta
        regression = losses.regression(predictions_NUD, take(targets_BTD, masked_ids_NU), scale, beta) / U
        cls = regression.new_zeros(())
        if student.num_extra_tokens and self.config.loss.cls_loss_weight:
            summary_ND = student.x_NLD[:, : self.student.modality.num_summary_tokens].mean(dim=1)
            cls_BMD = summary_ND.view(B, N // B, D)
            cls = losses.regression(cls_BMD, targets_BTD.mean(dim=1, keepdim=True), scale, beta)
        total = regression + self.config.loss.cls_loss_weight * cls
        return Pretrained(
            total, N, regression.detach() / N, cls.detach() / N, predictions_NUD.detach(), targets_BTD, student
        )
