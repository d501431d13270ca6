"""Hostile and damaged files: whatever comes in from outside, nothing but an error of ours leaves, and nothing outside its folder is touched.

`test_fuzz_*.py` start from what our own writers write and damage it (`mutations.py`), with a fixed budget, a fixed seed and a limit on memory.
`test_attack_*.py` make each attack that we know of by hand.

| outside bytes | reader | what it trusts |
| --- | --- | --- |
| configuration (YAML) | `core.config.read_yaml` | nothing: plain values, no tags, no aliases, types checked against the dataclass |
| run.json, metrics.jsonl | `core.run.read_run`, `read_lines`, `RunFolder` | that the store it names may be opened (and is checked as any store) |
| store: manifest, arrays, tokenizer | `data.text.store.open_text_store` | token ids, until a batch is made or `verify` reads them |
| training rows | `data.text.rows.Rows` | nothing; ids are looked at with each batch |
| half-made store (.work) | `data.text.encode.read_part` | what it says of the files it was made from, once its plan equals the command's |
| texts: txt, md, jsonl, csv, tsv, parquet, gzip, zstd | `data.text.read.Reading` | nothing; links in a data folder are followed |
| tokenizer.json, vocab.txt, tokenizer_config.json | `data.text.tokenizer.load_tokenizer` | that its steps take time linear in the text |
| transformers folder | `interop.model_folder`, `interop.transformers_io` | transformers' own code for the architecture |
| ELECTRA heads, TF1 arrays | `methods.electra.network`, `interop.electra_tf1` | nothing |
| labelled files: csv, tsv, jsonl, parquet, CoNLL, SQuAD | `tasks.data` | nothing |
| fine-tuned model | `tasks.saved.load_finetuned` | as a transformers folder |
| checkpoints | `engine.checkpoint.Checkpointer.load_newest` | hashes say what was written, not who wrote it; no pickle |
| a folder to judge | `catalog.folder.what_lies_here` | file endings |
"""
