"""Images from the web: opened the same way at every stage, or refused with the reason.

An image may be cut short, lie on its side, have 16 bits, four inks, many frames, or more pixels
than memory holds.
"""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 89_478_485  # Pillow's own limit for a warning: 1/4 GB of RGB, or 9,459 x 9,459
KINDS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # EPS would run Ghostscript
MAX_RATIO = 200  # of the sides; beyond it the resizing of some families fails

# What Pillow's readers raise on bytes that are not what they claim to be.
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, OverflowError,
           MemoryError, RuntimeError, struct.error)  # fmt: skip


class BadPicture(ValueError):
    """Why an image cannot be used, as the end of a sentence: "it does not decode (...)"."""


def open_rgb(source: Path | bytes | None) -> Image.Image:
    """An image (a file, or the bytes of one) as RGB, upright, its first frame, 8 bits a channel.

    Raises:
        BadPicture: when it does not decode, or is too large or too narrow to be one.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not source:
        raise BadPicture("it is missing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which are checked here
            Image.init()
            image = Image.open(
                io.BytesIO(source) if isinstance(source, bytes) else source,
                formats=[kind for kind in KINDS if kind in Image.OPEN],
            )
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BadPicture(f"it has {width} x {height} pixels, more than {MAX_PIXELS:,}")
            if max(width, height) > MAX_RATIO * min(width, height):
                raise BadPicture(f"its sides of {width} and {height} pixels are too unequal")
            image.seek(0)
            return _eight_bits(ImageOps.exif_transpose(image)).convert("RGB")
    except BadPicture:
        raise
    except UnidentifiedImageError:
        raise BadPicture(f"it does not decode (it is none of {', '.join(KINDS)})") from None
    except Image.DecompressionBombError:
        raise BadPicture(f"it has more than {MAX_PIXELS:,} pixels") from None
    except _BROKEN as error:
        raise BadPicture(f"it does not decode ({error or type(error).__name__})") from None


def _eight_bits(image: Image.Image) -> Any:
    """Grey of 16 or 32 bits scaled to 8, where Pillow would cut off what is above 255."""
    import numpy as np
    from PIL import Image

    if not image.mode.startswith(("I", "F")):
        return image
    grey = np.asarray(image, dtype=np.float64)
    brightest = 65535 if image.mode.startswith("I") else grey.max(initial=1.0)
    return Image.fromarray((grey * (255 / brightest)).clip(0, 255).round().astype("uint8"))
