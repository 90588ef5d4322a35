"""Run on a compiled relay: prints each native class whose memory would be laid over that of an interpreted base.

mypyc knows the fields of a base only when it compiles that, too. One with fields of its own, among them a place for weak
references, is overwritten, and the garbage collector crashes at it; abstract classes, protocols and exceptions of ours are such.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import elizacloud.relay
import elizacloud.tailnet
from elizacloud.relay.compiled import COMPILED

NATIVE = "__mypyc_attrs__"
KNOWN_TO_MYPYC = (object, dict, Exception, BaseException)


def native_classes() -> Iterator[type]:
    packages = (elizacloud.relay, elizacloud.tailnet)
    for found in (
        found for package in packages for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ):
        module: ModuleType = importlib.import_module(found.name)
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == found.name and NATIVE in vars(value):
                yield value


def fits(base: type) -> bool:
    return NATIVE in vars(base) or base in KNOWN_TO_MYPYC or base.__basicsize__ == object.__basicsize__


def main() -> None:
    assert COMPILED, f"{elizacloud.relay.__file__} is not compiled"
    classes = list(native_classes())
    assert classes
    for each in classes:
        for base in each.__mro__:
            if not fits(base):
                print(f"{each.__module__}.{each.__qualname__} is native, its base {base.__qualname__} is not")


if __name__ == "__main__":
    main()
