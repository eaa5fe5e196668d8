"""Views of one size attend in one call, and to the very result of transformers' own loop over them."""

import pytest
import torch
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionAttention

from rnr.models.qwen3vl import Qwen3VLReasoner
from rnr.models.view_attention import ViewAttention


@pytest.fixture(scope="module")
def reasoner():
    torch.manual_seed(0)
    return Qwen3VLReasoner()


def features(reasoner, attention, patches, grid):
    for block in reasoner.model.model.visual.blocks:
        block.attn.__class__ = attention
    reasoner.zero_grad()
    seen = torch.cat(reasoner.model.model.get_image_features(patches, grid).pooler_output)
    seen.square().sum().backward()
    return seen.detach(), reasoner.model.model.visual.patch_embed.proj.weight.grad.clone()


def test_a_reasoner_attends_to_all_views_at_once(reasoner):
    assert all(type(block.attn) is ViewAttention for block in Qwen3VLReasoner().model.model.visual.blocks)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_equal_to_one_view_after_the_other(reasoner, implementation):
    prompt = reasoner._prompt(torch.rand(3, 3, 150, 200, generator=torch.Generator().manual_seed(1)))
    reasoner.model.set_attn_implementation(implementation)
    theirs = features(reasoner, Qwen3VLVisionAttention, prompt["pixel_values"], prompt["image_grid_thw"])
    ours = features(reasoner, ViewAttention, prompt["pixel_values"], prompt["image_grid_thw"])
    reasoner.model.set_attn_implementation("sdpa")
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_views_of_different_sizes_are_left_to_the_loop(reasoner):
    grid = torch.tensor([[1, 8, 8], [1, 4, 6]])
    patches = torch.randn(64 + 24, 3 * 16 * 16, generator=torch.Generator().manual_seed(2))
    theirs = features(reasoner, Qwen3VLVisionAttention, patches, grid)
    torch.testing.assert_close(features(reasoner, ViewAttention, patches, grid), theirs)
