import pytest

from control_plane.audit import anchors_of
from control_plane.audit_check import AuditCheck
from control_plane.store import Store
from protocol.approval import Approved, ApprovedBundle
from protocol.identifiers import digest_of


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    yield store
    store.close()


def approvals(head):
    digest = digest_of(b"index")
    return {digest: ApprovedBundle("digits", "v1", digest, Approved(audit_head=head))}


def test_only_entries_that_name_a_head_are_anchors():
    assert anchors_of(approvals("").values()) == ()
    assert anchors_of(approvals("1:ab").values())[0].where == "digits/v1"


def test_a_whole_trail_is_found_whole(store):
    store.happened("ana", "devices/cam-1", "device.pinned", {}, 1000)
    head = store.audit.head()
    store.happened("ana", "devices/cam-1", "device.unpinned", {}, 2000)
    check = AuditCheck(store.audit, lambda: approvals(head))
    check.step()
    assert check.found is not None
    assert (check.found.problems, check.found.records, check.found.anchored) == ((), 2, 1)


def test_a_store_that_is_older_than_what_was_signed_is_found(store, caplog):
    store.happened("ana", "devices/cam-1", "device.pinned", {}, 1000)
    check = AuditCheck(store.audit, lambda: approvals("7:" + "0" * 64))
    check.step()
    assert check.found is not None
    assert "the trail ends at 1" in check.found.problems[0]
    assert "the trail ends at 1" in caplog.text
