"""The main job on one machine, with real processes: what `outrider demo` shows."""
