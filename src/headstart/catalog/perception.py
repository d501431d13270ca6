"""The cards of the families image-text, image, 3-d, speech, video and decision. Data only."""

from __future__ import annotations

from headstart.catalog.card import Card

IMAGE_FOLDER = """\
images/             any folder of images, nested as you like (png, jpg, webp, tif); no labels needed
    a/0001.png
    b/0002.jpg
or images.npz       array 'images' or 'train_images': uint8 [n, height, width] or [n, height, width, channels]"""

PERCEPTION_CARDS: tuple[Card, ...] = (
    Card(
        slug="lexlip",
        title="LexLIP: Lexicon-Bottlenecked Language-Image Pre-Training for Large-Scale Image-Text Sparse Retrieval",
        arxiv="2302.02908",
        year=2023,
        venue="ICCV",
        family="image-text",
        data_kinds=("captioned images",),
        needs="images with captions",
        gives="an image and a text encoder that both give non-negative weights over words; the text side loads as a SparseEncoder",
        claim="At equal training FLOPs, lexicon-bottlenecked pre-training before the contrastive phase gives better image-text recall than "
        "contrastive training alone, and its sparse vectors come within two points of a dense dual encoder at a far smaller index.",
        expect="readable vectors ('dog 1.6, grass 1.1') that live in an ordinary search engine. Paper: 5.8 times faster and 19.1 times less "
        "index memory than CLIP at large scale. No weights were ever released",
        choose_when="text-to-image search on CPUs with an inverted index, filters or hybrid search",
        avoid_when="a dense index is fine and recall is all that counts, or you have no captions (unipt makes them)",
        official_code="ChiYeungLaw/LexLIP-ICCV23",
        data_example="""\
captions.jsonl      {"image": "images/0001.jpg", "captions": ["a camel next to a tulip"]}
or captions.tsv     header: title TAB filepath TAB image_id""",
    ),
    Card(
        slug="unipt",
        title="Unified Pre-training with Pseudo Texts for Text-To-Image Person Re-identification",
        arxiv="2309.01420",
        year=2023,
        venue="ICCV",
        family="image-text",
        data_kinds=("images", "captioned images"),
        needs="unlabelled crops of one kind of object, a list of attribute phrases, and a zero-shot labeller (CLIP) or given attributes",
        gives="an image encoder (timm ViT), a text encoder (transformers BERT) and two projections",
        claim="Pre-training both towers jointly on in-domain images with pseudo texts gives a higher text-to-image Rank-1 after the same "
        "fine-tuning than pre-training the towers separately on the same data.",
        expect="paper: 1.5 to 1.9 points of Rank-1 over separately pre-trained towers; more images with noisier captions cost half a point",
        choose_when="finding the picture a sentence describes (products, vehicles, parts), plenty of pictures, few real captions",
        avoid_when="the domain has no nameable attributes; for pictures of people only with a legal reason to",
        official_code="ZhiyinShao-H/UniPT (pre-training only)",
        data_example="""\
images/0001.jpg     crops of one kind of object
attributes.yaml     colour: ["a red car", "a blue car"]; body: ["a van", "an estate car"]
or captions.jsonl   {"image": "images/0001.jpg", "captions": ["a red van with a roof rack"], "attributes": {"colour": "red"}}""",
    ),
    Card(
        slug="droppos",
        title="DropPos: Pre-Training Vision Transformers by Reconstructing Dropped Positions",
        arxiv="2309.03576",
        year=2023,
        venue="NeurIPS",
        family="image",
        data_kinds=("images", "labelled images"),
        needs="unlabelled images",
        gives="a plain ViT encoder with MAE's and timm's parameter names (timm and transformers ViT folders)",
        claim="At equal training FLOPs, DropPos gives a ViT that fine-tunes better than one from random initialisation and not worse than MAE.",
        expect="steps of about half of MAE's cost without the affinity pass. Paper: ViT-B 84.2 ImageNet top-1 after 800 epochs; MAE 83.6 after 1,600",
        choose_when="the images have a layout that matters (organs, products, documents) and the task is spatial; or as a second opinion beside mae",
        avoid_when="position cannot be told from content (textures, aerial tiles, microscopy): the loss stays near that of guessing",
        official_code="Haochen-Wang409/DropPos",
        data_example=IMAGE_FOLDER,
    ),
    Card(
        slug="croco",
        title="CroCo: Self-Supervised Pre-training for 3D Vision Tasks by Cross-View Completion",
        arxiv="2210.10716",
        year=2022,
        venue="NeurIPS",
        family="image",
        data_kinds=("image pairs",),
        needs="unlabelled pairs of images of one scene from two viewpoints with overlap; no poses, no depth",
        gives="a ViT encoder (single-image tasks) and encoder with decoder (stereo, flow, pose), with the names that DUSt3R loads",
        claim="At equal training FLOPs, cross-view completion transfers better to disparity estimation than MAE and than no pre-training.",
        expect="it has to learn to match before it helps: at small budgets the network copies the same place of the second view instead; "
        "the run reports the cross-view gain, watch it",
        choose_when="you own video, stereo rigs or photo collections and want depth, stereo, flow or pose",
        avoid_when="your pairs are two augmentations of one photograph: the network finds a shortcut",
        official_code="naver/croco (non-commercial licence)",
        data_example="""\
pairs/
    hall_0001_1.jpg     view 1
    hall_0001_2.jpg     view 2 of the same scene, overlapping
or pairs.txt            two paths a line""",
    ),
    Card(
        slug="satmaepp",
        title="Rethinking Transformers Pre-training for Multi-Spectral Satellite Imagery (SatMAE++)",
        arxiv="2403.05419",
        year=2024,
        venue="CVPR",
        family="image",
        data_kinds=("multiband", "images"),
        needs="unlabelled satellite crops: RGB, or stacks of spectral bands, all with the same bands in the same order",
        gives="a ViT encoder: plain (RGB), or with one patch embedding per group of bands",
        claim="At equal training FLOPs, reconstructing at two or three scales gives better downstream accuracy than one scale on multi-spectral "
        "data, and both beat no pre-training.",
        expect="as many tokens per place as there are band groups, so it is slower than MAE. Paper: +2.5 mAP over SatMAE on BigEarthNet",
        choose_when="more than three bands, or ground resolution that varies (Sentinel-2: 10, 20 and 60 m)",
        avoid_when="RGB photographs: plain mae is simpler",
        official_code="techmn/satmae_pp",
        data_example="""\
tiles/0001.tif      GeoTIFF, all bands in one file
or tiles.npz        array 'bands': [tiles, channels, height, width]""",
    ),
    Card(
        slug="spark_medical",
        title="Self-Supervised Pre-Training with Contrastive and Masked Autoencoder Methods for Dealing with Small Datasets in Deep Learning for "
        "Medical Imaging",
        arxiv="2308.06534",
        year=2023,
        venue="Scientific Reports",
        family="image",
        data_kinds=("images", "labelled images", "volumes"),
        needs="unlabelled two-dimensional slices or images (CT volumes are cut into slices)",
        gives="a ResNet encoder with torchvision's and timm's parameter names; SwAV, MoCo v2, BYOL and SimCLR arms beside it",
        claim="As labelled images become fewer, a CNN pre-trained with SparK loses less than one pre-trained with a contrastive method, at equal "
        "pre-training FLOPs.",
        expect="no pairs, no negatives, no large batch, hardly any augmentation. The sparse convolutions are masked dense ones: they save no memory",
        choose_when="convolutional networks, grey or quantitative images, small batches and few labels",
        avoid_when="you want a ViT (mae, droppos), or slices of one patient would fall on both sides of your split",
        official_code="Wolfda95/SSL-MedicalImagining-CL-MAE, keyu-tian/SparK",
        data_example="""\
slices/0001.png     grey or RGB images; or DICOM and NIfTI volumes, read slice by slice
or medmnist.npz     arrays train_images, train_labels, val_*, test_*""",
    ),
    Card(
        slug="clip2point",
        title="CLIP2Point: Transfer CLIP to Point Cloud Classification with Image-Depth Pre-training",
        arxiv="2210.01055",
        year=2023,
        venue="ICCV",
        family="3-d",
        data_kinds=("meshes",),
        needs="meshes with colours and their point clouds, class names, and a CLIP model (or captions to train a small one)",
        gives="a depth encoder in CLIP's shape (transformers CLIPVisionModelWithProjection) and a few-shot adapter",
        claim="Image-depth contrastive pre-training makes an image-text model classify depth maps far better, zero-shot and few-shot, than its "
        "image encoder does directly.",
        expect="about double the zero-shot accuracy of plain CLIP on depth maps in the paper; very sensitive to the up axis of your shapes",
        choose_when="you have CLIP and meshes to render, and must classify point clouds with few or no labels",
        avoid_when="you have thousands of labelled clouds: train a point network on them",
        official_code="tyhuang0428/CLIP2Point (no licence)",
        data_example="""\
meshes/chair/0001.glb     one folder per class; glb, obj, off, ply or stl, with colours where there are any
clouds/0001.ply           or npy [points, 3]""",
    ),
    Card(
        slug="hykist",
        title="Unsupervised Pre-Training for Vietnamese Automatic Speech Recognition in the HYKIST Project",
        arxiv="2309.15869",
        year=2022,
        venue="bachelor thesis, FH Aachen and RWTH",
        family="speech",
        data_kinds=("audio", "transcribed audio"),
        needs="unlabelled speech, some transcribed hours, optionally a multilingual checkpoint",
        gives="a wav2vec 2.0 encoder with 20 ms frames (transformers folder) and a CTC recogniser",
        claim="With few labels in a mismatched telephone domain, continuing the pre-training of a multilingual encoder on in-domain audio gives a "
        "lower word error rate than fine-tuning it directly; both beat no pre-training.",
        expect="the loss sits at that of guessing for the first thousands of updates on raw waveforms: budget for it. The author's follow-up "
        "reports 51.8 % to 29.6 % word error rate from continuing",
        choose_when="recognition with few transcripts, and your channel or domain differs from public models",
        avoid_when="a public recogniser already works on your audio, or you have no GPU and hours of raw waveform",
        official_code="none for the thesis; recipes in leduckhai/MultiMed; engine facebookresearch/fairseq",
        data_example="""\
calls/0001.wav      wav, flac, ogg or mp3, any length
labelled.jsonl      {"audio": "calls/0001.wav", "text": "good morning"}""",
    ),
    Card(
        slug="blsp",
        title="BLSP: Bootstrapping Language-Speech Pre-training via Behavior Alignment of Continuation Writing",
        arxiv="2309.00916",
        year=2023,
        venue="arXiv",
        family="speech",
        data_kinds=("transcribed audio",),
        needs="speech with transcripts, a speech encoder (Whisper) and an instruction-following language model; no spoken instructions",
        gives="a small adapter that lets the unchanged language model listen",
        claim="At equal adapter compute, an adapter aligned on continuations follows instructions it never saw with speech better than an adapter "
        "trained on transcription.",
        expect="the language model answers speech and stays untouched. Word error rates stay far above a recogniser's; tone and speaker are "
        "lost by construction",
        choose_when="transcribed speech exists, spoken instructions do not, and the language model must not change",
        avoid_when="transcripts are all you want: a recogniser is better; or clips are longer than 30 s",
        official_code="cwang621/blsp",
        data_example='speech.jsonl        {"audio": "clips/0001.flac", "text": "the train leaves at nine"}',
    ),
    Card(
        slug="ctc_ot",
        title="Pre-training for Speech Translation: CTC Meets Optimal Transport",
        arxiv="2301.11716",
        year=2023,
        venue="ICML",
        family="speech",
        data_kinds=("translated audio", "transcribed audio"),
        needs="speech with transcripts, source text with translations, then speech with translations",
        gives="a speech encoder (and decoder) that start a plain encoder-decoder (transformers Speech2Text folder)",
        claim="At equal pre-training compute, speech translation started from CTC beats a start from cross-entropy, and CTC with optimal "
        "transport beats CTC.",
        expect="better translation without any change of architecture. Paper: 26.4, 27.6 and 27.8 BLEU (medium), 28.8, 29.2 and 29.8 (large) on "
        "MuST-C for cross-entropy, CTC, and CTC with transport",
        choose_when="you have transcripts and a text translation model, and little translated speech",
        avoid_when="you have no transcripts (hykist), or plenty of translated speech already",
        official_code="formiel/fairseq (examples/speech_text_siamese)",
        data_example='speech.jsonl        {"audio": "clips/0001.wav", "text": "forty-two", "translation": "quarante-deux"}',
    ),
    Card(
        slug="context_wm",
        title="Pre-training Contextualized World Models with In-the-wild Videos for Reinforcement Learning",
        arxiv="2305.18499",
        year=2023,
        venue="NeurIPS",
        family="video",
        data_kinds=("video",),
        needs="videos without actions (clips of 25 frames or more); an environment or episodes with actions to fine-tune",
        gives="context encoder, frame encoder, latent dynamics and decoder; after fine-tuning also actor and critic",
        claim="Pre-training on diverse videos without actions improves the sample efficiency of model-based RL when the world model is "
        "contextualised, and much less when it is plain.",
        expect="a latent state that keeps what moves and drops the backdrop. The RL part needs a GPU and an hour; small budgets say nothing",
        choose_when="visual control with cluttered scenes and few interactions",
        avoid_when="backgrounds are plain, or there will be no control task",
        official_code="thuml/ContextWM",
        data_example="""\
clips/0001.mp4      or frame folders with a list file: path n_frames label
episodes/0001.npz   arrays image, action, reward, is_first, is_last, is_terminal""",
    ),
    Card(
        slug="v_ptr",
        title="Robotic Offline RL from Internet Videos via Value-Function Pre-Training",
        arxiv="2309.13041",
        year=2023,
        venue="arXiv",
        family="video",
        data_kinds=("video", "trajectories"),
        needs="many videos without actions, robot episodes (image, action, task, success), a few demonstrations of the target task",
        gives="an image encoder (timm names), and a Q network and policy started from it",
        claim="Encoders pre-trained by value learning on action-free video give higher success after offline RL with few robot demonstrations "
        "than the same RL without video, above all under distractors.",
        expect="two long phases, both needed. No code of the whole method was published; the parts are taken from three repositories",
        choose_when="value-based control follows and you have video of similar manipulation",
        avoid_when="the task is classification: a contrastive or masked encoder is simpler",
        official_code="none for the whole; dibyaghosh/icvf_release, Asap7772/PTR, nakamotoo/Cal-QL",
        data_example="""\
clips/0001.mp4      video without actions
robot.npz           arrays image, action, task, success, episode, step""",
    ),
    Card(
        slug="oc_gfn",
        title="Pre-Training and Fine-Tuning Generative Flow Networks",
        arxiv="2310.03419",
        year=2024,
        venue="ICLR",
        family="decision",
        data_kinds=("scored objects",),
        needs="an environment that builds discrete objects step by step; a reward only when adapting",
        gives="a sampler that reaches any requested object, and two small networks per reward",
        claim="The pre-trained, adapted sampler finds more modes of a new reward than a GFlowNet trained from scratch.",
        expect="exploration is paid once for many rewards. The official code could not be read: nothing is checked against it",
        choose_when="you sample diverse sequences or designs for many changing rewards, and scoring is dear",
        avoid_when="there is a single reward: train a GFlowNet on it directly",
        official_code="announced as ling-pan/OC-GFN; not obtainable",
        data_example="""\
scores.csv          sequence,value
                    ACGTACGT,0.42
or a Python function: a batch of strings in, non-negative rewards out""",
    ),
)

