"""The command line: one file per verb. Each parses, calls the library and prints; nothing heavy is imported before a verb was chosen."""
