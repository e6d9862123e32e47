"""Checkpoints of the original data2vec 2.0, which is part of fairseq: read, as folders of ours, and written."""
