"""`galip_export.staging` under the name that it had in 0.1; to be removed after the next release."""

import warnings

from galip_export.signals import signals_wait
from galip_export.staging import staged_bundle, write

__all__ = ["signals_wait", "staged_bundle", "write"]

warnings.warn("galip_export.publish is now galip_export.staging", DeprecationWarning, stacklevel=2)
