"""Functions that Python users import from ``ct_cncl.pipeline`` besides ``denoise``: the commands for paths and, in part, for arrays."""
