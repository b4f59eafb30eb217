"""Linear layers that have a bias where megatron-core's configuration, which knows one switch for all, has none."""

from typing import Any


def with_bias(linear: Any) -> Any:
    """A class like `linear` (of `models/cpu_modules.py` or Transformer Engine) that always has a bias."""

    class Biased(linear):
        def __init__(self, *args: Any, bias: bool, **kwargs: Any) -> None:
            super().__init__(*args, bias=True, **kwargs)

    Biased.__name__ = f"Biased{linear.__name__}"
    return Biased
