"""Measuring a model with and without bundles, and the page that says what was found."""
