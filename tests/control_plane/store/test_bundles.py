"""States of a version: how a draft ends, and that a closed one is not lost."""

import pytest

from control_plane.store import Store
from control_plane.store.bundles import BundleRow, ManifestRow
from protocol.identifiers import digest_of

ONE = BundleRow(
    digest_of(b"one"),
    "digits",
    "v1",
    5,
    1,
    manifests=(ManifestRow(digest_of(b"manifest"), digest_of(b"profile")),),
)


@pytest.fixture
def bundles(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    store.bundles.put(ONE)
    yield store.bundles
    store.close()


@pytest.mark.parametrize("state", ["approved", "revoked", "rejected", "withdrawn"])
def test_a_version_has_one_state_and_the_reason_for_it(bundles, state):
    assert bundles.set_state(ONE.digest, state, "because")
    found = bundles.get(ONE.digest)
    assert (found.state, found.why) == (state, "because")
    assert bundles.in_state(state) == (found,)
    assert bundles.in_state("draft") == ()
    assert not bundles.set_state(ONE.digest, state)
    assert bundles.get(ONE.digest).why == "because"
    assert not bundles.set_state(ONE.digest, state, "better said")
    assert bundles.get(ONE.digest).why == "better said"


def test_a_closed_draft_opens_again_and_can_be_approved(bundles):
    bundles.set_state(ONE.digest, "withdrawn", "wrong data")
    assert bundles.set_state(ONE.digest, "draft")
    assert (bundles.get(ONE.digest).state, bundles.get(ONE.digest).why) == ("draft", "")
    bundles.set_state(ONE.digest, "rejected")
    bundles.set_state(ONE.digest, "approved")
    assert bundles.get(ONE.digest) == bundles.by_manifest(ONE.manifests[0].digest)
    assert bundles.get(ONE.digest).state == "approved"


@pytest.mark.parametrize("state", ["draft", "approved", "revoked", "rejected", "withdrawn"])
def test_only_a_withdrawn_version_is_forgotten(bundles, state):
    bundles.set_state(ONE.digest, state)
    bundles.forget(ONE.digest)
    assert (bundles.get(ONE.digest) is None) == (state == "withdrawn")
