"""Reading files of torch.save: what they hold, what is wrong with them, and that nothing runs."""

import pickle
import struct
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


def content(form, wrap=lambda body: body, extra=b""):
    program = files.pickled(TENSORS, stream=form == "stream", wrap=wrap, extra=extra)
    return FORMATS[form](program, TENSORS)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_tensors_come_out_as_they_went_in(form, key, tmp_path):
    def filed(body):
        return b"}" + files.text("epoch") + b"K\x01s" + files.text(key) + body + b"s"

    path = write(tmp_path, content(form, filed if key else lambda body: body))
    found = read("read", path).tensors
    assert list(found) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor)


def test_views_of_one_storage(tmp_path):
    base = np.arange(12, dtype=np.float32)
    place = files.storage("0", "float32", 12)
    views = {
        "transposed": files.tensor(place, (4, 3), (1, 4)),
        "column": files.tensor(place, (3,), (4,), offset=2),
        "scalar": files.tensor(place, (), (), offset=11),
    }
    program = b"\x80\x02" + files.ordered(views) + files.STOP
    found = read("read", write(tmp_path, files.zipped(program, {"base": base}))).tensors
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
    np.testing.assert_array_equal(read("read", path).tensors["w"], [1, 2])


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
    with pytest.raises(JaxcamError) as caught:
        read("read", path)
    message = str(caught.value)
    assert "to be run, which was not done" in message or "damaged" in message, message
    assert not marker.exists()


@pytest.mark.parametrize("form", FORMATS)
def test_the_reader_s_own_stand_ins_cannot_be_changed(form, tmp_path):
    """BUILD sets attributes of whatever lies on the stack: of a function it would be for good."""
    rebuild = files.name("torch._utils", "_rebuild_tensor_v2")
    change = rebuild + b"(N}" + files.text("__defaults__") + b"NstbJ\x00\x00\x00\x000" + b"0"
    with pytest.raises(JaxcamError, match="damaged"):
        read("read", write(tmp_path, content(form, lambda body: change + body)))
    assert read("read", write(tmp_path, content(form))).tensors.keys() == TENSORS.keys()


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
        read("read", write(tmp_path, bytes_))


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
            found = read("read", write(tmp_path, bytes(broken))).tensors
        except JaxcamError:
            continue
        assert all(isinstance(tensor, np.ndarray) for tensor in found.values())


def test_numbers_that_were_changed_in_an_archive_are_noticed(tmp_path):
    whole = bytearray(content("zip"))
    at = whole.index(TENSORS["a.weight"].tobytes())
    whole[at] ^= 1
    with pytest.raises(JaxcamError, match="CRC"):
        read("read", write(tmp_path, bytes(whole)))


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


def test_an_archive_that_unpacks_to_more_than_it_is(tmp_path):
    program = files.pickled(TENSORS)
    path = write(tmp_path, files.zipped(program, TENSORS, zipfile.ZIP_DEFLATED))
    with pytest.raises(JaxcamError, match=r"not one of torch.save"):
        read("read", path)


def test_a_damaged_safetensors_file(tmp_path):
    import safetensors.numpy

    whole = safetensors.numpy.save({"w": np.ones(100, np.float32)})
    assert read("read", write(tmp_path, whole)).tensors["w"].sum() == 100
    for length in (20, len(whole) - 1):
        with pytest.raises(JaxcamError, match="damaged"):
            read("read", write(tmp_path, whole[:length]))
