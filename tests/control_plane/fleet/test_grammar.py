"""Selector text: what it means, how it is written back, and where it cannot be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.fleet.grammar import SelectorUnreadable, format, parse
from protocol.selector import Selector, matches


def eq(label: str, value: str) -> Selector:
    return Selector("eq", label, (value,))


A, B, C = (Selector("exists", name) for name in "abc")


@pytest.mark.parametrize(
    "text, selector",
    [
        ("all", None),
        ("site = leeds", eq("site", "leeds")),
        ("site=leeds", eq("site", "leeds")),
        ("site != leeds", Selector("not", of=(eq("site", "leeds"),))),
        ("line", Selector("exists", "line")),
        ("not line", Selector("not", of=(Selector("exists", "line"),))),
        ("cam-*", Selector("prefix", "id", ("cam-",))),
        ("*", Selector("prefix", "id", ("",))),
        ("site = le*", Selector("prefix", "site", ("le",))),
        ("site in (leeds, york)", Selector("in", "site", ("leeds", "york"))),
        ("fact.ram_mb >= 512", Selector("ge", "fact/ram_mb", ("512",))),
        ("runs.digits = v1", eq("runs/digits", "v1")),
        ("team/owner = x", eq("team/owner", "x")),
        ("temp < -1.5", Selector("lt", "temp", ("-1.5",))),
        ("name = 'two words'", eq("name", "two words")),
        (r"name = 'it\'s'", eq("name", "it's")),
        ('name = "and"', eq("name", "and")),
        ("a or b and c", Selector("or", of=(A, Selector("and", of=(B, C))))),
        ("(a or b) and c", Selector("and", of=(Selector("or", of=(A, B)), C))),
        ("not a and b", Selector("and", of=(Selector("not", of=(A,)), B))),
        ("a and b and c", Selector("and", of=(A, B, C))),
        ("((a))", A),
    ],
)
def test_what_text_means(text, selector):
    assert parse(text) == selector


@pytest.mark.parametrize(
    "text, offset, why",
    [
        ("site = leeds and fact.ram_mb >= 512 and line =", 46, "a value is missing after ="),
        ("", 0, "a label is missing"),
        ("a and", 5, "a label is missing"),
        ("a b", 2, "and or or is missing before b"),
        ("(a", 2, ") is missing"),
        ("a)", 1, "and or or is missing before )"),
        ("a in b", 5, "( is missing after in"),
        ("a in (b", 7, ") is missing"),
        ("a in (b*)", 6, "no patterns inside in"),
        ("a > x", 4, "a number is wanted after >"),
        ("a > nan", 4, "a number is wanted after >"),
        ("a = 'b", 4, "a quote is not closed"),
        ("a = $", 4, "$ means nothing here"),
        ("Site = a", 0, "Site is no label"),
        ("= a", 0, "a label is missing before ="),
        ("a = and", 4, "a value is missing after ="),
    ],
)
def test_an_unreadable_selector_says_where_and_why(text, offset, why):
    with pytest.raises(SelectorUnreadable) as caught:
        parse(text)
    assert (caught.value.code, caught.value.offset, caught.value.why) == ("OUT-S101", offset, why)
    assert caught.value.caret == f"{text}\n{' ' * offset}^"


def test_a_missing_value_suggests_the_way_to_ask_for_no_label():
    with pytest.raises(SelectorUnreadable) as caught:
        parse("fact.arch =")
    assert caught.value.do == "for devices without the label: not fact.arch"


@pytest.mark.parametrize(
    "text", ["(" * 3000, "not " * 1000 + "a", "a and " * 300 + "a", "a" * 5000], ids=len
)
def test_a_monstrous_selector_is_refused(text):
    with pytest.raises(SelectorUnreadable):
        parse(text)


def test_numbers_compare_as_decimals_and_text_as_text():
    assert matches(parse("ram >= 512"), {"ram": "1024"})
    assert not matches(parse("ram >= 512"), {"ram": "much"})
    assert not matches(parse("ram = 512"), {"ram": "512.0"})


labels = st.from_regex(r"[a-z0-9][a-z0-9_/-]{0,8}", fullmatch=True)
values = (
    st.text(max_size=12)
    .filter(lambda text: len(text.encode(errors="replace")) <= 100)
    .filter(lambda text: text.encode("utf-8", "ignore").decode() == text)
)
numbers = st.decimals(allow_nan=False, allow_infinity=False, places=2).map(str)
tests = st.one_of(
    labels.map(lambda label: Selector("exists", label)),
    st.builds(
        lambda op, k, v: Selector(op, k, (v,)), st.sampled_from(["eq", "prefix"]), labels, values
    ),
    st.builds(
        lambda op, k, v: Selector(op, k, (v,)),
        st.sampled_from(["lt", "le", "gt", "ge"]),
        labels,
        numbers,
    ),
    st.builds(
        lambda k, v: Selector("in", k, tuple(v)), labels, st.lists(values, min_size=1, max_size=3)
    ),
    values.map(lambda value: Selector("prefix", "id", (value,))),
)
trees = st.recursive(
    tests,
    lambda inner: st.one_of(
        st.builds(lambda child: Selector("not", of=(child,)), inner),
        st.builds(
            lambda op, of: Selector(op, of=tuple(of)),
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=2, max_size=3),
        ),
    ),
    max_leaves=12,
)  # fmt: skip


@given(trees)
def test_what_is_written_is_read_as_the_same(selector):
    assert parse(format(selector)) == selector


def test_everyone_is_written_as_all():
    assert format(None) == "all"
