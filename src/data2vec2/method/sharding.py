"""Parameters, gradients and optimiser state spread over processes (FSDP2), for models that one device can't hold."""

from __future__ import annotations

import warnings

import torch
import torch.distributed as dist
from torch import nn

from data2vec2.method.block import Block


def shard(model: nn.Module, device: torch.device, half: bool) -> None:
    """Spread the parts of process 0's model over all processes, in place; their names stay as they are.

    The units are the Transformer blocks, and what else student, teacher and decoder have: each of these three gathers
    what it needs for its own pass, so that they can be called by themselves. With `half` that is done in bfloat16.
    """
    from torch.distributed.device_mesh import init_device_mesh  # takes seconds
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # Views of what a part gives are never written to here.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    for tensor in model.state_dict().values():
        dist.broadcast(tensor, 0)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    dtypes = (torch.bfloat16, torch.float32) if half else (None, None)
    policy = MixedPrecisionPolicy(param_dtype=dtypes[0], reduce_dtype=dtypes[1], cast_forward_inputs=False)
    for part in [part for part in model.modules() if isinstance(part, Block)] + list(model.children()):
        # By default what is gathered for an outermost part stays until its backward pass, which a teacher has not.
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
