"""`python -m control_plane` is `outrider`."""

from control_plane.cli import main

main()
