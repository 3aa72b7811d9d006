"""Attention between channels, whose cost is linear in the number of pixels (Restormer, Zamir et al., CVPR 2022).

Each channel, as a vector over all pixels, is compared with other channels; an attention map is (channels, channels) for each
head, for an image of any size. For 512 x 512 pixels, attention between pixels would need maps of 262,144 x 262,144.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


def channel_scores(query: torch.Tensor, key: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """Similarity of each query channel to each key channel of the same head: temperature * cosine over the pixels.

    Args:
        query: (B, C, H, W).
        key: (B, K, H, W).
        temperature: (heads, 1, 1); the number of heads divides C and K.

    Returns:
        (B, heads, C / heads, K / heads).
    """
    batch, heads = query.shape[0], temperature.shape[0]
    pixels = query.shape[2] * query.shape[3]
    query = functional.normalize(query.reshape(batch, heads, -1, pixels), dim=-1)
    key = functional.normalize(key.reshape(batch, heads, -1, pixels), dim=-1)
    return query @ key.transpose(-2, -1) * temperature


def mix_channels(attention: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Make each output channel as the sum of its head's value channels, weighted by ``attention``.

    Args:
        attention: (B, heads, C / heads, K / heads).
        value: (B, K, H, W).

    Returns:
        (B, C, H, W).
    """
    batch, heads = attention.shape[:2]
    height, width = value.shape[2:]
    mixed = attention @ value.reshape(batch, heads, -1, height * width)
    return mixed.reshape(batch, -1, height, width)


def complement(attention: torch.Tensor) -> torch.Tensor:
    """1 - attention, with each row divided by its sum: large where ``attention`` is small. Rows need two or more entries.

    >>> complement(torch.tensor([0.5, 0.25, 0.25])).tolist()
    [0.25, 0.375, 0.375]
    """
    rest = 1 - attention
    return rest / rest.sum(dim=-1, keepdim=True)


def projection(channels: int, out_channels: int) -> nn.Sequential:
    """A 1x1 convolution and a depthwise 3x3 one, which make queries, keys or values from a feature map."""
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 1, bias=False),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, groups=out_channels, bias=False),
    )


class MDTA(nn.Module):
    """Self-attention between channels (the "multi-Dconv head transposed attention" of Restormer, eq. 1).

    MONAI's ``CABlock`` computes the same, but needs einops and cannot be scripted.

    Args:
        channels: number of channels of the feature map.
        heads: groups of channels that attend among themselves; divides ``channels``.

    Raises:
        ValueError: ``heads`` does not divide ``channels``.
    """

    def __init__(self, channels: int, *, heads: int = 1) -> None:
        super().__init__()
        check_heads(heads, channels)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = projection(channels, 3 * channels)
        self.out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x`` (B, C, H, W) to a feature map of the same shape."""
        query, key, value = self.qkv(x).chunk(3, dim=1)
        attention = channel_scores(query, key, self.temperature).softmax(dim=-1)
        return self.out(mix_channels(attention, value))


class CrossAttention(nn.Module):
    """Content attends to noise, and noise to content, channel by channel.

    Plain: each branch has its own map, softmax(scores(own queries, other branch's keys)), over the other branch's values.

    Complementary: both branches share one map. Content uses M, the softmax of scores(content's queries, noise's keys). Noise
    uses the complement of M transposed: a noise channel attends least to those content channels that attend most to it.

    Args:
        content_channels: channels of the content branch's feature map.
        noise_channels: channels of the noise branch's feature map, which may differ.
        heads: number of heads; divides both numbers of channels.
        complementary: whether the branches share one map, as above.

    Raises:
        ValueError: ``heads`` does not divide the channels, or leaves one channel per head, which has no complement.
    """

    def __init__(
        self, content_channels: int, noise_channels: int, *, heads: int = 1, complementary: bool = False
    ) -> None:
        super().__init__()
        check_heads(heads, content_channels, least=2 if complementary else 1)
        check_heads(heads, noise_channels, least=2 if complementary else 1)
        self.complementary = complementary
        # Each branch gives query, key and value; with a shared map, either query or key, and value.
        parts = 2 if complementary else 3
        self.content_projection = projection(content_channels, parts * content_channels)
        self.noise_projection = projection(noise_channels, parts * noise_channels)
        self.temperature = nn.Parameter(torch.ones(heads if complementary else 2 * heads, 1, 1))
        self.content_out = nn.Conv2d(content_channels, content_channels, 1, bias=False)
        self.noise_out = nn.Conv2d(noise_channels, noise_channels, 1, bias=False)

    def forward(self, content: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map ``content`` (B, C, H, W) and ``noise`` (B, K, H, W) to feature maps of the same shapes, each made from the other."""
        if self.complementary:
            query, content_value = self.content_projection(content).chunk(2, dim=1)
            key, noise_value = self.noise_projection(noise).chunk(2, dim=1)
            to_noise = channel_scores(query, key, self.temperature).softmax(dim=-1)
            to_content = complement(to_noise.transpose(-2, -1))
        else:
            content_temperature, noise_temperature = self.temperature.chunk(2)
            content_query, content_key, content_value = self.content_projection(content).chunk(3, dim=1)
            noise_query, noise_key, noise_value = self.noise_projection(noise).chunk(3, dim=1)
            to_noise = channel_scores(content_query, noise_key, content_temperature).softmax(dim=-1)
            to_content = channel_scores(noise_query, content_key, noise_temperature).softmax(dim=-1)
        found_by_content = self.content_out(mix_channels(to_noise, noise_value))
        found_by_noise = self.noise_out(mix_channels(to_content, content_value))
        return found_by_content, found_by_noise


def check_heads(heads: int, channels: int, *, least: int = 1) -> None:
    """Refuse heads that do not divide the channels, or that would have fewer than ``least`` channels each.

    Raises:
        ValueError: ``heads`` is refused.
    """
    if heads < 1 or channels % heads or channels // heads < least:
        raise ValueError(
            f"Expected heads that divide {channels} channels into groups of at least {least}, but got {heads}. Set heads to 1."
        )
