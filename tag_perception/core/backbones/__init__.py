"""The table of backbones. Adding one: a file with a Backbone, and a line here."""

from __future__ import annotations

from collections.abc import Callable

from tag_perception.core.backbones.backbone import Backbone, Features
from tag_perception.core.backbones.tag import TwoPathway

__all__ = ['BACKBONES', 'Backbone', 'Features']

BACKBONES: dict[str, Callable[..., Backbone]] = {
    'tag': TwoPathway,
}
