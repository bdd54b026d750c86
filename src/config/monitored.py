"""Which direction of the monitored metric is the best, where nobody said."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from src.metrics.names import falls, find


def fill_monitor_mode(config: DictConfig) -> None:
    """Sets `monitor_mode` as the metric says where it is null. Called before interpolations are resolved, since callbacks
    refer to it; left null for a metric that is not known here, a user's own."""
    if "monitor" not in config or "monitor_mode" not in config or config.monitor_mode is not None:
        return
    key = str(config.monitor).removeprefix("val/")
    if find(key) is not None:
        OmegaConf.update(config, "monitor_mode", "min" if falls(key) else "max")
