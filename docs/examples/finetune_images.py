"""Classes of pictures, from an exported MODEL to OUT: python finetune_images.py MODEL OUT [STEPS]."""

import sys

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, Trainer, TrainingArguments

from data2vec2.modalities.image import fashion_mnist  # importing data2vec2 tells Transformers about its models

path, out, steps = sys.argv[1], sys.argv[2], int((sys.argv[3:] or ["300"])[0])
names = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot"]
with np.load(fashion_mnist()) as arrays:
    train = list(zip(arrays["x_train"], arrays["y_train"], strict=True))
    test = list(zip(arrays["x_test"], arrays["y_test"], strict=True))[:500]

processor = AutoImageProcessor.from_pretrained(path)
model = AutoModelForImageClassification.from_pretrained(
    path, id2label=dict(enumerate(names)), label2id={name: place for place, name in enumerate(names)}
)


def collate(rows):
    pictures, labels = zip(*rows, strict=True)
    return {**processor(list(pictures), return_tensors="pt"), "labels": torch.tensor(np.array(labels, dtype=np.int64))}


def accuracy(found):
    return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}


arguments = TrainingArguments(out, max_steps=steps, per_device_train_batch_size=64, learning_rate=1e-3)
trainer = Trainer(model, arguments, collate, train, test, processor, compute_metrics=accuracy)
before = trainer.evaluate()
trainer.train()
trainer.save_model(out)
print(f"accuracy {before['eval_accuracy']:.3f} before, {trainer.evaluate()['eval_accuracy']:.3f} after")
