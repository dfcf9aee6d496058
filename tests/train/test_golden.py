"""The released code's numbers, reproduced from the released files' layout through `galip convert`."""

import numpy as np
import pytest
import torch

from galip import losses
from galip.checkpoint import load_galip
from galip.clip import clip_tokenizer


@pytest.fixture(scope="module")
def model(released_checkpoint):
    return load_galip(released_checkpoint, needs=("text", "image", "generator", "discriminator"))


@pytest.fixture(scope="module")
def sentence(golden):
    return torch.from_numpy(golden["sent"][:3])


@pytest.fixture(scope="module")
def fake(golden):
    return torch.from_numpy(golden["image"])


def real_pictures():
    """The synthetic real pictures of the golden README: (3, 3, 256, 256)."""
    g = np.linspace(-1, 1, 256, dtype=np.float32)
    return torch.from_numpy(
        np.stack(
            [
                np.stack([np.outer(np.cos((i + 1) * g * 2), np.sin((c + 1) * g * 3 + i)) for c in range(3)])
                for i in range(3)
            ]
        ).astype(np.float32)
    )


def test_tokens(golden):
    tokens = clip_tokenizer(48_894, 77).encode(golden["captions"])
    np.testing.assert_array_equal(tokens, golden["tokens"])


def test_sentence(golden, model):
    with torch.no_grad():
        ours = model.text(torch.from_numpy(golden["tokens"]).long())
    np.testing.assert_allclose(ours.numpy(), golden["sent"], atol=2e-5)


def test_word_features(golden, model):
    features = []
    with torch.no_grad(), model.text.ln_final.register_forward_hook(lambda *call: features.append(call[2])):
        model.text(torch.from_numpy(golden["tokens"][:1]).long())
    np.testing.assert_allclose(
        features[0][0].numpy(), golden["words_0"], atol=1e-3, rtol=1e-3
    )  # stored as fp16


def test_short_captions_may_be_cut(golden, model):
    tokens = torch.from_numpy(golden["tokens"][:1]).long()
    length = int(tokens.argmax()) + 1
    with torch.no_grad():
        torch.testing.assert_close(model.text(tokens[:, :length]), model.text(tokens), atol=1e-5, rtol=0)


def test_image(golden, model, sentence):
    with torch.no_grad():
        ours = model.generator(torch.from_numpy(golden["z"]), sentence)
    assert np.abs(ours.numpy() - golden["image"]).max() < 1e-4


def test_clip_features(golden, model, fake):
    with torch.no_grad():
        maps, embedding = model.collect(fake)
        feature = model.discriminator.mate(maps)
        logit = model.discriminator.assessor(feature, torch.from_numpy(golden["sent"][:3]))
    means = torch.stack([feature.mean(dim=(2, 3)) for feature in maps], dim=1)
    np.testing.assert_allclose(means.numpy(), golden["clip_layer_means"], atol=1e-4)
    np.testing.assert_allclose(embedding.numpy(), golden["image_embedding"], atol=1e-4)
    np.testing.assert_allclose(feature.mean(dim=(2, 3)).numpy(), golden["d_feature_mean"], atol=1e-4)
    np.testing.assert_allclose(logit.numpy(), golden["logit"].reshape(3), rtol=1e-4, atol=1e-5)


def test_losses(golden, model, sentence, fake):
    with torch.no_grad():
        real_maps, _ = model.collect(real_pictures())
        fake_maps, embedding = model.collect(fake)
        fake_logits = model.discriminator(fake_maps, sentence)
        mismatched = model.discriminator(real_maps, sentence.roll(-1, dims=0))
    real_logits, norm = losses.magp_norm(model.discriminator, real_maps, sentence)
    ours = {
        "real_logit": real_logits,
        "magp_norm": norm,
        "magp": losses.magp(norm),
        "d_real": losses.hinge_real(real_logits),
        "d_mis": losses.hinge_fake(mismatched),
        "d_fake": losses.hinge_fake(fake_logits),
        "g_adv": losses.generator_adversarial(fake_logits),
        "clip_sim": losses.clip_similarity(embedding, sentence),
    }
    for name, value in ours.items():
        expected = golden[name].reshape(value.shape)
        np.testing.assert_allclose(value.detach().numpy(), expected, rtol=1e-4, atol=1e-6, err_msg=name)
