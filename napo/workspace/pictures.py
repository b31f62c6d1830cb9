"""Images from the web: opened the same way at every stage, or refused with the reason.

An image may be cut short, lie on its side, be transparent, have 16 bits, four inks, many frames,
damaged metadata, or more pixels than memory holds.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.workspace.files import foreign

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 89_478_485  # Pillow's own limit for a warning: 1/4 GB of RGB, or 9,459 x 9,459
KINDS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # EPS would run Ghostscript
CLEAR = "every pixel of it is transparent, so it shows nothing"
MAX_RATIO = 200  # of the sides; beyond it the resizing of some families fails

# What Pillow's readers raise for damaged bytes
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, OverflowError,
           MemoryError, RuntimeError, AttributeError, struct.error, zlib.error)  # fmt: skip
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_JPEG = b"\xff\xd8"
_JPEG_PIXELS = (b"JFIF\0", b"Adobe")  # beginnings of the segments that say how colours are kept
_EXIF = b"Exif\0\0"
_ORIENTED = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")  # hold the orientation


class BadPicture(Exception):
    """Why an image cannot be used, as the end of a sentence: "it does not decode (...)"."""


def open_rgb(source: Path | bytes | Image.Image | None) -> Image.Image:
    """An image (a file, its bytes, or PIL) as RGB, upright, 8 bits a channel.

    A file gives its first frame, a PIL image its current one. Unreadable metadata is left out.

    Raises:
        BadPicture: when it does not decode, shows nothing, or is too large or too narrow to be one.
    """
    from PIL import Image, UnidentifiedImageError

    if not source:
        raise BadPicture("it is missing")
    content = source if isinstance(source, bytes) else b""
    try:
        if isinstance(source, Image.Image):
            check_size(source)
            return rgb(source)
        content = content or Path(source).read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes, which check_size refuses
            try:
                return rgb(first_frame(content))
            except _BROKEN:
                return rgb(first_frame(without_metadata(content)))
    except UnidentifiedImageError:
        problem = foreign(content) or f"it is none of {', '.join(KINDS)}"
        raise BadPicture(f"it does not decode ({problem})") from None
    except Image.DecompressionBombError:
        raise BadPicture(f"it has more than {MAX_PIXELS:,} pixels") from None
    except _BROKEN as error:
        raise BadPicture(f"it does not decode ({error or type(error).__name__})") from None


def rgb(image: Image.Image) -> Image.Image:
    """A PIL image as RGB, upright, 8 bits a channel; what is transparent shows white.

    Raises:
        BadPicture: when a pixel is not a finite number, or every pixel is transparent.
    """
    from PIL import Image

    image = upright(image)
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("LA") if image.mode == "La" else image
    image = image.convert("RGBA")
    if not image.getchannel("A").getextrema()[1]:
        raise BadPicture(CLEAR)
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """A PIL image turned as its EXIF says; a turned image loses its orientation."""
    from PIL import Image

    image.load()
    try:
        orientation = image.getexif().get(274)
    except _BROKEN:
        orientation = 1
    if orientation not in range(2, 9):
        return image
    turn = Image.Transpose
    turns = (
        turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM, turn.TRANSPOSE,
        turn.ROTATE_270, turn.TRANSVERSE, turn.ROTATE_90,
    )  # fmt: skip
    turned = image.transpose(turns[orientation - 2])
    turned.info = {key: value for key, value in image.info.items() if key not in _ORIENTED}
    return turned


def check_size(image: Image.Image) -> None:
    """Refuse an image with too many pixels, or with sides that are too unequal."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadPicture(f"it has {width} x {height} pixels, more than {MAX_PIXELS:,}")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise BadPicture(f"its sides of {width} and {height} pixels are too unequal")


def without_metadata(content: bytes) -> bytes:
    """A PNG or JPEG file with its pixels and its EXIF only; other files as they are."""
    if content.startswith(_PNG):
        return _PNG + b"".join(png_pixels(content))
    return _JPEG + b"".join(jpeg_pixels(content)) if content.startswith(_JPEG) else content


def first_frame(content: bytes) -> Image.Image:
    """The first frame of an image file, not turned."""
    from PIL import Image

    Image.init()
    kinds = [kind for kind in KINDS if kind in Image.OPEN]
    image = Image.open(io.BytesIO(content), formats=kinds)
    check_size(image)
    image.seek(0)
    image.load()
    if image.format == "PNG":
        _scale_clear_colour(image, depth=content[24])
    return image


def _scale_clear_colour(image: Image.Image, depth: int) -> None:
    """Give a PNG's transparent colour the scale of the pixels, which Pillow brings to 8 bits."""
    clear = image.info.get("transparency")
    if image.mode == "L" and isinstance(clear, int):
        image.info["transparency"] = clear * 255 // (2**depth - 1)
    elif image.mode == "RGB" and isinstance(clear, tuple) and depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def _eight_bits(image: Image.Image) -> Any:
    """Grey of 16 or 32 bits scaled to 8, where Pillow would cut off what is above 255."""
    import numpy as np
    from PIL import Image

    grey = np.asarray(image, dtype=np.float64)
    if not np.isfinite(grey).all():
        raise BadPicture("it has pixels that are not finite numbers (NaN or infinity)")
    brightest = 65535 if image.mode.startswith("I") else grey.max(initial=1.0)
    scaled = (grey * (255 / brightest)).clip(0, 255).round().astype("uint8")
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        if (grey == clear).all():
            raise BadPicture(CLEAR)
        scaled[grey == clear] = 255
    return Image.fromarray(scaled)


def png_pixels(content: bytes) -> Iterator[bytes]:
    """The chunks of a PNG that hold its pixels, and its EXIF if that is whole."""
    place = len(_PNG)
    while place < len(content):
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        chunk, kind = content[place:end], content[place + 4 : place + 8]
        whole = zlib.crc32(chunk[4:-4]).to_bytes(4, "big") == chunk[-4:]
        if kind in _PNG_PIXELS or (kind == b"eXIf" and whole):
            yield chunk
        place = end


def jpeg_pixels(content: bytes) -> Iterator[bytes]:
    """The segments of a JPEG up to its first scan, without comments and extras, then the rest."""
    place = len(_JPEG)
    while content[place : place + 1] == b"\xff" and content[place + 1 : place + 2] != b"\xda":
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        marker, body = content[place + 1], content[place + 4 : end]
        application = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if not application or body.startswith((*_JPEG_PIXELS, _EXIF)):
            yield content[place:end]
        place = end
    yield content[place:]
