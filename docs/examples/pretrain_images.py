"""Pre-training on pictures with Transformers' Trainer: python pretrain_images.py OUT [STEPS].

The model draws its masks itself; `TeacherUpdate` moves its teacher. OUT becomes a folder that AutoModel and the other
examples read. `data2vec2 pretrain` does more: crops, alarms of collapse, scores as it trains, resuming bit for bit.
"""

import sys
from dataclasses import replace

import numpy as np
import torch
from transformers import Trainer, TrainingArguments

from data2vec2 import Data2Vec2ImageConfig, Data2Vec2ImageForPreTraining, Data2Vec2ImageProcessor, TeacherUpdate
from data2vec2.config.run import fit_schedule
from data2vec2.modalities import get_recipe
from data2vec2.modalities.image import fashion_mnist

out, steps = sys.argv[1], int((sys.argv[2:] or ["1000"])[0])
recipe = get_recipe("image_tiny")
recipe = fit_schedule(replace(recipe, train=replace(recipe.train, updates=steps)), recipe)
grey = replace(recipe.model.modality, num_channels=1)
model = Data2Vec2ImageForPreTraining(
    Data2Vec2ImageConfig.from_run_config(replace(recipe, model=replace(recipe.model, modality=grey)))
)
with np.load(fashion_mnist()) as arrays:
    train, test = list(arrays["x_train"]), list(arrays["x_test"])[:200]
    mean, std = float(arrays["x_train"].mean()) / 255, float(arrays["x_train"].std()) / 255
processor = Data2Vec2ImageProcessor(size=grey.image_size, image_mean=[mean], image_std=[std])

arguments = TrainingArguments(
    out,
    max_steps=steps,
    per_device_train_batch_size=64,
    learning_rate=recipe.optim.lr,
    warmup_steps=recipe.optim.warmup_updates,
)
trainer = Trainer(
    model,
    arguments,
    lambda pictures: {"pixel_values": torch.as_tensor(processor(pictures, return_tensors="pt")["pixel_values"])},
    train,
    test,
    processor,
    callbacks=[TeacherUpdate()],
)
trainer.train()
trainer.save_model(out)
print(f"loss {trainer.evaluate()['eval_loss']:.3f}")
