"""Data sent out: what a snapshot's files say, and how they are written so that the same content is the same bytes."""
