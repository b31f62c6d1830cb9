"""Images of every kind: what they show, or why they cannot be used."""

import io

import numpy as np
import pytest
from PIL import Image, features
from source_fixtures import encoded, picture

from napo.data import pictures


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", (254, 0, 0)),
        (Image.new("L", (1, 1), 77), "PNG", (77, 77, 77)),
        (Image.new("RGBA", (8, 8), (10, 20, 30, 255)), "PNG", (10, 20, 30)),
        (Image.new("P", (8, 8), 0), "PNG", (0, 0, 0)),
        (Image.new("1", (8, 8), 1), "PNG", (255, 255, 255)),
        (Image.new("I;16", (8, 8), 65535), "PNG", (255, 255, 255)),
        (Image.new("I;16", (8, 8), 32768), "PNG", (128, 128, 128)),
    ],
)
def test_unusual_images_are_read_as_what_they_show(image, kind, expected):
    opened = pictures.open_rgb(encoded(image, kind))
    assert opened.mode == "RGB" and opened.size == image.size
    found = opened.getpixel((0, 0))
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= 2


def test_the_first_frame_of_an_animation_is_the_picture():
    frames = [picture(10), picture(200)]
    webp = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert pictures.open_rgb(webp).getpixel((0, 0)) == (10, 50, 60)


def test_a_picture_on_its_side_is_put_upright():
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned
    lying = encoded(picture(10, (20, 10)), "JPEG", exif=exif)
    assert pictures.open_rgb(lying).size == (10, 20)


def avif_that_the_decoder_refuses():
    """A valid AVIF with the first wrong bit that raises a RuntimeError in Pillow."""
    noise = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), "AVIF")
    for at in range(8 * len(whole)):
        wrong = bytearray(whole)
        wrong[at // 8] ^= 1 << at % 8
        try:
            Image.open(io.BytesIO(wrong), formats=["AVIF"]).load()
        except RuntimeError:
            return bytes(wrong)
        except (OSError, SyntaxError, ValueError):
            continue
    raise AssertionError("No bit does it; look for another RuntimeError of Pillow's.")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_an_avif_with_a_wrong_bit_does_not_decode():
    with pytest.raises(pictures.BadPicture, match="it does not decode"):
        pictures.open_rgb(avif_that_the_decoder_refuses())
