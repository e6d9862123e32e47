"""data2vec 2.0 and its rivals as modules that turn a batch into a loss, all around the same encoder.

Each is as its authors describe it, at the size of the encoder: masked autoencoders (He et al., 2021), masked language
models (Devlin et al., 2019), wav2vec 2.0 (Baevski et al., 2020) on log-mel frames, data2vec 1 (Baevski et al., 2022),
and training with labels from scratch. What the objective adds to the encoder is thrown away after training.

Shapes: `B` samples, `T` tokens, `K` kept tokens, `U` masked ones, `D` width, `P` pixel values of a patch, `V` entries
of a vocabulary or codebook, `G` codebooks, `E` log-mel bands of a token, `C` classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec2.config.model import MaskConfig, ModelConfig
from data2vec2.config.run import RunConfig
from data2vec2.data.batch import Batch, Step
from data2vec2.method.block import Block
from data2vec2.method.encoder import Encoder, make_teacher
from data2vec2.method.losses import build_targets, regression
from data2vec2.method.masking import complement, put, take
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.image.model import sincos_2d
from data2vec2.modalities.text.tokenizer import MASK, load_tokenizer
from data2vec2.modalities.tools import tools_of
from data2vec2.training.optim import Ema


class Objective(nn.Module):
    """What is trained: the encoder, and what the objective needs beside it."""

    encoder: Encoder

    def forward(self, inputs: Tensor, batch: Batch) -> Tensor:
        """Mean loss of normalised `inputs`, of which the batch says what is masked."""
        raise NotImplementedError

    def follow(self, share: float) -> None:
        """What comes after an update, when this share of the training is done."""


class Averaged(Objective):
    """An objective with a teacher, whose decay grows over the recipe's share of the training."""

    def average(self, teacher: Encoder, student: Encoder, config: RunConfig) -> None:
        """Follow the student from now on."""
        ema, updates = config.ema, config.train.updates
        self.shares = ema.anneal_updates / updates
        self.ema = Ema(teacher, student, start=ema.start, end=ema.end, anneal_updates=1_000_000)

    def follow(self, share: float) -> None:
        """Move the teacher."""
        self.ema.update(int(1_000_000 * min(1.0, share / self.shares)))


class Ours(Averaged):
    """data2vec 2.0."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.model = Data2Vec2(config.model, tools_of(config.model.modality.kind).build(config.model))
        self.encoder = self.model.student
        self.average(self.model.teacher, self.encoder, config)

    def forward(self, inputs: Tensor, batch: Batch) -> Tensor:
        """The objective, a mean over student rows."""
        out = self.model(inputs, batch.keep_ids_NK)
        return out.loss / out.num_rows


class Masked(Objective):
    """An objective whose student sees all places, masked ones as a learned embedding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = build_encoder(config)
        self.mask_embedding = nn.Parameter(0.02 * torch.randn(config.encoder.embed_dim))

    def encoded(self, inputs: Tensor, keep_ids_BK: Tensor) -> tuple[Tensor, Any]:
        """Features `BUD` of masked places, and the tokens as the stem made them."""
        tokens = self.encoder.modality.tokens(inputs)
        T = tokens.tokens_BTD.shape[1]
        kept_BKD = take(tokens.tokens_BTD, keep_ids_BK)
        hidden_BTD = self.mask_embedding.to(kept_BKD.dtype).expand_as(tokens.tokens_BTD)
        shown = replace(tokens, tokens_BTD=put(hidden_BTD, keep_ids_BK, kept_BKD))
        return take(self.encoder(tokens=shown).features_NTD, complement(keep_ids_BK, T)), tokens


class Data2Vec1(Masked, Averaged):
    """data2vec 1: one mask, the student sees all places, and a linear layer predicts."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config.model)
        dim = config.model.encoder.embed_dim
        self.config, self.scale = config.model, dim**-0.5
        self.head = nn.Linear(dim, dim)
        self.teacher = make_teacher(self.encoder)
        self.average(self.teacher, self.encoder, config)

    def train(self, mode: bool = True) -> Data2Vec1:
        """The teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, inputs: Tensor, batch: Batch) -> Tensor:
        """Squared error at masked places."""
        predictions_BUD, tokens = self.encoded(inputs, batch.keep_ids_NK)
        with torch.no_grad():
            own_stem = "stem" in self.encoder.modality.teacher_owns
            teacher = self.teacher(inputs) if own_stem else self.teacher(tokens=tokens)
            targets_BTD = build_targets(self.config.targets, self.teacher.trunk_outputs(teacher))
        places_BU = complement(batch.keep_ids_NK, targets_BTD.shape[1])
        return regression(self.head(predictions_BUD), take(targets_BTD, places_BU), self.scale) / places_BU.numel()


