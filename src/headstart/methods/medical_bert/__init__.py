"""medical_bert: a small corpus and a large one, balanced. See docs/methods/medical_bert.md."""
