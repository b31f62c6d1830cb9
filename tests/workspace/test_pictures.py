"""Images of every kind, as what they show. `test_sources.py` has those that cannot be used."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from source_fixtures import BOMB, encoded, picture

from napo.workspace import pictures

WHITE, GREY = (255, 255, 255), (40, 40, 40)
LOSES = pytest.mark.kind("pictures lose what they show")
METADATA = pytest.mark.kind("sound files refused for their metadata")


def png(depth, colour, pixels, *chunks):
    """A PNG of one row, written here: bit depth, colour type, bytes of the row, more chunks."""
    width = len(pixels) * 8 // (depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour])
    header = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    chunks = [("IHDR", header), *chunks, ("IDAT", zlib.compress(b"\0" + pixels)), ("IEND", b"")]
    return pictures._PNG + b"".join(chunk(*part) for part in chunks)


def chunk(name, body, crc=None):
    whole = name.encode() + body
    crc = zlib.crc32(whole) if crc is None else crc
    return struct.pack(">I", len(body)) + whole + struct.pack(">I", crc)


def glyph(mode):
    """Eight by eight pixels, transparent but the last, which is opaque and dark; all are dark."""
    alpha = np.zeros((8, 8), "uint8")
    alpha[7, 7] = 255
    image = Image.fromarray(np.dstack([np.full((8, 8, 3), 40, "uint8"), alpha]), "RGBA")
    return image.convert(mode)


def palette(image, **options):
    """The same as a palette whose first entry is transparent."""
    flat = Image.fromarray((np.asarray(image.convert("RGBA"))[..., 3] > 0).astype("uint8"), "P")
    flat.putpalette([40, 40, 40, 40, 40, 40])
    return encoded(flat, transparency=0, **options)


TRANSPARENT = {
    "RGBA PNG": encoded(glyph("RGBA")),
    "LA PNG": encoded(glyph("LA")),
    "RGBA TIFF": encoded(glyph("RGBA"), "TIFF"),
    "LA TIFF": encoded(glyph("LA"), "TIFF"),
    "WebP": encoded(glyph("RGBA"), "WEBP", lossless=True),
    "palette PNG": palette(glyph("RGBA"), kind="PNG"),
    "GIF": palette(glyph("RGBA"), kind="GIF"),
    "palette with an alpha for each entry": png(
        8, 3, bytes([0] * 63 + [1]), ("PLTE", bytes([40] * 6)), ("tRNS", b"\0\xff")
    ),
    "1 bit and a clear colour": png(1, 0, b"\xff" * 7 + b"\xfe", ("tRNS", b"\0\1")),
    "2 bits and a clear colour": png(2, 0, b"\xff" * 15 + b"\xfc", ("tRNS", b"\0\3")),
    "4 bits and a clear colour": png(4, 0, b"\x77" * 31 + b"\x70", ("tRNS", b"\0\7")),
    "8 bits and a clear colour": png(8, 0, b"\x77" * 63 + b"\0", ("tRNS", b"\0\x77")),
    "16 bits and a clear colour": png(16, 0, b"\x12\x34" * 63 + b"\0\0", ("tRNS", b"\x12\x34")),
    "RGB and a clear colour": png(
        8, 2, bytes([1, 2, 3]) * 63 + bytes(3), ("tRNS", bytes([0, 1, 0, 2, 0, 3]))
    ),
    "RGB of 16 bits and a clear colour": png(
        16, 2, bytes([9, 8] * 3) * 63 + bytes(6), ("tRNS", bytes([9, 8] * 3))
    ),
    "RGBA of 16 bits": png(16, 6, bytes(8) * 63 + bytes(6) + b"\xff\xff"),
}


@LOSES
@pytest.mark.parametrize("kind", TRANSPARENT)
def test_what_is_transparent_shows_white_and_the_rest_stays(kind, result):
    opened = pictures.open_rgb(TRANSPARENT[kind])
    *clear, opaque = map(tuple, np.asarray(opened).reshape(-1, 3).tolist())
    result(f"{opened.mode}, {clear[0]} and {opaque}")
    assert opened.mode == "RGB" and set(clear) == {WHITE} and max(opaque) <= 40


@LOSES
@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa", "La", "PA"])
def test_an_image_in_memory_is_composed_as_one_from_a_file(mode):
    image = glyph("LA" if "L" in mode else "RGBA" if mode == "PA" else mode)
    image = image.convert(mode)
    shown = pictures.rgb(image)
    assert shown.getpixel((0, 0)) == WHITE and shown.getpixel((7, 7)) == pytest.approx(GREY, abs=1)


@LOSES
def test_half_transparent_pixels_are_mixed_with_white():
    content = encoded(Image.new("RGBA", (2, 2), (100, 0, 200, 51)))
    expected = [round(255 + (value - 255) * 51 / 255) for value in (100, 0, 200)]
    assert pictures.open_rgb(content).getpixel((0, 0)) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "JPEG", "TIFF", "WEBP"])
def test_opaque_pictures_are_what_pillow_reads(kind):
    content = encoded(Image.effect_noise((16, 16), 60).convert("RGB"), kind)
    expected = Image.open(io.BytesIO(content)).convert("RGB").tobytes()
    assert pictures.open_rgb(content).tobytes() == expected


CLEAR = Image.new("RGBA", (8, 8), (40, 40, 40, 0))
MASKS = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
BMP = (
    struct.pack("<IiiHHIIiiII", 108, 8, 8, 1, 32, 3, 256, 0, 0, 0, 0) + MASKS + b"BGRs" + bytes(48)
)
INVISIBLE = {
    "BMP with masks": b"BM" + struct.pack("<IHHI", 378, 0, 0, 122) + BMP + b"\x28\x28\x28\0" * 64,
    "PNG": encoded(CLEAR),
    "WebP": encoded(CLEAR, "WEBP", lossless=True, exact=True),
    "TIFF": encoded(CLEAR, "TIFF"),
    "grey and alpha": encoded(CLEAR.convert("LA")),
    "palette": encoded(Image.new("P", (8, 8)), transparency=0),
    "a clear colour of 16 bits": png(16, 0, b"\x12\x34" * 64, ("tRNS", b"\x12\x34")),
    "in memory": CLEAR,
}


@LOSES
@pytest.mark.parametrize("kind", INVISIBLE)
def test_a_picture_with_every_pixel_transparent_is_refused_not_white(kind, result):
    with pytest.raises(pictures.BadPicture, match="every pixel of it is transparent") as error:
        pictures.open_rgb(INVISIBLE[kind])
    result(error.value)


@LOSES
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_is_no_number_is_refused(value, result):
    grey = np.full((8, 8), 0.5, "float32")
    grey[3, 3] = value
    with pytest.raises(pictures.BadPicture, match="pixels that are not finite numbers") as error:
        pictures.open_rgb(encoded(Image.fromarray(grey), "TIFF"))
    result(error.value)


@LOSES
@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", (254, 0, 0)),
        (Image.new("RGBA", (8, 8), (10, 20, 30, 255)), "PNG", (10, 20, 30)),
        (Image.new("I;16", (8, 8), 32768), "PNG", (128, 128, 128)),
        (Image.new("I;16", (8, 8), 32768), "TIFF", (128, 128, 128)),
        (Image.new("F", (8, 8), 0.5), "TIFF", (128, 128, 128)),
        (Image.new("1", (8, 8), 1), "TIFF", WHITE),
    ],
)
def test_unusual_images_are_read_as_what_they_show(image, kind, expected):
    opened = pictures.open_rgb(encoded(image, kind))
    assert opened.mode == "RGB" and opened.size == image.size
    assert opened.getpixel((0, 0)) == pytest.approx(expected, abs=2)


@LOSES
@pytest.mark.parametrize("kind", ["WEBP", "GIF", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_the_picture(kind):
    frames, options = [picture(10), picture(200)], {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert pictures.open_rgb(content).getpixel((0, 0)) == (10, 50, 60)


ORIENTATIONS = {  # where the bright corner, top left in the file, is on the screen
    1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_picture_on_its_side_is_put_upright(kind, orientation):
    image = Image.new("RGB", (32, 16))
    image.paste("white", (0, 0, 16, 8))
    exif = Image.Exif()
    exif[274] = orientation
    opened = pictures.open_rgb(encoded(image, kind, exif=exif))
    assert opened.size == ((32, 16) if orientation < 5 else (16, 32))
    right, bottom = ORIENTATIONS[orientation]
    corner = (2 + right * (opened.width - 5), 2 + bottom * (opened.height - 5))
    assert min(opened.getpixel(corner)) > 200


@LOSES
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_pil_image_is_put_upright_as_its_file_is_and_only_once(kind, orientation):
    image, exif = Image.effect_noise((32, 16), 90).convert("RGB"), Image.Exif()
    exif[274] = orientation
    content = encoded(image, kind, exif=exif)
    expected = pictures.open_rgb(content)
    opened = pictures.open_rgb(Image.open(io.BytesIO(content)))
    again = pictures.open_rgb(pictures.rgb(opened))
    assert expected.tobytes() == opened.tobytes() == again.tobytes()
    assert opened.size == again.size == ((32, 16) if orientation < 5 else (16, 32))


@LOSES
def test_orientation_in_xmp_is_followed_once():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    image = Image.open(io.BytesIO(encoded(picture(7, (20, 10)), "JPEG", xmp=xmp)))
    assert pictures.rgb(pictures.open_rgb(image)).size == (10, 20)


@LOSES
@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (Image.open(io.BytesIO(encoded(Image.effect_noise((64, 64), 50), "JPEG")[:900])), "decode"),
        (Image.new("RGB", (2, 500)), "sides of 2 and 500 pixels are too unequal"),
    ],
    ids=["cut short", "too narrow"],
)
def test_a_pil_image_is_refused_as_its_file_is(image, problem, result):
    with pytest.raises(pictures.BadPicture, match=problem) as error:
        pictures.open_rgb(image)
    result(error.value)


def with_text(*names, image=None, **options):
    text = PngImagePlugin.PngInfo()
    for name in names:
        text.add_text(name, "x" * 3_000_000, zip=True)
    return encoded(image or picture(7), "PNG", pnginfo=text, **options)


def with_chunk(*parts, place=33):
    content = encoded(picture(7))
    return content[:place] + b"".join(parts) + content[place:]


def jpeg(*segments):
    content = encoded(picture(7, (32, 32)), "JPEG")
    written = [marker + struct.pack(">H", len(body) + 2) + body for marker, body in segments]
    return content[:2] + b"".join(written) + content[2:]


TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
XMP = b"http://ns.adobe.com/xmp/extension/\0"
END = len(encoded(picture(7))) - 12
METADATA_KINDS = {
    "3 MB of compressed text": with_text("Comment"),
    "30 texts of 3 MB": with_text(*(f"t{number}" for number in range(30))),
    "3 MB of international text": with_chunk(
        chunk("iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(3_000_000)))
    ),
    "text after the pixels": with_chunk(
        chunk("zTXt", b"a\0\0" + zlib.compress(b"x" * 3_000_000)), place=END
    ),
    "a colour profile of 3 MB": with_chunk(
        chunk("iCCP", b"p\0\0" + zlib.compress(bytes(3_000_000)))
    ),
    "a colour profile that is none": with_chunk(chunk("iCCP", b"p\0\0" + b"no profile")),
    "a text with a wrong checksum": with_chunk(chunk("tEXt", b"a\0b", crc=1)),
    "a text with an unknown compression": with_chunk(chunk("zTXt", b"a\0\7abc")),
    "a resolution cut short": with_chunk(chunk("pHYs", b"\0")),
    "a gamma cut short": with_chunk(chunk("gAMA", b"\0")),
    "an animation cut short": with_chunk(chunk("acTL", b"\0")),
    "EXIF that is none, PNG": with_chunk(chunk("eXIf", b"no EXIF at all")),
    "EXIF in text that is none": with_chunk(chunk("tEXt", b"Raw profile type exif\0\nexif\n9\nzz")),
    "EXIF that is none, JPEG": jpeg((b"\xff\xe1", b"Exif\0\0MM\0*\xff\xff\xff\xff")),
    "EXIF cut short, JPEG": jpeg((b"\xff\xe1", TURNED[:20])),
    "EXIF that is none, WebP": encoded(picture(7), "WEBP", lossless=True, exif=b"Exif\0\0nothing"),
    "2 MB of XMP": jpeg(*[(b"\xff\xe1", XMP + b"x" * 65_000)] * 30),
    "a damaged index of more pictures": jpeg((b"\xff\xe2", b"MPF\0II*\0\xff\xff\xff\xff")),
    "a damaged Photoshop block": jpeg((b"\xff\xed", b"Photoshop 3.0\x008BIM\4\4\xff")),
    "a comment of 64 KB": jpeg((b"\xff\xfe", b"x" * 65_000)),
    "a colour profile with parts missing": jpeg((b"\xff\xe2", b"ICC_PROFILE\0\2\7abc")),
}  # fmt: skip


@METADATA
@pytest.mark.parametrize("kind", METADATA_KINDS)
def test_damaged_or_huge_metadata_does_not_cost_the_picture(kind, result):
    opened = pictures.open_rgb(METADATA_KINDS[kind])
    result(opened.getpixel((0, 0)))
    assert opened.getpixel((0, 0)) == pytest.approx((7, 50, 60), abs=2)


@METADATA
def test_orientation_is_kept_where_other_metadata_is_left_out():
    exif = Image.Exif()
    exif[274] = 6
    assert pictures.open_rgb(with_text("a", image=picture(7, (20, 10)), exif=exif)).size == (10, 20)


@METADATA
def test_transparency_is_kept_where_metadata_is_left_out():
    assert pictures.open_rgb(with_text("a", image=glyph("RGBA"))).getpixel((0, 0)) == WHITE


@METADATA
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (BOMB, "pixels"),
        (BOMB[:33] + chunk("zTXt", b"a\0\0" + zlib.compress(bytes(3_000_000))) + BOMB[33:], "pix"),
        (with_text("a")[:-40], "does not decode"),
        (jpeg((b"\xff\xe2", b"MPF\0II*\0\xff\xff\xff\xff"))[:300], "does not decode"),
        (pictures._PNG, "does not decode"),
        (pictures._JPEG, "does not decode"),
        (b"no picture at all", "it is none of"),
        (b"<!DOCTYPE html><html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS"),
    ],
)
def test_damaged_pixels_and_bombs_stay_refused(content, problem, result):
    with pytest.raises(pictures.BadPicture, match=problem) as error:
        pictures.open_rgb(content)
    result(error.value)
