"""The settings: one model is one YAML file. ``load`` reads it, with environment variables on top."""

from proxy.config.loading import load
from proxy.config.settings import Settings, settings_schema
from proxy.config.values import ConfigFault, SecretRef

__all__ = ["ConfigFault", "SecretRef", "Settings", "load", "settings_schema"]
