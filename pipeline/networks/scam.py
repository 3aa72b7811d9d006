"""Stereo cross-attention along rows (SCAM of NAFSSR, Chu et al., CVPR workshops 2022)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ct_cncl.pipeline.networks.normalisation import LayerNorm2d


class SCAM(nn.Module):
    """Every pixel of one view attends to the pixels of the same row of the other view, both ways.

    With Q from the normalised and V from the bare feature maps (NAFSSR, eqs. 4 to 7):
    left += beta * softmax(Ql Qr^T / sqrt(d)) Vr, right += gamma * softmax(Qr Ql^T / sqrt(d)) Vl, one map a row, beta and
    gamma zero at the start. Time is rows * columns^2, memory that of the feature maps: PyTorch's
    ``scaled_dot_product_attention`` never holds a whole map (512 maps of 512 x 512 for a slice) where it has a fused kernel.

    In CNCL the views are C(y) and y - N(y). A row is the last axis of the tensors.

    Args:
        left_channels: of the first view's feature map.
        right_channels: of the second's; may differ. Queries have the smaller number.
    """

    def __init__(self, left_channels: int, right_channels: int) -> None:
        super().__init__()
        common = min(left_channels, right_channels)
        self.left_norm = LayerNorm2d(left_channels)
        self.right_norm = LayerNorm2d(right_channels)
        self.left_query = nn.Conv2d(left_channels, common, 1)
        self.right_query = nn.Conv2d(right_channels, common, 1)
        self.left_value = nn.Conv2d(left_channels, right_channels, 1)
        self.right_value = nn.Conv2d(right_channels, left_channels, 1)
        self.beta = nn.Parameter(torch.zeros(left_channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(right_channels, 1, 1))

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``left`` (B, C, H, W) and ``right`` (B, K, H, W), same shapes out."""
        # (B, H, W, channels): the rows count as heads. The fused kernel wants channels next to each other in memory.
        left_query = self.left_query(self.left_norm(left)).permute(0, 2, 3, 1).contiguous()
        right_query = self.right_query(self.right_norm(right)).permute(0, 2, 3, 1).contiguous()
        left_value = self.left_value(left).permute(0, 2, 3, 1).contiguous()
        right_value = self.right_value(right).permute(0, 2, 3, 1).contiguous()
        from_right = functional.scaled_dot_product_attention(left_query, right_query, right_value)
        from_left = functional.scaled_dot_product_attention(right_query, left_query, left_value)
        left = left + self.beta * from_right.permute(0, 3, 1, 2)
        right = right + self.gamma * from_left.permute(0, 3, 1, 2)
        return left, right
