import io
import os
import pickle
import re
import tracemalloc
import warnings
import zlib
from pathlib import Path, PurePath, PureWindowsPath

import numpy as np
import pytest
from handmade import run_length_encoded
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cifar_onnx import ImageError, InputError, folders, images, sources
from cifar_onnx.errors import ReadError
from cifar_onnx.folders import find, labelled

# Upper half white, lower half black: 20 x 40 pixels.
HALVES = np.zeros((20, 40, 3), np.uint8)
HALVES[:10] = 255


def saved(image: Image.Image, form: str = "PNG", **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)  # type: ignore[arg-type]
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """Of a PNG."""
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")


def without(png: bytes, chunk: bytes) -> bytes:
    """A PNG without one of its chunks."""
    start = png.index(chunk) - 4
    return png[:start] + png[start + 12 + int.from_bytes(png[start : start + 4], "big") :]


def test_path_bytes_image_and_array_decode_alike(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(saved(Image.fromarray(HALVES)))
    for source in (path, str(path), path.read_bytes(), Image.open(path), HALVES, HALVES[:, :, 0]):
        assert np.array_equal(images.decode(source), HALVES)


def test_a_path_that_can_read_is_a_path(tmp_path: Path) -> None:
    """As py.path has them, which reads text."""

    class Readable(type(tmp_path)):  # type: ignore[misc]
        def read(self) -> str:
            return "text"

    (tmp_path / "a.png").write_bytes(saved(Image.fromarray(HALVES)))
    assert np.array_equal(images.decode(Readable(tmp_path / "a.png")), HALVES)


@pytest.mark.skipif(os.name != "posix", reason="pipes have names on POSIX")
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_pipe_decodes_as_its_bytes_do(form: str) -> None:
    encoded = saved(Image.fromarray(HALVES), form)
    reading, writing = os.pipe()
    os.write(writing, encoded)
    os.close(writing)
    assert np.array_equal(images.decode(f"/dev/fd/{reading}"), images.decode(encoded))
    os.close(reading)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    pixels = HALVES.copy()
    pixels[:, :10] //= 2  # no mirror image is the same
    image = Image.fromarray(pixels)
    stored = image if orientation == 1 else image.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(images.decode(saved(stored, exif=exif)), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "PA"])
def test_modes_become_rgb(mode: str) -> None:
    assert np.array_equal(images.decode(Image.fromarray(HALVES).convert("L").convert(mode)), HALVES)


