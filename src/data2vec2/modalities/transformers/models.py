"""Transformers' configuration of a model, and the encoder alone and with a classifier, as `data2vec2.method` computes.

Shapes: `N` inputs, `L` tokens with the extra ones in front, `D` width, `H` heads, `C` classes.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput, TokenClassifierOutput
from transformers.utils.generic import ModelOutput

from data2vec2.config.model import ArchitectureConfig, EncoderConfig, ModalityConfig, ModelConfig
from data2vec2.config.run import EmaConfig, RunConfig
from data2vec2.config.tree import from_dict, to_dict
from data2vec2.data.labels import IGNORED
from data2vec2.errors import UsageError
from data2vec2.method import losses
from data2vec2.method.block import eager_attention, quick_attention
from data2vec2.method.convolution import FixedFilters
from data2vec2.method.encoder import Encoded, Encoder, Modality, initialise
from data2vec2.method.heads import POOLINGS, Classifier, Pooling, TokenClassifier, on_grid, pool
from data2vec2.modalities import fields
from data2vec2.modalities.fields import MULTI_LABEL, REGRESSION, SINGLE_LABEL

PARTS: dict[str, Any] = {part.name: part.default_factory for part in dataclasses.fields(ModelConfig)[2:]}
"""Sections of a model's configuration that only pre-training needs: those after modality and encoder."""


class Data2Vec2Config(PretrainedConfig):  # type: ignore[no-untyped-call]
    """Fields of the encoder, the same for every modality, and of what stands on it."""

    hidden_act: str = "gelu"
    """The MLP's activation; only "gelu" (the exact one) exists."""
    pooling: str = "mean"
    """How a classifier's tokens become classes: "mean", "linear_softmax" or "first", as `Classifier` says."""
    unanswerable: bool = False
    """Of models that answer questions: whether they may say that there is no answer."""
    semantic_loss_ignore_index: int = 255
    """Of models of classes of pixels: the label of those that have none."""
    pretraining: dict[str, Any] | None = None
    """Of `...ForPreTraining`: `masks`, `decoder`, `targets`, `loss` and `ema` of a run's configuration, and `seed`."""
    modality: ClassVar[type[ModalityConfig]]
    """What the inputs are and how they become tokens."""

    def __init_subclass__(cls, *, modality: type[ModalityConfig] | None = None, **kwargs: Any) -> None:
        """Give a modality's configuration its `model_type`, its own fields and the encoder's, and their defaults."""
        if modality is not None:
            theirs = fields.theirs_of(modality)
            own = {theirs.get(field.name, field.name): field.default for field in dataclasses.fields(modality)}
            cls.modality, cls.attribute_map = modality, fields.SYNONYMS | theirs
            cls.model_type = f"{fields.PREFIX}{own.pop('kind')}"
            encoder = EncoderConfig()
            own |= {theirs: getattr(encoder, ours) for theirs, ours in fields.ENCODER_FIELDS.items()}
            cls.__annotations__ = dict.fromkeys(own, Any) | cls.__annotations__
            for name, default in own.items():
                setattr(cls, name, None if default is dataclasses.MISSING else default)
        super().__init_subclass__(**kwargs)  # type: ignore[no-untyped-call]

    @classmethod
    def from_model_config(cls, config: ArchitectureConfig) -> Self:
        """From a run's configuration, of which modality and encoder count; `ValueError` for another modality."""
        values = fields.to_fields(config)
        if (model_type := values.pop("model_type")) != cls.model_type:
            raise ValueError(f"a configuration of type {model_type} for {cls.__name__}")
        return cls(**values)

    @classmethod
    def from_run_config(cls, config: RunConfig) -> Self:
        """From a recipe or a run's configuration (with what a recipe leaves to the data), and all of pre-training.

        `ValueError` for another modality.
        """
        made = cls.from_model_config(config.model)
        parts = {name: to_dict(getattr(config.model, name)) for name in PARTS}
        made.pretraining = {**parts, "ema": to_dict(config.ema), "seed": config.train.seed}
        return made

    def to_architecture(self) -> ArchitectureConfig:
        """Modality and encoder; `ValueError` for a value that can't be."""
        return fields.architecture(
            self.modality, {name: getattr(self, name) for name in fields.names_of(self.modality)}
        )

    def to_model_config(self) -> ArchitectureConfig:
        """Undo `from_...`: a `ModelConfig` where there is `pretraining`; `ValueError` for a value that can't be."""
        model = self.to_architecture()
        if self.pretraining is None:
            return model
        parts = {name: from_dict(kind, self.pretraining.get(name, {})) for name, kind in PARTS.items()}
        return ModelConfig(modality=model.modality, encoder=model.encoder, **parts)

    @property
    def ema(self) -> EmaConfig:
        """The teacher's average."""
        return from_dict(EmaConfig, (self.pretraining or {}).get("ema", {}))


