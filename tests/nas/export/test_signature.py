"""Signed exports: by whose key, over which bytes; and what OpenSSL makes of them."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import map_layer
from nas.checks.check import Input
from nas.cli.main import main
from nas.emit.to_onnx import random_network
from nas.export.signature import sign
from supernet.tasks.loading import load_images
from tests.nas.exported import copied, write_exported

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
PLAIN, SPKI = serialization.NoEncryption(), serialization.PublicFormat.SubjectPublicKeyInfo


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with key.pem and key.pub, other.pub, and keys that are none."""
    folder = tmp_path_factory.mktemp("keys")
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    (folder / "key.pem").write_bytes(key.private_bytes(PEM, PKCS8, PLAIN))
    (folder / "key.pub").write_bytes(key.public_key().public_bytes(PEM, SPKI))
    (folder / "other.pub").write_bytes(other.public_key().public_bytes(PEM, SPKI))
    secret = serialization.BestAvailableEncryption(b"secret")
    (folder / "secret.pem").write_bytes(key.private_bytes(PEM, PKCS8, secret))
    curve = generate_private_key(SECP256R1())
    (folder / "curve.pem").write_bytes(curve.private_bytes(PEM, PKCS8, PLAIN))
    (folder / "curve.pub").write_bytes(curve.public_key().public_bytes(PEM, SPKI))
    (folder / "text").write_text("no key")
    return folder


@pytest.fixture(scope="module")
def exported(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data, formats = load_images("digits", seed=0), {"weight_format": "int8", "activation_format": "int8"}
    net = WorkloadBuilder((1, 8, 8))
    x = net.add("pool", map_layer("pool", (1, 8, 8), 1, activation_format="int8"), -1)
    net.add("classifier", map_layer("linear", (1, 1, 1), 10, **formats), x)
    network = random_network(net.build(), rng=np.random.default_rng(0))
    image = Input((8, 8, 1), data.mean, data.std)
    return write_exported(tmp_path_factory.mktemp("export"), network, image, data, key=keys / "key.pem")


def verify(folder: Path, *words: str) -> int:
    return main(["verify", str(folder), "--no-latency", *words])


@pytest.mark.usefixtures("confined_here")
def test_a_signature_says_whose_it_is(
    exported: Path, keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(exported, "--verify-key", str(keys / "key.pub")) == 0
    assert verify(exported) == 0
    assert verify(exported, "--verify-key", str(keys / "other.pub")) == 2
    assert "not by that key, or of another manifest" in capsys.readouterr().err
    folder = copied(exported, tmp_path)
    (folder / "manifest.json").write_bytes((exported / "manifest.json").read_bytes() + b"\n")
    assert verify(folder) == 0
    assert verify(folder, "--verify-key", str(keys / "key.pub")) == 2
    (folder / "manifest.sig").unlink()
    assert verify(folder, "--verify-key", str(keys / "key.pub")) == 2
    assert "is missing" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_agrees(exported: Path, keys: Path) -> None:
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(keys / "key.pub"), "-rawin"]
    command += ["-in", str(exported / "manifest.json"), "-sigfile", str(exported / "manifest.sig")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("secret.pem", "encrypted; give a key without a passphrase"),
        ("curve.pem", "a key of another kind than ed25519; `openssl genpkey"),
        ("text", "no private key in PEM"),
        ("key.pub", "no private key in PEM"),
        ("nothing", "cannot be read (No such file"),
    ],
)
def test_a_key_that_cannot_sign_is_refused(key: str, said: str, keys: Path) -> None:
    with pytest.raises(TrilobitError) as error:
        sign(b"", keys / key)
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("key", ["text", "curve.pub", "key.pem", "nothing"])
def test_a_key_that_cannot_verify_is_refused(
    key: str, exported: Path, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(exported, "--verify-key", str(keys / key)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert str(keys / key) in line


@pytest.mark.usefixtures("confined_here")
def test_without_the_package_it_is_said_how_to_get_it(
    exported: Path, keys: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    assert verify(exported, "--verify-key", str(keys / "key.pub")) == 2
    assert "pip install 'trilobit[sign]'" in capsys.readouterr().err
    assert verify(exported) == 0
