"""A model as a program of torch.export, and as an ONNX file that ONNX Runtime runs without PyTorch.

Inputs and outputs have Transformers' names. Shapes: `B` samples, `S` samples of a waveform, `T` tokens, `D` width.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data2vec2.config import AudioConfig, ImageConfig, ModelConfig, TextConfig
from data2vec2.errors import UserError
from data2vec2.models import Classifier, Encoded, Encoder, Recognized, SpeechRecognizer
from data2vec2.nn.attention import eager_attention
from data2vec2.nn.stems import MelConvStem, MelStem

ONNX, INT8, TORCH = "model.onnx", "model_int8.onnx", "model.pt2"
AnyModel = Encoder | Classifier | SpeechRecognizer
Inputs = dict[str, Tensor]
LARGEST_FILE = 2 << 30
"""Bytes of an ONNX file, at most; the weights of larger models stand in a file beside it."""


def output_names(model: AnyModel) -> tuple[str, ...]:
    """Of an encoder every token's vector and their mean, of a model with a head its logits (or number)."""
    return ("last_hidden_state", "pooler_output") if isinstance(model, Encoder) else ("logits",)


def named_inputs(model: ModelConfig, inputs: Tensor, lengths_B: Tensor | None = None) -> Inputs:
    """What a program takes for normalised inputs, of which only the first `lengths_B` of each are real where given."""
    if isinstance(model.modality, ImageConfig):
        return {"pixel_values": inputs}
    B, length = inputs.shape
    real_B = torch.full((B,), length) if lengths_B is None else lengths_B
    mask_BL = torch.arange(length) < real_B[:, None]
    if isinstance(model.modality, AudioConfig):  # in the types that Transformers' processors give
        return {"input_values": inputs, "attention_mask": mask_BL.int()}
    return {"input_ids": inputs, "attention_mask": mask_BL.long()}


class _Portable(nn.Module):
    """A model whose outputs are a tuple of tensors, in eval mode."""

    def __init__(self, model: AnyModel, config: ModelConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def run(self, inputs: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, ...]:
        """The outputs that `output_names` names."""
        found: Encoded | Recognized | Tensor = self.model(inputs, lengths_B=lengths_B)
        if isinstance(found, Encoded):
            return found.x_NLD, found.pooled()
        return (found.logits_BTV if isinstance(found, Recognized) else found,)


class _PortableImage(_Portable):
    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        return self.run(pixel_values, None)


class _PortableAudio(_Portable):
    def forward(self, input_values: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        return self.run(input_values, attention_mask.sum(1))


class _PortableText(_Portable):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        assert isinstance(self.config.modality, TextConfig)
        pad_id = self.config.modality.pad_id
        ids_BT = input_ids.masked_fill(attention_mask == 0, pad_id)
        return self.run(ids_BT, (ids_BT != pad_id).sum(1))


def portable(model: AnyModel, config: ModelConfig) -> nn.Module:
    """The model as a module that takes what `named_inputs` gives and returns what `output_names` names."""
    kind = {"image": _PortableImage, "audio": _PortableAudio, "text": _PortableText}[config.modality.kind]
    return kind(model, config).eval()


@torch.no_grad()
def export_program(model: AnyModel, config: ModelConfig) -> torch.export.ExportedProgram:
    """The model as a program for any number of samples, and of audio and text for any length."""
    model = copy.deepcopy(model)
    encoder = model if isinstance(model, Encoder) else model.encoder
    if isinstance(encoder.modality.stem, MelStem):  # ONNX and torch.export know no windows of any number
        encoder.modality.stem = MelConvStem(encoder.modality.stem)
    for block in encoder.blocks:  # PyTorch's own leaves a memory layout that ONNX's decomposition does not
        block.attn.attend = eager_attention  # type: ignore[union-attr]
    example, dynamic = _example(config), torch.export.Dim.DYNAMIC
    axes = (0,) if isinstance(config.modality, ImageConfig) else (0, 1)
    shapes = {name: dict.fromkeys(axes, dynamic) for name in example}
    return torch.export.export(portable(model, config), (), example, dynamic_shapes=shapes)


def _example(config: ModelConfig) -> Inputs:
    """Inputs to follow the computation with: of no axis 0 or 1, which a program would be made for alone."""
    modality = config.modality
    if isinstance(modality, ImageConfig):
        return named_inputs(config, torch.zeros(2, modality.channels, modality.image_size, modality.image_size))
    if isinstance(modality, AudioConfig):
        return named_inputs(config, torch.zeros(2, modality.receptive_field + 20 * modality.hop + 7))
    return named_inputs(config, torch.full((2, min(9, modality.max_tokens)), modality.eos_id))


def write_onnx(program: torch.export.ExportedProgram, names: tuple[str, ...], path: Path) -> None:
    """Write a program as an ONNX file, with the outputs' names."""
    with contextlib.redirect_stdout(sys.stderr):  # older ones print what they rewrite
        written = torch.onnx.export(
            program, (), kwargs=program.example_inputs[1], output_names=list(names), verbose=False
        )
    assert written is not None
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    written.save(path, external_data=size > LARGEST_FILE // 2)


def write_int8(path: Path, out: Path) -> None:
    """Write an ONNX file anew with matrices of 8 bits, whose other factors are rounded to 8 bits as they come."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    del model.graph.value_info[:]  # shapes that are inferred anew; of matrices stored transposed they'd be wrong
    quantize_dynamic(
        model,
        out,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        reduce_range=True,  # or processors without VNNI overflow, and the score would be theirs alone
        weight_type=QuantType.QInt8,
        use_external_data_format=path.with_name(f"{path.name}.data").exists(),
    )


def check_onnx() -> None:
    """`UserError` if what writes or runs ONNX files is not installed."""
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(name)]:
        raise UserError(f"ONNX needs {', '.join(missing)}: pip install 'data2vec2[onnx]'; or give --to torch")


class OnnxRunner:
    """An ONNX file on the CPU; takes what the model itself takes, and gives what it gives."""

    def __init__(self, path: Path, config: ModelConfig, model: AnyModel) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.config, self.recognizes = config, isinstance(model, SpeechRecognizer)

    def run(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """All outputs for `named_inputs`."""
        found: list[Any] = self.session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        return tuple(map(torch.from_numpy, found))

    def __call__(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Any:
        """Logits of a classifier, `Recognized` of a recogniser, the mean features of an encoder."""
        given = named_inputs(self.config, inputs, lengths_B)
        found = self.run(given)[-1]
        if not self.recognizes:
            return found
        assert isinstance(self.config.modality, AudioConfig)
        lengths = given["attention_mask"].sum(1).tolist()
        return Recognized(found, torch.tensor([self.config.modality.num_tokens(length) for length in lengths]))


def program_runner(path: Path) -> Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]:
    """What runs a saved program of torch.export."""
    module = torch.export.load(path).module()
    return lambda inputs: tuple(module(**inputs))


def largest_difference(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """Between outputs, everywhere; infinite or not a number where one side is and the other is not."""
    pairs = zip(found, expected, strict=True)
    return max(float(torch.where(a == b, 0.0, (a - b).abs()).max()) for a, b in pairs)
