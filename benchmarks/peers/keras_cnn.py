"""The tutorial's CNN in Keras, the tutorial's way. Needs TensorFlow and nothing of this project.

keras_cnn.py train DATA.npz EPOCHS: two JSON lists, of the test accuracy after each epoch and of its seconds.
keras_cnn.py predict DATA.npz: milliseconds of `predict` by batch.
"""

import json
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
from keras import layers


def network() -> keras.Model:
    """Three blocks of convolution and pooling, 356,810 parameters."""
    he = {"activation": "relu", "kernel_initializer": "he_uniform"}
    blocks = [
        layer
        for width in (32, 64, 128)
        for layer in (layers.Conv2D(width, 3, padding="same", **he), layers.MaxPooling2D(2))
    ]
    head = [layers.Flatten(), layers.Dense(128, **he), layers.Dropout(0.5), layers.Dense(10, activation="softmax")]
    net = keras.Sequential([keras.Input((32, 32, 3)), *blocks, *head])
    net.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return net


def train(path: str, epochs: int) -> None:
    """Adam, batches of 64, pixels from 0 to 1."""
    data = np.load(path)
    images, labels, test, answers = data["images"], data["labels"], data["test"], data["answers"]
    images, test = (each.astype(np.float32) / 255 for each in (images, test))
    net = network()
    taken, accuracies = [], []
    for _ in range(epochs):
        start = time.perf_counter()
        net.fit(images, labels, batch_size=64, verbose=0)
        taken.append(time.perf_counter() - start)
        accuracies.append(float((net.predict(test, batch_size=256, verbose=0).argmax(1) == answers).mean()))
    print(json.dumps(accuracies))
    print(json.dumps(taken))


def predict(path: str) -> None:
    """Median of `predict`, as people call it."""
    net, images = network(), np.load(path)["test"].astype(np.float32) / 255
    found = {}
    for batch, laps in ((1, 50), (32, 30), (256, 10)):
        times = []
        for _ in range(laps + 3):
            start = time.perf_counter()
            net.predict(images[:batch], batch_size=batch, verbose=0)
            times.append(time.perf_counter() - start)
        found[batch] = 1000 * float(np.median(times[3:]))
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(sys.argv[2], int(sys.argv[3]))
    else:
        predict(sys.argv[2])
