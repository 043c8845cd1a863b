"""Any picture as upright RGB, whatever Pillow reads it as; and the part of it that is asked for."""

import struct

import numpy as np
import pytest
from PIL import Image

from jaxcam import pictures
from jaxcam.errors import JaxcamError

RED, GREY = (255, 0, 0), (128, 128, 128)


def drawn() -> Image.Image:
    """Red on the left, grey on the right; wider than it is high."""
    picture = Image.new("RGB", (40, 20), RED)
    picture.paste(GREY, (20, 0, 40, 20))
    return picture


def sides(picture: Image.Image) -> tuple:
    assert picture.mode == "RGB"
    return picture.getpixel((2, 2)), picture.getpixel((picture.width - 3, 17))


FORMATS = {
    "png": ("RGB", {}), "jpg": ("RGB", {"quality": 95}), "webp": ("RGB", {"lossless": True}),
    "bmp": ("RGB", {}), "gif": ("RGB", {}), "tif": ("CMYK", {}), "ppm": ("RGB", {}),
    "tga": ("RGB", {}), "ico": ("RGB", {"sizes": [(40, 20)]}), "jp2": ("RGB", {}),
}  # fmt: skip


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format(suffix, tmp_path):
    mode, options = FORMATS[suffix]
    drawn().convert(mode).save(tmp_path / f"in.{suffix}", **options)
    read = pictures.read(tmp_path / f"in.{suffix}")
    assert read.size == (40, 20)
    for got, expected in zip(sides(read), (RED, GREY), strict=True):
        np.testing.assert_allclose(got, expected, atol=4)


def test_a_cmyk_jpeg_has_the_colours_that_it_was_made_of(tmp_path):
    drawn().convert("CMYK").save(tmp_path / "in.jpg", quality=95)
    assert Image.open(tmp_path / "in.jpg").mode == "CMYK"
    left, right = sides(pictures.read(tmp_path / "in.jpg"))
    np.testing.assert_allclose(left, RED, atol=8)
    np.testing.assert_allclose(right, GREY, atol=8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_every_mode(mode):
    picture = Image.new("RGB", (40, 20), "white")
    picture.paste("black", (20, 0, 40, 20))
    left, right = sides(pictures.upright(picture.convert(mode)))
    assert (left, right) == ((255,) * 3, (0,) * 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_what_is_transparent_lies_on_white(mode):
    picture = Image.new("RGBA", (4, 1), (0, 0, 0, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    if mode == "RGBA":
        picture.putpixel((2, 0), (255, 0, 0, 51))
    picture = picture.convert(mode)
    picture.putpixel((1, 0), (0,) * len(mode))  # Pillow before 12 forgets it on the way to PA
    found = pictures.upright(picture)
    assert [found.getpixel((x, 0)) for x in (0, 1)] == [(0,) * 3, (255,) * 3]
    if mode == "RGBA":
        assert found.getpixel((2, 0)) == (255, 204, 204)  # a fifth of red on white


def test_a_colour_of_a_palette_that_is_declared_transparent(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 0, 0, 200, 0, 0])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "in.png", transparency=0)
    read = pictures.read(tmp_path / "in.png")
    assert [read.getpixel((x, 0)) for x in (0, 1)] == [(255,) * 3, (200, 0, 0)]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bits_of_grey_keep_their_range(suffix, tmp_path):
    deep, path = np.array([[0, 32896, 65535]], np.uint16), tmp_path / f"in.{suffix}"
    if suffix == "pgm":  # which Pillow before 11 reads and does not write
        path.write_bytes(b"P5 3 1 65535 " + deep.astype(">u2").tobytes())
    else:
        Image.fromarray(deep).save(path)
    read = pictures.read(tmp_path / f"in.{suffix}")
    assert np.asarray(read)[0].tolist() == [[0] * 3, [128] * 3, [255] * 3]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_a_picture_upright(orientation, tmp_path):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    marked = drawn()
    marked.paste("blue", (0, 0, 10, 10))  # the corner tells flips from turns
    stored = marked.transpose(undo[orientation]) if orientation in undo else marked
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "in.png", exif=exif)
    read = pictures.read(tmp_path / "in.png")
    np.testing.assert_array_equal(np.asarray(read), np.asarray(marked))


def block(*entries: tuple, behind: bytes = b"") -> bytes:
    """EXIF data: entries ``(tag, type, count, value)``, and what their offsets point to."""
    rows = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)
    head = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries))
    return head + rows + bytes(4) + behind


def turned(value: int = 6, kind: int = 3, count: int = 1) -> tuple:
    return 0x112, kind, count, struct.pack("<I", value)