class MaskedAutoencoder(Objective):
    """The encoder sees kept patches; a small Transformer predicts the pixels of the others, normalised in each."""

    positions_TD: Tensor
    DEPTH = 2
    """Of the decoder, beside encoders of four blocks; its published depth is two thirds of the base encoder's."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        shape = config.model.modality
        dim, self.patch_size = config.model.encoder.embed_dim, shape.patch_size
        self.encoder = build_encoder(config.model)
        self.mask_embedding = nn.Parameter(0.02 * torch.randn(dim))
        self.decoder = nn.ModuleList(Block(config.model.encoder) for _ in range(self.DEPTH))
        self.pixels = nn.Linear(dim, shape.channels * self.patch_size**2)
        self.register_buffer("positions_TD", sincos_2d(dim, shape.grid))

    def forward(self, inputs: Tensor, batch: Batch) -> Tensor:
        """Mean squared error of masked patches of pictures `BCHW`."""
        keep_ids_BK, (T, _) = batch.keep_ids_NK, self.positions_TD.shape
        features_BKD = self.encoder(inputs, keep_ids_NK=keep_ids_BK).features_NTD
        hidden_BTD = self.mask_embedding.to(features_BKD.dtype).expand(len(inputs), T, -1)
        x_BTD = put(hidden_BTD, keep_ids_BK, features_BKD) + self.positions_TD
        for block in self.decoder:
            x_BTD, _ = block(x_BTD)
        places_BU = complement(keep_ids_BK, T)
        return F.mse_loss(self.pixels(take(x_BTD, places_BU)), take(self.patches(inputs), places_BU))

    def patches(self, inputs: Tensor) -> Tensor:
        """Pixels `BTP`, zero mean and unit variance in each patch (a patch of one colour: all 0)."""
        patches_BTP = F.unfold(inputs, self.patch_size, stride=self.patch_size).transpose(1, 2)
        return F.layer_norm(patches_BTP, patches_BTP.shape[-1:], eps=1e-6)


class MaskedLanguageModel(Objective):
    """Of the tokens to tell, 80 % are hidden, 10 % replaced by random ones and 10 % left; embeddings classify."""

    HIDDEN, REPLACED = 0.8, 0.1

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        shape, dim = config.model.modality, config.model.encoder.embed_dim
        usual = replace(config.model, modality=replace(shape, token_scale=1.0))  # as masked language models have it
        self.vocabulary, self.encoder = shape.vocab_size, build_encoder(usual)
        self.mask_id = load_tokenizer(Path(config.data.tokenizer)).backend.token_to_id(MASK)
        assert self.mask_id is not None, f"the tokenizer {config.data.tokenizer} has no {MASK}"
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim))
        self.bias_V = nn.Parameter(torch.zeros(self.vocabulary))

    def forward(self, inputs: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of masked tokens of texts `BT`."""
        asked_BU = complement(batch.keep_ids_NK, inputs.shape[1])
        true_BU, chance_BU = inputs.gather(1, asked_BU), torch.rand(asked_BU.shape, device=inputs.device)
        shown_BU = torch.where(chance_BU < self.HIDDEN, self.mask_id, true_BU)
        shown_BU = torch.where(chance_BU > 1 - self.REPLACED, torch.randint_like(true_BU, self.vocabulary), shown_BU)
        features_BTD = self.encoder(inputs.scatter(1, asked_BU, shown_BU)).features_NTD
        embeddings_VD = self.encoder.modality.stem.tokens.weight
        scores_BUV = self.head(take(features_BTD, asked_BU)) @ embeddings_VD.T + self.bias_V
        return F.cross_entropy(scores_BUV.flatten(0, 1), true_BU.flatten())


