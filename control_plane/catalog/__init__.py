"""What a model version is made of, made and checked: `build`, `build_estimator`."""

from typing import TYPE_CHECKING, Any

from control_plane.catalog.build import BuiltBundle, build
from control_plane.catalog.card import CardFields
from control_plane.catalog.measured import Monitoring, Outputs
from control_plane.catalog.profile import Wishes

if TYPE_CHECKING:
    from control_plane.catalog.estimator import build_estimator

__all__ = [
    "BuiltBundle",
    "CardFields",
    "Monitoring",
    "Outputs",
    "Wishes",
    "build",
    "build_estimator",
]


def __getattr__(name: str) -> Any:
    """scikit-learn and its converters take a second to import; a server never needs them."""
    if name == "build_estimator":
        from control_plane.catalog.estimator import build_estimator

        return build_estimator
    raise AttributeError(name)
