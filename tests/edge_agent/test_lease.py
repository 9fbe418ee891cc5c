from edge_agent.lease import Lease


def test_whoever_waits_longest_goes_first():
    lease = Lease().asked("b").asked("a").asked("b")
    assert lease.grants("b", busy=False)
    assert not lease.grants("a", busy=False)
    assert lease.dropped("b").grants("a", busy=False)


def test_nobody_begins_while_another_model_changes():
    assert not Lease().asked("a").grants("a", busy=True)


def test_who_did_not_ask_is_not_granted():
    assert not Lease().grants("a", busy=False)
