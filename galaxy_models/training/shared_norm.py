"""Batch normalisation over a batch that several processes share: each layer sees the statistics of the whole.

torch's own SyncBatchNorm runs on graphics cards only and wants other layers in the network's place. Here the layers
stay as they are, whichever class they have: their call of `batch_norm` is answered otherwise while training.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Gather = Callable[[Tensor], Tensor]

_SIGNATURE = inspect.signature(functional.batch_norm)


class SharedNorms(TorchFunctionMode):
    """Within a `with` block, batch norms in training mode normalise by the statistics of all processes' images.

    Args:
        gather: the vectors (L,) of all processes, as (P, L); every process has to call it at the same points.
    """

    def __init__(self, gather: Gather) -> None:
        super().__init__()
        self._gather = gather

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Answer batch norms, and let everything else pass."""
        kwargs = kwargs or {}
        if func is not functional.batch_norm:
            return func(*args, **kwargs)
        call = _SIGNATURE.bind(*args, **kwargs)
        call.apply_defaults()
        return _shared(self._gather, call.arguments) if call.arguments["training"] else func(*args, **kwargs)


def _shared(gather: Gather, call: dict[str, Any]) -> Tensor:
    """What `torch.nn.functional.batch_norm` gives in training mode, for a call with these arguments."""
    images, weight, bias = call["input"], call["weight"], call["bias"]
    normalised, mean, var, count = _Normalise.apply(images, gather, call["eps"])
    with torch.no_grad():
        # Kept as the spread of all galaxies that these are drawn from, hence a little larger.
        for kept, now in ((call["running_mean"], mean), (call["running_var"], var * (count / (count - 1)))):
            if kept is not None:
                kept.lerp_(now.to(kept.dtype), call["momentum"])
    shape = (1, -1, *[1] * (images.ndim - 2))
    if weight is not None:
        normalised = normalised * weight.view(shape)
    if bias is not None:
        normalised = normalised + bias.view(shape)
    # A copy: the next layer may write over its input, which the gradient needs where nothing came in between.
    copied: Tensor = normalised.to(images.dtype, copy=weight is None and bias is None)
    return copied


class _Normalise(Function):
    """(B, C, ...) to the same, float32, with mean 0 and variance 1 in each channel over all processes' images."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, gather: Gather, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Also gives each channel's mean and (biased) variance, (C,), and the number of values behind them."""
        values, dims = images.float(), _all_but_channels(images)
        var, mean = torch.var_mean(values, dims, correction=0)
        own = mean.new_tensor([values.numel() / values.shape[1]])
        means, variances, counts = gather(torch.cat([mean, var, own])).split([len(mean), len(var), 1], dim=1)
        shares = counts / counts.sum()
        mean = (shares * means).sum(0)
        # Spread within the processes' parts, and between their means.
        var = (shares * (variances + (means - mean) ** 2)).sum(0)
        scale = (var + eps).rsqrt()
        normalised = (values - _wide(mean, images)) * _wide(scale, images)
        ctx.save_for_backward(normalised, scale, counts.sum())
        ctx.gather, ctx.dtype = gather, images.dtype
        ctx.mark_non_differentiable(mean, var)
        return normalised, mean, var, counts.sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Every image's gradient has a part that comes through the statistics, from all processes' images."""
        normalised, scale, count = ctx.saved_tensors
        gradient, dims = gradients[0], _all_but_channels(normalised)
        sums = torch.cat([gradient.sum(dims), (gradient * normalised).sum(dims)])
        means, slopes = (ctx.gather(sums).sum(0) / count).chunk(2)
        through = _wide(means, normalised) + normalised * _wide(slopes, normalised)
        return ((gradient - through) * _wide(scale, normalised)).to(ctx.dtype), None, None


def _all_but_channels(images: Tensor) -> list[int]:
    return [dim for dim in range(images.ndim) if dim != 1]


def _wide(channels: Tensor, like: Tensor) -> Tensor:
    return channels.view(1, -1, *[1] * (like.ndim - 2))
