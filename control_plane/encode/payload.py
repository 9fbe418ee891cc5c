"""What every agent can decode, under the name that it has always had."""

from control_plane.encode.encoded import Encoded, reopen
from control_plane.encode.plain import WINDOW_LOG, encode

__all__ = ["WINDOW_LOG", "Encoded", "encode", "reopen"]
