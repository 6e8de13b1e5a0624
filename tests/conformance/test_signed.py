"""The conformance tests that cross a store most, once more with all of it signed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance import test_cancel, test_durable, test_queues, test_retries
from tests.variants import VARIANTS, Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODULES = (test_cancel, test_durable, test_queues, test_retries)

#: Two keys: the second one verifies only.
KEYS = "signs-and-verifies-" * 2 + "," + "verifies-only-----" * 2

WORKER_IMPORTS = tuple(dict.fromkeys(name for module in MODULES for name in getattr(module, "WORKER_IMPORTS", ())))

DURABLE = [row for row in VARIANTS if "durable" in row.capabilities]

#: Fixtures of theirs.
FIXTURES = ("busy_queues", "lonely_url", "queues")

globals().update(
    {
        name: found
        for module in MODULES
        for name, found in vars(module).items()
        if name.startswith("test_") or name in FIXTURES
    }
)


@pytest.fixture(scope="module", params=DURABLE, ids=[f"{row.name}-signed" for row in DURABLE])
def variant(request: pytest.FixtureRequest, open_variant: Callable[[Variant], Variant]) -> Iterator[Variant]:
    """Give each durable executor, with keys in the environment of this process and of the workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TASKQ_SIGNING_KEYS", KEYS)
        found = open_variant(request.param)
        yield found
        if found.places is not None:
            found.places.close()


def test_it_is_signed(variant: Variant) -> None:
    """Otherwise this module would prove nothing."""
    with variant.open() as queue:
        assert type(queue._executor._store).__name__ == "SignedStore"  # type: ignore[attr-defined]
