"""`headstart import FILE_OR_FOLDER --out FOLDER`: an official checkpoint as a folder of transformers.

`import` is a word of Python: there the verb is `headstart.import_checkpoint`, and `main` imports this file by its name, as every verb.
"""

from __future__ import annotations

import argparse
import json
import sys

from headstart.core.bounds import refuse_outside
from headstart.verbs._export_settings import ACTIVATIONS, FORMATS, IMPORT, refuse_absent, refuse_place

HELP = "an official checkpoint (Cerebras, ELECTRA of TensorFlow, pre-norm BERT, MAE, timm) as a folder that --init and transformers take"
EXAMPLE = "headstart import my/electra_small --out my/electra"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="a checkpoint file, the name that a TensorFlow checkpoint's files begin with, or a folder with one of them")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument("--format", choices=FORMATS, default="auto", help="what it is (auto: recognised by the names of its weights)")
    parser.add_argument("--tokenizer", metavar="PATH", help="of texts: tokenizer.json, vocab.txt or a folder (default: beside the checkpoint)")
    parser.add_argument("--heads", type=int, metavar="N", help="heads of attention, where the file does not say it")
    parser.add_argument("--activation", choices=ACTIVATIONS, help="of a GPT of Cerebras (default: gelu, the exact one)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    refuse_outside({"heads": args.heads}, IMPORT)
    refuse_absent(args.source)
    refuse_place(args.out, "--out")  # a wrong place is refused before torch is imported
    from headstart.verbs.import_checkpoint import import_checkpoint

    say = lambda line: print(line, file=sys.stderr if args.json else sys.stdout)  # noqa: E731
    more = {"format": args.format, "tokenizer": args.tokenizer, "heads": args.heads, "activation": args.activation}
    done = import_checkpoint(args.source, args.out, say=say, **more)
    if args.json:
        print(json.dumps({"folder": str(done.folder), "model": str(done.model), **done.info, "load": done.load}, indent=1))
    return 0
