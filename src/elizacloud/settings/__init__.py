"""Settings of every process. Read once, from flags, ELIZACLOUD_* variables and one TOML file, in this order.

A secret may be given as `file:/path`. A wrong value is one sentence that says what to change (Misconfigured).
"""

from elizacloud.settings.fields import ENV_PREFIX, Settings
from elizacloud.settings.issuers import TrustedIssuer
from elizacloud.settings.kinds import is_local_address, is_loopback
from elizacloud.settings.load import CONFIG_FILE_VARIABLE, Loaded, child_environment, config_file, load_settings

__all__ = [
    "CONFIG_FILE_VARIABLE",
    "ENV_PREFIX",
    "Loaded",
    "Settings",
    "TrustedIssuer",
    "child_environment",
    "config_file",
    "is_local_address",
    "is_loopback",
    "load_settings",
]
