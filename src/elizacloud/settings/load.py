"""Settings read from their sources, and passed on to processes of ours. Only this module reads the environment."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import SecretStr, ValidationError
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from elizacloud.errors import Misconfigured
from elizacloud.settings.fields import ENV_PREFIX, Settings

CONFIG_FILE_VARIABLE = "ELIZACLOUD_CONFIG"
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR")


def child_environment(
    settings: Mapping[str, str] | None = None, *, without: Collection[str] = (), config: Path | None = None
) -> dict[str, str]:
    """The environment of a process of ours: what every program needs, and with `settings` also these and our own.

    Of our own variables only those are passed on that are settings, so never a person's token, and none that is named in
    `without`, where the secrets belong that the process does not need. Without `settings` none is passed on at all.
    `config` is the TOML file to read, where it was named by a flag.
    """
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    if settings is not None:
        variables = {name: f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields if name not in without}
        passed_on = (CONFIG_FILE_VARIABLE, *variables.values())
        environment |= {name: os.environ[name] for name in passed_on if name in os.environ}
        environment |= {variables[name]: value for name, value in settings.items() if name in variables}
    if config is not None:
        environment[CONFIG_FILE_VARIABLE] = str(config.absolute())
    return environment


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and for each field where its value came from: flag, environment, the file's path, or default."""

    settings: Settings
    sources: Mapping[str, str]

    def shown(self) -> dict[str, tuple[str, str]]:
        """Each setting's value for people, secrets masked, and its source."""
        return {
            name: (_show(getattr(self.settings, name)), self.sources.get(name, "default"))
            for name in Settings.model_fields
        }


def _show(value: Any) -> str:
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}={each}" for name, each in value.items())
    return "" if value is None else str(value)


def config_file() -> Path | None:
    """The TOML file to read: $ELIZACLOUD_CONFIG, or the user's own if it exists."""
    if named := os.environ.get(CONFIG_FILE_VARIABLE):
        return Path(named)
    own = Path(platformdirs.user_config_dir("elizacloud")) / "elizacloud.toml"
    return own if own.is_file() else None


def load_settings(flags: Mapping[str, Any] | None = None, *, file: Path | None = None) -> Loaded:
    """Read all sources; a flag of None counts as not given. Raises Misconfigured with one sentence a wrong value."""
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    path = file or config_file()
    from_file: dict[str, Any] = {}
    if path is not None:
        if not path.is_file():
            raise Misconfigured(
                f"cannot read the settings file {path}: it does not exist; create it or unset {CONFIG_FILE_VARIABLE}"
            )
        try:
            from_file = dict(TomlConfigSettingsSource(Settings, toml_file=path)())
        except ValueError as error:
            raise Misconfigured(f"cannot read the settings file {path}: {error}; correct its TOML") from error
    from_environment = EnvSettingsSource(Settings)()
    sources = (
        dict.fromkeys(from_file, str(path))
        | dict.fromkeys(from_environment, "environment")
        | dict.fromkeys(given, "flag")
    )
    try:
        settings = Settings(**{**from_file, **from_environment, **given})
    except ValidationError as error:
        sentences = "; ".join(
            _sentence(detail, sources) for detail in error.errors(include_url=False, include_input=False)
        )
        raise Misconfigured(f"cannot use the settings: {sentences}") from None
    return Loaded(settings, sources)


def _sentence(detail: Any, sources: Mapping[str, str]) -> str:
    name = str(detail["loc"][0]) if detail["loc"] else "settings"
    inside = ".".join(map(str, detail["loc"][1:]))
    if detail["type"] == "extra_forbidden" and not inside:
        return f"{name} (from {sources.get(name, 'a source')}) is not a setting; `elizacloud settings` lists them all"
    source = sources.get(name, "default")
    where = f"{ENV_PREFIX}{name.upper()}" if source == "environment" else f"{name} (from {source})"
    reason = str(detail["msg"]).removeprefix("Value error, ")
    where += f", {inside}" if inside else ""
    return f"{where}: {reason[0].lower() + reason[1:]}"
