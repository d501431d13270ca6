"""The cards of the families text, language-model, code, dialogue and retrieval. Data only."""

from __future__ import annotations

from headstart.catalog.card import Card

TEXT_EXAMPLE = """\
notes.txt (one sentence or paragraph a line, a blank line between documents)
    The pump was switched off at noon.
    Pressure fell within two minutes.

    A second document starts here.
or notes.jsonl (one document a line)
    {"text": "The pump was switched off at noon.\\nPressure fell within two minutes."}"""

LANGUAGE_CARDS: tuple[Card, ...] = (
    Card(
        slug="electra",
        title="ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators",
        arxiv="2003.10555",
        year=2020,
        venue="ICLR",
        family="text",
        data_kinds=("text",),
        needs="plain text, one sentence or paragraph a line, a blank line between documents",
        gives="a BERT-shaped encoder (transformers ElectraModel) and, as a by-product, the small generator (ElectraForMaskedLM)",
        claim="At equal training FLOPs and equal encoder size, an encoder pre-trained on replaced-token detection fine-tunes better than one "
        "pre-trained on masked language modelling.",
        expect="every token gives a learning signal, so it learns more per FLOP than MLM, most of all when small - once its generator has left "
        "the unigram plateau. Within minutes on two cores it has not: use preset tiny, which trains the generator first",
        choose_when="you own unlabelled text, have one GPU or less and want an encoder for classification, tagging or question answering",
        avoid_when="you need a model that fills masks or writes text (no vocabulary head), or have only a few minutes: then causal-lm",
        official_code="google-research/electra",
        data_example=TEXT_EXAMPLE,
    ),
    Card(
        slug="mcl",
        title="Pre-training Language Model as a Multi-perspective Course Learner",
        arxiv="2305.03981",
        year=2023,
        venue="Findings of ACL",
        family="text",
        data_kinds=("text",),
        needs="plain text, as electra; nothing else",
        gives="a discriminator encoder and its generator, exported like electra's",
        claim="With the same text and the same number of steps, a discriminator trained on three views of each sentence and on its own mistakes "
        "fine-tunes better than ELECTRA's.",
        expect="a gain per sentence seen, not per FLOP: one step costs about five of electra's. Paper: +2.8 GLUE, +3.2 SQuAD 2.0 over ELECTRA. "
        "No official code exists; this is a re-implementation from the description",
        choose_when="text is scarce and compute is not",
        avoid_when="compute is the limit: electra at the same FLOPs is the fair rival",
        official_code="none published; one fairseq checkpoint",
        data_example=TEXT_EXAMPLE,
    ),
    Card(
        slug="maltese",
        title="Pre-training Data Quality and Quantity for a Low-Resource Language: New Corpus and BERT Models for Maltese",
        arxiv="2205.10517",
        year=2022,
        venue="DeepLo workshop",
        family="text",
        data_kinds=("text",),
        needs="unlabelled text with a domain name per file; a tagged or labelled set; optionally a multilingual checkpoint",
        gives="a monolingual BERT, an adapted multilingual BERT (BertForMaskedLM folders) and a table of which text helps how much",
        claim="For the same number of words, text of several domains gives better taggers than text of one; more text is better still.",
        expect="an answer to 'more text or more varied text, from scratch or adapted?' for your language before you spend the compute",
        choose_when="nobody serves your language or jargon, and you can sort your text by domain",
        avoid_when="all your text is of one kind and a good model of the language exists: continue that one",
        official_code="MLRS/BERTu",
        data_example="""\
corpus/
    news.txt        one sentence a line, a blank line between documents; the file name is the domain
    law.txt
    blogs.txt
train.conllu        labelled sentences to test on (CoNLL-U, or token TAB tag)""",
    ),
    Card(
        slug="medical_bert",
        title="Pre-training technique to localize medical BERT and enhance biomedical BERT",
        arxiv="2005.07202",
        year=2020,
        venue="arXiv",
        family="text",
        data_kinds=("text",),
        needs="a small in-domain corpus and a much larger other corpus, with document and sentence boundaries",
        gives="a BERT encoder with a WordPiece vocabulary of its own (BertForPreTraining folder)",
        claim="At equal training FLOPs, BERT trained on a balanced mixture (small corpus repeated, vocabulary from the same mixture) recognises "
        "in-domain entities better than BERT trained on the plain union.",
        expect="domain words stay whole in the vocabulary; the small corpus is seen often without being memorised. It trains from scratch, "
        "so it costs more than continuing a finished model",
        choose_when="the in-domain corpus is too small to train on alone, or the general vocabulary shreds its words",
        avoid_when="you cannot afford training from scratch (bioptimus swaps the vocabulary of a finished BERT), or there is no larger corpus",
        official_code="sy-wada/blue_benchmark_with_transformers",
        data_example="""\
small/reports.txt   the in-domain corpus: one sentence a line, a blank line between documents
large/wiki.txt      the larger corpus, same form""",
    ),
    Card(
        slug="bioptimus",
        title="BIOptimus: Pre-training an Optimal Biomedical Language Model with Curriculum Learning for Named Entity Recognition",
        arxiv="2308.08625",
        year=2023,
        venue="BioNLP workshop",
        family="text",
        data_kinds=("text",),
        needs="a pre-trained BERT with its vocabulary, a domain corpus, optionally a domain vocabulary",
        gives="a BertForMaskedLM folder with the domain vocabulary, and new_tokens.tsv: how each new token was initialised",
        claim="After a vocabulary swap, new rows distilled from the old model's contextual representations reach a given domain MLM loss in fewer "
        "steps than random or sub-word-mean rows; a masking curriculum beats a single phase at equal FLOPs.",
        expect="a large, clean effect on the early loss; on entity F1 a smaller one (paper: +0.6 to +1.7 from the first to the last phase, each "
        "phase having trained longer than the one before)",
        choose_when="a general BERT exists, the task is token-level, and the general vocabulary shreds the domain's words",
        avoid_when="the old vocabulary already covers over 95 % of the new one (nothing to distil), or language or casing differ",
        official_code="rttl-ai/BIOptimus (no training code)",
        data_example="""\
base/               a BERT folder (config.json, model.safetensors, vocab.txt)
domain.txt          one sentence a line, a blank line between documents
vocab.txt           optional: the domain vocabulary; otherwise it is trained""",
    ),
    Card(
        slug="spread_love",
        title="Spread Love Not Hate: Undermining the Importance of Hateful Pre-training for Hate Speech Detection",
        arxiv="2210.04267",
        year=2022,
        venue="ICBINB workshop at NeurIPS",
        family="text",
        data_kinds=("text", "labelled text"),
        needs="a large unlabelled pool of the domain, a labelled set of the property (hateful or not, negative or not), test sets",
        gives="adapted encoders (selected, unselected, random text), a classifier, and an audit of what was selected",
        claim="For detecting a property, continued pre-training on text that has it is not better than on as much text of the same source "
        "that has not; in-domain text of either kind beats generic text.",
        expect="a table of paired differences that says whether collecting special text was worth it. The paper's finding is a negative one: "
        "the domain helps, the hate does not",
        choose_when="before you collect special text at a price (toxic, legal, complaints) to pre-train on",
        avoid_when="you have no rough classifier or label of the property: the selection would be random",
        official_code="l3cube-pune/MarathiNLP (data and models, no training code)",
        data_example="""\
pool.jsonl          {"text": "Delivery took three weeks and nobody answered."}
labelled.jsonl      {"text": "Great service.", "label": 0}""",
    ),
    Card(
        slug="mindllm",
        title="MindLLM: Pre-training Lightweight Large Language Model from Scratch, Evaluations and Domain Applications",
        arxiv="2310.15777",
        year=2024,
        venue="AI Open",
        family="language-model",
        data_kinds=("text",),
        needs="text of several sources in two languages; for tuning, instruction data",
        gives="a causal language model (GPT-Neo or Llama folder), a filtered instruction set, an evaluation table",
        claim="At the same number of training tokens, a small model that sees both languages mixed from the start has lower mean held-out bits "
        "per byte over both than one that learns them one after the other.",
        expect="a planner for mixture and order, an entropy filter for instructions, honest evaluation. Models of 1 to 3 billion parameters stay "
        "near chance on MMLU-like exams; the paper's gains there are small and depend on the prompt",
        choose_when="you want a small language model of your own in two languages, later in a narrow domain",
        avoid_when="an open model of your languages may be used: continuing it (rewarm, stability_gap) costs far less",
        official_code="none released; weights bit-dny/MindLLM-1b3-chat-zh-v2.0",
        data_example="""\
pretrain.jsonl      {"text": "...", "source": "web", "lang": "en"}
instructions.jsonl  {"instruction": "Summarise the contract.", "input": "...", "output": "..."}""",
    ),
    Card(
        slug="rst",
        title="reStructured Pre-training",
        arxiv="2206.11147",
        year=2022,
        venue="arXiv",
        family="language-model",
        data_kinds=("records",),
        needs="structured or half-structured sources: ratings, categories, titles, lexicons, relations, question-answer sets",
        gives="a T5 folder that answers prompts without examples; specialised models per group of signals",
        claim="At equal training FLOPs and on the same strings, pre-training on restructured signals gives higher few-shot accuracy on tasks "
        "whose signal was seen than T5 span corruption on the raw text.",
        expect="gains on tasks that are another access to a seen signal, little on others. Paper: ahead of its rivals on 52 of 55 data sets. "
        "The paper's full prompt list was not available; the prompt bank is ours",
        choose_when="you own tickets with categories, reviews with ratings, records with fields, and few labels",
        avoid_when="your text has no structure: then a language model or an encoder on raw text",
        official_code="ExpressAI/reStructured-Pretraining (no training code)",
        data_example="""\
tickets.jsonl       {"title": "Printer is offline", "text": "Since Monday ...", "category": "hardware", "rating": 2}
signals.yaml        which column plays which role: text, title, choice, rating, relation""",
    ),
    Card(
        slug="graphcodebert",
        title="GraphCodeBERT: Pre-training Code Representations with Data Flow",
        arxiv="2009.08366",
        year=2021,
        venue="ICLR",
        family="code",
        data_kinds=("code",),
        needs="functions with optional comments in python, java, javascript, go, php, ruby or c_sharp; no labels",
        gives="a RoBERTa encoder (transformers folder) and a data-flow extractor",
        claim="At equal training compute, masked language modelling with data-flow input and two edge losses gives a higher code-search MRR "
        "than masked language modelling on the same code and comments.",
        expect="paper: code search .713 MRR against .693 for CodeBERT. At small scale an effect of that size is at the edge of what a few "
        "seeds can show. The pre-training code was never released; this part follows the text alone",
        choose_when="code search, clone detection or classification of code, a parser exists, variable names say little",
        avoid_when="no parser for your language (it becomes plain MLM on code), or you want completion and generation: unixcoder",
        official_code="microsoft/CodeBERT (fine-tuning only)",
        data_example='functions.jsonl     {"code": "def area(r):\\n    return 3.14 * r * r", "doc": "Area of a circle.", "lang": "python"}',
    ),
    Card(
        slug="unixcoder",
        title="UniXcoder: Unified Cross-Modal Pre-training for Code Representation",
        arxiv="2203.03850",
        year=2022,
        venue="ACL",
        family="code",
        data_kinds=("code",),
        needs="functions with comments in several languages, code without comments, optionally plain text",
        gives="one RoBERTa-shaped model used as encoder, decoder or both (transformers folder); embeddings of code without labels",
        claim="Adding contrast and comment generation over code, syntax tree and comment makes zero-shot cross-language code-to-code search "
        "much better at equal compute.",
        expect="embeddings that work without fine-tuning, across languages (paper: 20.45 MAP zero-shot against 9.17 for GraphCodeBERT). "
        "Contrast carries most of it. Only plain code is needed at use",
        choose_when="one model for search, completion and summaries, or code-to-code search with no labels",
        avoid_when="over 90 % of your functions have no comment: the generation task has nothing to learn from",
        official_code="microsoft/CodeBERT (model and fine-tuning; no pre-training code)",
        data_example='functions.jsonl     {"code": "def area(r):\\n    return 3.14 * r * r", "doc": "Area of a circle.", "lang": "python"}',
    ),
    Card(
        slug="space2",
        title="SPACE-2: Tree-Structured Semi-Supervised Contrastive Pre-training for Task-Oriented Dialog Understanding",
        arxiv="2209.06638",
        year=2022,
        venue="COLING",
        family="dialogue",
        data_kinds=("dialogue",),
        needs="unlabelled conversations and labelled turns of any scheme, written as domain > intent > slot > value",
        gives="a BERT-shaped encoder (transformers folder) whose [CLS] knows turns and speakers",
        claim="Soft supervised contrast over label trees of other schemes, with self-supervised contrast, gives better few-shot intent accuracy "
        "than self-supervised contrast alone on the same texts.",
        expect="labelled sets whose schemes disagree become useful together. Without labels it is masked language modelling with dropout contrast",
        choose_when="intent detection, slot filling or state tracking with few labels, and related labelled sets exist",
        avoid_when="you have no labelled dialogue at all, or free chat without intents",
        official_code="AlibabaResearch/DAMO-ConvAI (folder space-2)",
        data_example="""\
dialogs.jsonl       {"id": "1", "turns": [{"r": "u", "t": "Find me Ethiopian food in Berkeley.",
                      "l": {"restaurants": {"inform": {"cuisine": [["Ethiopian", [8, 17]]]}}}}, {"r": "s", "t": "For how many?", "l": {}}]}""",
    ),
    Card(
        slug="prop",
        title="PROP: Pre-training with Representative Words Prediction for Ad-hoc Retrieval",
        arxiv="2010.10137",
        year=2021,
        venue="WSDM",
        family="retrieval",
        data_kinds=("text", "linked pages"),
        needs="plain documents; no queries, links or sections",
        gives="a BERT re-ranker with a one-output head (BertForSequenceClassification; loads as a CrossEncoder)",
        claim="At equal training FLOPs, masked language modelling with representative words prediction gives a better re-ranker than masked "
        "language modelling alone, most of all with few or no labelled queries.",
        expect="a re-ranker that already works without queries and needs few of them. It re-ranks: a first stage (BM25) must find the candidates",
        choose_when="you re-rank BM25's top over your own documents with zero to some hundreds of labelled queries",
        avoid_when="you need the first stage itself: retrieval_tasks for dense search",
        official_code="Albert-Ma/PROP",
        data_example='documents.jsonl     {"id": "d17", "title": "Pump manual", "text": "Switch the pump off before ..."}',
    ),
    Card(
        slug="bprop",
        title="B-PROP: Bootstrapped Pre-training with Representative Words Prediction for Ad-hoc Retrieval",
        arxiv="2104.09791",
        year=2021,
        venue="SIGIR",
        family="retrieval",
        data_kinds=("text", "linked pages"),
        needs="plain documents and a BERT trained with a sentence-level objective, whose [CLS] attention means something",
        gives="a BERT re-ranker with a one-output head, as prop",
        claim="Word sets sampled by contrastive [CLS] attention give a better re-ranker than word sets of the smoothed unigram language model, "
        "same start, same training FLOPs.",
        expect="a small gain over prop, of uncertain sign at small scale; the top words per document show what the encoder attends to",
        choose_when="documents are long and full of generic words, and a decent encoder of your language exists",
        avoid_when="the encoder was trained on masks only: its [CLS] attention is noise. Then prop",
        official_code="Albert-Ma/PROP (folder bprop)",
        data_example='documents.jsonl     {"id": "d17", "title": "Pump manual", "text": "Switch the pump off before ..."}',
    ),
    Card(
        slug="retrieval_tasks",
        title="Pre-training Tasks for Embedding-based Large-scale Retrieval",
        arxiv="2002.03932",
        year=2020,
        venue="ICLR",
        family="retrieval",
        data_kinds=("linked pages",),
        needs="pages with sections, titles and links between pages (one of its three tasks needs passages only)",
        gives="a query encoder and a document encoder (sentence-transformers folders) and an index-ready matrix of embeddings",
        claim="With few labelled questions, a two-tower Transformer pre-trained on pairs made from the documents' structure finds the answer "
        "passage far more often than the same network with masked language modelling or none.",
        expect="large gains over no pre-training and MLM, which hardly retrieve at all with few labels; BM25 stays strong at rank one",
        choose_when="first-stage dense or semantic search over a manual, wiki or intranet with few labelled questions",
        avoid_when="you only re-rank (prop), or want an inverted index with readable words (lexlip's sparse vectors)",
        official_code="none for the paper; parts in google-research/language (orqa)",
        data_example="""\
pages.jsonl         {"page": "pump/start", "title": "Starting the pump", "links": ["pump/stop"],
                      "sections": [{"title": "", "text": "The pump starts ..."}, {"title": "Valves", "text": "Open the valve ..."}]}""",
    ),
)

