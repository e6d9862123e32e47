"""Says a recording a number or a letter? python finetune_sounds.py MODEL OUT [STEPS]."""

import sys
from pathlib import Path

import numpy as np
import soundfile
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, Trainer, TrainingArguments

from data2vec2.modalities.audio import english_prompts  # importing data2vec2 tells Transformers about its models

path, out, steps = sys.argv[1], sys.argv[2], int((sys.argv[3:] or ["200"])[0])
names = ["digits", "letters"]


def rows_of(part: str) -> list[tuple[Path, int]]:
    return [(file, place) for place, name in enumerate(names) for file in (english_prompts() / part / name).iterdir()]


extractor = AutoFeatureExtractor.from_pretrained(path)
model = AutoModelForAudioClassification.from_pretrained(
    path, id2label=dict(enumerate(names)), label2id={name: place for place, name in enumerate(names)}
)


def collate(rows):
    waveforms = [soundfile.read(file, dtype="float32")[0] for file, _ in rows]
    inputs = extractor(waveforms, sampling_rate=extractor.sampling_rate, padding=True, return_tensors="pt")
    return {**inputs, "labels": torch.tensor([label for _, label in rows])}


def accuracy(found):
    return {"accuracy": float((found.predictions.argmax(-1) == np.asarray(found.label_ids)).mean())}


arguments = TrainingArguments(out, max_steps=steps, per_device_train_batch_size=16, learning_rate=1e-3)
trainer = Trainer(model, arguments, collate, rows_of("train"), rows_of("test"), extractor, compute_metrics=accuracy)
before = trainer.evaluate()
trainer.train()
trainer.save_model(out)
print(f"accuracy {before['eval_accuracy']:.3f} before, {trainer.evaluate()['eval_accuracy']:.3f} after")
