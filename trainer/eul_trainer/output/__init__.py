"""What a run leaves behind: bundles, models, cards, each written whole or not at all."""
