import pytest

from control_plane.cli.device_settings import changed, words
from protocol.errors import InvalidRequest

HOURS = {"start_minute": 60, "stop_minute": 300}


@pytest.mark.parametrize(
    "before, said, after, shown",
    [
        ({}, {}, {}, ""),
        ({}, {"bytes_per_day": "2MB"}, {"bytes_per_day": 2_000_000}, "at most 2.00 MB a day"),
        (
            {"bytes_per_day": 5, "capture_off": True},
            {"bytes_per_day": "any"},
            {"capture_off": True},
            "",
        ),
        (
            {},
            {"transfer": ["01:00-05:00"]},
            {"transfer_windows": [HOURS]},
            "downloads at 01:00-05:00",
        ),
        (
            {},
            {"transfer": ["23:30-02:00", "12:00-24:00"]},
            {
                "transfer_windows": [
                    {"start_minute": 1410, "stop_minute": 120},
                    {"start_minute": 720, "stop_minute": 1440},
                ]
            },
            "downloads at 23:30-02:00, 12:00-24:00",
        ),
        ({"transfer_windows": [HOURS]}, {"transfer": ["any"]}, {"transfer_windows": []}, ""),
        ({}, {"buffer": "64MB"}, {"buffer_bytes": 64_000_000}, "buffer 64.0 MB"),
        ({}, {"state_interval": "10min"}, {"state_interval_s": 600}, "reports every 10 min"),
        (
            {"bytes_per_day": 1000, "state_interval_s": None},
            {"state_interval": "2h"},
            {"bytes_per_day": 1000, "state_interval_s": 7200},
            "at most 1.00 kB a day, reports every 2 h",
        ),
    ],
)
def test_what_is_named_is_set_and_the_rest_stays(before, said, after, shown):
    assert changed(before, **said) == after
    assert ", ".join(words(after)) == shown


@pytest.mark.parametrize(
    "said",
    [
        {"bytes_per_day": "much"},
        {"buffer": "-1"},
        {"state_interval": "10"},
        {"transfer": ["1-5"]},
        {"transfer": ["01:00-25:00"]},
        {"transfer": ["01:60-05:00"]},
        {"transfer": ["01:00-01:00"]},
        {"transfer": ["any", "01:00-02:00"]},
    ],
)
def test_what_cannot_be_read_says_how_it_is_written(said):
    with pytest.raises(InvalidRequest) as refused:
        changed({}, **said)
    assert refused.value.code == "OUT-S120"
    assert refused.value.do
