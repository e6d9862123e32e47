"""Series at work: what the commands ask of a modality."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import torch

from data2vec2.config import ArchitectureConfig, DataConfig, RunConfig
from data2vec2.data.reader import Reader
from data2vec2.data.records import Records
from data2vec2.modalities.data import Largest, Log, Survey
from data2vec2.modalities.tools import Tools
from data2vec2_sensors import SPEC
from data2vec2_sensors.config import SensorConfig, SensorDataConfig
from data2vec2_sensors.model import SensorModality
from data2vec2_sensors.reader import SERIES, SensorReader
