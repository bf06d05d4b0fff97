"""Plot predictions and training curves."""

from mmattn.visualization.curves import plot_curves, read_scalars
from mmattn.visualization.data_samples import (
    predict_samples,
    read_classification,
    read_detection,
    read_segmentation,
)
from mmattn.visualization.predictions import (
    Detection,
    Instances,
    plot_classifications,
    plot_detections,
    plot_segmentations,
)

__all__ = [
    'Detection',
    'Instances',
    'plot_classifications',
    'plot_curves',
    'plot_detections',
    'plot_segmentations',
    'predict_samples',
    'read_classification',
    'read_detection',
    'read_scalars',
    'read_segmentation',
]
