"""Checkpoints into networks: every tensor once, in any naming and format, or a clear error."""

import json
import re
from pathlib import Path

import files
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tiny
from flax import nnx

from jaxcam import zoo
from jaxcam.errors import JaxcamError

CASES = [(name, naming) for name in tiny.MAKE for naming in tiny.FULL[name].namings]
# Names that the libraries' own files have, as a check of more than self-consistency.
KNOWN = {
    "resnet18, transformers": "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight",
    "resnet50, transformers": "resnet.encoder.stages.3.layers.0.layer.2.normalization.running_var",
    "resnet50, torchvision and timm": "layer2.0.downsample.1.running_mean",
    "vgg16, timm": "pre_logits.fc2.weight",
    "densenet121, torchvision, published": "features.denseblock2.denselayer2.conv.1.weight",
    "densenet121, torchvision and timm": "features.transition1.norm.running_mean",
    "mobilenet_v3_large, timm": "blocks.4.1.se.conv_expand.bias",
    "mobilenet_v3_large, torchvision": "features.1.block.1.0.weight",
    "efficientnet_b0, timm": "blocks.0.0.bn2.running_var",
    "efficientnet_b0, torchvision": "features.1.0.block.1.fc2.weight",
    "convnext_tiny, torchvision": "features.5.1.block.5.weight",
    "convnext_tiny, timm": "stages.2.blocks.1.mlp.fc2.weight",
    "convnext_tiny, transformers": "convnext.encoder.stages.2.layers.1.layer_scale_parameter",
    "vit_b_16, torchvision": "encoder.layers.encoder_layer_1.self_attention.in_proj_weight",
    "vit_b_16, torchvision, published": "encoder.layers.encoder_layer_1.mlp.linear_2.bias",
    "vit_b_16, timm": "blocks.1.attn.qkv.bias",
    "vit_b_16, transformers": "vit.encoder.layer.1.attention.attention.key.weight",
    "deit_small_patch16_224, timm": "blocks.0.mlp.fc1.weight",
    "deit_small_patch16_224, transformers": "vit.encoder.layer.0.attention.output.dense.bias",
}


@pytest.fixture(autouse=True)
def _tiny_networks(monkeypatch):
    tiny.register(monkeypatch)


def save(path: Path, tensors, config=None, processor=None) -> Path:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".safetensors":
        safetensors.numpy.save_file(tensors, path)
    else:
        path.write_bytes((files.old_pth if "old" in path.stem else files.pth)(tensors))
    for name, content in {"config": config, "preprocessor_config": processor}.items():
        if content is not None:
            (path.parent / f"{name}.json").write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "naming", "file"),
    [(*case, "model.safetensors") for case in CASES]
    + [("resnet18", "transformers", file) for file in ("model.pth", "old.pth", "misnamed.bin")],
)
def test_a_file_in_any_format_and_naming(name, naming, file, tmp_path):
    model = tiny.network(name)
    tensors = tiny.tensors(model, name, naming)
    assert KNOWN.get(f"{name}, {naming}", next(iter(tensors))) in tensors
    loaded, card = zoo.load(f"tiny_{name}", save(tmp_path / file, tensors))
    state = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
    found = nnx.state(loaded, nnx.Any(nnx.Param, nnx.BatchStat))
    jax.tree.map(np.testing.assert_array_equal, found, state)
    assert (card.architecture, card.naming) == (f"tiny_{name}", naming)
    assert card.class_names is None
    assert "default" in card.preprocessing_from


def test_a_convolution_over_everything_is_a_dense_layer_over_everything_flattened(tmp_path):
    model = tiny.network("vgg16")
    tensors = tiny.tensors(model, "vgg16", "timm")
    tensors["pre_logits.fc1.weight"] = tensors["pre_logits.fc1.weight"].reshape(16, 8, 7, 7)
    loaded, _ = zoo.load("tiny_vgg16", save(tmp_path / "m.safetensors", tensors))
    np.testing.assert_array_equal(loaded.classifier[0].kernel[...], model.classifier[0].kernel[...])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("file", ["model.safetensors", "model.pth"])
def test_other_precisions_become_float32(dtype, file, tmp_path):
    tensors = tiny.tensors(tiny.network("resnet18"), "resnet18", "torchvision and timm")
    cast = {k: v.astype(dtype) if v.dtype == np.float32 else v for k, v in tensors.items()}
    model, _ = zoo.load("tiny_resnet18", save(tmp_path / file, cast))
    expected = tensors["fc.weight"].astype(dtype).astype(np.float32).T
    np.testing.assert_array_equal(model.fc.kernel[...], expected)


