"""Plot predictions and training curves."""

from .curves import plot_curves
from .predictions import (
    plot_classifications,
    plot_detections,
    plot_segmentations,
    predict_samples,
)
