"""Post-training quantization that keeps class activation maps.

`network` (the float graph, tidied), `photos` (input), `equalize` (channel scales),
`ranges` (scale and zero point of a tensor), `rounding` (weights), `quantizer` (walks the
network once, using the four above), `agreement` (what is left of decisions and maps).
"""


class QuantizationError(Exception):
    """The model or the photos can't be used; the message says what to do."""
