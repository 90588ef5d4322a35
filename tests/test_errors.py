"""The error tree: every class answers with its own code, and the codes are documented."""

import inspect

from elizacloud import errors

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.Error)]


def test_every_class_but_the_base_has_a_code_of_its_own() -> None:
    codes = [cls.code for cls in CLASSES]
    assert len(codes) == len(set(codes))


def test_the_drawing_names_every_class() -> None:
    assert errors.__doc__ is not None
    for cls in CLASSES:
        assert cls.__name__ in errors.__doc__


def test_an_instance_may_be_more_exact_than_its_class() -> None:
    error = errors.Conflict("cannot do it: taken", code="name_taken")
    assert (error.reason, error.code, error.status) == ("name_taken", "conflict", 409)
    assert errors.Conflict("cannot do it").reason == "conflict"
