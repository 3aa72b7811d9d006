"""Attention between channels: its cost grows with the pixels, not with their square (Restormer, Zamir et al., CVPR 2022).

A channel asks, as a vector over all pixels, which channels resemble it; a map is (channels, channels) for each head,
whatever the image's size. For 512 x 512 pixels, attention between pixels would need maps of 262,144 x 262,144.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


def channel_scores(query: torch.Tensor, key: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """How much each query channel resembles each key channel: temperature * cosine over the pixels of a head.

    Args:
        query: (B, C, H, W).
        key: (B, K, H, W).
        temperature: (heads, 1, 1); ``heads`` divides C and K.

    Returns:
        (B, heads, C / heads, K / heads).
    """
    batch, heads = query.shape[0], temperature.shape[0]
    pixels = query.shape[2] * query.shape[3]
    query = functional.normalize(query.reshape(batch, heads, -1, pixels), dim=-1)
    key = functional.normalize(key.reshape(batch, heads, -1, pixels), dim=-1)
    return query @ key.transpose(-2, -1) * temperature


def mix_channels(attention: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Each output channel as the sum of a head's value channels, weighted by ``attention``.

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
    """1 - attention, each row divided by its sum: looks where ``attention`` does not. Rows have two entries or more.

    >>> complement(torch.tensor([0.5, 0.25, 0.25])).tolist()
    [0.25, 0.375, 0.375]
    """
    rest = 1 - attention
    return rest / rest.sum(dim=-1, keepdim=True)


def projection(channels: int, out_channels: int) -> nn.Sequential:
    """A 1x1 convolution and a depthwise 3x3 one: how queries, keys and values come from a feature map."""
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 1, bias=False),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, groups=out_channels, bias=False),
    )


class MDTA(nn.Module):
    """Self-attention between channels (Restormer's "multi-Dconv head transposed attention", its eq. 1).

    MONAI's ``CABlock`` computes the same, but needs einops and cannot be scripted.

    Args:
        channels: of the feature map.
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
        """``x`` (B, C, H, W), same shape out."""
        query, key, value = self.qkv(x).chunk(3, dim=1)
        attention = channel_scores(query, key, self.temperature).softmax(dim=-1)
        return self.out(mix_channels(attention, value))


class CrossAttention(nn.Module):
    """Content attends to noise, and noise to content, channel by channel.

    Plain: each branch has its own map, softmax(scores(own queries, the other's keys)), over the other's values.

    Complementary: both share one map. Content takes the softmax M of scores(content's queries, noise's keys); noise takes the
    complement of M transposed, so that it looks away from the channels that look at it.

    Args:
        content_channels: of content's feature map.
        noise_channels: of noise's; may differ.
        heads: divides both.
        complementary: as above.

    Raises:
        ValueError: ``heads`` does not divide the channels, or leaves one channel a head, which has no complement.
    """

    def __init__(
        self, content_channels: int, noise_channels: int, *, heads: int = 1, complementary: bool = False
    ) -> None:
        super().__init__()
        check_heads(heads, content_channels, least=2 if complementary else 1)
        check_heads(heads, noise_channels, least=2 if complementary else 1)
        self.complementary = complementary
        # What each branch gives: query, key and value; one of query and key, and value, where the map is shared.
        parts = 2 if complementary else 3
        self.content_projection = projection(content_channels, parts * content_channels)
        self.noise_projection = projection(noise_channels, parts * noise_channels)
        self.temperature = nn.Parameter(torch.ones(heads if complementary else 2 * heads, 1, 1))
        self.content_out = nn.Conv2d(content_channels, content_channels, 1, bias=False)
        self.noise_out = nn.Conv2d(noise_channels, noise_channels, 1, bias=False)

    def forward(self, content: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``content`` (B, C, H, W) and ``noise`` (B, K, H, W), same shapes out: what each found in the other."""
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
    """Refuse heads that do not share the channels evenly, or get fewer than ``least`` each.

    Raises:
        ValueError: as above.
    """
    if heads < 1 or channels % heads or channels // heads < least:
        raise ValueError(
            f"Expected heads that divide {channels} channels into groups of at least {least}, but got {heads}. Set heads to 1."
        )
