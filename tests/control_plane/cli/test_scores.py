from control_plane.cli import scores


def row(metric, unit, **more):
    return {
        "metric": metric, "unit": unit, "part": None, "sign": 1, "exposure_seconds": 86_400,
        "seen": 0.25, "allowed": 0.1, "candidates": 12, "controls": 12, "state": "worse",
        "role": "guard", "ln_evidence": 4.0, "ln_threshold": 3.0, **more,
    }  # fmt: skip


def test_every_unit_is_written_beside_its_number():
    units = {
        "latency": "ratio", "confidence": "sd", "accuracy": "points", "drift": "psi",
    }  # fmt: skip
    title, *told = scores.lines([row(metric, unit) for metric, unit in units.items()])
    assert title.split() == ["score", "seen", "allowed", "new", "control", "verdict"]
    assert [" ".join(line.split()) for line in told] == [
        "latency, 1 d x 0.25 x 0.10 12 12 worse",
        "confidence, 1 d 0.250 sd 0.100 sd 12 12 worse",
        "accuracy, 1 d 0.2 pt 0.1 pt 12 12 worse",
        "drift, 1 d 0.250 psi 0.100 psi 12 12 worse",
    ]
