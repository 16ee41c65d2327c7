from __future__ import annotations

import pytest

from search.disk.closing import Closing


class Door(Closing):
    shut = 0

    def close(self) -> None:
        self.shut += 1


def test_a_thing_is_closed_when_its_block_ends_and_when_it_fails() -> None:
    door = Door()
    with door as same:
        assert same is door
    with pytest.raises(ValueError, match="inside"), door:
        raise ValueError("inside")
    assert door.shut == 2


def test_a_thing_that_cannot_be_closed_says_so() -> None:
    with pytest.raises(NotImplementedError), Closing():
        pass
