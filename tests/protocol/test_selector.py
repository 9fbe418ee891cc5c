"""Selectors: closed, bounded, total."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec
from protocol.errors import NotUnderstood, PeerError
from protocol.selector import MAX_NODES, Selector, matches, union

LABELS = {"site": "leeds", "line": "3", "fact/ram_mb": "512", "id": "cam-0117", "odd": "nan"}


def on(op, label, *values):
    return Selector(op, label, values)


SITE = on("eq", "site", "leeds")
YORK = on("eq", "site", "york")


@pytest.mark.parametrize(
    "selector, selected",
    [
        pytest.param(None, True, id="no selector selects everyone"),
        pytest.param(Selector("and"), True, id="an empty conjunction selects everyone"),
        pytest.param(Selector("or"), False, id="an empty disjunction selects no one"),
        pytest.param(SITE, True, id="equal value"),
        pytest.param(YORK, False, id="another value"),
        pytest.param(Selector("not", of=(YORK,)), True, id="negation"),
        pytest.param(Selector("and", of=(SITE, YORK)), False, id="conjunction needs all"),
        pytest.param(Selector("or", of=(SITE, YORK)), True, id="disjunction needs one"),
        pytest.param(on("in", "site", "york", "leeds"), True, id="one of the values"),
        pytest.param(on("in", "site"), False, id="one of no values"),
        pytest.param(on("prefix", "id", "cam-"), True, id="prefix of the name"),
        pytest.param(on("exists", "line"), True, id="a label that is there"),
        pytest.param(on("exists", "area"), False, id="a label that is not there"),
        pytest.param(on("eq", "area", ""), False, id="a missing label equals nothing"),
        pytest.param(on("ge", "fact/ram_mb", "512"), True, id="decimal, equal"),
        pytest.param(on("gt", "fact/ram_mb", "512"), False, id="decimal, not above"),
        pytest.param(on("lt", "line", "10"), True, id="decimals, not text order"),
        pytest.param(on("lt", "site", "10"), False, id="text is not ordered"),
        pytest.param(on("lt", "odd", "10"), False, id="nan is not ordered"),
        pytest.param(on("lt", "line", "Infinity"), False, id="infinity is not finite"),
    ],
)
def test_a_selector_selects_by_labels(selector, selected):
    assert matches(selector, LABELS) is selected


@pytest.mark.parametrize(
    "bad",
    [
        b'{"op":"eq","label":"site"}',
        b'{"op":"eq","label":"site","values":["a","b"]}',
        b'{"op":"eq","label":"SITE","values":["a"]}',
        b'{"op":"eq","values":["a"]}',
        b'{"op":"not"}',
        b'{"op":"and","label":"site"}',
        b'{"op":"exists","label":"site","values":["a"]}',
        b'{"op":"eq","label":"site","values":[1]}',
        b'{"op":["eq"]}',
        b'{"op":"and","of":[{"op":"not","of":[]}]}',
    ],
)
def test_a_malformed_selector_is_the_peers_fault(bad):
    with pytest.raises(PeerError) as caught:
        codec.decode(bad, Selector, limit=1000)
    assert not isinstance(caught.value, NotUnderstood)


def test_an_unknown_operator_deep_inside_is_not_understood_rather_than_malformed():
    future = b'{"op":"not","of":[{"op":"and","of":[{"op":"near","label":"site","values":["x"]}]}]}'
    with pytest.raises(NotUnderstood) as caught:
        codec.decode(future, Selector, limit=1000)
    assert caught.value.names == ("selector:near",)


def test_more_nodes_than_allowed_are_refused():
    with pytest.raises(ValueError, match="256"):
        Selector("or", of=(SITE,) * MAX_NODES)


def test_nesting_without_end_is_refused_without_a_crash():
    deep = b'{"op":"not","of":[' * 5000 + b'{"op":"and"}' + b"]}" * 5000
    with pytest.raises(PeerError):
        codec.decode(deep, Selector, limit=len(deep))


def test_a_union_that_is_too_large_to_say_selects_everyone():
    assert union([SITE] * MAX_NODES) is None
    assert union([SITE, None]) is None
    assert union([SITE]) == SITE


LEAVES = st.builds(
    Selector,
    st.sampled_from(["eq", "prefix", "lt", "ge"]),
    st.sampled_from(["site", "line", "id"]),
    st.tuples(st.sampled_from(["leeds", "3", "cam-", ""])),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda a: Selector("not", of=(a,)), inner),
        st.builds(lambda a: Selector("and", of=tuple(a)), st.lists(inner, max_size=3)),
        st.builds(lambda a: Selector("or", of=tuple(a)), st.lists(inner, max_size=3)),
    ),
    max_leaves=20,
)
LABEL_SETS = st.dictionaries(
    st.sampled_from(["site", "line", "id"]), st.sampled_from(["leeds", "3", "cam-1", "x"])
)


@given(TREES)
def test_a_selector_survives_the_wire(selector):
    assert codec.decode(codec.encode(selector), Selector, limit=100_000) == selector


@given(st.lists(TREES, min_size=1, max_size=5), LABEL_SETS)
def test_a_union_selects_whoever_one_of_its_parts_selects(selectors, labels):
    joined = union(list(selectors))
    assert matches(joined, labels) == any(matches(s, labels) for s in selectors)


@given(TREES, LABEL_SETS)
def test_negation_is_the_complement(selector, labels):
    assert matches(Selector("not", of=(selector,)), labels) != matches(selector, labels)
