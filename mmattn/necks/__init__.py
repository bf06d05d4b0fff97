"""Necks: maps of a backbone in, maps of one width out."""

from .key_value_fusion import KeyValueFusion
