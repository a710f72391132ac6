"""Shape annotations: jaxtyping's where it is installed (the tests check them), else nothing.

Every module has `from __future__ import annotations`, so an annotation costs nothing until a test
evaluates it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, UInt8
else:
    try:
        from jaxtyping import Bool, Float, Int, UInt8
    except ImportError:

        class _Unchecked:
            def __class_getitem__(cls, shape: object) -> type:
                return cls

        Bool = Float = Int = UInt8 = _Unchecked

__all__ = ["Bool", "Float", "Int", "UInt8"]