def altered(change):
    tensors = tiny.tensors(tiny.network("resnet18"), "resnet18", "torchvision and timm")
    change(tensors)
    return tensors


def nan(tensors):
    tensors["layer3.0.conv1.weight"][0, 0, 0, 0] = np.nan


def negative(tensors):
    tensors["bn1.running_var"][0] = -1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("layer2.0.bn2.bias"), ["1 missing (layer2.0.bn2.bias)"]),
        (lambda t: t.pop("fc.weight"), ["1 missing (fc.weight)", "They fit none"]),
        (lambda t: t.update(extra=np.ones(3)), ["1 left over (extra)"]),
        (
            lambda t: t.update({"conv1.weight": np.ones((8, 3, 5, 5))}),
            ["1 of another shape (conv1.weight: [8, 3, 5, 5], not [8, 3, 7, 7])"],
        ),
        (
            lambda t: t.update({"fc.weight": np.ascontiguousarray(t["fc.weight"].T)}),
            ["2 of another shape (fc.bias: [5], not [64], fc.weight: [64, 5], not [64, 64])"],
        ),
        (nan, ["NaN or infinity in layer3.0.conv1.weight, 1 times"]),
        (negative, ["variances of 0 or more", "bn1.running_var"]),
        (
            lambda t: t.update({"fc.bias": np.ones(5, np.int64)}),
            ["floating weights", "fc.bias of int64"],
        ),
        (
            lambda t: t.clear() or t.update(x=np.ones(1)),
            ["62 missing (bn1.bias, ", " and 56 more)", "1 left over (x)"],
        ),
    ],
)
@pytest.mark.parametrize("file", ["model.safetensors", "model.pth"])
def test_every_tensor_must_be_used_and_right(change, words, file, tmp_path):
    path = save(tmp_path / file, altered(change))
    with pytest.raises(JaxcamError) as caught:
        zoo.load("tiny_resnet18", path)
    message = str(caught.value)
    assert all(word in message for word in ["zoo.load('tiny_resnet18'", *words]), message


@pytest.mark.parametrize("before", ["", "module."])
def test_another_network_s_checkpoint_is_recognised(before, tmp_path):
    tensors = tiny.tensors(tiny.network("convnext_tiny"), "convnext_tiny", "timm")
    path = save(tmp_path / "model.safetensors", behind(before, tensors))
    with pytest.raises(JaxcamError, match=r"those of tiny_convnext_tiny: load it by that name"):
        zoo.load("tiny_resnet50", path)


# what wraps a network's tensors, and what is beside them


def plain(name: str = "resnet18", added: float = 0) -> dict[str, np.ndarray]:
    naming = next(iter(tiny.FULL[name].namings))
    tensors = tiny.tensors(tiny.network(name), name, naming)
    return {k: v + np.float32(added) if v.dtype == np.float32 else v for k, v in tensors.items()}


