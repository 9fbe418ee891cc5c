"""What enrolment, renewal and proofs of devices have in common: an authority, and both stores."""

import pytest

from control_plane.fleet.authority import Authority
from control_plane.store import Store
from tests.fakes.enrolment import FakeEnrolmentStore

NOW_MS = 1_795_000_000_000


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority.create(tmp_path_factory.mktemp("home") / "ca", "local", NOW_MS)


@pytest.fixture(params=["fake", "sqlite"])
def store(request, tmp_path):
    if request.param == "fake":
        yield FakeEnrolmentStore()
        return
    real = Store(tmp_path / "store.sqlite")
    yield real
    real.close()
