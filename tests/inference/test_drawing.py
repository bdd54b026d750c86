"""Pictures show what they say."""

from __future__ import annotations

import numpy as np

from src.data.labels import LabelSet
from src.inference.drawing import as_picture, colored, comparison, confusion_figure, errors, legend, overlay

LABELS = LabelSet(("road", "a class with a long name"), ((10, 20, 30), (200, 100, 0)))
TRUTH = np.array([[0, 1], [255, 1]], np.uint8)
PREDICTION = np.array([[0, 0], [1, 1]], np.uint8)


def test_colours_and_errors() -> None:
    assert colored(TRUTH, LABELS).tolist() == [[[10, 20, 30], [200, 100, 0]], [[0, 0, 0], [200, 100, 0]]]
    shown = errors(PREDICTION, TRUTH, LABELS)
    assert shown[1, 0].tolist() == [0, 0, 0]
    assert shown[0, 1].tolist() != shown[0, 0].tolist() == shown[1, 1].tolist()


def test_an_overlay_shows_the_picture_where_pixels_are_ignored() -> None:
    picture = np.full((2, 2, 3), 100, np.uint8)
    assert overlay(picture, TRUTH, LABELS, 0.5).tolist() == [
        [[55, 60, 65], [150, 100, 50]],
        [[100] * 3, [150, 100, 50]],
    ]


def test_any_image_becomes_a_picture() -> None:
    assert as_picture(np.array([[[0, 128, 255]]] * 3, np.uint8), (0, 255))[0, :, 0].tolist() == [0, 128, 255]
    assert as_picture(np.array([[[-1000, 0, 2000]]], np.int16), (-1000, 1000))[0, :, 2].tolist() == [0, 128, 255]
    assert as_picture(np.zeros((5, 4, 6), np.float32), (0, 1)).shape == (4, 6, 3)


def test_a_comparison_has_its_legend_below() -> None:
    picture = np.zeros((30, 40, 3), np.uint8)
    mask = np.zeros((30, 40), np.uint8)
    whole = comparison(picture, mask, mask, LABELS)
    assert whole.shape[1] % 2 == 0
    assert whole.shape[0] > 2 * 30
    colours = {tuple(pixel) for pixel in legend(LABELS, 200).reshape(-1, 3).tolist()}
    assert {(10, 20, 30), (200, 100, 0), (0, 0, 0)} <= colours


def test_a_confusion_matrix_with_an_absent_class() -> None:
    figure = confusion_figure(np.array([[3, 1], [0, 0]]), LABELS.names)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["75", "25"]


def test_a_confusion_matrix_of_many_classes_is_no_poster() -> None:
    for count, inches in ((19, 11.7), (30, 17.2), (31, 17.2), (171, 22.8)):
        figure = confusion_figure(np.eye(count, dtype=np.int64), [f"class {k}" for k in range(count)])
        assert figure.get_size_inches().max() <= inches
        assert len(figure.axes[0].get_xticklabels()) == count