def test_cmyk_becomes_rgb() -> None:
    decoded = images.decode(saved(Image.fromarray(HALVES).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(decoded.astype(int) - HALVES).mean() < 2


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    levels = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    decoded = images.decode(saved(Image.fromarray(levels)))
    assert np.array_equal(decoded[:, :, 0], np.arange(256).reshape(16, 16))


def test_sixteen_bit_grey_is_rounded_to_the_nearest_level() -> None:
    levels = np.array([[0, 128, 129, 385, 386, 65406, 65407, 65535]], np.uint16)
    assert images.decode(saved(Image.fromarray(levels)))[0, :, 0].tolist() == [0, 0, 1, 1, 2, 254, 255, 255]


def test_transparency_is_laid_over_white() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    assert images.decode(saved(image)).tolist() == [[[255, 255, 255], [255, 0, 0]]]
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([255, 0, 0])
    assert images.decode(saved(palette, transparency=0)).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_transparent_level_of_grey_becomes_white(bits: int) -> None:
    """As in browsers and in Node; Pillow compares it, as it stands in the file, with levels scaled to 8 bits."""
    level = 2**bits // 3
    head = chunk(b"IHDR", bytes([0, 0, 0, 8 // bits, 0, 0, 0, 1, bits, 0, 0, 0, 0]))
    line = bytes([0, level << 8 - bits])  # the level, and black
    rest = chunk(b"tRNS", bytes([0, level])) + chunk(b"IDAT", zlib.compress(line)) + chunk(b"IEND", b"")
    expected = [255] + [255 * (level == 0)] * (8 // bits - 1)
    file = b"\x89PNG\r\n\x1a\n" + head + rest
    assert images.decode(file)[0, :, 0].tolist() == expected
    with Image.open(io.BytesIO(file)) as scaled:
        scaled.info["transparency"] = level * (255 // (2**bits - 1))
        assert images.decode(scaled)[0, :, 0].tolist() == expected


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    animation = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert images.decode(animation)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file: was it copied or downloaded to its end"),
        (b"hello", "not a picture"),
        (saved(Image.fromarray(HALVES))[:-30], "cannot be decoded"),
        (saved(Image.effect_noise((99, 99), 50), "JPEG")[:-500], "truncated"),
        (saved(Image.fromarray(HALVES), "TIFF"), "not a picture in one of the formats BMP, GIF, JPEG, PNG"),
        (saved(Image.fromarray(HALVES), "EPS"), "not a picture"),
        # Pillow reads it in time that grows with the square of its comments: 10 MB of them took seven minutes.
        (b"P3 2 1 255\n" + b"#\n" * 100 + b"0 " * 6, "written as text"),
        (without(saved(Image.new("P", (4, 4))), b"PLTE"), "cannot be decoded"),
    ],
    ids=["empty", "text", "cut PNG", "cut JPEG", "TIFF", "EPS", "text for pixels", "PNG without its palette"],
)
def test_what_cannot_be_decoded_is_named_with_its_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    for source in (tmp_path / "a.jpg", *os.scandir(tmp_path)):
        with pytest.raises(ImageError, match=reason) as error:
            images.decode(source)
        assert str(error.value) == f"{tmp_path / 'a.jpg'}: {error.value.reason}"
        assert re.search(reason, error.value.reason)
        copy = pickle.loads(pickle.dumps(error.value))  # as from another process
        assert (type(copy), str(copy), copy.reason) == (ImageError, str(error.value), error.value.reason)


def test_photos_of_phones_are_refused_with_what_to_do(tmp_path: Path) -> None:
    """Whatever their names, which a server is not told, or which lie: many a HEIC file is called .jpg."""
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    (tmp_path / "a.jpg").write_bytes(heic)
    for source in (tmp_path / "a.jpg", heic):
        with pytest.raises(ImageError, match=r"WEBP: convert it to JPEG$"):
            images.decode(source)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no such file"):
        images.decode(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="is a folder, not a picture"):
        images.decode(tmp_path)


def test_a_long_path_is_none_of_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if it begins as the text of a BMP would."""
    monkeypatch.chdir(tmp_path)
    path = Path("Qk" + "a" * 97, "b" * 99, "c" * 99)
    path.parent.mkdir(parents=True)
    Image.fromarray(HALVES).save(path, "PNG")
    assert np.array_equal(images.decode(str(path)), HALVES)


@pytest.mark.skipif(os.name != "posix", reason="links to themselves")
def test_what_the_system_says_of_a_file_is_said_without_its_number(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("a.png")
    with pytest.raises(ReadError, match=r"a\.png: cannot be read \(Too many levels of symbolic links\)$"):
        images.decode(tmp_path / "a.png")


def test_without_memory_a_file_is_not_called_rotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object) -> None:
        raise MemoryError

    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "opened", full)
    with pytest.raises(ReadError, match=r"a\.png: there is not enough memory to decode it$"):
        images.decode(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_only_exif_turns_a_picture(kind: str) -> None:
    """XMP does not, as in browsers and in Node."""
    turned = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", turned.decode())
    settings = {"pnginfo": info} if kind == "PNG" else {"xmp": turned}
    encoded = saved(Image.fromarray(HALVES), kind, **settings)
    assert Image.open(io.BytesIO(encoded)).getexif()[0x0112] == 6
    assert images.decode(encoded).shape == HALVES.shape


def test_exif_behind_the_pixels_of_a_png_turns_it() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = saved(Image.fromarray(HALVES), exif=exif)
    start, end = encoded.index(b"eXIf") - 4, encoded.index(b"IEND") - 4
    size = len(encoded) - len(without(encoded, b"eXIf"))
    moved = encoded[:start] + encoded[start + size : end] + encoded[start : start + size] + encoded[end:]
    assert images.decode(moved).shape == images.decode(encoded).shape == (40, 20, 3)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize("rotten", [b"garbage", b"II*\0", b"MM\0*\0\0\0\x08"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_what_is_no_exif_turns_no_picture(kind: str, rotten: bytes) -> None:
    """As in browsers and in Node."""
    assert images.decode(saved(Image.fromarray(HALVES), kind, exif=b"Exif\0\0" + rotten)).shape == HALVES.shape


def test_a_picture_is_read_however_rotten_its_exif() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = saved(Image.fromarray(HALVES), "JPEG", exif=exif)
    at = encoded.index(b"Exif")
    generator = np.random.default_rng(0)
    for _ in range(1000):
        rotten = bytearray(encoded)
        for position in at + generator.integers(6, len(exif.tobytes()), 3):
            rotten[position] = int(generator.integers(256))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert images.decode(bytes(rotten)).size == HALVES.size


def test_a_cut_pillow_image_is_an_image_error() -> None:
    image = Image.open(io.BytesIO(saved(Image.effect_noise((99, 99), 50), "JPEG")[:-500]))
    with pytest.raises(ImageError, match="the picture: cannot be decoded"):
        images.decode(image)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(0, 0), (0, 3), (3, 0)])
def test_a_pillow_image_without_a_pixel_is_an_image_error(mode: str, size: tuple[int, int]) -> None:
    """As a crop beside the picture gives it."""
    with pytest.raises(ImageError, match=f"the picture: {size[0]} x {size[1]} pixels are no picture"):
        images.decode(Image.new(mode, size))


def test_a_bomb_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = saved(Image.fromarray(HALVES))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="40 x 20 pixels are more than the limit of 799"):
        images.decode(encoded, limit=799)
    monkeypatch.setattr(images, "MAX_SIDE", 39)
    with pytest.raises(ImageError, match="40 x 20 pixels: no side may be longer than 39"):
        images.decode(encoded)


def with_levels(width: int, height: int, highest: int) -> bytes:
    """A white PPM."""
    level = highest.to_bytes(1 if highest < 256 else 2, "big")
    return b"P6 %d %d %d\n" % (width, height, highest) + level * (3 * width * height)


def test_what_pillow_decodes_in_python_has_few_pixels() -> None:
    """Otherwise 16 KB, sent to a server, would keep all others waiting for half a minute."""
    limit = 256 * 1024 * 64
    assert not images.decode(run_length_encoded(1024, 64), limit).any()
    for highest in (15, 1023, 65535):
        assert (images.decode(with_levels(100, 10, highest)) == 255).all()
    with pytest.raises(ImageError, match="a run-length encoded BMP of more than 65,536 pixels is slow to read: save"):
        images.decode(run_length_encoded(1024, 65), limit)
    with pytest.raises(ImageError, match="a PPM or PGM whose levels do not end at 255 of more than 65,536 pixels"):
        images.decode(with_levels(1024, 65, 15), limit)
    assert (images.decode(with_levels(1024, 65, 255), limit) == 255).all()


def test_a_jpeg_of_scans_without_end_is_refused(tmp_path: Path) -> None:
    """A file of 20 MB could hold half a million of them, and each takes as long as the picture is large."""
    grey = saved(Image.new("L", (40, 20), 128), "JPEG", progressive=True)
    *rest, last = grey[:-2].split(b"\xff\xda")

    def of(scans: int) -> bytes:
        return b"\xff\xda".join([*rest, *[last] * (scans - len(rest) + 1)]) + grey[-2:]

    # What cameras put behind a picture, a film for one, holds the marker by chance.
    assert np.array_equal(images.decode(of(100) + b"\xff\xda" * 200), images.decode(grey))
    path = tmp_path / "a.jpg"
    path.write_bytes(of(101))
    for source in (path, of(101), Image.open(io.BytesIO(of(101)))):
        with pytest.raises(ImageError, match="a JPEG of more than 100 scans or pieces of EXIF"):
            images.decode(source)


def test_a_jpeg_of_exif_without_end_is_refused() -> None:
    """Of 20 MB Pillow puts together a million pieces, one after the other."""
    plain = saved(Image.fromarray(HALVES), "JPEG")
    piece = b"\xff\xe1\0\x0aExif\0\0II"
    assert images.decode(plain[:2] + 98 * piece + plain[2:]).shape == HALVES.shape
    with pytest.raises(ImageError, match="a JPEG of more than 100 scans or pieces of EXIF"):
        images.decode(plain[:2] + 100 * piece + plain[2:])


def beginning(form: str, part: bytes, end: bytes = b"", count: int = 60_000) -> bytes:
    """A picture of 4 x 4 pixels that has a part many times before them."""
    encoded = saved(Image.new("P" if form == "GIF" else "L", (4, 4)), form)
    at = {"JPEG": 2, "PNG": 33, "GIF": encoded.find(b",\0\0\0\0\4"), "PPM": 2}[form]
    return encoded[:at] + part * count + end + encoded[at:]


PARTS = {
    "empty segments": beginning("JPEG", b"\xff\xe5\0\2"),
    "padding": beginning("JPEG", b"\xff", count=200_000),
    "restarts": beginning("JPEG", b"\xff\xd0"),
    "private chunks": beginning("PNG", chunk(b"prVt", b"")),
    "no pixels": beginning("PNG", chunk(b"IDAT", b"")),
    "comments": beginning("GIF", b"!\xfe\2ab\0"),
    "a comment": beginning("GIF", b"\2ab", b"\0").replace(b"\2ab", b"!\xfe\2ab", 1),
    "spaces": beginning("PPM", b" ", count=200_000),
    "steps that go nowhere": run_length_encoded(8, 8)[:62] + b"\0\2\0\0" * 60_000,
}


@pytest.mark.parametrize("name", PARTS)
def test_a_file_of_parts_without_end_is_refused(name: str) -> None:
    """Of 20 MB of them Pillow would keep 700 MB, or work on them for half a minute and let nobody else."""
    with pytest.raises(ImageError, match="a file of so many small parts that reading it would take very long: save it"):
        images.decode(PARTS[name])


def test_a_large_file_may_have_many_parts() -> None:
    pixels = np.random.default_rng(0).integers(256, size=(400, 400, 3), dtype=np.uint8)
    packed = zlib.compress(b"".join(b"\0" + line.tobytes() for line in pixels))
    parts = [chunk(b"IDAT", packed[at : at + 100]) for at in range(0, len(packed), 100)]
    head = chunk(b"IHDR", bytes([0, 0, 1, 144, 0, 0, 1, 144, 8, 2, 0, 0, 0]))
    png = b"\x89PNG\r\n\x1a\n" + head + b"".join(parts) + chunk(b"IEND", b"")
    assert np.array_equal(images.decode(png), pixels)
    assert images.decode(beginning("JPEG", b"\xff\xe5\3\xe8" + bytes(998), count=400)).shape == (4, 4, 3)


def test_a_png_of_texts_without_end_is_refused() -> None:
    """Of 1 KB each unpacks to 1 MB, which Pillow counts where the text has a name alone."""
    text = chunk(b"zTXt", b"\0\0" + zlib.compress(bytes(1_000_000)))
    assert images.decode(beginning("PNG", text, count=100)).shape == (4, 4, 3)
    with pytest.raises(ImageError, match="a PNG of more than 100 texts and profiles, which would take very long"):
        images.decode(beginning("PNG", text, count=101))


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros(3, np.uint8)]
)
def test_arrays_of_another_kind_are_refused(array: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(ImageError, match=r"give uint8 of shape \(H, W, 3\) in RGB order"):
        images.decode(array)


def test_floating_point_and_32_bit_pixels_are_refused() -> None:
    for mode in ("F", "I"):
        with pytest.raises(ImageError, match="no fixed range"):
            images.decode(Image.new(mode, (2, 2), 70000))


def test_fingerprints_tell_pictures_and_shapes_apart() -> None:
    seen = {images.fingerprint(a) for a in (HALVES, HALVES[::-1], HALVES.reshape(40, 20, 3))}
    assert len(seen) == 3
    assert images.fingerprint(HALVES.copy()) in seen


@pytest.mark.parametrize("part", [1, 64 * 7, 64 * 25, 64 * 50])
def test_a_large_picture_is_copied_part_by_part(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(50, 64, 3), dtype=np.uint8)
    encoded = images.encode_png(pixels)
    monkeypatch.setattr(images, "_PART", part)
    assert np.array_equal(images.decode(encoded), pixels)


def test_a_large_picture_takes_little_more_than_its_pixels() -> None:
    image = Image.new("RGB", (1000, 1000))
    tracemalloc.start()
    try:
        images.decode(image)
        assert tracemalloc.get_traced_memory()[1] < 1.2 * 3 * 1000 * 1000
    finally:
        tracemalloc.stop()


def test_find_takes_files_folders_and_globs(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("b.png", "a.JPG", "in/c.webp", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "._b.png").write_bytes(b"what macOS puts beside a picture")
    assert find(tmp_path) == [tmp_path / "a.JPG", tmp_path / "b.png", tmp_path / "in/c.webp"]
    assert find(tmp_path / "*.png") == [tmp_path / "b.png"]
    assert find(tmp_path / "i*") == [tmp_path / "in/c.webp"]
    assert find(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]
    assert find(tmp_path / "*.txt") == [tmp_path / "notes.txt"]
    (tmp_path / "in" / "notes.txt").touch()
    (tmp_path / "in").rename(tmp_path / "in.d")
    assert find(tmp_path / "*.d") == [tmp_path / "in.d/c.webp"]
    (tmp_path / "in.d").rename(tmp_path / "in")
    everything = find(tmp_path)
    (tmp_path / "vacant").mkdir()
    for pattern in ("*", "**", "**/*"):  # each picture once, and an empty folder hides no other
        assert sorted(find(tmp_path / pattern)) == everything
    with pytest.raises(InputError, match="no file matches"):
        find(tmp_path / "*.gif")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no pictures in this folder"):
        find(tmp_path / "empty")
    with pytest.raises(InputError, match="an empty argument names no picture"):
        find("")


def test_paths_are_in_one_order_on_all_systems() -> None:
    paths = [PureWindowsPath("b/1.png"), PureWindowsPath("a/2.png"), PureWindowsPath("B/3.png")]
    assert sorted(paths) != folders.in_order(paths) == [paths[2], paths[1], paths[0]]


def test_what_is_found_is_in_that_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "B.png"):
        (tmp_path / name).touch()
    monkeypatch.setattr(PurePath, "__lt__", lambda a, b: str(a).lower() < str(b).lower())  # as on Windows
    for found in (find(tmp_path), find(tmp_path / "*.png"), folders.files(tmp_path)):
        assert [path.name for path in found] == ["B.png", "a.png"]


@pytest.mark.parametrize("text", ["https://a.b/c.png", "s3://bucket/c.png", "postgresql+psycopg2://me@host/name"])
def test_an_address_is_told_from_a_path(text: str) -> None:
    assert sources.is_address(text)
    for path in (f"photos/{text}", "C://photos/c.png", "C:/photos/c.png", "photos//c.png"):
        assert not sources.is_address(path)
        assert find(path) == [Path(path)]  # of which the decoder says that it is not there


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_pattern_that_goes_in_circles_finds_each_picture_once(tmp_path: Path) -> None:
    for name in ("a.png", "z.png"):
        (tmp_path / name).write_bytes(b"one and the same")
    (tmp_path / "self").symlink_to(".")
    (tmp_path / "link.png").symlink_to("a.png")
    assert find(tmp_path / "**") == find(tmp_path) == [tmp_path / name for name in ("a.png", "link.png", "z.png")]
    assert find(tmp_path / "self" / "z*") == [tmp_path / "self" / "z.png"]


def test_a_file_whose_name_looks_like_a_pattern_is_found(tmp_path: Path) -> None:
    (tmp_path / "photo[1].png").touch()
    assert find(tmp_path / "photo[1].png") == [tmp_path / "photo[1].png"]


def test_a_folder_that_cannot_be_read_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "private").mkdir(parents=True)
    (tmp_path / "a" / "1.png").touch()
    scan = os.scandir

    def refusing(path: str) -> object:
        if Path(path).name == "private":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    for look in (lambda: find(tmp_path), lambda: labelled(tmp_path, ["a"])):
        with pytest.raises(InputError, match=r"private cannot be read \(Permission denied\)$"):
            look()


@pytest.mark.skipif(os.name != "posix", reason="on Windows few people may make links")
def test_links_that_lead_nowhere_are_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / ".lock").symlink_to("nobody")
    assert folders.files(tmp_path) == [tmp_path / "gone.png"]
    (tmp_path / "LICENSE").symlink_to(__file__)  # which leads somewhere, but is no class
    assert folders.subfolders(tmp_path) == []
    for name in ("ship", "v1.5", "St. Bernard"):
        (tmp_path / name).symlink_to("/unmounted")
        with pytest.raises(
            InputError, match=f"{name} is a link that leads nowhere: mount its disk, or remove the link$"
        ):
            labelled(tmp_path, [name])
        (tmp_path / name).unlink()


@pytest.mark.skipif(os.name != "posix", reason="on Windows few people may make links")
def test_only_links_are_asked_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network drive each question takes up to a millisecond, and there may be a million photos."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").touch()
    (tmp_path / "2.png").touch()
    for link, target in (("b", "a"), ("3.png", "2.png"), ("4.png", "4.png")):
        (tmp_path / link).symlink_to(target)
    asked, look = [], os.stat

    def noted(path: str, **settings: bool) -> object:
        asked.append(os.path.basename(path))
        return look(path, **settings)

    monkeypatch.setattr(os, "stat", noted)
    assert folders.subfolders(tmp_path) == ["a", "b"]
    found = [str(path.relative_to(tmp_path)) for path in folders.files(tmp_path)]
    assert found == ["2.png", "3.png", "4.png", "a/1.png", "b/1.png"]
    assert {"1.png", "2.png"}.isdisjoint(asked)


def test_what_macos_keeps_in_folders_is_left_out(tmp_path: Path) -> None:
    for name in ("Icon\r", ".DS_Store", "a.png"):
        (tmp_path / name).touch()
    assert folders.files(tmp_path) == [tmp_path / "a.png"]


def test_a_file_that_may_not_be_looked_at_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a folder that may be listed but not entered: the decoder says why."""
    for name in ("1.png", "locked.png"):
        (tmp_path / name).touch()
    everything, look = find(tmp_path), os.stat

    def refusing(path: str, **settings: bool) -> object:
        if os.path.basename(path) == "locked.png":
            raise PermissionError(13, "Permission denied", str(path))
        return look(path, **settings)

    monkeypatch.setattr(os, "stat", refusing)
    assert [*find(tmp_path), *find(tmp_path / "locked.png")] == [*everything, tmp_path / "locked.png"]


def test_what_systems_leave_beside_pictures_is_none(tmp_path: Path) -> None:
    """But all of them may lie in a folder that is hidden."""
    root = tmp_path / ".mine" / "photos"
    junk = ("@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "a/@eaDir/4.png", "__MACOSX/5.png", "$RECYCLE.BIN/6.png")
    for name in ("a/1.png", "a/Thumbs.db", "a/.DS_Store", "a/.cache/2.png", ".git/3.png", *junk):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    assert labelled(root, ["a"]) == [(root / "a" / "1.png", 0)]


def test_what_commands_leave_where_they_are_started_is_no_class(tmp_path: Path) -> None:
    ours = ("runs/cnn/version_0/.lock", "report/report.html", "report/2.png", "comparison/comparison.json")
    for name in ("a/1.png", *ours):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert labelled(tmp_path, ["a"]) == [(tmp_path / "a" / "1.png", 0)]
    assert folders.subfolders(tmp_path) == ["a"]
    assert find(tmp_path) == [tmp_path / "a" / "1.png"]
    (tmp_path / "report" / "report.html").unlink()
    assert folders.subfolders(tmp_path) == ["a", "report"]


def test_16_bit_grey_takes_12_bytes_a_pixel_at_most() -> None:
    image = Image.fromarray(np.full((500, 500), 40_000, np.uint16))
    tracemalloc.start()
    try:
        images.decode(image)
        assert tracemalloc.get_traced_memory()[1] < 12.5 * 500 * 500
    finally:
        tracemalloc.stop()