class Data2Vec2PreTrainedModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """What all models share: one encoder, its initialisation and its outputs."""

    config: Data2Vec2Config
    config_class = Data2Vec2Config
    base_model_prefix = "data2vec2"  # not "encoder": loading would take encoder.norm for a head's norm
    main_input_name = "input_values"
    accepts_loss_kwargs = False  # or the Trainer would give it some
    supports_gradient_checkpointing = True
    supports_tp_plan = supports_pp_plan = False  # what the encoder, being no model of theirs, can't be asked
    _no_split_modules = ["Block"]  # noqa: RUF012  (Transformers' own attribute)
    _supports_sdpa = True

    def __init__(self, config: Data2Vec2Config) -> None:
        super().__init__(config)
        self._build(config.to_architecture())
        self.post_init()  # type: ignore[no-untyped-call]

    def _build(self, config: ArchitectureConfig) -> None:
        self.encoder = Encoder(config.encoder, self._modality(config))

    @abstractmethod
    def _modality(self, config: ArchitectureConfig) -> Modality:
        """Make the network's part of the modality."""

    @property
    def data2vec2(self) -> Encoder:
        """The encoder, which is `base_model`: to freeze it leaves the head to learn."""
        return self.encoder

    def get_input_embeddings(self) -> nn.Module:
        """Return what turns inputs into tokens."""
        assert self.encoder.modality.stem is not None
        return self.encoder.modality.stem

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace it."""
        self.encoder.modality.stem = value

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise what no checkpoint gave `module`, its fixed buffers included.

        Transformers builds a model without memory and calls this for every module once the weights are in, children
        first: buffers that are not in the file hold garbage by then.
        """
        if next(module.children(), None) is None or isinstance(module, Modality):
            sparing_loaded(module, initialise)

    def _lengths(self, attention_mask: Tensor) -> Tensor:
        """How much of each input is real; `UsageError` where something real stands behind padding.

        A compiled model does not look, for it would have to wait for the answer.
        """
        if not torch.compiler.is_compiling() and (attention_mask[:, 1:] > attention_mask[:, :-1]).any():
            raise UsageError(
                "attention_mask has padding in front of what is real; fill up behind (padding_side 'right')"
            )
        return attention_mask.sum(1)

    def _typed(self, inputs: Tensor) -> Tensor:
        """Inputs in the type of what they meet first."""
        if not inputs.is_floating_point():
            return inputs
        return inputs.to(torch.float32 if isinstance(self.encoder.modality.stem, FixedFilters) else self.dtype)

    def _observe(
        self,
        inputs: Tensor,
        attention_mask: Tensor | None,
        hidden: bool | None,
        attention: bool | None,
        others: Mapping[str, Any],
    ) -> tuple[Encoded, dict[str, tuple[Tensor, ...] | None]]:
        """What the encoder computes, and what was asked to be seen of it (none: as configured), as outputs call it.

        `attention_mask` is 1 at what is real, which comes first. `hidden_states` are the first block's input and every
        block's output, `NLD` each, `attentions` every block's weights, `NHLL` each. `UsageError` for weights in
        training with gradient checkpointing, which would compute them twice, for a mask of another length than the
        inputs, and for `others` that are not none.
        """
        refuse(others)
        lengths_B = None if attention_mask is None else self._lengths(attention_mask)
        if attention_mask is not None and attention_mask.shape != inputs.shape[:2]:
            of = tuple(inputs.shape[:2])
            raise UsageError(f"attention_mask is {tuple(attention_mask.shape)}, and must be as long as inputs, {of}")
        hidden = self.config.output_hidden_states if hidden is None else hidden
        attention = self.config.output_attentions if attention is None else attention
        if attention and self.training and self.encoder.gradient_checkpointing:
            raise UsageError("output_attentions does not work in training with gradient checkpointing; turn one off")
        blocks, states, weights = self.encoder.blocks, list[Tensor](), list[Tensor]()
        eager = self.config._attn_implementation == "eager"
        attend = eager_attention if eager else quick_attention
        for block in blocks:
            block.attn.attend = partial(eager_attention, seen=weights) if attention else attend  # type: ignore[union-attr]
        hooks = [block.register_forward_hook(lambda *of: states.append(of[2].x_NLD)) for block in blocks if hidden]
        if hidden:
            hooks.append(blocks[0].register_forward_pre_hook(lambda _, given: states.append(given[0])))
        try:
            encoded = self.encoder(self._typed(inputs), lengths_B=lengths_B)
        finally:
            for hook in hooks:
                hook.remove()
            for block in blocks:
                block.attn.attend = attend  # type: ignore[union-attr]
        return encoded, {"hidden_states": tuple(states) or None, "attentions": tuple(weights) or None}

    def _given(self, output: ModelOutput, return_dict: bool | None) -> Any:
        as_object = self.config.return_dict if return_dict is None else return_dict
        return output if as_object else output.to_tuple()


