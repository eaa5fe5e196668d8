"""Which photos of a batch are worked on at once: on a CPU one after the other, elsewhere all of them.

On a CPU a single photo and what is made of it stay in the cache, and what else is in the batch does not change a bit of
it: libraries transform several photos in another order than one alone, and round otherwise.
"""

import torch
from torch import Tensor


def parts(rows: Tensor) -> list[slice] | list[Tensor]:
    """What picks the photos at which ``rows`` (B,) bool is true, part by part."""
    chosen = rows.nonzero().squeeze(1)
    if rows.device.type == "cpu":
        return [slice(row, row + 1) for row in chosen.tolist()]
    return [chosen] if len(chosen) else []


def begun(image: Tensor, present: Tensor) -> Tensor:
    """Room for the result, like ``image`` (B, C, H, W). Photos at which ``present`` (B,) is false are there already."""
    out = torch.empty_like(image)
    for part in parts(~present):
        out[part] = image[part]
    return out
