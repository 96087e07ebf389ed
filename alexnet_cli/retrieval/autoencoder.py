"""An auto-encoder that learns short binary codes for vectors, as §6.1 suggests.

The encoder is one layer of units that are on or off, and the decoder is linear:

    code = sign(W x + b)        (K,), -1 or 1
    x'   = V code + c           (D,), near x

A step has no slope. So in training each unit is on at random, with the probability (1 + tanh a) / 2 for its input a,
and the slope is that of its mean, tanh a. Sampling makes a unit near 0 unreliable, so training drives units towards ±1.

It is NumPy, since `index` imports no torch, and Adam is written out: that of scikit-learn is private, its public
networks have no random units, and SciPy's methods need gradients without chance.
"""

import numpy as np

UPDATES, BATCH, RATE = 2000, 128, 3e-3  # the learning rate falls to 0 in a straight line
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of Adam
SEED = 0


def learn_encoder(sample: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (bits, D) and biases (bits,), float32, learned from ``sample`` (n, D) float32.

    A bit of x is on where its weights · x + its bias is not negative. The same sample gives the same encoder, on the
    same machine.
    """
    random, mean = np.random.default_rng(SEED), sample.mean(axis=0)
    scale = float(sample.std(axis=0).mean()) or 1.0  # features that are constant
    layers = initial(random, sample.shape[1], bits)
    moments = [(np.zeros_like(one), np.zeros_like(one)) for one in layers]
    for done in range(UPDATES):
        x = (sample[random.integers(len(sample), size=BATCH)] - mean) / scale  # (B, D)
        slopes = gradients(layers, x, random.random((BATCH, bits), np.float32))
        _update(layers, slopes, moments, done)
    weights = np.ascontiguousarray(layers[0].T) / np.float32(scale)
    return weights, layers[1] - weights @ mean


def initial(random: np.random.Generator, dimension: int, bits: int) -> list[np.ndarray]:
    """W (D, bits), b (bits,), V (bits, D) and c (D,), float32."""
    encoder = random.standard_normal((dimension, bits), np.float32) / np.float32(dimension**0.5)
    decoder = random.standard_normal((bits, dimension), np.float32) / np.float32(bits)
    return [encoder, np.zeros(bits, np.float32), decoder, np.zeros(dimension, np.float32)]


def gradients(layers: list[np.ndarray], x: np.ndarray, drawn: np.ndarray) -> list[np.ndarray]:
    """Those of half the squared error of a batch ``x`` (B, D), summed over features, its mean over the batch.

    ``drawn`` (B, bits), uniform from 0 to 1, decides which units are on.
    """
    w, b, v, c = layers
    mean = np.tanh(x @ w + b)  # (B, bits)
    code = np.where(2 * drawn < 1 + mean, np.float32(1), np.float32(-1))  # (B, bits)
    error = (code @ v + c - x) / np.float32(len(x))  # (B, D)
    slope = (error @ v.T) * (1 - mean * mean)  # (B, bits)
    return [x.T @ slope, slope.sum(axis=0), code.T @ error, error.sum(axis=0)]


def _update(
    layers: list[np.ndarray], slopes: list[np.ndarray], moments: list[tuple[np.ndarray, np.ndarray]], done: int
) -> None:
    """One step of Adam, in place; ``done`` are those before."""
    rate = RATE * (1 - done / UPDATES) * (1 - BETA2 ** (done + 1)) ** 0.5 / (1 - BETA1 ** (done + 1))
    for layer, slope, (first, second) in zip(layers, slopes, moments, strict=True):
        first += (1 - BETA1) * (slope - first)
        second += (1 - BETA2) * (slope * slope - second)
        layer -= rate * first / (np.sqrt(second) + EPSILON)
