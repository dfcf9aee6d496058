"""The model in parts: equal to the plain way of computing each, every ablation trains, names frozen."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from galip_runtime.errors import UsageError

from galip import clip as galip_clip
from galip.clip import ClipVit, ImageTower, TextTower, attention, build_clip
from galip.model import Affine, DFBlock, Galip, GenerationBlock, Generator
from galip.presets import preset

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = preset("tiny")


def randomise(module, scale=0.3):
    """Random numbers everywhere, also where training starts from zeros and ones."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    return module


@pytest.fixture
def clip():
    torch.manual_seed(3)
    return randomise(build_clip(TINY.clip), 0.1).eval()


# The image generator


def upsample_first(block, x, cond):
    """A generation block in the order of the paper and the released code."""
    x = F.interpolate(x, size=(block.size, block.size), mode="nearest")
    return block.shortcut(x) + block.conv2(block.df2(block.conv1(block.df1(x, cond)), cond))


@pytest.mark.parametrize(("side", "size"), [(8, 16), (7, 8), (16, 28), (8, 8), (7, 20)])
@pytest.mark.parametrize("channels", [(6, 6), (6, 4)], ids=["identity", "shortcut"])
def test_upsampling_late_gives_the_same_numbers(side, size, channels):
    block = randomise(GenerationBlock(5, *channels, size))
    x = torch.randn(2, channels[0], side, side, requires_grad=True)
    cond = torch.randn(2, 5)
    late, early = block(x, cond), upsample_first(block, x, cond)
    assert late.shape == (2, channels[1], size, size)
    torch.testing.assert_close(late, early, atol=1e-6, rtol=1e-6)
    weight = torch.randn(late.shape)
    gradients = [torch.autograd.grad((out * weight).sum(), x)[0] for out in (late, early)]
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


def test_affine_starts_as_the_identity():
    x, cond = torch.randn(3, 6, 4, 4), torch.randn(3, 5)
    assert torch.equal(Affine(5, 6)(x, cond), x)
    assert torch.equal(DFBlock(5, 6)(x, cond), F.leaky_relu(F.leaky_relu(x, 0.2), 0.2))
    affine = randomise(Affine(5, 6))
    expected = affine.gamma(cond)[:, :, None, None] * x + affine.beta(cond)[:, :, None, None]
    torch.testing.assert_close(affine(x, cond), expected)


# CLIP's towers


@pytest.mark.parametrize("causal", [False, True])
def test_attention_in_bf16_agrees_with_the_fused_kernel(causal, monkeypatch):
    shape = (2, 3, 11, 8)
    exact = [torch.randn(shape, requires_grad=True) for _ in "qkv"]
    rounded = [tensor.detach().bfloat16().requires_grad_() for tensor in exact]
    expected = F.scaled_dot_product_attention(*exact, is_causal=causal)
    with monkeypatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", None)  # so it is the other path that runs
        ours = attention(*rounded, causal)
    torch.testing.assert_close(ours.float(), expected, atol=3e-2, rtol=3e-2)
    weight = torch.randn(shape)
    gradients = torch.autograd.grad((expected * weight).sum(), exact)
    for ours_gradient, gradient in zip(
        torch.autograd.grad((ours * weight).sum(), rounded), gradients, strict=True
    ):
        torch.testing.assert_close(ours_gradient.float(), gradient, atol=6e-2, rtol=6e-2)


def test_causal_attention_in_bf16_sees_no_later_token():
    q, k, v = (torch.randn(1, 2, 6, 8).bfloat16().requires_grad_() for _ in "qkv")
    changed = [tensor.detach().clone() for tensor in (k, v)]
    for tensor in changed:
        tensor[:, :, 4:] += 3
    before, after = attention(q, k, v, True), attention(q, *changed, True)
    assert torch.equal(before[:, :, :4], after[:, :, :4])
    assert not torch.equal(before[:, :, 4:], after[:, :, 4:])


