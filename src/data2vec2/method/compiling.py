"""Compiled blocks, for fewer and larger operations on a GPU."""

from __future__ import annotations

from typing import Any

from torch import nn

from data2vec2.method.block import Block
from data2vec2.method.decoder import Decoder
from data2vec2.method.encoder import Modality


def compile_blocks(model: nn.Module, **how: Any) -> None:
    """Compile the Transformer blocks of student and teacher and the decoder, each by itself; `how`: of torch.compile.

    Blocks of one shape share what was compiled, and what is random or has varying structure stays outside: the choice
    of blocks that layer-drop leaves out, masks. Rows of sequences vary in length, so they are compiled once for all
    lengths: what a run computes doesn't depend on which came first. Names of parameters stay as they are.
    """
    from torch._dynamo import config as dynamo  # takes a second

    dynamo.recompile_limit = max(dynamo.recompile_limit, 32)  # of student, teacher and validation, all from one place
    varying = any(isinstance(part, Modality) and part.num_axes == 1 for part in model.modules())
    for part in model.modules():
        if isinstance(part, Block | Decoder):
            part.compile(dynamic=varying, **how)
