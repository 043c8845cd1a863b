"""A checkpoint from a file, a folder or the Hugging Face hub: what it holds, and what is beside it.

What a file is, its first bytes say and not its name. Several files are one checkpoint where an
index (``model.safetensors.index.json``) says which of them holds which tensor.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxcam.errors import fail
from jaxcam.zoo.weights import pickled
from jaxcam.zoo.weights.contents import Contents, together
from jaxcam.zoo.weights.safe import read_safetensors

HUB = "hf://"
_INDEX = ".index.json"
_NAMES = {  # in the order in which a folder is searched; and the files that an index is of
    "model.safetensors": (),
    f"model.safetensors{_INDEX}": ("model-*.safetensors",),
    "pytorch_model.bin": (),
    f"pytorch_model.bin{_INDEX}": ("pytorch_model-*.bin",),
}
_BESIDE = ("config.json", "preprocessor_config.json")


class Checkpoint(NamedTuple):
    """contents: what the file holds. config, processor: the JSON beside it, or empty.

    origin: what it was asked for by. digest: the file's SHA-256 in hexadecimal; of several files,
    that of their digests in a row. passed: checkpoints beside it in a folder, which were not read.
    """

    contents: Contents
    config: Mapping[str, Any]
    processor: Mapping[str, Any]
    origin: str
    digest: str
    passed: tuple[str, ...] = ()


def read(call: str, weights: str | Path) -> Checkpoint:
    """Read a file, a folder with a checkpoint in it, or ``"hf://owner/name"``."""
    text = str(weights)
    path = _from_hub(call, text) if text.startswith(HUB) else Path(weights).expanduser()
    passed: tuple[str, ...] = ()
    if path.is_dir():
        path, *others = _in_folder(call, path)
        passed = tuple(other.name for other in others)
    if not path.is_file():
        hub = re.fullmatch(r"[\w.-]+/[\w.-]+", text)
        fail(
            call,
            needs="a file, a folder, or hf://owner/name",
            got=f"{text}, which does not exist",
            remedy=f"For the Hugging Face hub write {HUB}{text}." if hub else "Check the path.",
        )
    if path.name.endswith(_INDEX):
        paths = _indexed(call, path)
        digest = hashlib.sha256("".join(map(_digest, paths)).encode()).hexdigest()
        contents = together([_contents(call, one) for one in paths])
    else:
        digest = _digest(path)
        _check_name(call, path, digest)
        contents = _contents(call, path)
    config, processor = (_json(call, path.parent / name) for name in _BESIDE)
    return Checkpoint(contents, config, processor, text, digest, passed)


def _contents(call: str, path: Path) -> Contents:
    with path.open("rb") as file:
        head = file.read(len(pickled.STREAM))
    if head.startswith(pickled.ZIP):
        return pickled.read_zip(call, path)
    if head == pickled.STREAM:
        return pickled.read_stream(call, path)
    if head[8:9] == b"{":
        return read_safetensors(call, path)
    fail(
        call,
        needs="a checkpoint, safetensors or of torch.save",
        got=f"{path.name}, which begins with {head!r}" if head else f"{path.name}, which is empty",
        remedy="Download it again; a file of a few hundred bytes is often an error page, or a "
        "pointer of Git LFS.",
    )


def _indexed(call: str, path: Path) -> list[Path]:
    """The files of which an index says where which tensor is: all are beside it, in full."""
    places = _json(call, path).get("weight_map")
    names = sorted(set(map(str, places.values()))) if isinstance(places, dict) else []
    wrong = [name for name in names if Path(name).name != name or name.endswith(_INDEX)]
    missing = [name for name in names if not (path.parent / name).is_file()]
    if wrong or missing or not names:
        fail(
            call,
            needs=f"the files that {path.name} names, beside it",
            got=f"{(wrong or missing)[0]}, which is not there" if names else "none named in it",
            remedy="Download the whole folder.",
        )
    return [path.parent / name for name in names]


def _from_hub(call: str, name: str) -> Path:
    """The local copy of a repository's checkpoint, downloaded unless it is there."""
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name)
    if match is None:
        fail(
            call,
            needs="hf://owner/name or hf://owner/name@revision",
            got=name,
            remedy="Copy the name from the top of the repository's page.",
        )
    try:
        import huggingface_hub
    except ImportError:
        fail(
            call,
            needs="the library huggingface_hub for this name",
            got="an environment without it",
            remedy="pip install 'jaxcam-xai[zoo]', or download the files and pass their folder.",
        )
    repository, revision = match.groups()
    folder = Path()
    for checkpoint, shards in _NAMES.items():  # each only where there is none before it
        try:
            wanted = [checkpoint, *shards, *_BESIDE]
            folder = Path(
                huggingface_hub.snapshot_download(
                    repository, revision=revision, allow_patterns=wanted
                )
            )
        except (OSError, ValueError) as error:
            fail(
                call,
                needs="a repository that the Hugging Face hub hands out, or has handed out before",
                got=f"{type(error).__name__}: {str(error).splitlines()[0]}",
                remedy="Check the name and the connection; for what is not public, log in by "
                "'hf auth login'.",
            )
        if (folder / checkpoint).is_file():
            break
    return folder


def _in_folder(call: str, folder: Path) -> list[Path]:
    """The checkpoints in a folder, the one to read first."""
    if files := [folder / name for name in _NAMES if (folder / name).is_file()]:
        return files
    known = [name for name in _NAMES if not name.endswith(_INDEX)]
    fail(
        call,
        needs=f"{' or '.join(known)} in the folder",
        got=", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "an empty one",
        remedy="Pass the file itself.",
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_name(call: str, path: Path, digest: str) -> None:
    """As torch has it, ``resnet50-0676ba61.pth`` begins with these digits in SHA-256."""
    promise = re.fullmatch(r".+-([0-9a-f]{8})\.pth", path.name)
    if promise and not digest.startswith(promise[1]):
        fail(
            call,
            needs=f"a file whose SHA-256 begins with {promise[1]}, as its name says",
            got=f"{path.name}, whose begins with {digest[:8]}",
            remedy="Download it again; rename it if it is meant to be another.",
        )


def _json(call: str, path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        content = error
    if not isinstance(content, dict):
        fail(
            call,
            needs=f"an object of JSON in {path.name}, beside the checkpoint",
            got=str(content)[:80],
            remedy="Download it again, or move it away.",
        )
    return content
