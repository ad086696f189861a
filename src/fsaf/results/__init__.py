"""From raw tensors to detections, metrics, pictures and reports."""
