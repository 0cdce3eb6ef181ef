"""The numbers that make each SAM, and the `segment_anything` networks built from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from pipeline.errors import ConfigError, nearest
from pipeline.models.torchvision_standin import import_segment_anything

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True, slots=True)
class Architecture:
    """The numbers that make a `segment_anything` model."""

    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    img_size: int = 1024
    patch: int = 16
    window: int = 14
    decoder_width: int = 256
    decoder_heads: int = 8
    decoder_mlp: int = 2048
    mask_channels: int = 16
    stem: tuple[int, ...] = ()
    """Channels of a convolutional stem beside the patch embedding, each halving the side."""
    edge_radius: int = 0
    """Reach of the guided filter that draws masks to the picture's edges, cells of the map."""


ARCHITECTURES = {
    "pocket": Architecture(
        width=128,
        depth=5,
        heads=4,
        global_blocks=(1, 3),
        img_size=256,
        window=8,
        decoder_width=64,
        decoder_heads=2,
        decoder_mlp=256,
        mask_channels=8,
        stem=(16, 32, 64),
        edge_radius=2,
    ),
    "vit_b": Architecture(768, 12, 12, (2, 5, 8, 11)),
    "vit_l": Architecture(1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": Architecture(1280, 32, 16, (7, 15, 23, 31)),
}


def build(variant: str) -> Any:
    """A `segment_anything.modeling.Sam` with random weights, in evaluation mode."""
    if variant not in ARCHITECTURES:
        raise ConfigError(f"There is no SAM '{variant}'.", nearest(variant, ARCHITECTURES))
    import_segment_anything()
    from segment_anything import modeling

    a = ARCHITECTURES[variant]
    grid = a.img_size // a.patch
    encoder = modeling.ImageEncoderViT(
        img_size=a.img_size,
        patch_size=a.patch,
        embed_dim=a.width,
        depth=a.depth,
        num_heads=a.heads,
        mlp_ratio=4,
        out_chans=a.decoder_width,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=a.window,
        global_attn_indexes=a.global_blocks,
    )
    if a.stem:
        encoder.patch_embed = _Stemmed(encoder.patch_embed, a.stem, a.width)
    prompts = modeling.PromptEncoder(
        embed_dim=a.decoder_width,
        image_embedding_size=(grid, grid),
        input_image_size=(a.img_size, a.img_size),
        mask_in_chans=a.mask_channels,
    )
    transformer = modeling.TwoWayTransformer(
        depth=2,
        embedding_dim=a.decoder_width,
        mlp_dim=a.decoder_mlp,
        num_heads=a.decoder_heads,
    )
    decoder = modeling.MaskDecoder(
        num_multimask_outputs=3,
        transformer=transformer,
        transformer_dim=a.decoder_width,
        iou_head_depth=3,
        iou_head_hidden_dim=a.decoder_width,
    )
    return modeling.Sam(encoder, prompts, decoder, list(PIXEL_MEAN), list(PIXEL_STD)).eval()


class _Stemmed(torch.nn.Module):
    """A patch embedding to which a stem of small strided convolutions is added.

    Early convolutions let a small transformer learn from far fewer pictures (Xiao et al. 2021,
    arXiv 2106.14881).
    """

    def __init__(self, patches: torch.nn.Module, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.patches = patches
        layers: list[torch.nn.Module] = []
        for before, after in zip((3, *channels), (*channels, width), strict=True):
            layers.append(torch.nn.Conv2d(before, after, 3, stride=2, padding=1))
            if after != width:
                layers += [torch.nn.GroupNorm(4, after), torch.nn.GELU()]
        self.stem = torch.nn.Sequential(*layers)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Patches (B, g, g, width) of pictures (B, 3, H, W)."""
        return self.patches(pixels) + self.stem(pixels).permute(0, 2, 3, 1)
