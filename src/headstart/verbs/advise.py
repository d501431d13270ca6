"""`advise`: which pre-training helps on this data, how much, at what cost. Looks, tries, extrapolates, and prints the command to run.

Every candidate runs as the full budget would run it, stopped early (`trainer.stop_at`), so nothing is computed twice: the command at the end continues
the winner's own run. Candidates are every implemented method whose card fits the data; a random start is always an arm.

The folder (default runs/advice/NAME, NAME being that of the data folder):

    advice.json      all of it, rewritten after each measurement: the same command goes on after a kill and measures nothing twice
    ARM/             the run of a candidate: an ordinary run folder (causal-lm, causal-lm-continued ...)
    starts/ARM/      the same network before its first step, as a model folder
    stores/          the prepared data, shared by all arms whose settings of it agree

advice.json, format_version 1 (times in seconds, FLOPs are counted training FLOPs, every metric is better when higher):

    kind, format_version    "advice", 1
    status                  "running" or "done"
    settings                what was asked for; the same command has the same
    look                    data, kinds {kind: files}, text {documents, words, exact_duplicates, near_duplicates, languages {name: share}, ...}, images,
                            labels {records, classes {name: count}, repeated, contradictory} or null, machine {cores, memory_bytes, flops_per_second}
    evidence                "labels", or "no labels": kNN of the halves of held-out documents, weaker evidence
    metric                  "accuracy" or "knn_halves"
    budget                  {minutes, flops, trial_seconds}: flops is that of every arm's full run
    candidates              [{arm, method, preset, init, run, steps, minutes (full run, here), flops_per_step and seconds_per_step {phase: n},
                            tokens_per_second, plateau_step, setup_s}]
    left_out                [{method, why, minutes}]: minutes is the budget that would do, or null
    rungs                   [{flops, steps {arm: step}}], as planned; the trial may end before the last
    arms                    [{arm, kind ("candidate", "random start", "given model"), method, init,
                            points: [{rung, flops, step, wall_s, values [one a split], learning_rate, rankme}],
                            dropped_after (rung) or null, full {value, ci95} or null, fitted (a curve, or only a range), gain {value, ci95} or null}]
                            `full` is what the full budget should reach, `gain` that over the best random start, paired by split
    ranking                 [arm names, best first]
    labels_worth            {head_start_labels, random_start_labels {value, ci95} or null, sentence} or null
    leaks                   {overlap figures, sentence} or null
    verdict                 {word: "helps" | "should help" | "does not help" | "not enough evidence" | "no trial", winner, sentence, notes [...]}
    commands                {pretrain or null, after}
    spent                   {training_s, measuring_s}
    hardware, versions, commit, date
"""
