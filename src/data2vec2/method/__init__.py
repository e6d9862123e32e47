"""The method: networks, masks, targets and losses. Start with `pretraining.py`."""
