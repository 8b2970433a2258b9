"""Who exported a network: an ed25519 signature (RFC 8032) over the bytes of its manifest."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw_profiles.errors import TrilobitError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MAKE_KEY = "`openssl genpkey -algorithm ed25519 -out KEY` makes one"
PUBLIC_PART = "`openssl pkey -in KEY -pubout` gives the public part of one"


def sign(data: bytes, key: Path) -> bytes:
    """Return the signature, 64 bytes, with the private key in a PEM file.

    Raises:
        TrilobitError: there is no such key, it is encrypted or of another kind, or `cryptography` is missing.
    """
    signature: bytes = private_key(key).sign(data)
    return signature


def private_key(path: Path) -> "Ed25519PrivateKey":
    """Return the private key in a PEM file.

    Raises:
        TrilobitError: as `sign`.
    """
    from_pem = _serialization("sign").load_pem_private_key
    try:
        key: Ed25519PrivateKey = from_pem(_read(path), password=None)
    except TypeError:
        raise TrilobitError(f"{path}: encrypted; give a key without a passphrase: {MAKE_KEY}") from None
    except Exception as error:  # of several kinds, by what is wrong with it
        raise TrilobitError(f"{path}: no private key in PEM ({_first_line(error)}); {MAKE_KEY}") from None
    _require_ed25519(key, path, MAKE_KEY)
    return key


def is_signed(data: bytes, signature: bytes, key: "Ed25519PublicKey") -> bool:
    """Return whether the owner of a public key signed these bytes."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def public_key(path: Path) -> "Ed25519PublicKey":
    """Return the public key in a PEM file.

    Raises:
        TrilobitError: there is no such key, it is of another kind, or `cryptography` is missing.
    """
    from_pem = _serialization("check a signature").load_pem_public_key
    try:
        key: Ed25519PublicKey = from_pem(_read(path))
    except Exception as error:
        raise TrilobitError(f"{path}: no public key in PEM ({_first_line(error)}); {PUBLIC_PART}") from None
    _require_ed25519(key, path, PUBLIC_PART)
    return key


def fingerprint(key: "Ed25519PublicKey") -> str:
    """Return the first digits of the SHA-256 of a public key's 32 bytes, for people to compare."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _serialization(purpose: str) -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError:
        raise TrilobitError(
            f"to {purpose} needs the package cryptography, which is not installed: "
            "pip install 'trilobit[sign]'"
        ) from None
    return serialization


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TrilobitError(f"{path}: cannot be read ({error.strerror}); give a key in PEM") from None


def _require_ed25519(key: object, path: Path, remedy: str) -> None:
    if "Ed25519" not in type(key).__name__:
        raise TrilobitError(f"{path}: a key of another kind than ed25519; {remedy}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]
