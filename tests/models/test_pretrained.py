"""Initial weights: true ones give true features; what cannot be used is refused with a reason, quickly."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file, save_model
from sklearn.datasets import load_sample_image
from timm.data import ImageNetInfo

from galaxy_models.config import CnnConfig, TrainConfig
from galaxy_models.errors import ConfigError, WeightsError
from galaxy_models.models import build_model, check_weights, locate
from galaxy_models.task import Task

TASK = Task("classes", ("smooth", "disk", "merger"))
LITE0 = "timm:tf_efficientnet_lite0"


def lite0(weights: str | Path = "imagenet", **options: object) -> TrainConfig:
    return TrainConfig(backbone=LITE0, weights=str(weights), **options)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Empty caches and a hub that does not answer, as on a cluster's node; lists what was asked of it."""
    asked: list[str] = []

    def refuse(url, *args, **kwargs):
        asked.append(str(url))
        raise OSError("Name or service not known")

    monkeypatch.setattr(locate, "try_to_load_from_cache", lambda *args: None)
    monkeypatch.setattr(locate, "get_hf_file_metadata", refuse)
    monkeypatch.setattr(locate, "hf_hub_download", refuse)
    monkeypatch.setattr(locate.urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr(locate.constants, "HF_HUB_OFFLINE", False)
    return asked


class TestTrueWeights:
    @pytest.mark.parametrize(("picture", "name"), [("flower.jpg", "daisy"), ("china.jpg", "palace")])
    def test_they_know_everyday_objects(self, weights_dir, picture, name):
        """Features with the published classifier name what is in two photographs (a flower, a Chinese palace)."""
        image = Image.fromarray(load_sample_image(picture))
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None] / 255
        classifier = load_file(weights_dir / "tf_efficientnet_lite0.safetensors")
        answers = {}
        for weights in ("imagenet", "none"):
            model = build_model(lite0(weights), TASK, px=224, weights_dir=weights_dir).eval()
            with torch.no_grad():
                features = model.backbone((pixels - model.mean) / model.std)
            logits = features @ classifier["classifier.weight"].T + classifier["classifier.bias"]
            answers[weights] = ImageNetInfo().index_to_description(int(logits.argmax()))
        assert answers["imagenet"] == name
        assert answers["none"] != name

    def test_weights_dir_comes_before_the_network(self, weights_dir, no_network):
        check_weights(lite0(), weights_dir=weights_dir)
        check_weights(TrainConfig(backbone=LITE0 + ".in1k", weights="imagenet"), weights_dir=weights_dir)
        assert no_network == []

    @pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
    def test_a_state_dict_in_a_training_checkpoint(self, weights_dir, tmp_path, suffix):
        tensors = load_file(weights_dir / "tf_efficientnet_lite0.safetensors")
        wrapped = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}}
        torch.save(wrapped, tmp_path / f"lite0{suffix}")
        check_weights(lite0(tmp_path / f"lite0{suffix}"))
        model = build_model(lite0(tmp_path / f"lite0{suffix}"), TASK, px=32)
        assert torch.equal(model.backbone.conv_stem.weight, tensors["conv_stem.weight"])

    def test_a_model_of_this_project_brings_its_normalisation(self, tmp_path):
        model = build_model(lite0("none"), TASK, px=32)
        model.mean.copy_(torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))
        save_model(model, tmp_path / "ours.safetensors")
        other_task = Task("classes", ("a", "b"))
        loaded = build_model(lite0(tmp_path / "ours.safetensors"), other_task, px=32)
        assert torch.equal(loaded.mean, model.mean)
        assert torch.equal(loaded.backbone.conv_stem.weight, model.backbone.conv_stem.weight)
        assert loaded.head.linear.out_features == 2

    def test_position_embeddings_fit_another_image_size(self, tmp_path):
        vit = TrainConfig(backbone="timm:vit_tiny_patch16_224")
        model = build_model(vit, TASK, px=64)
        save_model(model.backbone, tmp_path / "vit.safetensors")
        config = TrainConfig(backbone="timm:vit_tiny_patch16_224", weights=str(tmp_path / "vit.safetensors"))
        check_weights(config)
        loaded = build_model(config, TASK, px=96)
        assert loaded.backbone.pos_embed.shape == (1, 1 + 6 * 6, 192)
        assert torch.equal(loaded.backbone.cls_token, model.backbone.cls_token)

    @pytest.mark.parametrize(
        ("backbone", "mean"),
        [("resnet50", (0.485, 0.456, 0.406)), ("xception", (0.5, 0.5, 0.5)), (LITE0, (0.5, 0.5, 0.5))],
    )
    def test_normalisation_of_files(self, tmp_path, backbone, mean):
        random = build_model(TrainConfig(backbone=backbone), TASK, px=32)
        save_model(random.backbone, tmp_path / "bare.safetensors")
        config = TrainConfig(backbone=backbone, weights=str(tmp_path / "bare.safetensors"))
        torch.testing.assert_close(build_model(config, TASK, px=32).mean.flatten(), torch.tensor(mean))
        torch.testing.assert_close(random.mean.flatten(), torch.full((3,), 0.5))

    def test_hub_weights_from_the_cache(self, weights_dir, tmp_path, no_network, monkeypatch):
        record = {"architecture": "tf_efficientnet_lite0", "pretrained_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3}}
        (tmp_path / "config.json").write_text(json.dumps(record), encoding="utf-8")
        cache = {
            ("owner/galaxies", "model.safetensors"): str(weights_dir / "tf_efficientnet_lite0.safetensors"),
            ("owner/galaxies", "config.json"): str(tmp_path / "config.json"),
        }
        monkeypatch.setattr(locate, "try_to_load_from_cache", lambda *key: cache.get(key))
        model = build_model(lite0("hf-hub:owner/galaxies"), TASK, px=32)
        torch.testing.assert_close(model.mean.flatten(), torch.full((3,), 0.1))
        torch.testing.assert_close(model.std.flatten(), torch.full((3,), 0.2))
        assert no_network == []


class TestNotToBeHad:
    @pytest.mark.parametrize(("backbone", "file"), [("resnet50", "resnet50"), ("xception", "legacy_xception")])
    def test_imagenet_without_a_network(self, no_network, tmp_path, backbone, file):
        message = (
            rf"weights 'imagenet' of {file}: not in {tmp_path}, not in the cache, .*Name or service not known.*"
            rf"run once on a machine with a network, or put {file}\.safetensors .*--weights-dir, "
            "or start from weights 'none'"
        )
        with pytest.raises(WeightsError, match=message):
            check_weights(TrainConfig(backbone=backbone, weights="imagenet"), weights_dir=tmp_path)
        assert len(no_network) == 1, "asked more than once"

    def test_hub_without_a_network(self, no_network):
        with pytest.raises(WeightsError, match="hf-hub:owner/name: not in the cache, and the hub does not give them"):
            check_weights(lite0("hf-hub:owner/name"))

    def test_hub_forbidden(self, no_network, monkeypatch):
        monkeypatch.setattr(locate.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
            check_weights(TrainConfig(backbone="resnet50", weights="imagenet"))
        assert no_network == []

    def test_a_name_the_hub_cannot_have(self):
        with pytest.raises(WeightsError, match=r"hf-hub:a/b/c/d: .* check the name"):
            check_weights(lite0("hf-hub:a/b/c/d"))

    def test_a_model_without_imagenet_weights(self, no_network):
        with pytest.raises(WeightsError, match="weights 'imagenet' of coatnet_nano_cc_224: timm has none to load"):
            check_weights(TrainConfig(backbone="timm:coatnet_nano_cc_224", weights="imagenet"))


class TestFilesThatDoNotFit:
    def test_missing(self, tmp_path):
        with pytest.raises(WeightsError, match=r"gone\.safetensors: there is no such file"):
            check_weights(lite0(tmp_path / "gone.safetensors"))

    def test_another_kind_of_file(self, tmp_path):
        with pytest.raises(WeightsError, match=r"weights\.h5'?: expected 'imagenet', 'none', a file ending \.safetens"):
            check_weights(lite0(tmp_path / "weights.h5"))

    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    def test_not_weights_at_all(self, tmp_path, suffix):
        path = tmp_path / f"page{suffix}"
        path.write_text("<html>404</html>", encoding="utf-8")
        with pytest.raises(WeightsError, match=rf"page{suffix}: (it cannot be read|torch cannot read it|refused)"):
            check_weights(lite0(path))

    def test_truncated(self, weights_dir, tmp_path):
        whole = (weights_dir / "tf_efficientnet_lite0.safetensors").read_bytes()
        (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(WeightsError, match=r"half\.safetensors: it cannot be read as safetensors"):
            check_weights(lite0(tmp_path / "half.safetensors"))

    def test_a_pickle_that_runs_code_is_refused_and_does_not_run(self, tmp_path):
        class Bomb:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "exploded"),)

        torch.save({"conv_stem.weight": Bomb()}, tmp_path / "bomb.pth")
        for use in (check_weights, lambda config: build_model(config, TASK, px=32)):
            with pytest.raises(WeightsError, match=r"bomb\.pth: refused, since it holds more than tensors"):
                use(lite0(tmp_path / "bomb.pth"))
        assert not (tmp_path / "exploded").exists()

    def test_no_state_dict(self, tmp_path):
        torch.save([1, 2, 3], tmp_path / "list.pth")
        with pytest.raises(WeightsError, match=r"list\.pth: got a list, expected a state dict"):
            check_weights(lite0(tmp_path / "list.pth"))

    def test_another_network(self, weights_dir):
        path = weights_dir / "tf_efficientnet_lite0.safetensors"
        config = TrainConfig(backbone="resnet50", weights=str(path))
        expected = r"they lack conv1\.weight, layer1.*and \d+ more of ResNet's 318 tensors"
        for use in (check_weights, lambda config: build_model(config, TASK, px=32)):
            with pytest.raises(WeightsError, match=expected):
                use(config)

    def test_another_shape_of_the_network(self, tmp_path):
        cnn = TrainConfig(backbone="cnn", cnn=CnnConfig(width=8))
        save_model(build_model(cnn, TASK, px=32), tmp_path / "narrow.safetensors")
        wide = TrainConfig(backbone="cnn", cnn=CnnConfig(width=16), weights=str(tmp_path / "narrow.safetensors"))
        expected = r"got stages\.0\.0\.weight \(8, 3, 3, 3\) instead of \(16, 3, 3, 3\), .* and \d+ more"
        with pytest.raises(WeightsError, match=expected):
            check_weights(wide)

    def test_check_reads_headers_alone(self, tmp_path):
        # 100 MB of weights: reading and comparing names and shapes takes no time that depends on them.
        tensors = {"stages.0.0.weight": torch.zeros(8, 3, 3, 3), "ballast": torch.zeros(25_000_000)}
        save_file(tensors, tmp_path / "large.safetensors")
        config = TrainConfig(backbone="cnn", cnn=CnnConfig(width=8), weights=str(tmp_path / "large.safetensors"))
        began = time.perf_counter()
        with pytest.raises(WeightsError, match="they lack"):
            check_weights(config)
        assert time.perf_counter() - began < 0.5

    def test_too_many_stages_are_found_out_with_the_weights(self, weights_dir):
        with pytest.raises(ConfigError, match="got 9, but EfficientNet has 8 stages"):
            check_weights(lite0(trainable_stages=9), weights_dir=weights_dir)
