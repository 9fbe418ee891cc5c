"""Attacks beyond trusted metadata: on the broker, on bundles, on the API. Each names its test."""

from __future__ import annotations

from typing import Final

from tests.attacks.matrix import ATTACKS, DISK, NETWORK, ONLINE
from tests.attacks.row import Row

BROKER: Final = "the broker and the control plane's certificate for it"
DEVICE: Final = "the certificate and key of one device"
APPROVERS: Final = "approvers who sign without looking"
ANYBODY: Final = "nothing but the address of the API"
OPERATOR: Final = "a token of the API, by its role"
MIRROR: Final = "an address that a hint names, or the way to it"
STICK: Final = "the stick that a technician carries"

_FLEET = "e2e/test_attacks_broker.py"
_FLEETS = "control_plane/test_broker_fleets.py"
_HOSTILE = "e2e/test_hostile.py"
_API = "control_plane/web/test_attacks.py"
_RANGE = "control_plane/web/test_range.py"
_USB = "edge_agent/technician"
_HTTP = "edge_agent/test_fetch_http.py"

KEYS_ROWS: Final = (
    Row(
        "Unapproved model, whole fleet",
        ONLINE,
        "publishes a list of approvals that no approver signed",
        "refused (`OUT-T101`), shown in the device's state; what runs goes on",
        f"{_FLEET}::test_a_bundle_that_only_online_keys_list_is_not_approved",
    ),
    Row(
        "Order to run what nobody approved",
        ONLINE,
        "signs a document that pins a device to a bundle without approval",
        "changes nothing, and is reported (`OUT-T104`)",
        f"{_FLEET}::test_an_order_to_run_what_nobody_approved_changes_nothing_and_is_reported",
    ),
    Row(
        "Older approvals, whole fleet",
        ONLINE,
        "points a new snapshot at an older list",
        "refused (`OUT-T101`)",
        f"{_FLEET}::test_older_approvals_under_a_new_snapshot_are_refused",
    ),
    Row(
        "Old plan",
        BROKER,
        "publishes the plan of before in place of the new one",
        "refused (`OUT-T106`); followed as soon as the new one arrives",
        f"{_FLEET}::test_an_old_plan_is_not_followed",
    ),
    Row(
        "Old document",
        BROKER,
        "publishes the device's document of before",
        "refused (`OUT-T102`)",
        f"{_FLEET}::test_an_old_document_is_refused",
    ),
    Row(
        "Wrong documents, well signed",
        ONLINE,
        "another device's; settings out of range or of another kind; terms from the future",
        "refused as a whole (`OUT-T102`, `OUT-N210`, `OUT-D330`)",
        f"{_FLEET}::test_a_document_is_refused_although_it_is_signed",
    ),
    Row(
        "Capture switched on",
        ONLINE,
        "a document that asks for raw inputs",
        "no setting does that: the only one about capture switches it off",
        "protocol/test_device.py"
        "::test_settings_can_switch_capture_off_and_nothing_can_switch_it_on",
    ),
    Row(
        "Thrash",
        ONLINE,
        "orders two approved bundles in turn, every minute",
        "at most 8 trials a day per model, 15 minutes apart",
        "edge_agent/test_denials.py"
        "::test_whoever_orders_two_bundles_in_turn_gets_eight_trials_a_day_and_never_two_at_once",
    ),
    Row(
        "Thrash, whole fleet",
        ONLINE,
        "orders another approved bundle minutes after the last",
        "held back and reported (`OUT-D340`)",
        f"{_FLEET}::test_orders_back_and_forth_between_approved_bundles_are_held_back",
    ),
    Row(
        "The year 2040, whole fleet",
        ONLINE,
        "a timestamp issued in 2040",
        "nothing new starts (`OUT-T121`) until the online keys are replaced; then all goes on",
        f"{_FLEET}::test_a_timestamp_of_2040_holds_up_what_is_new_until_the_online_keys"
        "_are_replaced",
    ),
)

