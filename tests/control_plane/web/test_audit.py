import json

from control_plane.audit import Anchor, imported, verify


def lines(api):
    return [imported(line) for line in api.get("audit/export").content.splitlines()]


def test_what_people_change_is_on_record_with_their_name(api):
    api.enrol("cam-1")
    api.patch("devices/cam-1", {"labels": {"site": "leeds"}})
    newest = api.get("audit").json()["items"][0]
    assert (newest["who"], newest["what"], newest["about"]) == (
        "local",
        "device.relabelled",
        "devices/cam-1",
    )
    assert newest["after"]["labels"]["site"] == "leeds"
    assert "site" not in newest["before"]["labels"]


def test_an_export_can_be_verified_by_whoever_has_it(api):
    api.pushed("v1")
    found = verify(lines(api), [Anchor(api.store.audit.head(), "here")])
    assert found.problems == ()
    assert found.records == api.store.audit.count() > 0


def test_an_edit_of_the_store_shows_in_the_export(api):
    api.pushed("v1")
    with api.store.write() as connection:
        connection.execute("DROP TRIGGER audit_no_update")
        connection.execute("UPDATE audit SET line = replace(line, 'local', 'eva')")
    assert verify(lines(api)).problems


def test_lists_stop_and_go_on(api):
    for number in range(3):
        api.enrol(f"cam-{number}")
        api.patch(f"devices/cam-{number}", {"labels": {"site": "a"}})
    first = api.get("audit", limit=2).json()
    rest = api.get("audit", limit=100, cursor=first["next_cursor"]).json()
    numbers = [each["number"] for each in (*first["items"], *rest["items"])]
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) == first["count"]
    refused = api.get("audit", who="ana", cursor=first["next_cursor"])
    assert refused.json()["code"] == "OUT-S130"


def test_each_line_of_an_export_is_json(api):
    api.pushed("v1")
    for line in api.get("audit/export").content.splitlines():
        assert set(json.loads(line)) == {"hash", "record"}
