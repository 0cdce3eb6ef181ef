"""Where the pocket segmenter's training begins."""

from __future__ import annotations

from typing import Any

import torch


def well_begun(model: Any) -> None:
    """Start from a network that already does, roughly, what it has to learn.

    The encoder begins near the identity, so the look of each patch reaches the decoder. There, keys
    begin as the queries' own projection, so that codes of the same place match, and a prompt keeps
    what it read from the image in the image's own basis, so that a patch that looks the same
    matches too. Without this the first thousands of pictures teach little but "no mask".
    """
    prompts, decoder = model.prompt_encoder, model.mask_decoder
    learned = [*prompts.point_embeddings, prompts.not_a_point_embed, prompts.no_mask_embed]
    with torch.no_grad():
        places = prompts.pe_layer.positional_encoding_gaussian_matrix
        places.copy_(_place_frequencies(places.shape[1]))
        for embedding in (*learned, decoder.mask_tokens, decoder.iou_token):
            embedding.weight *= 0.2
        for block in model.image_encoder.blocks:
            block.attn.proj.weight *= 0.3
            block.mlp.lin2.weight *= 0.3
        decoder.transformer.layers[0].norm1.weight *= 0.3
        for layer in decoder.transformer.layers:
            read, write = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
            for crossing, gain in ((read, 3.5), (write, 2.0)):
                crossing.q_proj.weight *= gain
                crossing.k_proj.weight.copy_(crossing.q_proj.weight)
            read.out_proj.weight.copy_(8 * read.v_proj.weight.T)


def _place_frequencies(count: int) -> torch.Tensor:
    """Frequencies (2, count) of the code of a place, in cycles over half the picture.

    A third along x, a third along y, the rest in all directions; low ones tell how far two places
    are from each other, high ones tell neighbours apart.
    """
    third = count // 3
    matrix = torch.zeros(2, count)
    matrix[0, :third] = matrix[1, third : 2 * third] = torch.logspace(-3, 1, third, base=2)
    turns = torch.arange(count - 2 * third) * 2.4
    lengths = torch.logspace(-2, 1, count - 2 * third, base=2)
    matrix[:, 2 * third :] = torch.stack([turns.cos(), turns.sin()]) * lengths
    return matrix