class Contrastive(Masked):
    """wav2vec 2.0: tell the quantised token of a masked place from those of others of the same recording."""

    GROUPS, ENTRIES, DISTRACTORS, TEMPERATURE, DIVERSITY = 2, 320, 100, 0.1, 0.1
    WARM, COLD = 2.0, 0.5
    """Of the Gumbel softmax, at the beginning and at the end."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config.model)
        dim = config.model.encoder.embed_dim
        self.softness = self.WARM
        self.choice = nn.Linear(dim, self.GROUPS * self.ENTRIES)
        self.codes_GVD = nn.Parameter(torch.rand(self.GROUPS, self.ENTRIES, dim // self.GROUPS))
        self.of_code, self.of_features = nn.Linear(dim, dim), nn.Linear(dim, dim)
        nn.init.normal_(self.choice.weight, std=1.0)  # as published: the choices differ from the beginning
        nn.init.zeros_(self.choice.bias)

    def forward(self, inputs: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the true place, and a tenth of how far the codebooks are from being used evenly."""
        features_BUD, tokens = self.encoded(inputs, batch.keep_ids_NK)
        places_BU = complement(batch.keep_ids_NK, tokens.tokens_BTD.shape[1])
        codes_BUD, unused = self.quantised(take(tokens.tokens_BTD, places_BU))
        true_BUD, said_BUD = self.of_code(codes_BUD), self.of_features(features_BUD)
        B, U = places_BU.shape
        others = torch.randint(U - 1, (B, U, self.DISTRACTORS), device=inputs.device)
        others += others >= torch.arange(U, device=inputs.device)[:, None]  # any but the place itself
        similar_BUU = F.cosine_similarity(said_BUD[:, :, None], true_BUD[:, None], dim=-1) / self.TEMPERATURE
        false_BUN = similar_BUU.gather(2, others)
        same = (codes_BUD[:, :, None] == codes_BUD[:, None]).all(-1).gather(2, others)  # no distractor at all
        scores = torch.cat([similar_BUU.diagonal(dim1=1, dim2=2)[..., None], false_BUN.masked_fill(same, -1e4)], dim=2)
        return (
            F.cross_entropy(scores.flatten(0, 1), scores.new_zeros(B * U, dtype=torch.long)) + self.DIVERSITY * unused
        )

    def quantised(self, x_BUD: Tensor) -> tuple[Tensor, Tensor]:
        """A code of each codebook, and the share of entries that are not used."""
        logits = self.choice(x_BUD).view(*x_BUD.shape[:2], self.GROUPS, self.ENTRIES).float()
        chosen = F.gumbel_softmax(logits, self.softness, hard=True)
        used_GV = logits.softmax(-1).mean(dim=(0, 1))
        perplexity = (-(used_GV * (used_GV + 1e-7).log()).sum(-1)).exp().sum()
        codes = torch.einsum("bugv,gvd->bugd", chosen, self.codes_GVD.float()).flatten(2)
        return codes.to(x_BUD.dtype), 1 - perplexity / (self.GROUPS * self.ENTRIES)

    def follow(self, share: float) -> None:
        """Choose ever more sharply."""
        self.softness = max(self.COLD, self.WARM * (self.COLD / self.WARM) ** share)


class Supervised(Objective):
    """All labels, from scratch: mean features and a linear layer."""

    def __init__(self, config: RunConfig, num_classes: int) -> None:
        super().__init__()
        self.encoder = build_encoder(config.model)
        self.head = nn.Linear(config.model.encoder.embed_dim, num_classes)

    def forward(self, inputs: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy; samples without a label (-1) count nothing."""
        return F.cross_entropy(self.head(self.encoder(inputs).pooled()), batch.targets, ignore_index=-1)


@dataclass(frozen=True)
class Labels:
    """Adds the class of every sample."""

    labels_N: Any

    def __call__(self, batch: Batch, step: Step) -> Batch:
        """-1 where there is none."""
        return replace(batch, targets=torch.from_numpy(self.labels_N[step.plan.samples_B]))


@dataclass(frozen=True)
class Method:
    """An objective with what is chosen for it: the same number of values for each."""

    build: Callable[[RunConfig], Objective]
    batch: float
    """Size of a batch as a share of the recipe's."""
    rates: tuple[float, ...]
    masks: tuple[MaskConfig, ...]
    """The published ratio first."""


SUPERVISED = "supervised"
RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
PICTURES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
"""Rates of pictures; at 1.6e-2 models of speech learn nothing."""


def methods(config: RunConfig, num_classes: int) -> dict[str, Method]:
    """What is compared, by name; ours with several numbers of masks and as many student rows in each batch."""
    kind, masks = config.model.modality.kind, config.model.masks
    uniform = MaskConfig(num_masks=1, mask_ratio=0.15, adjust=0.0, block_length=1)

    rates = PICTURES if kind == "image" else RATES

    def either(mask: MaskConfig, *ratios: float) -> tuple[MaskConfig, ...]:
        return tuple(replace(mask, mask_ratio=ratio) for ratio in ratios)

    ours = {"image": (0.75, 0.6), "audio": (0.5, 0.65), "text": (0.48, 0.6)}[kind]
    found = {
        f"data2vec 2.0, M = {count}": Method(
            Ours, masks.num_masks / count, rates, either(replace(masks, num_masks=count), *ours)
        )
        for count in ((1, 4, 16) if kind == "image" else (1, 4, 8))
    }
    single = replace(masks, num_masks=1)
    former = {"image": (0.6, 0.4), "audio": (0.5, 0.65), "text": (0.15, 0.3)}[kind]
    found["data2vec 1"] = Method(Data2Vec1, 1, rates, either(single, *former))
    if kind == "image":
        found["MAE"] = Method(MaskedAutoencoder, 1, rates, either(uniform, 0.75, 0.6))
        more = (3e-5, 6e-5, 1.2e-4, 2.5e-4, 5e-4)  # there is no mask ratio to choose
        found[SUPERVISED] = Method(
            lambda config: Supervised(config, num_classes), 1, more + rates, either(uniform, uniform.mask_ratio)
        )
    elif kind == "audio":
        found["wav2vec 2.0"] = Method(Contrastive, 1, rates, either(single, 0.5, 0.35))
    else:
        found["masked language model"] = Method(MaskedLanguageModel, 1, rates, either(uniform, 0.15, 0.3))
    return found
