"""Full-weights supervised fine-tuning on answer tokens: it teaches the model that is then made to forget."""
