"""Second moments of a layer, as fusion reads them and as they are stored."""
