"""GALIP in PyTorch: model, losses, training, checkpoints and the `galip` command."""

import sys

from galip_runtime._renamed import RenamedModules

sys.meta_path.append(
    RenamedModules(
        {
            "galip.data.folder": "galip.data.shard_folder",
            "galip.data.order": "galip.data.sampler",
            "galip.data.sheet": "galip.data.contact_sheet",
            "galip.labels": "galip.sheets",
            "galip.metrics.cache": "galip.metrics.feature_cache",
            "galip.metrics.clip_scores": "galip.metrics.clip_encoder",
            "galip.metrics.look": "galip.metrics.features",
            "galip.train.begin": "galip.train.initialization",
            "galip.train.engine": "galip.train.fabric",
            "galip.train.fast": "galip.train.fast_layers",
            "galip.train.pictures": "galip.train.in_memory",
            "galip.train.presets": "galip.train.options",
            "galip.train.scoring": "galip.train.validation",
        }
    )
)