PERCEPTION_BASELINES: tuple[Card, ...] = (
    Card(
        slug="mae",
        title="Masked Autoencoders Are Scalable Vision Learners",
        arxiv="2111.06377",
        year=2022,
        venue="CVPR",
        family="image",
        data_kinds=("images", "labelled images"),
        needs="unlabelled images",
        gives="a plain ViT encoder (timm and transformers ViT folders) and the decoder that reconstructs",
        claim="Masked pixel reconstruction is the baseline that the image methods of this library have to beat at equal compute.",
        expect="a slow, steady learner that wants many epochs; users report poor results below some tens of thousands of images",
        choose_when="RGB photographs, a ViT, and time for many epochs; or a fair baseline",
        avoid_when="few images and a CNN will do (spark_medical), or a good checkpoint exists (self_distill continues it)",
        official_code="facebookresearch/mae",
        data_example=IMAGE_FOLDER,
    ),
    Card(
        slug="interleaved-lm",
        title="InfiMM-WebMath-40B: Advancing Multimodal Pre-Training for Enhanced Mathematical Reasoning (its training)",
        arxiv="2409.12568",
        year=2024,
        venue="arXiv",
        family="image-text",
        data_kinds=("interleaved documents", "captioned images"),
        needs="documents with their images on this disk; a causal language model (--init) and a vision tower (--method.vision-tower), both folders "
        "of transformers",
        gives="the language model (transformers folder), beside it a Perceiver resampler and the frozen tower",
        claim="Continued pre-training on interleaved documents before instruction tuning gives better answers about images than instruction tuning "
        "alone, and than continued pre-training on text.",
        expect="three runs one after another: align, continue, tune. Paper, 1.3 billion parameters: MathVerse 22.3 without the second, 26.9 with it",
        choose_when="your documents explain with figures, and a language model shall read both",
        avoid_when="texts alone will do (causal-lm reads the same files as text), or you want vectors of images",
        official_code="none",
        data_example="""\
pages.parquet       text_list: ["A triangle has", null, "three sides."], image_list: [null, "triangle.png", null]
or pairs.jsonl      {"image": "images/0001.jpg", "caption": "a camel next to a tulip"}
or asked.jsonl      {"images": ["triangle.png"], "question": "How many sides has <image> ?", "answer": "three"}""",
    ),
)
