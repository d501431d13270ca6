"""`compare`: which of several runs is better for the task, at equal compute, and whether the difference is more than noise.

Every arm (a run, or runs that differ in nothing but their pre-training seed) is fine-tuned on the same draws of labelled records with the same
seeds, its learning rate the best of the same few on a development part of the training records; a random start of each network is always an arm.

The folder (default runs/comparisons/NAME, NAME being those of the runs):

    comparison.json   all of it, rewritten after each measurement
    comparison.svg    the same as a plot: metric against FLOPs, against wall time, against number of labels (needs the extra `report`)
    points.jsonl      each measured point as it is known: the same command after a kill measures nothing twice

comparison.json, format_version 1 (FLOPs are counted training FLOPs, times in seconds, every metric is better when higher, [low, high] are 95 %
intervals cut to what the metric can be; null where there are too few seeds for one, fewer than three):

    kind, format_version    "comparison", 1
    name, status            NAME; "running" or "done"
    settings                what was asked for
    evidence                "labels", or "no labels": halves of held-out documents, weaker evidence
    task, metric, measure   "classification", "accuracy", "finetune" or "linear-probe"; without labels null, "halves", null
    data                    {labels, test (files or null), records, train, test_records, classes [...], split (words)}; without labels {store,
                            documents}
    arms                    [{arm (name), kind ("run", "model", "random"), runs [folders], method, preset, pretraining_seeds [...] (all three null for
                            a model folder), network (name of the random arm with its architecture, null without labels), learning_rate,
                            tried {rate: metric on the development part},
                            points [{labels (training records), step, flops, wall_s (null where unknown; 0 for a random start), final (of the run),
                            values [[fine-tuning seeds] for each pre-training seed], mean, ci95}],
                            loss {value, comparable} or null, rankme or null}]
    equal_compute           {equal, flops (null where there is none in common), ratio (largest : smallest at the runs' ends), how ("as the runs ended",
                            "at checkpoints", "interpolated between checkpoints", "not possible", "unknown"), sentence}; null for one run
    compared                [{arm, value, ci95, flops, wall_s, how}]: the table, best first, at equal compute where there is one
    comparisons             [{a, b, difference (a - b), ci95, p, p_holm, verdict ("better", "worse": a than b; "not enough evidence"),
                            equal_compute (true also against a random start, which costs nothing to pre-train), flops_ratio, covers (what the interval
                            covers, words), sentence}]
    worth                   [{arm, labels, random_labels, ci95 [low, high] (a high of null: beyond the largest measured count), more_than (that count)
                            or null, sentence}]: labels that a random start needs for the same metric
    winner, sentence        name of an arm or null; the verdict
    notes, leaks            sentences: what to know when reading this; test records that stand in training data
    commands                {load, finetune} of the winner, or of the best arm
    plan                    {points, measured, seconds_a_point, minutes, seeds, labels [counts of the curve], left_out [words]}
    spent_s, hardware, versions, commit, command, date
"""
