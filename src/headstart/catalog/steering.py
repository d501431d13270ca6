"""The cards of the families intervention, planning and data-pipeline. Data only."""

from __future__ import annotations

from headstart.catalog.card import Card

CONTINUE_EXAMPLE = """\
model/              a causal-LM folder of transformers (config.json, model.safetensors, tokenizer.json)
old.jsonl           text of the kind the model was trained on, to measure forgetting: {"text": "..."}
new.jsonl           the new text: {"text": "..."}"""

STEERING_CARDS: tuple[Card, ...] = (
    Card(
        slug="rewarm",
        title="Continual Pre-Training of Large Language Models: How to (re)warm your model?",
        arxiv="2308.04014",
        year=2023,
        venue="ES-FoMo workshop at ICML",
        family="intervention",
        data_kinds=("text", "code"),
        needs="a finished causal language model, validation text of its old domain, new text",
        gives="the same model adapted to the new text, with loss curves on old and new text",
        claim="At equal tokens, re-warming to the old peak and decaying again gives a lower loss on new text than going on at the old floor and "
        "than training from scratch; a higher peak trades more old-text loss for it, and the length of the warm-up does not matter.",
        expect="loss rises on old and new text first, then falls below the constant rate's. The peak is the dial between new and old",
        choose_when="you continue a model on a corpus large enough for the decay to finish",
        avoid_when="only a few hundred steps: the rise may cost more than it gains; keep the constant rate",
        official_code="none of its own; the runs used EleutherAI/gpt-neox",
        data_example=CONTINUE_EXAMPLE,
    ),
    Card(
        slug="stability_gap",
        title="Efficient Continual Pre-training by Mitigating the Stability Gap",
        arxiv="2406.14833",
        year=2025,
        venue="ACL",
        family="intervention",
        data_kinds=("text",),
        needs="a causal language model, a large domain pool, a small good reference of the domain, samples of the old sources",
        gives="a domain-adapted model, and curves of domain and general accuracy over training",
        claim="At equal tokens, several epochs over the best part of the pool with the old mixture kept give higher domain accuracy and a smaller "
        "loss of general ability than one epoch over the whole pool.",
        expect="paper: mean medical accuracy 36.2 to 40.7 with 40 % of the tokens of the plain run. Single runs there; seeds here",
        choose_when="far more domain text than budget, or adapted models lose general ability",
        avoid_when="the pool is small and clean already: there is nothing to select",
        official_code="none found (models only)",
        data_example="""\
model/              a causal-LM folder of transformers
pool.jsonl          {"id": "d1", "text": "..."}      much domain text of mixed quality
reference.jsonl     {"text": "..."}                  a little text of the quality you want
mixture.yaml        the old sources with shares, and which of them the domain text replaces""",
    ),
    Card(
        slug="spdf",
        title="SPDF: Sparse Pre-training and Dense Fine-tuning for Large Language Models",
        arxiv="2303.10464",
        year=2023,
        venue="UAI",
        family="intervention",
        data_kinds=("text",),
        needs="plain text to pre-train on, and a task with a source and reference texts",
        gives="a dense GPT-2 folder fine-tuned from a sparse one, its masks, and a FLOP account",
        claim="Pre-training with 75 % of the matrix weights fixed at zero and fine-tuning densely costs little quality against dense pre-training "
        "on the same tokens; dense fine-tuning is better than sparse.",
        expect="no faster run on an ordinary GPU: zeros are multiplied all the same. It is a study of quality at counted FLOPs (paper: 2.5 times "
        "fewer at 1.3 billion parameters); the smaller the model, the larger the loss",
        choose_when="you ask how much capacity your pre-training needs, or own hardware that skips zeros",
        avoid_when="you hope for speed on a plain GPU or CPU",
        official_code="Cerebras/modelzoo (release 1.8; no fine-tuning script)",
        data_example="""\
pretrain.jsonl      {"text": "..."}
task.jsonl          {"source": "name: Alimentum; area: city centre", "targets": ["Alimentum is in the city centre."]}""",
    ),
    Card(
        slug="self_distill",
        title="Self-Distillation for Further Pre-training of Transformers",
        arxiv="2210.02871",
        year=2023,
        venue="ICLR",
        family="intervention",
        data_kinds=("images", "labelled images", "text"),
        needs="a pre-trained checkpoint with its masked objective, and your unlabelled target data (often the training set itself)",
        gives="the same encoder, adapted",
        claim="From the same start and at equal total FLOPs, self-distilled further pre-training fine-tunes better than plain further "
        "pre-training and than fine-tuning at once; plain further pre-training gets worse when it runs longer.",
        expect="about 4.4 times the cost of plain further pre-training of the same length, for a model that overfits less",
        choose_when="a strong checkpoint exists and the target set is small (some thousands of images or texts)",
        avoid_when="millions of target samples, or no checkpoint",
        official_code="seanie12/self-distillation (images only)",
        data_example="""\
model/              a ViTMAEForPreTraining or RobertaForMaskedLM folder of transformers
images/class/1.png  the target images; or target.jsonl with {"text": "..."}""",
    ),
    Card(
        slug="nmtune",
        title="Understanding and Mitigating the Label Noise in Pre-training on Downstream Tasks",
        arxiv="2309.17002",
        year=2024,
        venue="ICLR",
        family="intervention",
        data_kinds=("labelled images", "labelled text"),
        needs="a backbone or its features, and labelled tasks; for the noise study a labelled pre-training set",
        gives="a small residual head on frozen features (safetensors), and a report of the feature spectrum",
        claim="Noise in pre-training labels lowers out-of-domain accuracy of linear probes, and NMTune beats linear probing and a plain MLP on "
        "out-of-domain data at every noise level.",
        expect="a noise audit of a backbone you cannot retrain, and a head more robust than a linear probe for minutes of work",
        choose_when="the backbone is given, its labels were noisy, and test data differ from training data",
        avoid_when="you may fine-tune the whole backbone with plenty of labels",
        official_code="Hhhhhhao/Noisy-Model-Learning (no licence)",
        data_example="""\
images/class/1.png  one folder per class
or features.npz     arrays features float32 [rows, dim], labels, split: no backbone needed""",
    ),
    Card(
        slug="dcpt_law",
        title="D-CPT Law: Domain-specific Continual Pre-Training Scaling Law for Large Language Models",
        arxiv="2406.01375",
        year=2024,
        venue="NeurIPS",
        family="planning",
        data_kinds=("loss table", "text"),
        needs="losses of small runs (parameters, tokens, mixture ratio), or the texts and checkpoints to make them",
        gives="fitted laws of general and domain loss, predictions with intervals, recommended ratios, tokens and sizes",
        claim="The law fitted on a few small mixtures predicts the loss of unseen ratios and of a larger size within 1 %, and the ratio that it "
        "recommends for a limit on general loss keeps the limit.",
        expect="an answer before a long run. Interpolating in the ratio is a strong rival at small scale; the report shows both",
        choose_when="you are about to adapt a language model and must choose how much general text to keep",
        avoid_when="you cannot afford some dozens of short runs, or change tokenizers between them",
        official_code="none found",
        data_example="""\
losses.csv          N,D,r_d,loss_general,loss_domain
                    98304,500000,0.5,4.60,3.95""",
    ),
    Card(
        slug="implicit_bias",
        title="Same Pre-training Loss, Better Downstream: Implicit Bias Matters for Language Models",
        arxiv="2210.14199",
        year=2023,
        venue="ICML",
        family="planning",
        data_kinds=("text", "labelled text"),
        needs="checkpoints of equal loss to compare and text with labels; for the study itself nothing, its languages are generated",
        gives="a sharpness meter for any checkpoint, and synthetic languages whose optimal loss is known exactly",
        claim="Among masked language models whose loss is equal and optimal, the one with the smaller trace of the Hessian has the higher probe "
        "accuracy, and training longer lowers the trace.",
        expect="advice which of two equal-loss checkpoints to keep. It is a measurement, not a training recipe; the trace changes under rescaling",
        choose_when="you compare checkpoints, or decide whether to train on after the loss is flat",
        avoid_when="the losses differ: then the loss decides",
        official_code="Liuhong99/implicitbiasmlmcode (part of it; no licence)",
        data_example="""\
model/              a masked or causal LM folder of transformers
text.txt            text to measure the loss on
task.csv            text,label""",
    ),
    Card(
        slug="webmath",
        title="InfiMM-WebMath-40B: Advancing Multimodal Pre-Training for Enhanced Mathematical Reasoning",
        arxiv="2409.12568",
        year=2024,
        venue="arXiv",
        family="data-pipeline",
        data_kinds=("html",),
        needs="crawled pages: WARC files, or any raw HTML with URL and crawl name",
        gives="interleaved documents of text and images with LaTeX intact (parquet or jsonl), and models continued on them",
        claim="The extractor keeps formulas that plain text extraction loses; at equal tokens, continuing on the filtered pages with LaTeX lowers "
        "the loss on held-out mathematics more than on unfiltered pages or without LaTeX.",
        expect="two cheap classifiers do the work. Paper, 1.3 billion parameters: GSM8K 4.8 before, 26.1 after. The positives decide what is kept",
        choose_when="you build a corpus on mathematics, or on any domain with positives of your own, from a crawl",
        avoid_when="your text is clean already",
        official_code="none; data Infi-MM/InfiMM-WebMath-40B",
        data_example="""\
crawl/CC-MAIN-2023-50-00000.warc.gz
or pages.jsonl      {"url": "https://example.org/euclid", "snapshot": "CC-MAIN-2023-50", "html": "<!doctype html> ..."}""",
    ),
)

BESIDE_CARDS: tuple[Card, ...] = (
    Card(
        slug="sam",
        title="Sharpness-Aware Minimization for Efficiently Improving Generalization",
        arxiv="2010.01412",
        year=2021,
        venue="ICLR",
        family="intervention",
        data_kinds=("text", "images"),
        needs="whatever the method around which it goes needs, and twice its compute",
        gives="the same model, at a flatter minimum",
        claim="At equal steps, training that takes each gradient at the worst weights nearby generalises better than training that does not.",
        expect="two passes an update, so half the steps in the same time; its gain is on small labelled sets, in pre-training it is little studied",
        choose_when="many epochs over little data, or flatness itself is the question (measure sharpness)",
        avoid_when="one pass over much data, where the same compute buys twice the steps",
        official_code="google-research/sam",
        data_example="whatever the method reads",
    ),
)
"""What composes with the methods and comes from papers beside the 35."""