BROKER_ROWS: Final = (
    Row(
        "Garbage as the next root",
        BROKER,
        "retains garbage on the topic of the next root",
        "refused and reported (`OUT-T101`); approvals and plans go on arriving",
        f"{_FLEET}::test_garbage_on_the_next_root_topic_fails_closed_and_holds_up_nothing_else",
    ),
    Row(
        "Garbage everywhere",
        BROKER,
        "broken, deep and huge messages on every topic that a device listens to",
        "counted and forgotten",
        f"{_HOSTILE}::test_garbage_on_every_topic_that_a_device_listens_to_is_counted_and_forgotten",
    ),
    Row(
        "Tampered bundle",
        BROKER,
        "changes frames, frame lists, hints, index or manifest on their way",
        "refused (`OUT-F102`, `OUT-F111`, `OUT-F103`, `OUT-T107`); only the signed digest accepts",
        f"{_HOSTILE}::test_a_tampered_part_of_a_bundle_is_never_used",
    ),
    Row(
        "Payload bomb",
        BROKER,
        "a payload of 32 kB that unpacks to 1 GiB",
        "given up (`OUT-F110`) at the signed size, in bounded memory",
        f"{_FLEET}::test_a_payload_that_unpacks_to_a_gigabyte_is_given_up_in_bounded_memory",
    ),
    Row(
        "Huge plan",
        BROKER,
        "a plan of 2 MB on the plan's topic",
        "refused by its size (`OUT-N211`) before it is kept",
        f"{_FLEET}::test_a_plan_of_a_million_rules_is_refused_by_its_size",
    ),
    Row(
        "A million rules, well listed",
        ONLINE,
        "lists and signs a plan of a million rules",
        "refused by its size (`OUT-N211`) before it is parsed",
        "edge_agent/test_documents.py"
        "::test_a_listed_plan_of_a_million_rules_is_refused_before_it_is_parsed",
    ),
    Row(
        "Emptied or cut cache files",
        DISK,
        "older metadata after files of the cache or of the marks were damaged",
        "refused: either file makes up for the other",
        "edge_agent/test_trust_cache.py::test_a_damaged_cache_does_not_remove_rollback_protection",
    ),
)

BUNDLE_ROWS: Final = (
    Row(
        "Signed manifest that lies",
        APPROVERS,
        "a member of 2^63 bytes, or a path that leaves the bundle",
        "refused (`OUT-B120`); nothing is written or allocated for it",
        f"{_FLEET}::test_a_manifest_is_refused_although_approvers_signed_it",
    ),
    Row(
        "Signed model that cannot run",
        APPROVERS,
        "a damaged ONNX file, or one of the future",
        "rejected (`OUT-D302`); the version before goes on",
        f"{_HOSTILE}::test_a_model_that_cannot_be_loaded_is_rejected_and_the_one_before_goes_on",
    ),
    Row(
        "Path traversal and links in a push",
        OPERATOR,
        "a tar with `..`, absolute paths, symbolic and hard links, devices",
        "refused (`OUT-B120`); nothing is left",
        f"{_API}::test_a_pushed_bundle_writes_nothing_outside_its_folder",
    ),
    Row(
        "Links and pipes on a stick",
        STICK,
        "symbolic links, pipes and folders in place of files",
        "never opened",
        f"{_USB}/test_stick.py::test_what_is_no_ordinary_file_is_never_opened",
    ),
    Row(
        "Bomb on a stick",
        STICK,
        "a payload that unpacks to more than is signed",
        "refused in bounded space",
        f"{_USB}/test_usb.py::test_a_decompression_bomb_is_refused_in_bounded_space",
    ),
    Row(
        "One approver's stick",
        STICK + ", and one approver's key",
        "approvals with one of two signatures",
        "refused (`OUT-T101`): only freshness is relaxed for a stick",
        "edge_agent/test_trust_carried.py::test_one_approver_of_two_cannot_put_anything_on_a_stick",
    ),
)

MIRROR_ROWS: Final = (
    Row(
        "Mirror that lies",
        MIRROR,
        "answers other bytes, another range, a page, a redirect, packed bytes",
        "refused (`OUT-F108`, `OUT-F102`); the payload comes another way",
        f"{_HTTP}::test_what_a_mirror_does_wrong_only_costs_the_mirror",
    ),
    Row(
        "Mirror that dawdles",
        MIRROR,
        "sends a few bytes now and then",
        "is left (`OUT-F107`), and rests",
        f"{_HTTP}::test_a_mirror_that_trickles_is_left_for_the_broker",
    ),
    Row(
        "Hint that points inside",
        BROKER,
        "names addresses on the device, its link, or with credentials",
        "never asked",
        "edge_agent/test_urls.py::test_loopback_and_the_wire_next_to_the_device_are_refused",
    ),
    Row(
        "Hint that asks for the proof",
        BROKER,
        "names a host of the attacker, which asks who is there",
        "learns which payload is asked for, and no proof",
        f"{_HTTP}::test_the_proof_is_sent_to_the_control_plane_and_to_nobody_else",
    ),
)

