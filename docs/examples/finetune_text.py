"""Classes of texts with Transformers' Trainer: python finetune_text.py MODEL OUT [STEPS].

MODEL is a folder that data2vec2 exported; OUT becomes one that `pipeline` and `data2vec2 predict` read. Here the texts
are the bundled ones: what a noun stands for, told from what WordNet says of it.
"""

import sys

import pyarrow.parquet as pq
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from data2vec2.modalities.text import wordnet_glosses  # importing data2vec2 tells Transformers about its models

path, out, steps = sys.argv[1], sys.argv[2], int((sys.argv[3:] or ["500"])[0])
tables = {part: pq.read_table(wordnet_glosses() / f"{part}.parquet").to_pylist() for part in ("train", "test")}
names = sorted({row["label"] for row in tables["test"]})
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForSequenceClassification.from_pretrained(
    path, id2label=dict(enumerate(names)), label2id={name: place for place, name in enumerate(names)}
)


def encoded(part: str, count: int) -> list[dict]:
    rows = [row for row in tables[part] if row["label"]]
    some = rows[:: max(1, len(rows) // count)]  # evenly: they are in the order of WordNet
    return [{**tokenizer(row["text"], truncation=True), "labels": names.index(row["label"])} for row in some]


def accuracy(found):
    return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}


arguments = TrainingArguments(out, max_steps=steps, per_device_train_batch_size=32, learning_rate=1e-3)
collate = DataCollatorWithPadding(tokenizer)
train, test = encoded("train", 20_000), encoded("test", 500)
trainer = Trainer(model, arguments, collate, train, test, tokenizer, compute_metrics=accuracy)
before = trainer.evaluate()
trainer.train()
trainer.save_model(out)
print(f"accuracy {before['eval_accuracy']:.3f} before, {trainer.evaluate()['eval_accuracy']:.3f} after")
