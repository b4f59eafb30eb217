"""Compose the configuration: dataclass defaults, conf/<group>, conf/experiment, then command-line overrides."""

from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from enum import Enum
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from seif_nemo.config.root import Config

CONF_DIR = Path(__file__).resolve().parents[2] / "conf"


def compose_config(overrides: Sequence[str], *, conf_dir: Path = CONF_DIR) -> Config:
    """The typed configuration. Raises ValueError, one line that names the key, for anything that does not compose."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for group in fields(Config):
        store.store(group=group.name, name="default", node=group.type)  # type: ignore[arg-type]
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir)):
            composed = compose(config_name="config", overrides=list(overrides))
        config = OmegaConf.to_object(composed)
    except MissingMandatoryValue as error:
        raise ValueError(f"a value is missing: {_first_line(error)}") from error
    except (ConfigCompositionException, HydraException, OmegaConfBaseException) as error:
        raise ValueError(_explain(error, overrides)) from error
    assert isinstance(config, Config)
    return config


def default_lines() -> list[str]:
    """`key=default` for every key there is; ??? for those without a default."""
    defaults = OmegaConf.structured(Config)
    lines: list[str] = []
    for key in config_keys():
        group, _, name = key.rpartition(".")
        node = OmegaConf.select(defaults, group)
        lines.append(f"{key}={'???' if OmegaConf.is_missing(node, name) else _value_text(node[name])}")
    return lines


def _value_text(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_value_text, value))}]"
    return value.name if isinstance(value, Enum) else str(value)


def config_keys() -> list[str]:
    """All keys there are, such as `run.seed`."""

    def walk(prefix: str, cls: type) -> list[str]:
        keys: list[str] = []
        for field in fields(cls):
            key = f"{prefix}{field.name}"
            nested = hasattr(field.type, "__dataclass_fields__")
            keys += walk(f"{key}.", field.type) if nested else [key]  # type: ignore[arg-type]
        return keys

    return walk("", Config)


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """One line: what hydra or omegaconf found, and the nearest key that exists."""
    cause = error.__cause__ if error.__cause__ is not None else error
    message = _first_line(cause)
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if "." in key and key not in config_keys() and not _is_group(key):
            near = get_close_matches(key, config_keys(), n=1)
            return f"{override}: there is no key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    return message


def _is_group(key: str) -> bool:
    return any(known.startswith(f"{key}.") for known in config_keys())


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next((line.partition(":")[2].strip() for line in lines if line.startswith("full_key:")), "")
    return f"{key}: {lines[0]}" if key else (lines[0] if lines else type(error).__name__)
