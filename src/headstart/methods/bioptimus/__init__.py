"""bioptimus: a trained encoder gets the vocabulary of a domain, and goes on with masks that become harder. See docs/methods/bioptimus.md."""
