"""Files become payloads: encoded once, kept on disk, cut into frames as often as needed."""

from control_plane.encode.payload import Encoded, encode, reopen

__all__ = ["Encoded", "encode", "reopen"]
