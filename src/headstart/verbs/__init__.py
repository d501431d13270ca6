"""The verbs of the command line as functions: what the command line parses and prints, and what `import headstart` offers."""
