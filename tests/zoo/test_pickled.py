"""Reading files of torch.save: what they hold, what is wrong with them, and that nothing runs."""

import copyreg
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile

import files
import numpy as np
import pytest

from jaxcam.errors import JaxcamError
from jaxcam.zoo.weights.files import read

RNG = np.random.default_rng(0)
TENSORS = {
    "a.weight": RNG.normal(size=(4, 3, 2, 2)).astype(np.float32),
    "a.num_batches_tracked": np.array(7),
    "b.bias": RNG.normal(size=5).astype(np.float16),
    "empty": np.zeros((0, 3), np.float32),
}
FORMATS = {"zip": files.zipped, "stream": files.streamed}


def write(tmp_path, content):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    return path


def arrays(path):
    """All that can be read of a file."""
    contents = read("read", path).contents
    return contents.read(contents.tensors)


def content(form, wrap=lambda body: body, extra=b""):
    program = files.pickled(TENSORS, stream=form == "stream", wrap=wrap, extra=extra)
    return FORMATS[form](program, TENSORS)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_tensors_come_out_as_they_went_in(form, key, tmp_path):
    def filed(body):
        return b"}" + files.text("epoch") + b"K\x01s" + files.text(key) + body + b"s"

    path = write(tmp_path, content(form, filed if key else lambda body: body))
    found, before = arrays(path), f"{key}." if key else ""
    assert list(found) == [f"{before}{name}" for name in TENSORS]
    for name, tensor in TENSORS.items():
        assert found[before + name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[before + name], tensor)


def test_views_of_one_storage(tmp_path):
    base = np.arange(12, dtype=np.float32)
    place = files.storage("0", "float32", 12)
    views = {
        "transposed": files.tensor(place, (4, 3), (1, 4)),
        "column": files.tensor(place, (3,), (4,), offset=2),
        "scalar": files.tensor(place, (), (), offset=11),
    }
    program = b"\x80\x02" + files.ordered(views) + files.STOP
    found = arrays(write(tmp_path, files.zipped(program, {"base": base})))
    np.testing.assert_array_equal(found["transposed"], base.reshape(3, 4).T)
    np.testing.assert_array_equal(found["column"], [2, 6, 10])
    assert found["scalar"] == 11


def test_parameters_are_tensors(tmp_path):
    place = files.storage("0", "float32", 2)
    tensor = files.tensor(place, (2,), (1,))
    hooks = files.called(files.name("collections", "OrderedDict"))
    rebuild = files.name("torch._utils", "_rebuild_parameter")
    parameter = files.called(rebuild, tensor, b"\x88", hooks)
    program = b"\x80\x02" + files.ordered({"w": parameter}) + files.STOP
    path = write(tmp_path, files.zipped(program, {"w": np.float32([1, 2])}))
    np.testing.assert_array_equal(arrays(path)["w"], [1, 2])


def payloads(marker):
    """Ways in which a pickle has code run, all of which leave a file if they work."""
    command = files.text(f"open({str(marker)!r}, 'w').close()")
    run, path = files.name("builtins", "exec"), files.text(str(marker))
    stacked = files.text("builtins") + files.text("exec") + b"\x93"
    return {
        "reduce": files.called(run, command),
        "stack global": files.called(stacked, command),
        "instance": b"(" + command + b"ibuiltins\nexec\n",
        "object": b"(" + run + command + b"o",
        "new object": files.name("pathlib", "Path") + b"(" + path + b"t\x81"
        + b"0" + files.called(files.name("pathlib", "Path.touch"), files.called(
            files.name("pathlib", "Path"), path)),
        "build": files.called(files.name("builtins", "eval"), files.text(
            f"open({str(marker)!r}, 'w').close()")),
    }  # fmt: skip


PAYLOADS = list(payloads(""))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_payloads_would_run_in_an_ordinary_unpickler(payload, tmp_path):
    marker = tmp_path / "ran"
    pickle.loads(b"\x80\x04" + payloads(marker)[payload] + files.STOP)
    assert marker.exists()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("where", ["alone", "before", "behind", "among the tensors"])