LANGUAGE_BASELINES: tuple[Card, ...] = (
    Card(
        slug="causal-lm",
        title="Improving Language Understanding by Generative Pre-Training (next-token prediction)",
        arxiv="",
        year=2018,
        venue="OpenAI report",
        family="language-model",
        data_kinds=("text", "code"),
        needs="plain text",
        gives="a causal language model (Llama or GPT-2 folder of transformers); its hidden states also serve as an encoder",
        claim="Next-token prediction is the baseline that every method of this library on text has to beat at equal compute.",
        expect="leaves the unigram plateau first, because every token is a target: the safest choice when only minutes are at hand",
        choose_when="you want a first result within minutes, or a model that writes",
        avoid_when="you have hours and want an encoder for tagging: electra or mlm see both sides of a word",
        official_code="openai/gpt-2",
        data_example=TEXT_EXAMPLE,
    ),
    Card(
        slug="mlm",
        title="BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding (masked language modelling alone)",
        arxiv="1810.04805",
        year=2019,
        venue="NAACL",
        family="text",
        data_kinds=("text", "code"),
        needs="plain text",
        gives="a BERT encoder that also fills masks (BertForMaskedLM folder)",
        claim="Masked language modelling is the baseline that the methods for text encoders have to beat at equal compute.",
        expect="the plain, well-understood encoder. Only the masked tokens are targets, so it sits longer on the unigram plateau than causal-lm",
        choose_when="you want a plain encoder, a mask filler, or a fair baseline",
        avoid_when="only minutes are at hand (causal-lm), or FLOPs are the limit over hours (electra)",
        official_code="google-research/bert",
        data_example=TEXT_EXAMPLE,
    ),
)
