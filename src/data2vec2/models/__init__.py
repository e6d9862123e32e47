"""The encoder and what is pre-trained with it."""

from data2vec2.models.encoder import Encoded, Encoder
from data2vec2.models.pretraining import Data2Vec2, Pretrained

__all__ = ["Data2Vec2", "Encoded", "Encoder", "Pretrained"]
