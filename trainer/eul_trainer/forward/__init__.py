"""Running a model for its answers alone: rows packed without padding, no logits that nobody reads."""
