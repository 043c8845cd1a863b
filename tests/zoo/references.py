"""The networks as PyTorch libraries have them, with random weights, and their files.

Imported by tests of the mark ``parity`` alone: it needs torch, torchvision, timm and transformers.
"""

import importlib.util
from pathlib import Path
from typing import Any

import torch

if importlib.util.find_spec("torchvision"):
    # PyPI's torchvision is compiled for CUDA: beside a CPU torch its operators are missing, and
    # importing it fails where it describes the shapes of two of them, which no network here uses.
    operators = torch.library.Library("torchvision", "DEF")
    try:
        import torchvision
    except RuntimeError:
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm
import torchvision
import transformers

WIDTHS = {"vit_b_16": 768, "deit_small_patch16_224": 384}
# Of norms: small where branches are added up, and larger where layers follow each other, or biases
# would drown the picture.
SCALES = {
    "vgg16_bn": (0.8, 1.6),
    "densenet121": (0.8, 1.6),
    "efficientnet_b0": (0.8, 1.2),
    "mobilenet_v3_large": (0.5, 1.2),
}


def network(library: str, name: str, classes: int) -> torch.nn.Module:
    """Make a reference network with random weights and statistics, in evaluation mode."""
    torch.manual_seed(0)
    model = {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}[library](
        name, classes
    )
    with torch.no_grad():
        for part, tensor in model.state_dict().items():
            _randomise(part, tensor, SCALES.get(name, (0.3, 0.9)))
    return model.eval()


def logits(model: torch.nn.Module, x: Any) -> Any:
    """Run a network on ``[batch, height, width, 3]``."""
    with torch.no_grad():
        output = model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    return getattr(output, "logits", output).numpy()


def saved(library: str, model: torch.nn.Module, name: str, folder: Path) -> Path:
    """Write a checkpoint as the library does, and what it puts beside it."""
    if library == "torchvision":
        torch.save(model.state_dict(), folder / f"{name}.pth")
        return folder / f"{name}.pth"
    if library == "timm":
        timm.models.save_for_hf(model, folder, safe_serialization=True)
    else:
        model.save_pretrained(folder)
        transformers.ConvNextImageProcessor().save_pretrained(folder)
    return folder


def read_by_torchvision(name: str, model: torch.nn.Module, state: dict[str, Any]) -> None:
    """Give a network tensors of a published file as torchvision does, with all its renaming.

    The network's own are lost first, so that nothing that was not read stays.
    """
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    if name == "densenet121":

        class Published:
            def get_state_dict(self, **_: Any) -> dict[str, Any]:
                return state | {k: v for k, v in model.state_dict().items() if "num_b" in k}

        torchvision.models.densenet._load_state_dict(model, Published(), progress=False)
    else:
        model.load_state_dict(state)


def prepared(library: str, model: torch.nn.Module, folder: Path, picture: Any) -> Any:
    """Prepare a picture as the library does that wrote the folder: ``[height, width, 3]``."""
    if library == "timm":
        how = timm.data.resolve_model_data_config(model)
        return timm.data.create_transform(**how)(picture).permute(1, 2, 0).numpy()
    processor = transformers.ConvNextImageProcessor.from_pretrained(folder)
    pixels = processor(picture, return_tensors="pt")["pixel_values"][0]
    return pixels.permute(1, 2, 0).numpy()


def _torchvision(name: str, classes: int) -> torch.nn.Module:
    return torchvision.models.get_model(name, num_classes=classes)


def _timm(name: str, classes: int) -> torch.nn.Module:
    theirs = {"vit_b_16": "vit_base_patch16_224", "mobilenet_v3_large": "mobilenetv3_large_100"}
    return timm.create_model(theirs.get(name, name), num_classes=classes)


def _transformers(name: str, classes: int) -> torch.nn.Module:
    if name == "convnext_tiny":
        config = transformers.ConvNextConfig(num_labels=classes)
        return transformers.ConvNextForImageClassification(config)
    if name in WIDTHS:
        width = WIDTHS[name]
        config = transformers.ViTConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_attention_heads=width // 64,
            num_labels=classes,
        )
        return transformers.ViTForImageClassification(config)
    basic = name == "resnet18"
    config = transformers.ResNetConfig(
        layer_type="basic" if basic else "bottleneck",
        depths={"resnet18": [2, 2, 2, 2], "resnet50": [3, 4, 6, 3], "resnet101": [3, 4, 23, 3]}[
            name
        ],
        hidden_sizes=[64, 128, 256, 512] if basic else [256, 512, 1024, 2048],
        num_labels=classes,
    )
    return transformers.ResNetForImageClassification(config)


def _randomise(part: str, tensor: torch.Tensor, scales: tuple[float, float]) -> None:
    """Leave nothing at zero or one, and no two layers alike."""
    if part.endswith("num_batches_tracked"):
        tensor.fill_(7)
    elif part.endswith("running_var"):
        tensor.uniform_(0.5, 2)
    elif part.endswith(("layer_scale", "gamma", "layer_scale_parameter")):
        tensor.uniform_(-0.5, 0.5)
    elif tensor.ndim > 1:
        tensor.normal_(std=(2 / tensor[0].numel()) ** 0.5)
    elif part.endswith("weight"):
        tensor.uniform_(*scales)
    else:
        tensor.normal_(std=0.2)
