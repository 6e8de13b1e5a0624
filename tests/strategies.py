"""Strategies of hypothesis for the values that may travel."""

from __future__ import annotations

from datetime import UTC

from hypothesis import strategies as st

from tests.sample_values import Colour, Pair, Point

keys = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8"))
    | st.binary() | st.uuids()
)  # fmt: skip

leaves = (
    keys
    | st.floats()
    | st.complex_numbers(allow_nan=False)
    | st.datetimes()
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.datetimes(timezones=st.just(UTC)) | st.decimals(allow_nan=False) | st.binary().map(bytearray)
)  # fmt: skip

#: Any value that every executor carries.
portable = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys | st.tuples(keys, keys), inner, max_size=4)
        | st.sets(keys, max_size=4)
        | st.frozensets(keys, max_size=4)
    ),
    max_leaves=12,
)

#: Any value that an executor which pickles carries.
picklable = st.recursive(
    portable | st.sampled_from(Colour) | st.fractions() | st.builds(range, st.integers(-9, 9)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.builds(Point, st.integers(), inner)
        | st.builds(Pair, inner, inner)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
