"""ViT-B/16 (Dosovitskiy et al., arXiv 2010.11929) as torchvision has it.

    x: [batch, 224, 224, 3]  ->  conv_proj: a token for each 16x16 pixels [14, 14, 768]
      ->  the class token in front of them, and their positions [batch, 197, 768]
      ->  encoder.layers: twelve blocks of attention and two dense layers  ->  encoder.ln
      ->  heads: logits of the class token [batch, classes]

Every layer behind conv_proj has tokens, ``[batch, 1 + 14 * 14, 768]``, row by row behind the class
token. Every score is smooth behind every layer. transformers asks for an epsilon of 1e-12 in
LayerNorm, where torchvision and timm have 1e-6: each file gets its own.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxcam.errors import fail
from jaxcam.zoo.activations import GELU
from jaxcam.zoo.architecture import Architecture, Rules
from jaxcam.zoo.card import IMAGENET
from jaxcam.zoo.parts import Identity, Sequence, conv, layer_norm, linear

EPSILON = 1e-6
GELU_GAIN = 2.0
POSITION_SPREAD = 0.02
PATCH, SIDE = 16, 224


class SelfAttention(nnx.Module):
    """``out_proj(softmax(q k^T / sqrt(d)) v)`` for each head; ``in_proj`` makes q, k and v."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.in_proj = linear(width, 3 * width, rngs=rngs)
        self.out_proj = linear(width, width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.out_proj(attend(self.in_proj(x), self.heads))


class Block(nnx.Module):
    """``x + self_attention(ln_1(x))``, then ``x + mlp(ln_2(x))``."""

    def __init__(self, width: int, heads: int, epsilon: float, *, rngs: nnx.Rngs) -> None:
        self.ln_1 = layer_norm(width, epsilon=epsilon, rngs=rngs)
        self.self_attention = SelfAttention(width, heads, rngs=rngs)
        self.ln_2 = layer_norm(width, epsilon=epsilon, rngs=rngs)
        self.mlp = Sequence(
            linear(width, 4 * width, rngs=rngs),
            GELU(),
            Identity(),
            linear(4 * width, width, gain=GELU_GAIN, rngs=rngs),
        )

    def __call__(self, x: Array) -> Array:
        x = x + self.self_attention(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Encoder(nnx.Module):
    """Positions, blocks and the last LayerNorm."""

    def __init__(
        self, width: int, depth: int, heads: int, tokens: int, epsilon: float, *, rngs: nnx.Rngs
    ) -> None:
        self.pos_embedding = positions(tokens, width, rngs)
        blocks = [Block(width, heads, epsilon, rngs=rngs) for _ in range(depth)]
        self.layers = Sequence(**{f"encoder_layer_{i}": block for i, block in enumerate(blocks)})
        self.ln = layer_norm(width, epsilon=epsilon, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.ln(self.layers(x + self.pos_embedding[...]))


class VisionTransformer(nnx.Module):
    """Pictures of one size: a position has weights of its own."""

    def __init__(
        self,
        *,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        side: int = SIDE,
        epsilon: float = EPSILON,
        classes: int = 1000,
        rngs: nnx.Rngs,
    ) -> None:
        self.side = side
        self.conv_proj = patches(width, rngs)
        self.class_token = positions(1, width, rngs)
        tokens = 1 + (side // PATCH) ** 2
        self.encoder = Encoder(width, depth, heads, tokens, epsilon, rngs=rngs)
        self.heads = Sequence(head=linear(width, classes, rngs=rngs))

    def __call__(self, x: Array) -> Array:
        check_side(x, self.side)
        x = with_class_token(self.conv_proj(x), self.class_token[...])
        return self.heads(self.encoder(x)[:, 0])


def attend(qkv: Array, heads: int) -> Array:
    """``softmax(q k^T / sqrt(d)) v``: ``[batch, token, 3 heads d] -> [batch, token, heads d]``."""
    batch, tokens, width = qkv.shape
    d = width // (3 * heads)
    q, k, v = jnp.moveaxis(qkv.reshape(batch, tokens, 3, heads, d), 2, 0)
    alike = jnp.einsum("bqhd,bkhd->bhqk", q / d**0.5, k)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(alike), v).reshape(batch, tokens, -1)


def patches(width: int, rngs: nnx.Rngs) -> nnx.Conv:
    """Make the dense layer over squares of the picture."""
    return conv(3, width, PATCH, stride=PATCH, padding=0, bias=True, gain=1.0, rngs=rngs)


def positions(tokens: int, width: int, rngs: nnx.Rngs) -> nnx.Param:
    """Draw a vector for each token."""
    shape = (1, tokens, width)
    return nnx.Param(POSITION_SPREAD * jax.random.normal(rngs.params(), shape, "float32"))


def with_class_token(x: Array, token: Array) -> Array:
    """``[batch, rows, columns, k] -> [batch, 1 + rows * columns, k]``."""
    batch, width = len(x), x.shape[-1]
    first = jnp.broadcast_to(token, (batch, 1, width))
    return jnp.concatenate([first, x.reshape(batch, -1, width)], axis=1)


def check_side(x: Array, side: int) -> None:
    """Positions have weights: a picture of another size has no place for them."""
    if x.shape[1:3] != (side, side):
        fail(
            "a vision transformer",
            needs=f"pictures [batch, {side}, {side}, 3]",
            got=f"{list(x.shape)}",
            remedy="zoo.prepare(picture, card.preprocessing) makes them of that size.",
        )


_LAYER = r"encoder\.layers\.encoder_layer_(\d+)"

TORCHVISION: Rules = (
    (
        rf"{_LAYER}\.self_attention\.in_proj\.weight",
        lambda i: f"encoder.layers.encoder_layer_{i}.self_attention.in_proj_weight",
    ),
    (
        rf"{_LAYER}\.self_attention\.in_proj\.bias",
        lambda i: f"encoder.layers.encoder_layer_{i}.self_attention.in_proj_bias",
    ),
)
PUBLISHED: Rules = (  # before torchvision's 0.13, and its files still
    *TORCHVISION,
    (rf"{_LAYER}\.mlp\.0", lambda i: f"encoder.layers.encoder_layer_{i}.mlp.linear_1"),
    (rf"{_LAYER}\.mlp\.3", lambda i: f"encoder.layers.encoder_layer_{i}.mlp.linear_2"),
)
TIMM: Rules = (
    (r"conv_proj", lambda: "patch_embed.proj"),
    (r"class_token", lambda: "cls_token"),
    (r"encoder\.pos_embedding", lambda: "pos_embed"),
    (rf"{_LAYER}\.ln_(\d)", lambda i, n: f"blocks.{i}.norm{n}"),
    (rf"{_LAYER}\.self_attention\.in_proj", lambda i: f"blocks.{i}.attn.qkv"),
    (rf"{_LAYER}\.self_attention\.out_proj", lambda i: f"blocks.{i}.attn.proj"),
    (rf"{_LAYER}\.mlp\.0", lambda i: f"blocks.{i}.mlp.fc1"),
    (rf"{_LAYER}\.mlp\.3", lambda i: f"blocks.{i}.mlp.fc2"),
    (r"encoder\.ln", lambda: "norm"),
    (r"heads\.head", lambda: "head"),
)
_THEIRS = "vit.encoder.layer"
TRANSFORMERS: Rules = (
    (r"conv_proj", lambda: "vit.embeddings.patch_embeddings.projection"),
    (r"class_token", lambda: "vit.embeddings.cls_token"),
    (r"encoder\.pos_embedding", lambda: "vit.embeddings.position_embeddings"),
    (rf"{_LAYER}\.ln_1", lambda i: f"{_THEIRS}.{i}.layernorm_before"),
    (rf"{_LAYER}\.ln_2", lambda i: f"{_THEIRS}.{i}.layernorm_after"),
    (
        rf"{_LAYER}\.self_attention\.in_proj",
        lambda i: f"{_THEIRS}.{i}.attention.attention.{{query,key,value}}",
    ),
    (rf"{_LAYER}\.self_attention\.out_proj", lambda i: f"{_THEIRS}.{i}.attention.output.dense"),
    (rf"{_LAYER}\.mlp\.0", lambda i: f"{_THEIRS}.{i}.intermediate.dense"),
    (rf"{_LAYER}\.mlp\.3", lambda i: f"{_THEIRS}.{i}.output.dense"),
    (r"encoder\.ln", lambda: "vit.layernorm"),
    (r"heads\.head", lambda: "classifier"),
)


def settings(architectures: tuple[str, ...], heads: int) -> dict[str, tuple]:
    """What ``config.json`` may say of such a network."""
    return {
        "architecture": architectures,
        "model_args.in_chans": (3,),
        "model_args.img_size": (SIDE, [SIDE, SIDE]),
        "model_args.global_pool": ("token",),
        "model_type": ("vit",),
        "hidden_act": ("gelu",),
        "layer_norm_eps": (1e-12,),
        "num_attention_heads": (heads,),
        "qkv_bias": (True,),
    }


CONSTANTS = {"transformers": {"epsilon": 1e-12}}

ARCHITECTURES = {
    "vit_b_16": Architecture(
        VisionTransformer,
        "heads.head",
        {
            "torchvision": TORCHVISION,
            "torchvision, published": PUBLISHED,
            "timm": TIMM,
            "transformers": TRANSFORMERS,
        },
        settings(("vit_base_patch16_224", "deit_base_patch16_224"), heads=12),
        IMAGENET,
        {
            "c867db91": IMAGENET,
            "4e70ced5": IMAGENET._replace(resize=224, interpolation="bicubic"),
        },
        CONSTANTS,
        tokens=1,
        layer="encoder.layers.encoder_layer_11.ln_1",  # behind the last attention only one matters
    )
}
