"""From a web crawl to a corpus: extraction, filters, classifiers, duplicates. Small functions that are used alone or as stages of `headstart
curate`."""
