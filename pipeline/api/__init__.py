"""What Python users import from ``ct_cncl.pipeline`` besides ``denoise``: the commands as functions, with arrays where they take them."""