def test_nothing_is_executed(payload, where, form, tmp_path):
    marker = tmp_path / "ran"
    code = payloads(marker)[payload]
    wraps = {
        "alone": lambda body: code,
        "before": lambda body: code + b"0" + body,
        "behind": lambda body: body + code + b"0",
        "among the tensors": lambda body: b"}" + files.text("state_dict") + body + b"s"
        + files.text("arguments") + code + b"s",
    }  # fmt: skip
    path = write(tmp_path, content(form, wraps[where]))
    if where == "alone":
        with pytest.raises(JaxcamError, match="to be run, which was not done"):
            read("read", path)
    else:  # what is beside the tensors is passed over, and told
        assert read("read", path).contents.code[0].split(".")[0] in ("builtins", "pathlib")
        for found, tensor in zip(arrays(path).values(), TENSORS.values(), strict=True):
            np.testing.assert_array_equal(found, tensor)
    assert not marker.exists()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "names",
    [("torch._utils", "_rebuild_tensor_v2"), ("os", "system"), ("collections", "OrderedDict")],
)
def test_the_reader_s_own_stand_ins_cannot_be_changed(names, form, tmp_path):
    """BUILD sets attributes of whatever lies on the stack: of a function it would be for good."""
    change = (
        files.name(*names) + b"(N}" + files.text("__defaults__") + b"NstbJ\x00\x00\x00\x000" + b"0"
    )
    with pytest.raises(JaxcamError, match="damaged"):
        read("read", write(tmp_path, content(form, lambda body: change + body)))
    assert arrays(write(tmp_path, content(form))).keys() == TENSORS.keys()


def tensor_at(shape, strides, offset=0, size=6):
    place = files.storage("0", "float32", size)
    program = b"\x80\x02" + files.ordered({"w": files.tensor(place, shape, strides, offset)}) + b"."
    return files.zipped(program, {"w": np.zeros(6, np.float32)})


@pytest.mark.parametrize(
    "bytes_",
    [
        tensor_at((7,), (1,)),
        tensor_at((3,), (3,)),
        tensor_at((3,), (1,), offset=4),
        tensor_at((3,), (1,), offset=-1),
        tensor_at((3,), (-1,), offset=5),
        tensor_at((2**30,), (0,)),
        tensor_at((2,), (1, 1)),
        tensor_at((6,), (1,), size=7),
        tensor_at((5,), (1,), size=5),
        tensor_at((6,), (1,), size=2**30),
        tensor_at((-2, -3), (1, 1)),
    ],
)
def test_tensors_beyond_their_storage(bytes_, tmp_path):
    with pytest.raises(JaxcamError, match="damaged"):
        arrays(write(tmp_path, bytes_))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("memo", [b"r" + struct.pack("<I", 2**20), b"p1048576\n"])
