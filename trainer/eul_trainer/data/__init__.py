"""Data builders: one folder per deletion request, the same bytes again for the same seed and sources."""