@torch.no_grad()
def test_towers_equal_those_of_open_clip(clip):
    tokens = torch.randint(1, TINY.clip.text.vocab_size - 1, (4, 16))
    for row, end in enumerate((3, 8, 15, 6)):
        tokens[row, end] = TINY.clip.text.vocab_size - 1
        tokens[row, end + 1 :] = 0
    text = TextTower(clip)
    torch.testing.assert_close(text(tokens), clip.encode_text(tokens), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(text(tokens[:, :9])[[0, 1, 3]], text(tokens)[[0, 1, 3]], atol=1e-5, rtol=1e-5)

    picture = torch.rand(2, 3, 28, 28) * 2 - 1
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (TINY.clip.mean, TINY.clip.std))
    expected = clip.encode_image((picture * 0.5 + 0.5 - mean) / std)
    maps, embedding = ImageTower(clip.visual, TINY.clip, "clip")(picture, (0, 2))
    torch.testing.assert_close(embedding, expected, atol=1e-5, rtol=1e-5)
    assert [tuple(feature.shape) for feature in maps] == [(2, 16, 7, 7)] * 2
    _, twice = ImageTower(clip.visual, TINY.clip, "released")(picture, ())
    torch.testing.assert_close(
        twice, clip.encode_image(((picture * 0.5 + 0.5 + 1) * 0.5 - mean) / std), atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_pictures_of_another_size_are_resized_to_the_nearest_pixel(clip):
    tower = ImageTower(clip.visual, TINY.clip, "clip")
    picture = torch.rand(1, 3, 14, 14)
    double = picture.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(tower(picture, ())[1], tower(double, ())[1])


@torch.no_grad()
def test_without_prompts_the_generators_tower_is_the_image_tower(clip):
    picture = torch.rand(2, 3, 28, 28) * 2 - 1
    tower = ImageTower(clip.visual, TINY.clip, "clip")
    patches = tower.conv1(picture * tower.pixel_scale + tower.pixel_shift)
    config = dataclasses.replace(TINY.generator, prompt_layers=())
    concepts = ClipVit(clip.visual, config)(patches, torch.zeros(2, 0, 16))
    torch.testing.assert_close(concepts, tower(picture, (2,))[0][0], atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_each_prompt_goes_into_its_own_block(clip, monkeypatch):
    """`prompt_layers` says in order whose each prompt is; it is the last token there and nowhere else."""
    seen, made = [], []
    run_block = galip_clip.run_block

    def recorded(block, x):
        seen.append(x)
        made.append(run_block(block, x))
        return made[-1]

    monkeypatch.setattr(galip_clip, "run_block", recorded)
    prompts = torch.randn(2, 2, 16)
    config = dataclasses.replace(TINY.generator, prompt_layers=(2, 0))
    ClipVit(clip.visual, config)(torch.randn(2, 16, 7, 7), prompts)
    assert [x.shape[1] for x in seen] == [51, 50, 51]
    assert torch.equal(seen[2][:, -1], prompts[:, 0])
    assert torch.equal(seen[0][:, -1], prompts[:, 1])
    assert torch.equal(seen[1], made[0][:, :-1])  # what became of the prompt is dropped
    assert torch.equal(seen[2][:, :-1], made[1])


# The whole model

ABLATIONS = {
    "galip": {},
    "no CLIP in G": {"use_clip": False},
    "no prompts": {"prompt_layers": ()},
    "other prompts": {"prompt_layers": (0, 2)},
    "all prompts": {"prompt_layers": (0, 1, 2)},
    "fewer blocks": {"clip_layers": 2},
    "one layer": {"collect_layers": (1,)},
    "two layers": {"collect_layers": (0, 2)},
}


@pytest.mark.parametrize("changes", ABLATIONS.values(), ids=ABLATIONS.keys())
def test_ablations_of_table_3_train(changes):
    generator = {key: value for key, value in changes.items() if key != "collect_layers"}
    discriminator = {key: value for key, value in changes.items() if key == "collect_layers"}
    config = dataclasses.replace(
        TINY,
        generator=dataclasses.replace(TINY.generator, **generator),
        discriminator=dataclasses.replace(TINY.discriminator, **discriminator),
    )
    torch.manual_seed(0)
    model = Galip(config)
    learned = [
        p for part in (model.generator, model.discriminator) for p in part.parameters() if p.requires_grad
    ]
    with torch.no_grad():
        for parameter in learned:
            parameter.add_(
                torch.randn_like(parameter) * 0.05
            )  # γ and β of Mate-D start at 0 and hide the rest
    noise, tokens = torch.randn(2, 8), torch.tensor([[1, 5, 577], [1, 577, 0]])
    sentence = model.text(tokens)
    image = model.generator(noise, sentence)
    assert image.shape == (2, 3, 28, 28)
    maps, embedding = model.collect(image)
    assert len(maps) == len(config.discriminator.collect_layers)
    assert embedding.shape == sentence.shape == (2, 16)
    logits = model.discriminator(maps, sentence)
    assert logits.shape == (2,)
    (logits.sum() + embedding.sum()).backward()
    lacking = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert not lacking
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert all(p.grad is None for name, p in model.named_parameters() if name in frozen)
    assert {name.partition(".")[0] for name in frozen} == {"text", "image"} | (
        {"generator"} if config.generator.use_clip else set()
    )
    assert all(".clip_vit." in name for name in frozen if name.startswith("generator."))
    assert hasattr(model.generator, "clip_vit") == config.generator.use_clip


def test_prompts_and_clip_change_the_picture():
    torch.manual_seed(0)
    noise, sentence = torch.randn(1, 8), torch.randn(1, 16)
    model = Galip(TINY)
    before = model.generator(noise, sentence)
    for part in (model.generator.prompt, model.generator.clip_vit.resblocks[2]):
        with torch.no_grad():
            for parameter in part.parameters():
                parameter.add_(torch.randn_like(parameter))
        after = model.generator(noise, sentence)
        assert (after - before).abs().max() > 1e-5  # rounding is below 1e-7
        before = after


@torch.no_grad()
def test_pictures_do_not_depend_on_their_batch():
    torch.manual_seed(0)
    generator = Galip(TINY).generator
    noise, sentence = torch.randn(5, 8), torch.randn(5, 16)
    one_by_one = torch.cat([generator(noise[i : i + 1], sentence[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(generator(noise, sentence), one_by_one, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_use_towers_reaches_all_three(clip):
    model = Galip(TINY)
    tokens = torch.tensor([[1, 5, 577]])
    tower = ImageTower(clip.visual, TINY.clip, "clip")
    model.use_towers(TextTower(clip), tower)
    torch.testing.assert_close(model.text(tokens), TextTower(clip)(tokens))
    picture = torch.rand(1, 3, 28, 28)
    torch.testing.assert_close(model.collect(picture)[1], tower(picture, ())[1])
    bridge, prompts = torch.randn(1, 16, 7, 7), torch.randn(1, 1, 16)
    own = ClipVit(clip.visual, TINY.generator)
    torch.testing.assert_close(model.generator.clip_vit(bridge, prompts), own(bridge, prompts))
    assert not any(p.requires_grad for p in model.generator.clip_vit.parameters())
    assert next(clip.parameters()).requires_grad  # the caller's model is left as it was


def test_the_generator_owns_its_copy_of_the_tower(clip):
    generator = Generator(TINY.generator, TINY.clip, clip.visual)
    clip.visual.class_embedding.data.add_(1)
    assert not torch.equal(generator.clip_vit.class_embedding, clip.visual.class_embedding)


# The released model's shape


@pytest.fixture(scope="module")
def released():
    with torch.device("meta"):  # shapes, no numbers
        return Galip(preset("released"))


def test_released_sizes(released):
    def millions(module, learned=False):
        return round(sum(p.numel() for p in module.parameters() if p.requires_grad or not learned) / 1e6, 1)

    unused_conv1 = 768 * 3 * 32 * 32  # in the released files, not in our generator
    unused_shortcuts = 2 * (768 * 768 + 768)  # of the extraction blocks, likewise
    assert millions(released.generator, learned=True) == 51.8
    assert round((sum(p.numel() for p in released.generator.parameters()) + unused_conv1) / 1e6, 1) == 139.3
    mate, assessor = released.discriminator.mate, released.discriminator.assessor
    assert round((sum(p.numel() for p in mate.parameters()) + unused_shortcuts) / 1e6, 1) == 28.7
    assert millions(assessor) == 2.1
    assert millions(released.text, learned=True) == millions(released.image, learned=True) == 0
    assert millions(released.text) == 63.4
    assert millions(released.image) == 87.8


# open_clip


def test_unknown_pretrained_weights_list_the_known():
    with pytest.raises(UsageError, match=r"'openoi'.*'ViT-B-32-quickgelu'.*'openai'"):
        galip_clip.load_pretrained_clip("ViT-B-32-quickgelu", "openoi")
    with pytest.raises(UsageError, match="'ViT-Z-1'"):
        galip_clip.load_pretrained_clip("ViT-Z-1", "openai")