def test_a_memo_longer_than_the_file_is_not_made(form, memo, tmp_path):
    """2**20 places of 8 bytes; with 2**32 the computer would stand still."""
    path = write(tmp_path, content(form, lambda body: body + memo))
    tracemalloc.start()
    with pytest.raises(JaxcamError, match="memo index 1048576 in a file of"):
        read("read", path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_cut_off_anywhere(form, tmp_path):
    whole = content(form)
    for length in {*range(1, len(whole), 41), len(whole) - 1}:
        with pytest.raises(JaxcamError, match=r"damaged|begins with|something else in it"):
            read("read", write(tmp_path, whole[:length]))


@pytest.mark.parametrize("form", FORMATS)
def test_a_damaged_file_is_refused_or_its_tensors_are_of_their_shapes(form, tmp_path):
    """Single bytes changed: no other kind of error, and nothing but arrays."""
    whole = content(form)
    for at in RNG.integers(len(whole), size=200):
        broken = bytearray(whole)
        broken[at] ^= int(RNG.integers(1, 256))
        try:
            found = arrays(write(tmp_path, bytes(broken)))
        except JaxcamError:
            continue
        assert all(isinstance(tensor, np.ndarray) for tensor in found.values())


def by_number(registered=0x7A3F):
    return b"\x83" + struct.pack("<H", registered)


def looped(depth: int) -> bytes:
    """Dictionaries that hold the one before twice, by a memo of two places."""
    twice = b"}" + files.text("a") + b"h\x00s" + files.text("b") + b"h\x00sq\x000"
    return b"}q\x000" + twice * depth + b"h\x00"


ATTACKS = {
    # Python looks such code up by itself, and keeps what it found.
    "code by its number": (by_number() + b"0", "code by its number"),
    "many names": (b"".join(files.name("m", f"n{i}") + b"0" for i in range(1001)), "names of code"),
    "dictionaries of dictionaries": (
        files.text("twice") + looped(30) + files.text("n") + b"u", "hold each other",
    ),
    "a storage of a class": (
        b"(" + files.text("storage") + files.name("os", "system") + files.text("0")
        + files.text("cpu") + files.number(1) + b"tQ0", "a storage of os.system",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ATTACKS)
def test_what_would_take_all_time_or_memory_or_a_name(what, tmp_path, monkeypatch):
    code, words = ATTACKS[what]
    monkeypatch.setattr("jaxcam.zoo.weights.tree.LETTERS", 10_000)
    monkeypatch.setitem(copyreg._inverted_registry, 0x7A3F, ("os", "system"))
    monkeypatch.setitem(copyreg._extension_cache, 0x7A3F, os.system)
    program = b"\x80\x02" + code + files.ordered({}) + files.STOP
    if what.startswith("dictionaries"):
        program = b"\x80\x02" + looped(30) + files.STOP
    with pytest.raises(JaxcamError, match=f"damaged.*{words}"):
        read("read", write(tmp_path, files.zipped(program, {})))


def test_a_dictionary_within_itself_and_one_whose_items_are_another_s(tmp_path):
    """BUILD gives an OrderedDict attributes; what it holds is what was put into it."""
    place = files.storage("0", "float32", 2)
    tensor = files.tensor(place, (2,), (1,))
    inner = files.called(files.name("collections", "OrderedDict"))
    inner += files.text("w") + tensor + b"s}" + files.text("items") + files.name("os", "popen")
    program = b"\x80\x02}q\x00" + files.text("me") + b"h\x00s"
    program += files.text("model") + inner + b"sbs" + files.STOP
    path = write(tmp_path, files.zipped(program, {"w": np.float32([1, 2])}))
    found = arrays(path)
    np.testing.assert_array_equal(found["model.w"], [1, 2])
    assert {name.removeprefix("me.") for name in found if "me." in name} >= {"model.w"}


def test_one_storage_read_as_two_types(tmp_path):
    """Numbers of 8 bytes at each of the bytes would reach beyond the end."""
    eights, bytes_ = files.storage("0", "float64", 4), files.storage("0", "int8", 32)
    views = {"a": files.tensor(eights, (4,), (1,)), "b": files.tensor(bytes_, (32,), (1,))}
    program = b"\x80\x02" + files.ordered(views) + files.STOP
    path = write(tmp_path, files.zipped(program, {"w": np.zeros(4)}))
    with pytest.raises(JaxcamError, match=r"damaged.*storage 0 with two types"):
        arrays(path)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"other/data.pkl": b""}, "other/ beside another of its kind"),
        ({"archive/data/0": bytes(4)}, "archive/data/0 beside another"),
        ({"archive/code/model.py": b"..."}, r"archive of TorchScript.*torch\.jit\.load"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_that_mean_two_things(more, words, tmp_path):
    path = write(tmp_path, files.made({"w": np.zeros(1, np.float32)}))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, bytes_ in more.items():
            archive.writestr(name, bytes_)
    with pytest.raises(JaxcamError, match=words):
        read("read", path)


def version_3(key: str, of: str, size: int) -> bytes:
    """Write a tensor of a type that has no storage of its own."""
    place = b"(" + files.text("storage") + files.name("torch.storage", "UntypedStorage")
    place += files.text(key) + files.text("cpu") + files.number(size) + b"tQ"
    hooks = files.called(files.name("collections", "OrderedDict"))
    more = files.row(size), files.row(1), b"\x89", hooks, files.name("torch", of)
    rebuild = files.name("torch._utils", "_rebuild_tensor_v3")
    return files.called(rebuild, place, files.number(0), *more)


def test_types_that_numpy_has_not_are_named(tmp_path):
    made = files.called(files.name("collections", "OrderedDict"))
    negated = files.tensor(files.storage("1", "float32", 3), (3,), (1,))[:-2]
    negated += b"}" + files.text("neg") + b"\x88stR"
    entries = {"small": version_3("0", "float8_e4m3fn", 3), "negated": negated}
    program = b"\x80\x02" + files.ordered(entries) + made + b"0" + files.STOP
    path = write(tmp_path, files.zipped(program, {"0": np.int8([0] * 3), "1": np.float32([0] * 3)}))
    found = read("read", path).contents.tensors
    assert found["small"] == ((3,), "float8_e4m3fn")
    assert found["negated"] == ((3,), "float32 whose signs are to be changed")
    for name in found:
        with pytest.raises(JaxcamError, match=f"numbers of {found[name].dtype}"):
            read("read", path).contents.read([name])


BESIDE = {
    "options": files.thing("argparse", "Namespace", lr=0.1),
    "date": files.called(files.name("datetime", "date"), files.text("07e8")),
    "path": files.called(files.name("pathlib", "PosixPath"), files.text("/")),
    "share": files.called(files.name("fractions", "Fraction"), files.text("1/3")),
    "list": files.name("omegaconf.listconfig", "ListConfig") + b")\x81" + files.number(3) + b"a",
    "own": files.thing("my.module", "Options"),
    "class": files.name("torch.optim", "SGD"),
    "best": files.called(
        files.name("numpy._core.multiarray", "scalar"),
        files.called(files.name("numpy", "dtype"), files.text("f8"), b"\x89", b"\x88")
        + b"(" + files.number(3) + files.text("<") + b"NNN" + files.number(-1) * 2
        + files.number(0) + b"tb",
        files.called(files.name("_codecs", "encode"), files.text("12345678"), files.text("latin1")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_tensor_is_passed_over_and_told(stream, tmp_path):
    settings = files.name("easydict", "EasyDict") + b")\x81"
    settings += files.text("w") + files.tree(np.ones(2, np.float32), {}, stream) + b"s"
    content = {"settings": settings, "w": np.ones(2, np.float32), "epoch": 3, "losses": [0.5, 0.4]}
    path = write(tmp_path, files.made(content | BESIDE, stream))
    contents = read("read", path).contents
    assert dict(contents.tensors) == dict.fromkeys(("settings.w", "w"), ((2,), "float32"))
    assert list(contents.others) == ["epoch", "losses", *BESIDE]
    assert contents.others["options"] == "argparse.Namespace"
    assert contents.others["class"] == "torch.optim.SGD"
    assert contents.others["epoch"] == ""
    assert {"argparse.Namespace", "numpy.dtype", "my.module.Options"} <= set(contents.code)
    assert not any(name.startswith(("omegaconf", "easydict", "my.")) for name in sys.modules)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "a dict with something else in it"),
        ({"state_dict": {}}, "a dict with something else in it"),
        ([], "a list with something else in it"),
        (np.ones(2, np.float32), "a tensor without a name"),
        (
            {"model": files.thing("my", "Net"), "epoch": 3},
            r"in it: model \(my\.Net\), epoch; it asks",
        ),
        (
            files.thing("torchvision.models.resnet", "ResNet"),
            r"resnet\.ResNet would make.*not done",
        ),
    ],
)
def test_no_tensor_that_has_a_name(content, words, tmp_path):
    with pytest.raises(JaxcamError, match=words):
        read("read", write(tmp_path, files.made(content)))


def test_numbers_that_were_changed_in_an_archive_are_noticed(tmp_path):
    whole = bytearray(content("zip"))
    at = whole.index(TENSORS["a.weight"].tobytes())
    whole[at] ^= 1
    with pytest.raises(JaxcamError, match="CRC"):
        arrays(write(tmp_path, bytes(whole)))


@pytest.mark.parametrize(
    ("bytes_", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "error page"),
        (b"version https://git-lfs.github.com/spec/v1", "pointer of Git LFS"),
        (pickle.dumps({"w": 1}), "begins with"),
        (files.zipped(b"\x80\x02K\x01.", {}), "a int with something else in it"),
        (files.zipped(b"\x80\x02}.", {}), "a dict with something else in it"),
    ],
)
def test_what_is_no_checkpoint(bytes_, words, tmp_path):
    with pytest.raises(JaxcamError, match=words):
        read("read", write(tmp_path, bytes_))