AWRY = {
    "no entries": (b"Exif\0\0", False),
    "no header of TIFF": (b"Exif\0\0" + bytes(range(200)), False),
    "an offset beyond": (b"Exif\0\0II*\0" + struct.pack("<I", 10**9) + bytes(20), False),
    "a number that means nothing": (block(turned(9)), False),
    "zero": (block(turned(0)), False),
    "text": (block(turned(ord("6"), 2, 2)), False),
    "not a number": (block((0x112, 11, 1, struct.pack("<f", float("nan")))), False),
    "a directory that goes round": (block(turned())[:-4] + struct.pack("<I", 8), True),
    "a longer type": (block(turned(6, 4)), True),
    "a directory cut off": (block(turned(), (0x10F, 2, 4000, bytes(4)))[:34], True),
    "a negative exposure": (
        block(turned(), (0x829A, 10, 1, struct.pack("<I", 38)), behind=struct.pack("<ii", -1, 0)),
        True,
    ),
    "a width of -5": (block(turned(), (0xA002, 9, 1, struct.pack("<i", -5))), True),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("what", AWRY)
def test_of_exif_data_the_orientation_alone_is_read(what, suffix, tmp_path):
    """Whatever else is wrong in them; what says nothing leaves a picture as it is stored."""
    exif, turns = AWRY[what]
    drawn().save(tmp_path / f"in.{suffix}", exif=exif, quality=95)
    read = pictures.read(tmp_path / f"in.{suffix}")
    assert read.size == ((20, 40) if turns else (40, 20))
    top_right = read.getpixel((read.width - 3, 2))
    np.testing.assert_allclose(top_right, RED if turns else GREY, atol=8)
    assert pictures.upright(read).tobytes() == read.tobytes()  # it is upright now, and says so


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGB", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6])
def test_a_tiff_on_its_side_is_not_scrambled(orientation, mode, compression, tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (4, 6), dtype=np.uint8)
    deep = mode == "I;16"
    picture = Image.fromarray(grey.astype(np.uint16) * 257) if deep else Image.fromarray(grey)
    picture = picture if deep else picture.convert("RGB").convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {} if compression is None else {"compression": compression}
    picture.save(tmp_path / "in.tif", exif=exif, **options)
    stored = grey if deep else np.asarray(picture.convert("L"))
    upright = {1: stored, 3: stored[::-1, ::-1], 5: stored.T, 6: np.rot90(stored, -1)}
    read = pictures.read(tmp_path / "in.tif")
    np.testing.assert_allclose(np.asarray(read.convert("L"), int), upright[orientation], atol=1)
    with Image.open(tmp_path / "in.tif") as mine:
        assert pictures.upright(mine).tobytes() == read.tobytes()
        assert mine.filename


@pytest.mark.parametrize("suffix", ["gif", "webp", "tif", "png"])
def test_of_several_frames_the_first(suffix, tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"in.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert Image.open(tmp_path / f"in.{suffix}").n_frames == 2
    assert pictures.read(tmp_path / f"in.{suffix}").getpixel((4, 4)) == RED


def test_one_pixel_is_a_picture(tmp_path):
    Image.new("RGB", (1, 1), "red").save(tmp_path / "in.png")
    assert pictures.read(tmp_path / "in.png").getpixel((0, 0)) == RED


DAMAGED = {
    "text": lambda content: b"not a picture",
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "garbled": lambda content: content[:60] + bytes(200) + content[260:],
}


@pytest.mark.parametrize(
    ("what", "suffix"),
    [(what, suffix) for what in DAMAGED for suffix in ("png", "jpg", "webp")
     if what != "garbled" or suffix == "png"],  # the others have no checksums
)  # fmt: skip
def test_what_is_no_picture_is_refused(what, suffix, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    path = tmp_path / f"in.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(DAMAGED[what](path.read_bytes()))
    with pytest.raises(JaxcamError, match=rf"in\.{suffix}: needs a picture that can be read"):
        pictures.read(path)


def test_a_bomb_is_refused_and_what_pillow_doubts_is_read(tmp_path, monkeypatch):
    Image.new("1", (40, 20)).save(tmp_path / "in.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 399)
    with pytest.raises(JaxcamError, match=r"got Image size \(800 pixels\).*Make it smaller"):
        pictures.read(tmp_path / "in.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 401)
    with pytest.warns(Image.DecompressionBombWarning):
        assert pictures.read(tmp_path / "in.png").size == (40, 20)


def test_what_has_no_known_range_is_refused(tmp_path):
    Image.new("F", (8, 8)).save(tmp_path / "in.tif")
    with pytest.raises(JaxcamError, match=r"mode 'F'. Scale it to 0\.\.255"):
        pictures.read(tmp_path / "in.tif")


# parts


def test_a_part_within_the_picture():
    found = pictures.part(drawn(), (15.0, 5.0, 25.0, 15.0), 100)
    assert found.shape == (10, 10, 3)
    assert found[:, 0].tolist() == [list(RED)] * 10
    assert found[:, 9].tolist() == [list(GREY)] * 10


def test_a_part_is_made_smaller_and_never_larger():
    assert pictures.part(drawn(), (0.0, 0.0, 40.0, 20.0), 10).shape == (5, 10, 3)
    assert pictures.part(drawn(), (0.0, 0.0, 40.0, 20.0), 4000).shape == (20, 40, 3)


def test_beyond_the_picture_it_is_black():
    found = pictures.part(drawn(), (-10.0, -5.0, 50.0, 25.0), 1000)
    assert found.shape == (30, 60, 3)
    np.testing.assert_array_equal(found[5:25, 10:50], np.asarray(drawn()))
    inside = found.copy()
    inside[5:25, 10:50] = 0
    assert not inside.any()
