"""A patient's cases in order, against what was put into them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from treated import treated_service

from search.cases.over_time import timeline
from search.errors import NoSuchCase
from search.service import Service


@pytest.fixture(name="service", scope="module")
def _service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = treated_service(tmp_path_factory.mktemp("time"))
    yield service
    service.close()


def test_cases_stand_in_order_of_date_with_what_changed_since_the_first(service: Service) -> None:
    found = timeline(service.context(), "P01")

    assert [one.case for one in found.moments] == ["P01-c", "P01-b", "P01-a"]
    assert [one.days for one in found.moments] == [0, 30, 60]
    assert [one.differential.get("blast") for one in found.moments] == [0.6, 0.3, 0.1]
    assert {one.origin for one in found.moments} == {"labels"}
    blast = {one.number - 1 for one in found.prototypes if one.label == "blast"}
    shares = [sum(one.shares[at] for at in blast) for one in found.moments]
    assert shares == pytest.approx([0.6, 0.3, 0.1])
    assert found.moments[0].distance == 0
    assert found.moments[2].distance >= 0.5 - 1e-9
    assert found.warnings == ()
    with pytest.raises(NoSuchCase):
        timeline(service.context(), "nobody")