class Data2Vec2Model(Data2Vec2PreTrainedModel):  # type: ignore[no-untyped-call]
    """The encoder without a head."""

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        output_attentions: bool | None = None,
        **others: Any,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Encode samples `(N, length, ...)`, normalised as in training.

        `attention_mask` (`(N, length)`, 1 at what is real, which comes first) says what only fills a batch up; it
        changes no sample's features. `last_hidden_state` (`NLD`) is the last block's output, without meaning at padded
        places, `pooler_output` (`ND`) its mean over the real ones. `hidden_states`, if asked for, are the first block's
        input and every block's output, `attentions` every block's weights `NHLL`, which takes more time and memory.
        `others` are arguments of other models (`inputs_embeds`), which may be none; `UsageError` if they are not.
        """
        encoded, seen = self._observe(input_values, attention_mask, output_hidden_states, output_attentions, others)
        output = BaseModelOutputWithPooling(last_hidden_state=encoded.x_NLD, pooler_output=encoded.pooled(), **seen)
        return self._given(output, return_dict)  # type: ignore[no-any-return]


class Data2Vec2ForClassification(Data2Vec2PreTrainedModel):  # type: ignore[no-untyped-call]
    """Classes, or a number, of samples: `data2vec2.method.heads.Classifier`."""

    output_class: type[ModelOutput] = SequenceClassifierOutput

    def _build(self, config: ArchitectureConfig) -> None:
        super()._build(config)
        if self.config.pooling not in POOLINGS:
            raise ValueError(f"pooling is {self.config.pooling!r}; it must be one of {', '.join(POOLINGS)}")
        self.pooling: Pooling = self.config.pooling
        parts = Classifier(self.encoder, int(self.config.num_labels or 0), pooling=self.pooling)
        self.norm, self.dense, self.classifier = parts.norm, parts.dense, parts.head

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> ModelOutput | tuple[Any, ...]:
        """`logits` (`NC`) of samples, as for the encoder; `loss` where there are labels.

        `labels` are places of classes (`N`), or for samples of several classes 0 and 1 for each (`NC`, floating-point).
        With `problem_type` "regression", or a single output, they are numbers (`N`).
        """
        encoded, seen = self._observe(input_values, attention_mask, output_hidden_states, output_attentions, others)
        logits = self._logits(encoded)
        loss = None if labels is None else self._loss(logits, labels)
        output = self.output_class(loss=loss, logits=logits, **seen)
        return self._given(output, return_dict)  # type: ignore[no-any-return]

    def _logits(self, encoded: Encoded) -> Tensor:
        """What the head says; `UsageError` for a sample of which nothing is real, whose mean is no number."""
        padding_NT = encoded.tokens.padding_BT
        if padding_NT is not None and not torch.compiler.is_compiling() and (empty_N := padding_NT.all(1)).any():
            raise UsageError(
                f"sample {int(empty_N.int().argmax())} of the batch is too short or all padding; leave it out"
            )
        return pool(encoded, self.pooling, lambda x: self.classifier(self.dense(self.norm(x))))

    def _loss(self, logits_NC: Tensor, labels: Tensor) -> Tensor:
        """Mean over samples. What kind of labels they are is remembered, if the configuration does not say it yet.

        `UsageError` for labels of another kind.
        """
        if self.config.problem_type is None and logits_NC.shape[1] == 1:
            self.config.problem_type = REGRESSION
        elif self.config.problem_type is None:
            self.config.problem_type = MULTI_LABEL if labels.is_floating_point() else SINGLE_LABEL
        single = self.config.problem_type == SINGLE_LABEL
        wrong = single and (labels.is_floating_point() or logits_NC.shape[1] == 1)
        if wrong or labels.numel() != (len(logits_NC) if single else logits_NC.numel()):
            raise UsageError(
                f"labels of shape {tuple(labels.shape)}, {labels.dtype}, for {logits_NC.shape[1]} outputs and "
                f"problem_type {self.config.problem_type!r}; give from_pretrained another problem_type or num_labels"
            )
        if self.config.problem_type == REGRESSION:
            loss = losses.squared_error(logits_NC, labels.view_as(logits_NC).float())
        else:
            multi_label = self.config.problem_type == MULTI_LABEL
            loss = losses.classification(logits_NC, labels.float() if multi_label else labels.view(-1), multi_label)
        return loss / len(logits_NC)


class Data2Vec2ForTokenClassification(Data2Vec2ForClassification):  # type: ignore[no-untyped-call]
    """A class of each token: `data2vec2.method.heads.TokenClassifier`. `logits` are `NTC`, of patches `NChw`.

    `labels` are places of classes, `NT`, of pixels `NHW`; -100, and of pixels `semantic_loss_ignore_index`, is none.
    """

    output_class: type[ModelOutput] = TokenClassifierOutput

    def _build(self, config: ArchitectureConfig) -> None:
        Data2Vec2PreTrainedModel._build(self, config)
        self.config.problem_type = self.config.problem_type or SINGLE_LABEL  # by which an export has a head
        parts = TokenClassifier(self.encoder, int(self.config.num_labels or 0))
        self.norm, self.classifier = parts.norm, parts.head

    def _logits(self, encoded: Encoded) -> Tensor:
        return on_grid(self.classifier(self.norm(encoded.features_NTD)), encoded.tokens.grid)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over samples, of each over its places."""
        if labels.ndim > 2:
            labels = labels.masked_fill(labels == self.config.semantic_loss_ignore_index, IGNORED)
        return losses.dense(logits, labels.long()) / len(labels)


def refuse(others: Mapping[str, Any]) -> None:
    """Raise `UsageError` for arguments of other models that are not none, which wrappers pass to all."""
    if given := [name for name, value in others.items() if value is not None]:
        raise UsageError(f"{', '.join(given)} can't be given to a model of data2vec2; leave out, or set to None")


@torch.no_grad()
def sparing_loaded(module: nn.Module, initialiser: Callable[[nn.Module], object]) -> None:
    """Initialise `module`, then put back what a checkpoint gave it, which Transformers marks (views have no mark)."""
    marked = [p for p in module.parameters() if getattr(p, "_is_hf_initialized", False)]
    loaded = [parameter.clone() for parameter in marked]
    initialiser(module)
    for parameter, value in zip(marked, loaded, strict=True):
        parameter.copy_(value)
