"""What the pages of an evaluation show, as plain values that HTML, Markdown and JSON share."""
