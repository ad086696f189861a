"""The network: images to raw tensors, nothing of training or post-processing."""
