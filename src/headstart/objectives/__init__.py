"""Losses and their samplers that several methods share: pure functions on tensors, no trainer knowledge."""
