"""What the benchmark of the evaluator consists of: the rows, both ways of evaluating them, and the comparison."""
