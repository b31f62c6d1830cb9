"""Images of every kind, as what they show. `test_rows.py` has those that cannot be used."""

import pytest
from PIL import Image
from source_fixtures import encoded, picture

from napo.data import pictures


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", (254, 0, 0)),
        (Image.new("RGBA", (8, 8), (10, 20, 30, 255)), "PNG", (10, 20, 30)),
        (Image.new("I;16", (8, 8), 32768), "PNG", (128, 128, 128)),
    ],
)
def test_unusual_images_are_read_as_what_they_show(image, kind, expected):
    opened = pictures.open_rgb(encoded(image, kind))
    assert opened.mode == "RGB" and opened.size == image.size
    assert opened.getpixel((0, 0)) == pytest.approx(expected, abs=2)


def test_the_first_frame_of_an_animation_is_the_picture():
    frames = [picture(10), picture(200)]
    webp = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert pictures.open_rgb(webp).getpixel((0, 0)) == (10, 50, 60)


def test_a_picture_on_its_side_is_put_upright():
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned
    lying = encoded(picture(10, (20, 10)), "JPEG", exif=exif)
    assert pictures.open_rgb(lying).size == (10, 20)
