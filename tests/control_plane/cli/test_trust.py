"""Ceremonies at the command line: what holders see, are asked, and what is refused."""

import json
import shutil
from typing import Any

import pytest
from tuf.api.metadata import Metadata

from control_plane import settings as configuration
from control_plane.init import init
from control_plane.signing import create, keys
from control_plane.signing.repository import Repository
from control_plane.web.listener import listen
from tests.control_plane.cli.conftest import given

PASSPHRASE = "correct horse"
EVERYBODY = ("ana", "bo", "cy", "dan", "eve", "fay")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A server without a root, and keys of everybody: they take time, so they are copied."""
    folder = tmp_path_factory.mktemp("ceremony")
    (folder / "words").write_text(f"{PASSPHRASE}\n")
    init(folder / "server", "north", api_port=0, broker_port=0)
    for name in EVERYBODY:
        key = keys.generate(folder / f"{name}.pem", name, PASSPHRASE.encode()).public_key
        keys.write_public(folder / f"{name}.pub", key)
    return folder


@pytest.fixture
def at(api, prepared):
    """The folder of the test, with all that was prepared."""
    shutil.copytree(prepared, api.folder, dirs_exist_ok=True)
    return api.folder


def first(outrider, folder="first"):
    roots = "--root ana.pub --root bo.pub --root cy.pub"
    approvers = "--approver dan.pub --approver eve.pub --approver fay.pub"
    online = "--online server/keys/online.pub"
    return outrider(*given(f"trust init {folder} {online} {roots} {approvers}"))


def sign(outrider, folder, *names):
    for name in names:
        more = "--passphrase-file words --yes"
        ran = outrider(*given(f"trust sign {folder} --key {name}.pem {more}"))
        assert ran.exit == 0, ran.err


@pytest.fixture
def founded(at, outrider):
    first(outrider)
    sign(outrider, "first", "ana", "bo", "dan", "eve")
    ran = outrider(*given("trust publish first --home server"))
    assert ran.exit == 0, ran.err
    return at


def repository(folder):
    of = configuration.read({}, folder / "server")
    return Repository.open(of.tuf, of.keys, of.fleet)


def code(ran):
    return ran.err.split("error[")[1].split("]")[0]


# --- keys -----------------------------------------------------------------------------------------


def test_a_key_is_encrypted_unless_said_otherwise(at, outrider):
    ran = outrider(*given("keys generate ivy.pem --name ivy --passphrase-file words"))
    assert "encrypted; keep it offline" in ran.out
    assert b"ENCRYPTED" in (at / "ivy.pem").read_bytes()
    assert PASSPHRASE not in (at / "ivy.pub").read_text()
    ran = outrider(*given("keys generate gus.pem --name gus --unencrypted"))
    assert "not encrypted" in ran.out
    assert b"ENCRYPTED" not in (at / "gus.pem").read_bytes()


def test_a_passphrase_is_typed_twice_and_unseen(at, outrider, monkeypatch):
    typed = iter(["a few words", "a few words", "a few words", "other words", "short", "short"])
    monkeypatch.setattr("getpass.getpass", lambda *_, **__: next(typed))
    assert outrider(*given("keys generate gus.pem --name gus"), answers="").exit == 0
    assert outrider(*given("keys show gus.pub")).out.splitlines()[0].endswith("of gus")
    differ = outrider(*given("keys generate hal.pem --name hal"), answers="")
    assert "differ" in differ.err
    assert (code(differ), differ.exit) == ("OUT-T113", 2)
    assert "5 characters" in outrider(*given("keys generate hal.pem --name hal"), answers="").err
    assert not (at / "hal.pem").exists()


def test_without_anybody_to_type_it_a_passphrase_comes_from_a_file(at, outrider):
    ran = outrider(*given("keys generate gus.pem --name gus"))
    assert (code(ran), ran.exit) == ("OUT-T113", 2)
    assert "--passphrase-file" in ran.err


def test_a_wrong_passphrase_says_so(at, outrider):
    (at / "wrong").write_text("incorrect\n")
    first(outrider)
    ran = outrider(*given("trust sign first --key ana.pem --passphrase-file wrong --yes"))
    assert (code(ran), ran.exit) == ("OUT-T113", 2)
    assert "the passphrase is wrong" in ran.err
    assert not list(at.glob("*.seen.json"))


def test_keys_that_are_there_are_never_overwritten(at, outrider):
    before = (at / "ana.pem").read_bytes()
    for name in ("ana.pem", "ana"):
        ran = outrider(*given(f"keys generate {name} --name ana --unencrypted"))
        assert code(ran) == "OUT-S151"
    assert code(outrider(*given("keys generate gus.pub --name gus --unencrypted"))) == "OUT-S120"
    assert (at / "ana.pem").read_bytes() == before


# --- the first root -------------------------------------------------------------------------------


def test_a_fleet_gets_its_first_root_from_people_who_never_meet(founded, outrider):
    state = repository(founded).in_force()
    assert state.newest == 1
    ran = outrider(*given("trust status --home server --json"))
    roles = {each["role"]: each for each in json.loads(ran.out)["roles"]}
    assert roles["root"]["holders"] == ["ana", "bo", "cy"]
    assert roles["models"]["threshold"] == 2
    assert ran.exit == 0


def test_a_holder_is_asked_and_may_say_no(at, outrider):
    first(outrider)
    ran = outrider(*given("trust sign first --key ana.pem --passphrase-file words"), answers="n\n")
    assert code(ran) == "OUT-S152"
    assert "ana.pem signs root 1 and targets 1. Sign?" in ran.err
    assert '"signed": []' in outrider(*given("trust status first --json")).out
    yes = outrider(*given("trust sign first --key ana.pem --passphrase-file words"), answers="y\n")
    assert "root 1: 1 of 2; bo or cy is missing" in yes.out


def test_who_may_sign_nothing_is_told_who_may(at, outrider):
    first(outrider)
    outrider(*given("keys generate gus.pem --name gus --unencrypted"))
    ran = outrider(*given("trust sign first --key gus.pem --yes"))
    assert (code(ran), ran.exit) == ("OUT-T112", 6)
    assert "ana, bo, cy, dan, eve, fay" in ran.err


def test_a_ceremony_that_lacks_signatures_is_not_published(at, outrider):
    first(outrider)
    sign(outrider, "first", "ana", "bo", "dan")
    looked = outrider(*given("trust status first"))
    assert looked.exit == 8
    assert "models 1: 1 of 2; eve or fay is missing" in looked.out
    ran = outrider(*given("trust publish first --home server"))
    assert (code(ran), ran.exit) == ("OUT-T123", 6)
    assert code(outrider(*given("serve --home server"))) == "OUT-T116"


def test_everybody_at_one_machine_signs_at_once(at, outrider):
    names = " ".join(f"--key {name}.pem" for name in ("ana", "bo", "dan", "eve"))
    who = "--root ana.pub --root bo.pub --root cy.pub --approver dan.pub --approver eve.pub"
    online = "--online server/keys/online.pub --passphrase-file words"
    ran = outrider(*given(f"trust init first {online} {who} {names}"))
    assert "missing" not in ran.out
    assert outrider(*given("trust publish first --home server")).exit == 0


def test_a_ceremony_for_another_fleet_is_refused(at, outrider):
    outrider(*given("init --fleet south --home south --api-port 0 --broker-port 0"))
    first(outrider)
    sign(outrider, "first", "ana", "bo", "dan", "eve")
    ran = outrider(*given("trust publish first --home south"))
    assert (code(ran), ran.exit) == ("OUT-T124", 6)
    assert "fleet north, this is south" in ran.err
    # Saying that it is south's does not help: it does not name south's keys.
    about = at / "first" / "ceremony.json"
    about.write_text(about.read_text().replace("north", "south"))
    assert "does not have" in outrider(*given("trust publish first --home south")).err


def test_publishing_twice_changes_nothing(founded, outrider):
    before = repository(founded).in_force()
    ran = outrider(*given("trust publish first --home server"))
    assert ran.exit == 0
    assert "already" in ran.out
    assert repository(founded).in_force() == before


# --- changes --------------------------------------------------------------------------------------


def test_a_root_holder_is_replaced(founded, outrider):
    outrider(*given("keys generate gus.pem --name gus --passphrase-file words"))
    ran = outrider(*given("trust rotate second --home server --add-root gus.pub --remove-root cy"))
    assert "2 of ana, bo, cy -> 2 of ana, bo, gus" in ran.out
    sign(outrider, "second", "ana", "gus")
    assert "ana or cy" not in outrider(*given("trust status second")).out
    assert outrider(*given("trust publish second --home server")).exit == 6
    sign(outrider, "second", "bo")
    assert outrider(*given("trust publish second --home server")).exit == 0
    assert repository(founded).in_force().newest == 2


def test_the_server_s_keys_are_replaced(founded, outrider):
    before = repository(founded).document_key
    ran = outrider(*given("keys online --home server"))
    assert ran.exit == 0
    assert repository(founded).document_key == before
    outrider(*given("trust rotate second --home server --online server/keys/online.pub"))
    sign(outrider, "second", "bo", "cy")
    assert outrider(*given("trust publish second --home server")).exit == 0
    assert repository(founded).document_key != before
    assert not list((founded / "server" / "keys").glob("*.next.pem"))


def test_a_holder_sees_changes_against_their_own_copy(founded, outrider):
    outrider(*given("trust rotate second --home server --approver-threshold 3"))
    ran = outrider(*given("trust sign second --key ana.pem --passphrase-file words --yes"))
    assert "compared   with your own copy, ana.north.seen.json: root 1, targets 1" in ran.err
    assert "2 of dan, eve, fay -> 3 of dan, eve, fay may approve versions" in ran.err
    # cy has signed nothing before.
    ran = outrider(*given("trust sign second --key cy.pem --passphrase-file words --yes"))
    assert "with what the folder says is in force: root sha256-" in ran.err


def test_a_holder_refuses_another_fleet_s_root_under_the_same_name(founded, at, outrider):
    shutil.rmtree(at / "server")
    outrider(*given("init --fleet north --home server --api-port 0 --broker-port 0"))
    first(outrider, "other")
    ran = outrider(*given("trust sign other --key ana.pem --passphrase-file words --yes"))
    assert code(ran) == "OUT-T124"
    assert "remove ana.north.seen.json" in ran.err


def test_signing_two_contents_of_one_version_is_pointed_out(founded, outrider):
    for folder, threshold in (("one", 3), ("two", 1)):
        outrider(*given(f"trust rotate {folder} --home server --approver-threshold {threshold}"))
    sign(outrider, "one", "ana")
    ran = outrider(*given("trust sign two --key ana.pem --passphrase-file words --yes"))
    assert "you have signed another targets 2 before" in ran.err


def test_what_was_tampered_with_is_not_even_shown(founded, outrider):
    outrider(*given("trust rotate second --home server --approver-threshold 3"))
    path = founded / "second" / "new" / "targets.json"
    metadata = Metadata[Any].from_bytes(path.read_bytes())
    metadata.signed.delegations.roles["rollouts"].paths = ["*/*"]
    path.write_bytes(create.serialise(metadata))
    for command in (
        "trust sign second --key ana.pem --passphrase-file words --yes",
        "trust status second",
    ):
        ran = outrider(*given(command))
        assert (code(ran), ran.exit) == ("OUT-T124", 6)


def test_renewal_is_offered_when_it_is_time(founded, outrider, api, monkeypatch):
    early = outrider(*given("trust renew second --home server"))
    assert "nothing expires before long" in early.err
    api.clock[0] += 70 * 86_400_000
    ran = outrider(*given("trust status --home server"))
    assert ran.exit == 8
    assert "! models expires in 20 d: outrider trust renew" in ran.out
    outrider(*given("trust renew second --home server"))
    sign(outrider, "second", "dan", "fay")
    assert outrider(*given("trust publish second --home server")).exit == 0
    assert outrider(*given("trust status --home server")).exit == 0


def test_without_a_root_there_is_nothing_to_rotate(at, outrider):
    for command in ("trust rotate second --root-threshold 3", "trust status"):
        assert code(outrider(*given(f"{command} --home server"))) == "OUT-T116"


# --- a control plane that runs --------------------------------------------------------------------


def test_a_running_control_plane_installs_it_itself(api, outrider):
    of = api.parts.settings
    api.publish()
    all_keys = " ".join(f"--key {of.keys / name}" for name in ("root-1.pem", "approver-dev.pem"))
    wakes = len(api.wakes)
    outrider(*given(f"trust renew renewed --role root --role models {all_keys}"))
    with listen(of.api_host, of.api_port):
        ran = outrider(*given("trust publish renewed"))
    assert ran.out.startswith("in force root 2, targets 1, models 2")
    assert api.parts.repository.in_force().newest == 2
    assert len(api.wakes) == wakes + 1
    assert set(api.get("tuf").json()["roots"]) == {"1", "2"}
    (newest,) = (
        each for each in api.get("audit").json()["items"] if each["what"] == "trust.changed"
    )
    assert newest["about"] == "trust"


def test_the_api_refuses_what_is_not_signed(api, outrider):
    api.publish()
    outrider(*given("trust renew renewed --role models"))
    models = (api.folder / "renewed" / "new" / "models.json").read_text()
    answer = api.post("tuf", {"models": models})
    assert answer.status_code == 409
    assert answer.json()["code"] == "OUT-T123"
    assert api.post("tuf", {"models": "garbage"}).json()["code"] == "OUT-T124"
    assert api.post("tuf", {}).json() == {"changed": False, "root": 1, "targets": 1, "models": 1}
