"""From the bytes of an image file to the pixels of a shard: decode, crop, shrink without aliasing."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate
from torchvision.io import ImageReadMode, decode_image

from galaxy_models.data.readers.base import ImageError


def decode_galaxy(data: bytes, *, px: int, crop: float) -> NDArray[np.uint8]:
    """Decode an image, keep its central square and bring that to the wanted size.

    Args:
        data: a JPEG, PNG, WebP or GIF file: grey, palette, RGB, RGBA or CMYK, 8 or 16 bits a channel. Transparency
            is dropped; of an animation the first image counts.
        px: side of the result, in pixels.
        crop: share of the shorter side to keep, in (0, 1].

    Returns:
        (px, px, 3) uint8 RGB; bilinear with antialiasing, within 1 of what Pillow's `resize` gives for galaxies.

    Raises:
        ImageError: the bytes are no such image, or are damaged or cut short.
    """
    image = _decode_rgb(data)
    height, width = image.shape[1:]
    side = max(1, round(crop * min(height, width)))
    top, left = (height - side) // 2, (width - side) // 2
    square = image[:, top : top + side, left : left + side]
    if side != px:
        square = interpolate(square[None], size=(px, px), mode="bilinear", antialias=True)[0]
    return square.permute(1, 2, 0).contiguous().numpy()


def _decode_rgb(data: bytes) -> torch.Tensor:
    """(3, H, W) uint8."""
    if not data:
        raise ImageError("empty file")
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    with warnings.catch_warnings():
        # torchvision announces that its decoders will move to TorchCodec, once for every image.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            image = decode_image(encoded, mode=ImageReadMode.RGB)
        except RuntimeError as error:
            raise ImageError(_reason(str(error), data)) from None
    if image.ndim == 4:
        image = image[0]
    if image.dtype == torch.uint16:
        image = ((image.to(torch.int32) + 128) // 257).to(torch.uint8)
    return image


def _reason(message: str, data: bytes) -> str:
    """The decoder's complaint, without the source lines that it names."""
    text = message.strip().splitlines()[0].split(", ", maxsplit=2)[-1]
    if "Unsupported image file" in text:
        return f"not a JPEG, PNG, WebP or GIF image: begins with {data[:8]!r}"
    if "truncated" in text or "Out of bound" in text:
        return "image is incomplete: the file is cut short"
    return f"image is damaged: {text.rstrip('.')}"
