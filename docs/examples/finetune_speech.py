"""Letters of speech with Transformers' Trainer: python finetune_speech.py MODEL OUT [STEPS].

MODEL is a folder that data2vec2 exported; OUT becomes one that `pipeline` and `data2vec2 transcribe` read. Here the
recordings are the bundled ones.
"""

import csv
import sys
from pathlib import Path

import soundfile
import torch
from transformers import AutoFeatureExtractor, AutoModelForCTC, Trainer, TrainingArguments, Wav2Vec2Processor

from data2vec2 import Data2Vec2CTCTokenizer
from data2vec2.data.letters import Letters
from data2vec2.evaluation.recognition import error_rate
from data2vec2.modalities.audio import english_prompts

path, out, steps = sys.argv[1], Path(sys.argv[2]), int((sys.argv[3:] or ["600"])[0])
with (english_prompts() / "metadata.csv").open(encoding="utf-8") as file:
    rows = [(english_prompts() / row["file_name"], row["transcription"]) for row in csv.DictReader(file)]
train, test = ([row for row in rows if row[0].match(f"{part}/digits/*")] for part in ("train", "test"))

letters = Letters.of(text for _, text in train)
out.mkdir(parents=True, exist_ok=True)
letters.save(out)
processor = Wav2Vec2Processor(AutoFeatureExtractor.from_pretrained(path), Data2Vec2CTCTokenizer.from_pretrained(out))
model = AutoModelForCTC.from_pretrained(path, vocab_size=len(letters))


def collate(rows):
    waveforms = [soundfile.read(path, dtype="float32")[0] for path, _ in rows]
    inputs = processor(waveforms, sampling_rate=model.config.sample_rate, padding=True, return_tensors="pt")
    labels = [torch.from_numpy(letters.encode(text)) for _, text in rows]
    return {**inputs, "labels": torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)}


def errors(found):
    said = processor.batch_decode(found.predictions.argmax(-1))
    meant = [letters.decode(row[row > 0]) for row in found.label_ids]
    return {"cer": error_rate(meant, said, "character").rate}


arguments = TrainingArguments(out, max_steps=steps, per_device_train_batch_size=16, learning_rate=1e-3)
trainer = Trainer(model, arguments, collate, train, test, processor, compute_metrics=errors)
before = trainer.evaluate()
trainer.train()
after = trainer.evaluate()
trainer.save_model(out)
for name in ("cer", "loss"):
    print(f"{name} {before[f'eval_{name}']:.3f} before, {after[f'eval_{name}']:.3f} after")
