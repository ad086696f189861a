"""What training minimises: raw tensors and boxes to loss terms, with fixed shapes throughout."""
