"""Strategies that turn something valid into something hostile: bytes, JSON documents, numbers."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

NUMBERS: SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        [0, 1, -1, 2**31 - 1, 2**31, 2**63, -(2**63), 10**400, 0.0, -0.0, 5e-324, 1e-300, 1e308,
         -1e308, float('inf'), float('-inf'), float('nan')]
    ),
    st.integers(),
    st.floats(),
)  # fmt: skip

JSON_VALUES: SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda item: (
        st.lists(item, max_size=4) | st.dictionaries(st.text(max_size=4), item, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def damaged(draw, content: bytes, hot: int | None = None) -> bytes:
    """`content` cut off, with bytes changed, removed, doubled or put in; or no trace of it.

    `hot` is how many of the first and last bytes are hit more often than the rest.
    """
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        size = len(data)
        ends = [st.integers(0, size)]
        if hot is not None and size > 2 * hot:
            ends += [st.integers(0, hot), st.integers(size - hot, size)]
        at = draw(st.one_of(ends))
        how = draw(st.sampled_from(['flip', 'flip', 'flip', 'cut', 'remove', 'double', 'insert']))
        if how == 'flip' and at < size:
            data[at] ^= draw(st.integers(1, 255))
        elif how == 'cut':
            del data[at:]
        elif how == 'remove':
            del data[at : at + draw(st.integers(1, 64))]
        elif how == 'double':
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
        elif how == 'insert':
            data[at:at] = draw(st.binary(min_size=1, max_size=16) | st.just(b'\xff' * 8))
    return draw(st.one_of(*[st.just(bytes(data))] * 15, st.binary(max_size=200)))


@st.composite
def mutated(draw, document: Any) -> Any:
    """A JSON document with one to three values replaced, removed, added or moved."""
    result = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(result))
        if not places:
            return draw(JSON_VALUES)
        parent, key = places[draw(st.integers(0, len(places) - 1))]
        how = draw(st.sampled_from(['replace', 'replace', 'replace', 'remove', 'add', 'copy']))
        if how == 'replace':
            parent[key] = draw(JSON_VALUES)
        elif how == 'remove':
            del parent[key]
        elif how == 'add' and isinstance(parent, list):
            parent.append(draw(JSON_VALUES))
        elif how == 'add':
            parent[draw(st.text(max_size=6))] = draw(JSON_VALUES)
        else:
            other, its_key = places[draw(st.integers(0, len(places) - 1))]
            parent[key] = copy.deepcopy(other[its_key])
    return result


def _places(node: Any):
    """(parent, key) of every value below `node`."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(items) if isinstance(node, (dict, list)) else ():
        yield node, key
        if isinstance(value, (dict, list)):
            yield from _places(value)
