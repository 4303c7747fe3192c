"""Settings a command was not given: the bundle remembers those of its training."""

from typing import Any

from fakenews.bundle import BundleContent
from fakenews.errors import ConfigError


def data_setting(content: BundleContent, name: str, given: Any) -> Any:
    """An option of the data, as given or else as in the bundle's training.

    Args:
        content: The bundle.
        name: The option, as in `conf/data/`.
        given: What the user asked for; None takes that of the training.

    Raises:
        ConfigError: It was not given, and the bundle does not say.
    """
    if given is not None:
        return given
    provenance = content.provenance
    # Of a prepared dataset, the columns were chosen when it was prepared.
    prepared = provenance.get("data", {}).get("settings", {})
    recorded = {**prepared, **provenance.get("config", {}).get("data", {})}
    if name not in recorded:
        raise ConfigError(f"{name} is not set and the bundle does not say: give {name}=VALUE")
    return recorded[name]
