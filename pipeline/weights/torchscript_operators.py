"""Operators that a network's TorchScript may call: those of this project's exports, and similar plain arithmetic."""

from __future__ import annotations

_OF_OUR_EXPORTS = """
    __contains__ __is__ __isnot__ __not__ _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_lanczos2d_aa
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d add add_ append batch_norm cat chunk clamp clamp_min clamp_min_ contiguous conv2d conv_transpose2d copy dim
    div eq exp expand_as flip floor floordiv format gelu gt layer_norm le len lt matmul max_pool2d mul ne neg norm pad permute
    pixel_shuffle pixel_unshuffle pop pow relu relu_ remainder reshape scaled_dot_product_attention sigmoid size slice softmax
    split sub sum transpose upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
    upsample_nearest3d upsample_trilinear3d
"""
"""Operators that torch prints for the bundle's overlays; a test compiles the list again."""
_LIKE_THEM = """
    __getitem__ __and__ __or__ _convolution abs avg_pool2d clamp_max conv1d conv3d conv_transpose1d conv_transpose3d elu erf
    flatten group_norm hardswish hardtanh instance_norm leaky_relu linear log maximum mean minimum prelu rsqrt select silu
    softplus sqrt square squeeze stack tanh unsqueeze view
"""
"""Operators of other denoisers: pure functions of tensors, whose results are no larger than their inputs and weights allow."""

TORCH_OPERATORS = frozenset((_OF_OUR_EXPORTS + _LIKE_THEM).split())
"""Names after ``torch.`` and ``ops.aten.``."""
PRIM_OPERATORS = frozenset({"RaiseException", "min", "max", "NumToTensor", "dtype", "device"})
"""Names after ``ops.prim.``."""
BUILTINS = frozenset({"annotate", "bool", "float", "getattr", "int", "unchecked_cast", "uninitialized"})
"""Functions without a module; ``range`` is also allowed, in loops."""
REACHES_FILES = frozenset({"from_file", "save", "load"})
"""Operators that can reach files, which messages say explicitly."""
