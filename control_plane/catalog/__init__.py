"""What a model version is made of, made and checked: `build`, `build_estimator`."""

from control_plane.catalog.build import BuiltBundle, Outputs, build
from control_plane.catalog.card import CardFields
from control_plane.catalog.estimator import build_estimator

__all__ = ["BuiltBundle", "CardFields", "Outputs", "build", "build_estimator"]
