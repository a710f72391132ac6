"""Shape annotations for tensors: `Float[Tensor, "b v h w 3"]` is a float tensor of this shape.

They are jaxtyping's if it is installed, and the tests check them. Otherwise they mean nothing.
Every module has `from __future__ import annotations`, so that they cost nothing in a run.
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
                # Any shape is accepted, and nothing is checked.
                return cls

        Bool = Float = Int = UInt8 = _Unchecked

__all__ = ["Bool", "Float", "Int", "UInt8"]
