"""ImageNet from its usual folders: <root>/{train,val}/<class>/<image>.

Classes are the sorted folder names of train/. Crops follow the standard recipe of classification:
in training a random part of the image (8 … 100 % of its area) and a random mirror, in validation
the centre after resizing the shorter side to 8/7 of the crop.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from tag_perception.config import InputError
from tag_perception.core.network import IMAGENET_CLASSES
from tag_perception.learn.samples import Shuffled

SUFFIXES = {'.jpg', '.jpeg', '.png'}
AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)


class ClassFolders:
    """Paths and class ids of one split, sorted by name."""

    def __init__(self, root: Path | str, split: str) -> None:
        root = Path(root)
        self.classes = sorted(p.name for p in root.glob('train/*') if p.is_dir())
        if not 2 <= len(self.classes) <= IMAGENET_CLASSES:
            raise InputError(
                f'{root}/train: {len(self.classes)} class folders, need 2 … {IMAGENET_CLASSES}; '
                'give data.root, the folder of train/<class>/ and val/<class>/'
            )
        self.files = [
            (path, index)
            for index, name in enumerate(self.classes)
            for path in sorted((root / split / name).glob('*'))
            if path.suffix.lower() in SUFFIXES
        ]
        if not self.files:
            raise InputError(f'{root}/{split}: no images in folders named like those of train/')

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB. Raises InputError for a file that is no image."""
        path = self.files[index][0]
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise InputError(f'{path}: cannot be read as an image')
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def item(self, index: int, image: np.ndarray) -> dict[str, Any]:
        """What the loader stacks."""
        path, class_id = self.files[index]
        return {'image': torch.from_numpy(image), 'class_id': class_id, 'name': path.name}


class TrainingCrops(Dataset):
    """Draw → a random crop; a function of (seed, draw) alone."""

    def __init__(self, folders: ClassFolders, size: tuple[int, int], seed: int) -> None:
        self.folders, self.size, self.seed = folders, size, seed
        self.shuffled = Shuffled(len(folders), seed)

    def __getitem__(self, draw: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, draw))
        index = self.shuffled(draw)
        crop = random_crop(self.folders.read(index), self.size, rng)
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        return self.folders.item(index, np.ascontiguousarray(crop))


class ValidationCrops(Dataset):
    """Index → the centre crop."""

    def __init__(self, folders: ClassFolders, size: tuple[int, int], length: int) -> None:
        self.folders, self.size, self.length = folders, size, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.folders.item(index, center_crop(self.folders.read(index), self.size))


def random_crop(image: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A part of random area and aspect, resized; the centre where ten draws do not fit."""
    height, width = image.shape[:2]
    for _ in range(10):
        area = height * width * rng.uniform(*AREA)
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            y, x = rng.integers(height - h + 1), rng.integers(width - w + 1)
            return _resize(image[y : y + h, x : x + w], size)
    return center_crop(image, size)


def center_crop(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of the image, after its shorter side is 8/7 of the crop (256 for 224)."""
    height, width = image.shape[:2]
    scale = max(size[0] * 8 / 7 / height, size[1] * 8 / 7 / width)
    resized = _resize(image, (round(height * scale), round(width * scale)))
    y, x = (resized.shape[0] - size[0]) // 2, (resized.shape[1] - size[1]) // 2
    return np.ascontiguousarray(resized[y : y + size[0], x : x + size[1]])


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrinks = image.shape[0] > size[0]
    return cv2.resize(
        image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
