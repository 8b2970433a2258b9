"""`nas verify`: whether exported networks still are, on this machine or on a board, what their manifests say.

Hashes, the manifest's own digest, the id and the answers must hold anywhere. Accuracy and latency are
measured again and printed beside what they were: another engine version may round a tie the other way, and
another machine has another speed. Nothing of the folder is loaded in this process.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw_profiles.errors import TrilobitError
from hw_profiles.redaction import printable
from nas.export.library.library import LIBRARY
from nas.export.manifest import Manifest
from nas.export.manifests import AnyManifest, manifest_of, read_any, read_document
from nas.export.package import hash_of
from nas.export.seal import CARD, MANIFEST, MODEL_FILE, SIGNATURE, claims_of, digest_of
from nas.export.signature import fingerprint, is_signed, public_key
from nas.export.tuned_manifest import TunedManifest
from nas.run.frames import frame
from nas.run.reporting import QUIET, Reporter, Table
from nas.verification.file_checks import check_file
from nas.verification.finding import Finding
from nas.verification.library_checks import check_compiled, check_library, compiled_for
from nas.verification.places import Here, OnBoard, place_of
from nas.verification.tuned_checks import check_tuned
from nas.verification.tuned_library_checks import check_tuned_library
from supernet.space.space import candidate_id
from supernet.tasks.loading import load_data
from supernet.tasks.task import Task

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 16  # digits of a hash


@dataclass(frozen=True)
class Checks:
    """What to look at besides hashes and answers.

    Attributes:
        data: whose test part accuracy is measured on; None leaves that out.
        latency: whether it is measured here.
        run_library: whether the machine code of a library may run.
        key: file of the public key that must have signed; None asks for no signature.
        samples: source of what the quality of tuned networks is measured on; empty leaves that out.
        device: that runs the ONNX files, or the libraries where it runs those; empty takes what they were
            exported for.
    """

    data: Task | None = None
    latency: bool = True
    run_library: bool = False
    key: Path | None = None
    samples: str = ""
    device: str = ""


@dataclass(frozen=True)
class Verification:
    """What looking at exported networks again gave.

    Attributes:
        findings: of each network, by the name of its folder.
    """

    findings: Mapping[str, tuple[Finding, ...]]

    @property
    def broken(self) -> tuple[str, ...]:
        """What must hold and does not, in words."""
        return tuple(
            f"{name}: {finding.what} was {finding.then}, is {finding.now}"
            for name, findings in self.findings.items()
            for finding in findings
            if finding.holds is False
        )

    @property
    def holds(self) -> bool:
        """Whether all that must hold holds."""
        return not self.broken

    def to_frame(self) -> "pd.DataFrame":
        """Return a row for each thing that was looked at.

        Raises:
            TrilobitError: pandas is not installed.
        """
        return frame(
            [
                {"network": name, **vars(finding)}
                for name, findings in self.findings.items()
                for finding in findings
            ]
        )

    def require(self) -> None:
        """Raise unless all that must hold holds.

        Raises:
            TrilobitError: names what does not.
        """
        if self.broken:
            raise TrilobitError("; ".join(self.broken) + ": export again, or fetch the folder again")


def verify_networks(
    folder: Path,
    *,
    data: str | None = None,
    latency: bool = True,
    run_library: bool = False,
    key: Path | None = None,
    device: str = "",
    reporter: Reporter = QUIET,
) -> Verification:
    """Check one exported network, or all in a folder, and print what moved.

    Args:
        folder: of an exported network, of several, or of a run.
        data: source whose test part accuracy is measured on; None leaves that out.
        latency, run_library, key, device: see `Checks`.

    Raises:
        TrilobitError: not a folder of exported networks, or one that cannot be read.
    """
    folders = network_folders(folder)
    first = read_any(folders[0])
    tuned = isinstance(first, TunedManifest)
    # split by the seed of the run, where that has to be done
    loaded = load_data(data, seed=first.seed) if data and not tuned else None
    checks = Checks(loaded, latency, run_library, key, data if tuned and data else "", device)
    verification = Verification({path.name: tuple(verify(path, checks, reporter)) for path in folders})
    for name, findings in verification.findings.items():
        reporter.show(_table(name, findings))
    if verification.holds:
        n = len(folders)
        reporter.say(f"{n} network{'s' if n > 1 else ''}: all that must hold holds")
    return verification


def network_folders(folder: Path) -> list[Path]:
    """Return the folders of exported networks in a folder: itself, its children, or those of `export` in a
    run.

    Raises:
        TrilobitError: there is none.
    """
    for parent in (folder, folder / "export"):
        if (parent / MANIFEST).is_file():
            return [parent]
        if folders := sorted(path.parent for path in parent.glob(f"*/{MANIFEST}")):
            return folders
    raise TrilobitError(
        f"{folder}: no exported network there; give a folder with a {MANIFEST}, or a run folder"
    )


def verify(folder: Path, checks: Checks, reporter: Reporter = QUIET) -> list[Finding]:
    """Look at everything in the folder of one network again. Nothing is loaded whose hash is another.

    Args:
        reporter: is shown what takes a while.

    Raises:
        TrilobitError: the manifest is malformed or of another version, a file is not an ONNX model of ours,
            or the data has other classes.
    """
    document = read_document(folder)
    manifest = manifest_of(document, folder / MANIFEST)
    findings = [
        *_seal(document, manifest),
        *_signature(folder, checks.key),
        *_hashes(folder, manifest),
        *_strangers(folder, manifest),
    ]
    if any(finding.holds is False for finding in findings):
        return findings  # nothing else means anything
    if (place := place_of(checks.device)) is not None:
        return [*findings, *_on_place(folder, document, manifest, checks, place, reporter)]
    with reporter.status(f"verify {printable(folder.name)}"):
        return [*findings, *_here(folder, document, manifest, checks)]


def _here(
    folder: Path, document: Mapping[str, Any], manifest: AnyManifest, checks: Checks
) -> Iterator[Finding]:
    """Yield what the files of a network say where files are run, and its library here, where it may."""
    if isinstance(manifest, TunedManifest):
        # times of a library are not those of the file beside it
        latency = checks.latency and manifest.library is None
        yield from check_tuned(
            folder / MODEL_FILE,
            manifest,
            claims_of(document),
            latency=latency,
            samples=checks.samples,
            device=checks.device,
        )
        yield from check_tuned_library(folder, manifest, allowed=checks.run_library)
        return
    claims = claims_of(document) if manifest.digest is not None else None
    yield from check_file(
        folder / MODEL_FILE,
        manifest,
        claims,
        checks.data,
        latency=checks.latency,
        device=checks.device,
    )
    yield from check_library(
        folder, manifest, checks.data, latency=checks.latency, allowed=checks.run_library
    )


def _on_place(
    folder: Path,
    document: Mapping[str, Any],
    manifest: AnyManifest,
    checks: Checks,
    place: Here | OnBoard,
    reporter: Reporter,
) -> Iterator[Finding]:
    """Yield what the ONNX file of a network says here, and all else of its library, where that runs.

    Raises:
        TrilobitError: there is no library, and none can be compiled.
    """
    compiled = manifest.library is None and isinstance(manifest, Manifest) and isinstance(place, OnBoard)
    if manifest.library is None and not compiled:
        raise TrilobitError(
            f"{folder}: no {LIBRARY}, which is what {place.name} runs: `nas export --library TARGET` and "
            "`nas tune --device` write one"
        )
    what = f"verify {printable(folder.name)} on {place.name}"
    model, how = folder / MODEL_FILE, {"latency": checks.latency, "allowed": checks.run_library}
    if isinstance(manifest, TunedManifest):
        with reporter.status(what):
            yield from check_tuned(model, manifest, claims_of(document), latency=False)
            yield from check_tuned_library(folder, manifest, place=place, samples=checks.samples, **how)
        return
    claims = claims_of(document) if manifest.digest is not None else None
    with reporter.status(what):
        yield from check_file(model, manifest, claims, None, latency=False)
    if isinstance(place, OnBoard) and compiled:
        with compiled_for(folder, manifest, place, reporter) as library, reporter.status(what):
            yield from check_compiled(library, manifest, checks.data, place=place, latency=checks.latency)
    else:
        with reporter.status(what):
            yield from check_library(folder, manifest, checks.data, place=place, **how)


def _seal(document: Mapping[str, Any], manifest: AnyManifest) -> Iterator[Finding]:
    """Return what a manifest says of itself."""
    if manifest.digest is None or manifest.space_fingerprint is None:
        note = f"{manifest.schema} has no digest of the manifest, no hash of {CARD}"
        yield Finding("manifest", "written by an earlier version", note, None)
        return
    now = digest_of(document)
    yield Finding(f"digest of {MANIFEST}", manifest.digest[:SHOWN], now[:SHOWN], now == manifest.digest)
    own = candidate_id(manifest.space_fingerprint, manifest.genes)
    yield Finding("id of genes and space", manifest.id, own, own == manifest.id)


def _signature(folder: Path, key: Path | None) -> Iterator[Finding]:
    path = folder / SIGNATURE
    signed = path.is_file() and not path.is_symlink()
    if key is None:
        if signed:
            yield Finding("signature", "signed", "not looked at: --verify-key FILE does", None)
        return
    public = public_key(key)
    named = f"of key {fingerprint(public)}"
    if not signed:
        yield Finding("signature", named, "missing", False)
        return
    holds = is_signed((folder / MANIFEST).read_bytes(), path.read_bytes()[:1024], public)
    yield Finding("signature", named, "valid" if holds else "not by that key, or of another manifest", holds)


def _hashes(folder: Path, manifest: AnyManifest) -> Iterator[Finding]:
    for name, file in manifest.files.items():
        path = folder / name
        if path.is_file() and path.stat().st_size != file.bytes:  # not read: it may have any size
            now = f"{path.stat().st_size} bytes"
            yield Finding(f"size of {name}", f"{file.bytes} bytes", now, False)
            continue
        digest = hash_of(path)
        yield Finding(f"sha256 of {name}", file.sha256[:SHOWN], digest[:SHOWN], digest == file.sha256)


def _strangers(folder: Path, manifest: AnyManifest) -> Iterator[Finding]:
    """Return what is in the folder and nothing vouches for."""
    expected = {MANIFEST, SIGNATURE, *manifest.files}
    if manifest.digest is None:
        expected.add(CARD)
    for path in sorted(folder.iterdir()):
        if path.name not in expected:
            yield Finding(path.name, f"not in {MANIFEST}", "there: move it away", False)


def _table(name: str, findings: Sequence[Finding]) -> Table:
    verdicts = {True: "holds", False: "DIFFERS", None: ""}
    rows = [
        (*map(printable, (finding.what, finding.then, finding.now)), verdicts[finding.holds])
        for finding in findings
    ]
    return Table(("", "exported", "now", ""), rows, printable(name))
