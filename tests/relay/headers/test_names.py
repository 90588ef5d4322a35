from elizacloud.relay.headers.names import NameRule

asked: list[bytes] = []


@NameRule
def starts_with_x(lower: bytes) -> bool:
    asked.append(lower)
    return lower.startswith(b"x-")


def test_it_decides_once_for_each_name() -> None:
    asked.clear()
    assert [starts_with_x[name] for name in (b"x-a", b"host", b"x-a", b"host")] == [True, False, True, False]
    assert asked == [b"x-a", b"host"]


def test_long_names_and_more_than_fit_are_decided_all_the_same() -> None:
    for number in range(10_000):
        assert starts_with_x[b"x-%d" % number]
        assert not starts_with_x[b"y-%d" % number]
    assert starts_with_x[b"x-" + b"a" * 1000]
    assert len(starts_with_x) <= 4096
