"""Many deletion requests at once: planned, fanned out in this process or over Ray, retried, fused and reported."""
