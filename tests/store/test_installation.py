import pytest

from elizacloud.errors import Misconfigured
from elizacloud.store import Cipher, Marks, Store, new_secret_key, regressed
from tests.fakes.store import created
from tests.store.conftest import KEY, Clock, Open


async def test_a_store_belongs_to_one_installation(store: Store, open_store: Open, url: str) -> None:
    await store.installation.ensure("one")
    await (await open_store(url)).installation.ensure("one")
    with pytest.raises(Misconfigured, match="belongs to the installation one and this one is two"):
        await store.installation.ensure("two")


async def test_a_store_is_new_until_it_has_an_installation(store: Store, open_store: Open, url: str) -> None:
    assert await store.installation.present() is None
    await store.installation.ensure("one")
    assert await (await open_store(url)).installation.present() == "one"


async def test_another_secret_key_is_refused_at_open(store: Store, open_store: Open, url: str) -> None:
    await store.installation.ensure("one")
    with pytest.raises(Misconfigured, match="written with another secret key; restore that key"):
        await open_store(url, Cipher(new_secret_key()))
    await open_store(url, Cipher(new_secret_key(), KEY))


async def test_epochs_and_marks_only_grow(store: Store) -> None:
    before = await store.installation.marks()
    assert before == Marks(epoch=0, last_event=0)
    assert [await store.installation.next_epoch() for _ in range(3)] == [1, 2, 3]
    await created(store)
    after = await store.installation.marks()
    assert after == Marks(epoch=3, last_event=1)
    assert not regressed(after, before)
    assert not regressed(after, after)
    assert regressed(before, after)
    assert regressed(Marks(9, 0), after)
    assert regressed(Marks(0, 9), after)


async def test_headscale_and_relays_are_the_first_ones_until_others_are_accepted(
    store: Store, open_store: Open, url: str
) -> None:
    here, there = store.installation, (await open_store(url)).installation
    await here.ensure("one")
    assert await here.relays() == ()
    assert await here.relays(first=()) == ()
    assert await here.headscale_key(first="a") == "a"
    assert await here.relays(first=("r1",)) == ("r1",)
    assert await there.headscale_key(first="b") == "a"
    assert await there.relays(first=("r2",)) == ("r1",)
    await there.accept_headscale("b")
    await there.accept(("r1", "r2"))
    assert await here.headscale_key(first="a") == "b"
    assert await here.relays() == ("r1", "r2")
    await here.accept(())
    assert await there.relays(first=("r3",)) == ("r3",)


async def test_what_was_accepted_since_is_not_older_than_it_was(store: Store, clock: Clock) -> None:
    await store.installation.ensure("one")
    seen = Marks(epoch=9, last_event=9)
    assert regressed(await store.installation.marks(), seen)
    await store.installation.accept(())
    accepted = await store.installation.marks()
    assert accepted.accepted == clock.now.timestamp()
    assert not regressed(accepted, seen)
    assert regressed(accepted, Marks(9, 9, accepted.accepted)), "it was restored after it was accepted"


async def test_on_sqlite_a_later_start_fences_the_earlier_one(open_store: Open, sqlite_url: str) -> None:
    earlier, later = await open_store(sqlite_url), await open_store(sqlite_url)
    await earlier.installation.next_epoch()
    await earlier.owners.ensure("owner-1")
    await later.installation.next_epoch()
    await later.owners.ensure("owner-2")
    with pytest.raises(Misconfigured, match="another control plane was started on it") as caught:
        await earlier.owners.ensure("owner-3")
    assert caught.value.reason == "fenced"


async def test_on_postgresql_control_planes_write_side_by_side(open_store: Open, postgresql_url: str) -> None:
    earlier, later = await open_store(postgresql_url), await open_store(postgresql_url)
    assert await earlier.installation.next_epoch() == 1
    assert await later.installation.next_epoch() == 2
    await earlier.owners.ensure("owner-1")
