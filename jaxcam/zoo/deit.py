"""DeiT-S (Touvron et al., arXiv 2012.12877) as timm has it: a narrower ViT, in timm's names.

    x: [batch, 224, 224, 3]  ->  patch_embed.proj: a token for each 16x16 pixels [14, 14, 384]
      ->  the class token in front of them, and their positions [batch, 197, 384]
      ->  blocks: twelve of attention and two dense layers  ->  norm
      ->  head: logits of the class token [batch, classes]

The arithmetic is that of `jaxcam.zoo.vit`, where tokens and smoothness are described. Without the
token of distillation: networks that have one bring tensors which have no place here.
"""

from flax import nnx
from jax import Array

from jaxcam.zoo.activations import GELU
from jaxcam.zoo.architecture import Architecture, Rules
from jaxcam.zoo.card import IMAGENET
from jaxcam.zoo.parts import Sequence, layer_norm, linear
from jaxcam.zoo.vit import (
    CONSTANTS,
    EPSILON,
    GELU_GAIN,
    PATCH,
    SIDE,
    attend,
    check_side,
    patches,
    positions,
    settings,
    with_class_token,
)


class Attention(nnx.Module):
    """``proj(softmax(q k^T / sqrt(d)) v)`` for each head."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.qkv = linear(width, 3 * width, rngs=rngs)
        self.proj = linear(width, width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.proj(attend(self.qkv(x), self.heads))


class Block(nnx.Module):
    """``x + attn(norm1(x))``, then ``x + mlp(norm2(x))``."""

    def __init__(self, width: int, heads: int, epsilon: float, *, rngs: nnx.Rngs) -> None:
        self.norm1 = layer_norm(width, epsilon=epsilon, rngs=rngs)
        self.attn = Attention(width, heads, rngs=rngs)
        self.norm2 = layer_norm(width, epsilon=epsilon, rngs=rngs)
        self.mlp = Sequence(
            fc1=linear(width, 4 * width, rngs=rngs),
            act=GELU(),
            fc2=linear(4 * width, width, gain=GELU_GAIN, rngs=rngs),
        )

    def __call__(self, x: Array) -> Array:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class DeiT(nnx.Module):
    """Pictures of one size: a position has weights of its own."""

    def __init__(
        self,
        *,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        side: int = SIDE,
        epsilon: float = EPSILON,
        classes: int = 1000,
        rngs: nnx.Rngs,
    ) -> None:
        self.side = side
        self.patch_embed = Sequence(proj=patches(width, rngs))
        self.cls_token = positions(1, width, rngs)
        self.pos_embed = positions(1 + (side // PATCH) ** 2, width, rngs)
        self.blocks = Sequence(*[Block(width, heads, epsilon, rngs=rngs) for _ in range(depth)])
        self.norm = layer_norm(width, epsilon=epsilon, rngs=rngs)
        self.head = linear(width, classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        check_side(x, self.side)
        x = with_class_token(self.patch_embed(x), self.cls_token[...]) + self.pos_embed[...]
        return self.head(self.norm(self.blocks(x))[:, 0])


_BLOCK = "vit.encoder.layer"
TRANSFORMERS: Rules = (
    (r"patch_embed\.proj", lambda: "vit.embeddings.patch_embeddings.projection"),
    (r"cls_token", lambda: "vit.embeddings.cls_token"),
    (r"pos_embed", lambda: "vit.embeddings.position_embeddings"),
    (r"blocks\.(\d+)\.norm1", lambda i: f"{_BLOCK}.{i}.layernorm_before"),
    (r"blocks\.(\d+)\.norm2", lambda i: f"{_BLOCK}.{i}.layernorm_after"),
    (
        r"blocks\.(\d+)\.attn\.qkv",
        lambda i: f"{_BLOCK}.{i}.attention.attention.{{query,key,value}}",
    ),
    (r"blocks\.(\d+)\.attn\.proj", lambda i: f"{_BLOCK}.{i}.attention.output.dense"),
    (r"blocks\.(\d+)\.mlp\.fc1", lambda i: f"{_BLOCK}.{i}.intermediate.dense"),
    (r"blocks\.(\d+)\.mlp\.fc2", lambda i: f"{_BLOCK}.{i}.output.dense"),
    (r"norm", lambda: "vit.layernorm"),
    (r"head", lambda: "classifier"),
)
BICUBIC = IMAGENET._replace(resize=248, interpolation="bicubic")

ARCHITECTURES = {
    "deit_small_patch16_224": Architecture(
        DeiT,
        "head",
        {"timm": (), "transformers": TRANSFORMERS},
        settings(("deit_small_patch16_224", "vit_small_patch16_224"), heads=6),
        BICUBIC,
        {},
        CONSTANTS,
        tokens=1,
        layer="blocks.11.norm1",
    )
}
