"""Stereo cross-attention along rows (SCAM of NAFSSR, Chu et al., CVPR workshops 2022)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ct_cncl.pipeline.networks.normalisation import LayerNorm2d


class SCAM(nn.Module):
    """Every pixel of one view attends to the pixels of the same row of the other view, in both directions.

    With queries Q from the normalised and values V from the original feature maps (NAFSSR, eqs. 4 to 7):
    left += beta * softmax(Ql Qr^T / sqrt(d)) Vr, right += gamma * softmax(Qr Ql^T / sqrt(d)) Vl, with one attention map per
    row; beta and gamma start at zero. Time grows as rows * columns^2. Memory is that of the feature maps if PyTorch's
    ``scaled_dot_product_attention`` has a fused kernel, which never holds a whole map (a slice has 512 maps of 512 x 512).

    In CNCL the views are C(y) and y - N(y). Rows run along the last axis of the tensors.

    Args:
        left_channels: channels of the first view's feature map.
        right_channels: channels of the second view's, which may differ. Queries have the smaller number of channels.
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
        """Map ``left`` (B, C, H, W) and ``right`` (B, K, H, W) to feature maps of the same shapes."""
        # (B, H, W, channels): the rows count as heads. The fused kernel needs the channels contiguous in memory.
        left_query = self.left_query(self.left_norm(left)).permute(0, 2, 3, 1).contiguous()
        right_query = self.right_query(self.right_norm(right)).permute(0, 2, 3, 1).contiguous()
        left_value = self.left_value(left).permute(0, 2, 3, 1).contiguous()
        right_value = self.right_value(right).permute(0, 2, 3, 1).contiguous()
        from_right = functional.scaled_dot_product_attention(left_query, right_query, right_value)
        from_left = functional.scaled_dot_product_attention(right_query, left_query, left_value)
        left = left + self.beta * from_right.permute(0, 3, 1, 2)
        right = right + self.gamma * from_left.permute(0, 3, 1, 2)
        return left, right