def test_an_archive_of_something_else(tmp_path):
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<w/>")
    with pytest.raises(JaxcamError, match=r"not one of torch.save"):
        read("read", path)


def test_an_archive_whose_table_says_that_something_begins_before_it(tmp_path):
    whole = bytearray(files.made({"w": np.ones(3, np.float32)}))
    end = whole.index(b"PK\x05\x06") + 16
    start = int.from_bytes(whole[end : end + 4], "little")
    whole[end : end + 4] = (start + 1000).to_bytes(4, "little")
    with pytest.raises(JaxcamError, match="damaged"):
        read("read", write(tmp_path, bytes(whole)))


def test_an_archive_that_unpacks_to_more_than_it_is(tmp_path):
    program = files.pickled(TENSORS)
    path = write(tmp_path, files.zipped(program, TENSORS, zipfile.ZIP_DEFLATED))
    with pytest.raises(JaxcamError, match=r"not one of torch.save"):
        read("read", path)


def test_a_damaged_safetensors_file(tmp_path):
    import safetensors.numpy

    whole = safetensors.numpy.save({"w": np.ones(100, np.float32)})
    assert arrays(write(tmp_path, whole))["w"].sum() == 100
    for length in (20, len(whole) - 1):
        with pytest.raises(JaxcamError, match="damaged"):
            read("read", write(tmp_path, whole[:length]))
