"""The vision tower's attention, for views that are all of one size: one call for all of them.

transformers attends view by view (outside of FlashAttention, which takes them packed), so a batch of B photos of V views
costs B V calls a layer, each too small to keep a GPU busy, or a CPU's cores.
"""

from typing import Any

from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    Qwen3VLVisionAttention,
    apply_rotary_pos_emb_vision,
    eager_attention_forward,
    is_flash_attention_requested,
)


class ViewAttention(Qwen3VLVisionAttention):
    """As its base, and equal to it; views of different sizes, and FlashAttention, are left to that."""

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        max_seqlen: int | None = None,
        **named: Any,
    ) -> Tensor:
        """(T, width). hidden_states: (T, width), patches of all views. cu_seqlens: (V + 1,), where each begins, and T."""
        count = len(cu_seqlens) - 1
        even = count > 0 and bool((cu_seqlens.diff() * count == len(hidden_states)).all())
        if not even or is_flash_attention_requested(self.config):
            return super().forward(hidden_states, cu_seqlens, position_embeddings, max_seqlen, **named)
        parts = self.qkv(hidden_states).unflatten(1, (3, self.num_heads, -1)).permute(1, 0, 2, 3)
        query, key = apply_rotary_pos_emb_vision(parts[0], parts[1], *position_embeddings)
        views = [part.unflatten(0, (count, -1)).transpose(1, 2) for part in (query, key, parts[2])]  # (V, heads, n, d)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.attention_dropout if self.training else 0.0
        out, _ = attend(
            self, *views, attention_mask=None, scaling=self.scaling, dropout=dropout, is_causal=False, **named
        )
        return self.proj(out.reshape(len(hidden_states), -1))