def behind(path: str, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {path + name: tensor for name, tensor in tensors.items()}


SOME = np.ones(3, np.float32)
OPTIMIZER = {"state": {0: {"step": 3, "exp_avg": SOME}, 1: {"exp_avg": SOME}}, "lr": [0.1]}
WRAPPED = {
    "nothing": (lambda own: own, "", ()),
    "DataParallel": (lambda own: behind("module.", own), "module", ()),
    "torch.compile within it": (
        lambda own: behind("module._orig_mod.", own), "module._orig_mod", (),
    ),
    "Lightning": (
        lambda own: {"state_dict": behind("model.", own) | {"criterion.weight": SOME}, "epoch": 3,
                     "hyper_parameters": files.thing("lightning", "AttributeDict", lr=0.1)},
        "state_dict.model",
        ("state_dict.criterion (a tensor)", "epoch", "hyper_parameters (lightning.AttributeDict)",
         "code that was not run (lightning.AttributeDict)"),
    ),
    "a script": (
        lambda own: {"model_state_dict": own, "optimizer": OPTIMIZER, "loss": 0.3},
        "model_state_dict", ("optimizer (2 tensors)", "loss"),
    ),
    "DETR": (
        lambda own: {"model": own, "args": files.thing("argparse", "Namespace", lr=0.1)},
        "model", ("args (argparse.Namespace)", "code that was not run (argparse.Namespace)"),
    ),
    "a name in a name": (lambda own: {"model": {"state_dict": own}}, "model.state_dict", ()),
    "any name": (lambda own: {"net": own, "best": {}}, "net", ()),
    "a list": (lambda own: [own, {"lr": 0.1}, 3], "0", ("1",)),
    "averages alone": (
        lambda own: {"n_averaged": np.array(3)} | behind("module.", own), "module",
        ("n_averaged (a tensor)",),
    ),
    "a part of a pair": (
        lambda own: behind("visual.", own) | {"logit_scale": SOME, "text.weight": SOME}, "visual",
        ("logit_scale (a tensor)", "text (a tensor)"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRAPPED)
@pytest.mark.parametrize("stream", [False, True])
def test_what_wraps_a_network_is_taken_off_and_told(what, stream, tmp_path):
    wrap, part, beside = WRAPPED[what]
    path = tmp_path / "Größe 模型.pth"
    path.write_bytes(files.made(wrap(plain()), stream))
    card, load = zoo.describe("tiny_resnet18", path)
    assert (card.part, card.beside, card.classes) == (part, beside, tiny.CLASSES)
    if what in ("nothing", "Lightning"):
        np.testing.assert_array_equal(load().fc.bias[...], plain()["fc.bias"])


def test_what_wraps_names_in_safetensors(tmp_path):
    tensors = behind("backbone.", plain()) | {"logit_scale": np.array(3, np.float32)}
    model, card = zoo.load("tiny_resnet18", save(tmp_path / "model.safetensors", tensors))
    assert (card.part, card.beside) == ("backbone", ("logit_scale (a tensor)",))
    np.testing.assert_array_equal(model.fc.bias[...], plain()["fc.bias"])


SEVERAL = {
    "an average": (lambda a, b: {"state_dict": a, "state_dict_ema": b}, "state_dict_ema"),
    "teachers": (
        lambda a, b: {"student": behind("module.", a), "teacher": behind("module.", b)}, "teacher",
    ),
    "prefixes": (lambda a, b: behind("student.", a) | behind("teacher.", b), "teacher."),
    "within": (lambda a, b: behind("ema.", a) | b, ""),
    "around": (lambda a, b: a | behind("ema.", b), "ema"),
    "one with more": (lambda a, b: {"model": a | {"fc_aux.bias": SOME}, "ema": b}, "ema"),
}  # fmt: skip


@pytest.mark.parametrize("what", SEVERAL)
def test_of_several_sets_of_weights_the_user_chooses_one(what, tmp_path):
    wrap, part = SEVERAL[what]
    path = tmp_path / "model.pth"
    path.write_bytes(files.made(wrap(plain(), plain(added=1))))
    with pytest.raises(JaxcamError, match=r"one set of the .* got 2 in the .* --part") as caught:
        zoo.load("tiny_resnet18", path)
    offered = re.findall(r"part='(.*?)'", str(caught.value))
    assert len(offered) == 2
    for one in offered:  # what an error offers can be done
        assert what == "one with more" or zoo.describe("tiny_resnet18", path, part=one)
    card, load = zoo.describe("tiny_resnet18", path, part=part)
    np.testing.assert_array_equal(load().fc.bias[...], plain()["fc.bias"] + 1)
    assert card.part in offered
    assert len(card.beside) == (1 if what != "around" else len({n.split(".")[0] for n in plain()}))


def test_an_optimizer_s_tensors_by_the_same_names_are_a_set_too(tmp_path):
    """A network without statistics has as many: nothing tells them apart but their name."""
    own = plain("convnext_tiny")
    path = tmp_path / "model.pth"
    path.write_bytes(files.made({"optimizer": {"exp_avg": plain("convnext_tiny", 1)}, "net": own}))
    with pytest.raises(JaxcamError, match=r"got 2 in the checkpoint: 'optimizer.exp_avg', 'net'"):
        zoo.load("tiny_convnext_tiny", path)
    _, card = zoo.load("tiny_convnext_tiny", path, part="net")
    assert card.beside == (f"optimizer ({len(own)} tensors)",)


def half(own: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = list(own)
    return {("module." if n in names[::2] else "") + n: tensor for n, tensor in own.items()}


def changed(name: str, tensor) -> dict[str, np.ndarray]:
    return plain() | {name: tensor}


@pytest.mark.parametrize(
    ("content", "part", "words"),
    [
        (lambda: {"model": plain() | {"fc_aux.bias": SOME}}, None,
         r"1 left over \(fc_aux.bias\); all of them behind 'model', beside nothing\."),
        (lambda: half(plain()), None, r"\d+ missing .* fit none"),
        (lambda: {"state_dict": plain(), "epoch": 3}, "ema",
         r"got 'ema', which no tensor's name begins with\. They begin with state_dict\."),
        (lambda: {"state": behind("encoder.", {n: t for n, t in plain().items() if "fc" not in n})
                  | {"head.weight": SOME}}, None,
         r"2 missing \(fc.bias, fc.weight\); all of them behind 'state.encoder', beside "
         r"state.head \(a tensor\)"),
        (lambda: changed("fc.weight", files.called(
            files.name("torch._utils", "_rebuild_sparse_tensor"), files.text("coo"))), None,
         r"1 missing \(fc.weight, which torch._utils._rebuild_sparse_tensor would make\)"),
        (lambda: changed("fc.bias", np.ones(5, np.int8)), None, "16 bits or more; got fc.bias of"),
    ],
)  # fmt: skip
def test_a_part_must_be_whole_and_nothing_more(content, part, words, tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(files.made(content()))
    with pytest.raises(JaxcamError, match=words):
        zoo.load("tiny_resnet18", path, part=part)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_numbers_of_8_bits_are_refused_as_quantised(dtype, tmp_path):
    path = save(tmp_path / "model.safetensors", changed("fc.weight", np.ones((5, 64), np.int8)))
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    head = content[8:end].replace(b'"I8"', f'"{dtype}"'.encode())
    path.write_bytes(len(head).to_bytes(8, "little") + head + content[end:])
    with pytest.raises(JaxcamError, match=r"16 bits or more; got fc.weight of float8_e.*Quantised"):
        zoo.load("tiny_resnet18", path)


# several files


def sharded(folder: Path, suffix: str = ".safetensors") -> Path:
    """Write a checkpoint in two files, with the index that transformers writes."""
    tensors = plain()
    names = list(tensors)
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    places = {}
    for number in (1, 2):
        file = f"{stem}-0000{number}-of-00002{suffix}"
        own = {name: tensors[name] for name in names[number - 1 :: 2]}
        save(folder / file, own)
        places |= dict.fromkeys(own, file)
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_several_files_by_their_index(suffix, tmp_path):
    index = sharded(tmp_path / "folder", suffix)
    for place in (index, index.parent):
        model, card = zoo.load("tiny_resnet18", place)
        np.testing.assert_array_equal(model.fc.bias[...], plain()["fc.bias"])
        assert card.beside == ()
    one, other = sorted(index.parent.glob(f"*{suffix}"))
    with pytest.raises(JaxcamError, match="The file is one of several: pass their folder"):
        zoo.load("tiny_resnet18", one)
    save(other, {"fc.bias": plain()["fc.bias"]})
    with pytest.raises(JaxcamError, match="missing"):
        zoo.load("tiny_resnet18", index)
    other.unlink()
    with pytest.raises(JaxcamError, match=r"beside it; got .*2-of-00002.*, which is not there"):
        zoo.load("tiny_resnet18", index)
    secret = save(tmp_path / f"secret{suffix}", plain()).name  # an index reaches no other folder
    for wrong in ({"weight_map": {"x": f"../{secret}"}}, {"weight_map": []}, {}):
        index.write_text(json.dumps(wrong))
        with pytest.raises(JaxcamError, match=r"needs the files that .* names, beside it"):
            zoo.load("tiny_resnet18", index)


def test_a_folder_with_the_same_twice_says_which_was_not_read(tmp_path):
    folder = save(tmp_path / "both" / "model.safetensors", plain()).parent
    save(folder / "pytorch_model.bin", plain(added=1))
    model, card = zoo.load("tiny_resnet18", folder)
    np.testing.assert_array_equal(model.fc.bias[...], plain()["fc.bias"])
    assert card.beside == ("pytorch_model.bin (a file)",)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architecture": "resnet18_gelu"}, ["architecture 'resnet18'", "'resnet18_gelu'"]),
        ({"architecture": "resnet50"}, ["'resnet50'", "In the zoo it is that of tiny_resnet50"]),
        ({"hidden_act": "gelu"}, ["hidden_act 'relu'", "'gelu'"]),
        ({"downsample_in_bottleneck": True}, ["downsample_in_bottleneck False", "True"]),
        ({"model_args": {"act_layer": "gelu"}}, ["model_args.act_layer left out", "'gelu'"]),
    ],
)
def test_the_same_tensors_of_a_network_that_computes_something_else(config, words, tmp_path):
    path = save(tmp_path / "model.safetensors", altered(lambda t: None), config)
    with pytest.raises(JaxcamError) as caught:
        zoo.load("tiny_resnet18", path)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v3_large"])
@pytest.mark.parametrize("config", [{"architecture": "tf_{}"}, {"model_type": "efficientnet"}])
def test_networks_that_pad_as_tensorflow_does(name, config, tmp_path):
    config = {key: value.format(name) for key, value in config.items()}
    tensors = tiny.tensors(tiny.network(name), name, "timm")
    path = save(tmp_path / "model.safetensors", tensors, config)
    with pytest.raises(JaxcamError, match="The zoo does not have that network"):
        zoo.load(f"tiny_{name}", path)
    alone = save(tmp_path / "alone" / f"tf_{name}-a.pth", tensors)
    with pytest.raises(JaxcamError, match=f"tf_{name}-a.pth: timm begins names with tf_"):
        zoo.load(f"tiny_{name}", alone)


@pytest.mark.parametrize(
    ("name", "naming", "epsilons"),
    [
        ("mobilenet_v3_large", "torchvision", {1e-3}),
        ("mobilenet_v3_large", "timm", {1e-5}),
        ("convnext_tiny", "timm", {1e-6}),
        ("convnext_tiny", "transformers", {1e-6, 1e-12}),
        ("vit_b_16", "torchvision", {1e-6}),
        ("vit_b_16", "transformers", {1e-12}),
        ("deit_small_patch16_224", "transformers", {1e-12}),
    ],
)
def test_each_collection_has_its_own_constants(name, naming, epsilons, tmp_path):
    tensors = tiny.tensors(tiny.network(name), name, naming)
    loaded, _ = zoo.load(f"tiny_{name}", save(tmp_path / "m.safetensors", tensors))
    kinds = nnx.BatchNorm, nnx.LayerNorm
    norms = [module for _, module in nnx.iter_modules(loaded) if isinstance(module, kinds)]
    assert {norm.epsilon for norm in norms} == epsilons


def test_a_folder_and_the_hub_bring_what_stands_beside(tmp_path, monkeypatch):
    labels = {str(index): f"bird {index}" for index in range(tiny.CLASSES)}
    how = {"crop_pct": 0.875, "size": {"shortest_edge": 64}, "resample": 3,
           "image_mean": [0.5] * 3, "image_std": [0.25] * 3,
           "image_processor_type": "ConvNextImageProcessor"}  # fmt: skip
    folder = tmp_path / "snapshot"
    path = save(folder / "model.safetensors", altered(lambda t: None), {"id2label": labels}, how)
    asked = []

    def snapshot_download(repository, *, revision, allow_patterns):
        asked.append((repository, revision, allow_patterns[0]))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    for weights in (path, folder, str(folder), "hf://someone/birds@v1"):
        _, card = zoo.load("tiny_resnet18", weights)
        assert card.class_names == tuple(labels.values())
        half, quarter = (0.5,) * 3, (0.25,) * 3
        assert card.preprocessing == (73, (64, 64), "bicubic", half, quarter)
        assert card.preprocessing_from == "preprocessor_config.json"
        assert card.weights == str(weights)
    assert asked == [("someone/birds", "v1", "model.safetensors")]


def test_wrong_places(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    for weights, words in {
        "microsoft/resnet-18": "For the Hugging Face hub write hf://microsoft/resnet-18",
        tmp_path / "none.pth": "does not exist. Check the path",
        tmp_path: "model.safetensors or pytorch_model.bin in the folder; got an empty one",
        "hf://resnet": "needs hf://owner/name",
        "hf://someone/birds": "OSError: no route to host",
    }.items():
        with pytest.raises(JaxcamError, match=words):
            zoo.load("tiny_resnet18", weights)


def test_a_file_that_is_not_what_its_name_promises(tmp_path):
    with pytest.raises(JaxcamError, match=r"SHA-256 begins with f37072fd.*got resnet18-f37072fd"):
        zoo.load("tiny_resnet18", save(tmp_path / "resnet18-f37072fd.pth", {"x": np.ones(3)}))


def test_loading_draws_nothing_and_training_goes_on_from_it(tmp_path):
    """Dropout's streams, which no file holds, are there and differ from layer to layer."""
    model = tiny.network("convnext_tiny")
    path = save(tmp_path / "m.pth", tiny.tensors(model, "convnext_tiny", "timm"))
    loaded, _ = zoo.load("tiny_convnext_tiny", path)
    streams = [loaded.features[i][0].stochastic_depth.rngs for i in (3, 7)]
    assert streams[0]() != streams[1]()
    assert streams[0]() != streams[0]()
