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

from data2vec2.errors import UserError
from data2vec2.method.block import eager_attention
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import Recognized, SpeechRecognizer
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import example_of, interop_of
from data2vec2.modalities.interop import AnyModel

ONNX, INT8, TORCH = "model.onnx", "model_int8.onnx", "model.pt2"
LARGEST_FILE = 2 << 30
"""Bytes of an ONNX file, at most; the weights of larger models stand in a file beside it."""


def output_names(info: ModelInfo) -> tuple[str, ...]:
    """What `Portable` gives, by Transformers' names."""
    if info.answers:
        return "start_logits", "end_logits"
    return ("last_hidden_state", "pooler_output") if info.what == "encoder" else ("logits",)


def portable(model: AnyModel, info: ModelInfo) -> nn.Module:
    """The model as a module that takes inputs by Transformers' names and returns what `output_names` names."""
    return interop_of(info.kind).portable(model, info.model.modality).eval()


@torch.no_grad()
def export_program(model: AnyModel, info: ModelInfo) -> torch.export.ExportedProgram:
    """The model as a program for any number of samples, and of those that can have any length for any length."""
    model, interop = copy.deepcopy(model), interop_of(info.kind)
    encoder = model if isinstance(model, Encoder) else model.encoder
    encoder.modality.make_portable()
    for block in encoder.blocks:  # PyTorch's own leaves a memory layout that ONNX's decomposition does not
        block.attn.attend = eager_attention  # type: ignore[union-attr]
    example, dynamic = interop.named(example_of(info.model)), torch.export.Dim.DYNAMIC
    shapes = {name: dict.fromkeys((0,) if interop.fixed_size else (0, 1), dynamic) for name in example}
    return torch.export.export(portable(model, info), (), example, dynamic_shapes=shapes)


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

    def __init__(self, path: Path, info: ModelInfo, model: AnyModel) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.info, self.recognizes = info, isinstance(model, SpeechRecognizer)

    def run(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """All outputs for inputs by name."""
        found: list[Any] = self.session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        return tuple(map(torch.from_numpy, found))

    def __call__(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Any:
        """Logits of a classifier, `Recognized` of a recogniser, the mean features of an encoder."""
        given = interop_of(self.info.kind).named(inputs, lengths_B)
        found = self.run(given)[-1]
        if not self.recognizes:
            return found
        num_tokens = map(self.info.model.modality.num_tokens, given["attention_mask"].sum(1).tolist())
        return Recognized(found, torch.tensor(list(num_tokens)))


def program_runner(path: Path) -> Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]:
    """What runs a saved program of torch.export."""
    module = torch.export.load(path).module()
    return lambda inputs: tuple(module(**inputs))


def largest_difference(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """Between outputs, everywhere; infinite or not a number where one side is and the other is not."""
    pairs = zip(found, expected, strict=True)
    return max(float(torch.where(a == b, 0.0, (a - b).abs()).max().detach()) for a, b in pairs)