DEVICE_ROWS: Final = (
    Row(
        "Speaking for others",
        DEVICE,
        "publishes plans, frames, metadata, documents; another device's telemetry and presence",
        "the broker confirms and drops it",
        f"{_FLEET}::test_a_device_publishes_nothing_for_others",
    ),
    Row(
        "Listening to others",
        DEVICE,
        "subscribes to everything, and to another device's document and acknowledgements",
        "hears what is for all and its own",
        f"{_FLEET}::test_a_device_hears_nothing_of_others",
    ),
    Row(
        "Another's client id",
        DEVICE,
        "connects under the id of another device",
        "is taken for itself; the other's connection stays",
        f"{_FLEET}::test_another_s_client_id_is_of_no_use",
    ),
    Row(
        "Another fleet's topics",
        DEVICE,
        "publishes and subscribes below another fleet's prefix",
        "nothing arrives",
        f"{_FLEET}::test_another_fleet_s_topics_are_out_of_reach",
    ),
    Row(
        "Two fleets on one broker",
        DEVICE,
        "reads and writes what is of the other fleet, which is there",
        "nothing arrives",
        f"{_FLEETS}::test_a_device_neither_reads_nor_writes_what_is_of_the_other_fleet",
    ),
    Row(
        "Name of another fleet",
        DEVICE,
        "connects to the listener of the other fleet",
        "does not get in",
        f"{_FLEETS}::test_nobody_of_one_fleet_gets_into_the_other_not_even_its_control_plane",
    ),
    Row(
        "Revoked certificate",
        DEVICE + ", which is revoked",
        "connects to the broker",
        "does not get in",
        f"{_FLEETS}::test_a_revoked_certificate_is_refused_from_the_reload_on",
    ),
    Row(
        "Rogue certificate",
        NETWORK,
        "the right name, signed by another authority",
        "does not get in",
        f"{_FLEET}::test_the_right_name_of_a_wrong_authority_does_not_get_in",
    ),
    Row(
        "Telemetry bomb",
        DEVICE,
        "a message of 32 kB that unpacks to 1 GiB, ten times",
        "refused and counted (`OUT-N211`), in bounded memory",
        f"{_FLEET}::test_a_message_that_unpacks_to_a_gigabyte_is_refused_in_bounded_memory",
    ),
)

API_ROWS: Final = (
    Row(
        "Used enrolment token",
        "an enrolment token that was used",
        "enrols a second device",
        "refused (`OUT-A202`)",
        f"{_API}::test_an_enrolment_token_is_good_once",
    ),
    Row(
        "Expired enrolment token",
        "an enrolment token of yesterday",
        "enrols a device",
        "refused (`OUT-A201`)",
        f"{_API}::test_an_enrolment_token_expires",
    ),
    Row(
        "Endless bodies",
        ANYBODY,
        "bodies without an end, or that claim 2^63 bytes, on every public route",
        "cut off at the limit of the route (`OUT-N211`)",
        f"{_API}::test_no_public_route_takes_more_than_its_limit",
    ),
    Row(
        "Guessing tokens",
        ANYBODY,
        "tries one token after the other",
        "must wait (`OUT-A103`); others need not",
        "control_plane/web/test_guesses.py::test_after_so_many_wrong_tokens_an_address_must_wait",
    ),
    Row(
        "Payloads without a device",
        ANYBODY,
        "asks for payloads without a proof, or with one that it made itself",
        "refused (`OUT-A101`, `OUT-A211`) before anything is looked for",
        f"{_RANGE}::test_without_a_proof_nothing_is_answered",
    ),
    Row(
        "Guessing proofs",
        ANYBODY,
        "tries one proof after the other",
        "must wait (`OUT-A103`)",
        f"{_RANGE}::test_a_wrong_proof_counts_as_a_guess_and_no_proof_does_not",
    ),
    Row(
        "Another's proof",
        DEVICE + ", or a proof that it has seen",
        "uses it for another payload, another device, or any other route",
        "refused (`OUT-A211`); a proof opens one payload to one device",
        f"{_RANGE}::test_proofs_for_another_payload_or_device_do_not_open_this_one",
    ),
    Row(
        "Payloads for a retired device",
        DEVICE + ", which is retired",
        "goes on reading payloads over HTTP",
        "refused at once (`OUT-A212`)",
        f"{_RANGE}::test_a_retired_device_reads_nothing",
    ),
    Row(
        "Holding the route",
        DEVICE,
        "opens many downloads, and takes nothing of what it asked for",
        "32 at a time; who takes nothing for two minutes gives its place back",
        f"{_RANGE}::test_who_takes_nothing_any_more_gives_its_place_back",
    ),
    Row(
        "Every route, every role",
        OPERATOR,
        "calls every endpoint with the token of every role",
        "only what the table of rights says (`OUT-A204`)",
        "control_plane/web/test_roles.py::test_every_role_may_what_the_page_says_and_nothing_else",
    ),
)

GROUPS: Final[dict[str, tuple[Row, ...]]] = {
    "Trusted metadata": tuple(attack.row for attack in ATTACKS),
    "Stolen online keys": KEYS_ROWS,
    "The broker and the device's disk": BROKER_ROWS,
    "Bundles": BUNDLE_ROWS,
    "Mirrors": MIRROR_ROWS,
    "A stolen device": DEVICE_ROWS,
    "The API": API_ROWS,
}
