"""Text: files -> documents (`sources`, `read`) -> token store (`tokenizer`, `encode`, `split`, `store`) -> training rows (`rows`)."""
