"""The loss of LA-DNN beside its formula, and what each gate lets teach."""

import pytest
import torch

from balaitous.training.classifier.losses import GATES, gate_of, gated_loss

WEIGHTS = (5.0, 1.0, 1.0, 1.0, 1.0, 1.0)
NAN = float("nan")
LABELS = torch.tensor(
    [
        [1.0, 1, 0, 0, 0, 1],  # lesions told
        [1.0, 0, 0, 0, 0, 0],  # COVID-19, none told
        [0.0, 0, 0, 0, 0, 0],
    ]
)


@pytest.fixture
def logits():
    return torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.double)


def test_the_published_loss_is_its_formula(logits):
    total = 0.0
    for z, y in zip(logits, LABELS.double(), strict=True):
        b = -(y * torch.sigmoid(z).log() + (1 - y) * (1 - torch.sigmoid(z)).log())
        m = float(y[1:].any())
        total += (5 * b[0] + m * b[1:].sum()) / 6
    assert gated_loss(logits, LABELS.double(), WEIGHTS, "bearing").item() == pytest.approx(total.item() / 3)


@pytest.mark.parametrize(("gate", "expected"), [("bearing", [1, 0, 0]), ("negatives", [1, 0, 1]), ("off", [1, 1, 1])])
def test_a_gate_opens_for_its_pictures_and_never_closes_the_first_output(gate, expected):
    found = gate_of(LABELS, gate)
    assert found[:, 0].tolist() == [1, 1, 1]
    for lesion in range(1, 6):
        assert found[:, lesion].tolist() == expected


@pytest.mark.parametrize("gate", GATES)
def test_what_is_not_known_teaches_nothing(logits, gate):
    labels = LABELS.double().clone()
    labels[0, 3] = labels[2, 0] = labels[2, 1] = NAN
    logits.requires_grad_()
    gated_loss(logits, labels, WEIGHTS, gate).backward()
    assert not logits.grad[labels.isnan()].any()
    assert logits.grad.isfinite().all()


def test_lesions_of_pictures_without_disease_teach_only_where_the_gate_is_mended(logits):
    for gate in GATES:
        z = logits.clone().requires_grad_()
        gated_loss(z, LABELS.double(), WEIGHTS, gate).backward()
        assert bool(z.grad[2, 1:].any()) is (gate != "bearing")
        assert bool(z.grad[1, 1:].any()) is (gate == "off")
